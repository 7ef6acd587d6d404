"""Layouts: what they hold, and that a forged one is refused."""

import copy
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.aggregation import weighting
from wardround.encoding import layout as layouts
from wardround.encoding.field import Field
from wardround.encoding.layout import Layout, layout_of
from wardround.errors import MessageError
from wardround.types import Contribution, Term

FIELD = Field(bits=16, sites=100)


def _contribution() -> Contribution:
    ones = torch.ones(2, dtype=torch.float64)
    step = {"w": torch.zeros(2, 3, 4), "b": torch.zeros(2, dtype=torch.float16), "none": torch.zeros(2, 0)}
    figures = {"loss": torch.zeros(2, dtype=torch.float64), "rows": torch.zeros(2, 5, dtype=torch.int64)}
    terms = {
        "step": Term(arrays=step, weights=ones, maximum=1.0),
        "training": Term(arrays=figures, weights=ones, maximum=1.0, exact=True),
    }
    return Contribution(sites=("a", "b"), terms=terms)


def test_values_side_by_side() -> None:
    found = layout_of(_contribution(), FIELD, part="values")
    assert [(e.flat, e.shape, e.dtype, e.coding, e.start, e.digits) for e in found.entries] == [
        ("step/.weight", (), "float64", "wide", 0, 8),
        ("step/w", (3, 4), "float32", "scaled", 8, 12),
        ("step/b", (), "float16", "scaled", 20, 1),
        ("step/none", (0,), "float32", "scaled", 21, 0),
        ("training/.weight", (), "float64", "wide", 21, 8),
        ("training/loss", (), "float64", "wide", 29, 8),
        ("training/rows", (5,), "float64", "wide", 37, 40),
        ("step/.exponent/w", (64,), "int64", "count", 77, 64),
        ("step/.exponent/b", (64,), "int64", "count", 141, 64),
        ("step/.exponent/none", (64,), "int64", "count", 205, 64),
        (".codec/.clipped", (), "float64", "wide", 269, 8),
    ]
    assert found.size == 277


def test_the_pass_that_measures_has_exponents_alone() -> None:
    found = layout_of(_contribution(), FIELD, part="measure", rotated=True)
    assert [e.flat for e in found.entries] == ["step/.exponent/w", "step/.exponent/b", "step/.exponent/none"]
    assert found.size == 192
    assert found.rotated


def test_narrow_digits_take_twice_the_limbs() -> None:
    narrow = layout_of(_contribution(), Field(bits=8, sites=3), part="values")
    assert {e.digits // e.size for e in narrow.entries if e.coding == "wide"} == {16}


def test_figures_alone_need_no_count_of_clipped() -> None:
    whole = _contribution()
    found = layout_of(Contribution(sites=("a", "b"), terms={"training": whole.terms["training"]}), FIELD, part="values")
    assert [e.flat for e in found.entries] == ["training/.weight", "training/loss", "training/rows"]


def test_nothing_has_an_empty_layout() -> None:
    found = layout_of(Contribution(sites=("a",), terms={}), FIELD, part="values")
    assert found.size == 0
    assert Layout.from_json(found.to_json()) == found


def test_the_name_of_a_weight_is_that_of_the_plain_channel() -> None:
    assert layouts.WEIGHT == weighting.WEIGHT


@pytest.mark.parametrize("part", ["values", "measure"])
@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_json_comes_back(part: Any, rotated: bool, bits: int) -> None:
    found = layout_of(_contribution(), Field(bits=bits, sites=3), part=part, rotated=rotated)
    back = Layout.from_json(json.loads(json.dumps(found.to_json())))
    assert back == found
    assert back.digest() == found.digest()
    assert len(found.digest()) == 64


def test_digests_tell_layouts_apart() -> None:
    one = _contribution()
    ways = [layout_of(one, FIELD, part=part, rotated=turn) for part in ("values", "measure") for turn in (False, True)]  # type: ignore[arg-type]
    ways.append(layout_of(one, Field(bits=8, sites=100), part="values"))
    assert len({way.digest() for way in ways}) == 5


@pytest.mark.parametrize(
    ("term", "arrays"),
    [
        ("a/b", {"w": torch.zeros(1)}), ("", {"w": torch.zeros(1)}), (".codec", {"w": torch.zeros(1)}),
        ("step", {".weight": torch.zeros(1)}), ("step", {".exponent/w": torch.zeros(1)}), ("step", {"": torch.zeros(1)}),
        ("step", {"w": torch.zeros(1, dtype=torch.complex64)}),
    ],
)  # fmt: skip
def test_names_and_dtypes_that_a_layout_cannot_hold(term: str, arrays: dict[str, torch.Tensor]) -> None:
    one = Contribution(sites=("a",), terms={term: Term(arrays=arrays, weights=torch.ones(1), maximum=1.0)})
    with pytest.raises(MessageError):
        layout_of(one, FIELD, part="values")


_NAME, _SHAPE, _DTYPE, _CODING, _START, _DIGITS = 1, 2, 3, 4, 5, 6


@pytest.mark.parametrize(
    ("entry", "place", "value"),
    [
        (1, _START, 9), (1, _START, 7), (1, _START, -1), (2, _START, 8), (1, _START, 8.0), (1, _START, True),
        (1, _DIGITS, 13), (1, _DIGITS, -12), (1, _DIGITS, 2**70), (1, _DIGITS, None),
        (1, _SHAPE, [3, -4]), (1, _SHAPE, [12.0]), (1, _SHAPE, [2**31, 2**31]), (1, _SHAPE, [2**20] * 40), (1, _SHAPE, 12),
        (1, _SHAPE, [3, 5]), (1, _SHAPE, [3, True]), (1, _SHAPE, None), (1, _SHAPE, "34"), (1, _SHAPE, ["3", "4"]),
        (1, _DTYPE, "object"), (1, _DTYPE, "int64"), (1, _DTYPE, 3), (7, _DTYPE, "float32"),
        (1, _CODING, "wide"), (1, _CODING, "count"), (1, _CODING, "pickle"), (1, _CODING, []), (5, _CODING, "scaled"),
        (0, _NAME, "w2"), (2, _NAME, "w"), (1, _NAME, ""), (1, _NAME, "w" * 2000), (1, _NAME, 4), (7, _NAME, ".exponent/x"),
        (1, 0, "training"), (4, 0, "step"), (1, 0, "a/b"), (10, 0, "codec"), (10, _NAME, "clipped"), (0, _DIGITS, 16),
        (7, _SHAPE, [63]), (10, _SHAPE, [1]),
    ],
)  # fmt: skip
def test_an_altered_entry_is_refused(entry: int, place: int, value: object) -> None:
    given = layout_of(_contribution(), FIELD, part="values").to_json()
    given["entries"][entry][place] = value
    with pytest.raises(MessageError, match="layout"):
        Layout.from_json(given)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", 276), ("size", -1), ("size", "277"), ("size", 277.0), ("size", True), ("part", "measure"), ("part", "other"),
        ("part", ["values"]), ("part", None), ("rotated", 1), ("rotated", None), ("entries", {}), ("entries", None),
        ("entries", []), ("entries", [[]]), ("entries", [None]), ("entries", "entries"),
    ],
)  # fmt: skip
def test_an_altered_frame_is_refused(key: str, value: object) -> None:
    given = layout_of(_contribution(), FIELD, part="values").to_json()
    given[key] = value
    with pytest.raises(MessageError, match="layout"):
        Layout.from_json(given)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_no_reordering_omission_or_repetition_passes(data: st.DataObject) -> None:
    good = layout_of(_contribution(), FIELD, part="values").to_json()
    order = data.draw(st.lists(st.integers(0, len(good["entries"]) - 1), max_size=14))
    given_json = {**copy.deepcopy(good), "entries": [copy.deepcopy(good["entries"][i]) for i in order]}
    if given_json == good:
        return
    with pytest.raises(MessageError):
        Layout.from_json(given_json)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(["entries", "size", "part", "rotated"]), inner)
    ),
    max_leaves=20,
)


@given(_JSON)
@settings(max_examples=200, deadline=None)
def test_any_other_json_is_refused(given_json: Any) -> None:
    with pytest.raises(MessageError):
        Layout.from_json(given_json)


def test_a_huge_layout_is_refused() -> None:
    arrays = {"w": torch.zeros(1).expand(1, 2**31), "v": torch.zeros(1).expand(1, 2**31), "u": torch.zeros(1, 1)}
    one = Contribution(sites=("a",), terms={"step": Term(arrays=arrays, weights=torch.ones(1), maximum=1.0)})
    with pytest.raises(MessageError, match="digits, expected at most"):
        layout_of(one, FIELD, part="values")
