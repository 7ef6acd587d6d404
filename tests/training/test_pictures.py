"""Stored pictures as a network is given them: scaled, and standardised after augmentation."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from small_federation import make_round
from wardround import streams
from wardround.config.job import AugmentSpec
from wardround.training import augment
from wardround.training.pictures import Pictures, Standard
from wardround.training.recipe import Recipe

SHAPE = (2, 5, 4)
OWNER = np.array([0, 1, 1, 0, 1, 0], dtype=np.int32)
STANDARD = Standard(mean=np.array([[0.5, 0.1], [0.25, 0.2]]), scale=np.array([[2.0, 0.5], [1.0, 0.25]]), owner=OWNER)


def stored() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, *SHAPE), dtype=np.uint8)


def by_hand(rows: np.ndarray) -> np.ndarray:
    """Each row of `stored` by its own owner's numbers."""
    mean, scale = (each[OWNER[rows]][..., None, None] for each in (STANDARD.mean, STANDARD.scale))
    return (stored()[rows] / 255.0 - mean) / scale


@pytest.mark.parametrize("rows", [[4], [0, 3, 3], [[5, 1], [2, 0]]])
def test_rows_are_standardised_where_a_network_takes_them_and_not_where_they_are_augmented(rows: list[int]) -> None:
    index = np.array(rows)
    pictures = Pictures([stored()], scale=(0.0, 255.0), dtype=torch.float64, standard=STANDARD)
    assert pictures[torch.from_numpy(index)].numpy() == pytest.approx(by_hand(index), abs=1e-12)
    flat = torch.from_numpy(index.reshape(-1))
    assert pictures.index_select(0, flat).numpy() == pytest.approx(stored()[flat.numpy()] / 255.0, abs=1e-12)
    assert pictures[4].numpy() == pytest.approx(by_hand(np.array([4]))[0], abs=1e-12)
    one = Pictures([stored()], scale=(0.0, 255.0), dtype=torch.float64).standardized(
        Standard(mean=STANDARD.mean[:1], scale=STANDARD.scale[:1])
    )
    every = (stored()[index] / 255.0 - STANDARD.mean[0, :, None, None]) / STANDARD.scale[0, :, None, None]
    assert one[torch.from_numpy(index)].numpy() == pytest.approx(every, abs=1e-12)


def test_another_process_and_another_dtype_standardise_alike(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", stored())
    pictures = Pictures([np.load(tmp_path / "rows.npy", mmap_mode="r")], scale=(0.0, 255.0), standard=STANDARD)
    there = Pictures.mapped(pickle.loads(pickle.dumps(pictures.shared(tmp_path))))
    rows = torch.arange(6)
    assert torch.equal(there[rows], pictures[rows])
    double = pictures.on(torch.device("cpu"), torch.float64)
    assert double[rows].numpy() == pytest.approx(by_hand(np.arange(6)), abs=1e-12)


def test_statistics_see_scaled_pixels_in_blocks_of_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wardround.training.pictures._BLOCK", 80)  # two rows of 40 numbers
    blocks = list(Pictures([stored()[:4], stored()[4:]], scale=(0.0, 255.0), standard=STANDARD).exact(np.arange(5)))
    assert [len(block) for block in blocks] == [2, 2, 1]
    assert {block.dtype for block in blocks} == {np.dtype(np.float64)}
    assert np.concatenate(blocks) == pytest.approx(stored()[:5] / 255.0, abs=1e-15)


def test_a_step_standardises_after_augmentation_by_each_rows_own_numbers() -> None:
    """Two sites, whose training rows begin at 0 and 3; noise and gamma mean something else after standardising."""
    spec = AugmentSpec(flip=("width",), gamma=0.5, noise=0.1, probability={"gamma": 1.0, "noise": 1.0})
    change = augment.build(spec, SHAPE)
    keys = streams.site_keys(("a", "b"))
    first = dict(zip(keys.tolist(), (0, 3), strict=True))
    numbers = np.array([[2, 0], [1, 2]])
    where = torch.from_numpy(numbers + np.array([[0], [3]]))
    x = torch.from_numpy(stored()).double().div(255)[where]
    y, weights, facts = torch.zeros(2, 2, dtype=torch.int64), torch.ones(2, 2), {"keys": keys, "rows": numbers}
    recipe = Recipe(augment=change, standard=STANDARD, first=first)
    found, _, _ = recipe.batch(x, y, weights, None, **facts, round=make_round(), step=0)
    assert change is not None
    changed = change(x, keys, numbers, make_round(), 0)
    assert not torch.allclose(changed, x)
    assert torch.allclose(found, STANDARD(changed, where.numpy()), atol=1e-12)
    before = change(STANDARD(x, where.numpy()), keys, numbers, make_round(), 0)
    assert not torch.allclose(found, before, atol=1e-2)
