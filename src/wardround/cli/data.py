"""`wardround data`: look at a table before anything is trained on it, and get the public ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Describe a table and draft its schema; fetch the public datasets.",
    epilog="[bold]Examples[/bold]\n\n  wardround data describe admissions.csv\n\n  wardround data list\n\n"
    "  wardround data fetch heart --root my-data",
)

_WIDE, _NAME = 130, 34
"""Columns of a terminal that is none, and letters of a column's name."""
_TITLES = {"act": "Before anything is trained or shared", "check": "To check", "note": "To know"}
_COLOURS = {"act": "red", "check": "yellow", "note": "cyan"}

_OWN = {
    "custom": "your own table, with a schema",
    "images": "your own pictures, made ready by `wardround data prepare`",
}
"""Datasets that nobody publishes."""


@app.command("describe")
def describe(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, ARFF or Parquet, also packed as .gz.", show_default=False)],
    label: Annotated[str | None, typer.Option(help="The column to predict; guessed by name if left out.")] = None,
    site: Annotated[str | None, typer.Option(help="The column that names the hospital.")] = None,
    patient: Annotated[str | None, typer.Option(help="The column that tells patients apart.")] = None,
    names: Annotated[str | None, typer.Option(metavar="A,B,C", help="Names of all columns, in order.")] = None,
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether the first row holds names; found out.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="Between cells; found out.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Such as cp1252; UTF-8 if left out.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default profiles/NAME.")] = None,
    suppress_below: Annotated[
        int, typer.Option(metavar="N", help="Withhold numbers of rows from 1 to N - 1; 1 tells all.")
    ] = 5,
    no_page: Annotated[bool, typer.Option("--no-page", help="Leave out profile.html.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
) -> None:
    """Tell what a table holds and what is wrong with it; draft its schema, draw a page.

    Kinds of columns are guessed from names and values, identifiers, leaks, disguised gaps and odd sites are warned of.
    Memory is bounded: ten million rows are fine. No value of an identifier is printed or written.

    [bold]Examples[/bold]

      wardround data describe admissions.csv --label died --site hospital

      wardround data describe measures.data --names patient,age,sex,weight,died

      wardround data describe stays.csv.gz --json | jq .cautions
    """
    from rich.console import Console

    from wardround.data.profile.describe import describe as profiled
    from wardround.data.profile.draft import as_yaml
    from wardround.data.tables.reader import open_table
    from wardround.report import profile as page
    from wardround.store import atomic

    table = open_table(
        file,
        names=[name.strip() for name in names.split(",")] if names is not None else None,
        header=header,
        delimiter=delimiter,
        encoding=encoding,
    )
    with Console(stderr=True).status(f"reading {file.name}") as status:
        found = profiled(
            table,
            label=label,
            site=site,
            patient=patient,
            below=suppress_below,
            progress=lambda rows: status.update(f"reading {file.name}: {rows:,} rows"),
        )
        folder = out if out is not None else Path("profiles") / _stem(file)
        atomic.make_folder(folder)
        schema = as_yaml(found.schema, found.tree)
        draft = _unedited(folder, schema)
        atomic.write_text(draft, schema)
        if not no_page:
            page.write(folder / page.PAGE, found.tree, schema)
    files = {"schema": str(draft)} | ({} if no_page else {"page": str(folder / page.PAGE)})
    if as_json:
        typer.echo(json.dumps({**found.tree, "files": files}, allow_nan=False))
        return
    terminal = Console()
    if not terminal.is_terminal:
        terminal = Console(width=_WIDE)
    _show(terminal, found.tree)
    for what, path in files.items():
        terminal.print(f"{what + ':':<7} {path}", markup=False, highlight=False, soft_wrap=True)
    if draft.name != _SCHEMA:
        terminal.print(f"{folder / _SCHEMA} was there and differs: it is left as it is", markup=False, highlight=False)


_SCHEMA = "schema.yaml"


def _stem(file: Path) -> str:
    name = file.name
    for suffix in reversed(file.suffixes[-2:]):
        if suffix.lower() in (".gz", ".csv", ".tsv", ".txt", ".arff", ".parquet", ".pq"):
            name = name.removesuffix(suffix)
    return name


def _unedited(folder: Path, schema: str) -> Path:
    """Where the draft goes: beside a schema that somebody may have corrected, not over it."""
    path = folder / _SCHEMA
    if not path.exists() or path.read_text(encoding="utf-8") == schema:
        return path
    return folder / "schema.draft.yaml"


def _show(terminal: Console, profile: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from wardround.data.profile.caution import percent
    from wardround.plots.labels import printable
    from wardround.report.profile import kind_counts, values

    terminal.print(
        f"{profile['file']}: {profile['rows']:,} rows, {len(profile['columns'])} columns ({kind_counts(profile)})",
        style="bold",
        markup=False,
        highlight=False,
    )
    for part, role in profile["roles"].items():
        how = f"guessed; --{part} names another" if role["guessed"] else "as given"
        terminal.print(f"{part}: {role['column']} ({how})", markup=False, highlight=False)
    levels: dict[str, str] = {}
    for caution in reversed(profile["cautions"]):
        levels |= dict.fromkeys(caution["columns"], caution["level"])
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    longest = min(max(len(column["name"]) for column in profile["columns"]), _NAME)
    table.add_column("column", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("missing", justify="right", no_wrap=True)
    table.add_column("values", no_wrap=True)
    table.add_column("", no_wrap=True)
    room = max(terminal.width - longest - 29, 20)
    for column in profile["columns"]:
        level = levels.get(column["name"])
        gaps = column["missing"] + column["disguised"]
        mark = f"[{_COLOURS[level]}]{'!!' if level == 'act' else '!' if level == 'check' else 'i'}[/]" if level else ""
        table.add_row(
            escape(printable(column["name"], _NAME)),
            column["kind"],
            percent(gaps, profile["rows"]) if gaps else "",
            escape(printable(values(column, profile["below"]), room)),
            mark,
        )
    terminal.print(table)
    for level, title in _TITLES.items():
        cautions = [caution for caution in profile["cautions"] if caution["level"] == level]
        if cautions:
            terminal.print(f"\n{title}", style=f"bold {_COLOURS[level]}")
        for caution in cautions:
            terminal.print(Padding(Text(_sentence(caution)), (0, 0, 0, 2)))
            terminal.print(Padding(Text(caution["do"], style="dim"), (0, 0, 0, 4)))
    terminal.print()


def _sentence(caution: Mapping[str, Any]) -> str:
    from wardround.data.profile.caution import named

    about = f"{named(caution['columns'])}: " if caution["columns"] else ""
    return f"{caution['kind']}: {about}{caution['says']}; {caution['evidence']}."


Root = Annotated[Path | None, typer.Option(help="The data folder; WARDROUND_DATA if left out.", show_default=False)]


@app.command("list")
def listed(
    root: Root = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a dataset.")] = False,
) -> None:
    """List the built-in datasets, and whether their files are there and are the official ones.

    [bold]Example[/bold]

      wardround data list
    """
    from wardround.data.fetch import look
    from wardround.data.registry import DATASETS
    from wardround.data.sources import SOURCES

    place = _root(root)
    rows = []
    for name in DATASETS:
        source = SOURCES.get(name)
        found = look(source, place) if source and place else []
        rows.append(
            {
                "name": name,
                "title": source.title if source else _OWN.get(name, ""),
                "licence": source.licence if source else "",
                "state": _state(
                    [one.state for one in found],
                    needs=bool(source and (source.files or source.trees)),
                    own=source is None,
                ),
                "folder": str(place / source.folder) if source and place and source.folder else "",
                "files": [{"name": one.name, "state": one.state, "sha256": one.sha256} for one in found],
            }
        )
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    from rich.console import Console
    from rich.table import Table

    terminal = Console()
    if not terminal.is_terminal:
        terminal = Console(width=_WIDE)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for title in ("name", "what", "licence", "files"):
        table.add_column(title, no_wrap=title == "name")
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "title", "licence", "state")))
    terminal.print(table)
    where = f"data folder: {place}" if place else "WARDROUND_DATA is not set: nothing was looked for"
    terminal.print(f"{where}. `wardround data fetch NAME` gets a dataset.", markup=False, highlight=False)


def _state(states: list[str], *, needs: bool, own: bool) -> str:
    if own:
        return "yours"
    if not needs:
        return "bundled"
    if not states or all(state == "absent" for state in states):
        return "not there"
    for state, told in (
        ("absent", "incomplete"),
        ("differs", "there, not the official files"),
        ("unknown", "there, checksum unknown"),
    ):
        if state in states:
            return told
    return "there, verified"


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="A dataset of `wardround data list`.", show_default=False)],
    folder: Annotated[
        Path | None, typer.Option("--from", help="Take the files, or their zip archive, from here.", show_default=False)
    ] = None,
    root: Root = None,
    accept: Annotated[
        list[str] | None, typer.Option(metavar="SHA256", help="Take a file whose checksum is not known, if it is this.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are not the official ones.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Of a collection such as medmnist: this file, again for more."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a file.")] = False,
) -> None:
    """Get a dataset's official files, verified by SHA-256, into the data folder.

    A download that broke off goes on where it was. Licence and citation are shown: they are yours to keep.

    [bold]Examples[/bold]

      wardround data fetch heart --root my-data

      wardround data fetch heart --from ~/Downloads --root my-data

      wardround data fetch medmnist --only pneumoniamnist.npz --root my-data
    """
    import difflib
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from wardround.data.fetch import fetch as fetched
    from wardround.data.sources import SOURCES
    from wardround.errors import ConfigError

    if name not in SOURCES:
        close = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(SOURCES)}"
        raise ConfigError(f"there is no dataset {name!r} to fetch: {hint}")
    source = SOURCES[name]
    terminal = Console(stderr=True)

    def told(text: str) -> None:
        terminal.print(text, markup=False, highlight=False, soft_wrap=True)

    told(f"{name}: {source.title}")
    told(f"licence:  {source.licence}")
    told(f"cite:     {source.citation}")
    told(f"source:   {source.page}")
    if not source.files and not source.trees:
        told("it is bundled: there is nothing to fetch")
        return
    place = _root(root)
    if place is None:
        raise ConfigError("no data folder is known: give --root FOLDER, or set WARDROUND_DATA to it")

    def asked(file: str, size: int, digest: str) -> bool:
        if digest in {one.lower() for one in accept or ()}:
            return True
        if accept or as_json or not sys.stdin.isatty():
            return False
        told(f"No checksum of the official {file} is known. What came has {size:,} bytes and the SHA-256\n{digest}")
        return typer.confirm("Is it what you expect?", default=False, err=True)

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=terminal, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def moved(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bar.add_task(file, total=total)
            bar.update(tasks[file], completed=done, total=total)

        def paused(file: str, size: int, digest: str) -> bool:
            bar.stop()
            answer = asked(file, size, digest)
            bar.start()
            return answer

        files = fetched(
            source, place, folder=folder, accept=paused, overwrite=overwrite, only=only or (), progress=moved
        )
    for one in files:
        if as_json:
            typer.echo(json.dumps({"name": one.name, "path": str(one.path), "sha256": one.sha256, "size": one.size}))
        else:
            sums = f"{one.size:,} bytes  SHA-256 {one.sha256[:12]}…" if one.sha256 else one.name
            typer.echo(f"{one.path}  {sums}  {one.state}")


def _root(root: Path | None) -> Path | None:
    import os

    value = str(root) if root is not None else os.environ.get("WARDROUND_DATA", "")
    return Path(value).expanduser() if value else None
