"""The coordinator gets another address: certificate, roster, and sites that follow without a code."""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.hospitals import DATA, LOADED, PYTHON, SITES, Hospitals, free_port, needs_flower, until
from deploy.parties import SUBMITTER, Parties, enrolled, initialised, provisioned
from deploy.test_flower import assert_same_model, local_model, write_job
from wardround.cli.app import app
from wardround.cli.exit import guarded
from wardround.deploy import checkup, enrolling, pki
from wardround.deploy.coordinator import Coordinator
from wardround.deploy.enrolment import Enrolment, Roster
from wardround.deploy.identity import Identity
from wardround.errors import ConfigError, IdentityError


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    return enrolled(tmp_path)


def edit(project: Path, **changes: Any) -> None:
    """As the administrator edits project.yaml."""
    tree = yaml.safe_load(project.read_text())
    tree["coordinator"] |= changes
    project.write_text(yaml.safe_dump(tree))


def connects(parties: Parties, site: str, name: str) -> bool:
    """Whether a site, with the authority that it has, believes the coordinator's certificate under a name."""
    certificate, key = parties.coordinator.server
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(parties.sites[site].authority))
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(far, server_side=True).close()
        except (OSError, ssl.SSLError):
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(near, server_hostname=name):
            return True
    except ssl.SSLCertVerificationError:
        return False
    finally:
        near.close()
        thread.join()


def test_a_coordinator_moves_and_all_follow_without_a_code(parties: Parties) -> None:
    folder, site = parties.coordinator, parties.sites["zurich"]
    before, code = folder.roster(), folder.roster().code
    key = folder.server[1].read_bytes()
    edit(folder.path / "project.yaml", addresses=["fl.new.example", "localhost"], port=9000)
    moved = enrolling.move(folder.path)
    assert (moved.dialled, moved.serial, moved.code) == ("fl.new.example:9000", before.serial + 1, code)
    assert pki.validity(folder.server[0]).addresses == ("fl.new.example", "localhost")
    assert folder.server[1].read_bytes() != key
    # who has not heard of it still comes in at the old address, which is kept behind the new one
    assert (site.address, connects(parties, "zurich", "localhost")) == ("localhost:8443", True)
    assert not connects(parties, "zurich", "127.0.0.1")
    found = enrolling.join(site.path, parties.roster_file)
    assert [(one.what, one.name, one.proved) for one in found] == [("address", "coordinator", True)]
    assert "localhost:8443 -> fl.new.example:9000" in found[0].text
    assert (site.address, connects(parties, "zurich", "fl.new.example")) == ("fl.new.example:9000", True)
    for name in ("budapest", "cleveland"):
        enrolling.join(parties.sites[name].path, parties.roster_file)
    enrolling.join(parties.submitter.path, parties.roster_file)
    for path in (folder.path, site.path, parties.submitter.path):
        assert [one for one in checkup.check(path) if one.level == "error"] == []


def test_nobody_else_moves_a_coordinator(parties: Parties, tmp_path: Path) -> None:
    roster, site = parties.coordinator.roster(), parties.sites["zurich"]
    elsewhere = replace(roster, serial=roster.serial + 1, addresses=("evil.example",))
    stranger = Identity.generate("coordinator")
    own = replace(roster.coordinator, public=stranger.public.hex())
    others = tuple(one for one in roster.entries if one.role != "coordinator")
    file = tmp_path / "roster.json"
    for made in (
        elsewhere, elsewhere.sealed(site.identity()), replace(elsewhere, entries=(own, *others)).sealed(stranger),
        replace(roster, addresses=("evil.example",)).sealed(parties.coordinator.identity()),  # a second one of this serial
    ):  # fmt: skip
        file.write_bytes(made.to_bytes())
        with pytest.raises(IdentityError):
            enrolling.join(site.path, file)
        assert site.address == "localhost:8443"


def test_an_edited_project_does_nothing_until_it_is_moved(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_FLOWER_PYTHON", str(PYTHON or "/bin/sh"))
    folder = parties.coordinator
    with pytest.raises(ConfigError, match="as the roster does: edit"):
        enrolling.move(folder.path)
    edit(folder.path / "project.yaml", port=9000)
    for act in (
        lambda: Coordinator(folder.path), lambda: enrolling.rotate_coordinator(folder.path, "server"),
        folder.settled,
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="wardround deploy move DIR"):
            act()
    assert [one.what for one in checkup.check(folder.path) if one.level == "error"] == ["address"]
    # who is enrolled or revoked meanwhile is told the address that holds
    assert enrolling.revoke(folder.path, "budapest").dialled == "localhost:8443"
    assert enrolling.move(folder.path).dialled == "localhost:9000"
    made = Coordinator(folder.path)
    made._lock.release()
    enrolling.rotate_coordinator(folder.path, "server")


def test_whoever_has_not_enrolled_yet_gets_a_new_file_with_the_same_token(tmp_path: Path) -> None:
    folder = provisioned(tmp_path / "project")
    file = folder.path / "enrolments" / "zurich.json"
    before = Enrolment.from_bytes(file.read_bytes())
    (early,) = initialised(tmp_path, folder, ["budapest"]).values()
    edit(folder.path / "project.yaml", addresses=["192.0.2.7"])
    enrolling.move(folder.path)
    after = Enrolment.from_bytes(file.read_bytes())
    assert (after.addresses, after.token) == (("192.0.2.7",), before.token)
    late = enrolling.init_party(file, tmp_path / "zurich")
    # a request from the file that named the old address counts too
    roster = enrolling.enrol(folder.path, [early.path / "request.json", late.path / "request.json"])
    for party in (early, late):
        enrolling.join(party.path, folder.path / "roster.json", roster.code)
        assert party.address == "192.0.2.7:8443"


def test_a_move_that_was_cut_short_is_made_again(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = parties.coordinator
    edit(folder.path / "project.yaml", addresses=["fl.new.example"])
    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "write_roster", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            enrolling.move(folder.path)
    assert folder.roster().dialled == "localhost:8443"
    assert enrolling.move(folder.path).dialled == "fl.new.example:8443"
    assert pki.check_issued(folder.server[0], folder.authority)


def test_the_command_says_what_to_do_next(parties: Parties, capsys: pytest.CaptureFixture[str]) -> None:
    folder = parties.coordinator.path
    assert guarded(app, ["deploy", "move", str(folder)]) == 2
    assert "edit coordinator.addresses" in capsys.readouterr().err
    edit(folder / "project.yaml", addresses=["fl.new.example"])
    assert guarded(app, ["deploy", "move", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "sites dial fl.new.example:8443" in said
    assert f"send to all: {folder / 'roster.json'}" in said
    assert guarded(app, ["deploy", "site", "join", str(parties.sites["zurich"].path), str(folder / "roster.json")]) == 0
    assert "coordinator moves: localhost:8443 -> fl.new.example:8443" in capsys.readouterr().out
    assert Roster.from_bytes((folder / "roster.json").read_bytes()).entry(SUBMITTER)


@pytest.mark.long
@pytest.mark.slow
@needs_flower
def test_a_coordinator_moves_in_the_middle_of_a_run_past_a_proxy_that_is_not_there(tmp_path: Path) -> None:
    made = Hospitals(tmp_path, DATA, str(PYTHON))
    plain = {name: value for name, value in made.environment.items() if not name.lower().endswith("_proxy")}
    nowhere = f"http://127.0.0.1:{free_port()}"
    through = plain | dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"), nowhere)
    made.environment = through
    made.start("coordinator")
    made.environment = plain
    made.start(*SITES)
    try:
        made.online()
        pids = {site: made.status(site)["pid"] for site in SITES}
        job = write_job(tmp_path, "fedavg")
        run = made.submit(job, overrides=("training.rounds=30",))
        made.reached(run, 3)
        before = made.processes.pop("coordinator")
        before.terminate()
        assert before.wait(60 * LOADED) == 0
        rounds = made.status()["round"]
        assert 3 <= rounds < 30
        edit(made.coordinator.path / "project.yaml", port=free_port())
        roster = enrolling.move(made.coordinator.path)
        made.environment = through
        made.start("coordinator")
        until(lambda: made.status().get("connected"), 120, "the coordinator reaches its SuperLink, past the proxy")
        assert "online" not in made.status()["sites"].values()
        for site in SITES:
            enrolling.join(tmp_path / site, made.coordinator.path / "roster.json")
        assert made.outcome(run, 240)["status"] == "done"
        assert {site: made.status(site)["pid"] for site in SITES} == pids  # none was begun again
        assert all(f"the coordinator is at {roster.dialled}" in made.log(site) for site in SITES)
    finally:
        made.stop()
    assert not made.left()
    assert_same_model(made.run_folder(run), local_model(job, tmp_path / "local", "training.rounds=30"), 1e-6)
