"""How evenly a model serves the sites.

Sources: Li, Sanjabi, Beirami and Smith 2020, Fair Resource Allocation in Federated Learning (deviation over sites, mean of
the worst tenth); Rawls's difference principle for the worst site.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from wardround.types import Json

TENTH = 10


def spread(values: Mapping[str, float], *, lower_is_better: bool = False) -> dict[str, Json]:
    """A figure over the sites in which it is defined.

    Args:
        values: site -> figure, finite.
        lower_is_better: whether the largest is the worst.

    Returns:
        `sites` (their number), `mean`, `deviation` (population standard deviation), `spread` (largest minus smallest),
        `best` and `worst` with `best_site` and `worst_site` (of equals, the first), and `worst_tenth`, the mean of the worst
        tenth of the sites, rounded up; {} without sites.
    """
    if not values:
        return {}
    ranked = sorted(values.items(), key=lambda item: -item[1] if lower_is_better else item[1])
    best = max(values.items(), key=lambda item: -item[1] if lower_is_better else item[1])
    mean = math.fsum(values.values()) / len(values)
    tenth = ranked[: math.ceil(len(ranked) / TENTH)]
    return {
        "sites": len(values),
        "mean": mean,
        "deviation": math.sqrt(math.fsum((value - mean) ** 2 for value in values.values()) / len(values)),
        "spread": max(values.values()) - min(values.values()),
        "worst": ranked[0][1],
        "worst_site": ranked[0][0],
        "worst_tenth": math.fsum(value for _, value in tenth) / len(tenth),
        "best": best[1],
        "best_site": best[0],
    }


def sides(gains: Mapping[str, Mapping[str, float]], metric: str, *, lower_is_better: bool = False) -> dict[str, Json]:
    """Who gains and who loses.

    Args:
        gains: site -> model minus other in each metric, with `<metric>_low` and `<metric>_high` where there is an interval.
        metric: which.
        lower_is_better: whether a negative difference is a gain.

    Returns:
        `sites` (where the difference is defined), `gain`, `lose` and `equal` by the difference itself; `surely_gain` and
        `surely_lose`, of these the sites whose interval excludes 0; `mean`, and `worst` with `worst_site`, the greatest
        loss; {} without sites.
    """
    sign = -1.0 if lower_is_better else 1.0
    known = {site: sign * figures[metric] for site, figures in gains.items() if metric in figures}
    if not known:
        return {}
    ends = {
        site: sorted((sign * gains[site][f"{metric}_low"], sign * gains[site][f"{metric}_high"]))
        for site in known
        if f"{metric}_low" in gains[site]
    }
    worst = min(known.items(), key=lambda item: item[1])
    return {
        "sites": len(known),
        "gain": sum(value > 0 for value in known.values()),
        "lose": sum(value < 0 for value in known.values()),
        "equal": sum(value == 0 for value in known.values()),
        "surely_gain": sum(low > 0 for low, _ in ends.values()),
        "surely_lose": sum(high < 0 for _, high in ends.values()),
        "mean": sign * math.fsum(known.values()) / len(known),
        "worst": sign * worst[1],
        "worst_site": worst[0],
    }
