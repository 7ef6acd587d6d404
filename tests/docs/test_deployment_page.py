"""docs/deployment.md, typed word for word: six hospitals and a coordinator, each in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from deploy.hospitals import flower_python, free_port, until
from deploy.test_nginx import NGINX, Front
from docs.pages import ROOT, blocks, files
from wardround.cli.app import app
from wardround.cli.exit import guarded
from wardround.config import load
from wardround.deploy import kit, operate
from wardround.deploy.policy import read_policy

PAGE = ROOT / "docs" / "deployment.md"
FILES = files(PAGE)
SITES = yaml.safe_load(FILES["project.yaml"])["sites"]
SUBMITTER = "dr-lee"
COMMANDS = [line for block in blocks(PAGE, "console") for line in block.splitlines()]
NEEDS_PROCESSES = ("doctor", " start ", " stop ", "status", "logs", "review", "approve")


class Desk:
    """A folder in which one person plays all parties, and carries files between them as mail would.

    Args:
        folder: an empty one.
        port, behind: what stands for the ports 443 and 9443.
        run: runs one command.
    """

    def __init__(self, folder: Path, port: int, behind: int, run: Callable[[list[str]], None]) -> None:
        self.folder, self._run, self._behind = folder, run, behind
        self.coordinator = folder / "srv" / "coordinator"
        self.gone: set[str] = set()
        project = FILES["project.yaml"].replace("fl.example.org", "127.0.0.1").replace("443", str(port))
        (folder / "project.yaml").write_text(project)
        (folder / "wards.yaml").write_text(FILES["wards.yaml"])
        generator = np.random.default_rng(5)
        for site in SITES:
            records = folder / "srv" / "records" / site
            records.mkdir(parents=True)
            (records / "wards.csv").write_text(made_up(generator, 160))

    def site(self, name: str) -> Path:
        return self.folder / "srv" / name

    def type(self, line: str) -> None:
        """One line of the page; where it is a hospital's, at each of them."""
        if line.startswith("wardround deploy move "):
            project = self.coordinator / "project.yaml"
            project.write_text(project.read_text().replace("[127.0.0.1]", "[localhost, 127.0.0.1]"))
        for name in [one for one in SITES if one not in self.gone] if self._is_everywhere(line) else [SITES[0]]:
            self._mail()
            words = shlex.split(self._here(line, name))
            assert words[0] == "wardround"
            self._run(words[1:])
        if " revoke " in line:
            self.gone.add(line.rsplit(maxsplit=1)[-1])
        if " init " in line and self._is_everywhere(line):
            for name in SITES:
                records = self.folder / "srv" / "records" / name
                policy = FILES["site.yaml"].replace("/srv/records", str(records))
                (self.site(name) / "site.yaml").write_text(policy)
                assert read_policy(self.site(name) / "site.yaml").data

    def _is_everywhere(self, line: str) -> bool:
        return "/srv/site" in line or "aachen.next" in line

    def _here(self, line: str, name: str) -> str:
        if self._is_everywhere(line):
            line = line.replace("aachen", name)
        line = line.replace("/srv/site", str(self.site(name))).replace("/srv/coordinator", str(self.coordinator))
        line = line.replace("127.0.0.1:9443", f"127.0.0.1:{self._behind}")
        for placeholder, value in (("CODE", self._code), ("RUN", lambda: self.run)):
            if re.search(rf"\b{placeholder}\b", line):
                line = re.sub(rf"\b{placeholder}\b", value(), line)
        return line

    def _code(self) -> str:
        return kit.coordinator_folder(self.coordinator).roster().code

    @property
    def run(self) -> str:
        (job,) = (self.folder / SUBMITTER / "jobs").glob("*.json")
        return job.stem

    def _mail(self) -> None:
        for file in self.coordinator.glob("enrolments/*.json"):
            shutil.copy(file, self.folder)
        if (self.coordinator / "roster.json").exists():
            shutil.copy(self.coordinator / "roster.json", self.folder)
        for name, folder in {SUBMITTER: self.folder / SUBMITTER, **{one: self.site(one) for one in SITES}}.items():
            for source, target in (("request.json", "request"), ("next/request.json", "next")):
                if (folder / source).exists():
                    shutil.copy(folder / source, self.folder / f"{name}.{target}.json")


def made_up(generator: np.random.Generator, rows: int) -> str:
    """A table of nobody."""
    lines = ["patient,age,lactate,ward,died"]
    for k in range(rows):
        age, lactate = int(generator.integers(20, 95)), float(generator.gamma(2.0, 1.2))
        chance = 1 / (1 + np.exp(-(0.06 * (age - 65) + 0.8 * (lactate - 3))))
        ward = generator.choice(["medical", "surgical", "icu", "maternity"])
        lines.append(f"p{k},{'999' if k % 17 == 0 else age},{lactate:.2f},{ward},{int(generator.random() < chance)}")
    return "\n".join(lines) + "\n"


def test_the_page_has_the_files_that_it_speaks_of() -> None:
    assert set(FILES) == {"project.yaml", "site.yaml", "wards.yaml"}
    assert len(SITES) == 6
    assert [line for line in COMMANDS if not line.startswith("wardround ")] == []


def test_the_job_is_one_that_runs_between_hospitals(tmp_path: Path) -> None:
    (tmp_path / "wards.yaml").write_text(FILES["wards.yaml"])
    job = operate.between(load(tmp_path / "wards.yaml", []))
    assert job.privacy.channel.kind == "secagg"


def test_all_that_needs_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def run(arguments: list[str]) -> None:
        assert guarded(app, arguments) == 0, arguments

    desk = Desk(tmp_path, 18443, 19443, run)
    for line in COMMANDS:
        if not any(word in line for word in NEEDS_PROCESSES):
            desk.type(line)
    assert desk.gone == {"fulda"}
    left = kit.coordinator_folder(desk.coordinator).roster()
    assert {entry.name for entry in left.entries if entry.role == "site"} == set(SITES) - {"fulda"}
    rotated = [entry for entry in left.entries if entry.role == "site" and entry.rotations]
    assert len(rotated) == len(SITES) - 1


def test_rows_that_the_page_refers_to_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in re.findall(r"`(wardround_\w+)", page):
        from wardround.deploy.metrics import _HELP

        assert name.removeprefix("wardround_") in _HELP
    for path in re.findall(r"packaging/[\w./-]+", page):
        assert (ROOT / path.rstrip(".")).exists(), path


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Desk, int, int]]:
    monkeypatch.chdir(tmp_path)
    port, behind = free_port(), free_port()
    environment = {**os.environ, "WARDROUND_FLOWER_PYTHON": str(flower_python()), "OMP_NUM_THREADS": "1"}

    def run(arguments: list[str]) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "wardround", *arguments], env=environment, capture_output=True, text=True,
            check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)

    desk = Desk(tmp_path, port, behind, run)
    try:
        yield desk, port, behind
    finally:
        for folder in (desk.coordinator, *map(desk.site, SITES)):
            if folder.exists():
                operate.stop(folder)
    served = f"deploy .* start {tmp_path}"
    until(
        lambda: subprocess.run(["pgrep", "-f", served], capture_output=True, check=False).returncode, 15, "all are gone"
    )


@pytest.mark.long
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.skipif(flower_python() is None, reason="needs an interpreter with flwr (WARDROUND_FLOWER_PYTHON)")
def test_the_whole_study(study: tuple[Desk, int, int]) -> None:
    desk, port, behind = study
    front = None
    try:
        for line in COMMANDS:
            if "coordinator start" in line:
                front = Front(desk.folder / "front", desk.coordinator, port, behind)
            if " review /srv/site" in line and "RUN" not in line:
                for name in SITES:
                    waiting = kit.party_folder(desk.site(name)).approvals()
                    until(waiting.decisions, 90, f"the job waits at {name}")
            if line == "wardround deploy rotate /srv/site":
                for folder in (desk.coordinator, *map(desk.site, SITES)):
                    operate.stop(folder)
            desk.type(line)
            if "coordinator start" in line:
                until(lambda: operate.status(desk.coordinator).get("connected"), 60, "the coordinator is connected")
            if " approve " in line:
                outcome = desk.coordinator / "runs" / f"{desk.run}.outcome.json"
                until(outcome.exists, 200, "the run ends")
                assert json.loads(outcome.read_text())["status"] == "done"
    finally:
        if front is not None:
            front.close()
    result = json.loads((desk.coordinator / "runs" / desk.run / "result.json").read_text())
    assert result["federated"]["pooled"]["auroc"] > 0.7
    assert not result["federated"].get("sites")
    assert (desk.coordinator / "runs" / desk.run / "report.html").exists()
