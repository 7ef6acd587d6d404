"""Plug-ins by `module:Class`, and the plain tables of built-in names."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.abc
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import CodeType, ModuleType
from typing import Any

from wardround.errors import ConfigError

Source = Callable[[str], tuple[bytes, str]]
"""Reference -> the bytes of its module, which were checked, and the path they came from. Raises ConfigError, Refused."""
_SOURCE: ContextVar[Source | None] = ContextVar("source", default=None)
_LOADED: dict[tuple[str, str], ModuleType] = {}
"""(name, SHA-256) -> the module that these bytes made in this process."""


class _Bytes(importlib.abc.InspectLoader):
    """Makes a module of bytes that are there: no file is read, and no compiled one either."""

    def __init__(self, data: bytes, path: str) -> None:
        self.data, self.path, self.digest = data, path, hashlib.sha256(data).hexdigest()

    def get_source(self, fullname: str) -> str:
        """The text, for tracebacks."""
        return importlib.util.decode_source(self.data)

    def get_code(self, fullname: str) -> CodeType:
        """What runs."""
        code: CodeType = compile(self.data, self.path, "exec", dont_inherit=True)
        return code

    def is_package(self, fullname: str) -> bool:
        """One file."""
        return False


@contextmanager
def only_from(source: Source) -> Iterator[None]:
    """Within it (in this thread), a plug-in's module is made of the bytes that `source` gives, and nothing else is imported."""
    token = _SOURCE.set(source)
    try:
        yield
    finally:
        _SOURCE.reset(token)


def digest(reference: str) -> str | None:
    """SHA-256 of the code behind a plug-in that was resolved: of the bytes that were run, else of its file; None without one."""
    module = sys.modules.get(reference.partition(":")[0])
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    if isinstance(loader, _Bytes):
        return loader.digest
    path = getattr(module, "__file__", None)
    if not path:
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_object(reference: str, where: str, source: Source | None = None) -> Any:
    """The object that `module:Attribute` names, of what `source` gives where there is one.

    Raises:
        ConfigError: says which half is missing.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{where} = {reference!r}: expected 'module:Class'")
    if not module_name.startswith("wardround."):
        # a plug-in may import Keras, which reads this once, and here can only run on PyTorch
        os.environ.setdefault("KERAS_BACKEND", "torch")
    given = None if source is None else source(reference)
    try:
        module = importlib.import_module(module_name) if given is None else _made(module_name, *given)
    except ConfigError:
        raise
    except Exception as error:  # a plug-in may fail in any way while it is imported
        raise ConfigError(
            f"{where} = {reference!r}: the module '{module_name}' cannot be imported: {type(error).__name__}: {error}; "
            f"{_advice(error)}"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise ConfigError(f"{where} = {reference!r}: '{module_name}' has no '{attribute}'") from error


def _made(name: str, data: bytes, path: str) -> ModuleType:
    """The module that these bytes make; the same bytes make one module in a process."""
    loader = _Bytes(data, path)
    there = sys.modules.get(name)
    if there is not None and not isinstance(getattr(there.__spec__, "loader", None), _Bytes):
        raise ConfigError(f"plug-in {name}: another module of that name is in use here: rename it")
    found = _LOADED.get((name, loader.digest))
    if found is not None:
        sys.modules[name] = found
        return found
    spec = importlib.util.spec_from_loader(name, loader, origin=path)
    if spec is None:
        raise ConfigError(f"plug-in {name}: it is no module")
    module = importlib.util.module_from_spec(spec)
    module.__file__ = path
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _LOADED[name, loader.digest] = module
    return module


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
        return load_object(name, where, _SOURCE.get())
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
