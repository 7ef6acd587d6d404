from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.partitions.pools import digest, pool, rows_of, sizes
from wardround.config.job import PartitionSpec
from wardround.data.partitions.partition import partition
from wardround.errors import ConfigError, DataError
from wardround.types import SiteData

derandomized = settings(derandomize=True, database=None, deadline=None, max_examples=40)


def test_natural_sites_are_returned_in_canonical_order() -> None:
    data = {"va": pool(3), "cleveland": pool(4)}
    sites = partition(data, PartitionSpec(), seed=0, classes=2)
    assert list(sites) == ["cleveland", "va"]
    assert sites["va"] is data["va"]


@derandomized
@given(
    kind=st.sampled_from(["iid", "dirichlet", "pathological", "quantity", "combined"]),
    count=st.integers(2, 12),
    rows_each=st.integers(1, 3),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_row_is_at_one_site_and_patients_stay_together(kind: Any, count: int, rows_each: int, seed: int) -> None:
    records = pool(300, classes=3, rows_each=rows_each)
    spec = PartitionSpec(kind=kind, sites=count, alpha=1.0, min_rows=1)
    sites = partition({"pool": records}, spec, seed=seed, classes=3)
    assert len(sites) == count
    assert rows_of(sites) == records.features[:, 0].tolist()
    for site in sites.values():
        rows = site.features[:, 0].astype(int)
        np.testing.assert_array_equal(site.labels, records.labels[rows])
        np.testing.assert_array_equal(site.patients, records.patients[rows])
        assert (np.diff(rows) > 0).all()
    owners = [(patient, name) for name, site in sites.items() for patient in set(site.patients.tolist())]
    assert len(owners) == len(np.unique(records.patients))


def test_names_are_padded_so_that_lexical_order_is_numeric() -> None:
    names = list(partition({"p": pool(50)}, PartitionSpec(kind="iid", sites=10, min_rows=1), seed=0, classes=2))
    assert names == sorted(names)
    assert names[0] == "site-01"
    assert names[-1] == "site-10"
    nine = partition({"p": pool(50)}, PartitionSpec(kind="iid", sites=9, min_rows=1), seed=0, classes=2)
    assert list(nine) == [f"site-{i}" for i in range(1, 10)]


def test_iid_sites_are_equal_to_one_patient() -> None:
    sites = partition({"p": pool(103)}, PartitionSpec(kind="iid", sites=10, min_rows=1), seed=0, classes=2)
    assert sorted(len(site.labels) for site in sites.values()) == [10] * 7 + [11] * 3


def test_seed_alone_decides() -> None:
    def draw(seed: int) -> list[list[float]]:
        spec = PartitionSpec(kind="dirichlet", sites=4)
        sites = partition({"p": pool(400)}, spec, seed=seed, classes=2)
        return [site.features[:, 0].tolist() for site in sites.values()]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_small_alpha_is_uneven_and_large_alpha_is_nearly_iid() -> None:
    def spread(alpha: float) -> float:
        spec = PartitionSpec(kind="dirichlet", sites=5, alpha=alpha, min_rows=1)
        sites = partition({"p": pool(5000)}, spec, seed=0, classes=2).values()
        return float(np.std([site.labels.mean() for site in sites]))

    # a Dirichlet(1e6) share is 1/5 +- 0.0002
    assert spread(1e6) < 0.01
    assert spread(0.1) > 0.2


def test_dirichlet_shares_have_the_paper_s_variance() -> None:
    # Var of one of K shares under Dirichlet(alpha) is (1/K)(1 - 1/K) / (K alpha + 1) = 0.25 x 0.75 / 3 = 0.0625
    spec = PartitionSpec(kind="dirichlet", sites=4, alpha=0.5, min_rows=1)
    shares = []
    for seed in range(150):
        sites = partition({"p": pool(1000)}, spec, seed=seed, classes=2).values()
        shares += [(site.labels == c).sum() / 500 for site in sites for c in (0, 1)]
    assert np.mean(shares) == pytest.approx(0.25)
    # redraws for empty sites are rare here, so that they hardly shift it
    assert np.var(shares) == pytest.approx(0.0625, rel=0.15)


def test_dirichlet_redraws_until_every_site_has_its_rows() -> None:
    spec = PartitionSpec(kind="dirichlet", sites=4, alpha=0.2, min_rows=15)
    for seed in range(5):
        sites = partition({"p": pool(200)}, spec, seed=seed, classes=2)
        assert min(len(site.labels) for site in sites.values()) >= 15


def test_two_hospitals_may_number_their_patients_alike() -> None:
    data = {"b": pool(20, offset=100), "a": pool(20)}
    sites = partition(data, PartitionSpec(kind="iid", sites=3), seed=0, classes=2)
    patients = np.concatenate([site.patients for site in sites.values()])
    assert len(np.unique(patients)) == 40
    assert {str(patient).split("/")[0] for patient in patients} == {"a", "b"}
    assert rows_of(sites) == [*range(20), *range(100, 120)]


def test_an_official_split_stays_with_its_rows() -> None:
    split = (np.arange(60) % 3 == 0).astype(np.int8) * np.int8(2)
    sites = partition({"p": pool(60, split=split)}, PartitionSpec(kind="iid", sites=4), seed=0, classes=2)
    for site in sites.values():
        np.testing.assert_array_equal(site.split, split[site.features[:, 0].astype(int)])


def test_many_sites_cost_no_more_than_their_rows() -> None:
    # 20,000 sites of 40,000 rows: sites x rows would be 8e8 steps, minutes rather than a moment
    sites = partition({"p": pool(40_000)}, PartitionSpec(kind="iid", sites=20_000, min_rows=2), seed=0, classes=2)
    assert {len(site.labels) for site in sites.values()} == {2}


@pytest.mark.parametrize(
    ("data", "spec", "message"),
    [
        ({"p": pool(12, rows_each=3)}, {"kind": "iid", "sites": 5}, "sites = 5 and there are 4 patients"),
        ({"p": pool(0)}, {"kind": "iid"}, "no rows"),
        ({}, {"kind": "iid"}, "no rows"),
        ({"p": pool(40, classes=4)}, {"kind": "iid"}, r"labels lie in 0\.\.3, expected 0\.\.1"),
        ({"p": pool(40)}, {"kind": "dirichlet", "sites": 5, "min_rows": 10}, "need 50 rows, and there are 40"),
        (
            {"p": pool(60)},
            {"kind": "dirichlet", "sites": 5, "min_rows": 12, "alpha": 0.01},
            r"no draw of 1000 gave each of 5 .*lower partition\.min_rows, raise partition\.alpha \(it is 0\.01\)",
        ),
        (
            {"p": pool(20), "q": pool(20, split=np.zeros(20, dtype=np.int8))},
            {"kind": "iid", "sites": 2},
            "only q of p, q bring an official split",
        ),
    ],
)
def test_refuses(data: dict[str, SiteData], spec: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        partition(data, PartitionSpec(**spec), seed=0, classes=2)


def test_refuses_rows_of_different_shapes() -> None:
    other = SiteData(features=np.zeros((4, 2)), labels=np.zeros(4, dtype=np.int64), patients=np.arange(4))
    with pytest.raises(DataError, match="different shapes"):
        partition({"p": pool(4), "q": other}, PartitionSpec(kind="iid", sites=2), seed=0, classes=2)


@pytest.mark.parametrize(
    ("kind", "seed", "rows_each", "expected"),
    [
        ("iid", 0, 1, "7ffcc5d09a551df0"),
        ("iid", 2**40, 3, "96db845707183044"),
        ("dirichlet", 0, 1, "eb0040034a34affc"),
        ("dirichlet", 7, 3, "61fa4472967502de"),
        ("dirichlet", 2**40, 1, "e92523a66f36a5b5"),
    ],
)
def test_a_seed_gives_the_partition_that_it_always_gave(kind: str, seed: int, rows_each: int, expected: str) -> None:
    records = SiteData(
        features=np.arange(600, dtype=float)[:, None],
        labels=np.arange(600) * 7 // 3 % 3,
        patients=np.arange(600) // rows_each,
    )
    spec = PartitionSpec(kind=kind, sites=6, alpha=0.4, min_rows=10)
    assert digest(partition({"p": records}, spec, seed=seed, classes=3)) == expected


def test_iid_sites_have_their_rows_or_are_refused() -> None:
    # 9 patients of 5 rows over 2 sites: 20 and 25 rows, however often they are dealt
    spec = PartitionSpec(kind="iid", sites=2, min_rows=22)
    with pytest.raises(DataError, match=r"no draw of 1 gave each of 2 .*left one site with 20\): .*use fewer sites"):
        partition({"p": pool(45, rows_each=5)}, spec, seed=0, classes=2)
    assert (
        min(sizes(partition({"p": pool(45, rows_each=5)}, PartitionSpec(kind="iid", sites=2), seed=0, classes=2))) == 20
    )


def test_iid_is_dealt_again_where_patients_have_unlike_numbers_of_rows() -> None:
    # 4 patients of 5 rows and 20 of 1 over 4 sites of 6: 10 rows each only where every site has one of the large ones
    patients = np.concatenate([np.repeat(np.arange(4), 5), np.arange(4, 24)])
    records = SiteData(features=np.zeros((40, 1)), labels=np.arange(40) % 2, patients=patients)
    spec = PartitionSpec(kind="iid", sites=4, min_rows=10)
    for seed in range(3):
        assert sizes(partition({"p": records}, spec, seed=seed, classes=2)) == [10] * 4


def test_a_plug_in_deals() -> None:
    spec = PartitionSpec(kind="data.partitions.pools:InTurn", sites=3)
    sites = partition({"p": pool(30)}, spec, seed=0, classes=2)
    assert sites["site-2"].features[:, 0].tolist() == list(range(1, 30, 3))
    # 9 patients of 5 rows in turn: 25 and 20 rows
    with pytest.raises(DataError, match=r"no draw of 1 gave .*lower partition\.min_rows, do without"):
        partition({"p": pool(45, rows_each=5)}, PartitionSpec(kind=spec.kind, sites=2, min_rows=22), seed=0, classes=2)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("dirichle", "did you mean 'dirichlet'.*natural"),
        ("data.partitions.pools:OutOfRange", r"sites 1\.\.3, expected 0\.\.2"),
        ("data.partitions.pools:Place", "it has no method deal"),
    ],
)
def test_refuses_kinds(kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        partition({"p": pool(60)}, PartitionSpec(kind=kind, sites=3), seed=0, classes=2)
