"""Thresholds and rings: the bounds hold where they can be counted."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from wardround.channels.secagg import spec as module
from wardround.channels.secagg.graph import groups_of, neighbours_of
from wardround.channels.secagg.spec import MaskSpec, Rule, rule_of
from wardround.errors import ConfigError


@pytest.mark.parametrize(
    ("sites", "active", "threshold"),
    # above n / 2; with active above (n + c) / 2 for c = (n - 1) // 3; never a sum of fewer than 3; one may drop from 4 on
    [(3, False, 3), (4, False, 3), (5, False, 3), (6, False, 4), (10, False, 6), (32, False, 17),
     (3, True, 3), (4, True, 3), (5, True, 4), (7, True, 5), (10, True, 7), (100, True, 67)],
)  # fmt: skip
def test_complete_groups(sites: int, active: bool, threshold: int) -> None:
    rule = Rule(degree=sites - 1, threshold=threshold, survivors=threshold)
    assert rule_of(MaskSpec(active=active), sites) == rule


@given(
    sites=st.integers(2, 120), active=st.booleans(), colluders=st.none() | st.integers(0, 40),
    threshold=st.none() | st.floats(0.51, 1.0), minimum=st.integers(2, 6),
)  # fmt: skip
def test_every_rule_keeps_its_promise(
    sites: int, active: bool, colluders: int | None, threshold: float | None, minimum: int
) -> None:
    spec = MaskSpec(active=active, colluders=colluders, threshold=threshold, minimum=minimum)
    try:
        rule = rule_of(spec, sites)
    except ConfigError:
        assert sites < minimum or (colluders is not None and colluders > 0)
        return
    c = colluders if colluders is not None else (sites - 1) // 3 if active else 0
    if rule.degree == sites - 1:
        assert 2 * rule.threshold > sites + c
        assert rule.threshold >= minimum
        assert rule.threshold <= sites - 1 or sites == minimum
    else:
        assert not active
        assert 2 * rule.threshold > rule.degree + 1
        assert rule.threshold <= rule.degree
        assert rule.survivors >= max(sites * 2 / 3, minimum)
    if threshold is not None:
        assert rule.threshold >= min(threshold * (rule.degree + 1), max(rule.degree, minimum))


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 0.5}, {"threshold": 1.1}, {"colluders": -1}, {"groups": 0}, {"minimum": 1}, {"neighbours": 7},
     {"neighbours": 0}, {"neighbours": 20, "active": True}],
)  # fmt: skip
def test_parameters_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MaskSpec(**wrong)  # type: ignore[arg-type]


def test_too_many_that_collude_and_too_few_neighbours_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"colluders = 9 of 10.*two or more"):
        rule_of(MaskSpec(colluders=9), 10)
    with pytest.raises(ConfigError, match=r"colluders = 8 of 10.*more than 9 shares"):
        rule_of(MaskSpec(colluders=8), 10)
    with pytest.raises(ConfigError, match="neighbours = 16 of 100"):
        rule_of(MaskSpec(neighbours=16), 100)
    with pytest.raises(ConfigError, match="11 sites in 4 group"):
        MaskSpec(groups=4).check(11)
    MaskSpec(groups=4).check(12)


@pytest.mark.parametrize("sites", [33, 50, 100, 400])
def test_a_ring_is_chosen_for_many_sites_only(sites: int) -> None:
    rule = rule_of(MaskSpec(), sites)
    assert rule.degree < sites - 1
    assert rule_of(MaskSpec(), 32).degree == 31
    assert rule_of(MaskSpec(active=True), sites).degree == sites - 1
    # scipy's own tail: where a fifth drops, all neighbourhoods keep the threshold but for 2^-10 of the exchanges
    lost = hypergeom(sites - 1, sites // 5, rule.degree).sf(rule.degree - rule.threshold)
    assert sites * lost <= 2**-10
    assert not module._opens(MaskSpec(), sites, 0, rule.degree - 2) or not module._connected(sites, rule.degree - 2, 0)


@pytest.mark.parametrize(("sites", "degree", "gone"), [(10, 4, 4), (10, 4, 5), (12, 4, 6), (12, 6, 7), (14, 4, 5)])
def test_the_bound_on_falling_apart_is_above_the_true_chance(sites: int, degree: int, gone: int) -> None:
    names = [f"{i:02}" for i in range(sites)]
    near = neighbours_of(names, degree, b"seed")
    apart = 0
    for lost in combinations(names, gone):
        left = set(names) - set(lost)
        reached, border = set(), [min(left)]
        while border:
            site = border.pop()
            if site not in reached:
                reached.add(site)
                border += [other for other in near[site] if other in left]
        apart += reached != left
    bound = math.comb(sites, 2) * math.comb(sites - degree, gone - degree)
    assert 0 < apart <= bound  # of the C(sites, gone) ways to lose some


def test_the_bound_on_colluding_neighbours() -> None:
    bound = module._inside(100, 10, 40)
    assert 100 * hypergeom(99, 10, 40).sf(bound) <= 2**-40
    assert bound == 10 or 100 * hypergeom(99, 10, 40).sf(bound - 1) > 2**-40
    assert module._inside(100, 0, 40) == 0
    bound = module._inside(1000, 100, 60)
    assert 1000 * hypergeom(999, 100, 60).sf(bound) <= 2**-40 < 1000 * hypergeom(999, 100, 60).sf(bound - 1)


@given(sites=st.integers(4, 60), half=st.integers(1, 10), seed=st.binary(max_size=4))
def test_neighbours_are_mutual_and_as_many_as_asked(sites: int, half: int, seed: bytes) -> None:
    names = [f"{i:02}" for i in range(sites)]
    near = neighbours_of(names, 2 * half, seed)
    for site, others in near.items():
        assert len(others) == min(2 * half, sites - 1)
        assert list(others) == sorted(set(others) - {site})
        assert all(site in near[other] for other in others)


def test_groups_are_fixed_by_the_run_and_of_equal_size() -> None:
    names = [f"{i:02}" for i in range(14)]
    one = groups_of("run", names, 4)
    assert one == groups_of("run", list(reversed(names)), 4) != groups_of("other run", names, 4)
    assert sorted(list(one.values()).count(group) for group in range(4)) == [3, 3, 4, 4]
