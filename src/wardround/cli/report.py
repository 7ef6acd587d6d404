"""`wardround report`: write the page again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(folder: Annotated[Path, typer.Argument(help="The folder of a finished run.", show_default=False)]) -> None:
    """Write report.html, its figures and the model card of a finished run again.

    [bold]Example[/bold]

      wardround report runs/demo
    """
    from wardround import report
    from wardround.errors import RunError
    from wardround.store.run import Run

    with Run.open(folder, writer=False) as recorded:
        if not (folder / "result.json").exists():
            raise RunError(
                f"{folder}: no result.json: the run is {recorded.status}; `wardround resume {folder}` finishes it"
            )
        result = recorded.read_json("result.json")
    typer.echo(report.build(folder, result))
