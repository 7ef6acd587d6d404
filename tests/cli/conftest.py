"""The command line in this process, and one finished run that many tests look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from wardround.cli.app import app
from wardround.cli.exit import guarded

QUICK: dict[str, Any] = {
    "name": "quick",
    "data": {"dataset": "wdbc"},
    "partition": {"kind": "dirichlet", "sites": 5, "alpha": 0.5},
    "training": {"rounds": 3, "local_steps": 4},
    "evaluation": {"bootstrap": 20},
    "engine": {"threads": 1},
}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Ended]


@pytest.fixture
def wardround(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run one command line in this process."""

    def command(*arguments: object) -> Ended:
        capsys.readouterr()
        code = guarded(app, [str(a) for a in arguments])
        captured = capsys.readouterr()
        return Ended(code=code, out=captured.out, err=captured.err)

    return command


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job of three quick rounds at five sites."""
    return write_job(tmp_path / "job.yaml", QUICK)


def write_job(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(tree))
    return path
