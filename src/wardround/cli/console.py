"""What a person sees while a run goes on, and at its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

_WIDE = 110
"""Columns where standard output is a file, so that no table is cut."""

_NAMES = {"federated": "federated", "centralized": "centralised", "local": "each alone", "majority": "majority class"}
_SHOWN = ("accuracy", "balanced_accuracy", "auroc", "brier")
_TITLES = {"accuracy": "accuracy", "balanced_accuracy": "balanced acc.", "auroc": "AUROC", "brier": "Brier"}


class Console:
    """Live progress on standard error, results on standard output.

    Args:
        as_json: events and the result as JSON lines instead.
        quiet: nothing.
        folder: the run folder, for the closing lines.
    """

    def __init__(self, *, as_json: bool, quiet: bool, folder: Path) -> None:
        self._json, self._quiet, self._folder = as_json, quiet, folder
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=Terminal(stderr=True),
            disable=as_json or quiet,
        )

    def __enter__(self) -> Console:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def listen(self, event: Mapping[str, Any]) -> None:
        """Show one event of a run."""
        if self._json:
            print(json.dumps(event), flush=True)
            return
        arm = event["arm"]
        if arm not in self._bars:
            self._bars[arm] = self._progress.add_task(_NAMES.get(arm, arm), total=event["rounds"], figures="")
        if event["event"] == "round":
            self._progress.update(self._bars[arm], completed=event["round"] + 1, figures=_figures(event))
            for site, reason in event["abstained"].items():
                self._progress.console.print(f"round {event['round'] + 1}: {site} left out: {reason}", markup=False)
        elif event["event"] == "retry":
            self._progress.console.print(f"round {event['round'] + 1}: trying again: {event['cause']}", markup=False)

    def show(self, result: Mapping[str, Any], *, report: bool) -> None:
        """The closing table."""
        if self._json:
            print(json.dumps({"event": "result", **result}))
            return
        if self._quiet:
            return
        terminal = Terminal(file=sys.stdout)
        if not terminal.is_terminal:
            terminal = Terminal(file=sys.stdout, width=_WIDE)
        title = f"{result['name']}: test rows of all sites, 95 % intervals"
        if result["personalized"]:
            title += " (personalised: each row is scored with its own site's model)"
        terminal.print(title, markup=False, style="bold")
        terminal.print(_table(result))
        for line in _sentences(result):
            terminal.print(line, markup=False)
        for name in ("report.html",) if report else ():
            terminal.print(f"report: {self._folder / name}", markup=False, soft_wrap=True)
        terminal.print(f"model:  {self._folder / 'model.safetensors'}", markup=False, soft_wrap=True)


def _figures(event: Mapping[str, Any]) -> str:
    validation = event["validation"] or {}
    shown = []
    if event["train_loss"] is not None:
        shown.append(f"loss {event['train_loss']:.3f}")
    if "auroc" in validation:
        shown.append(f"AUROC {validation['auroc']:.3f}")
    shown.append(f"{_bytes(event['bytes_up'] + event['bytes_down'])}")
    if event["survivors"] < event["asked"]:
        shown.append(f"{event['survivors']}/{event['asked']} sites")
    return "  ".join(shown)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def _cell(figures: Mapping[str, float], metric: str) -> str:
    if metric not in figures:
        return "-"
    text = f"{figures[metric]:.3f}"
    if f"{metric}_low" in figures:
        text += f" [{figures[f'{metric}_low']:.3f}, {figures[f'{metric}_high']:.3f}]"
    return text


def _table(result: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("", no_wrap=True)
    for metric in _SHOWN:
        table.add_column(_TITLES[metric])
    for arm, name in _NAMES.items():
        if arm in result:
            table.add_row(name, *(_cell(result[arm]["pooled"], metric) for metric in _SHOWN))
    for arm in ("federated", "local"):
        if arm in result and result[arm]["site_mean"]:
            table.add_row(f"{_NAMES[arm]}, site mean", *(_cell(result[arm]["site_mean"], m) for m in _SHOWN))
    return table


def _sentences(result: Mapping[str, Any]) -> list[str]:
    lines = []
    for baseline, name in (("local", "each site alone"), ("centralized", "centralised training")):
        gain = result["gain"].get(baseline, {}).get("pooled", {})
        if "auroc_low" in gain:
            low, high = gain["auroc_low"], gain["auroc_high"]
            verdict = "above" if low > 0 else "below" if high < 0 else "not separated from"
            lines.append(f"AUROC against {name}: {gain['auroc']:+.3f} [{low:+.3f}, {high:+.3f}]: {verdict} it")
    lines.append(
        f"round {result['selected_round']} of {result['rounds']} kept (chosen on validation rows), "
        f"{_bytes(result['bytes_up'])} up, {_bytes(result['bytes_down'])} down, {result['seconds']:.1f} s, "
        f"{result['executor']}"
    )
    return lines
