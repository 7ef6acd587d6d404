"""The command table, and nothing else: each command lives in its own file."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from wardround import __version__
from wardround.cli import (
    compare,
    data,
    deidentify,
    deploy,
    doctor,
    partition,
    predict,
    prepare,
    privacy,
    report,
    resume,
    run,
)
from wardround.cli.exit import guarded

app = typer.Typer(
    name="wardround",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXAMPLES = """
[bold]Examples[/bold]

  wardround run examples/wdbc.yaml --out runs/demo

  wardround run examples/wdbc.yaml --set algorithm.name=scaffold

  wardround compare examples/wdbc.yaml --alpha iid,0.5,0.1

  wardround resume runs/demo

  wardround predict runs/demo rows.csv

  wardround data describe admissions.csv
"""


def _version(value: bool) -> None:
    if value:
        typer.echo(f"wardround {__version__}")
        raise typer.Exit


@app.callback(epilog=EXAMPLES)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Hospitals train a diagnostic model together while no patient record leaves any of them."""


app.command("run")(run.command)
app.command("resume")(resume.command)
app.command("report")(report.command)
app.command("predict")(predict.command)
app.command("compare")(compare.command)
app.command("doctor")(doctor.command)
data.app.command("partition")(partition.command)
data.app.command("prepare")(prepare.command)
data.app.command("deidentify")(deidentify.command)
data.app.command("scan")(deidentify.scan_command)
app.add_typer(data.app, name="data")
app.add_typer(deploy.app, name="deploy")
app.add_typer(privacy.app, name="privacy")


def main() -> None:
    """The entry point of the `wardround` command."""
    sys.exit(guarded(app, sys.argv[1:]))
