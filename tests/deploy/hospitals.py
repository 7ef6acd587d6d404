"""Four heart hospitals and a coordinator as real processes on loopback, for tests of what no single process shows."""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from wardround.deploy import enrolling, operate

SITES = ("cleveland", "hungarian", "switzerland", "va")
SUBMITTER = "lee"
POLICY: Mapping[str, Any] = {
    "data": {"heart": {"dataset": "heart"}},
    "allow": {
        "submitters": [SUBMITTER],
        "models": ["logistic", "mlp"],
        "algorithms": ["fedavg", "fedprox", "scaffold", "fedbn"],
        "channels": ["plain", "secagg", "he"],
        "baselines": ["local"],
    },
    "privacy": {"hiding_channel": False},
    "cohort": {"minimum_sites": 2, "minimum_quorum": 2, "minimum_rows": 30},
    "release": {"site_figures": True, "smallest_count": 1},
    "approval": {"auto": [{"name": "test", "submitters": [SUBMITTER], "like_last": False}]},
}


def flower_python() -> str | None:
    """An interpreter that has flwr: the named one, this one, or `.venvs/flower` beside the tests."""
    named = os.environ.get("WARDROUND_FLOWER_PYTHON")
    beside = Path(__file__).parents[2] / ".venvs" / "flower" / "bin" / "python"
    for candidate in (named, str(beside) if beside.exists() else None, sys.executable):
        if (
            candidate
            and not subprocess.run([candidate, "-c", "import flwr"], capture_output=True, check=False).returncode
        ):
            return candidate
    return None


LOADED = 4.0  # how much slower than an idle machine one may be that runs other tests as well
EXAMPLE = Path(__file__).parents[2] / "examples" / "deploy"
DATA = os.environ.get("WARDROUND_DATA", "")
PYTHON = flower_python() if DATA else None
needs_flower = pytest.mark.skipif(
    PYTHON is None or not (Path(DATA) / "uci_heart").is_dir(),
    reason="needs an interpreter with flwr (`make flower`, or WARDROUND_FLOWER_PYTHON) and uci_heart (WARDROUND_DATA)",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `condition` gives once it gives anything true; on a loaded machine it has longer than `seconds`."""
    end = time.monotonic() + LOADED * seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {LOADED * seconds:g} s: {what}")
        time.sleep(0.1)
    return found


class Cable:
    """A TCP relay that a test can cut: sites dial it, and it dials the SuperLink."""

    def __init__(self, port: int, target: int) -> None:
        self._target, self.whole = target, True
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            try:
                if not self.whole:
                    raise OSError
                outer = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                inner.close()
                continue
            self._pairs.append((inner, outer))
            threading.Thread(target=self._carry, args=(inner, outer), daemon=True).start()

    def _carry(self, inner: socket.socket, outer: socket.socket) -> None:
        try:
            while True:
                for ready in select.select([inner, outer], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    (outer if ready is inner else inner).sendall(data)
        except (OSError, ValueError):
            return
        finally:
            inner.close()
            outer.close()

    def cut(self) -> None:
        self.whole = False
        for pair in self._pairs:
            for end in pair:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        self._pairs.clear()

    def mend(self) -> None:
        self.whole = True

    def move(self, target: int) -> None:
        """Lead to another port, and end the connections to the earlier one."""
        self._target = target
        self.cut()
        self.mend()

    def close(self) -> None:
        self._listener.close()
        self.cut()


class Network:
    """A network namespace for each party, by the script of the example.

    Args:
        port: of the coordinator, the one that sites can reach.

    Raises:
        OSError: this machine does not let us; the text says why.
    """

    address = "10.0.0.1"

    def __init__(self, port: int = 18443) -> None:
        self.prefix, self.port = f"wr{secrets.token_hex(4)}", port
        self._script("up", str(port), *SITES)

    def inside(self, party: str) -> list[str]:
        """What goes before a command at a party."""
        return ["ip", "netns", "exec", f"{self.prefix}-{party}"]

    def check(self) -> list[str]:
        """What the script finds of reach and listeners. Raises OSError where it is too much."""
        return self._script("check", str(self.port), *SITES).splitlines()

    def link(self, site: str, *state: str) -> None:
        """Change a site's port on the switch: `down`, `up`, `nomaster`."""
        command = ["ip", "-n", f"{self.prefix}-switch", "link", "set", site, *state]
        subprocess.run(command, check=True, capture_output=True)

    def plug(self, site: str) -> None:
        """After `nomaster`."""
        self._script("plug", site)

    def close(self) -> None:
        """End what is left in it, and remove it."""
        self._script("down")

    def _script(self, what: str, *more: str) -> str:
        command = [str(EXAMPLE / "network.sh"), what, self.prefix, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"no network namespaces here: {done.stderr.strip()[:300]}")
        return done.stdout


class Hospitals:
    """The folders and processes of a project.

    Args:
        folder: an empty one.
        data: root of the datasets.
        python: the interpreter that has flwr.
        network: where parties have one each; None: loopback.
    """

    def __init__(self, folder: Path, data: str, python: str, network: Network | None = None) -> None:
        self.folder, self.network = folder, network
        self.port = network.port if network else free_port()
        self.environment = {
            **os.environ, "WARDROUND_DATA": data, "WARDROUND_FLOWER_PYTHON": python, "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.listen = ""
        self.copies: dict[str, str] = {}
        self.cable: Any = None
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        project = folder / "project.yaml"
        spec = {"addresses": [network.address if network else "127.0.0.1"], "port": self.port}
        tree = {"project": "heart", "coordinator": spec, "sites": list(SITES), "submitters": [SUBMITTER]}
        project.write_text(yaml.safe_dump(tree))
        self.coordinator = enrolling.provision(project, folder / "coordinator")
        names = (*SITES, SUBMITTER)
        for name in names:
            enrolling.init_party(self.coordinator.path / "enrolments" / f"{name}.json", folder / name)
        roster = enrolling.enrol(self.coordinator.path, [folder / name / "request.json" for name in names])
        for name in names:
            enrolling.join(folder / name, self.coordinator.path / "roster.json", roster.code)
        for site in SITES:
            self.allow(site)

    def allow(self, site: str, **changes: Any) -> None:
        """Write a site's policy."""
        (self.folder / site / "site.yaml").write_text(yaml.safe_dump({**POLICY, **changes}))

    def start(self, *names: str) -> None:
        """Begin processes; `coordinator` is one of them, and copies of it are others."""
        for name in names:
            (self.folder / name / "state").mkdir(exist_ok=True)
            kind = ["site", "start"] if name in SITES else ["coordinator", "start"]
            listen = self.copies.get(name, self.listen)
            more = [] if name in SITES else ["--no-report"]
            more += ["--listen", listen] if name not in SITES and listen else []
            place = self.network.inside(name) if self.network else []
            with (self.folder / name / "state" / "process.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [*place, sys.executable, "-m", "wardround", "deploy", *kind, str(self.folder / name), *more],
                    env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip

    def online(self, name: str = "coordinator") -> None:
        """Wait until a coordinator reaches all sites; a process that ended is an error at once."""

        def there() -> bool:
            for party, process in self.processes.items():
                if process.poll() is not None:
                    raise AssertionError(f"{party} ended with {process.returncode}: {self.log(party)[-2000:]}")
            return set(self.status(name).get("sites", {}).values()) == {"online"}

        try:
            until(there, 90, f"all sites are online at {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status(name)}\n{self.log(name)[-2000:]}") from None

    def copy_coordinator(self, name: str) -> int:
        """The coordinator's folder as it is now, as one of another machine; the port that it will listen on.

        The coordinator must not be writing.
        """
        shutil.copytree(self.coordinator.path, self.folder / name, ignore=shutil.ignore_patterns("state"))
        port = free_port()
        self.copies[name] = f"127.0.0.1:{port}"
        return port

    def kill(self, name: str) -> None:
        """As a power cut would."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End all processes, and wait until they are gone."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for name, process in self.processes.items():
            try:
                process.wait(30 * LOADED)
            except subprocess.TimeoutExpired:
                process.kill()
                raise AssertionError(f"{name} did not end: {self.log(name)[-2000:]}") from None
        self.processes.clear()

    def log(self, name: str) -> str:
        """What a process said."""
        return "\n".join(
            path.read_text(errors="replace") for path in sorted((self.folder / name / "state").glob("*.log"))
        )

    def status(self, name: str = "coordinator") -> dict[str, Any]:
        """What `status` shows."""
        return operate.status(self.folder / name)

    def submit(self, job: Path, *, by: str = SUBMITTER, overrides: tuple[str, ...] = ()) -> str:
        """Hand in a job; the run's id."""
        signed, _ = operate.submit(job, self.coordinator.path, signer=self.folder / by, overrides=overrides)
        return signed.id

    def run_folder(self, run: str) -> Path:
        return self.coordinator.path / "runs" / run

    def outcome(self, run: str, seconds: float = 90.0) -> dict[str, Any]:
        """How a run ended."""
        path = self.run_folder(run).with_name(f"{run}.outcome.json")
        try:
            until(path.exists, seconds, f"run {run} ends")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log('coordinator')[-3000:]}") from None
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def reached(self, run: str, rounds: int, seconds: float = 60.0) -> None:
        """Wait until a run has completed so many rounds; one that ended before is an error at once."""
        ended = self.run_folder(run).with_name(f"{run}.outcome.json")

        def there() -> bool:
            status = self.status()
            if status.get("run") == run and status["round"] >= rounds:
                return True
            if ended.exists() and json.loads(ended.read_text())["status"] == "failed":
                raise AssertionError(f"run {run} failed before")
            return False

        try:
            until(there, seconds, f"run {run} completes {rounds} rounds")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log('coordinator')[-1500:]}") from None

    def entries(self, name: str, kind: str) -> list[dict[str, Any]]:
        """Entries of a party's audit log."""
        path = self.folder / name / "audit.jsonl"
        return [entry for entry in map(json.loads, path.read_text().splitlines()) if entry["kind"] == kind]

    def left(self) -> list[str]:
        """Processes of this project that are still there."""
        found = subprocess.run(["pgrep", "-fa", str(self.folder)], capture_output=True, text=True, check=False).stdout
        return [line for line in found.splitlines() if "pytest" not in line and "pgrep" not in line]
