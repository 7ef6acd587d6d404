"""Keys on the disk, fingerprints, and what a signature is refused for."""

from __future__ import annotations

import base64
import hashlib
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wardround.deploy.identity import (
    Identity,
    IdentityRefused,
    Pins,
    fingerprint,
    read_secret,
    verify_raw,
    write_secret,
)
from wardround.errors import ConfigError, IdentityError, StorageError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_saved_key_is_the_same_and_its_owners_alone(tmp_path: Path) -> None:
    identity = Identity.generate("vienna")
    identity.save(tmp_path / "identity.pem")
    again = Identity.load("vienna", tmp_path / "identity.pem")
    assert (again.public, again.fingerprint) == (identity.public, identity.fingerprint)
    assert again.session != identity.session
    assert stat.S_IMODE((tmp_path / "identity.pem").stat().st_mode) == 0o600
    assert verify_raw(identity.public, b"said", again.sign(b"said"))
    assert not verify_raw(identity.public, b"sad", again.sign(b"said"))


def test_a_fingerprint_is_the_hash_of_the_raw_key() -> None:
    public = Identity.generate("vienna").public
    assert len(public) == 32
    assert fingerprint(public) == "SHA256:" + base64.b64encode(hashlib.sha256(public).digest()).decode()[:43]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    Identity.generate("vienna").save(path)
    path.chmod(0o640)
    with pytest.raises(IdentityError, match="mode 0640"):
        Identity.load("vienna", path)


def test_what_is_no_ed25519_key_is_refused(tmp_path: Path) -> None:
    from wardround.deploy import pki

    with pytest.raises(IdentityError, match="is absent"):
        Identity.load("vienna", tmp_path / "identity.pem")
    write_secret(tmp_path / "identity.pem", b"no key")
    with pytest.raises(IdentityError, match="not a private key in PEM form"):
        Identity.load("vienna", tmp_path / "identity.pem")
    pki.make_authority("heart", tmp_path / "ca.pem", tmp_path / "ca.key")
    with pytest.raises(IdentityError, match="expected an Ed25519 private key"):
        Identity.load("vienna", tmp_path / "ca.key")


@pytest.mark.parametrize(
    "name", ["", "Vienna", "../etc", "a/b", "a\\b", ".", "..", "-a", "a b", "a\n", "é", "con", "a" * 65, "a\x00b"]
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 64 of a-z"):
        Identity.generate(name)


@pytest.mark.parametrize("name", ["a", "0", "vienna-general_2", "a" * 64])
def test_a_plain_name_is_taken(name: str) -> None:
    assert Identity.generate(name).name == name


def test_signatures_are_refused_by_name() -> None:
    vienna, other = Identity.generate("vienna"), Identity.generate("vienna")
    pins = Pins(
        keys={"vienna": vienna.public, "old": other.public}, revoked=frozenset({other.fingerprint}),
        roles={"vienna": "site"}, expires={"vienna": NOW},
    )  # fmt: skip
    before = NOW - timedelta(seconds=1)
    pins.verify("vienna", b"said", vienna.sign(b"said"), now=before)
    for name, data, signature, now, reason in (
        ("graz", b"said", vienna.sign(b"said"), before, "unknown"),
        ("old", b"said", other.sign(b"said"), before, "revoked"),
        ("vienna", b"said", vienna.sign(b"said"), NOW, "expired"),
        ("vienna", b"sad", vienna.sign(b"said"), before, "signature"),
        ("vienna", b"said", other.sign(b"said"), before, "signature"),
        ("vienna", b"said", b"", before, "signature"),
    ):
        with pytest.raises(IdentityRefused) as caught:
            pins.verify(name, data, signature, now=now)
        assert caught.value.reason == reason
        assert name in str(caught.value)
    with pytest.raises(IdentityRefused, match="vienna is enrolled as site, expected submitter"):
        pins.check_role("vienna", "submitter")


def test_evidence_of_an_earlier_key_still_counts_as_evidence() -> None:
    now, then, stranger = (Identity.generate("vienna") for _ in range(3))
    pins = Pins(keys={"vienna": now.public}, earlier={"vienna": (then.public,)}, revoked=frozenset({then.fingerprint}))
    assert pins.signed_once("vienna", b"said", then.sign(b"said"))
    assert pins.signed_once("vienna", b"said", now.sign(b"said"))
    assert not pins.signed_once("vienna", b"said", stranger.sign(b"said"))
    assert not pins.signed_once("graz", b"said", now.sign(b"said"))


def test_a_secret_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    write_secret(tmp_path / "secret", b"one")
    write_secret(tmp_path / "secret", b"two")
    assert read_secret(tmp_path / "secret") == b"two"
    with pytest.raises(StorageError, match="could not be written"):
        write_secret(tmp_path / "absent" / "secret", b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
