from typing import Any

import pytest

from wardround.config.job import DataSpec
from wardround.data.datasets.heart import Heart
from wardround.data.datasets.wdbc import WDBC
from wardround.data.registry import DATASETS, build
from wardround.errors import ConfigError


def test_builds_by_name_with_options() -> None:
    assert isinstance(build(DataSpec()), WDBC)
    heart = build(DataSpec(dataset="heart", options={"split": "flamby"}))
    assert isinstance(heart, Heart)
    assert heart.split == "flamby"


def test_builds_a_plug_in_by_module_and_class() -> None:
    assert isinstance(build(DataSpec(dataset="wardround.data.datasets.wdbc:WDBC")), WDBC)


# the sites of these are values of a column
IN_THEIR_FILES = {"custom", "images", "readmission", "ham10000", "isic2019"}


@pytest.mark.parametrize("name", sorted(set(DATASETS) - IN_THEIR_FILES))
def test_description_is_consistent_and_needs_no_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WARDROUND_DATA", raising=False)
    description = build(DataSpec(dataset=name)).describe()
    assert description.name == name
    assert len({column.name for column in description.columns}) == len(description.columns)
    assert all(bool(column.levels) == (column.kind == "categorical") for column in description.columns)
    assert description.source.startswith("https://")


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("hart", {}, "did you mean 'heart'"),
        ("heart", {"split": "thirds"}, "expected 'patients' or 'flamby'"),
        ("heart", {"zero_is_missing": "yes"}, "expected true or false"),
        ("heart", {"fold": 1}, "do not fit"),
        ("wdbc", {"split": "flamby"}, "do not fit"),
    ],
)
def test_refuses_what_does_not_fit(dataset: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(DataSpec(dataset=dataset, options=options))
