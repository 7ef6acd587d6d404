"""Figures of one site's own rows, worked out at the site and sent finished: no row's score, no histogram.

They are those that a process with all row scores computes for its table by site: the same functions, names and resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from wardround.errors import MessageError
from wardround.federation.records import Records
from wardround.plain import plain
from wardround.training import figures as compare
from wardround.training.label_tables import LabelTable
from wardround.training.metrics import METRICS
from wardround.training.multiclass import OVERALL
from wardround.training.multilabel import LABEL_METRICS
from wardround.training.tables import Cut, Table
from wardround.types import SPLITS, Json

Counts = dict[str, list[int | None]]
"""Split -> rows of each class, or with each label; None: it may not leave."""
_KNOWN = frozenset(f"{name}{end}" for name in {*METRICS, *OVERALL, *LABEL_METRICS} for end in ("", "_low", "_high"))
_BLOCKS = ("figures", "majority", "gain")
_LONGEST = 500
_MOST = 1e9
"""Above any figure."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A model's scores of a site's test rows (or groups), which stay there, and the threshold they are cut at."""

    table: Table
    threshold: Cut


@dataclass(frozen=True, kw_only=True)
class SiteFigures:
    """What a site says of one model on its own test rows.

    Attributes:
        counts: rows of each class in each split.
        rows: split -> rows; None: it may not leave.
        figures: metric -> value, with `_low` and `_high` where there is an interval; None: they may not leave.
        majority: the same of the class that most of its training rows have.
        gain: the federation's figures minus this model's, on the same rows; {} of the federation itself.
        withheld: why something may not leave, in words; "" where all does.
    """

    counts: Counts
    rows: Mapping[str, int | None]
    figures: dict[str, float] | None
    majority: dict[str, float] | None
    gain: dict[str, float] | None = field(default_factory=dict)
    withheld: str = ""

    def to_json(self) -> dict[str, Json]:
        """As it travels."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Json, classes: int) -> SiteFigures:
        """What travelled.

        Args:
            tree: what came.
            classes: of the dataset.

        Raises:
            MessageError: not of this form.
        """
        if not isinstance(tree, Mapping) or set(tree) != {"counts", "rows", *_BLOCKS, "withheld"}:
            raise MessageError(
                "figures of a site have other members than this version's: update wardround there or here"
            )
        counts, rows = tree["counts"], tree["rows"]
        sound = (
            isinstance(counts, Mapping) and set(counts) == set(SPLITS) and isinstance(rows, Mapping) and set(rows) == set(SPLITS)
            and all(isinstance(row, list) and len(row) == classes and all(map(_count, row)) for row in counts.values())
            and all(map(_count, rows.values()))
            and all(tree[name] is None or _figures(tree[name]) for name in _BLOCKS)
            and isinstance(tree["withheld"], str) and len(tree["withheld"]) <= _LONGEST
        )  # fmt: skip
        if not sound:
            raise MessageError("figures of a site have a count or a figure that is none")
        return cls(**{**tree, "withheld": plain(tree["withheld"])})


def _count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**53)


def _figures(tree: Any) -> bool:
    return isinstance(tree, Mapping) and all(
        name in _KNOWN and type(value) in (int, float) and abs(value) <= _MOST for name, value in tree.items()
    )


def small(table: Table, smallest: int) -> bool:
    """Whether some class, or the rows with or without some label, has fewer rows than `smallest`, and one or more."""
    counts = np.asarray(table.class_counts).ravel()
    return bool(((counts > 0) & (counts < smallest)).any())


def site_figures(
    site: str, records: Records, judged: Judged, against: Judged | None, *, resamples: int, seed: int
) -> SiteFigures:
    """All figures of a model at one site.

    Args:
        site: its name, which also names its resamples.
        records: its rows.
        judged: the model's scores.
        against: the federation's scores of the same rows, where this model is compared with it.
        resamples: bootstrap resamples, 0 or more.
        seed: of the resamples.
    """
    counts = records.class_counts(site)
    rows: dict[str, int] = {split: int(records.count((site,), split)[0]) for split in SPLITS}
    own = {site: judged.table}
    seen = np.add(counts["train"], counts["validation"])
    training: Sequence[Any] = seen.tolist()
    if isinstance(judged.table, LabelTable):
        training = np.stack([rows["train"] + rows["validation"] - seen, seen], axis=1).tolist()
    gain: dict[str, float] = {}
    if against is not None:
        paired = compare.gain({site: against.table}, own, against.threshold, judged.threshold, resamples, seed=seed)
        gain = paired["sites"][site]
    return SiteFigures(
        counts={split: [int(count) for count in row] for split, row in counts.items()},
        rows=rows,
        figures=compare.figures(own, judged.threshold, resamples, seed=seed)["sites"][site],
        majority=compare.majority({site: training}, own, resamples, seed=seed)["sites"][site],
        gain=gain,
    )


def threshold_from(value: Json, classes: int) -> Cut:
    """The threshold that travelled: one number, or one a label.

    Raises:
        MessageError: something else.
    """
    if type(value) is float and math.isfinite(value):
        return value
    if (
        isinstance(value, list)
        and len(value) == classes
        and all(type(cut) is float and math.isfinite(cut) for cut in value)
    ):
        return tuple(value)
    raise MessageError(f"a threshold is {value!r:.100}: expected a finite number, or one a label")


def mean_over_sites(blocks: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The unweighted mean of each figure over the sites that have it, without intervals: these need all sites' resamples."""
    names = {name for block in blocks.values() for name in block if not name.endswith(("_low", "_high"))}
    found = {name: [block[name] for block in blocks.values() if name in block] for name in sorted(names)}
    return {name: math.fsum(values) / len(values) for name, values in found.items()}
