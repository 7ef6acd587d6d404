"""Each party in a network of its own: who can reach whom, and a line that is dead for a minute.

Packets vanish: nobody is told that a connection ended, unlike where a relay closes sockets (test_flower_faults.py). In one run
the cable is cut at the site (its machine sees no carrier), in the other the line swallows packets somewhere on the way (both
ends see a good link).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.hospitals import DATA, EXAMPLE, LOADED, PYTHON, SITES, Hospitals, Network, needs_flower, until
from deploy.test_flower import assert_same_model, local_model, write_job

pytestmark = [pytest.mark.slow, needs_flower]

MINUTE = 60.0
BACK = 30.0
"""Seconds after which a site works again once its line does: fifteen on an idle machine."""


def made_network() -> Network:
    try:
        return Network()
    except OSError as error:
        pytest.skip(str(error))


@dataclass
class Cut:
    """A run, and when things happened: seconds since the line was cut, or since it was mended."""

    hospitals: Hospitals
    overrides: tuple[str, ...]
    job: Path
    run: str = ""
    rounds: list[int] = field(default_factory=list)
    noticed: dict[str, float] = field(default_factory=dict)
    back: dict[str, float] = field(default_factory=dict)

    @property
    def va(self) -> dict[str, bool]:
        """Whether the site, and the coordinator, believe that the site is connected."""
        coordinator = self.hospitals.status().get("sites", {}).get("va") == "online"
        return {"site": bool(self.hospitals.status("va").get("connected")), "coordinator": coordinator}

    def live(self, cut: Callable[[], None], mend: Callable[[], None]) -> None:
        """Train, cut for a minute, mend, and wait for the end."""
        self.run = self.hospitals.submit(self.job, overrides=self.overrides)
        self.hospitals.reached(self.run, 1, 180)
        for act, seconds, times, state in ((cut, MINUTE, self.noticed, False), (mend, 2 * BACK, self.back, True)):
            act()
            began = time.monotonic()
            self.rounds.append(self.hospitals.status()["round"])
            while (now := time.monotonic() - began) < seconds and (not state or len(times) < 2):
                for who in (who for who, there in self.va.items() if there == state):
                    times.setdefault(who, now)
                time.sleep(0.1)
        self.rounds.append(self.hospitals.status()["round"])
        self.hospitals.outcome(self.run, 120)


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Cut]]:
    """The two runs, ended."""
    wanted = {
        "patient": ("training.rounds=6", "seed=21"),
        "deadline": ("training.rounds=20", "seed=22", "participation.deadline_seconds=8", "participation.quorum=3"),
    }
    network = made_network()
    folder = tmp_path_factory.mktemp("cuts")
    hospitals = Hospitals(folder, DATA, str(PYTHON), network)
    job = write_job(folder, "scaffold")
    made = {name: Cut(hospitals=hospitals, overrides=overrides, job=job) for name, overrides in wanted.items()}
    try:
        hospitals.start("coordinator", *SITES)
        hospitals.online()
        made["patient"].live(lambda: network.link("va", "down"), lambda: network.link("va", "up"))
        made["deadline"].live(lambda: network.link("va", "nomaster"), lambda: network.plug("va"))
        yield made
    finally:
        hospitals.stop()
        network.close()


def rounds_of(cut: Cut) -> list[list[str]]:
    """Who was missing, by round."""
    return [entry["missing"] for entry in cut.hospitals.entries("coordinator", "round") if entry["run"] == cut.run]


def test_a_run_without_a_deadline_waits_for_the_line_and_is_not_changed(cuts: dict[str, Cut], tmp_path: Path) -> None:
    cut = cuts["patient"]
    print(f"no carrier: noticed {cut.noticed}, back {cut.back}")
    assert cut.hospitals.outcome(cut.run)["status"] == "done"
    assert cut.rounds[1] <= cut.rounds[0] + 1  # the round that was on its way may have been complete
    assert rounds_of(cut) == [[]] * 6
    assert_same_model(cut.hospitals.run_folder(cut.run), local_model(cut.job, tmp_path / "local", *cut.overrides))


def test_a_run_with_a_deadline_goes_on_and_takes_the_site_back(cuts: dict[str, Cut]) -> None:
    cut = cuts["deadline"]
    print(f"packets vanish: noticed {cut.noticed}, back {cut.back}")
    assert cut.hospitals.outcome(cut.run)["status"] == "done"
    assert cut.rounds[1] >= cut.rounds[0] + 4
    missing = rounds_of(cut)
    assert len(missing) == 20
    assert {tuple(names) for names in missing} == {(), ("va",)}
    last = max(index for index, names in enumerate(missing) if names)
    assert last + 1 < len(missing)
    assert missing[last + 1 :] == [[]] * (len(missing) - last - 1)


@pytest.mark.parametrize("name", ["patient", "deadline"])
def test_both_ends_notice_and_are_back_soon(cuts: dict[str, Cut], name: str) -> None:
    cut = cuts[name]
    assert cut.noticed.keys() == {"site", "coordinator"}
    assert cut.back.keys() == {"site", "coordinator"}
    assert max(cut.back.values()) <= BACK


LISTEN = "import socket, time; s = socket.create_server(('0.0.0.0', 7777)); print(flush=True); time.sleep(600)"
DIAL = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"


def test_a_hospital_reaches_the_coordinators_port_and_nothing_else() -> None:
    network = made_network()
    listeners = []
    addresses = {site: f"10.0.0.{11 + k}" for k, site in enumerate(SITES)}

    def dials(party: str, address: str, port: int) -> bool:
        command = [*network.inside(party), sys.executable, "-c", DIAL, address, str(port)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    try:
        assert [line.partition(":")[0] for line in network.check()] == [*SITES, "coordinator"]
        for party, port in (("coordinator", network.port), ("coordinator", 7777), ("va", 7777)):
            command = [*network.inside(party), sys.executable, "-c", LISTEN.replace("7777", str(port))]
            listeners.append(subprocess.Popen(command, stdout=subprocess.PIPE))
            assert listeners[-1].stdout is not None
            listeners[-1].stdout.readline()
        with pytest.raises(OSError, match="va listens"):
            network.check()
        assert dials("va", addresses["va"], 7777)
        assert dials("cleveland", network.address, network.port)
        assert not dials("cleveland", network.address, 7777)
        assert not dials("cleveland", addresses["va"], 7777)
        assert not dials("coordinator", addresses["va"], 7777)
        # nor where its administrator makes a way: the switch has none
        for party, other in (("cleveland", "va"), ("va", "cleveland")):
            way = ["ip", "-n", f"{network.prefix}-{party}", "route", "add", addresses[other], "dev", "eth0"]
            subprocess.run(way, check=True)
        assert not dials("cleveland", addresses["va"], 7777)
    finally:
        network.close()
        for listener in listeners:
            listener.wait(10)
            if listener.stdout is not None:
                listener.stdout.close()


@pytest.mark.long
def test_an_interrupted_example_leaves_nothing(tmp_path: Path) -> None:
    made_network().close()
    out = tmp_path / "out"
    environment = {
        **os.environ, "NETWORK": "namespaces", "WARDROUND": f"{sys.executable} -m wardround",
        "WARDROUND_FLOWER_PYTHON": str(PYTHON),
    }  # fmt: skip
    example = subprocess.Popen(
        [str(EXAMPLE / "run.sh"), str(out)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, text=True,
    )  # fmt: skip
    until((out / "coordinator" / "state" / "pid").exists, 240, "the coordinator runs")
    os.killpg(example.pid, signal.SIGINT)
    said = example.communicate(timeout=240 * LOADED)[0]
    assert example.returncode == 130, said
    found = re.search(r"^network: namespaces (wr[0-9a-f]{8})-", said, re.MULTILINE)
    assert found is not None, said
    assert found[1] not in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    left = subprocess.run(["pgrep", "-fa", str(out)], capture_output=True, text=True, check=False).stdout
    assert [line for line in left.splitlines() if "pytest" not in line and "pgrep" not in line] == []
