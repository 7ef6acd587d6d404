import numpy as np
import pytest

from data.partitions.pools import pool, sizes
from wardround.config.job import PartitionSpec
from wardround.data.partitions.partition import partition
from wardround.data.partitions.pathological import holders
from wardround.errors import DataError
from wardround.types import SiteData


def _deal(records: SiteData, *, seed: int = 0, classes: int = 6, **spec: object) -> dict[str, SiteData]:
    return partition({"p": records}, PartitionSpec(kind="pathological", **spec), seed=seed, classes=classes)


@pytest.mark.parametrize("each", [1, 2, 3])
def test_every_site_has_exactly_its_classes_and_every_class_is_somewhere(each: int) -> None:
    for seed in range(5):
        sites = _deal(pool(600, classes=6), sites=7, classes_per_site=each, seed=seed)
        assert {len(np.unique(site.labels)) for site in sites.values()} == {each}
        assert set(np.concatenate([site.labels for site in sites.values()]).tolist()) == set(range(6))


def test_the_patients_of_a_class_are_divided_evenly() -> None:
    sites = _deal(pool(600, classes=6), sites=9, classes_per_site=2)
    for c in range(6):
        held = [count for site in sites.values() if (count := int((site.labels == c).sum()))]
        assert max(held) - min(held) <= 1
        assert sum(held) == 100


def test_more_classes_than_sites_are_all_somewhere() -> None:
    for seed in range(20):
        held = holders(7, 3, 3, np.random.default_rng(seed))
        assert held.any(axis=1).all()
        assert (held.sum(axis=0) == 3).all()


def test_two_classes_a_site_of_two_is_iid_in_labels() -> None:
    sites = _deal(pool(200), sites=5, classes=2)
    assert all(abs(int(site.labels.sum()) * 2 - len(site.labels)) <= 1 for site in sites.values())


def test_shards_are_of_one_size_and_leave_a_site_few_classes() -> None:
    sites = _deal(pool(600, classes=6), sites=10, classes_per_site=2, shards=True)
    assert sizes(sites) == [60] * 10
    # 20 shards of 30 patients: a class of 100 is 3 of them and a third of another, so a shard has at most 2 classes
    assert max(len(np.unique(site.labels)) for site in sites.values()) <= 4
    assert min(len(np.unique(site.labels)) for site in sites.values()) < 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"classes_per_site": 7, "sites": 3}, "classes_per_site = 7, and the records have 6 classes"),
        ({"classes_per_site": 1, "sites": 5}, "sites = 5 of partition.classes_per_site = 1 cannot hold 6 classes"),
        ({"classes_per_site": 6, "sites": 11, "shards": True, "min_rows": 1}, "need 66 patients, and there are 60"),
    ],
)
def test_refuses(spec: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _deal(pool(60, classes=6), **spec)
