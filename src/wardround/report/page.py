"""The report of a run: figures as files, one page that needs nothing else, and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from wardround.plots.estimate import Estimate, estimate, number, pooled
from wardround.plots.labels import count_of, many_classes, multilabel, titles
from wardround.plots.partition import class_names
from wardround.plots.sites import MANY_SITES, site_count
from wardround.report import (
    account,
    classes,
    evidence,
    fairness,
    held_out,
    numbers,
    operating,
    skews,
    tables,
    target,
    withheld,
)
from wardround.report.card import write_card
from wardround.report.figures import DRAWN, Picture, pictures
from wardround.report.headline import headline, main_metric, reading
from wardround.types import SPLITS, Json

PAGE = "report.html"
FIGURES = "figures"


def build(folder: Path, result: Mapping[str, Json]) -> Path:
    """Write `figures/*.png`, `MODEL_CARD.md` and, last, `report.html` into a run's folder.

    The same result gives the same bytes. Figures of an earlier report that this result has no data for are removed.

    Args:
        folder: the run's folder; it is made where it does not exist.
        result: what `result.json` holds.

    Returns:
        The path of the page.

    Raises:
        StorageError: a file could not be written.
    """
    from wardround.store import atomic

    atomic.make_folder(folder / FIGURES)
    drawn = pictures(result)
    evident = evidence.picture(folder, result)
    if evident is not None:
        drawn[evidence.NAME] = evident
    for name in (*DRAWN, evidence.NAME):
        path = folder / FIGURES / f"{name}.png"
        if name in drawn:
            atomic.write_bytes(path, drawn[name].png)
        else:
            atomic.remove(path)
    write_card(folder, result)
    atomic.write_text(folder / PAGE, page(result, drawn))
    return folder / PAGE


def page(result: Mapping[str, Json], drawn: Mapping[str, Picture]) -> str:
    """The page as HTML."""
    source = resources.files("wardround.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return html(source, _facts(result) | {"pictures": drawn})


def html(template: str, facts: Mapping[str, Any]) -> str:
    """A page in the house's style; every name that comes from data is escaped.

    Args:
        template: Jinja source, which puts `style` into its `<style>`.
        facts: what it names.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "plain": numbers.plain,
        "signed": numbers.signed,
        "interval": numbers.interval,
        "signed_interval": numbers.signed_interval,
        "whole": numbers.whole,
        "human_bytes": numbers.human_bytes,
        "duration": numbers.duration,
        "count_of": count_of,
    }
    style = resources.files("wardround.report").joinpath("style.css").read_text(encoding="utf-8")
    return environment.from_string(template).render({**facts, "style": style})


def _facts(result: Mapping[str, Json]) -> dict[str, Any]:
    job = result.get("job") or {}
    site_rows = tables.sites(result)
    many = len(site_rows) > MANY_SITES
    comparisons = (("All sites pooled", "pooled"), ("Mean over sites", "site_mean"))
    baselines = (("fine-tuned", "finetuned"), ("each site alone", "local"), ("centralised", "centralized"))
    return {
        "name": str(result.get("name", "run")),
        "subtitle": _subtitle(result),
        "natural": bool((result.get("dataset") or {}).get("natural")),
        "personalised": account.personalised(result),
        "every_figure_personalised": bool(result.get("personalized")),
        "headline": headline(result),
        "key_figures": _key_figures(result),
        "comparisons": [(title, tables.comparison(result, scope)) for title, scope in comparisons],
        "gains": [(title, rows) for title, key in baselines if (rows := tables.differences(result, key))],
        "intervals": account.intervals(result),
        "many_classes": many_classes(result),
        "labelled": multilabel(result),
        "aggregation": account.aggregation(result),
        "held_out": held_out.rows(result),
        "held_out_columns": held_out.columns(result),
        "held_out_words": held_out.sentences(result),
        "maps_warning": evidence.warning(result),
        "class_columns": classes.columns(),
        "by_class": classes.by_class(result),
        "absent_classes": classes.absent(result),
        "operating_columns": operating.columns(),
        "operating": operating.operating(result),
        "fairness": fairness.fairness(result),
        "who_gains": fairness.who_gains(result, tables.site_metric(result)),
        "target": target.target(result),
        "sites": site_rows,
        "withheld": withheld.sentences(result),
        "site_metric": titles(result)[tables.site_metric(result)],
        "spreads": tables.spreads(result, site_rows) if many else [],
        "many": many,
        "dataset": result.get("dataset") or {},
        "splits": SPLITS,
        "classes": class_names(result),
        "partition": tables.partition(result),
        "skews": skews.rows(result),
        "share": numbers.share,
        "selection": account.selection(result),
        "threshold": account.threshold(result),
        "thresholds": account.thresholds(result),
        "rounds": tables.rounds(result),
        "communication": _communication(result),
        "participation": _participation(result),
        "abstentions": tables.abstentions(result),
        "protects": account.protects(result),
        "open": account.does_not_protect(result),
        "model": _model(result),
        "features": [str(name) for name in (result.get("preprocessing") or {}).get("features") or ()],
        "environment": _environment(result),
        "config": yaml.safe_dump(dict(job), sort_keys=False, allow_unicode=True),
    }


def _subtitle(result: Mapping[str, Json]) -> str:
    job = result.get("job") or {}
    dataset = result.get("dataset") or {}
    parts = (
        dataset.get("title") or dataset.get("name"),
        count_of(site_count(result), "site"),
        (job.get("algorithm") or {}).get("name"),
        (result.get("model") or {}).get("name"),
    )
    return " · ".join(str(part) for part in parts if part)


def _key_figures(result: Mapping[str, Json]) -> list[tuple[str, str, str]]:
    """Title, figure, small print."""
    tiles = []
    metric = main_metric(result)
    if metric is not None and metric != "accuracy":
        tiles.append((f"Pooled {titles(result)[metric]}", *_stated(pooled(result, "federated", metric))))
    accuracy, majority = (pooled(result, model, "accuracy") for model in ("federated", "majority"))
    if accuracy is not None:
        beside = f"majority class: {numbers.plain(majority.value)}" if majority else "majority class: not reported"
        kind = "Hamming accuracy" if multilabel(result) else "accuracy"
        tiles.append((f"Pooled {kind}", numbers.plain(accuracy.value), beside))
    for title, baseline in (("Against each site alone", "local"), ("Against centralised", "centralized")):
        gain = ((result.get("gain") or {}).get(baseline) or {}).get("pooled") or {}
        difference = estimate(gain, metric) if metric else None
        if metric and difference:
            words = [titles(result)[metric], numbers.signed_interval(difference), reading(difference, metric)]
            tiles.append((title, numbers.signed(difference.value), ", ".join(word for word in words if word)))
    rows = tables.partition(result)
    if rows:
        beside = "rows withheld" if rows[-1].total is None else f"{numbers.whole(rows[-1].total)} rows"
        tiles.append(("Sites", numbers.whole(site_count(result)), beside))
    kept = f"round {result.get('selected_round')} kept"
    tiles.append(("Rounds", numbers.whole(number(result.get("rounds"))), kept))
    up, down = (number(result.get(way)) for way in ("bytes_up", "bytes_down"))
    if up is not None and down is not None:
        split = f"up {numbers.human_bytes(up)}, down {numbers.human_bytes(down)}"
        tiles.append(("Sent in all", numbers.human_bytes(up + down), split))
    device = (result.get("environment") or {}).get("device")
    tiles.append(
        (
            "Duration",
            numbers.duration(number(result.get("seconds"))),
            f"on {device}" if device else "device not recorded",
        )
    )
    return tiles


def _stated(figure: Estimate | None) -> tuple[str, str]:
    ends = numbers.interval(figure)
    return numbers.plain(figure.value if figure else None), f"95\u00a0% interval {ends}" if ends else "no interval"


def _communication(result: Mapping[str, Json]) -> list[tuple[str, float | None, float | None, float | None]]:
    """Title; bytes up, down and in all: totals, then means a round, a site, and a round and site."""
    up, down = (number(result.get(way)) for way in ("bytes_up", "bytes_down"))
    rounds, sites = int(result.get("rounds") or 0), site_count(result)
    rows: list[tuple[str, float | None, float | None, float | None]] = []
    for title, divisor in (
        ("Whole run", 1),
        ("Mean a round", rounds),
        ("Mean a site", sites),
        ("Mean a round and site", rounds * sites),
    ):
        if divisor:
            ways = [None if way is None else way / divisor for way in (up, down)]
            both = None if up is None or down is None else (up + down) / divisor
            rows.append((title, ways[0], ways[1], both))
    return rows


def _participation(result: Mapping[str, Json]) -> str:
    rounds = [row for row in tables.rounds(result) if row.cohort]
    if not rounds:
        return "The run recorded no participation."
    missed = [row for row in rounds if row.survivors < row.cohort]
    asked = sorted({row.cohort for row in rounds})
    whom = str(asked[0]) if len(asked) == 1 else f"{asked[0]} to {asked[-1]}"
    text = f"{count_of(len(rounds), 'recorded round')}; each asked {whom} of {count_of(site_count(result), 'site')}. "
    if not missed:
        return text + "Every site asked was counted in every one of them."
    worst = min(missed, key=lambda row: row.survivors / row.cohort)
    return text + (
        f"In {len(missed)} of them not every site asked was counted; the fewest were {worst.survivors} of "
        f"{worst.cohort}, in round {worst.completed}."
    )


def _model(result: Mapping[str, Json]) -> list[tuple[str, str]]:
    model = result.get("model") or {}
    facts = [
        ("Network", str(model.get("name", numbers.UNDEFINED))),
        ("Parameters", numbers.whole(number(model.get("parameters")))),
        ("Of these shared", numbers.whole(number(model.get("shared")))),
    ]
    if model.get("frozen"):
        facts.append(("Frozen", numbers.whole(number(model["frozen"]))))
    if model.get("pretrained"):
        facts.append(("Began with", str(model["pretrained"])))
    local = [str(name) for name in model.get("local_names") or ()]
    return [*facts, ("Kept at the sites", ", ".join(local))] if local else facts


def _environment(result: Mapping[str, Json]) -> list[tuple[str, str]]:
    facts = [(str(key), str(value)) for key, value in (result.get("environment") or {}).items()]
    executor, reason = result.get("executor"), result.get("executor_reason")
    if executor:
        facts.append(("executor", f"{executor} ({reason})" if reason else str(executor)))
    return facts
