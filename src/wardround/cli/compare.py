"""`wardround compare`: which method serves these hospitals?"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from wardround.cli.options import Json, Quiet

DEFAULT = "fedavg,fedprox,fednova,scaffold,fedadam"


def command(
    config: Annotated[
        Path, typer.Argument(help="The job that all runs have in common: a YAML file.", show_default=False)
    ],
    algorithms: Annotated[
        str, typer.Option("--algorithms", "-a", help="Presets or plug-ins module:Class, with commas.")
    ] = DEFAULT,
    alpha: Annotated[
        str | None,
        typer.Option(
            "--alpha", help="Settings, with commas: natural, iid, or a Dirichlet's alpha. Default: the job's own."
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels", help="Train each algorithm over each, with commas: plain, 8-bit, secagg, he, masked-he."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", "-n", help="Draws of partition, split and initial model.")] = 5,
    tune: Annotated[
        int,
        typer.Option(
            "--tune", "-t", help="Configurations that every method may try in each cell; 1 for the job's own."
        ),
    ] = 8,
    metric: Annotated[str, typer.Option("--metric", help="auroc, balanced_accuracy or accuracy.")] = "auroc",
    reference: Annotated[
        str | None, typer.Option("--reference", help="Method that the others are compared with; default the first.")
    ] = None,
    target: Annotated[
        float | None,
        typer.Option("--target", help="Validation figure for 'rounds to target'; default 99 % of centralised."),
    ] = None,
    baselines: Annotated[
        str, typer.Option("--baselines", help="centralized, local, both, or none.")
    ] = "centralized,local",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default comparisons/NAME.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", help="Processes; default one a core.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key of the job.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare algorithms on the same patients, with the same tuning budget for each, and say what the evidence supports.

    Configurations are chosen on validation rows, anew in each setting and seed; test rows are only reported. What was trained
    is kept: the same command goes on where it was cut short, and a wider one trains only what is new.

    [bold]Examples[/bold]

      wardround compare examples/wdbc.yaml --alpha iid,0.5,0.1 --set model.name=mlp

      wardround compare examples/heart.yaml -a fedavg,fedprox,scaffold --seeds 10 --tune 12

      wardround compare job.yaml -a fedavg,my_rules:Mine --tune 1 --jobs 1

      wardround compare examples/heart.yaml -a fedavg,scaffold --channels plain,secagg,he --tune 1
    """
    from wardround.comparison.page import PAGE
    from wardround.comparison.study import compare
    from wardround.config import load

    job = load(config, overrides or [])
    folder = out if out is not None else Path("comparisons") / job.name.replace(" ", "-")
    with _Progress(as_json=as_json, quiet=quiet) as progress:
        result = compare(
            job,
            folder,
            algorithms=_listed(algorithms),
            alphas=_listed(alpha or ""),
            channels=_listed(channels or ""),
            seeds=seeds,
            budget=tune,
            metric=metric,
            reference=reference,
            baselines=_listed("" if baselines == "none" else baselines),
            target=target,
            jobs=jobs or os.cpu_count() or 1,
            listener=progress.listen,
        )
    if as_json:
        print(json.dumps({"event": "result", **result}))
    elif not quiet:
        _show(result, folder / PAGE)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


class _Progress:
    """A bar on standard error, or an event a line."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._json = as_json
        self._bar = Progress(
            TextColumn("training"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[what]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=Console(stderr=True), disable=as_json or quiet,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None, what="")
        self._began = False

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.stop()
        if kind is KeyboardInterrupt:
            print("what was trained is kept: the same command goes on from there", file=sys.stderr)

    def listen(self, event: Mapping[str, Any]) -> None:
        if self._json:
            print(json.dumps(event), flush=True)
            return
        if not self._began:
            self._began = True
            self._bar.start()
        what = "kept from before" if event["cached"] else f"{event['method']}, {event['setting']}, seed {event['seed']}"
        self._bar.update(self._task, total=event["all"], completed=event["done"], what=what)


def _show(result: Mapping[str, Any], page: Path) -> None:
    from rich.console import Console

    from wardround.comparison import tables, words

    terminal = Console(file=sys.stdout)
    if not terminal.is_terminal:
        terminal = Console(file=sys.stdout, width=120)
    metric = words.METRICS[result["metric"]]
    terminal.print(
        f"{result['name']}: {metric} on test rows of all sites, mean over {len(result['seeds'])} seeds [95 % interval]",
        style="bold", markup=False, highlight=False,
    )  # fmt: skip
    terminal.print(_drawn(tables.scores(result), terminal.width))
    for setting in result["channels"]:
        terminal.print(f"\nchannels, {setting}", style="bold", markup=False, highlight=False)
        terminal.print(_drawn(tables.channels(result, setting), terminal.width))
    header, rows = tables.differences(result)
    if rows:
        terminal.print(
            "paired differences (* holds after correction for all comparisons)", style="bold", highlight=False
        )
        terminal.print(_drawn((header, rows), terminal.width))
    for setting in result["settings"]:
        terminal.print(f"fairness and cost, {setting}", style="bold", markup=False, highlight=False)
        terminal.print(_drawn(tables.fairness(result, setting), terminal.width))
        terminal.print(_drawn(tables.costs(result, setting), terminal.width))
    for line in result["sentences"]:
        terminal.print(f"- {line}", markup=False, highlight=False)
    terminal.print(f"page: {page}", markup=False, highlight=False, soft_wrap=True)


def _drawn(table: tuple[list[str], list[list[str]]], width: int) -> Any:
    """A table; where the terminal is too narrow, intervals stand below their values."""
    from rich.table import Table

    header, rows = table
    wide = sum(max(map(len, column)) + 2 for column in zip(header, *rows, strict=True)) > width
    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in header:
        drawn.add_column(name, no_wrap=not wide)
    for row in rows:
        drawn.add_row(*(cell.replace(" [", "\n[") if wide else cell for cell in row))
    return drawn
