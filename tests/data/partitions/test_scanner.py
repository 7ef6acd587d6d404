"""Scanners: one a site, drawn from its name; images keep their shape, type and range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wardround.config.job import FeatureSkewSpec
from wardround.data.partitions.features import skewed
from wardround.data.partitions.scanner import Scanner
from wardround.errors import ConfigError, DataError
from wardround.types import SiteData

PARTS = ("noise", "gamma", "contrast", "blur", "resolution", "bias_field")


def pictures(n: int = 6, shape: tuple[int, ...] = (1, 16, 16), dtype: Any = np.uint8) -> NDArray[Any]:
    ramp = np.random.default_rng(0).integers(0, 256, (n, *shape))
    return ramp.astype(dtype) if np.issubdtype(dtype, np.integer) else (ramp / 255.0).astype(dtype)


def sites(*names: str, dtype: Any = np.uint8) -> dict[str, SiteData]:
    own = pictures(dtype=dtype)
    return {n: SiteData(features=own, labels=np.zeros(6, np.int64), patients=np.arange(6)) for n in names}


def through(names: tuple[str, ...], seed: int = 0, dtype: Any = np.uint8, **options: Any) -> dict[str, NDArray[Any]]:
    spec = FeatureSkewSpec(effect="scanner", options=options)
    return {n: d.features for n, d in skewed(sites(*names, dtype=dtype), spec, seed=seed, columns=()).items()}


def only(part: str, amount: float) -> dict[str, float]:
    return {**dict.fromkeys(PARTS, 0.0), part: amount}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_sites_differ_and_keep_type_and_range(dtype: Any) -> None:
    raw, found = pictures(dtype=dtype), through(("a", "b"), dtype=dtype)
    assert not np.array_equal(found["a"], found["b"])
    for features in found.values():
        assert features.dtype == raw.dtype
        assert features.shape == raw.shape
        assert not np.array_equal(features, raw)
        if dtype == np.float32:
            assert raw.min() <= features.min() <= features.max() <= raw.max()
    assert np.array_equal(raw, pictures(dtype=dtype))


def test_a_scanner_depends_on_seed_and_name_alone() -> None:
    both, alone = through(("a", "b")), through(("b",))
    assert np.array_equal(both["b"], alone["b"])
    assert not np.array_equal(through(("b",), seed=1)["b"], alone["b"])


@pytest.mark.parametrize("part", PARTS)
def test_each_part_works_by_itself(part: str) -> None:
    assert not np.array_equal(through(("a",), **only(part, 0.7))["a"], pictures())


def test_nothing_is_changed_without_strength_and_where_a_site_is_to_stay() -> None:
    assert np.array_equal(through(("a",), strength=0.0)["a"], pictures())
    found = through(("a", "b"), intact=1)
    assert np.array_equal(found["a"], pictures())
    assert not np.array_equal(found["b"], pictures())


def test_gamma_keeps_black_and_white_and_the_order() -> None:
    raw = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    seen = Scanner(**only("gamma", 0.5)).apply(raw, site="a", place=0, sites=1, rng=np.random.default_rng(1)).ravel()
    assert (seen[0], seen[-1]) == (0, 255)
    assert (np.diff(seen.astype(int)) >= 0).all()
    assert not np.array_equal(seen, raw.ravel())


@pytest.mark.parametrize("part", ["blur", "resolution"])
def test_blur_and_resolution_take_detail_and_keep_the_mean(part: str) -> None:
    raw = pictures(20, (1, 32, 32), np.float32)
    seen = Scanner(**only(part, 3.0)).apply(raw, site="a", place=0, sites=1, rng=np.random.default_rng(1))
    assert seen.std() < 0.8 * raw.std()
    assert abs(seen.mean() - raw.mean()) < 0.02


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32])
@pytest.mark.parametrize("shape", [(1, 6, 8, 8), (2, 1, 8, 8)])
def test_volumes_have_scanners_too(shape: tuple[int, ...], dtype: Any) -> None:
    raw = pictures(2, shape, dtype)
    seen = Scanner().apply(raw, site="a", place=0, sites=1, rng=np.random.default_rng(1))
    assert (seen.shape, seen.dtype) == (raw.shape, raw.dtype)
    assert raw.min() <= seen.min() < seen.max() <= raw.max()
    assert not np.array_equal(seen, raw)


def test_a_volume_is_blurred_along_depth_as_well() -> None:
    raw = np.zeros((1, 1, 9, 9, 9), np.float32)
    raw[0, 0, 4, 4, 4] = 1.0
    seen = Scanner(**only("blur", 3.0)).apply(raw, site="a", place=0, sites=1, rng=np.random.default_rng(1))[0, 0]
    assert seen[3, 4, 4] == pytest.approx(seen[4, 3, 4], rel=1e-5)
    assert seen[3, 4, 4] > 1e-3


def test_wide_integers_have_the_range_of_their_site() -> None:
    """Hounsfield units in 16 bits: noise is a fraction of what is there, not of the 65536 numbers that there could be."""
    raw = np.random.default_rng(0).integers(-1000, 1000, (4, 1, 32, 32)).astype(np.int16)
    seen = Scanner(**only("noise", 0.05)).apply(raw, site="a", place=0, sites=1, rng=np.random.default_rng(1))
    assert 0 < np.abs(seen.astype(float) - raw).std() <= 0.05 * 2000


def test_a_range_beyond_the_type_does_not_wrap() -> None:
    """More contrast between -100 and 400 takes bytes beyond both ends of 0..255: there they stay, and the order too."""
    raw = pictures(dtype=np.uint8)
    order, ends = np.argsort(raw, axis=None, kind="stable"), []
    for seed in range(6):
        scanner = Scanner(**only("contrast", 2.0), range=(-100.0, 400.0))
        seen = scanner.apply(raw, site="a", place=0, sites=1, rng=np.random.default_rng(seed)).reshape(-1)
        assert (np.diff(seen[order].astype(int)) >= 0).all()
        ends.append((int(seen.min()), int(seen.max())))
    assert (0, 255) in ends


def test_blocks_change_no_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = through(("a",), noise=0.0)["a"]
    monkeypatch.setattr("wardround.data.partitions.scanner._BLOCK", 256)
    assert np.array_equal(through(("a",), noise=0.0)["a"], whole)


@pytest.mark.parametrize(("options", "words"), [({"blur": -1.0}, "blur"), ({"range": [1, 0]}, "low below high")])
def test_impossible_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        through(("a",), **options)


def test_tables_have_no_scanner() -> None:
    with pytest.raises(DataError, match="is for images"):
        Scanner().apply(np.zeros((3, 4)), site="a", place=0, sites=1, rng=np.random.default_rng(0))


def test_an_unknown_effect_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'scanner'"):
        skewed(sites("a"), FeatureSkewSpec(effect="scaner"), seed=0, columns=())
