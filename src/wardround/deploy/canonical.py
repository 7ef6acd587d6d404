"""One text for one JSON value, so that a signature over bytes is a signature over what they say.

Keys sorted, no spaces, UTF-8, no NaN. `parse` takes back only what `encode` writes: no second spelling, no key given twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from wardround.errors import MessageError
from wardround.types import Json


def encode(value: Json) -> bytes:
    """The canonical text.

    Raises:
        MessageError: the value is not JSON (NaN, say).
    """
    try:
        text = json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageError(f"a value is not JSON and cannot be signed: {error}") from error


def parse(data: bytes, what: str) -> dict[str, Any]:
    """The object that `encode` wrote.

    Args:
        data: the text.
        what: what it is, for the error.

    Raises:
        MessageError: not JSON, not an object, or another text than `encode` gives for it.
    """
    try:
        value = json.loads(data.decode(), parse_constant=_no_constant)
        same = isinstance(value, dict) and encode(value) == data
    except (ValueError, RecursionError) as error:
        raise MessageError(f"{what} is not JSON: {error}") from error
    if not same:
        raise MessageError(
            f"{what} is not in canonical form: it was edited, or made by another program; ask for it again"
        )
    found: dict[str, Any] = value
    return found


def member(tree: Mapping[str, Any], key: str, kind: type | tuple[type, ...], what: str) -> Any:
    """One member of a parsed object, of the kind it must have.

    Raises:
        MessageError: absent, or of another kind. `True` is no number.
    """
    value = tree.get(key)
    if key not in tree or not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        expected = kind.__name__ if isinstance(kind, type) else " or ".join(one.__name__ for one in kind)
        raise MessageError(f"{what}: member '{key}' is {type(value).__name__}, expected {expected}")
    return value


def time_text(moment: datetime) -> str:
    """A moment as text: UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def time_from(text: str, what: str) -> datetime:
    """The moment that `time_text` wrote.

    Raises:
        MessageError: not a moment, or one without its offset from UTC.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise MessageError(
            f"{what}: {text!r:.80} is not a time: expected one such as 2026-01-31T12:00:00.000+00:00"
        ) from error
    if moment.tzinfo is None:
        raise MessageError(f"{what}: {text!r:.80} has no offset from UTC")
    return moment


def exact_time(text: str, what: str) -> datetime:
    """The moment, in the very text that `time_text` writes.

    Raises:
        MessageError: another spelling, or not a moment.
    """
    moment = time_from(text, what)
    try:
        same = time_text(moment) == text
    except OverflowError:
        same = False
    if not same:
        raise MessageError(f"{what}: {text!r:.80}: expected a time such as 2026-01-31T12:00:00.000+00:00")
    return moment


def now() -> datetime:
    """The time by this machine's clock, in UTC."""
    return datetime.now(UTC)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
