"""A child process that is kept alive: what it sees of this process's environment, and that it comes back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from deploy.hospitals import until
from wardround.deploy import supervise
from wardround.deploy.supervise import Child
from wardround.federation.engines.flower.relay import Frame

TELL = """#!{python}
import json, os, sys
print(json.dumps(dict(os.environ)), file=sys.stderr, flush=True)
sys.stdin.buffer.read()
"""
DIE = """#!{python}
import sys
print("died", file=sys.stderr, flush=True)
"""


def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Stands in for the python that has flwr, and is told to run the relay."""
    path = tmp_path / "python"
    path.write_text(text.format(python=sys.executable))
    path.chmod(0o700)
    monkeypatch.setenv("WARDROUND_FLOWER_PYTHON", str(path))


def said(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def until_said(log: Path, lines: int) -> list[str]:
    until(lambda: len(said(log)) >= lines, 20, f"{lines} lines are said")
    return said(log)


@pytest.mark.parametrize(("kind", "proxied"), [("superlink", False), ("coordinator", False), ("site", True)])
def test_only_a_sites_relay_takes_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, proxied: bool
) -> None:
    interpreter(tmp_path, monkeypatch, TELL)
    named = {"HTTPS_PROXY": "http://proxy:3128", "https_proxy": "http://proxy:3128", "ALL_PROXY": "http://proxy:3128"}
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "elsewhere.example")
    child = Child(kind, dict, home=tmp_path / "home", log=tmp_path / "log", take=lambda frame: None)
    child.start()
    try:
        seen = json.loads(until_said(tmp_path / "log", 1)[0])
    finally:
        child.stop()
    assert {name: seen.get(name) for name in named} == (named if proxied else dict.fromkeys(named))
    assert seen["NO_PROXY" if proxied else "no_proxy"] == ("elsewhere.example" if proxied else "*")


def test_what_dies_is_begun_again_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter(tmp_path, monkeypatch, DIE)
    told: list[Frame] = []
    child = Child("site", dict, home=tmp_path / "home", log=tmp_path / "log", take=told.append)
    child.start()
    try:
        until_said(tmp_path / "log", 2)
    finally:
        child.stop()
    assert child.restarts >= 1
    assert {head["op"] for head, _ in told} == {"ended"}
    assert child.pid is None


FLOOD = """#!{python}
import sys
for number in range(2000):
    print("refused", number, "x" * 90, file=sys.stderr)
sys.stderr.flush()
sys.stdin.buffer.read()
"""


def test_a_log_that_strangers_fill_stays_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter(tmp_path, monkeypatch, FLOOD)
    monkeypatch.setattr(supervise, "LOG_LIMIT", 20_000)
    child = Child("site", dict, home=tmp_path / "home", log=tmp_path / "log", take=lambda frame: None)
    child.start()
    until(lambda: any("refused 1999 " in line for line in said(tmp_path / "log")), 20, "all is said")
    child.stop()
    assert "refused 1999 " in (tmp_path / "log").read_text()
    assert (tmp_path / "log").stat().st_size <= 20_000
    assert (tmp_path / "log.1").stat().st_size <= 20_000
