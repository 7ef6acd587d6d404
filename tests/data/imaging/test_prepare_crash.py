"""A preparation that is killed goes on to the same bytes; a reader that dies costs one study and no more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.imaging import dying
from data.imaging.test_prepare import EACH, content, source, wanted
from wardround.data.imaging import prepare as module
from wardround.data.imaging.prepare import prepare
from wardround.errors import StorageError

TESTS = Path(__file__).parents[2]
ROWS = 3


def processes_in(folder: Path) -> list[int]:
    """Processes whose command or environment tells of a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in told:
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_process_killed_with_9_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    table = source(tmp_path)
    # one held folder: pseudonyms are drawn once, and stay
    held = tmp_path / "held"
    whole = tmp_path / "whole"
    monkeypatch.setattr(module, "_SHARD_ROWS", ROWS)
    prepare(wanted(tmp_path, out=whole, held=held))
    line = [
        *("data", "prepare", str(tmp_path / "north"), "--labels", str(table), "--site", "north", "--out"),
        *(str(tmp_path / "cut"), "--held", str(held), "--modality", "PHOTO", "--workers", workers, "--no-page", "-q"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "OF_TEST": str(tmp_path)}
    command = [sys.executable, "-m", "data.imaging.dying", str(ROWS), *line]
    work = tmp_path / ".cut.work"
    with subprocess.Popen(command, env=environment, cwd=TESTS) as process:
        ends = time.monotonic() + 240
        while len(list(work.glob("shard-*.json"))) < 3:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < ends
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    made = len(list(work.glob("shard-*.json")))
    assert 3 <= made < 2 * EACH // ROWS
    assert not (tmp_path / "cut").exists()
    ends = time.monotonic() + 80
    while processes_in(tmp_path):
        assert time.monotonic() < ends, "its workers outlive it"
        time.sleep(0.05)
    again = []
    fit = module._fit_shard
    monkeypatch.setattr(module, "_fit_shard", lambda task: again.append(task) or fit(task))
    prepare(wanted(tmp_path, out=tmp_path / "cut", held=held))
    left = len(list(work.glob("shard-*.json"))) if work.exists() else 0
    assert left == 0
    assert len(again) <= 2 * EACH // ROWS - made
    assert content(tmp_path / "cut") == content(whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reader_that_dies_costs_its_study_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    table = source(tmp_path)
    north = tmp_path / "north"
    for old, new in (("dull-3", "dull-3-poison"), ("bright-9", "bright-9-poison")):
        (north / f"{old}.png").rename(north / f"{new}.png")
        table.write_text(table.read_text().replace(f"{old}.png", f"{new}.png"))
    monkeypatch.setattr(module, "_SHARD_ROWS", 10)
    monkeypatch.setattr(module, "_fit_shard", dying.fit_with_a_reader_that_dies)
    monkeypatch.setattr(module, "_probe", dying.probe_that_dies)
    monkeypatch.setattr(module, "_PROBED", 2 * EACH)
    made = prepare(wanted(tmp_path), workers=workers)
    assert made.tree["skipped"] == {"crashed": 2}
    assert [one["name"] for one in made.tree["named"]["crashed"]] == ["bright-9-poison.png", "dull-3-poison.png"]
    assert made.folder is not None
    assert made.folder.manifest.rows == 2 * EACH - 2


def test_workers_that_cannot_begin_end_it_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARD_ROWS", 10)
    monkeypatch.setattr(module, "_fit_shard", dying.worker_that_dies_at_once)
    with pytest.raises(StorageError, match="died before it read anything"):
        prepare(wanted(tmp_path), workers=2)
