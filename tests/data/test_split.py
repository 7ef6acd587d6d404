import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wardround.config.job import SplitSpec
from wardround.data.split import split_patients, split_sites
from wardround.errors import DataError
from wardround.streams import uniform_bits
from wardround.types import SiteData

TRAIN, VALIDATION, TEST = 0, 1, 2
derandomized = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def _site(labels: Any, patients: Any = None, split: Any = None) -> SiteData:
    labels = np.asarray(labels, dtype=np.int64)
    return SiteData(
        features=np.arange(len(labels), dtype=np.float64)[:, None],
        labels=labels,
        patients=np.arange(len(labels)) if patients is None else np.asarray(patients),
        split=None if split is None else np.asarray(split, dtype=np.int8),
    )


def _split(data: SiteData, *, test: float = 0.25, validation: float = 0.2, seed: int = 0) -> NDArray[np.int8]:
    split = split_patients(data, SplitSpec(test=test, validation=validation), seed=seed, site="a").split
    assert split is not None
    return split


def test_fractions_hold_in_every_class() -> None:
    # 80 and 20 patients: test 20 and 5; of the 60 and 15 left validation 12 and 3
    labels = np.repeat([0, 1], [80, 20])
    split = _split(_site(labels))
    assert np.bincount(split[labels == 0]).tolist() == [48, 12, 20]
    assert np.bincount(split[labels == 1]).tolist() == [12, 3, 5]


def test_rounding_deals_the_total_by_largest_remainder() -> None:
    # 10 patients of classes 7 and 3, 0.25: total round(2.5) = 3 (halves up); shares 2.1 and 0.9 -> 2 and 1
    labels = np.repeat([0, 1], [7, 3])
    split = _split(_site(labels), validation=0.0)
    assert np.bincount(labels[split == TEST]).tolist() == [2, 1]


@derandomized
@given(
    patients=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    seed=st.integers(0, 2**63 - 1),
    test=st.sampled_from([0.0, 0.25, 0.5, 0.99]),
    validation=st.sampled_from([0.0, 0.2, 0.99]),
)
def test_patients_never_straddle_and_someone_trains(
    patients: list[int], seed: int, test: float, validation: float
) -> None:
    labels = np.arange(len(patients)) % 3 == 0
    split = _split(_site(labels, patients), test=test, validation=validation, seed=seed)
    assert len(set(zip(patients, split.tolist(), strict=True))) == len(set(patients))
    assert (split == TRAIN).any()
    assert split.dtype == np.int8


def test_zero_fractions_leave_all_to_train() -> None:
    assert (_split(_site([0, 1] * 10), test=0.0, validation=0.0) == TRAIN).all()
    assert not (_split(_site([0, 1] * 10), test=0.0) == TEST).any()


def test_one_patient_trains() -> None:
    assert _split(_site([1, 0], [7, 7]), test=0.9, validation=0.9).tolist() == [TRAIN, TRAIN]


def test_same_seed_same_split_and_row_order_does_not_matter() -> None:
    labels = np.arange(60) % 2
    data = _site(labels)
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_array_equal(_split(data), _split(data))
    np.testing.assert_array_equal(_split(_site(labels[order], order)), _split(data)[order])
    assert (_split(data) != _split(data, seed=1)).any()


@pytest.mark.parametrize("kind", [np.int64, np.str_])
def test_a_rank_does_not_depend_on_other_patients(kind: type) -> None:
    # whoever is among the 40 lowest of 400 is among the 40 lowest of any part, and so among its 100 lowest of 200
    everyone: NDArray[Any] = np.arange(400).astype(kind)
    before = _split(_site(np.zeros(400), everyone), test=0.1, validation=0.0) == TEST
    after = _split(_site(np.zeros(200), everyone[::2]), test=0.5, validation=0.0) == TEST
    assert before[::2].any()
    assert after[before[::2]].all()


def test_a_patient_s_class_is_the_highest_label() -> None:
    # 4 patients of two rows, labels (0, 1) or (0, 0): two of each class, so half for test takes one of each
    labels, patients = [0, 1, 1, 0, 0, 0, 0, 0], ["a", "a", "b", "b", "c", "c", "d", "d"]
    split = _split(_site(labels, patients), test=0.5, validation=0.0)
    tested = {patient for patient, code in zip(patients, split.tolist(), strict=True) if code == TEST}
    assert len(tested & {"a", "b"}) == 1
    assert len(tested & {"c", "d"}) == 1


def test_official_test_rows_stay() -> None:
    official = np.where(np.arange(50) < 10, TEST, TRAIN)
    split = _split(_site(np.arange(50) % 2, split=official))
    np.testing.assert_array_equal(split == TEST, official == TEST)
    assert (split == VALIDATION).sum() == 8


def test_official_validation_rows_stay_too() -> None:
    official = np.arange(50) % 3
    np.testing.assert_array_equal(_split(_site(np.arange(50) % 2, split=official)), official)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_site([]), "site 'a' has no rows"),
        (_site([0, 1], [5, 5], [TRAIN, TEST]), "two splits, for 1 patients"),
        (_site([0, 1], split=[TEST, TEST]), "no row to train on"),
        (_site([0, 1], split=[0, 3]), "the code 3"),
    ],
)
def test_refuses(data: SiteData, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _split(data)


@derandomized
@given(
    kinds=st.lists(st.sampled_from([np.int64, np.uint64, np.str_, np.float64]), min_size=1, max_size=5),
    official=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)
def test_sites_together_are_divided_as_each_alone(kinds: list[type], official: bool, seed: int) -> None:
    draw = np.random.default_rng(seed)
    data = {}
    for k, kind in enumerate(kinds):
        patients = draw.integers(0, 30, int(draw.integers(1, 40)))
        split = np.where(patients % 3 == 2, TEST, TRAIN) if official and k % 2 and (patients % 3 < 2).any() else None
        data[f"site {k}"] = _site(draw.integers(0, 3, len(patients)), patients.astype(kind), split)
    together = split_sites(data, SplitSpec(), seed=seed)
    assert list(together) == list(data)
    for site, own in data.items():
        np.testing.assert_array_equal(
            together[site].split, split_patients(own, SplitSpec(), seed=seed, site=site).split
        )


def test_a_seed_gives_the_split_that_it_always_gave() -> None:
    hashed = hashlib.sha256()
    for rows_each in (1, 2):
        for kind in (np.int64, np.str_):
            for site in ("a", "b"):
                data = _site(np.arange(101) * 7 // 3 % 3, (np.arange(101) // rows_each).astype(kind))
                split = split_patients(data, SplitSpec(), seed=5, site=site).split
                assert split is not None
                hashed.update(split.tobytes())
    assert hashed.hexdigest()[:16] == "6be8f25e3cce26c7"


def test_many_sites_cost_little_more_than_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("wardround.data.split.uniform_bits", lambda *given: calls.append(given) or uniform_bits(*given))
    split_sites({f"s{k}": _site([0, 1, 0, 1]) for k in range(3000)}, SplitSpec(), seed=0)
    assert len(calls) == 2
