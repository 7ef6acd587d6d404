import numpy as np
import pytest

from data.partitions.pools import pool, rows_of, sizes
from wardround.config.job import PartitionSpec
from wardround.data.partitions.partition import partition
from wardround.types import SiteData


def _deal(rows: int = 1200, *, seed: int = 0, classes: int = 3, **spec: object) -> dict[str, SiteData]:
    return partition(
        {"p": pool(rows, classes=classes)}, PartitionSpec(kind="combined", **spec), seed=seed, classes=classes
    )


@pytest.mark.parametrize("alpha", [0.05, 0.5, 100.0])
def test_sizes_are_those_of_the_law_whatever_the_labels(alpha: float) -> None:
    for seed in range(5):
        sites = _deal(sites=4, alpha=alpha, seed=seed)
        assert sorted(sizes(sites)) == [144, 192, 288, 576]
        assert len(rows_of(sites)) == 1200


def test_alpha_sets_the_labels() -> None:
    def spread(alpha: float) -> float:
        shares = [
            np.bincount(site.labels, minlength=3) / len(site.labels)
            for seed in range(5)
            for site in _deal(sites=4, alpha=alpha, seed=seed).values()
        ]
        return float(np.std(shares, axis=0).mean())

    assert spread(1e6) < 0.01
    assert spread(1.0) > 0.1
    assert spread(0.1) > 1.3 * spread(1.0)


def test_even_sizes_and_uneven_labels() -> None:
    sites = _deal(sites=6, alpha=0.3, quantity={"exponent": 0})
    assert sizes(sites) == [200] * 6
    assert max(np.bincount(site.labels, minlength=3).max() / 200 for site in sites.values()) > 0.6


def test_few_classes_a_site_hold_exactly_and_sizes_follow_among_their_like() -> None:
    proportions = (4.0, 2.0, 1.0, 1.0)
    sites = _deal(
        sites=4, classes=2, classes_per_site=1, quantity={"law": "proportions", "proportions": proportions}
    )  # fmt: skip
    assert all(len(np.unique(site.labels)) == 1 for site in sites.values())
    for c in (0, 1):
        shares = {p: len(s.labels) for p, s in zip(proportions, sites.values(), strict=True) if s.labels[0] == c}
        assert sum(len(s.labels) for s in sites.values() if s.labels[0] == c) == 600
        assert sorted(shares) == [share for share, _ in sorted(shares.items(), key=lambda item: item[1])]


def test_rare_classes_at_many_small_sites_lose_nobody() -> None:
    records = SiteData(
        features=np.arange(2000.0)[:, None],
        labels=(np.arange(2000) % 97 == 0).astype(np.int64) + (np.arange(2000) % 499 == 0),
        patients=np.arange(2000),
    )
    spec = PartitionSpec(kind="combined", sites=150, alpha=0.01, min_rows=5)
    sites = partition({"p": records}, spec, seed=0, classes=3)
    assert rows_of(sites) == list(range(2000))
    assert min(sizes(sites)) >= 5
