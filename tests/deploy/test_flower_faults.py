"""What breaks at night, between real processes: networks, stalls, a second coordinator, a full disk; and a hiding channel."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from deploy.hospitals import LOADED, PYTHON, Hospitals, needs_flower, until
from deploy.test_flower import assert_same_model, local_model, write_job
from wardround.deploy import operate, pki
from wardround.deploy.identity import fingerprint
from wardround.federation.engines.flower import relay

pytestmark = [pytest.mark.slow, needs_flower]


@contextlib.contextmanager
def held(hospitals: Hospitals, name: str) -> Iterator[None]:
    """A process that does nothing for a while."""
    process = hospitals.processes[name]
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def trains(hospitals: Hospitals, site: str, round: int) -> bool:
    """Whether a site works on its contribution to a round now."""
    time.sleep(0.01)
    try:
        return bool(hospitals.status(site)["doing"] == f"contribute train {round}")
    except (KeyError, ValueError):
        return False


def sent(hospitals: Hospitals, site: str, run: str, round: int) -> list[str]:
    """Digests of what a site's log says that it sent in a round."""
    found = hospitals.entries(site, "message-sent")
    return [entry["digest"] for entry in found if entry["run"] == run and entry.get("round") == round]


def test_the_masked_channel_gives_what_one_process_gives(hospitals: Hospitals, tmp_path: Path) -> None:
    job = write_job(tmp_path, "fedavg")
    more = ("privacy.channel.kind=secagg", "training.rounds=2", "participation.quorum=3")
    name = hospitals.submit(job, overrides=more)
    assert hospitals.outcome(name, 120)["status"] == "done"
    assert_same_model(hospitals.run_folder(name), local_model(job, tmp_path / "local", *more), 1e-6)


@pytest.mark.long
def test_masked_homomorphic_encryption_gives_what_one_process_gives(hospitals: Hospitals, tmp_path: Path) -> None:
    """Masks and ciphertexts carry the same digits, so the sums are equal, not merely close."""
    job = write_job(tmp_path, "fedavg")
    more = (
        "privacy.channel.kind=he",
        "privacy.channel.options={masks: true}",
        "training.rounds=2",
        "training.dtype=float64",
    )
    name = hospitals.submit(job, overrides=more)
    assert hospitals.outcome(name, 120)["status"] == "done"
    assert_same_model(hospitals.run_folder(name), local_model(job, tmp_path / "local", *more), 1e-6)


@pytest.mark.long
def test_a_site_killed_while_its_update_is_fetched_gives_the_same_one_again(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    job = write_job(tmp_path, "fedavg")
    wide = "model.options={hidden: [1500, 1500], norm: none}"  # 9 MB: three parts
    more = ("training.rounds=2", "seed=14", "training.local_steps=20", wide)
    name = hospitals.submit(job, overrides=more)
    until(lambda: trains(hospitals, "va", 1), 60, "va trains")
    with held(hospitals, "coordinator"):  # which has one part of the answer at most
        until(lambda: sent(hospitals, "va", name, 1), 60, "va has sealed its answer")
        hospitals.kill("va")
        hospitals.start("va")
        until(lambda: hospitals.status("va").get("connected"), 60, "va is back")
    assert hospitals.outcome(name, 120)["status"] == "done"
    first, again = sent(hospitals, "va", name, 1)
    assert first == again
    assert "va: again: " in hospitals.log("coordinator")
    assert_same_model(hospitals.run_folder(name), local_model(job, tmp_path / "local", *more))


def test_a_site_killed_between_stages_of_the_masked_channel_takes_its_masks_off(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    job = write_job(tmp_path, "fedavg")
    more = (
        "privacy.channel.kind=secagg", "training.rounds=2", "training.local_steps=1500", "training.dtype=float64", "seed=15",
        "participation.quorum=3",
    )  # fmt: skip
    name = hospitals.submit(job, overrides=more)
    until(lambda: trains(hospitals, "va", 1), 60, "va trains")
    with held(hospitals, "hungarian"):  # so that the coordinator cannot go on to the next stage
        digest = until(lambda: not trains(hospitals, "va", 1) and sent(hospitals, "va", name, 1), 60, "va answers")[-1]
        until(
            lambda: any(entry["digest"] == digest for entry in hospitals.entries("coordinator", "message-received")), 30,
            "its contribution is there",
        )  # fmt: skip
        hospitals.kill("va")
        hospitals.start("va")
        until(lambda: hospitals.status("va").get("connected"), 60, "va is back")
    assert hospitals.outcome(name, 120)["status"] == "done"
    rounds = [entry for entry in hospitals.entries("coordinator", "round") if entry["run"] == name]
    assert [entry["missing"] for entry in rounds] == [[], []]
    assert (
        len(sent(hospitals, "va", name, 1)) > sent(hospitals, "va", name, 1).index(digest) + 1
    )  # it answered a later stage
    assert_same_model(hospitals.run_folder(name), local_model(job, tmp_path / "local", *more), 1e-6)


LATE = """
import datetime, importlib, sys
sys.path.insert(0, {folder!r})
auth = importlib.import_module("flwr.supernode.node_auth_http_interceptor")
true_now = auth.now
auth.now = lambda: true_now() + datetime.timedelta(days={days})
import relay
relay.main()
"""


@pytest.mark.parametrize(("who", "days", "reason"), [("stranger", 0, "activation"), ("va", 1, "key")])
def test_who_is_refused_for_a_key_or_a_clock_is_in_the_audit_log(
    hospitals: Hospitals, tmp_path: Path, who: str, days: int, reason: str
) -> None:
    key = hospitals.folder / who / "node.key"
    if who == "stranger":
        key = tmp_path / "node.key"
        pki.make_node_key(key)
    before = len(hospitals.entries("coordinator", "connection-refused"))
    code = LATE.format(folder=str(Path(relay.__file__).parent), days=days)
    process = subprocess.Popen([str(PYTHON), "-c", code, "site"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    pipe = relay.Pipe(process.stdout, process.stdin)  # type: ignore[arg-type]
    authority = str(hospitals.coordinator.authority)
    pipe.send({"address": f"127.0.0.1:{hospitals.port}", "authority": authority, "key": str(key)})
    frame = pipe.receive()
    process.stdin.close()
    process.wait(15 * LOADED)
    process.stdout.close()
    assert frame is not None
    assert frame[0]["op"] == "down"
    until(lambda: hospitals.entries("coordinator", "connection-refused")[before:], 20, "it is noted")
    noted = hospitals.entries("coordinator", "connection-refused")[before:]
    public = load_ssh_public_key(key.with_suffix(".pub").read_bytes())
    mark = fingerprint(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert (reason, mark) in {(entry["reason"], entry["fingerprint"]) for entry in noted}


@pytest.mark.long
def test_a_cut_network_delays_a_run_and_does_not_change_it(hospitals: Hospitals, tmp_path: Path) -> None:
    job = write_job(tmp_path, "scaffold")
    name = hospitals.submit(job, overrides=("training.rounds=5", "seed=11"))
    hospitals.reached(name, 1)
    hospitals.cable.cut()
    time.sleep(5)
    assert hospitals.status()["run"] == name
    hospitals.cable.mend()
    assert hospitals.outcome(name, 120)["status"] == "done"
    assert_same_model(hospitals.run_folder(name), local_model(job, tmp_path / "local", "training.rounds=5", "seed=11"))


def test_a_stalled_site_is_left_out_at_the_deadline_and_comes_back(hospitals: Hospitals, tmp_path: Path) -> None:
    more = ("training.rounds=5", "seed=12", "participation.deadline_seconds=12", "participation.quorum=3")
    name = hospitals.submit(write_job(tmp_path, "scaffold"), overrides=more)
    hospitals.reached(name, 1)
    stalled = hospitals.processes["va"]
    stalled.send_signal(signal.SIGSTOP)
    hospitals.reached(name, 3, 90)
    stalled.send_signal(signal.SIGCONT)
    assert hospitals.outcome(name, 120)["status"] == "done"
    rounds = [entry for entry in hospitals.entries("coordinator", "round") if entry["run"] == name]
    assert ["va"] in [entry["missing"] for entry in rounds]
    assert {tuple(entry["missing"]) for entry in rounds} <= {(), ("va",)}


def test_a_second_coordinator_of_the_folder_does_not_start(hospitals: Hospitals) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "wardround", "deploy", "coordinator", "start", str(hospitals.coordinator.path)],
        env=hospitals.environment, capture_output=True, text=True, timeout=60 * LOADED, check=False,
    )  # fmt: skip
    assert second.returncode == 6
    assert "running already" in second.stderr


def test_a_run_that_no_site_may_run_ends_with_its_cause(hospitals: Hospitals, tmp_path: Path) -> None:
    name = hospitals.submit(write_job(tmp_path, "fedavg"), overrides=("training.rounds=500",))
    outcome = hospitals.outcome(name)
    assert outcome["status"] == "failed"
    assert "training.rounds = 500" in outcome["cause"]


def test_a_job_by_a_stranger_stays_in_the_inbox(hospitals: Hospitals, tmp_path: Path) -> None:
    from wardround.config import load
    from wardround.deploy.identity import Identity
    from wardround.deploy.jobs import sign_job

    roster = hospitals.coordinator.roster()
    sites = {entry.name: entry.fingerprint for entry in roster.entries if entry.role == "site"}
    signed = sign_job(Identity.generate("mallory"), operate.between(load(write_job(tmp_path, "fedavg"), [])), sites)
    inbox = hospitals.coordinator.path / "inbox"
    (inbox / "x.json").write_bytes(signed.to_bytes())
    until((inbox / "refused" / "x.json").exists, 20, "it is refused")
    assert hospitals.entries("coordinator", "job-refused")[-1]["reason"] == "unknown"


def test_a_site_with_a_full_disk_is_left_out(hospitals: Hospitals, tmp_path: Path) -> None:
    """Files that cannot grow past a limit stand for the full disk: the same error reaches the store."""
    more = ("training.rounds=6", "seed=13", "participation.quorum=3", "participation.deadline_seconds=12")
    name = hospitals.submit(write_job(tmp_path, "scaffold"), overrides=more)
    hospitals.reached(name, 1)
    import resource

    pid, unlimited = hospitals.processes["hungarian"].pid, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        hospitals.reached(name, 3, 90)
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    assert hospitals.outcome(name, 120)["status"] == "done"
    missing = [entry["missing"] for entry in hospitals.entries("coordinator", "round") if entry["run"] == name]
    assert ["hungarian"] in missing
    assert hospitals.processes["hungarian"].poll() is None
