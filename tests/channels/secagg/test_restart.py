"""A site's process may end between any two stages: its folder says what it may still do, and never the same mask twice."""

from __future__ import annotations

import base64
import stat
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.secagg.harness import STAGES, Ward, collect, draw, exact, names, once_each
from wardround.channels.home import Home
from wardround.channels.secagg.server import MaskServer, MaskSpec
from wardround.errors import MessageError, QuorumLost, RunError, StorageError
from wardround.store import atomic


def kept(folder: Path | None, count: int = 5, spec: MaskSpec | None = None) -> Ward:
    here = Ward(home=replace(Home.simulated(names(count)), folder=folder), spec=spec or MaskSpec())
    draw(here, 16)
    return here


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_with_a_folder_a_restart_after_any_stage_changes_nothing(stage: str, active: bool, tmp_path: Path) -> None:
    here = kept(tmp_path, spec=MaskSpec(active=active))
    here.between = lambda done: here.restart() if done == stage else None
    server = MaskServer(here.spec)
    for index in range(3):
        outcome = collect(here, server, index=index, quorum=5)
        assert exact(here, outcome)
    assert here.stages.count("mask-keys") == 1  # the keys for the next exchange were kept as well
    assert not here.refused
    assert once_each(here.uses)


@pytest.mark.parametrize("stage", STAGES)
def test_without_a_folder_a_restart_costs_an_attempt(stage: str) -> None:
    here = kept(None, spec=MaskSpec(active=True))
    here.between = lambda done: here.restart() if done == stage else None
    server, lost = MaskServer(here.spec), []
    for index in range(2):
        try:
            assert exact(here, collect(here, server, index=index))
        except QuorumLost:
            lost.append(index)
            here.between = None
            assert exact(here, collect(here, server, index=index, attempt=1))
        here.between = None
    assert lost == [1 if stage == "mask-reveal" else 0]  # the keys for the next exchange, or those of this one
    assert once_each(here.uses)


@settings(max_examples=15, deadline=None)
@given(count=st.integers(4, 6), active=st.booleans(), on_disk=st.booleans(), data=st.data())
def test_restarts_drop_outs_and_retries_never_use_a_key_twice(
    count: int, active: bool, on_disk: bool, data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        here = kept(Path(folder) if on_disk else None, count, MaskSpec(active=active))
        server = MaskServer(here.spec)
        events = st.sets(st.tuples(st.sampled_from(STAGES), st.sampled_from(here.sites)), max_size=2)
        for index in range(3):
            for attempt in range(3):
                ends = data.draw(st.sets(st.sampled_from(STAGES), max_size=2)) if attempt < 2 else set()
                here.deaf, here.mute = (data.draw(events), data.draw(events)) if attempt < 2 else (set(), set())
                here.between = lambda done, ends=ends: here.restart() if done in ends else None
                if data.draw(st.booleans()):
                    server = MaskServer(here.spec)  # the server's process ends as well
                with suppress(QuorumLost):
                    assert exact(here, collect(here, server, index=index, attempt=attempt))
                    break
            else:
                pytest.fail("an attempt without any fault was lost")
        assert once_each(here.uses)


def test_a_site_that_uploaded_may_still_reveal_after_a_restart_and_no_more(tmp_path: Path) -> None:
    here = kept(tmp_path)
    server = MaskServer(here.spec)
    here.between = lambda done: here.restart() if done == "contribute" else None
    assert exact(here, collect(here, server))
    request = next(request for request in here.requests if request.message.stage == "contribute")
    here.restart()
    with pytest.raises(MessageError, match="agreed on other keys"):
        here.site.mask(here.sites[0], here.values[here.sites[0]].copy(), here.modulus, request, bytes(32))
    reveal = next(request for request in here.requests if request.message.stage == "mask-reveal")
    (reply,) = here.site.stages()["mask-reveal"]((here.sites[0],), reveal)
    assert "said it before" in reply.message.meta["masks"]["refused"]
    assert once_each(here.uses)


def test_secrets_are_gone_from_the_disk_once_they_are_used(tmp_path: Path) -> None:
    here = kept(tmp_path)
    secrets: list[str] = []

    def look(done: str) -> None:
        if done == "mask-shares":
            for state in here.site._states.values():
                assert state.keys is not None
                whole = (state.keys.share, state.keys.mask, state.keys.seed)
                secrets.extend(base64.b64encode(secret).decode() for secret in whole)
            text = "".join(path.read_text() for path in tmp_path.iterdir())
            assert all(secret in text for secret in secrets)

    here.between = look
    collect(here, MaskServer(here.spec))
    assert len(secrets) == 15
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert not any(secret in text for secret in secrets)


def test_keys_are_gone_before_a_mask_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = kept(tmp_path)
    server = MaskServer(here.spec)
    here.deaf = {("contribute", site) for site in here.sites}
    with pytest.raises(QuorumLost):
        collect(here, server)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path: Path, data: bytes, *, private: bool = False) -> None:
        raise StorageError(f"{path} could not be written: no space")

    here.deaf.clear()

    def fill(done: str) -> None:
        if done == "mask-shares":
            monkeypatch.setattr(atomic, "write_bytes", full)

    here.between = fill
    with pytest.raises(StorageError):
        collect(here, server, attempt=1)
    assert not here.uses
    assert {path.name for path in tmp_path.iterdir()} == before.keys()


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such mode there")
def test_the_file_is_readable_by_its_user_alone_and_what_was_interrupted_is_swept(tmp_path: Path) -> None:
    here = kept(tmp_path)
    collect(here, MaskServer(here.spec))
    files = list(tmp_path.iterdir())
    assert len(files) == 5
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    left = tmp_path / f".{files[0].name}.01234567.tmp"
    left.write_text("secrets")
    here.restart()
    assert not left.exists()


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"version": 1}', "other"])
def test_a_damaged_state_is_named(damage: str, tmp_path: Path) -> None:
    here = kept(tmp_path)
    collect(here, MaskServer(here.spec))
    for path in tmp_path.iterdir():
        text = path.read_text()
        path.write_text(text.replace("hospital-00", "hospital-10") if damage == "other" else damage)
    here.restart()
    with pytest.raises(RunError, match=r"masks-.*\.json is damaged or not the state of site 'hospital-00"):
        collect(here, MaskServer(here.spec), index=1)
