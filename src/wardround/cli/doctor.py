"""`wardround doctor`: is this machine ready?"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from wardround import __version__
from wardround.plain import plain_lines

_EXTRAS = {
    "imaging": ("monai", "pydicom", "nibabel"),
    "he": ("tenseal", "cryptography"),
    "flower": ("flwr",),
    "cloud": ("fsspec",),
    "ray": ("ray",),
    "keras": ("keras",),
}
_DATASETS = {
    "heart": ("uci_heart/processed.cleveland.data",),
    "pima": ("pima_diabetes/pima-indians-diabetes.csv",),
    "hypothyroid": ("hypothyroid/hypothyroid.arff",),
    "readmission": ("diabetes130/diabetic_data*.csv",),
    "medmnist": ("*mnist*/*mnist*.npz",),
    "ham10000": ("ham10000*/*",),
    "isic2019": ("isic2019/ISIC_2019_Training_GroundTruth.csv",),
    "chestxray14": ("chestxray14/Data_Entry_2017*.csv",),
    "covid_radiography": ("COVID-19_Radiography_Dataset/COVID",),
    "covid_ct": ("COVID-CT/Data-split",),
    "brain_tumor_mri": ("brain_tumor_mri/Training",),
    "tcga_brca": ("tcga_brca/brca.csv", "tcga_brca/train_test_split.csv", "tcga_brca/centers.csv"),
}
_SPARE_BYTES = 2**30


def command(
    site: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Check a hospital instead: its folder, records, and way to the coordinator."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check Python, PyTorch, devices, optional parts, data and disk; exit code 0 when a run can start.

    [bold]Examples[/bold]

      wardround doctor

      wardround doctor --site vienna
    """
    checks = [*_software(), *_data(), *_disk()] if site is None else _site(site)
    healthy = all(check["state"] != "bad" for check in checks)
    if as_json:
        typer.echo(json.dumps({"healthy": healthy, "checks": checks}))
    else:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        marks = {"good": "[green]ok[/green]", "note": "[yellow]--[/yellow]", "bad": "[red]!![/red]"}
        table = Table(box=None, show_header=False, padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")  # a path that is cut helps nobody
        for check in checks:
            table.add_row(marks[check["state"]], check["what"], escape(plain_lines(check["found"])))
            if check.get("do"):
                table.add_row("", "", f"[bold]do:[/bold] {escape(plain_lines(check['do']))}")
        Console().print(table)
        typer.echo("ready" if healthy else "not ready: mend the lines marked !!")
    if not healthy:
        raise typer.Exit(3)


def _site(folder: Path) -> list[dict[str, Any]]:
    from wardround.deploy import diagnosis

    return [
        {"state": one.state, "what": one.what, "found": one.found, "do": one.remedy}
        for one in diagnosis.diagnose(folder)
    ]


def _check(state: str, what: str, found: str) -> dict[str, Any]:
    return {"state": state, "what": what, "found": found}


def _software() -> list[dict[str, Any]]:
    checks = [
        _check("good", "wardround", __version__),
        _check(
            "good" if sys.version_info >= (3, 11) else "bad", "Python", f"{platform.python_version()} (3.11 or newer)"
        ),
    ]
    try:
        import torch

        checks.append(_check("good", "PyTorch", f"{torch.__version__}, {torch.get_num_threads()} threads"))
        cuda = torch.cuda.is_available()
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
        found = ", ".join(names) or ("Apple GPU" if torch.backends.mps.is_available() else "none; the CPU will do")
        checks.append(_check("good" if names else "note", "GPU", found))
    except ImportError as error:
        checks.append(_check("bad", "PyTorch", f"not importable: {error}"))
    for extra, packages in _EXTRAS.items():
        absent = [p for p in packages if importlib.util.find_spec(p) is None]
        if absent:
            checks.append(_check("note", f"extra {extra}", f'not installed: pip install "wardround[{extra}]"'))
        else:
            checks.append(
                _check("good", f"extra {extra}", ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages))
            )
    return checks


def _data() -> list[dict[str, Any]]:
    root = os.environ.get("WARDROUND_DATA")
    if not root:
        return [_check("note", "WARDROUND_DATA", "not set: wdbc is built in, other datasets need it")]
    if not Path(root).is_dir():
        return [_check("bad", "WARDROUND_DATA", f"{root} is no folder: set it to the one that holds the datasets")]
    checks = [_check("good", "WARDROUND_DATA", root)]
    for name, files in _DATASETS.items():
        missing = [f for f in files if not any(Path(root).glob(f))]
        checks.append(_check("note" if missing else "good", f"data {name}", f"no {missing[0]}" if missing else "found"))
    return checks


def _disk() -> list[dict[str, Any]]:
    here = Path.cwd()
    spare = shutil.disk_usage(here).free
    writable = os.access(here, os.W_OK)
    return [
        _check("good" if spare > _SPARE_BYTES else "note", "disk", f"{spare / 2**30:.1f} GiB free here"),
        _check(
            "good" if writable else "note",
            "folder",
            f"{here} is {'writable' if writable else 'not writable: use --out'}",
        ),
    ]
