"""`wardround resume`: go on where a run was cut short."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wardround.cli.options import Json, NoReport, Quiet


def command(
    folder: Annotated[Path, typer.Argument(help="The run folder.", show_default=False)],
    config: Annotated[
        Path | None, typer.Option("--config", help="Check first that the run's job is still this file's.")
    ] = None,
    no_report: NoReport = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on from the last committed round; the result equals an uninterrupted run's, in bits.

    A changed job is refused, with the difference: what a run is cannot change half-way.

    [bold]Example[/bold]

      wardround resume runs/demo
    """
    from wardround.cli.console import Console
    from wardround.config import load
    from wardround.store.run import Run

    with Run.open(folder, writer=False) as recorded:
        job = recorded.job
        if config is not None:
            recorded.check(load(config), recorded.facts)
    console = Console(as_json=as_json, quiet=quiet, folder=folder)
    from wardround.experiment import run

    with console:
        result = run(job, folder, resume=True, report=not no_report, listener=console.listen)
    console.show(result)
