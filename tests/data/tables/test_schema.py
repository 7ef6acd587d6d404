from datetime import date
from pathlib import Path
from typing import Any

import pytest

from wardround.data.tables.schema import Categorical, Label, Numeric, Schema
from wardround.errors import ConfigError, DataError
from wardround.types import Column

TEXT = """\
columns:
  mrn: identifier
  pid: patient
  ward: site
  age: {kind: numeric, missing: [999]}
  sex: {kind: categorical, levels: [F, M], unseen: other}
  stage: {kind: ordinal, levels: [I, II, III]}
  grade: {kind: ordinal, levels: [1, 2, 3], encode: one-hot}
  smoker: boolean
  admitted: date
  discharged: {kind: date, since: admitted}
  born: {kind: date, since: 1900-01-01, unit: years}
  died: {kind: label, classes: {alive: ['no', 0], dead: ['yes', 1]}}
missing: ['', unknown]
file: {delimiter: ;, decimal: ','}
min_rows: 20
small_sites: other
"""


def test_reads_and_writes_yaml(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(TEXT, encoding="utf-8")
    schema = Schema.read(path)
    assert schema.columns["age"] == Numeric(missing=("999",))
    assert schema.columns["born"].since == date(1900, 1, 1)  # type: ignore[union-attr]
    assert (schema.patient, schema.site, schema.min_rows) == ("pid", "ward", 20)
    again = Schema.parse(__import__("yaml").safe_load(schema.to_yaml()), "again")
    assert again == schema
    assert Schema.model_validate_json(schema.model_dump_json()) == schema
    assert "mrn: identifier" in schema.to_yaml()


def test_features_are_neither_labels_nor_identifiers(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(TEXT, encoding="utf-8")
    assert Schema.read(path).features == (
        Column(name="age", missing_codes=(999.0,)),
        Column(name="sex", kind="categorical", levels=("F", "M", "other")),
        Column(name="stage"),
        Column(name="grade", kind="categorical", levels=("1", "2", "3")),
        Column(name="smoker", kind="categorical", levels=("no", "yes")),
        Column(name="discharged"),
        Column(name="born"),
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": "numerical"}, r"columns\.a\.kind = 'numerical': did you mean 'numeric'"),
        ({"a": {"levels": ["x"]}}, "expected one of numeric, categorical"),
        ({"a": {"kind": "categorical"}}, r"columns\.a\.levels is missing: a categorical column needs it"),
        (
            {"a": {"kind": "categorical", "level": ["x"]}},
            r"'columns\.a\.level' of a categorical column: did you mean 'levels'",
        ),
        ({"a": {"kind": "categorical", "levels": ["x", "x"]}}, r"columns\.a: levels names x more than once"),
        ({"a": {"kind": "categorical", "levels": [True, False]}}, "True is what YAML makes of a bare word"),
        ({"a": {"kind": "date", "since": "b"}}, r"columns\.a\.since = 'b': expected another date column"),
        ({"a": {"kind": "date", "since": "a"}}, r"columns\.a\.since = 'a'"),
        ({"a": "label"}, "either classes"),
        ({"a": {"kind": "label", "classes": {"x": [0], "y": [0]}}}, "the value 0 is given to more than one class"),
        ({"a": {"kind": "label", "classes": {"x": [0]}}}, "1 class: expected at least two"),
        ({"a": {"kind": "label", "cut": {"above": 1, "at_least": 1}}}, "set one of them"),
        ({"a": {"kind": "label", "classes": {"x": [0], "y": [1]}, "positive": "z"}}, "positive = 'z'"),
        ({"a": "patient", "b": "patient"}, "columns a, b are all of kind patient"),
        ({"a": {"kind": "boolean", "positive": ["T"], "negative": ["t"]}}, "t is both positive and negative"),
        ({}, "columns"),
    ],
)
def test_faults_are_named(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Schema.parse({"columns": columns}, "schema.yaml")
    assert str(caught.value).startswith("schema.yaml: ")


def test_two_labels_are_refused() -> None:
    label = {"kind": "label", "classes": {"x": [0], "y": [1]}}
    with pytest.raises(ConfigError, match="columns a, b are all of kind label"):
        Schema.parse({"columns": {"a": label, "b": label}}, "schema.yaml")


def test_a_column_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text("columns:\n  a: numeric\n  a: identifier\n")
    with pytest.raises(ConfigError, match="line 3: the key 'a' is given twice"):
        Schema.read(path)
    with pytest.raises(ConfigError, match="there is no schema"):
        Schema.read(tmp_path / "absent.yaml")


def test_the_positive_class_comes_second() -> None:
    classes: dict[str, tuple[str, ...]] = {"ill": ("1",), "well": ("0",)}
    assert Label(classes=classes).names == ("ill", "well")
    assert Label(classes=classes, positive="ill").names == ("well", "ill")


def test_rare_levels_are_merged_by_public_counts() -> None:
    schema = Schema(columns={"ward": Categorical(levels=("a", "b", "c"))})
    merged = schema.merge_rare("ward", {"a": 100, "b": 9, "c": 10}, 10)
    assert merged.features[0].levels == ("a", "c", "other")
    assert schema.merge_rare("ward", {"a": 10, "b": 10, "c": 10}, 10) is schema
    with pytest.raises(DataError, match="no level of 'ward' has 10 rows"):
        schema.merge_rare("ward", {}, 10)


def test_a_schema_of_columns_reads_them() -> None:
    columns = (Column(name="x", missing_codes=(0.0,)), Column(name="c", kind="categorical", levels=("1", "2")))
    assert Schema.of_columns(columns).features == columns
