from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.config.job import FeatureSkewSpec, PartitionSpec
from wardround.data.partitions.features import skewed
from wardround.data.partitions.partition import partition
from wardround.errors import ConfigError, DataError
from wardround.types import Column, SiteData

COLUMNS = (Column(name="age"), Column(name="marker"), Column(name="sex", kind="categorical", levels=("f", "m")))


def _site(rows: int, *, seed: int = 0, patients: Any = None) -> SiteData:
    draw = np.random.default_rng(seed)
    features = np.stack([draw.normal(60, 10, rows), draw.normal(2, 0.5, rows), draw.integers(0, 2, rows)], axis=1)
    return SiteData(
        features=features, labels=np.arange(rows) % 2, patients=np.arange(rows) if patients is None else patients
    )


def _hospitals(rows: int = 400, count: int = 4) -> dict[str, SiteData]:
    return {f"h{k:02d}": _site(rows, seed=k) for k in range(count)}


def _skew(
    data: dict[str, SiteData], *, seed: int = 0, table: tuple[Column, ...] = COLUMNS, **spec: Any
) -> dict[str, SiteData]:
    return skewed(data, FeatureSkewSpec(**spec), seed=seed, columns=table)


def _images(
    rows: int = 30, count: int = 3, shape: tuple[int, ...] = (2, 8, 8), dtype: Any = np.float32
) -> dict[str, SiteData]:
    draw = np.random.default_rng(0)
    most = 1.0 if np.issubdtype(dtype, np.floating) else 256.0
    return {
        f"h{k}": SiteData(
            features=(most * draw.random((rows, *shape), dtype=np.float32)).astype(dtype),
            labels=np.arange(rows) % 2,
            patients=np.arange(rows),
        )
        for k in range(count)
    }


def test_nothing_asked_changes_nothing() -> None:
    data = _hospitals()
    assert all(_skew(data)[site] is data[site] for site in data)


def test_noise_grows_over_the_sites_in_units_of_the_pooled_deviation() -> None:
    data = _hospitals(rows=4000)
    noisy = _skew(data, noise=0.8)
    pooled = np.concatenate([site.features[:, 0] for site in data.values()]).std()
    for k, site in enumerate(data):
        added = noisy[site].features[:, 0] - data[site].features[:, 0]
        # variance 0.64 (k + 1) / 4 in squared units; a standard deviation of 4000 numbers is known to 1.1 %
        assert added.std() == pytest.approx(pooled * 0.8 * np.sqrt((k + 1) / 4), rel=0.05)
        assert abs(added.mean()) < 4 * added.std() / np.sqrt(4000)
        np.testing.assert_array_equal(noisy[site].features[:, 2], data[site].features[:, 2])
        np.testing.assert_array_equal(noisy[site].labels, data[site].labels)


def test_noise_of_columns_and_rows_is_independent() -> None:
    data = _hospitals(rows=4000, count=1)
    added = (_skew(data, noise=1.0)["h00"].features - data["h00"].features)[:, :2]
    assert abs(np.corrcoef(added.T)[0, 1]) < 0.06
    assert abs(np.corrcoef(added[1:, 0], added[:-1, 0])[0, 1]) < 0.06


def test_a_shift_is_one_number_a_site_and_column() -> None:
    data = _hospitals(count=300, rows=20)
    moved = _skew(data, shift=2.0)
    pooled = np.concatenate([site.features for site in data.values()]).std(axis=0)
    shifts = np.stack([(moved[site].features - data[site].features)[:, :2] / pooled[:2] for site in data])
    assert np.ptp(shifts, axis=1).max() < 1e-9
    # 600 normal numbers of standard deviation 2
    assert shifts[:, 0].std() == pytest.approx(2.0, rel=0.12)
    assert abs(np.corrcoef(shifts[:, 0].T)[0, 1]) < 0.2


def test_a_scale_stretches_about_the_pooled_mean() -> None:
    data = _hospitals(count=2)
    mean = np.concatenate([site.features[:, 0] for site in data.values()]).mean()
    for site, moved in _skew(data, scale=0.5).items():
        factor = (moved.features[:, 0] - mean) / (data[site].features[:, 0] - mean)
        assert np.ptp(factor) < 1e-6
        assert factor[0] > 0.0
        assert factor[0] != pytest.approx(1.0)


def test_units_may_be_declared() -> None:
    data = _hospitals(rows=4000, count=1)
    added = _skew(data, noise=1.0, units={"age": 3.0, "*": 0.25})["h00"].features - data["h00"].features
    assert added[:, 0].std() == pytest.approx(3.0, rel=0.05)
    assert added[:, 1].std() == pytest.approx(0.25, rel=0.05)


def test_named_columns_alone_change() -> None:
    data = _hospitals()
    moved = _skew(data, shift=1.0, columns=["marker"], missing=0.5)["h01"].features
    np.testing.assert_array_equal(moved[:, [0, 2]], data["h01"].features[:, [0, 2]])
    assert np.isnan(moved[:, 1]).any()


def test_each_site_loses_a_fraction_of_its_own_at_random() -> None:
    data = _hospitals(count=200, rows=500)
    rates = np.stack([np.isnan(site.features).mean(axis=0) for site in _skew(data, missing=0.4).values()])
    # a site's fraction is uniform on 0 .. 0.4, the same for its columns up to counting
    assert rates.mean() == pytest.approx(0.2, abs=0.03)
    assert rates.mean(axis=1).std() == pytest.approx(0.4 / np.sqrt(12), rel=0.15)
    assert np.ptp(rates, axis=1).max() < 0.15


def test_columns_are_never_measured_at_some_sites_and_measured_at_one() -> None:
    gone = np.stack(
        [np.isnan(site.features).all(axis=0) for site in _skew(_hospitals(count=10), unmeasured=0.3).values()]
    )
    assert gone.sum(axis=0).tolist() == [3, 3, 3]
    almost = _skew(_hospitals(count=3), unmeasured=0.99)
    assert np.stack([np.isnan(site.features).all(axis=0) for site in almost.values()]).sum(axis=0).tolist() == [2, 2, 2]


def test_gaps_stay_gaps() -> None:
    data = _hospitals(count=2)
    data["h00"].features[::3, 0] = np.nan
    moved = _skew(data, shift=1.0, noise=1.0, scale=0.3)["h00"].features
    np.testing.assert_array_equal(np.isnan(moved), np.isnan(data["h00"].features))


def test_the_seed_and_the_site_decide() -> None:
    data = _hospitals()
    asked = {"shift": 1.0, "scale": 0.2, "missing": 0.2}
    np.testing.assert_array_equal(_skew(data, **asked)["h02"].features, _skew(data, **asked)["h02"].features)
    assert (_skew(data, **asked)["h02"].features != _skew(data, seed=1, **asked)["h02"].features).any()
    units = {"units": {"*": 1.0}}
    fewer = {site: data[site] for site in ("h01", "h02")}
    np.testing.assert_array_equal(
        _skew(fewer, shift=1.0, **units)["h02"].features, _skew(data, shift=1.0, **units)["h02"].features
    )


def test_it_works_on_top_of_any_dealing() -> None:
    pool = {"p": _site(400)}
    for kind in ("natural", "iid", "dirichlet", "quantity"):
        plain = partition(pool, PartitionSpec(kind=kind), seed=3, classes=2, columns=COLUMNS)
        spec = PartitionSpec(kind=kind, features={"shift": 1.0})
        moved = partition(pool, spec, seed=3, classes=2, columns=COLUMNS)
        for site in plain:
            np.testing.assert_array_equal(moved[site].patients, plain[site].patients)
            assert (moved[site].features[:, :2] != plain[site].features[:, :2]).all()
    assert (pool["p"].features == _site(400).features).all()


def test_channels_of_pictures_shift_by_themselves() -> None:
    data = _images()
    moved = _skew(data, table=(), shift=1.0)
    for site in data:
        added = moved[site].features.astype(float) - data[site].features
        assert moved[site].features.dtype == np.float32
        assert np.ptp(added, axis=(0, 2, 3)).max() < 1e-5
        assert abs(added[0, 0, 0, 0] - added[0, 1, 0, 0]) > 1e-3


def test_pictures_get_noise_in_every_pixel() -> None:
    data = _images(rows=200)
    added = [(s.features.astype(float) - data[site].features) for site, s in _skew(data, table=(), noise=1.0).items()]
    unit = np.concatenate([site.features[:, 0] for site in data.values()]).std()
    assert added[2][:, 0].std() == pytest.approx(unit, rel=0.03)
    assert added[0][:, 0].std() == pytest.approx(unit * np.sqrt(1 / 3), rel=0.03)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 5, 8, 8)], ids=["2D", "3D"])
def test_channels_of_pictures_and_volumes_of_any_type_move_by_themselves(shape: tuple[int, ...], dtype: Any) -> None:
    data = _images(shape=shape, dtype=dtype)
    for site, moved in _skew(data, table=(), shift=0.3).items():
        assert moved.features.dtype == dtype
        raw, seen = data[site].features.astype(float), moved.features.astype(float)
        limits = (0.0, 255.0) if dtype == np.uint8 else (-np.inf, np.inf)
        inside = (seen > limits[0]) & (seen < limits[1])
        added = [(seen - raw)[:, c][inside[:, c]] for c in range(2)]
        # one number a site and channel, but for the rounding of a half-precision number near 1
        assert max(np.ptp(one) for one in added) <= (1e-3 if dtype == np.float16 else 1e-6)
        assert abs(added[0][0] - added[1][0]) > 1e-3


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 5, 8, 8)], ids=["2D", "3D"])
def test_bytes_are_rounded_and_saturate_instead_of_wrapping(shape: tuple[int, ...]) -> None:
    """Against the same numbers as floats: what would leave 0..255 stays at the end that it leaves by."""
    asked = {"shift": 1.0, "scale": 0.5, "noise": 1.0}
    data = _images(shape=shape, dtype=np.uint8)
    floats = {name: replace(site, features=site.features.astype(np.float64)) for name, site in data.items()}
    expected = _skew(floats, table=(), **asked)
    outside = 0
    for name, moved in _skew(data, table=(), **asked).items():
        wanted = expected[name].features
        outside += int(((wanted < -0.5) | (wanted > 255.5)).sum())
        np.testing.assert_array_equal(moved.features, np.clip(np.rint(wanted), 0, 255).astype(np.uint8))
    assert outside > 100


def test_pictures_mapped_from_a_file_are_copied_and_the_file_stays(tmp_path: Path) -> None:
    data = _images(dtype=np.uint8)
    np.save(tmp_path / "images.npy", data["h0"].features)
    mapped = {**data, "h0": replace(data["h0"], features=np.load(tmp_path / "images.npy", mmap_mode="r"))}
    found = _skew(mapped, table=(), noise=0.5, effect="scanner")
    wanted = _skew(data, table=(), noise=0.5, effect="scanner")
    for name in data:
        np.testing.assert_array_equal(found[name].features, wanted[name].features)
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), data["h0"].features)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _skew(_images(), table=(), noise=1.0, scale=0.1)
    monkeypatch.setattr("wardround.data.partitions.features._BLOCK", 100)
    parts = _skew(_images(), table=(), noise=1.0, scale=0.1)
    for site in whole:
        np.testing.assert_allclose(parts[site].features, whole[site].features, rtol=1e-6)


def test_a_plug_in_comes_last() -> None:
    data = _hospitals()
    moved = _skew(data, effect="data.partitions.pools:Place", options={"step": 100.0})
    np.testing.assert_array_equal(moved["h03"].features, data["h03"].features + 300.0)


@pytest.mark.parametrize(
    ("columns", "spec", "message"),
    [
        (COLUMNS, {"shift": 1.0, "columns": ["agee"]}, "columns names 'agee': did you mean 'age'"),
        (COLUMNS, {"shift": 1.0, "units": {"mark": 2.0}}, "units names 'mark': did you mean 'marker'"),
        (COLUMNS, {"shift": 1.0, "columns": ["sex"]}, "none of those meant is one"),
        ((), {"missing": 0.1}, "missing is for the columns of a table"),
        ((), {"noise": 0.1, "columns": ["age"]}, "columns is for the columns of a table"),
    ],
)
def test_refuses(columns: tuple[Column, ...], spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _skew(_hospitals() if columns else _images(), table=columns, **spec)


def test_refuses_a_plug_in_that_loses_rows() -> None:
    with pytest.raises(DataError, match=r"features of site 'h00' became \(200, 3\), expected \(400, 3\)"):
        _skew(_hospitals(), effect="data.partitions.pools:Halved")
