"""`wardround data partition`: who would hold what, without training."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wardround.cli.options import Json

if TYPE_CHECKING:
    from wardround.types import Description, SiteData

_LISTED = 40
"""Sites up to which each has its line."""
_CLASSES = 8
"""Classes up to which each has its column."""
_WIDE = 110
_PICTURES = ("partition", "classes", "sizes", "shift")
RECORD = "partition.json"


def command(
    config: Annotated[Path, typer.Argument(help="The job: a YAML file.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for partition.json and the pictures.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key, such as partition.alpha=0.1."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Deal a job's records to its sites and show counts and heterogeneity; nothing is trained.

    [bold]Examples[/bold]

      wardround data partition examples/wdbc.yaml --set partition.alpha=0.1

      wardround data partition examples/heart.yaml --out partitions/heart
    """
    from wardround.config import load
    from wardround.data.heterogeneity import measure
    from wardround.experiment import records_of

    job = load(config, overrides or [])
    description, sites = records_of(job)
    preview: dict[str, Any] = {
        "name": job.name,
        "seed": job.seed,
        "spec": job.partition.model_dump(mode="json"),
        "dataset": {
            key: getattr(description, key) for key in ("name", "title", "source", "licence", "natural")
        } | {"classes": list(description.classes)},
        "partition": _counts(description, sites),
        "heterogeneity": measure(description, sites),
    }  # fmt: skip
    files = _write(out, preview) if out is not None else []
    if as_json:
        print(json.dumps(preview))
    else:
        _show(preview, files)


def _counts(description: Description, sites: Mapping[str, SiteData]) -> dict[str, dict[str, list[int]]]:
    """Site -> split -> rows of each class."""
    import numpy as np

    from wardround.types import SPLITS

    classes = len(description.classes)
    counts: dict[str, dict[str, list[int]]] = {}
    for site, data in sites.items():
        if description.multilabel:
            counts[site] = {s: data.labels[data.split == k].sum(axis=0).tolist() for k, s in enumerate(SPLITS)}
            continue
        flat = np.bincount(np.asarray(data.split, dtype=np.int64) * classes + data.labels, minlength=3 * classes)
        counts[site] = {split: own.tolist() for split, own in zip(SPLITS, flat.reshape(-1, classes), strict=True)}
    return counts


def _write(out: Path, preview: Mapping[str, Any]) -> list[Path]:
    from wardround import plots
    from wardround.report.figures import DRAWN
    from wardround.store import atomic

    atomic.make_folder(out)
    files = []
    for name in _PICTURES:
        path = out / f"{name}.png"
        figure = DRAWN[name][0](preview, plots.LIGHT)
        if figure is None:
            atomic.remove(path)
        else:
            atomic.write_bytes(path, plots.render(figure, "png"))
            files.append(path)
    path = out / RECORD
    atomic.write_text(path, json.dumps(preview, indent=1) + "\n")
    return [path, *files]


def _show(preview: Mapping[str, Any], files: list[Path]) -> None:
    from rich.console import Console

    from wardround.report import skews

    terminal = Console(file=sys.stdout)
    if not terminal.is_terminal:
        terminal = Console(file=sys.stdout, width=_WIDE)
    found = preview["heterogeneity"]
    title = f"{preview['name']}: {preview['dataset']['title']}, {found['patients']} patients, {found['sites']} sites"
    terminal.print(title, markup=False, highlight=False, style="bold", soft_wrap=True)
    terminal.print(_table(preview))
    for what, figure, meaning in skews.rows(preview):
        terminal.print(f"{what + ':':<16} {figure:>9}  {meaning}", markup=False, highlight=False, soft_wrap=True)
    for path in files:
        terminal.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)


def _table(preview: Mapping[str, Any]) -> Any:
    """A line a site with its rows and classes; beyond 40 sites the smallest, the quartiles and the largest."""
    from rich.table import Table
    from rich.text import Text

    from wardround.types import SPLITS

    classes = preview["dataset"]["classes"]
    totals = {
        site: [sum(column) for column in zip(*splits.values(), strict=True)]
        for site, splits in preview["partition"].items()
    }
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    shown = range(min(len(classes), _CLASSES))
    rest = len(classes) > _CLASSES
    others = (*SPLITS, *(classes[c] for c in shown), *(("other classes",) if rest else ()))
    table.add_column("site", no_wrap=True)
    for name in ("rows", *others):
        table.add_column(Text(name), justify="right")
    lines = list(totals)
    if len(lines) > _LISTED:
        ordered = sorted(lines, key=lambda site: sum(totals[site]))
        places = {"smallest": 0, "1st quartile": 0.25, "median": 0.5, "3rd quartile": 0.75, "largest": 1}
        names = {what: ordered[round(place * (len(ordered) - 1))] for what, place in places.items()}
    else:
        names = {site: site for site in lines}
    for what, site in names.items():
        counts = totals[site]
        cells = [
            sum(counts),
            *(sum(preview["partition"][site][split]) for split in SPLITS),
            *(counts[c] for c in shown),
            *((sum(counts[_CLASSES:]),) if rest else ()),
        ]
        label = what if what == site else f"{what} ({site})"
        table.add_row(Text(label), *map(str, cells))
    if len(lines) > 1:
        whole = [sum(column) for column in zip(*totals.values(), strict=True)]
        splits = [sum(sum(site[split]) for site in preview["partition"].values()) for split in SPLITS]
        cells = [sum(whole), *splits, *(whole[c] for c in shown), *((sum(whole[_CLASSES:]),) if rest else ())]
        table.add_row(Text(f"all {len(lines)} sites"), *map(str, cells), style="bold")
    return table
