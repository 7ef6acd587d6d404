"""Signed jobs: data, by whom, for which sites, and the files of plug-ins that never travel."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.config.job import Job
from wardround.config.load import from_mapping
from wardround.deploy import canonical
from wardround.deploy.identity import Identity, IdentityRefused, Pins
from wardround.deploy.jobs import LIMIT, SignedJob, plugin_file, plugin_hash, references, sign_job
from wardround.deploy.names import is_name
from wardround.errors import ConfigError, MessageError, Refused

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SMITH = Identity.generate("dr-smith")
SITES = {name: Identity.generate(name) for name in ("budapest", "cleveland", "zurich")}
NEEDED = {name: identity.fingerprint for name, identity in SITES.items()}
PINS = Pins(
    keys={identity.name: identity.public for identity in (SMITH, *SITES.values())},
    roles={"dr-smith": "submitter", **dict.fromkeys(SITES, "site")},
)
JOB = from_mapping({"name": "Heart 1", "data": {"dataset": "heart"}, "training": {"rounds": 3}})


def test_a_job_travels_and_is_the_same() -> None:
    signed = sign_job(SMITH, JOB, NEEDED, now=NOW)
    again = SignedJob.from_bytes(signed.to_bytes())
    again.verify(PINS, me="budapest", now=NOW)
    assert again == signed
    assert again.job == JOB
    assert again.id == signed.id
    assert is_name(again.id)
    assert again.id.startswith("heart-1-")


def test_the_same_job_submitted_again_is_another_run() -> None:
    first, second = (sign_job(SMITH, JOB, NEEDED, now=NOW) for _ in range(2))
    assert first.id != second.id


@settings(max_examples=50, deadline=None)
@given(name=st.text(alphabet="abzXYZ09_ .+-é日", min_size=1, max_size=80))
def test_an_id_is_a_name_whatever_the_job_is_called(name: str) -> None:
    assert is_name(sign_job(SMITH, Job(name=name), NEEDED, now=NOW).id)


def test_a_job_by_a_stranger_is_refused() -> None:
    stranger = Identity.generate("mallory")
    with pytest.raises(IdentityRefused, match="mallory") as caught:
        sign_job(stranger, JOB, NEEDED).verify(PINS, me="budapest")
    assert caught.value.reason == "unknown"
    impostor = Identity.generate("dr-smith")
    with pytest.raises(IdentityRefused) as caught:
        sign_job(impostor, JOB, NEEDED).verify(PINS, me="budapest")
    assert caught.value.reason == "signature"


def test_a_site_may_not_submit_and_a_revoked_or_expired_submitter_neither() -> None:
    with pytest.raises(IdentityRefused) as caught:
        sign_job(SITES["zurich"], JOB, NEEDED).verify(PINS)
    assert caught.value.reason == "role"
    signed = sign_job(SMITH, JOB, NEEDED)
    for reason, pins in (
        ("revoked", Pins(keys=PINS.keys, roles=PINS.roles, revoked=frozenset({SMITH.fingerprint}))),
        ("expired", Pins(keys=PINS.keys, roles=PINS.roles, expires={"dr-smith": NOW})),
    ):
        with pytest.raises(IdentityRefused) as caught:
            signed.verify(pins, now=NOW)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"job": {**JOB.model_dump(mode="json"), "seed": 1}},
        {"sites": {"budapest": NEEDED["budapest"]}},
        {"created": canonical.time_text(NOW + timedelta(days=1))},
        {"plugins": {"nets:Deep": "0" * 64}},
        {"nonce": "0" * 32},
    ],
)
def test_what_was_signed_cannot_be_changed(changes: dict[str, Any]) -> None:
    tree = canonical.parse(sign_job(SMITH, JOB, NEEDED, now=NOW).to_bytes(), "job")
    altered = SignedJob.from_bytes(canonical.encode({**tree, **changes}))
    with pytest.raises(IdentityRefused) as caught:
        altered.verify(PINS, now=NOW)
    assert caught.value.reason == "signature"


def test_the_sites_it_needs_must_be_those_that_are_pinned() -> None:
    sybil = {**NEEDED, "graz": Identity.generate("graz").fingerprint}
    with pytest.raises(Refused, match="needs site graz"):
        sign_job(SMITH, JOB, sybil).verify(PINS)
    swapped = {**NEEDED, "zurich": Identity.generate("zurich").fingerprint}
    with pytest.raises(Refused, match="needs site zurich with key"):
        sign_job(SMITH, JOB, swapped).verify(PINS)
    with pytest.raises(Refused, match="needs site dr-smith"):
        sign_job(SMITH, JOB, {**NEEDED, "dr-smith": SMITH.fingerprint}).verify(PINS)
    others = {name: mark for name, mark in NEEDED.items() if name != "budapest"}
    with pytest.raises(Refused, match="it is not for this site"):
        sign_job(SMITH, JOB, others).verify(PINS, me="budapest")
    with pytest.raises(ConfigError, match="none is named"):
        sign_job(SMITH, JOB, {})
    with pytest.raises(ConfigError, match=r"\.\./graz"):
        sign_job(SMITH, JOB, {"../graz": NEEDED["zurich"]})


@pytest.mark.parametrize(
    "changes",
    [
        {"submitter": "../x"}, {"sites": {}}, {"sites": {"../x": NEEDED["zurich"]}}, {"sites": {"x": "SHA256:no"}},
        {"sites": []}, {"nonce": "x"}, {"signature": "00"}, {"job": []}, {"created": "today"}, {"more": 1},
        {"plugins": {"os:system": "x"}}, {"plugins": {"../x:Y": "0" * 64}},
    ],
)  # fmt: skip
def test_a_file_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    tree = canonical.parse(sign_job(SMITH, JOB, NEEDED).to_bytes(), "job")
    with pytest.raises(MessageError):
        SignedJob.from_bytes(canonical.encode({**tree, **changes}))


def test_bytes_that_are_no_job_are_refused() -> None:
    data = sign_job(SMITH, JOB, NEEDED).to_bytes()
    for bad in (b"", b"\x80\x04.", b"[]", data + b"\n", data[:-1], b" " * (LIMIT + 1), b"[" * 100_000):
        with pytest.raises(MessageError):
            SignedJob.from_bytes(bad)


def test_a_job_of_a_newer_version_is_refused_when_it_is_read() -> None:
    tree = {**JOB.model_dump(mode="json"), "telepathy": True}
    signed = SignedJob(**{**vars(sign_job(SMITH, JOB, NEEDED)), "job_yaml": canonical.encode(tree)})
    with pytest.raises(ConfigError, match="telepathy"):
        _ = signed.job


# -------------------------------------------------------------------------------------------------------- plug-ins


def test_references_are_found_wherever_they_stand() -> None:
    job = from_mapping(
        {
            "data": {"dataset": "mine:Data", "options": {"reader": "os:system", "deep": [{"x": "subprocess:run"}]}},
            "model": {"name": "nets:Deep", "options": {"block": "nets:Block"}},
            "engine": {"device": "cuda:1"},
        }
    )
    assert dict(references(job)) == {
        "data.dataset": "mine:Data",
        "data.options.reader": "os:system",
        "data.options.deep.0.x": "subprocess:run",
        "model.name": "nets:Deep",
        "model.options.block": "nets:Block",
    }


def test_a_plugin_is_one_file_known_by_its_hash_and_is_not_imported(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w')\nclass Deep: pass\n"
    (tmp_path / "hospital_nets.py").write_text(code)
    digest = hashlib.sha256(code.encode()).hexdigest()
    assert plugin_hash(tmp_path, "hospital_nets:Deep") == digest
    job = from_mapping({"model": {"name": "hospital_nets:Deep"}})
    signed = sign_job(SMITH, job, NEEDED, plugins=tmp_path)
    assert signed.plugins == {"hospital_nets:Deep": digest}
    signed.verify(PINS)
    assert not marker.exists()
    with pytest.raises(ConfigError, match="no folder of their files"):
        sign_job(SMITH, job, NEEDED)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("os:system", "is installed here"),
        ("torch:load", "is installed here"),
        ("wardround.store.atomic:remove_tree", "one file without packages"),
        ("../evil:X", "one file without packages"),
        ("a/b:X", "one file without packages"),
        ("hospital_absent:X", "there is no file"),
        ("hospital_nets:a.b", "one file without packages"),
    ],
)
def test_a_plugin_that_is_not_a_file_of_its_own_is_refused(tmp_path: Path, reference: str, words: str) -> None:
    for name in ("os", "torch", "hospital_nets"):
        (tmp_path / f"{name}.py").write_text("")
    with pytest.raises(ConfigError, match=words):
        plugin_file(tmp_path, reference)


def test_a_link_is_no_plugin(tmp_path: Path) -> None:
    (tmp_path / "real.py").write_text("")
    (tmp_path / "hospital_nets.py").symlink_to(tmp_path / "real.py")
    with pytest.raises(ConfigError, match="there is no file"):
        plugin_file(tmp_path, "hospital_nets:Deep")
