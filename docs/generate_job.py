"""Writes docs/job.md from the job's own classes, so that the page cannot say anything else than the code.

Run it after a change of `wardround.config.job`:  .venv/bin/python docs/generate_job.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from wardround.config.job import Job

PAGE = Path(__file__).with_name("job.md")

INTRODUCTION = """\
# The job

<!-- Written by docs/generate_job.py; do not edit. -->

A job is a YAML file, or the same tree as Python objects (`wardround.Job`). Every key has a default; an unknown key is an error
that names the nearest known one, and so is a key given twice. `wardround run job.yaml --set training.rounds=5` overrides a
key; `--set` may be repeated. The whole job, defaults included, is written to `job.yaml` in the run's folder.

A default of `-` means: not set. `module:Class` is a plug-in, see [extending](extending.md).
"""

_KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "object": "mapping",
    "null": "null",
}

NOTES: Mapping[str, str] = {
    "evaluation.release_scores": (
        "With `false` there are pooled figures from summed histograms; figures by site, and paired differences at each site, "
        "only with `evaluation.site_figures`."
    ),
}
"""What this version does with a key, beside its meaning."""


def page() -> str:
    """The page. Raises ValueError where a key has no meaning, or a note is for no key."""
    schema = Job.model_json_schema()
    keys = dict(_keys(Job, schema, schema, ""))
    unknown = NOTES.keys() - keys.keys()
    if unknown:
        raise ValueError(f"docs/generate_job.py speaks of keys that a job does not have: {', '.join(sorted(unknown))}")
    sections: dict[str, list[str]] = {}
    for key, row in keys.items():
        sections.setdefault(key.rpartition(".")[0], []).append(row)
    lines = [INTRODUCTION]
    for section, rows in sections.items():
        lines += [f"## `{section}`" if section else "## The run itself", "", _summary(section), ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def _keys(node: type[BaseModel], place: Mapping[str, Any], schema: Mapping[str, Any], prefix: str) -> Iterator[Any]:
    """Key -> its row of a table; the keys of a node before those of the nodes in it."""
    nested = []
    for name, field in node.model_fields.items():
        key = prefix + name
        about = place["properties"][name]
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            nested.append((field.annotation, schema["$defs"][field.annotation.__name__], f"{key}."))
            continue
        if not field.description:
            raise ValueError(f"{key}: say what it means, in a docstring below the field in wardround.config.job")
        meaning = " ".join(part for part in (field.description, NOTES.get(key)) if part)
        yield (
            key,
            f"| `{key}` | {_type(about)} | {_value(field.get_default(call_default_factory=True))} | {_cell(meaning)} |",
        )
    for inner, about, path in nested:
        yield from _keys(inner, about, schema, path)


def _summary(section: str) -> str:
    node: type[BaseModel] = Job
    for part in section.split(".") if section else ():
        annotation = node.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            raise ValueError(f"{section} is no node of the job")
        node = annotation
    return " ".join((node.__doc__ or "").split())


def _type(about: Mapping[str, Any]) -> str:
    if "anyOf" in about:
        return " or ".join(_type(one) for one in about["anyOf"])
    if "enum" in about:
        return ", ".join(f"`{value}`" for value in about["enum"])
    kind = "object" if "$ref" in about else str(about["type"])
    if "prefixItems" in about:
        return f"[{', '.join(_type(one) for one in about['prefixItems'])}]"
    if kind == "array":
        return f"list of {_type(about['items'])}"
    if "const" in about:
        return _value(about["const"])
    return _KINDS[kind] + _range(about)


def _range(about: Mapping[str, Any]) -> str:
    words = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
    bounds = [f"{word} {_bound(about[key])}" for key, word in words.items() if key in about]
    return f" {', '.join(bounds)}" if bounds else ""


def _bound(value: float) -> str:
    return "2^63" if value == 2**63 else f"{value:,}".replace(",", " ")


def _value(value: Any) -> str:
    return "-" if value is None else f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
