"""What cannot run ends with a clear error, the right exit code, and no run folder in the way of the mended job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

LEAN = ("--no-report", "-s", "evaluation.baselines=[]", "-s", "evaluation.bootstrap=0")

WRONG = {
    # settings -> exit code, words of the message
    "unknown key, with the nearest": (("training.rouds=5",), 2, ("'training.rouds'", "'training.rounds'")),
    "unknown key, nested": (
        ("data.preprocessing.standardise=site",),
        2,
        ("'data.preprocessing.standardise'", "'data.preprocessing.standardize'"),
    ),
    "key at the wrong level": (("batch_size=8",), 2, ("'batch_size'", "'training.batch_size'")),
    "key at two other levels": (
        ("learning_rate=1",),
        2,
        ("'algorithm.server.learning_rate' or 'training.optimizer.learning_rate'",),
    ),
    "alpha of zero": (("partition.alpha=0",), 2, ("partition.alpha = 0", "greater than 0")),
    "alpha below zero": (("partition.alpha=-1",), 2, ("partition.alpha = -1", "greater than 0")),
    "a choice of either kind": (("engine.chunk=none",), 2, ("engine.chunk = 'none'", "integer", "'auto'")),
    "more sites than patients": (
        ("partition.sites=600", "partition.kind=iid"),
        3,
        ("partition.sites = 600", "569 patients"),
    ),
    "more rows than there are": (("partition.min_rows=200",), 3, ("min_rows = 200", "569")),
    "unknown dataset": (("data.dataset=wbdc",), 2, ("'wbdc'", "did you mean 'wdbc'")),
    "unknown model": (("model.name=logstic",), 2, ("'logstic'", "did you mean 'logistic'")),
    "unknown algorithm": (("algorithm.name=fedprx",), 2, ("'fedprx'", "did you mean 'fedprox'")),
    "unknown server": (("algorithm.server.name=adem",), 2, ("'adem'", "did you mean 'adam'")),
    "unknown rule": (("aggregation.rule=meen",), 2, ("'meen'", "did you mean 'mean'")),
    "unknown channel": (("privacy.channel.kind=plane",), 2, ("'plane'", "did you mean 'plain'")),
    "unknown engine": (("engine.kind=locale",), 2, ("'locale'", "did you mean 'local'")),
    "no such module": (("model.name=no_such_module:Net",), 2, ("no_such_module", "cannot be imported", "PYTHONPATH")),
    "no such class": (("model.name=sample_plugins:Net",), 2, ("'sample_plugins' has no 'Net'",)),
    "half a plug-in": (("model.name=:Net",), 2, ("'module:Class'",)),
    "options that do not fit a dataset": (
        ("data.dataset=sample_plugins:Clinics", "data.options={rowz: 3}"),
        2,
        ("rowz", "do not fit"),
    ),
    "options that do not fit a model": (("model.options={hidden: [3]}",), 2, ("hidden", "do not fit")),
    "options that do not fit a rule": (("algorithm.options={rho: 3}",), 2, ("rho", "do not fit")),
    "SCAFFOLD with Adam": (("algorithm.name=scaffold", "training.optimizer.name=adam"), 2, ("scaffold", "adam", "sgd")),
    "FedBN without BatchNorm": (("algorithm.name=fedbn",), 2, ("fedbn", "norm: batch")),
    "steps and epochs": (
        ("training={local_steps: 2, local_epochs: 3}",),
        2,
        ("local_steps=2", "local_epochs=3", "exclude"),
    ),
    "momentum with Adam": (("training.optimizer={name: adam, momentum: 0.9}",), 2, ("momentum=0.9", "sgd")),
    "mu with FedAvg": (("algorithm.mu=0.1",), 2, ("algorithm.mu", "fedprox")),
    "hospitals that are not there": (("partition.kind=natural",), 2, ("wdbc", "iid or dirichlet")),
    "no such device": (("engine.device=cuda:99",), 2, ("'cuda:99'", "not available", "cpu")),
    "a device that is none": (("engine.device=gpu",), 2, ("'gpu'", "not available")),
    "a device without numbers": (("engine.device=meta",), 2, ("'meta'", "not available")),
    "a pattern that matches nothing": (("model.local=[head.bias]",), 2, ("'head.bias'", "linear.bias")),
    "quorum above the sites": (("participation.quorum=6",), 2, ("quorum = 6", "5 of 5 sites")),
    "quorum above those asked": (
        ("participation.quorum=4", "participation.fraction=0.6"),
        2,
        ("quorum = 4", "3 of 5 sites"),
    ),
    "more asked than there are": (("participation.count=6",), 2, ("participation.count = 6", "5 sites")),
    "a threshold of three classes": (
        (
            *("data.dataset=sample_plugins:Clinics", "data.options={classes: 3}", "partition.kind=natural"),
            "evaluation.threshold={sensitivity: 0.9}",
        ),
        2,
        ("evaluation.threshold", "two classes", "has 3"),
    ),
    "one class": (
        ("data.dataset=sample_plugins:Clinics", "data.options={classes: 1}", "partition.kind=natural"),
        3,
        ("1 classes", "two or more"),
    ),
    "two operating points": (
        ("evaluation.threshold={sensitivity: 0.9, specificity: 0.9}",),
        2,
        ("evaluation.threshold", "exactly one"),
    ),
    "a target of nothing": (("evaluation.target={metric: auroc}",), 2, ("evaluation.target", "exactly one")),
    "a fraction of a loss": (("evaluation.target={metric: loss, fraction: 0.9}",), 2, ("evaluation.target", "loss")),
    "a fraction of a model that is not trained": (
        ("evaluation.target={fraction: 0.9}", "evaluation.baselines=[local]"),
        2,
        ("evaluation.target", "centralized"),
    ),
    "gaps without a rule": (
        (
            *("data.dataset=sample_plugins:Clinics", "partition.kind=natural"),
            "data.preprocessing.impute=none",
        ),
        3,
        ("marker", "impute"),
    ),
    "batches of one row under BatchNorm": (
        ("model={name: mlp, options: {norm: batch}}", "training.batch_size=1"),
        2,
        ("training.batch_size = 1", "BatchNorm"),
    ),
    "a site of one row under BatchNorm": (
        (
            *("model={name: mlp, options: {norm: batch}}", "partition={kind: iid, sites: 284, min_rows: 1}"),
            "data.split={test: 0.5, validation: 0.0}",
        ),
        3,
        ("one training row", "BatchNorm"),
    ),
    "no test rows": (("data.split.test=0.0",), 3, ("no test rows", "data.split.test = 0.0")),
    "a model of three logits": (("model={name: mlp, options: {outputs: 3}}",), 2, ("3 logits", "2 classes")),
    "a rule without its members": (("algorithm.name=builtins:object",), 2, ("'builtins:object'", "correct", "finish")),
    "a bound below the rows": (("aggregation.max_weight=10",), 2, ("max_weight = 10", "site-")),
    "records that cannot be merged": (
        ("engine.kind=sample_plugins:Apart", "evaluation.baselines=[centralized]"),
        5,
        ("evaluation.baselines", "sample_plugins:Apart"),
    ),
    "--set without a value": (("training.rounds",), 2, ("KEY=VALUE",)),
    "--set that is not YAML": (("training.rounds=[",), 2, ("--set training.rounds", "not YAML")),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_run(case: str, job: Path, tmp_path: Path, wardround: Any) -> None:
    settings, code, words = WRONG[case]
    out = tmp_path / "run"
    ended = wardround("run", job, "--out", out, *LEAN, *(part for s in settings for part in ("--set", s)))
    assert ended.code == code, ended.err
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err
    for word in words:
        assert word in ended.err
    assert not out.exists()


TEXTS = {
    "a key twice": ("name: a\ntraining:\n  rounds: 1\n  rounds: 2\n", ("line 4", "'rounds' is given twice")),
    "not YAML": ("name: [a\ntraining: 1\n", ("job.yaml, line 2", "not YAML")),
    "a list": ("- name: a\n", ("a mapping", "list")),
    "a date that is none": ("name: 2020-13-01\n", ("job.yaml", "month")),
    "a list as a key": ("? [a]\n: 1\n", ("job.yaml, line 1", "not YAML")),
    "a number as a key": ("3: 1\n", ("3", "strings")),
    "an empty section": ("data:\n", ("data = None", "keys and values")),
    "text for a list": ("model: {local: head}\n", ("model.local = 'head'", "a list")),
    "a name with a slash": ("name: a/b\n", ("name = 'a/b'", "letters")),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_file_that_is_no_job(case: str, tmp_path: Path, wardround: Any) -> None:
    text, words = TEXTS[case]
    (tmp_path / "job.yaml").write_text(text)
    ended = wardround("run", tmp_path / "job.yaml", "--out", tmp_path / "run")
    assert ended.code == 2
    assert "Traceback" not in ended.err
    for word in words:
        assert word in ended.err


def test_there_is_no_file(tmp_path: Path, wardround: Any) -> None:
    ended = wardround("run", tmp_path / "jub.yaml")
    assert ended.code == 2
    assert "jub.yaml" in ended.err


def test_a_plug_in_that_fails_while_it_is_imported(
    job: Path, tmp_path: Path, wardround: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_plugin.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    ended = wardround("run", job, "--out", tmp_path / "run", "-s", "model.name=broken_plugin:Net")
    assert ended.code == 2
    assert "broken_plugin" in ended.err
    assert "SyntaxError" in ended.err


def test_an_error_is_an_object_too(job: Path, tmp_path: Path, wardround: Any) -> None:
    ended = wardround("run", job, "--out", tmp_path / "run", "--json", "-s", "partition.sites=600")
    assert ended.code == 3
    last = ended.events()[-1]
    assert (last["event"], last["kind"], last["exit_code"]) == ("error", "DataError", 3)
    assert last["message"] in ended.err


def test_a_usage_error_ends_with_2(wardround: Any) -> None:
    assert wardround("run").code == 2
    assert wardround("rnu").code == 2
    assert wardround("run", "job.yaml", "--owt", "x").code == 2


def test_a_defect_is_told_as_one(job: Path, tmp_path: Path, wardround: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **named: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr("wardround.experiment.partition", broken)
    ended = wardround("run", job, "--out", tmp_path / "run")
    assert ended.code == 70
    assert "nobody thought of this" in ended.err
    assert "please report" in ended.err


# ------------------------------------------------------------------------------------------------------- records


def test_the_data_folder_is_not_named(job: Path, tmp_path: Path, wardround: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("WARDROUND_DATA", raising=False)
    heart = ("run", job, "--out", tmp_path / "run", "-s", "data.dataset=heart", "-s", "partition.kind=natural")
    unset = wardround(*heart)
    assert unset.code == 3
    assert "WARDROUND_DATA is not set" in unset.err
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path / "nowhere"))
    wrong = wardround(*heart)
    assert wrong.code == 3
    assert str(tmp_path / "nowhere") in wrong.err
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))
    empty = wardround(*heart)
    assert empty.code == 3
    assert "processed.cleveland.data" in empty.err


def test_a_label_column_is_missing(job: Path, tmp_path: Path, wardround: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))
    (tmp_path / "uci_heart").mkdir()
    row = "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0"
    (tmp_path / "uci_heart/processed.cleveland.data").write_text(f"{row},0\n{row}\n")
    ended = wardround("run", job, "--out", tmp_path / "run", "-s", "data.dataset=heart", "-s", "partition.kind=natural")
    assert ended.code == 3
    for word in ("processed.cleveland.data, line 2", "13 columns, expected 14", "num"):
        assert word in ended.err


# ------------------------------------------------------------------------------------------------------- sites that fail


def test_a_site_with_non_finite_updates_is_left_out_and_named(job: Path, tmp_path: Path, wardround: Any) -> None:
    out = tmp_path / "run"
    ended = wardround("run", job, "--out", out, *LEAN, "-s", "algorithm.name=sample_plugins:Poisoned")
    assert ended.code == 0
    for k in (1, 2, 3):
        assert f"federated, round {k}: site-1 left out: a non-finite value in step/linear.weight" in ended.err
    result = json.loads((out / "result.json").read_text())
    for entry in result["history"]["federated"]:
        assert set(entry["abstained"]) == {"site-1"}
        assert (entry["survivors"], entry["cohort"]) == (4, 5)
    assert result["federated"]["pooled"]["accuracy"] > 0.5


def test_with_every_site_left_out_the_quorum_is_lost(job: Path, tmp_path: Path, wardround: Any) -> None:
    out = tmp_path / "run"
    poison = ("-s", "algorithm={name: 'sample_plugins:Poisoned', options: {places: [0, 1, 2, 3, 4]}}")
    ended = wardround("run", job, "--out", out, *LEAN, *poison)
    assert ended.code == 4
    for word in ("0 of 5 sites", "quorum is 2", "site-5: a non-finite value", "learning rate"):
        assert word in ended.err
    assert not out.exists(), "nothing was trained, so the mended job may have the same folder"


def test_with_too_few_left_the_quorum_is_lost(job: Path, tmp_path: Path, wardround: Any) -> None:
    quorum = ("-s", "participation.quorum=5", "-s", "algorithm.name=sample_plugins:Poisoned")
    ended = wardround("run", job, "--out", tmp_path / "run", *LEAN, *quorum)
    assert ended.code == 4
    assert "4 of 5 sites" in ended.err
    assert "after 3 attempts" in ended.err


def test_an_engine_apart_runs_without_the_merged_baseline(job: Path, tmp_path: Path, wardround: Any) -> None:
    apart = ("-s", "engine.kind=sample_plugins:Apart", "-s", "evaluation.baselines=[local]")
    ended = wardround("run", job, "--out", tmp_path / "run", "--no-report", *apart)
    assert ended.code == 0, ended.err
    assert "centralized" not in json.loads((tmp_path / "run/result.json").read_text())


# ------------------------------------------------------------------------------------------------------- run folders


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that lost its quorum in the third round of five: two rounds are committed."""
    from wardround import Job, run
    from wardround.errors import QuorumLost

    out = tmp_path_factory.mktemp("stopped") / "run"
    tree = {
        "partition": {"kind": "iid", "sites": 3},
        "training": {"rounds": 5, "local_steps": 2},
        "evaluation": {"bootstrap": 0, "baselines": ()},
        "engine": {"threads": 1},
    }

    def stop(event: Any) -> None:
        if event["event"] == "round" and event["round"] == 1:
            raise QuorumLost("stopped by the test")

    with pytest.raises(QuorumLost):
        run(Job.model_validate(tree), out, report=False, listener=stop)
    return out


@pytest.fixture
def folder(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


@pytest.mark.parametrize("damage", ["truncated", "altered", "removed"])
def test_a_damaged_checkpoint_is_named(folder: Path, damage: str, wardround: Any) -> None:
    newest = max((folder / "checkpoints").glob("server-*.safetensors"))
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "altered":
        content[-1] ^= 1
        newest.write_bytes(content)
    else:
        newest.unlink()
    ended = wardround("resume", folder)
    assert ended.code == 6
    assert newest.name in ended.err
    assert "Traceback" not in ended.err


def test_an_edited_job_is_shown(folder: Path, wardround: Any) -> None:
    recorded = folder / "job.yaml"
    recorded.write_text(recorded.read_text().replace("rounds: 5", "rounds: 9"))
    ended = wardround("resume", folder)
    assert ended.code == 6
    assert "job.yaml" in ended.err
    assert "training.rounds: 5 -> 9" in ended.err


def test_resume_with_another_job_shows_the_difference(folder: Path, tmp_path: Path, wardround: Any) -> None:
    shutil.copy(folder / "job.yaml", tmp_path / "same.yaml")
    other = tmp_path / "other.yaml"
    other.write_text((folder / "job.yaml").read_text().replace("rounds: 5", "rounds: 6").replace("seed: 0", "seed: 1"))
    ended = wardround("resume", folder, "--config", other)
    assert ended.code == 6
    assert "training.rounds: 5 -> 6" in ended.err
    assert "seed: 0 -> 1" in ended.err
    assert wardround("resume", folder, "--config", tmp_path / "same.yaml", "--no-report").code == 0


def test_resume_under_other_facts_is_refused(folder: Path, wardround: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from wardround.federation.records import Records

    monkeypatch.setattr(Records, "fingerprint", lambda self: "other records")
    ended = wardround("resume", folder)
    assert ended.code == 6
    assert "data: " in ended.err
    assert "other records" in ended.err


def test_an_edited_journal_is_found(folder: Path, wardround: Any) -> None:
    journal = folder / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"train_loss":0.', '"train_loss":1.', 1))
    ended = wardround("resume", folder)
    assert ended.code == 6
    assert "journal.jsonl, line 2" in ended.err


def test_there_is_nothing_to_resume_or_report(folder: Path, tmp_path: Path, wardround: Any) -> None:
    for command in ("resume", "report"):
        ended = wardround(command, tmp_path / "nothing")
        assert ended.code == 6
        assert "holds no run" in ended.err
    unfinished = wardround("report", folder)
    assert unfinished.code == 6
    assert f"wardround resume {folder}" in unfinished.err


def test_a_folder_that_cannot_be_made(job: Path, tmp_path: Path, wardround: Any) -> None:
    (tmp_path / "file").write_text("")
    ended = wardround("run", job, "--out", tmp_path / "file/run", *LEAN)
    assert ended.code == 8
    assert str(tmp_path / "file") in ended.err
    itself = wardround("run", job, "--out", tmp_path / "file", *LEAN)
    assert itself.code == 8
