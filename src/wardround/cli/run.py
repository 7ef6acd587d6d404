"""`wardround run`: a job file in, a run folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wardround.cli.options import Json, NoReport, Quiet


def command(
    config: Annotated[Path, typer.Argument(help="The job: a YAML file.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folder; default runs/NAME, numbered where it exists.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key, such as training.rounds=5."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that the folder holds.")] = False,
    no_report: NoReport = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a federation and its baselines, and write model, figures and report.

    [bold]Examples[/bold]

      wardround run examples/wdbc.yaml --out runs/demo

      wardround run examples/heart.yaml --set seed=7 --set training.rounds=50

      wardround run job.yaml --json | tail -1
    """
    from wardround.cli.console import Console
    from wardround.config import load

    job = load(config, overrides or [])
    folder = out if out is not None else _unused(Path("runs") / job.name.replace(" ", "-"))
    console = Console(as_json=as_json, quiet=quiet, folder=folder)
    from wardround.experiment import run

    with console:
        result = run(job, folder, overwrite=overwrite, report=not no_report, listener=console.listen)
    console.show(result)


def _unused(folder: Path) -> Path:
    number, candidate = 2, folder
    while candidate.exists():
        candidate = folder.with_name(f"{folder.name}-{number}")
        number += 1
    return candidate
