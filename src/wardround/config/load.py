"""From a YAML file and `--set a.b=c` to a `Job`, with errors that name the key, its value and the nearest known key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from wardround.config.job import Job
from wardround.errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"


class _UniqueKeys(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, which YAML would silently let win."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
            continue
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise ConfigError(f"line {key_node.start_mark.line + 1}: the key '{key}' is given twice: remove one")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; ConfigError with line and column where it is malformed."""
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except ConfigError as error:
        raise ConfigError(f"{where}, {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise ConfigError(f"{place}: not YAML: {getattr(error, 'problem', error)}") from error
    except ValueError as error:  # a date that is none, say
        raise ConfigError(f"{where}: not YAML: {error}") from error


def load(path: Path | str, overrides: Iterable[str] = ()) -> Job:
    """Read a job file and apply overrides such as `training.rounds=5`.

    Raises:
        ConfigError: the file is absent, is not YAML, has an unknown key or a value out of range.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"no job file at {path}: give the path of a YAML file (examples/wdbc.yaml, say)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return from_mapping(parse_yaml(text, str(path)), overrides, where=str(path))


def from_mapping(tree: Any, overrides: Iterable[str] = (), *, where: str = "job") -> Job:
    """A job from plain mappings, as YAML or JSON gives them."""
    if tree is None:
        tree = {}
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where}: a job is a mapping of keys to values, and this is a {type(tree).__name__}")
    merged = dict(tree)
    for override in overrides:
        _override(merged, override)
    try:
        return Job.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, where)) from error


def _override(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override}: expected KEY=VALUE, such as --set training.rounds=5")
    node = tree
    for part in parts[:-1]:
        child = node.get(part)
        child = dict(child) if isinstance(child, Mapping) else {}
        node[part] = child
        node = child
    node[parts[-1]] = parse_yaml(text, f"--set {name}")
    twin = _TWINS.get(".".join(parts))
    if twin and node[parts[-1]] is not None:
        node.pop(twin, None)


_TWINS = {
    "training.local_steps": "local_epochs",
    "training.local_epochs": "local_steps",
    "participation.fraction": "count",
}
"""Two ways to say one thing exclude each other: an override replaces its twin."""


def _explain(error: ValidationError, where: str) -> str:
    lines: list[str] = []
    reasons: dict[str, list[str]] = {}
    for item in error.errors():
        place, reason = _place(item["loc"]), str(item["msg"])
        if item["type"] == "extra_forbidden":
            lines.append(_unknown_key(item["loc"]))
        elif item["type"] == "value_error":
            reason = reason.removeprefix("Value error, ")
            lines.append(f"{place}: {reason}" if place else reason)
        else:
            # a key that allows this or that gives one error for each, and they make one line
            reason = _PLAIN.get(item["type"], f"{reason[0].lower()}{reason[1:]}")
            reasons.setdefault(f"{place} = {item['input']!r}", []).append(reason)
    lines += [f"{given}: {', or '.join(dict.fromkeys(found))}" for given, found in reasons.items()]
    return f"{where}: " + "; ".join(dict.fromkeys(lines))


_PLAIN = {
    "model_type": "expected keys and values under it",
    "tuple_type": "expected a list, such as [a, b]",
    "dict_type": "expected keys and values under it",
    "string_pattern_mismatch": "expected letters, digits, spaces and . + - _ alone",
}
"""Kinds of errors that are said in the words of YAML."""


def _place(location: tuple[int | str, ...]) -> str:
    """The key as a user writes it: without the names that a validator gives to alternatives."""
    known: list[str] = []
    for part in location:
        if known and not _fields_at(tuple(known)) and not isinstance(part, int):
            break
        known.append(str(part))
    return ".".join(known)


def _unknown_key(location: tuple[int | str, ...]) -> str:
    fields = _fields_at(location[:-1])
    key = str(location[-1])
    place = ".".join(str(part) for part in location)
    close = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
    if close:
        nearest = ".".join([*(str(part) for part in location[:-1]), close[0]])
        return f"unknown key '{place}': did you mean '{nearest}'?"
    everywhere = _all_keys(Job, "")
    other = difflib.get_close_matches(key, [name for _, name in everywhere], n=1, cutoff=0.75)
    paths = " or ".join(f"'{path}'" for path, name in everywhere if other and name == other[0])
    hint = f"did you mean {paths}? " if paths else ""
    return f"unknown key '{place}': {hint}known here: {', '.join(sorted(fields))}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Job
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        model = field.annotation
    return list(model.model_fields)


def _all_keys(model: type[BaseModel], prefix: str) -> list[tuple[str, str]]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append((prefix + name, name))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _all_keys(field.annotation, f"{prefix}{name}.")
    return keys


def difference(old: Job, new: Job) -> list[str]:
    """The keys in which two jobs differ, as lines `key: old -> new`."""
    before, after = _flat(old.model_dump(mode="json"), ""), _flat(new.model_dump(mode="json"), "")
    missing = object()
    return [
        f"{key}: {_show(before.get(key, missing), missing)} -> {_show(after.get(key, missing), missing)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, missing) != after.get(key, missing)
    ]


def _show(value: object, missing: object) -> str:
    return "(absent)" if value is missing else repr(value)


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def dump(job: Job) -> str:
    """The whole job as YAML, defaults included."""
    return yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
