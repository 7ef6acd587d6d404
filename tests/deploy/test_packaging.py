"""What an administrator copies: images, compose files, units. Nothing is built or started here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from wardround import __version__
from wardround.cli.deploy import app as deploy
from wardround.store import atomic

PACKAGING = Path(__file__).parents[2] / "packaging"
DOCKERFILE = (PACKAGING / "docker" / "Dockerfile").read_text()
COMPOSE = {
    name: yaml.safe_load((PACKAGING / "docker" / f"{name}.yaml").read_text()) for name in ("coordinator", "site")
}
UNITS = {name: PACKAGING / "systemd" / f"wardround-{name}.service" for name in ("coordinator", "site")}
SERVICES = [
    pytest.param(file, service, id=f"{file}.{service}")
    for file, tree in COMPOSE.items()
    for service in tree["services"]
]


def check_command(words: Sequence[str]) -> None:
    """Whether wardround has this command, with these options."""
    assert words[:2] == ["wardround", "deploy"]
    command: Any = typer.main.get_command(deploy)
    rest = list(words[2:])
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    assert {word for word in rest if word.startswith("-")} <= known


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize(("file", "service"), SERVICES)
def test_a_container_has_no_rights_that_it_does_not_need(file: str, service: str) -> None:
    tree = COMPOSE[file]["services"][service]
    assert tree["user"] == "10001:10001"
    assert tree["read_only"] is True
    assert tree["cap_drop"] == ["ALL"]
    assert tree["security_opt"] == ["no-new-privileges:true"]
    assert tree["restart"] == "unless-stopped"
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"} & tree.keys()
    assert {"mem_limit", "cpus", "pids_limit"} <= tree.keys()
    assert "latest" not in tree["image"]
    assert ":" in tree["image"]
    written = [one["target"] for one in tree["volumes"] if not one.get("read_only")]
    assert written == ([] if service == "nginx" else [f"/srv/{service}"])


def test_only_nginx_has_a_port_and_the_coordinator_no_way_out() -> None:
    ports = {f"{f}.{s}": tree.get("ports") for f, one in COMPOSE.items() for s, tree in one["services"].items()}
    assert ports == {"coordinator.coordinator": None, "coordinator.nginx": ["443:8443"], "site.site": None}
    assert "expose" not in COMPOSE["site"]["services"]["site"]
    inside = COMPOSE["coordinator"]["services"]["coordinator"]["networks"]
    assert [COMPOSE["coordinator"]["networks"][name] for name in inside] == [{"internal": True}]


def test_images_are_those_that_the_dockerfile_makes() -> None:
    for name in ("coordinator", "site"):
        image = COMPOSE[name]["services"][name]["image"]
        assert image == f"wardround-{name}:{__version__}"
        assert f"--target {name} --tag {image} ." in DOCKERFILE


def test_the_dockerfile() -> None:
    lines = re.sub(r"\\\n", " ", DOCKERFILE).splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    bases = [line[1] for line in words if line[0] == "FROM"]
    assert bases == ["${BASE}", "${BASE}", "base", "base"]
    assert ["ARG", "BASE=python:3.11-slim-bookworm"] in words
    assert not any(line[0] == "ADD" for line in words)
    assert [line[1] for line in words if line[0] == "USER"] == ["10001:10001"]
    copied = {word for line in words if line[0] == "COPY" and "--from=build" not in line for word in line[1:-1]}
    ignore = (PACKAGING / "docker" / "Dockerfile.dockerignore").read_text().split()
    assert ignore[0] == "*"
    assert {f"!{word.removeprefix('./')}" for word in copied} == {word for word in ignore if word[0] == "!"}
    root = PACKAGING.parent
    assert all((root / word).exists() for word in copied)
    for name in ("coordinator", "site"):
        stage = DOCKERFILE.partition(f"FROM base AS {name}\n")[2].partition("FROM ")[0]
        (entry,) = re.findall(r"^ENTRYPOINT (.*)$", stage, re.MULTILINE)
        (start,) = re.findall(r"^CMD (.*)$", stage, re.MULTILINE)
        check_command([*json.loads(entry), *json.loads(start)])


def test_the_images_install_what_the_page_installs() -> None:
    """With the versions of the constraints, and the same index for torch."""
    page = (PACKAGING.parent / "docs" / "deployment.md").read_text(encoding="utf-8")
    (index,) = re.findall(r"^ARG TORCH_INDEX=(\S+)$", DOCKERFILE, re.MULTILINE)
    (flower,) = re.findall(r"flwr==[\d.]+", DOCKERFILE)
    assert flower in (PACKAGING.parent / "constraints-flower.txt").read_text().splitlines()
    for line in (f'--constraint constraints.txt --extra-index-url {index} ".[secure,he]"', flower):
        assert line in page


@pytest.mark.parametrize("secret", ["pip,target=/etc/pip.conf", "ca"])
def test_every_pip_of_an_image_has_the_administrators_configuration(secret: str) -> None:
    runs = [line for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines() if "pip install" in line]
    assert len(runs) == 2
    assert all(f"--mount=type=secret,id={secret} " in line for line in runs)


@pytest.mark.parametrize(("name", "connected"), [(n, c) for n in ("coordinator", "site") for c in (True, False)])
def test_a_container_is_healthy_while_its_process_is_connected(name: str, connected: bool, tmp_path: Path) -> None:
    stage = DOCKERFILE.partition(f"FROM base AS {name}\n")[2].partition("FROM ")[0]
    (health,) = re.findall(r"HEALTHCHECK .*\\\n +CMD (.*)$", stage, re.MULTILINE)
    folder = f"/srv/{name}"
    assert f"VOLUME {folder}\n" in stage
    command = [word.replace(folder, str(tmp_path)) for word in json.loads(health)]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0  # not begun yet
    (tmp_path / "state").mkdir()
    atomic.write_json(tmp_path / "state" / "status.json", {"pid": 6, "connected": connected, "run": None})
    assert (subprocess.run(command, check=False).returncode == 0) is connected


@pytest.mark.parametrize("name", UNITS)
def test_the_page_makes_every_path_of_a_unit(name: str) -> None:
    page = (PACKAGING.parent / "docs" / "deployment.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"(?<=[= ])/(?:opt|srv)/\w+", "\n".join(UNITS[name].read_text().splitlines()[1:])))
    assert f"/srv/{name}" in paths
    assert {path for path in paths if path not in page} == set()
    assert f"packaging/systemd/{UNITS[name].name}" in page


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_runs_as_nobody_special_and_for_ever(name: str) -> None:
    found = settings(UNITS[name])
    assert found["User"] == ["wardround"]
    assert found["Restart"] == ["always"]
    assert found["StartLimitIntervalSec"] == ["0"]
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["ProtectSystem"] == ["strict"]
    assert found["ReadWritePaths"] == [f"/srv/{name}"]
    assert {"MemoryMax", "CPUQuota", "TasksMax", "TimeoutStopSec"} <= found.keys()
    # a site's policy sets limits of its own, which is a call of this group
    assert not any("@resources" in value for value in found["SystemCallFilter"])
    (start,) = found["ExecStart"]
    words = start.split()
    assert words[0] == "/opt/wardround/bin/wardround"
    check_command(["wardround", *words[1:]])


def test_nginx_asks_where_the_coordinator_listens() -> None:
    (start,) = settings(UNITS["coordinator"])["ExecStart"]
    listens = start.split()[-1]
    assert f"server {listens};" in (PACKAGING / "nginx" / "wardround.conf").read_text()


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_unit(name: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / UNITS[name].name
    unit.write_text(UNITS[name].read_text().replace("/opt/wardround/bin/wardround", "/bin/true"))
    found = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_the_sed_of_the_compose_file_makes_a_configuration_for_it() -> None:
    text = (PACKAGING / "docker" / "coordinator.yaml").read_text()
    command = " ".join(re.findall(r"^#   (.*?)\\?$", text, re.MULTILINE)).partition(" > ")[0]
    made = subprocess.run(
        ["sh", "-c", command], cwd=PACKAGING.parent, capture_output=True, text=True, check=True
    ).stdout
    assert "fl.example.org" not in made
    assert "  listen 8443 ssl;" in made
    assert "  server coordinator:9443;" in made
    assert "  access_log /dev/stdout combined" in made
    nginx = COMPOSE["coordinator"]["services"]["nginx"]
    mounted = {one["target"] for one in nginx["volumes"]}
    named = set(re.findall(r"/srv/coordinator/[\w.]+", made))
    assert named == {target for target in mounted if target.startswith("/srv")}
    assert nginx["ports"] == ["443:8443"]
