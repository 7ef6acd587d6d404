"""Every trap of a hospital table is found, and nothing of an identifier gets out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.profile import hospital
from wardround.data.profile.describe import Profile, describe
from wardround.data.profile.draft import as_yaml
from wardround.data.tables.reader import open_table
from wardround.report.profile import page


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    path = hospital.write(tmp_path_factory.mktemp("table") / "stays.csv", hospital.rows())
    return describe(open_table(path))


def columns(found: Profile, kind: str, level: str | None = None) -> set[str]:
    return {
        name
        for caution in found.tree["cautions"]
        if caution["kind"] == kind and level in (None, caution["level"])
        for name in caution["columns"]
    }


def test_identifiers_are_found_and_drafted_as_such(found: Profile) -> None:
    assert columns(found, "identifier") == set(hospital.IDENTIFIERS)
    for name in hospital.IDENTIFIERS:
        assert found.schema.columns[name].kind == "identifier"
    assert not {column.name for column in found.schema.features} & {*hospital.IDENTIFIERS, "remarks"}


def test_free_text_that_names_people_is_found(found: Profile) -> None:
    assert columns(found, "free text", "act") == {"remarks"}


def test_the_other_traps_are_found_and_nothing_else(found: Profile) -> None:
    assert columns(found, "leak") == {"discharge_code"}
    assert columns(found, "constant") == {"ward"}
    assert columns(found, "disguised missing") == {"cholesterol", "heart_rate", "smoker"}
    assert {c["kind"] for c in found.tree["cautions"]} == {
        *("identifier", "free text", "leak", "constant", "disguised missing", "tiny site", "one-class site"),
    }


def test_the_draft_needs_no_edit(found: Profile) -> None:
    kinds = {name: column.kind for name, column in found.schema.columns.items()}
    assert kinds["hospital"] == "site"
    assert kinds["ill"] == "label"
    assert (kinds["age"], kinds["cholesterol"], kinds["marker"], kinds["heart_rate"]) == ("numeric",) * 4
    assert (kinds["sex"], kinds["smoker"]) == ("categorical", "boolean")
    assert kinds["ward"] == kinds["discharge_code"] == "ignore"
    assert found.schema.columns["cholesterol"].missing == ("0",)
    assert found.schema.columns["heart_rate"].missing == ("999",)
    assert found.schema.columns["smoker"].missing == ("unknown",)


def test_no_value_of_an_identifier_gets_out(found: Profile) -> None:
    schema = as_yaml(found.schema, found.tree)
    everything = "\n".join([json.dumps(found.tree), schema, page(found.tree, schema)])
    for row in hospital.rows():
        for name in (*hospital.IDENTIFIERS, "remarks"):
            assert row[name] not in everything, name
    for part in (*hospital.GIVEN[:5], *hospital.FAMILY):
        assert part not in everything


def test_identifiers_are_found_by_their_values_alone(tmp_path: Path) -> None:
    made = [
        dict(zip(("a", "b", "c", "d", "e", "f", "g"), (row[name] for name in hospital.IDENTIFIERS), strict=True))
        | {"value": row["marker"]}
        for row in hospital.rows(300)
    ]
    found = describe(open_table(hospital.write(tmp_path / "t.csv", made)))
    kinds = {name: column.kind for name, column in found.schema.columns.items()}
    # a date by itself does not say that it is one of birth
    assert kinds == dict.fromkeys("acdefg", "identifier") | {"b": "date", "value": "numeric"}


@pytest.mark.parametrize(("below", "told"), [(5, None), (2, 3), (1, 3)])
def test_small_counts_are_withheld(tmp_path: Path, below: int, told: int | None) -> None:
    path = hospital.write(tmp_path / "t.csv", hospital.rows())
    tree = describe(open_table(path), below=below).tree
    assert tree["sites"]["rows"]["hill"] == told
    assert tree["label"]["by_site"]["hill"] == [told, None if told is None else 0]
    (caution,) = (c for c in tree["cautions"] if c["kind"] == "tiny site")
    assert ("fewer than 5 rows" in caution["evidence"]) == (below == 5)
    assert ("3 rows" in caution["evidence"]) == (below != 5)
