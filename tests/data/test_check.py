"""Records that do not fit their description are refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wardround.data.check import check_records
from wardround.errors import DataError
from wardround.types import Column, Description, SiteData

DESCRIPTION = Description(
    name="clinic", title="", source="", licence="", sites=("north",), columns=(Column(name="a"), Column(name="b"))
)
GOOD = SiteData(features=np.zeros((4, 2)), labels=np.array([0, 1, 0, 1]), patients=np.arange(4))


def test_good_records_pass() -> None:
    check_records(DESCRIPTION, {"north": GOOD})
    check_records(DESCRIPTION, {"north": replace(GOOD, split=np.array([0, 1, 2, 0], dtype=np.int8))})


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"labels": np.array([0, 1, 0])}, r"shape \(4, 2\), expected \(3, 2\)"),
        ({"features": np.zeros((4, 3))}, r"expected \(4, 2\)"),
        ({"labels": np.array([1, 2, 1, 2])}, "label of row 1 is 2, expected 0..1"),
        ({"labels": np.array([0, -1, 0, 1])}, "label of row 1 is -1"),
        ({"labels": np.array([0.0, 0.5, 0.0, 1.0])}, "label of row 1 is 0.5"),
        ({"labels": np.array([0.0, np.nan, 0.0, 1.0])}, "label of row 1 is nan"),
        ({"labels": np.zeros(4, dtype=np.int64)}, "no record of class positive"),
        ({"patients": np.arange(3)}, "3 patients for 4 labels"),
        ({"split": np.zeros(5, dtype=np.int8)}, "5 split for 4 labels"),
        ({"split": np.array([0, 1, 2, 3], dtype=np.int8)}, "other codes"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(DataError, match=word) as caught:
        check_records(DESCRIPTION, {"north": replace(GOOD, **changes)})
    assert "clinic" in str(caught.value)


def test_no_sites_and_no_data() -> None:
    with pytest.raises(DataError, match="no sites"):
        check_records(DESCRIPTION, {})
    with pytest.raises(DataError, match="gave a NoneType"):
        check_records(DESCRIPTION, {"north": None})  # type: ignore[dict-item]
