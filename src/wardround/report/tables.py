"""Rows of the report's tables, out of a result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles

from wardround.plots.estimate import Estimate, estimate, number, of_site
from wardround.plots.labels import METRICS, MODELS, multilabel, site_rows, titles
from wardround.plots.partition import class_names, rows_of
from wardround.plots.sites import site_names, summary_metric, telling
from wardround.report import withheld
from wardround.report.headline import reading
from wardround.types import SPLITS, Json


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Models side by side.

    Attributes:
        models: titles of the models that have any figure.
        rows: title of the metric, and a figure (or None) a model.
    """

    models: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Estimate | None, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of federated minus a baseline, paired."""

    metric: str
    pooled: Estimate | None
    reading: str
    site_mean: Estimate | None


@dataclass(frozen=True, kw_only=True)
class SiteRow:
    """One site's test figures in the chosen metric and in accuracy; `withheld` is why it does not tell some of them."""

    name: str
    test_rows: int | None
    federated: Estimate | None
    local: Estimate | None
    difference: Estimate | None
    accuracy: Estimate | None
    local_accuracy: Estimate | None
    majority: Estimate | None
    withheld: str = ""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Minimum, quartiles and maximum over sites of one column."""

    title: str
    defined: int
    values: tuple[float, ...]
    signed: bool = False


@dataclass(frozen=True, kw_only=True)
class PartitionRow:
    """One site's rows: counts by class in each split, and in all; None where a site withholds one."""

    name: str
    splits: tuple[tuple[int | None, ...], ...]
    classes: tuple[int | None, ...]

    @property
    def total(self) -> int | None:
        """Rows of all classes in all splits."""
        return _sum(self.classes)


@dataclass(frozen=True, kw_only=True)
class RoundRow:
    """One entry of the federated history; bytes and seconds are cumulative, None where not recorded."""

    completed: int
    survivors: int
    cohort: int
    train_loss: float | None
    loss: float | None
    auroc: float | None
    accuracy: float | None
    bytes_up: float | None
    bytes_down: float | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Abstention:
    """A site that was asked, answered, and is not in the sums of some rounds."""

    site: str
    rounds: tuple[int, ...]
    reasons: tuple[str, ...]


def comparison(result: Mapping[str, Json], scope: str) -> Comparison:
    """Every defined metric of every model in `scope` (`pooled` or `site_mean`)."""
    blocks = {model: (result.get(model) or {}).get(scope) or {} for model in MODELS}
    present = [model for model in MODELS if any(estimate(blocks[model], metric) for metric in METRICS)]
    names = titles(result)
    rows = [(names[key], tuple(estimate(blocks[model], key) for model in present)) for key in METRICS]
    return Comparison(models=tuple(MODELS[model] for model in present), rows=tuple(row for row in rows if any(row[1])))


def differences(result: Mapping[str, Json], baseline: str) -> list[Difference]:
    """Federated minus `baseline`, a row a defined metric; [] where the run has no such comparison."""
    gain = (result.get("gain") or {}).get(baseline) or {}
    rows = []
    names = titles(result)
    for metric in METRICS:
        pooled, mean = (estimate(gain.get(scope) or {}, metric) for scope in ("pooled", "site_mean"))
        if pooled or mean:
            rows.append(
                Difference(metric=names[metric], pooled=pooled, reading=reading(pooled, metric), site_mean=mean)
            )
    return rows


def site_metric(result: Mapping[str, Json]) -> str:
    """The metric of the per-site table: AUROC where at least half of the sites define it, else accuracy."""
    return summary_metric(result, telling(result), "auroc")


def sites(result: Mapping[str, Json]) -> list[SiteRow]:
    """A row a site, in the partition's order."""
    metric = site_metric(result)
    gains = ((result.get("gain") or {}).get("local") or {}).get("sites") or {}
    return [
        SiteRow(
            name=site,
            test_rows=_rows(result, site, "test"),
            federated=of_site(result, "federated", site, metric),
            local=of_site(result, "local", site, metric),
            difference=estimate(gains.get(site) or {}, metric),
            accuracy=of_site(result, "federated", site, "accuracy"),
            local_accuracy=of_site(result, "local", site, "accuracy"),
            majority=of_site(result, "majority", site, "accuracy"),
            withheld=withheld.reason(result, site),
        )
        for site in site_names(result)
    ]


def spreads(result: Mapping[str, Json], rows: Sequence[SiteRow]) -> list[Spread]:
    """How the per-site figures spread, where there are too many sites to read one after another."""
    title = titles(result)[site_metric(result)]
    columns = (
        (f"{title}, federated", [row.federated for row in rows], False),
        (f"{title}, each site alone", [row.local for row in rows], False),
        (f"{title}, federated minus alone", [row.difference for row in rows], True),
        ("Accuracy, federated", [row.accuracy for row in rows], False),
        ("Accuracy, majority class", [row.majority for row in rows], False),
    )
    found = []
    for name, figures, signed in columns:
        values = sorted(figure.value for figure in figures if figure is not None)
        if len(values) > 1:
            middle = quantiles(values, n=4, method="inclusive")
            five = (values[0], *middle, values[-1])
            found.append(Spread(title=name, defined=len(values), values=five, signed=signed))
    return found


def partition(result: Mapping[str, Json]) -> list[PartitionRow]:
    """Counts of every site by class (of a multi-label dataset rows alone), and last those of all sites where there are more."""
    labels = range(len(class_names(result)))
    rows = []
    for name, site in (result.get("partition") or {}).items():
        splits = tuple(tuple(_count(site, split, label) for label in labels) for split in SPLITS)
        if multilabel(result):  # a row may count for several labels
            splits = tuple((_rows(result, name, split),) for split in SPLITS)
        rows.append(PartitionRow(name=name, splits=splits, classes=_add(splits)))
    if len(rows) > 1:
        splits = tuple(_add([row.splits[index] for row in rows]) for index in range(len(SPLITS)))
        rows.append(PartitionRow(name="All sites", splits=splits, classes=_add(splits)))
    return rows


def _add(counts: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
    return tuple(_sum(column) for column in zip(*counts, strict=True))


def _sum(counts: Iterable[int | None]) -> int | None:
    """The sum; None where a part is withheld, which the sum would give away."""
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)


def _count(site: Mapping[str, Json], split: str, label: int) -> int | None:
    counts = site.get(split) or ()
    return None if label < len(counts) and counts[label] is None else rows_of(site, split, label)


def _rows(result: Mapping[str, Json], site: str, split: str) -> int | None:
    """Rows of a split at a site; None where it does not tell them."""
    own = (result.get("rows") or {}).get(site) or {}
    if (split in own and own[split] is None) or (result.get("by_site") and not own):
        return None
    return site_rows(result, site, split)


def rounds(result: Mapping[str, Json]) -> list[RoundRow]:
    """The federated history, an entry a row."""
    rows = []
    for entry in (result.get("history") or {}).get("federated") or ():
        figures = entry.get("validation") or {}
        rows.append(
            RoundRow(
                completed=int(entry.get("completed", 0)),
                survivors=int(entry.get("survivors") or 0),
                cohort=int(entry.get("cohort") or 0),
                train_loss=number(entry.get("train_loss")),
                loss=number(figures.get("loss")),
                auroc=number(figures.get("auroc")),
                accuracy=number(figures.get("accuracy")),
                bytes_up=number(entry.get("bytes_up")),
                bytes_down=number(entry.get("bytes_down")),
                seconds=number(entry.get("seconds")),
            )
        )
    return rows


def abstentions(result: Mapping[str, Json]) -> list[Abstention]:
    """Who abstained, in which rounds, and why; sites in alphabetical order."""
    found: dict[str, list[tuple[int, str]]] = {}
    for entry in (result.get("history") or {}).get("federated") or ():
        for site, reason in (entry.get("abstained") or {}).items():
            found.setdefault(site, []).append((int(entry.get("completed", 0)), str(reason)))
    return [
        Abstention(
            site=site,
            rounds=tuple(round_ for round_, _ in found[site]),
            reasons=tuple(dict.fromkeys(reason for _, reason in found[site])),
        )
        for site in sorted(found)
    ]
