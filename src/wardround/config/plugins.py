"""Plug-ins by `module:Class`, and the plain tables of built-in names."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from wardround.errors import ConfigError


def load_object(reference: str, where: str) -> Any:
    """The object that `module:Attribute` names. Raises ConfigError that says which half is missing."""
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{where} = {reference!r}: expected 'module:Class'")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a plug-in may fail in any way while it is imported
        raise ConfigError(
            f"{where} = {reference!r}: the module '{module_name}' cannot be imported: {type(error).__name__}: {error}; "
            "install it, or name its folder in PYTHONPATH"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise ConfigError(f"{where} = {reference!r}: '{module_name}' has no '{attribute}'") from error


def resolve(name: str, table: Mapping[str, str], where: str) -> Any:
    """The object behind a built-in name (whose table entry is a `module:Attribute`, imported now) or a plug-in."""
    if name in table:
        return load_object(table[name], where)
    if ":" in name:
        return load_object(name, where)
    raise unknown_name(name, table, where)


def unknown_name(name: str, known: Iterable[str], where: str) -> ConfigError:
    """The error for a name that is in no table."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return ConfigError(f"{where} = {name!r}: {hint}known: {', '.join(known)}, or a plug-in 'module:Class'")


def construct(factory: Any, options: Mapping[str, Any], where: str) -> Any:
    """Call a plug-in's class with its options; ConfigError where they do not fit its signature."""
    try:
        return factory(**options)
    except (TypeError, ValueError, LookupError) as error:
        raise ConfigError(
            f"{where}: the options {dict(options)!r} do not fit {factory!r}: {type(error).__name__}: {error}"
        ) from error
