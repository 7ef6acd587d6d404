"""Help that shows how, and a doctor that says what is missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from wardround.cli.app import app

COMMANDS = ("run", "resume", "report", "predict", "compare", "doctor")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_the_commands_are_these() -> None:
    assert tuple(command.name for command in app.registered_commands) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_of_itself(command: str, wardround: Any) -> None:
    ended = wardround(command, "--help")
    assert ended.code == 0
    assert re.search(rf"Examples?\s+wardround {command}", plain(ended.out)), ended.out


def test_the_root_lists_commands_and_examples(wardround: Any) -> None:
    ended = wardround("--help")
    assert ended.code == 0
    for word in (*COMMANDS, "wardround run examples/wdbc.yaml"):
        assert word in plain(ended.out)


def test_the_examples_in_the_help_name_files_that_are_there(wardround: Any) -> None:
    root = Path(__file__).parents[2]
    shown = plain(wardround("--help").out) + plain(wardround("run", "--help").out)
    named = set(re.findall(r"examples/[\w-]+\.yaml", shown))
    assert named
    for name in named:
        assert (root / name).is_file()


def test_doctor_finds_this_machine_ready(wardround: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WARDROUND_DATA", raising=False)
    ended = wardround("doctor", "--json")
    assert ended.code == 0
    (said,) = ended.events()
    assert said["healthy"] is True
    states = {check["what"]: check["state"] for check in said["checks"]}
    assert states["PyTorch"] == states["Python"] == "good"
    assert states["WARDROUND_DATA"] == "note"
    assert wardround("doctor").out.rstrip().endswith("ready")


def test_doctor_names_a_data_folder_that_is_not_there(
    wardround: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path / "nowhere"))
    ended = wardround("doctor")
    assert ended.code == 3
    assert str(tmp_path / "nowhere") in "".join(plain(ended.out).split())
    assert "not ready" in ended.out
