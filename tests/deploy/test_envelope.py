"""Messages between coordinator and site: whole, for whom they are meant, in time, once."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wardround import wire
from wardround.content import Content
from wardround.deploy import canonical
from wardround.deploy.envelope import (
    LABEL,
    MAGIC,
    Envelope,
    EnvelopeRefused,
    Seen,
    check_body,
    claimed_sender,
    open_,
    seal,
)
from wardround.deploy.identity import Identity, IdentityRefused, Pins
from wardround.errors import ConfigError, MessageError, StorageError
from wardround.types import Message

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BODY = wire.encode(Message(stage="train", meta={"round": 3}, arrays={"w": torch.arange(6.0).reshape(2, 3)}))
SITE, COORDINATOR, STRANGER = (Identity.generate(name) for name in ("vienna", "coordinator", "graz"))
PINS = Pins(keys={"vienna": SITE.public, "coordinator": COORDINATOR.public})


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Seen]:
    found = Seen(tmp_path / "seen.db")
    yield found
    found.close()


def sealed(
    identity: Identity = COORDINATOR, *, number: int = 0, body: bytes = BODY, now: datetime = NOW, **given: Any
) -> bytes:
    arguments = {"recipient": "vienna", "run": "heart-1", "kind": "ask", **given}
    return seal(identity, number=number, body=body, now=now, **arguments)


def opened(data: bytes, seen: Seen, *, pins: Pins = PINS, now: datetime = NOW, **given: Any) -> Envelope:
    return open_(pins, data, seen=seen, now=now, **{"me": "vienna", "sender": "coordinator", **given})


def reason_of(data: bytes, seen: Seen, **given: Any) -> str:
    """Why a message is refused; that it was is checked here, and that nothing was noted of it."""
    with pytest.raises((EnvelopeRefused, IdentityRefused)) as caught:
        opened(data, seen, **given)
    return str(caught.value.reason)


def test_what_was_sealed_is_opened(seen: Seen) -> None:
    found = opened(sealed(number=7), seen)
    assert (found.sender, found.recipient, found.run, found.number, found.kind) == (
        "coordinator",
        "vienna",
        "heart-1",
        7,
        "ask",
    )
    assert found.sent == "2026-03-01T12:00:00.000+00:00"
    message = wire.decode(found.body)
    assert message.meta == {"round": 3}
    assert torch.equal(message.arrays["w"], torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("body", [b"", b"{}", b'{"job": 1}', BODY])
def test_bodies_are_a_message_json_or_nothing(seen: Seen, body: bytes) -> None:
    assert opened(sealed(body=body), seen).body.read(0, 10**6) == body


def test_the_same_message_is_taken_once_also_after_a_restart(seen: Seen, tmp_path: Path) -> None:
    data = sealed()
    opened(data, seen)
    assert reason_of(data, seen) == "replayed"
    again = Seen(tmp_path / "seen.db")
    assert reason_of(data, again) == "replayed"
    opened(sealed(number=1), again)
    assert reason_of(sealed(number=1), again) == "replayed"
    opened(sealed(number=1, run="heart-2"), again)
    again.close()


def test_a_message_for_or_by_somebody_else_is_refused(seen: Seen) -> None:
    assert reason_of(sealed(recipient="zurich"), seen) == "recipient"
    assert reason_of(sealed(STRANGER), seen, sender=None) == "unknown"
    assert reason_of(sealed(SITE), seen) == "sender"
    assert reason_of(sealed(run="heart-2"), seen, run="heart-1") == "run"
    assert opened(sealed(SITE), seen, sender=None).sender == "vienna"


def test_a_key_that_is_not_the_pinned_one_is_refused(seen: Seen) -> None:
    impostor = Identity.generate("coordinator")
    assert reason_of(sealed(impostor), seen) == "unknown"
    revoked = Pins(keys=PINS.keys, revoked=frozenset({COORDINATOR.fingerprint}))
    assert reason_of(sealed(), seen, pins=revoked) == "revoked"
    rotated = Pins(keys={"coordinator": impostor.public}, revoked=frozenset({COORDINATOR.fingerprint}))
    assert reason_of(sealed(), seen, pins=rotated) == "revoked"
    expired = Pins(keys=PINS.keys, expires={"coordinator": NOW - timedelta(days=1)})
    assert reason_of(sealed(), seen, pins=expired) == "expired"
    opened(sealed(), seen)  # none of them used the number up


def test_a_header_that_names_another_key_than_signed_it_is_refused(seen: Seen) -> None:
    impostor = Identity.generate("coordinator")
    header = canonical.encode({**_header(sealed()), "session": impostor.session})
    forged = MAGIC + len(header).to_bytes(4, "big") + header + impostor.sign(LABEL + header) + BODY
    assert reason_of(forged, seen) == "signature"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_anywhere_is_found(seen: Seen, data: st.DataObject) -> None:
    message = bytearray(sealed(number=99))
    at = data.draw(st.integers(0, len(message) - 1))
    message[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises((EnvelopeRefused, IdentityRefused)):
        opened(bytes(message), seen)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(end=st.integers(0, 10_000), more=st.binary(max_size=8))
def test_a_message_that_was_cut_or_extended_is_found(seen: Seen, end: int, more: bytes) -> None:
    whole = sealed(number=98)
    changed = whole[: end % len(whole)] + more
    if changed != whole:
        with pytest.raises((EnvelopeRefused, IdentityRefused)):
            opened(changed, seen)


def test_a_refused_copy_uses_no_number_up(seen: Seen) -> None:
    message = sealed(number=99)
    assert reason_of(message[:-1], seen) == "altered"
    assert opened(message, seen).number == 99


@pytest.mark.parametrize("minutes", [-16, 16, 24 * 60, -24 * 60])
def test_a_clock_that_is_wrong_is_refused_and_both_are_named(seen: Seen, minutes: int) -> None:
    here = NOW + timedelta(minutes=minutes)
    with pytest.raises(EnvelopeRefused, match="clock") as caught:
        opened(sealed(), seen, now=here)
    assert caught.value.reason == "clock"
    assert "2026-03-01T12:00:00.000+00:00" in str(caught.value)
    assert canonical.time_text(here) in str(caught.value)
    opened(sealed(), seen)


def test_clocks_may_differ_by_a_quarter_of_an_hour(seen: Seen) -> None:
    opened(sealed(number=1), seen, now=NOW + timedelta(minutes=15))
    opened(sealed(number=2), seen, now=NOW - timedelta(minutes=15))
    opened(sealed(number=3), seen, now=NOW + timedelta(hours=2), skew=timedelta(hours=2))


def test_an_oversized_message_is_refused_before_it_is_looked_at(seen: Seen) -> None:
    data = sealed()
    assert reason_of(data, seen, limit=len(data) - 1) == "oversized"
    assert reason_of(b"\xff" * 1000, seen, limit=999) == "oversized"
    opened(data, seen, limit=len(data))


@pytest.mark.parametrize(
    "data", [b"", b"WRE1", MAGIC + b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n" * 20, MAGIC + bytes(200)]
)
def test_what_is_no_message_is_refused(seen: Seen, data: bytes) -> None:
    assert reason_of(data, seen) == "malformed"
    assert claimed_sender(Content(data)) == "?"


class Bomb:
    """Runs code where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_never_run(seen: Seen, tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "ran"
    evil = pickle.dumps(Bomb(marker), protocol=protocol)
    with pytest.raises(EnvelopeRefused, match="pickle") as caught:
        sealed(body=evil)
    assert caught.value.reason == "pickle"
    assert reason_of(_sealed_unchecked(evil), seen) == "pickle"
    assert not marker.exists()
    pickle.loads(evil)
    assert marker.exists()  # the bomb was live


def test_an_archive_as_pytorch_saves_it_is_refused(seen: Seen) -> None:
    saved = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, saved)
    assert reason_of(_sealed_unchecked(saved.getvalue()), seen) == "pickle"


@pytest.mark.parametrize("body", [b"\x7fELF" + bytes(60), b"#!/bin/sh\n", b'{"a":', b"\x01", bytes(16), b"x" * 100])
def test_other_bodies_are_refused(seen: Seen, body: bytes) -> None:
    with pytest.raises(EnvelopeRefused) as caught:
        check_body(Content(body))
    assert caught.value.reason == "body"
    assert reason_of(_sealed_unchecked(body), seen) == "body"


def test_json_has_a_limit_of_its_own() -> None:
    with pytest.raises(EnvelopeRefused, match="expected at most 16777216"):
        check_body(Content(b'{"a": "' + b"x" * 2**24 + b'"}'))


@pytest.mark.parametrize("changes", [{"recipient": "../vienna"}, {"run": "a/b"}, {"run": ""}])
def test_names_that_are_paths_are_not_sealed(changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 64"):
        sealed(**changes)


@pytest.mark.parametrize(
    "changes", [{"kind": "A B"}, {"kind": ""}, {"kind": "../x"}, {"number": -1}, {"number": 2**63}]
)
def test_what_no_recipient_would_take_is_not_sealed(changes: dict[str, Any]) -> None:
    with pytest.raises(EnvelopeRefused, match="expected a-z, 0-9 and -, and 0 or more"):
        sealed(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"sender": "../../etc/passwd"}, {"run": "../../x"}, {"number": -1}, {"number": True}, {"number": 1.5}, {"kind": "A B"},
        {"sent": "yesterday"}, {"sent": "2026-03-01T12:00:00"}, {"session": "x"}, {"body": "00"}, {"more": 1}, {"size": "6"},
        {"key": "SHA256:short"},
    ],
)  # fmt: skip
def test_a_signed_header_of_another_form_is_refused(seen: Seen, changes: dict[str, Any]) -> None:
    header = canonical.encode({**_header(sealed()), **changes})
    data = MAGIC + len(header).to_bytes(4, "big") + header + COORDINATOR.sign(LABEL + header) + BODY
    assert reason_of(data, seen) == "malformed"


def test_a_header_in_another_spelling_is_refused(seen: Seen) -> None:
    header = canonical.encode(_header(sealed())).replace(b'":', b'": ')
    data = MAGIC + len(header).to_bytes(4, "big") + header + COORDINATOR.sign(LABEL + header) + BODY
    assert reason_of(data, seen) == "malformed"


def test_an_identity_in_two_places_is_refused_until_somebody_has_looked(seen: Seen) -> None:
    here, thief = (_again(COORDINATOR) for _ in range(2))
    opened(sealed(here, number=0), seen)
    opened(sealed(thief, number=0, now=NOW + timedelta(seconds=1)), seen)
    late = sealed(here, number=1, now=NOW + timedelta(seconds=2))
    assert reason_of(late, seen) == "second-place"
    assert reason_of(sealed(thief, number=1, now=NOW + timedelta(seconds=3)), seen) == "second-place"
    assert seen.contested() == [("coordinator", "heart-1")]
    opened(sealed(here, number=0, run="heart-2"), seen)  # another run is judged by itself
    assert seen.clear("coordinator") == 1
    opened(late, seen)


def test_a_process_that_was_started_again_goes_on_and_late_messages_of_the_dead_one_arrive(seen: Seen) -> None:
    dead, alive = (_again(COORDINATOR) for _ in range(2))
    opened(sealed(dead, number=0), seen)
    in_flight = sealed(dead, number=1, now=NOW + timedelta(seconds=1))
    opened(sealed(alive, number=0, now=NOW + timedelta(seconds=2)), seen)
    opened(in_flight, seen)
    opened(sealed(alive, number=1, now=NOW + timedelta(seconds=3)), seen)
    assert seen.contested() == []


def test_where_numbers_cannot_be_noted_nothing_is_taken(tmp_path: Path) -> None:
    (tmp_path / "seen.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="cannot be used"):
        Seen(tmp_path / "seen.db")
    seen = Seen(tmp_path / "other.db")
    seen.close()
    with pytest.raises(StorageError, match="no message is taken"):
        opened(sealed(), seen)
    with pytest.raises(StorageError):
        seen.clear("coordinator")


def test_the_sender_that_a_refused_message_claims_is_a_name_or_a_question_mark() -> None:
    assert claimed_sender(Content(sealed(STRANGER))) == "graz"
    assert claimed_sender(Content(b"junk")) == "?"


def test_both_errors_are_of_the_tree() -> None:
    assert issubclass(EnvelopeRefused, MessageError)


def _header(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[4:8], "big")
    return canonical.parse(data[8 : 8 + length], "header")


def _sealed_unchecked(body: bytes) -> bytes:
    """As a sender without scruples seals it: the signature is right."""
    import hashlib

    header = canonical.encode({**_header(sealed()), "size": len(body), "body": hashlib.sha256(body).hexdigest()})
    return MAGIC + len(header).to_bytes(4, "big") + header + COORDINATOR.sign(LABEL + header) + body


def _again(identity: Identity) -> Identity:
    """The same key in another process."""
    return Identity(identity.name, identity.private)
