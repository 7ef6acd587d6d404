import numpy as np

from wardround.data.imaging import twins
from wardround.types import SPLITS

TRAIN, VALIDATION, TEST = (SPLITS.index(name) for name in ("train", "validation", "test"))


def test_equal_rows_have_one_place() -> None:
    rows = np.array([[1, 2], [3, 4], [1, 2], [2, 1]], dtype=np.uint8)
    assert twins.places(twins.fingerprints(rows)).tolist() == [0, 1, 0, 3]


def test_what_judges_keeps_its_copy() -> None:
    same = np.array([0, 0, 0, 3, 3, 5, 5])
    split = np.array([TRAIN, VALIDATION, TEST, TRAIN, VALIDATION, TRAIN, TRAIN], dtype=np.int8)
    out = twins.straddling(same, split)
    assert out.tolist() == [True, True, False, True, False, False, False]
    assert twins.counted(split, out) == {"train": 2, "validation": 1, "test": 0}


def test_groups_that_share_a_picture_become_one() -> None:
    # a and b share a picture, b and c another: a, b and c are one; d is alone
    groups = np.array(["a", "b", "b", "c", "d", "a"])
    same = np.array([0, 0, 2, 2, 4, 5])
    assert twins.joined(groups, same).tolist() == [0, 0, 0, 0, 4, 0]


def test_no_rows() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert not len(twins.joined(none, none))
