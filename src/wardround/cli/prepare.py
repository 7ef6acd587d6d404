"""`wardround data prepare`: from a hospital's folder of pictures to a folder that a federation trains from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wardround.cli.options import Json, Quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console

_WIDE = 110


def command(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of DICOM, NIfTI, PNG, JPEG or TIFF files, or an npz archive.", show_default=False),
    ],
    site: Annotated[str, typer.Option(help="The hospital's name in the federation.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The site's folder.", show_default=False)],
    labels: Annotated[Path | None, typer.Option(help="Table of labels: CSV, TSV, Parquet.", show_default=False)] = None,
    labels_by_folder: Annotated[
        bool, typer.Option("--labels-by-folder", help="The folder of a file names its class.")
    ] = False,
    file: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Which column names file or study; found out.", show_default=False),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="The class, `A|B` where several hold; repeat it for 0/1 columns."),
    ] = None,
    patient: Annotated[str | None, typer.Option(metavar="COLUMN", help="Patients; found by name, '' for none.")] = None,
    group: Annotated[str | None, typer.Option(metavar="COLUMN", help="Lesions or studies; found by name.")] = None,
    split: Annotated[str | None, typer.Option(metavar="COLUMN", help="An official split; found by name.")] = None,
    age: Annotated[str | None, typer.Option(metavar="COLUMN", help="Ages, kept in bins of ten; found by name.")] = None,
    sex: Annotated[str | None, typer.Option(metavar="COLUMN", help="Sex; found by name.")] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="The classes that the federation agreed on, in its order.")
    ] = None,
    negative: Annotated[str, typer.Option(help="The label that stands for none of several.")] = "No Finding",
    modality: Annotated[
        str | None,
        typer.Option(metavar="CT|MR|XR|US|DERM|PHOTO|OT", help="Which are wanted; DICOM of others is passed over."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="64 | 64x48 | 32x64x64", help="Height x width, or depth x height x width.")
    ] = None,
    channels: Annotated[int | None, typer.Option(min=1, max=3, help="1 (grey) or 3; as the files are.")] = None,
    fit: Annotated[str, typer.Option(metavar="pad|crop|stretch", help="How other proportions are met.")] = "pad",
    window: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|LOW,HIGH", help="Grey values that become black and white: brain, lung, ..., or tags."
        ),
    ] = None,
    spacing: Annotated[
        str | None, typer.Option(metavar="MM[,MM[,MM]]", help="Resample to this; then pad or cut to the size.")
    ] = None,
    orientation: Annotated[
        str | None, typer.Option(help="Directions in which D, H, W of volumes grow; `file` keeps theirs.")
    ] = None,
    frames: Annotated[
        str, typer.Option(metavar="middle|first|all|N", help="Which frame of a cine loop or a paged TIFF.")
    ] = "middle",
    dtype: Annotated[str, typer.Option(metavar="uint8|float16|float32", help="How pixels are stored.")] = "uint8",
    max_skipped: Annotated[float, typer.Option(help="Largest share of studies that may be left out.")] = 0.2,
    smallest: Annotated[int, typer.Option(min=1, help="Least pixels of the shorter side.")] = 16,
    any_look: Annotated[
        bool, typer.Option("--any-look", help="Use what does not look like its modality; it is told of.")
    ] = False,
    secondary: Annotated[bool, typer.Option("--secondary", help="Use secondary captures.")] = False,
    no_deid: Annotated[
        bool, typer.Option("--no-deid", help="Leave text and faces in the pixels. Headers never get in.")
    ] = False,
    deid: Annotated[
        Path | None, typer.Option(metavar="YAML", help="Rules of de-identification.", show_default=False)
    ] = None,
    held: Annotated[
        Path | None, typer.Option(help="Where the hospital keeps pseudonyms; default OUT.held.", show_default=False)
    ] = None,
    licence: Annotated[str, typer.Option(help="For the report and the model card.")] = "not stated",
    title: Annotated[str, typer.Option(help="For the report and the model card.")] = "",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; as many as cores if left out.", show_default=False)
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Look and report; write no site.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a prepared folder.")] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="Leave out the page.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a site of a folder of pictures: decoded, checked, de-identified, one array that training maps.

    What cannot be used is left out with its reason, and too much of that stops it. A run that was killed goes on where it was.
    The page OUT.preflight.html names files: it stays at the hospital, as do the pseudonyms in OUT.held.

    [bold]Examples[/bold]

      wardround data prepare photos --labels labels.csv --site vienna --out sites/vienna --modality DERM --size 64

      wardround data prepare export --labels reads.csv --site north --out sites/north --size 32x96x96 --window brain

      wardround data prepare photos --labels labels.csv --site vienna --out sites/vienna --check
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from wardround.data.imaging.fit import parse_window
    from wardround.data.imaging.picture import CANONICAL, Options
    from wardround.data.imaging.prepare import Wanted, prepare
    from wardround.errors import ConfigError, DataError

    for name, value, known in (
        ("fit", fit, ("pad", "crop", "stretch")),
        ("dtype", dtype, ("uint8", "float16", "float32")),
    ):
        if value not in known:
            raise ConfigError(f"--{name} {value}: expected one of {', '.join(known)}")
    if channels == 2:
        raise ConfigError("--channels 2: expected 1 or 3")
    sides = _numbers("size", size, int)
    wanted = Wanted(
        source=source, out=out, site=site, labels=labels, label_by_folder=labels_by_folder, file=file,
        label=tuple(label or ()), classes=tuple(one.strip() for one in classes.split(",")) if classes else (),
        roles={
            role: column
            for role, column in {"patient": patient, "group": group, "split": split, "age": age, "sex": sex}.items()
            if column is not None
        },
        negative=negative, modality=modality.upper() if modality else None,
        size=(sides * 2 if len(sides) == 1 else sides) if sides else None, channels=channels, dtype=dtype, how=fit,
        window=parse_window(window) if window else None,
        spacing=_spacing(spacing, 2 if len(sides) == 1 else len(sides)),
        options=Options(
            orientation=CANONICAL if orientation is None else None if orientation == "file" else orientation.upper(),
            frames=int(frames) if frames.isdigit() else frames,  # type: ignore[arg-type]
        ),
        smallest=smallest, looks=not any_look, secondary=secondary, max_skipped=max_skipped, deidentify=not no_deid,
        rules=deid, held=held, licence=licence, title=title,
    )  # fmt: skip
    terminal = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=terminal, transient=True, disable=quiet or as_json) as bar:
        told = prepare(
            wanted, check=check, overwrite=overwrite, workers=workers or _cores(), progress=_into(bar)
        )  # fmt: skip
    files = {} if told.folder is None else {"site": str(out)}
    if not no_page:
        from wardround.report import preflight as page

        files["page"] = str(
            page.write(out.with_name(f"{out.name}.preflight.html"), told.tree, told.thumbnails, told.verdict)
        )
    if as_json:
        typer.echo(json.dumps({**told.tree, "refusal": told.refusal, "files": files}, allow_nan=False))
    elif not quiet:
        shown = Console() if Console().is_terminal else Console(width=_WIDE)
        _show(shown, told.tree)
        for what, path in files.items():
            shown.print(f"{what + ':':<6} {path}", markup=False, highlight=False, soft_wrap=True)
    if told.refusal:
        raise DataError(told.refusal)


def _into(bar: Any) -> Callable[[str, int, int], None]:
    tasks: dict[str, Any] = {}

    def moved(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total or None)
        bar.update(tasks[what], completed=done, total=total or None)

    return moved


def _cores() -> int:
    from loky import cpu_count

    return int(cpu_count())


def _numbers(name: str, text: str | None, kind: type[int]) -> tuple[int, ...]:
    from wardround.errors import ConfigError

    if text is None:
        return ()
    try:
        found = tuple(kind(part) for part in text.lower().split("x"))
    except ValueError:
        found = ()
    if len(found) not in (1, 2, 3) or min(found) < 1:
        raise ConfigError(f"--{name} {text}: expected 64, 64x48 or 32x64x64")
    return found


def _spacing(text: str | None, axes: int) -> tuple[float, ...] | None:
    from wardround.errors import ConfigError

    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) <= 0:
        raise ConfigError(f"--spacing {text}: expected millimetres such as 1.5, or 3,1,1 for depth, height and width")
    return found * max(axes, 2) if len(found) == 1 else found


def _show(terminal: Console, tree: Mapping[str, Any]) -> None:
    from rich.table import Table

    from wardround.data.imaging.preflight import REASONS

    def plain(text: str, style: str = "") -> None:
        terminal.print(text, markup=False, highlight=False, soft_wrap=True, style=style)

    shape = " x ".join(str(side) for side in tree["shape"])
    plain(
        f"{tree['site']}: {tree['used']:,} of {tree['studies']:,} used, {tree['modality']}, {shape} {tree['dtype']}",
        "bold",
    )
    columns = ", ".join(
        f"{role}: {column}{' (guessed)' if role in tree['guessed'] else ''}" for role, column in tree["columns"].items()
    )
    if columns:
        plain(columns, "dim")
    if tree["by_class"]:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        splits = sorted({split for counts in tree["by_class"].values() for split in counts})
        table.add_column("class")
        for split in splits:
            table.add_column(split, justify="right")
        for name, counts in tree["by_class"].items():
            table.add_row(name, *(f"{counts.get(split, 0):,}" for split in splits))
        terminal.print(table)
    for name in tree["empty_classes"]:
        plain(f"no picture of class {name}", "yellow")
    if tree["skipped"]:
        plain("\nleft out", "bold")
        for reason, count in tree["skipped"].items():
            plain(f"  {count:>7,}  {REASONS[reason]}")
            for one in tree["named"][reason][:3]:
                plain(f"           {one['name']}: {one['why']}", "dim")
    if tree["labels_without_file"]:
        example = tree["labels_without_file_examples"][0]
        plain(f"{tree['labels_without_file']:,} rows of the label table name no file here, such as {example}", "yellow")
    if tree["matched_by_name"]:
        plain(
            f"{tree['matched_by_name']:,} files were matched by name alone: their folders differ from the table's",
            "yellow",
        )
    if tree["blanked"]:
        plain(f"{tree['blanked']:,} pictures had text-like areas, which were blanked: look at the page", "yellow")
    for warning, count in tree["warnings"].items():
        plain(f"{count:,} x {warning}", "yellow")
