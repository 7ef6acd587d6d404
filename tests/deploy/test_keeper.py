"""What `start --detach` leaves behind: a process that is begun again when it dies, and a stop that ends both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.hospitals import LOADED, POLICY, until
from deploy.parties import enrolled
from wardround.cli.app import app
from wardround.cli.exit import guarded
from wardround.deploy import keeper, operate
from wardround.errors import RunError

KEEP = (
    "import sys; from pathlib import Path; from wardround.deploy import keeper; keeper.FIRST = 0.02\n"
    "keeper.Keeper(Path(sys.argv[1]), sys.argv[2:]).run()"
)
# counts its starts in a file, and does what is written for this one
WORK = (
    "import os, signal, sys, time\nfrom pathlib import Path\n"
    "path = Path(sys.argv[1]); n = len(path.read_text()) if path.exists() else 0; path.write_text('x' * (n + 1))\n"
    "what = sys.argv[2].split(',')[n]\n"
    "if what == 'kill': os.kill(os.getpid(), signal.SIGKILL)\n"
    "if what == 'wait': print('waits', flush=True); time.sleep(60)\n"
    "print('error: said ' + what, file=sys.stderr); sys.exit(int(what))"
)


def kept(state: Path, what: str) -> subprocess.Popen[bytes]:
    with (state / keeper.LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", KEEP, str(state), sys.executable, "-c", WORK, str(state / "starts"), what],
            stdout=log, stderr=log,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("what", "status", "restarts", "cause"),
    [
        ("kill,70,kill,0", "ended", 3, ""),
        ("8,2", "failed", 1, "ended with code 2: error: said 2"),
        ("6", "failed", 0, "ended with code 6: error: said 6"),
        ("130", "ended", 0, ""),
    ],
)
def test_what_dies_is_begun_again_until_no_start_would_help(
    tmp_path: Path, what: str, status: str, restarts: int, cause: str
) -> None:
    assert kept(tmp_path, what).wait(60 * LOADED) == 0
    told = keeper.told(tmp_path)
    assert told is not None
    assert (told["status"], told["restarts"], told["cause"], told["alive"]) == (status, restarts, cause, False)
    assert len((tmp_path / "starts").read_text()) == restarts + 1


def test_a_stop_ends_what_is_kept_and_begins_nothing(tmp_path: Path) -> None:
    process = kept(tmp_path, "kill,wait,0")
    until(lambda: "waits" in (tmp_path / keeper.LOG).read_text(), 60, "it waits")
    told = keeper.told(tmp_path)
    assert told is not None
    assert "killed by signal 9" in told["cause"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30 * LOADED) == 0
    told = keeper.told(tmp_path)
    assert told is not None
    assert told["status"] == "stopped"
    assert len((tmp_path / "starts").read_text()) == 2


def test_a_damaged_file_is_no_keeper(tmp_path: Path) -> None:
    assert keeper.told(tmp_path) is None
    for text in ("", "[]", '{"status": "running"}'):
        (tmp_path / keeper.FILE).write_text(text)
        assert keeper.told(tmp_path) is None


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A site that can start; Flower cannot, and is begun again and again, which is another matter."""
    monkeypatch.setenv("WARDROUND_FLOWER_PYTHON", sys.executable)
    made = enrolled(tmp_path).sites["zurich"]
    made.policy_path.write_text(yaml.safe_dump(dict(POLICY)))
    yield made.path
    operate.stop(made.path)


def test_a_detached_site_survives_its_death_and_is_stopped_for_good(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = operate.detach(["deploy", "site", "start", str(site)], site)
    assert pid == operate.running(site)
    with pytest.raises(RunError, match="is served by a process already"):
        operate.detach(["deploy", "site", "start", str(site)], site)
    os.kill(pid, signal.SIGKILL)
    again = until(lambda: (found := operate.running(site)) not in (None, pid) and found, 60, "it is begun again")
    told = operate.status(site)
    assert (told["running"], told["keeper"]["restarts"], told["keeper"]["status"]) == (True, 1, "running")
    capsys.readouterr()
    assert guarded(app, ["deploy", "status", str(site)]) == 0
    assert "begun again 1 time, last killed by signal 9" in capsys.readouterr().out
    assert operate.stop(site)
    told = operate.status(site)
    assert (told["running"], told["keeper"]["status"], told["keeper"]["alive"]) == (False, "stopped", False)
    assert not Path(f"/proc/{again}").exists()
    assert not operate.stop(site)


def test_what_cannot_start_is_not_tried_again(site: Path) -> None:
    (site / "site.yaml").write_text("data: [")
    with pytest.raises(RunError, match="ended at once"):
        operate.detach(["deploy", "site", "start", str(site)], site)
    told = operate.status(site)
    assert (told["running"], told["keeper"]["status"], told["keeper"]["restarts"]) == (False, "failed", 0)
    assert "site.yaml" in told["keeper"]["cause"]
    assert json.loads((site / "state" / keeper.FILE).read_text())["status"] == "failed"
