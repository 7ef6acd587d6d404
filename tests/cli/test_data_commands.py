"""`wardround data`: describe, list, fetch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from data.profile import hospital
from wardround.cli.app import app
from wardround.data.sources import SOURCES
from wardround.data.tables.schema import Schema


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return hospital.write(tmp_path / "stays.csv", hospital.rows())


@pytest.mark.parametrize("command", ["describe", "list", "fetch"])
def test_help_shows_an_example(command: str, wardround: Any) -> None:
    ended = wardround("data", command, "--help")
    assert ended.code == 0
    assert re.search(rf"Examples?\s+wardround data {command}", plain(ended.out)), ended.out


def test_the_group_is_among_the_commands() -> None:
    assert "data" in [group.name for group in app.registered_groups]


def test_describe_prints_findings_and_writes_a_draft_and_a_page(table: Path, wardround: Any) -> None:
    ended = wardround("data", "describe", table)
    assert ended.code == 0, ended.err
    out = plain(ended.out)
    for text in (
        "600 rows, 18 columns",
        "label: ill (guessed",
        "leak: discharge_code",
        "email: e-mail address, by its name, 600 different",
        "constant: ward",
    ):
        assert text in " ".join(out.split()), text
    schema = Schema.read("profiles/stays/schema.yaml")
    assert schema.site == "hospital"
    page = Path("profiles/stays/profile.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 6
    assert page.count('<article class="column">') == 18
    for text in (out, page):
        assert not any(row["patient_name"] in text or row["attending"] in text for row in hospital.rows())


def test_a_corrected_schema_is_not_overwritten(table: Path, wardround: Any) -> None:
    assert wardround("data", "describe", table, "--out", "here", "--no-page").code == 0
    path = Path("here/schema.yaml")
    assert {file.name for file in Path("here").iterdir()} == {"schema.yaml"}
    path.write_text("# mine\n", encoding="utf-8")
    ended = wardround("data", "describe", table, "--out", "here", "--no-page")
    assert path.read_text(encoding="utf-8") == "# mine\n"
    assert Schema.read("here/schema.draft.yaml").label is not None
    assert "it is left as it is" in plain(ended.out)


def test_describe_as_json(table: Path, wardround: Any) -> None:
    ended = wardround("data", "describe", table, "--json", "--label", "smoker", "--suppress-below", 1)
    tree = json.loads(ended.out)
    assert tree["roles"]["label"] == {"column": "smoker", "guessed": False}
    assert tree["rows"] == 600
    assert tree["sites"]["rows"]["hill"] == 3
    assert set(tree["files"]) == {"schema", "page"}


def test_a_draft_trains(table: Path, wardround: Any) -> None:
    wardround("data", "describe", table, "--no-page")
    schema = Path("profiles/stays/schema.yaml")
    text = schema.read_text(encoding="utf-8") + "min_rows: 30\nsmall_sites: other\n"
    schema.write_text(text.replace("small_sites: other", "small_sites: drop"), encoding="utf-8")
    job = {
        "data": {"dataset": "custom", "options": {"path": str(table), "schema": str(schema)}},
        "training": {"rounds": 2, "local_steps": 2},
        "evaluation": {"bootstrap": 0, "baselines": []},
        "engine": {"threads": 1},
    }
    Path("job.yaml").write_text(json.dumps(job), encoding="utf-8")
    ended = wardround("run", "job.yaml", "--out", "run", "--no-report", "--quiet")
    assert ended.code == 0, ended.err
    result = json.loads(Path("run/result.json").read_text(encoding="utf-8"))
    assert set(result["partition"]) == {"north", "south", "harbour"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere.csv",), 3, "there is no file nowhere.csv"),
        (("stays.csv", "--label", "il"), 2, "no column 'il' to be the label"),
        (("stays.csv", "--names", "a,b"), 3, "18 columns and 2 names"),
        (("stays.csv", "--suppress-below", "0"), 2, "threshold"),
    ],
)
def test_describe_refuses(arguments: tuple[str, ...], code: int, message: str, table: Path, wardround: Any) -> None:
    ended = wardround("data", "describe", *arguments)
    assert ended.code == code
    assert message in " ".join(ended.err.split())
    assert not Path("profiles").exists()


def test_list_says_what_is_there(tmp_path: Path, wardround: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WARDROUND_DATA", raising=False)
    assert "WARDROUND_DATA is not set" in plain(wardround("data", "list").out)
    (tmp_path / "pima_diabetes").mkdir()
    (tmp_path / "pima_diabetes" / "pima-indians-diabetes.csv").write_text("1,2\n")
    ended = wardround("data", "list", "--root", tmp_path, "--json")
    states = {event["name"]: event["state"] for event in ended.events()}
    assert states["wdbc"] == "bundled"
    assert states["custom"] == "yours"
    assert states["heart"] == "not there"
    assert states["pima"] == "there, not the official files"
    assert set(SOURCES) <= set(states)


def test_fetch_shows_licence_and_citation_and_refuses_what_it_does_not_know(tmp_path: Path, wardround: Any) -> None:
    ended = wardround("data", "fetch", "wdbc")
    assert ended.code == 0
    assert "CC BY 4.0" in ended.err
    assert "W. Wolberg" in ended.err
    assert "nothing to fetch" in ended.err
    ended = wardround("data", "fetch", "hart", "--root", tmp_path)
    assert (ended.code, "did you mean 'heart'" in ended.err) == (2, True)
    ended = wardround("data", "fetch", "heart", "--root", tmp_path, "--from", tmp_path)
    assert ended.code == 3
    assert "neither processed.cleveland.data nor heart+disease.zip" in ended.err


def test_fetch_needs_a_folder(wardround: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WARDROUND_DATA", raising=False)
    ended = wardround("data", "fetch", "heart")
    assert (ended.code, "give --root FOLDER" in ended.err) == (2, True)


def test_fetch_takes_what_is_accepted(tmp_path: Path, wardround: Any) -> None:
    (tmp_path / "diabetic_data.csv").write_text("encounter_id\n1\n")
    root = tmp_path / "root"
    ended = wardround("data", "fetch", "readmission", "--root", root, "--from", tmp_path)
    assert ended.code == 3
    (digest,) = set(re.findall(r"--accept ([0-9a-f]{64})", ended.err))
    assert not (root / "diabetes130" / "diabetic_data.csv").exists()
    ended = wardround("data", "fetch", "readmission", "--root", root, "--from", tmp_path, "--accept", digest, "--json")
    assert ended.code == 0, ended.err
    assert ended.events()[0]["sha256"] == digest
    assert (root / "diabetes130" / "SHA256SUMS").read_text() == f"{digest}  diabetic_data.csv\n"
