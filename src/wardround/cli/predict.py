"""`wardround predict`: score new rows with the model of a run."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    model: Annotated[Path, typer.Argument(help="A run folder, or its model.safetensors.", show_default=False)],
    rows: Annotated[
        Path, typer.Argument(help="A table with the dataset's columns: CSV, TSV, Parquet or ARFF.", show_default=False)
    ],
    site: Annotated[
        str | None, typer.Option(help="Use this hospital's own part of a personalised model; default: the mean of all.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV file to write; default standard output.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a row instead of CSV.")] = False,
) -> None:
    """Score rows: the probability of the positive class, and the class at the run's threshold.

    Of more than two classes: the most probable class, and the probability of each.

    [bold]Examples[/bold]

      wardround predict runs/demo rows.csv --out scores.csv

      wardround predict runs/heart rows.csv --site cleveland
    """
    from wardround.errors import ConfigError
    from wardround.prediction import predict

    if out is not None and out.exists() and any(out.samefile(given) for given in (rows, model) if given.exists()):
        raise ConfigError(f"--out {out} is what is read: choose another file, or nothing would be left of it")
    scored = predict(model, rows, site=site)
    if as_json:
        text = "".join(json.dumps(row) + "\n" for row in scored)
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(
            buffer, list(scored[0]) if scored else ["row", "probability", "prediction"], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(scored)
        text = buffer.getvalue()
    if out is None:
        typer.echo(text, nl=False)
    else:
        from wardround.store.atomic import write_text

        write_text(out, text)
        typer.echo(f"{len(scored)} rows scored: {out}", err=True)
