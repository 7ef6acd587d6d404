"""Plug-ins by `module:Class`, and the plain tables of built-in names."""

from __future__ import annotations

import difflib
import importlib
import os
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

from wardround.errors import ConfigError


def load_object(reference: str, where: str) -> Any:
    """The object that `module:Attribute` names. Raises ConfigError that says which half is missing."""
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{where} = {reference!r}: expected 'module:Class'")
    if not module_name.startswith("wardround."):
        # a plug-in may import Keras, which reads this once, and here can only run on PyTorch
        os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a plug-in may fail in any way while it is imported
        raise ConfigError(
            f"{where} = {reference!r}: the module '{module_name}' cannot be imported: {type(error).__name__}: {error}; "
            f"{_advice(error)}"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise ConfigError(f"{where} = {reference!r}: '{module_name}' has no '{attribute}'") from error


def _advice(error: Exception) -> str:
    """What to do where a plug-in, or a library that it imports, cannot be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name == "keras":
        return 'pip install "wardround[keras]"'
    if isinstance(error, ModuleNotFoundError) and error.name in ("monai", "einops"):
        return 'pip install "wardround[imaging]"'
    backend = os.environ.get("KERAS_BACKEND", "torch")
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    if backend != "torch" and any(name.partition(".")[0] == "keras" for name in modules):
        return f"the environment has KERAS_BACKEND = {backend}, expected torch: unset it"
    return "install it, or name its folder in PYTHONPATH"


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
    except ImportError as error:
        raise ConfigError(f"{where}: {factory!r}: {type(error).__name__}: {error}; {_advice(error)}") from error
    except (TypeError, ValueError, LookupError) as error:
        raise ConfigError(
            f"{where}: the options {dict(options)!r} do not fit {factory!r}: {type(error).__name__}: {error}"
        ) from error
