"""Figures by site, worked out at the sites: those of a process that holds all row scores, whatever happens on the way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federation.adverse import AdverseEngine, Call
from wardround import Job, run, wire
from wardround.channels.plain import Plain
from wardround.deploy.audit import AuditLog
from wardround.deploy.policy import Release, SitePolicy
from wardround.deploy.release import SiteRelease
from wardround.errors import MessageError, Refused
from wardround.experiment import records_of, run_between
from wardround.federation import messages
from wardround.federation.by_site import Judged, SiteFigures, mean_over_sites, small, threshold_from
from wardround.report import build
from wardround.report.card import model_card
from wardround.training.tables import from_rows
from wardround.types import Message

BINARY: dict[str, Any] = {
    "name": "clinics",
    "seed": 4,
    "data": {"dataset": "sample_plugins:Clinics"},
    "model": {"local": ["linear.bias"]},
    "training": {"rounds": 4, "optimizer": {"learning_rate": 0.2}},
    "evaluation": {"bootstrap": 20, "baselines": ["local"], "site_figures": True, "threshold": 0.4},
    "engine": {"threads": 1},
}
THREE = {**BINARY, "data": {"dataset": "sample_plugins:Clinics", "options": {"classes": 3, "rows": 120}}}
THREE["evaluation"] = {**BINARY["evaluation"], "threshold": 0.5}
LABELS: dict[str, Any] = {
    "name": "labels",
    "seed": 2,
    "data": {"dataset": "labelled_plugins:Xrays", "options": {"rows": 150, "sites": 3}},
    "model": {"name": "labelled_plugins:Spots"},
    "training": {"rounds": 2, "batch_size": 32, "optimizer": {"learning_rate": 0.1}},
    "evaluation": {**BINARY["evaluation"], "bootstrap": 5},
    "engine": {"threads": 1},
}


def job_of(tree: dict[str, Any], **evaluation: Any) -> Job:
    found = copy.deepcopy(tree)
    found["evaluation"] |= evaluation
    return Job.model_validate(found)


def engine_of(folder: Path, job: Job, **more: Any) -> AdverseEngine:
    description, data = records_of(job)
    return AdverseEngine(folder / "sites", job, description, data, Plain(), **more)


def behind_bytes(folder: Path, tree: dict[str, Any], **more: Any) -> tuple[dict[str, Any], AdverseEngine]:
    """What a run between hospitals says, and its engine."""
    job = job_of(tree, release_scores=False)
    engine = more.pop("engine", None) or engine_of(folder, job, **more)
    description = records_of(job)[0]
    return run_between(job, folder / "run", engine, description, {}, report=False), engine


def assert_same_sites(found: dict[str, Any], exact: dict[str, Any], tolerance: float = 1e-9) -> None:
    """By site: counts, every figure with its interval, paired differences; and what follows from them."""
    assert found["partition"] == exact["partition"]
    blocks = [(found[name], exact[name]) for name in ("federated", "local", "majority")]
    for mine, theirs in [*blocks, (found["gain"]["local"], exact["gain"]["local"])]:
        assert mine["sites"].keys() == theirs["sites"].keys()
        for site, figures in theirs["sites"].items():
            assert figures
            assert mine["sites"][site] == pytest.approx(figures, abs=tolerance)
        means = {name: value for name, value in theirs["site_mean"].items() if not name.endswith(("_low", "_high"))}
        assert mine["site_mean"] == pytest.approx(means, abs=tolerance)
    for name, by_metric in exact["fairness"].items():
        for metric, over in by_metric.items():
            mine = found["fairness"][name][metric]
            for key, value in over.items() if name != "gain" else ():
                assert mine[key] == (value if isinstance(value, str) else pytest.approx(value, abs=tolerance))
    assert found["fairness"].keys() == exact["fairness"].keys()


@pytest.mark.parametrize("tree", [BINARY, THREE, LABELS], ids=["two classes", "three classes", "labels"])
def test_sites_say_what_a_process_with_all_scores_computes(tmp_path: Path, tree: dict[str, Any]) -> None:
    exact = run(job_of(tree, site_figures=False), tmp_path / "exact", report=False)
    assert_same_sites(run(job_of(tree, release_scores=False), tmp_path / "sums", report=False), exact)
    found, engine = behind_bytes(tmp_path, tree)
    assert_same_sites(found, exact, 1e-6)  # one hospital has another executor than many in one process
    assert found["by_site"]["withheld"] == {"federated": {}, "local": {}}
    assert found["rows"] == {site: {split: int(n) for split, n in parts.items()} for site, parts in _rows(tree).items()}
    sent = [wire.decode(one.data) for one in engine.answers if one.call.stage == messages.FIGURES]
    assert len(sent) == 2 * len(engine.sites)
    assert not any(message.arrays for message in sent)  # finished figures, as JSON, and no array of any kind


def _rows(tree: dict[str, Any]) -> dict[str, dict[str, int]]:
    _, data = records_of(job_of(tree))
    return {
        site: {name: int((own.split == k).sum()) for k, name in enumerate(("train", "validation", "test"))}
        for site, own in data.items()
    }


def test_nobody_is_asked_unless_the_job_says_so(tmp_path: Path) -> None:
    job = job_of(BINARY, release_scores=False, site_figures=False)
    engine = engine_of(tmp_path, job)
    found = run_between(job, tmp_path / "run", engine, records_of(job)[0], {}, report=False)
    assert found["federated"]["sites"] == found["local"]["sites"] == found["partition"] == {}
    assert "by_site" not in found
    assert found["local"]["pooled"]["auroc"] > 0.5  # sums of models that were trained alone
    assert not [one for one in engine.answers if one.call.stage == messages.FIGURES]


def test_a_site_that_is_asked_against_its_job_refuses(tmp_path: Path) -> None:
    job = job_of(BINARY, release_scores=False, site_figures=False, baselines=[])
    engine = engine_of(tmp_path, job)
    run_between(job, tmp_path / "run", engine, records_of(job)[0], {}, report=False)
    first = engine.hospitals[engine.sites[0]]
    for stage, meta, words in (
        (messages.FIGURES, {"model": "federated", "threshold": 0.5}, "evaluation.site_figures is false"),
        (messages.RELEASE, {"split": "test"}, "evaluation.release_scores is false"),
    ):
        assert first.answer(wire.encode(Message(stage=stage, meta=meta))) == []
        assert words in first.refusals[-1]


def test_models_that_are_trained_alone_stay(tmp_path: Path) -> None:
    """What leaves in their rounds are sums of losses and of scores: no array of the model's shape, and no mean of models."""
    _, engine = behind_bytes(tmp_path, BINARY)
    alone = [
        message
        for message in map(wire.decode, (one.data for one in engine.answers))
        if message.meta.get(messages.ARM) == messages.ALONE and message.stage == messages.CONTRIBUTE
    ]
    assert len(alone) == (4 + 2) * 3  # rounds, the last evaluation, histograms; three sites
    names = {name for message in alone for name in message.arrays}
    assert not [name for name in names if "linear" in name or "overlay" in name]
    site = engine.hospitals[engine.sites[0]]
    asked = messages.for_arm(
        messages.ask_for(messages.OVERLAY, messages.round_from({"round": _round()}), {}), messages.ALONE
    )
    assert site.answer(wire.encode(asked.message)) == []
    assert "overlay" in site.refusals[-1]


def _round() -> dict[str, Any]:
    work = {"steps": None, "epochs": 1, "batch_size": 16, "learning_rate": 0.1}
    return {
        "index": 9, "attempt": 0, "population": 3, "cohort": 3, "work": work, "seed": 4, "max_weight": 64.0,
        "evaluate": False,
    }  # fmt: skip


def test_sites_that_crash_or_repeat_say_the_same(tmp_path: Path) -> None:
    def plan(call: Call) -> frozenset[Any]:
        if call.stage == messages.FIGURES and call.site == "south":
            return frozenset({"crash after"})
        return frozenset({"duplicated", "late copy"}) if call.stage == messages.FIGURES else frozenset()

    peace, engine = behind_bytes(tmp_path / "a", BINARY)
    assert "south" in engine.sites
    rough, _ = behind_bytes(tmp_path / "b", BINARY, plan=plan)
    # its process forgot the federation's scores between the two questions, so it told nothing that cannot be compared
    assert rough["by_site"]["withheld"]["local"] == {"south": "no answer"}
    assert rough["federated"]["sites"] == peace["federated"]["sites"]
    assert rough["local"]["sites"].keys() == peace["local"]["sites"].keys() - {"south"}


def test_a_site_that_was_begun_again_is_asked_for_both_once_more(tmp_path: Path) -> None:
    times: list[str] = []

    def plan(call: Call) -> frozenset[Any]:
        if call.stage == messages.FIGURES and call.site == "south":
            times.append(call.stage)
            return frozenset({"crash after"}) if len(times) == 1 else frozenset()
        return frozenset()

    peace, _ = behind_bytes(tmp_path / "a", BINARY)
    once, _ = behind_bytes(tmp_path / "b", BINARY, plan=plan)
    assert len(times) == 4
    for name in ("federated", "local"):
        assert once[name]["sites"] == peace[name]["sites"]


def test_a_run_that_was_cut_short_asks_the_same_question(tmp_path: Path) -> None:
    """Sites answer one question a model: a coordinator that begins again asks it at the threshold that it noted."""

    class Cut(Exception):
        pass

    tree = {**BINARY, "evaluation": {**BINARY["evaluation"], "threshold": "balanced"}}
    log = AuditLog(tmp_path / "log.jsonl", None)
    policy = SitePolicy(release=Release(site_figures=True, smallest_count=1))

    def releases(folder: Path) -> SiteRelease:
        return SiteRelease("run-1", folder, lambda: policy, log)

    heard: list[Call] = []

    def tamper(call: Call, message: Message) -> Message:
        heard.append(call)
        if call.stage == messages.FIGURES and len([one for one in heard if one.stage == messages.FIGURES]) == 5:
            raise Cut
        return message

    job = job_of(tree, release_scores=False)
    engine = engine_of(tmp_path, job, tamper=tamper, releases=releases)
    description = records_of(job)[0]
    with pytest.raises(Cut):
        run_between(job, tmp_path / "run", engine, description, {}, report=False)
    again = run_between(job, tmp_path / "run", engine, description, {}, resume=True, report=False)
    assert again["by_site"]["withheld"] == {"federated": {}, "local": {}}
    whole, _ = behind_bytes(tmp_path / "whole", tree)
    for name in ("federated", "local"):
        assert again[name]["sites"] == whole[name]["sites"]
        assert again["thresholds"][name] == whole["thresholds"][name]


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: {**tree, "extra": 1},
        lambda tree: {**tree, "figures": {"auroc": float("1e400")}},
        lambda tree: {**tree, "figures": {"<script>": 0.5}},
        lambda tree: {**tree, "figures": {"auroc": "0.5"}},
        lambda tree: {**tree, "figures": {"auroc": True}},
        lambda tree: {**tree, "counts": {**tree["counts"], "test": [-1, 2]}},
        lambda tree: {**tree, "counts": {**tree["counts"], "test": [1, 2, 3]}},
        lambda tree: {**tree, "counts": {"test": [1, 2]}},
        lambda tree: {**tree, "rows": {**tree["rows"], "test": 1.5}},
        lambda tree: {**tree, "withheld": "x" * 501},
        lambda tree: [],
    ],
)
def test_what_is_no_figure_is_not_taken(change: Callable[[dict[str, Any]], Any]) -> None:
    splits = ("train", "validation", "test")
    sound = SiteFigures(
        counts={split: [3, None] for split in splits}, rows=dict.fromkeys(splits, 3),
        figures={"auroc": 0.5, "auroc_low": 0.4}, majority=None,
    ).to_json()  # fmt: skip
    assert SiteFigures.from_json(sound, 2).to_json() == sound
    with pytest.raises(MessageError):
        SiteFigures.from_json(change(sound), 2)


def test_a_site_that_lies_in_form_is_left_out_and_named(tmp_path: Path) -> None:
    def tamper(call: Call, message: Message) -> Message:
        if call.stage == messages.FIGURES and call.site == "north":
            return replace(message, meta={**message.meta, "figures": {"auroc": "<b>1</b>"}})
        return message

    found, _ = behind_bytes(tmp_path, BINARY, tamper=tamper)
    assert "north" not in found["federated"]["sites"]
    assert "members" in found["by_site"]["withheld"]["federated"]["north"]


@pytest.mark.parametrize("value", [None, "0.5", 1, True, float("nan"), [0.5], [0.5, float("inf"), 0.5], {}])
def test_a_threshold_is_a_number(value: Any) -> None:
    with pytest.raises(MessageError):
        threshold_from(value, 3)


def test_means_over_sites_are_of_those_that_have_the_figure() -> None:
    assert mean_over_sites({"a": {"auroc": 0.5, "auroc_low": 0.1}, "b": {"auroc": 0.7, "brier": 0.1}, "c": {}}) == {
        "auroc": pytest.approx(0.6),
        "brier": 0.1,
    }
    assert mean_over_sites({}) == {}


# ------------------------------------------------------------------------------------- what a policy keeps


def judged(ill: int, healthy: int) -> Judged:
    labels = np.array([1] * ill + [0] * healthy)
    return Judged(table=from_rows(np.linspace(0.1, 0.9, len(labels)), labels), threshold=0.5)


def figures(train: list[int], validation: list[int], test: list[int]) -> SiteFigures:
    counts: Any = {"train": train, "validation": validation, "test": test}
    return SiteFigures(
        counts=counts, rows={split: sum(row) for split, row in counts.items()}, figures={"auroc": 0.9},
        majority={"accuracy": 0.6}, gain={"auroc": 0.1},
    )  # fmt: skip


def test_figures_of_a_small_class_do_not_leave() -> None:
    release = Release(site_figures=True)
    shown = release.let_go(figures([90, 60], [30, 20], [30, 9]), judged(9, 30))
    assert (shown.figures, shown.majority, shown.gain) == (None, None, None)
    assert shown.counts == {"train": [90, 60], "validation": [30, 20], "test": [None, None]}
    assert shown.rows == {"train": 150, "validation": 50, "test": 39}
    assert "smallest_count is 10" in shown.withheld
    assert "9" not in shown.withheld
    whole = release.let_go(figures([90, 60], [30, 20], [30, 10]), judged(10, 30))
    assert (whole.figures, whole.withheld) == ({"auroc": 0.9}, "")
    # a small class elsewhere keeps its counts, and the figures of test rows leave
    part = release.let_go(figures([90, 60], [30, 3], [30, 10]), judged(10, 30))
    assert part.counts["validation"] == [None, None]
    assert part.figures == {"auroc": 0.9}
    assert part.withheld


def test_a_total_that_is_the_count_of_the_one_class_that_is_there_does_not_leave() -> None:
    shown = Release(site_figures=True).let_go(figures([90, 60], [30, 20], [4, 0]), judged(0, 4))
    assert shown.counts["test"] == [None, 0]
    assert shown.rows["test"] is None
    assert shown.figures is None


def test_labels_are_counted_with_and_without() -> None:
    scores, labels = np.full((40, 2), 0.5), np.zeros((40, 2), dtype=np.int64)
    labels[:12, 0], labels[:35, 1] = 1, 1  # 5 rows without the second label
    table = from_rows(scores, labels)
    assert small(table, 10)
    assert not small(table, 5)
    counts: Any = {split: [12, 35] for split in ("train", "validation", "test")}
    found = SiteFigures(counts=counts, rows=dict.fromkeys(counts, 40), figures={"auroc": 0.9}, majority={})
    shown = Release(site_figures=True).let_go(found, Judged(table=table, threshold=0.5))
    assert shown.counts["test"] == [12, None]
    assert shown.figures is None


def door(folder: Path, **release: Any) -> tuple[SiteRelease, AuditLog]:
    log = AuditLog(folder / "log.jsonl", None)
    policy = SitePolicy(release=Release(**{"site_figures": True, "smallest_count": 1, **release}))
    return SiteRelease("run-1", folder, lambda: policy, log), log


def test_one_question_a_model_is_answered_also_after_a_restart(tmp_path: Path) -> None:
    ask, log = door(tmp_path)
    given = figures([90, 60], [30, 20], [30, 20]), judged(20, 30)
    assert ask("federated", "a" * 64, *given).figures == {"auroc": 0.9}
    again, _ = door(tmp_path)
    assert again("federated", "a" * 64, *given).figures == {"auroc": 0.9}
    assert again("local", "b" * 64, *given).figures == {"auroc": 0.9}
    for model in ("federated", "local"):
        with pytest.raises(Refused, match="another question"):
            again(model, "c" * 64, *given)
    noted = [entry for entry in log.entries() if entry["kind"] == "figures-released"]
    assert [entry["what"] for entry in noted] == ["federated", "federated", "local"]
    assert {entry["digest"] for entry in noted} == {noted[0]["digest"]}
    assert all(entry["bytes"] > 100 and entry["run"] == "run-1" for entry in noted)


def test_a_policy_that_keeps_figures_is_asked_at_the_door_too(tmp_path: Path) -> None:
    ask, _ = door(tmp_path, site_figures=False)
    with pytest.raises(Refused, match="figures of this site leave in sums alone"):
        ask("federated", "a" * 64, figures([9, 9], [9, 9], [9, 9]), judged(9, 9))
    assert not (tmp_path / "log.jsonl").exists()


def test_what_is_withheld_is_marked_and_explained(tmp_path: Path) -> None:
    """One clinic has few ill patients: its test figures stay, and the page, the card and the tables say so."""
    policy = SitePolicy(release=Release(site_figures=True, smallest_count=8, small_classes="withhold"))
    log = AuditLog(tmp_path / "log.jsonl", None)
    many = {**BINARY, "data": {"dataset": "sample_plugins:Clinics", "options": {"rows": 100}}}
    found, _ = behind_bytes(tmp_path, many, releases=lambda folder: SiteRelease("run-1", folder, lambda: policy, log))
    kept = found["by_site"]["withheld"]["federated"]
    assert set(kept) == {"north", "south", "west"}  # each has a class of fewer than 8 rows in some split
    assert (
        list(found["federated"]["sites"]) == list(found["gain"]["local"]["sites"]) == ["south"]
    )  # and two in test rows
    assert found["partition"]["north"]["test"] == [None, None]
    assert found["partition"]["south"]["test"] == [16, 9]
    assert found["fairness"]["federated"]["accuracy"]["sites"] == 1
    page = build(tmp_path / "run", found).read_text(encoding="utf-8")
    card = model_card(found)
    for text in (page, card):
        assert "north does not tell all of its counts and figures: release.smallest" in text.replace("\\_", "_")
        assert "may give what a single site withholds" in text
    assert "None" not in page.partition('id="sites"')[2].partition('id="training"')[0]
