"""`wardround data deidentify` and `wardround data scan`: clean copies of a folder, and what is still found in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from wardround.cli.options import Json

_SHOWN = 20


def command(
    source: Annotated[
        Path, typer.Argument(help="A folder, or one file: DICOM, PNG, JPEG, TIFF, tables.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder for the clean files.", show_default=False)],
    policy: Annotated[
        Path | None, typer.Option(help="YAML: what to remove and what to keep.", show_default=False)
    ] = None,
    secrets: Annotated[
        Path | None,
        typer.Option(help="Folder of pseudonyms and the secret; stays at the hospital. Default OUT.site-held."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Then look for the sources' identifiers in OUT; any found is an error.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write clean copies of images and tables, with a report a file.

    DICOM by the Basic Profile of PS3.15 Annex E; text in pixels blanked, heads defaced, files named anew. Keep the
    secrets to clean later files alike, and never give them away with OUT.

    [bold]Examples[/bold]

      wardround data deidentify pacs-export --out clean --check

      wardround data deidentify pacs-export --out clean --policy policy.yaml --secrets ~/ward-secrets
    """
    from rich.console import Console

    from wardround.data.imaging.deid.folder import clean_folder
    from wardround.data.imaging.deid.policy import Policy, Rules, read_rules
    from wardround.data.imaging.deid.scan import scan

    rules = read_rules(policy) if policy is not None else Rules()
    held = secrets if secrets is not None else out.with_name(f"{out.name}.site-held")
    with Console(stderr=True).status(f"cleaning {source}") as status:
        result = clean_folder(
            source, out, Policy.open(held, rules), progress=lambda name: status.update(f"cleaning {name}")
        )
        found = scan(out, result.identifiers) if check and result.identifiers else []
    told: dict[str, Any] = {**result.summary(), "out": str(out), "secrets": str(held)}
    if check:
        told["found again"] = [{"file": one.file, "place": one.place} for one in found]
    if as_json:
        left = [{"source": name, "why": why} for name, why in result.left]
        typer.echo(json.dumps({**told, "left": left}))
    else:
        _show(told, result.left, looked=len(result.identifiers) if check else None)
    if found or not result.written:
        raise typer.Exit(5 if found else 3)


def _show(told: dict[str, Any], left: list[tuple[str, str]], looked: int | None) -> None:
    typer.echo(f"{told['written']} files written to {told['out']}, {told['left out']} left out")
    for name, why in left[:_SHOWN]:
        typer.echo(f"  left out: {name}: {why}")
    if len(left) > _SHOWN:
        typer.echo(f"  ... and {len(left) - _SHOWN} more: see sources.csv in {told['secrets']}")
    typer.echo("actions: " + ", ".join(f"{what} {times}" for what, times in told["actions"].items()))
    for text, files in told["warnings"].items():
        typer.echo(f"{files} files: {text}")
    typer.echo(f"secrets: {told['secrets']} (never where the clean files go)")
    if looked is not None:
        found = told["found again"]
        typer.echo(f"check: {looked} identifiers of the sources looked for, found in {len(found)} places")
        for one in found[:_SHOWN]:
            typer.echo(f"  {one['file']}: {one['place']}")


def scan_command(
    folder: Annotated[Path, typer.Argument(help="Looked through with all below.", show_default=False)],
    identifiers: Annotated[
        Path, typer.Option(help="What to look for, one a line, at least 4 letters each.", show_default=False)
    ],
    pixels: Annotated[bool, typer.Option("--pixels", help="Also look for text-like areas in pictures.")] = False,
    as_json: Json = False,
) -> None:
    """Look for identifiers in any folder: DICOM, arrays, tables, JSON, picture texts, EXIF, archives, names of files.

    Exit code 5 where any is found. Values are not printed, but their line numbers.

    [bold]Example[/bold]

      wardround data scan clean --identifiers patients.txt --pixels
    """
    from wardround.data.imaging.deid.scan import read_identifiers, scan

    found = scan(folder, read_identifiers(identifiers), pixels=pixels)
    if as_json:
        rows = [{"file": one.file, "place": one.place, "identifier": one.identifier + 1} for one in found]
        typer.echo(json.dumps({"found": rows}))
    else:
        for one in found:
            what = f"identifier {one.identifier + 1}" if one.identifier >= 0 else "text-like area, not read"
            print(f"{one.file}: {one.place}: {what}")
        print(f"{len(found)} findings", file=sys.stderr)
    if found:
        raise typer.Exit(5)
