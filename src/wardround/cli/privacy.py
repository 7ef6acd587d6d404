"""`wardround privacy`: what a channel does to a sum, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.cli.options import Json

if TYPE_CHECKING:
    from wardround.verification import Verification

app = typer.Typer(no_args_is_help=True, help="Check what a secure channel does.")


@app.callback()
def _root() -> None:
    """Check what a secure channel does."""


@app.command("verify")
def verify_command(
    run: Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)],
    channel: Annotated[
        str | None,
        typer.Option("--channel", "-c", help="secagg, he or masked-he. Default: the run's own.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sum a round of a run in the clear and through a channel, and compare: error, bound, ciphertexts and bytes a layer.

    The run's own records are read, its kept model trains one round more at every site, and nothing is written. Exit code 7 where
    the sums differ by more than the encoding may change.

    [bold]Examples[/bold]

      wardround privacy verify runs/heart

      wardround privacy verify runs/heart --channel he
    """
    from wardround.errors import IdentityError
    from wardround.verification import verify

    found = verify(run, channel)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        _show(found)
    if not found.holds:
        raise IdentityError(
            f"{run}: the sum of {found.channel} differs from the plain sum by more than its encoding may change"
            + (f"; {found.clipped} entries were outside the announced range" if found.clipped else "")
        )


def _show(found: Verification) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table

    terminal = Console(file=sys.stdout)
    if not terminal.is_terminal:
        terminal = Console(file=sys.stdout, width=120)
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for title in ("values", "digits", "ciphertexts", "bytes", "error", "bound"):
        table.add_column(title, justify="right")
    for layer in found.layers:
        if layer.coding == "count":
            continue
        table.add_row(
            layer.name, f"{layer.values:,}", f"{layer.digits:,}", f"{layer.ciphertexts:.2f}" if found.single else "-",
            f"{layer.bytes:,.0f}", f"{layer.error:.2e}", f"{layer.bound:.2e}",
        )  # fmt: skip
    own = [layer for layer in found.layers if layer.coding == "count"]
    if own:
        table.add_row(
            "ranges of values", f"{sum(layer.values for layer in own):,}", f"{sum(layer.digits for layer in own):,}",
            f"{sum(layer.ciphertexts for layer in own):.2f}" if found.single else "-",
            f"{sum(layer.bytes for layer in own):,.0f}", "-", "-",
        )  # fmt: skip
    terminal.print(f"{found.channel}: {found.sites} sites, {found.bits} bits a value of an update", style="bold")
    terminal.print(table)
    terminal.print(
        f"a site sends {found.upload:,.0f} bytes, {found.upload / found.float32:.3g} x float32 ({found.float32:,}); without "
        f"packing {found.unpacked:,.0f}, so packing saves {1 - found.upload / found.unpacked:.2%}"
    )
    if found.single:
        terminal.print(
            f"with a ciphertext for every value it would send {found.single:,.0f}: packing saves "
            f"{1 - found.upload / found.single:.4%}"
        )
    verdict = "the sum is the plain sum, within its bound" if found.holds else "THE SUM DIFFERS by more than its bound"
    terminal.print(verdict, style="green" if found.holds else "bold red")
