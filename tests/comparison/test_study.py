"""A comparison on real runs: resumed, in processes, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wardround import compare, load
from wardround.comparison import study, trial
from wardround.config.job import Job
from wardround.errors import ConfigError

WDBC = Path(__file__).parents[2] / "examples" / "wdbc.yaml"
ASKED: dict[str, Any] = {"algorithms": ("fedavg", "fedprox"), "alphas": ("iid", "0.5"), "seeds": 2, "budget": 2}


def job(*overrides: str) -> Job:
    return load(WDBC, ["training.rounds=2", "partition.sites=3", *overrides])


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("comparison") / "whole"
    return out, compare(job(), out, **ASKED)


def test_it_writes_page_tables_and_figures(whole: tuple[Path, dict[str, Any]]) -> None:
    out, result = whole
    assert {p.name for p in out.iterdir()} == {
        "comparison.json", "comparison.html", "comparison.md", "comparison.csv", "figures", "trials"
    }  # fmt: skip
    assert {p.name for p in (out / "figures").iterdir()} == {"methods.png", "convergence.png"}
    assert json.loads((out / "comparison.json").read_text()) == json.loads(json.dumps(result))
    page = (out / "comparison.html").read_text()
    assert all(line.replace("'", "&#39;") in page for line in result["sentences"])
    assert result["methods"] == ["fedavg", "fedprox", "centralized", "local"]
    assert all(0.8 < result["table"][s]["fedavg"]["test"]["auroc"]["value"] <= 1.0 for s in ("IID", "alpha 0.5"))


def test_it_repeats_nothing(whole: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    out, result = whole

    def never(*given: Any) -> None:
        raise AssertionError(f"trained again: {given}")

    monkeypatch.setattr(trial, "execute", never)
    assert compare(job(), out, **ASKED) == result


def test_a_killed_one_goes_on_and_ends_alike(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    execute, done = trial.execute, []

    def dies(*given: Any) -> Any:
        if len(done) == 7:
            raise Killed
        done.append(execute(*given))
        return done[-1]

    monkeypatch.setattr(trial, "execute", dies)
    with pytest.raises(Killed):
        compare(job(), tmp_path / "cut", **ASKED)
    assert not (tmp_path / "cut" / "comparison.json").exists()
    again: list[Any] = []
    monkeypatch.setattr(trial, "execute", lambda *given: again.append(given) or execute(*given))
    found = compare(job(), tmp_path / "cut", **ASKED)
    assert len(again) == 2 * 2 * 4 * 2 - 7
    assert timeless(found) == timeless(whole[1])


def test_a_wider_question_trains_only_what_is_new(
    whole: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, result = whole
    trained: list[Any] = []
    execute = trial.execute
    monkeypatch.setattr(trial, "execute", lambda one, *rest: trained.append(one) or execute(one, *rest))
    wider = compare(job(), out, **{**ASKED, "seeds": 3})
    assert {one.seed for one in trained} == {2}
    assert [c for c in wider["cells"] if c["seed"] < 2] == result["cells"]


def test_other_settings_of_the_job_are_other_trials(
    whole: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Any] = []
    execute = trial.execute
    monkeypatch.setattr(trial, "execute", lambda one, *rest: trained.append(one) or execute(one, *rest))
    compare(job("training.batch_size=8"), whole[0], **{**ASKED, "alphas": ("iid",), "budget": 1})
    assert len(trained) == 2 * 4


def test_a_plug_in_that_was_edited_is_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from wardround.algorithms.fedavg import FedAvg\n\n\nclass Mine(FedAvg):\n    name = 'mine'\n"
    (tmp_path / "edited_rule.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    asked: dict[str, Any] = {"algorithms": ("edited_rule:Mine",), "seeds": 2, "budget": 1, "baselines": ()}
    compare(job(), tmp_path / "out", **asked)
    trained: list[Any] = []
    execute = trial.execute
    monkeypatch.setattr(trial, "execute", lambda one, *rest: trained.append(one) or execute(one, *rest))
    compare(job(), tmp_path / "out", **asked)
    assert trained == []
    (tmp_path / "edited_rule.py").write_text(source + "    # another version\n")
    compare(job(), tmp_path / "out", **asked)
    assert len(trained) == 2


def test_processes_give_the_same_figures(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    found = compare(job(), tmp_path / "two", **ASKED, jobs=2)
    assert timeless(found) == timeless(whole[1])


def test_a_method_that_the_job_cannot_have_is_left_out_and_named(tmp_path: Path) -> None:
    result = compare(job(), tmp_path / "out", algorithms=("fedavg", "fedbn"), seeds=2, budget=1, baselines=())
    assert result["methods"] == ["fedavg"]
    assert "BatchNorm" in result["refused"]["fedbn"]
    with pytest.raises(ConfigError, match=r"no method could be trained: fedbn: .*BatchNorm"):
        compare(job(), tmp_path / "none", algorithms=("fedbn",), seeds=2, budget=1, baselines=())


def test_a_run_that_another_process_still_writes_is_left_alone(tmp_path: Path) -> None:
    from wardround.comparison.plan import plan
    from wardround.store.run import Run

    one = plan(job(), algorithms=("fedavg",), seeds=2, budget=1, baselines=()).trials()[0]
    folder, work = tmp_path / "trials", tmp_path / "unfinished"
    folder.mkdir()
    work.mkdir()
    with Run.create(work / trial.key(one), one.job, {"versions": {}}) as held:
        record = trial.execute(one, folder, work)
        assert held.completed is None
        assert (held.path / "run.json").exists()
    assert record["validation"]["auroc"] > 0.5


def test_one_that_diverges_is_a_record(tmp_path: Path) -> None:
    wild = job("training.optimizer.learning_rate=1e30", "model.name=mlp")
    asked = study.plan(wild, algorithms=("fedavg",), seeds=2, budget=1, baselines=())
    folder, work = tmp_path / "trials", tmp_path / "unfinished"
    folder.mkdir()
    work.mkdir()
    record = trial.execute(asked.trials()[0], folder, work)
    assert "failed" in record
    assert list(work.iterdir()) == []


def test_channels_are_compared_with_the_plain_one(tmp_path: Path) -> None:
    asked = {"algorithms": ("fedavg",), "channels": ("plain", "secagg"), "seeds": 2, "budget": 1, "baselines": ()}
    result = compare(job(), tmp_path / "out", **asked)
    [setting] = result["settings"]
    facts = result["channels"][setting]
    assert facts["fedavg"]["minus_plain"] is None
    assert facts["fedavg+secagg"]["largest"] < 0.002
    rows = result["table"][setting]
    assert rows["fedavg+secagg"]["bytes_up"] > rows["fedavg"]["bytes_up"] > 0
    assert "FedAvg, secagg" in (tmp_path / "out" / "comparison.md").read_text()
    assert (tmp_path / "out" / "figures" / "channels.png").stat().st_size > 5000
