"""Figures by hospital between real processes: those of one process that holds all records, as far as each policy lets them go."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from deploy.hospitals import POLICY, SITES, Hospitals, needs_flower, until
from wardround import config
from wardround.deploy import canonical
from wardround.experiment import run

pytestmark = [pytest.mark.slow, needs_flower]

EXAMPLE = Path(__file__).parents[2] / "examples" / "heart.yaml"
ASKED = ("evaluation.site_figures=true", "evaluation.baselines=[local]", "evaluation.bootstrap=100")
SHORT = ("training.rounds=5", "training.local_steps=10")


def exact(folder: Path, *overrides: str) -> dict[str, Any]:
    """The same job in one process, which hands all row scores to its own report."""
    job = config.load(EXAMPLE, ["evaluation.baselines=[local]", "evaluation.bootstrap=100", *overrides])
    return run(job, folder, report=False)


def result(hospitals: Hospitals, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((hospitals.run_folder(name) / "result.json").read_text())
    return found


def assert_same_sites(found: dict[str, Any], wanted: dict[str, Any], sites: tuple[str, ...] = SITES) -> None:
    blocks = [(found[name], wanted[name]) for name in ("federated", "local", "majority") if name in found]
    blocks += [(found["gain"][name], wanted["gain"][name]) for name in found["gain"]]
    for mine, theirs in blocks:
        assert set(mine["sites"]) == set(sites)
        for site in sites:
            assert mine["sites"][site] == pytest.approx(theirs["sites"][site], abs=1e-6)


@pytest.mark.parametrize("channel", ["plain", pytest.param("secagg", marks=pytest.mark.long)])
def test_hospitals_say_what_one_process_computes(hospitals: Hospitals, tmp_path: Path, channel: str) -> None:
    more = (
        (f"privacy.channel.kind={channel}", "participation.quorum=3", "model.local=[]") if channel == "secagg" else ()
    )
    name = hospitals.submit(EXAMPLE, overrides=(*ASKED, *SHORT, *more))
    assert hospitals.outcome(name, 240)["status"] == "done"
    found, wanted = result(hospitals, name), exact(tmp_path / "exact", *SHORT, *more[2:])
    assert found["selected_round"] == wanted["selected_round"]
    if channel == "plain":
        assert_same_sites(found, wanted)
        for key in ("worst", "spread", "deviation"):
            over = wanted["fairness"]["federated"]["auroc"]
            assert found["fairness"]["federated"]["auroc"][key] == pytest.approx(over[key], abs=1e-6)
        sided = {k: v for k, v in wanted["fairness"]["gain"]["local"]["accuracy"].items() if isinstance(v, int)}
        assert {k: found["fairness"]["gain"]["local"]["accuracy"][k] for k in sided} == sided
    else:  # values of an update travel in 16 bits; what sites train alone does not travel
        for site in SITES:
            assert found["local"]["sites"][site] == pytest.approx(wanted["local"]["sites"][site], abs=1e-6)
            assert found["federated"]["sites"][site]["accuracy"] == pytest.approx(
                wanted["federated"]["sites"][site]["accuracy"], abs=0.05
            )
    assert found["partition"] == wanted["partition"]
    assert found["by_site"]["withheld"] == {"federated": {}, "local": {}}


def test_each_release_is_in_the_log_of_its_site(hospitals: Hospitals) -> None:
    until(lambda: hospitals.status()["run"] is None, 30, "the last run's end is told")
    for site in SITES:
        for run_id in {entry["run"] for entry in hospitals.entries(site, "figures-released")}:
            noted = [entry for entry in hospitals.entries(site, "figures-released") if entry["run"] == run_id]
            assert [entry["what"] for entry in noted] == ["federated", "local"]
            found = result(hospitals, run_id)
            told = {
                "counts": found["partition"][site], "rows": found["rows"][site], "withheld": "", "gain": {},
                "figures": found["federated"]["sites"][site], "majority": found["majority"]["sites"][site],
            }  # fmt: skip
            sent = canonical.encode(told)
            assert (noted[0]["digest"], noted[0]["bytes"]) == (hashlib.sha256(sent).hexdigest(), len(sent))


def test_models_that_hospitals_train_alone_stay_in_their_folders(hospitals: Hospitals) -> None:
    run_id = hospitals.entries("va", "figures-released")[0]["run"]
    assert list((hospitals.folder / "va" / "runs" / run_id / "further" / "local" / "state").glob("*.safetensors"))
    checkpoints = list((hospitals.run_folder(run_id) / "baselines" / "local").rglob("*.safetensors"))
    assert checkpoints
    assert all(path.stat().st_size < 1000 for path in checkpoints)  # a server without a shared parameter
    rounds = [entry for entry in hospitals.entries("coordinator", "round") if entry["run"] == run_id]
    assert [entry["round"] for entry in rounds if entry.get("what") == "local"] == [0, 1, 2, 3, 4]
    assert [entry["round"] for entry in rounds if "what" not in entry] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"release": {"site_figures": False}, "privacy": {}}, "release.site_figures is false"),
        ({"release": {"site_figures": True, "smallest_count": 10}, "privacy": {}}, "a class has fewer rows in a split"),
        ({"allow": {**POLICY["allow"], "baselines": []}}, "allow.baselines has none"),
    ],
)
def test_a_site_that_keeps_its_figures_refuses_before_anything_trains(
    hospitals: Hospitals, changes: dict[str, Any], words: str
) -> None:
    hospitals.allow("switzerland", **changes)
    try:
        name = hospitals.submit(
            EXAMPLE, overrides=(*ASKED, *SHORT, "privacy.channel.kind=secagg", "participation.quorum=3")
        )
        found = hospitals.outcome(name, 120)
    finally:
        hospitals.allow("switzerland")
    assert found["status"] == "failed"
    assert "switzerland" in found["cause"]
    assert words in found["cause"]
    assert not (hospitals.run_folder(name) / "journal.jsonl").exists()


@pytest.mark.long
def test_a_site_that_withholds_takes_part_and_is_marked(hospitals: Hospitals, tmp_path: Path) -> None:
    """Switzerland has 2 healthy patients among its test rows."""
    release = {"site_figures": True, "smallest_count": 10, "small_classes": "withhold"}
    hospitals.allow("switzerland", release=release)
    try:
        name = hospitals.submit(
            EXAMPLE,
            overrides=(*ASKED[::2], *SHORT, "model.local=[]", "privacy.channel.kind=secagg", "participation.quorum=3"),
        )
        assert hospitals.outcome(name, 240)["status"] == "done"
    finally:
        hospitals.allow("switzerland")
    found = result(hospitals, name)
    assert set(found["federated"]["sites"]) == {*SITES} - {"switzerland"}
    assert "smallest_count is 10" in found["by_site"]["withheld"]["federated"]["switzerland"]
    assert found["partition"]["switzerland"]["test"] == [None, None]
    wanted = exact(tmp_path / "exact", *SHORT, "model.local=[]", "evaluation.baselines=[]")
    others = [site for site in SITES if site != "switzerland"]
    assert {site: found["partition"][site] for site in others} == {site: wanted["partition"][site] for site in others}


@pytest.mark.long
def test_a_coordinator_killed_while_sites_train_alone_goes_on(hospitals: Hospitals, tmp_path: Path) -> None:
    more = ("training.rounds=6", "training.local_steps=10", "seed=5")
    name = hospitals.submit(EXAMPLE, overrides=(*ASKED, *more))
    until(
        lambda: [e for e in hospitals.entries("coordinator", "round") if e["run"] == name and e.get("what") == "local"],
        120, "sites train alone",
    )  # fmt: skip
    hospitals.kill("coordinator")
    hospitals.kill("va")
    hospitals.start("coordinator", "va")
    assert hospitals.outcome(name, 240)["status"] == "done"
    assert_same_sites(result(hospitals, name), exact(tmp_path / "exact", *more))
