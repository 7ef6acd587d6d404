"""What a person sees while a run goes on, and at its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console as Terminal
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

_WIDE = 110
"""Columns where standard output is a file, so that no table is cut."""

_NAMES = {
    "federated": "federated",
    "finetuned": "fine-tuned",
    "centralized": "centralised",
    "local": "each alone",
    "majority": "majority class",
}
_SHOWN = ("accuracy", "balanced_accuracy", "auroc", "brier", "auprc")
_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced acc.",
    "auroc": "AUROC",
    "brier": "Brier",
    "auprc": "AUPRC",
    "loss": "loss",
}
_MACRO = {"auroc": "macro AUROC", "auprc": "macro AUPRC"}
_TENTH = 10
_FEWEST = 4
"""Metrics that must fit beside their intervals, or intervals stand below."""
_NAME, _VALUE, _INTERVAL, _GAP = 14, 5, 14, 2
"""Columns of the closing table: the longest name, a value, its interval, and the space after each."""
_STEPS = {"figures": "comparing", "report": "report"}
"""Events after training, which have no rounds to count."""


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
        self._steps: list[TaskID] = []
        self._started = False
        self._progress = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[rounds]:>7}"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=Terminal(stderr=True),
        )

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_step()
        if self._started:
            self._progress.stop()
        if kind is KeyboardInterrupt and (self._folder / "run.json").exists():
            print(f"`wardround resume {self._folder}` goes on from the last committed round", file=sys.stderr)

    def listen(self, event: Mapping[str, Any]) -> None:
        """Show one event of a run."""
        if self._json:
            print(json.dumps(event), flush=True)
            return
        if self._quiet:
            return
        if not self._started:  # only now, so that a refusal is not preceded by an empty display
            self._started = True
            self._progress.start()
        if event["event"] in _STEPS:
            self._end_step()
            self._steps.append(
                self._progress.add_task(_STEPS[event["event"]], total=None, rounds="", figures="", completed=0)
            )
            return
        arm, rounds = event["arm"], event["rounds"]
        if arm not in self._bars:
            self._bars[arm] = self._progress.add_task(_NAMES.get(arm, arm), total=rounds, rounds="", figures="")
        if event["event"] == "round":
            done = event["round"] + 1
            self._progress.update(self._bars[arm], completed=done, rounds=f"{done}/{rounds}", figures=_figures(event))
            for site, reason in event["abstained"].items():
                self._note(f"{_NAMES[arm]}, round {done}: {site} left out: {reason}")
        elif event["event"] == "retry":
            self._note(f"{_NAMES[arm]}, round {event['round'] + 1}: trying again: {event['cause']}")
        elif event["event"] == "selected":
            self._progress.update(self._bars[arm], completed=rounds)

    def _note(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _end_step(self) -> None:
        for task in self._steps:
            self._progress.update(task, total=1, completed=1)

    def show(self, result: Mapping[str, Any]) -> None:
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
        terminal.print(title, markup=False, highlight=False, style="bold")
        terminal.print(_table(result, terminal.width))
        for line in _sentences(result):
            terminal.print(line, markup=False, highlight=False)
        for what, name in (("report", "report.html"), ("model", "model.safetensors")):
            if (self._folder / name).exists():
                terminal.print(f"{what + ':':<7} {self._folder / name}", markup=False, highlight=False, soft_wrap=True)


def _figures(event: Mapping[str, Any]) -> str:
    validation = event["validation"] or {}
    shown = []
    if event["train_loss"] is not None:
        shown.append(f"loss {event['train_loss']:.3f}")
    if "auroc" in validation:
        shown.append(f"AUROC {validation['auroc']:.3f}")
    shown.append(f"{bytes_text(event['bytes_up'] + event['bytes_down'])}")
    if event["survivors"] < event["asked"]:
        shown.append(f"{event['survivors']}/{event['asked']} sites")
    return "  ".join(shown)


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # + 0.0 takes the sign from a zero


def bytes_text(count: float) -> str:
    """A number of bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def _cell(figures: Mapping[str, float], metric: str, between: str) -> str:
    if metric not in figures:
        return "-"
    text = f"{figures[metric]:.3f}"
    if f"{metric}_low" in figures:
        text += f"{between}[{figures[f'{metric}_low']:.3f}, {figures[f'{metric}_high']:.3f}]"
    return text


def _table(result: Mapping[str, Any], width: int) -> Table:
    """As many metrics as fit; an interval stands beside its value, or below it where the terminal is narrow."""
    whole, short = _GAP + _VALUE + 1 + _INTERVAL, _GAP + _INTERVAL
    beside = _NAME + _FEWEST * whole <= width
    shown = _SHOWN[: max(1, (width - _NAME) // (whole if beside else short))]
    titles = _titles(result)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for metric in shown:
        table.add_column(titles[metric], no_wrap=True)
    for scope, title in (("pooled", "all rows"), ("site_mean", "mean of sites")):
        arms = [arm for arm in _NAMES if arm in result and result[arm][scope]]
        if arms:
            table.add_row(title, *[""] * len(shown), style="dim")
        for arm in arms:
            cells = (_cell(result[arm][scope], metric, " " if beside else "\n") for metric in shown)
            table.add_row(_NAMES[arm], *cells)
    return table


def _titles(result: Mapping[str, Any]) -> dict[str, str]:
    dataset = result.get("dataset") or {}
    several = bool(dataset.get("multilabel"))
    many = several or len(dataset.get("classes") or ()) > 2
    return _TITLES | (_MACRO if many else {}) | ({"accuracy": "Hamming acc."} if several else {})


def _sentences(result: Mapping[str, Any]) -> list[str]:
    lines = []
    auroc = _titles(result)["auroc"]
    for baseline in ("finetuned", "local", "centralized"):
        gain = result["gain"].get(baseline, {}).get("pooled", {})
        if "auroc_low" in gain:
            low, high = gain["auroc_low"], gain["auroc_high"]
            verdict = "higher" if low > 0 else "lower" if high < 0 else "no clear difference"
            value, low, high = (_signed(x) for x in (gain["auroc"], low, high))
            lines.append(f"{auroc}, federated minus {_NAMES[baseline]}: {value} [{low}, {high}], {verdict}")
    if result.get("heterogeneity"):
        from wardround.report.skews import sentence

        lines.append(sentence(result))
    lines += _fairness(result) + _operating_point(result)
    if result.get("by_site"):
        from wardround.report.withheld import sentences as withheld

        lines += withheld(result)[1:]
    if result.get("held_out"):
        from wardround.report.held_out import sentences

        lines.append(" ".join(sentences(result)))
    if result.get("maps"):
        lines.append(
            "the report holds pictures of patients (evaluation.maps): remove them before it leaves the hospital"
        )
    if result.get("target"):
        from wardround.report.target import target

        lines.append(target(result))
    tuned = result.get("finetuning")
    if tuned:
        lines.append(
            f"fine-tuned for {tuned['selected_epoch']} of {tuned['epochs']} epochs (chosen on validation rows): personalised, "
            "each row is scored with its own site's model"
        )
    lines.append(
        f"round {result['selected_round']} of {result['rounds']} kept (chosen on validation rows), "
        f"{bytes_text(result['bytes_up'])} up, {bytes_text(result['bytes_down'])} down, {result['seconds']:.1f} s, "
        f"{result['executor']}"
    )
    return lines


def _fairness(result: Mapping[str, Any]) -> list[str]:
    """How the main figure spreads over sites, and who gains over training alone."""
    found = result.get("fairness") or {}
    metric = next((name for name in ("auroc", "accuracy") if name in (found.get("federated") or {})), None)
    if metric is None:
        return []
    over = found["federated"][metric]
    line = (
        f"{_titles(result)[metric]} over {over['sites']} sites: {over['worst']:.3f} ({over['worst_site']}) to "
        f"{over['best']:.3f}, sd {over['deviation']:.3f}"
    )
    if over["sites"] > _TENTH:  # of fewer, the worst tenth is the worst site
        line += f", worst tenth {over['worst_tenth']:.3f}"
    sides = ((found.get("gain") or {}).get("local") or {}).get(metric)
    if sides:
        line += f"; above each alone at {sides['gain']}, below at {sides['lose']}"
    return [line]


def _operating_point(result: Mapping[str, Any]) -> list[str]:
    """What was reached where the job asked for a point; the threshold alone says nothing to a clinician."""
    asked = ((result.get("job") or {}).get("evaluation") or {}).get("threshold")
    point = (result.get("operating_point") or {}).get("federated")
    if not isinstance(asked, Mapping) or not point:
        return []
    name, value = next((name, value) for name, value in asked.items() if value is not None)
    names = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}
    figures = ", ".join(f"{title} {_cell(point['test'], key, ' ')}" for key, title in names.items())
    return [f"threshold {point['threshold']:.3f} for {name} {value:g} on validation rows; on test rows {figures}"]
