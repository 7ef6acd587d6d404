from typing import Any

import numpy as np
import pytest
from scipy.stats import hypergeom

from wardround.config.job import PartitionSpec
from wardround.data.heterogeneity import mean_absolute_deviation, measure
from wardround.data.partitions.partition import partition
from wardround.types import Column, Description, SiteData

COLUMNS = (Column(name="x"), Column(name="y"), Column(name="grade", kind="categorical", levels=("a", "b", "c")))


def _description(columns: tuple[Column, ...] = COLUMNS, classes: int = 2, shape: tuple[int, ...] = ()) -> Description:
    return Description(
        name="d", title="d", source="", licence="", sites=("p",), columns=columns, shape=shape,
        classes=tuple(f"class {c}" for c in range(classes)),
    )  # fmt: skip


def _site(labels: Any, features: Any = None, patients: Any = None) -> SiteData:
    labels = np.asarray(labels, dtype=np.int64)
    return SiteData(
        features=np.zeros((len(labels), 3)) if features is None else np.asarray(features, dtype=np.float64),
        labels=labels,
        patients=np.arange(len(labels)) if patients is None else np.asarray(patients),
    )


def _pool(rows: int = 600, *, rows_each: int = 1) -> SiteData:
    draw = np.random.default_rng(1)
    patient = np.arange(rows) // rows_each
    own = draw.normal(size=(rows, 2))[patient]
    features = np.concatenate([own + 0.3 * draw.normal(size=(rows, 2)), draw.integers(0, 3, (rows, 1))], axis=1)
    features[draw.random((rows, 3)) < 0.1] = np.nan
    labels = (own[:, 0] + draw.normal(size=rows) > 0).astype(np.int64)
    return SiteData(features=features, labels=labels, patients=patient)


@pytest.mark.parametrize("total", [1, 2, 13, 60])
def test_chance_is_the_mean_of_the_hypergeometric_deviation(total: int) -> None:
    sizes = np.unique([1, total // 3 + 1, total - 1 or 1, total])
    marked = np.unique([0, 1, total // 4, total - 1, total])
    found = mean_absolute_deviation(sizes, marked, total)
    for i, n in enumerate(sizes):
        for j, r in enumerate(marked):
            x = np.arange(n + 1)
            expected = (np.abs(x / n - r / total) * hypergeom(total, r, n).pmf(x)).sum()
            assert found[i, j] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rows_each", [1, 4])
@pytest.mark.parametrize("sites", [4, 25])
def test_a_random_deal_is_about_zero(sites: int, rows_each: int) -> None:
    spec = PartitionSpec(kind="iid", sites=sites, min_rows=1)
    found = [
        measure(_description(), partition({"p": _pool(rows_each=rows_each)}, spec, seed=seed, classes=2))
        for seed in range(60)
    ]
    for part in ("label", "feature", "gaps"):
        skews = np.array([figures[part]["skew"] for figures in found])
        chance = found[0][part]["chance"]
        # exact where a patient is one row; the design effect is an approximation of the last few per cent
        bound = 4 * skews.std() / np.sqrt(len(skews)) + 1e-4 if rows_each == 1 else 0.15 * chance
        assert abs(skews.mean()) < bound
        assert chance > 0.01


def test_sites_of_one_class_each_are_one() -> None:
    found = measure(_description(), {"a": _site([0] * 30), "b": _site([1] * 50), "c": _site([0] * 20)})
    assert found["label"]["skew"] == pytest.approx(1.0)
    # 50 of each class, and each site half off: 1/2 (1/2 + 1/2)
    assert found["label"]["distance"] == pytest.approx(0.5)


def test_label_distance_by_hand() -> None:
    # pool 6 of 10 in class 1; site a (4 patients) has 1/4 of it, b (6) has 5/6: |1/4 - 6/10| = 0.35, |5/6 - 6/10| = 7/30
    found = measure(_description(), {"a": _site([1, 0, 0, 0]), "b": _site([1, 1, 1, 1, 1, 0])})["label"]
    assert found["distance"] == pytest.approx(0.4 * 0.35 + 0.6 * 7 / 30)
    x = np.arange(5)
    chance = 0.4 * (np.abs(x / 4 - 0.6) * hypergeom(10, 6, 4).pmf(x)).sum() * 2
    assert found["chance"] == pytest.approx(chance)  # what site b has too much, site a has too little
    assert found["skew"] == pytest.approx((found["distance"] - chance) / (0.48 - chance))


def test_a_shift_of_one_deviation_is_one() -> None:
    draw = np.random.default_rng(0)
    sites = {}
    for site, shift in (("a", -50.0), ("b", 50.0)):
        features = np.zeros((4000, 3))
        features[:, 0] = shift + draw.normal(size=4000)
        sites[site] = _site(np.arange(4000) % 2, features)
    found = measure(_description(), sites)
    # pooled deviation 50, so each site lies 1 from the pool's mean; half of the pool is at the other site, 2 away
    assert found["feature"]["columns"]["x"] == pytest.approx(1.0, abs=0.02)
    assert found["feature"]["columns"]["y"] == 0.0
    assert found["feature"]["skew"] == pytest.approx(found["feature"]["columns"]["x"] / 3)
    assert found["shifts"]["x"]["a"] == pytest.approx(-1.0, abs=0.01)


def test_two_levels_are_measured_as_their_column_of_0_and_1() -> None:
    draw = np.random.default_rng(0)
    columns = (Column(name="number"), Column(name="levels", kind="categorical", levels=("f", "m")))
    sites = {}
    for site, share in (("a", 0.2), ("b", 0.7), ("c", 0.5)):
        value = (draw.random(500) < share).astype(float)
        sites[site] = _site(np.arange(500) % 2, np.stack([value, value], axis=1))
    found = measure(_description(columns), sites)["feature"]["columns"]
    # the integral over 0..1 has a whole number of bins of 0.08 s: s = 0.5, so 2 s is 25 of them
    assert found["number"] == pytest.approx(found["levels"], rel=0.04)


def test_gaps_by_hand() -> None:
    features = np.ones((100, 3))
    features[:, 0] = np.nan
    found = measure(_description(), {"a": _site([0, 1] * 50, features), "b": _site([0, 1] * 50)})
    # one of three columns: site a has 1, b 0, the pool 1/2
    assert found["gaps"]["distance"] == pytest.approx(0.5 / 3)
    assert found["shifts"]["x"] == {"a": None, "b": 0.0}


def test_sizes_by_hand() -> None:
    found = measure(_description(), {"a": _site([0, 1] * 5), "b": _site([0, 1] * 15), "c": _site([])})["quantity"]
    # 40^2 / (10^2 + 30^2) = 1.6; mean 20, deviation 10
    assert found == {"effective_sites": pytest.approx(1.6), "cv": pytest.approx(0.5)}


def test_a_patient_counts_once_however_many_rows() -> None:
    once = {"a": _site([0, 1, 1]), "b": _site([1, 0, 0, 1])}
    often = {
        "a": _site([0] * 7 + [1, 1], patients=[5] * 7 + [6, 7]),
        "b": _site([1, 0, 0] + [1] * 4, patients=[5, 6, 7] + [8] * 4),
    }
    for figure in ("skew", "distance", "chance"):
        label = measure(_description(), often)["label"][figure]
        assert label == pytest.approx(measure(_description(), once)["label"][figure])
    assert measure(_description(), often)["patients"] == 7


def test_nothing_and_one_site() -> None:
    assert measure(_description(), {"a": _site([])}) == {}
    alone = measure(_description(), {"a": _site([0, 1, 1])})
    assert alone["label"]["distance"] == alone["label"]["chance"] == 0.0
    assert measure(_description(), {"a": _site([1]), "b": _site([0])})["label"]["skew"] is None


def test_many_sites_are_not_listed() -> None:
    sites = partition({"p": _pool()}, PartitionSpec(kind="iid", sites=41, min_rows=1), seed=0, classes=2)
    assert measure(_description(), sites)["shifts"] == {}


def test_pictures_are_told_by_their_channels() -> None:
    draw = np.random.default_rng(0)
    sites = {
        site: SiteData(
            features=(draw.random((40, 2, 6, 6)) + shift).astype(np.float32),
            labels=np.arange(40) % 2,
            patients=np.arange(40),
        )
        for site, shift in (("a", 0.0), ("b", 0.5))
    }
    found = measure(_description((), shape=(2, 6, 6)), sites)["feature"]["columns"]
    assert list(found) == [f"{what} of channel {c}" for what in ("mean", "deviation") for c in (0, 1)]
    assert found["mean of channel 1"] > 0.8
    assert abs(found["deviation of channel 1"]) < 0.2
