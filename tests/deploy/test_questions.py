"""What a site answers of an approved job: what the job's own loop asks, once, over one group of sites."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from deploy.wards import JOB_YAML, POLICY, Wards, Wire, World, make_worlds, model
from wardround.channels import registry as channels
from wardround.channels.exchange import Exchange
from wardround.channels.secagg.site import REVEAL
from wardround.config import load
from wardround.deploy import enrolling
from wardround.deploy.questions import ASKED, Bounds, QuestionRefused, Questions
from wardround.deploy.site_process import Ending
from wardround.errors import QuorumLost, RunError
from wardround.experiment import run_between
from wardround.federation import messages
from wardround.federation.engines.flower.engine import ASK, REPLY, SILENT, STACKED
from wardround.federation.schedule import round_of
from wardround.types import Arrays, Message, Request, Round, Total

Make = Callable[..., World]


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Make]:
    yield from make_worlds(monkeypatch, tmp_path)


def facts(world: World, index: int, max_weight: float = 64.0, cohort: int | None = None) -> Round:
    sites = len(world.sites)
    return round_of(world.job, index, population=sites, cohort=cohort or sites, max_weight=max_weight)


def collected(
    world: World, task: str, round: Round, arrays: Arrays, sites: tuple[str, ...] | None = None, **meta: Any
) -> tuple[Total | None, Wire]:
    """The sum that a coordinator gets over some sites, or None, and what was refused."""
    channel = channels.build(world.job.privacy, sites=len(world.sites), remote=True)
    channel.bind(world.signed.id, None)
    engine = Wire(world)
    request = messages.ask_for(task, round, arrays, {}, **meta, prepared=world.prepared)
    try:
        (total,) = channel.collect(engine, request, sites or world.sites, None, 1)
    except QuorumLost:
        return None, engine
    return total, engine


def judged(world: World, arrays: Arrays, sites: tuple[str, ...] | None = None) -> tuple[Total | None, Wire]:
    """Validation figures at the end of the run, of a model that the coordinator chose."""
    return collected(world, messages.EVALUATE, facts(world, 2), arrays, sites, splits=["validation"])


def prepared(world: World) -> World:
    from wardround.config.job import PreprocessingSpec
    from wardround.data.preprocess import Preprocessing

    columns, zeros = Wards().describe().columns, (0.0, 0.0)
    fitted = Preprocessing(
        columns=columns, spec=PreprocessingSpec(), fill=zeros, gaps=(False, False), mean=zeros, scale=(1.0, 1.0)
    )
    message = Message(stage=messages.PREPARE, meta={"preprocessing": fitted.to_json()})
    for site in world.sites:
        assert world.ask(site, message)[0][0] == REPLY
    world.prepared = messages.digest_of(Request(message=message))
    return world


# -------------------------------------------------------------------------------------------------------- the honest loop

NORMED = "{name: mlp, options: {hidden: [4], norm: batch}}\nalgorithm: {name: fedbn}"
HONEST = {
    "active": {},
    "encrypted": {"{kind: secagg, options: {active: true}}": "{kind: he}"},
    "bare": {"{kind: secagg, options: {active: true}}": "{kind: he, options: {masks: false}}"},
    "some-stays-here": {"{name: logistic}": NORMED},
    "few-a-round": {"quorum: 3": "quorum: 3, count: 3", "rounds: 2": "rounds: 4"},
    "each-alone": {
        "baselines: []": "baselines: [local], every: 2",
        "batch_size: 16": "batch_size: 16, loss: {class_weights: balanced}, optimizer: {name: sgd, learning_rate: 0.1, schedule: "
        "{kind: cosine}}",
    },
}


@pytest.mark.parametrize("what", HONEST)
def test_a_run_is_answered_whole(worlds: Make, tmp_path: Path, what: str) -> None:
    text = JOB_YAML
    for old, new in HONEST[what].items():
        text = text.replace(old, new)
    world = worlds(job=text)
    engine = Wire(world)
    done = run_between(world.job, tmp_path / "run", engine, Wards().describe(), {}, report=False)
    assert done["selected_round"] > 0
    assert engine.refused == []
    assert [world.reasons(site) for site in world.sites] == [[]] * len(world.sites)


class Cut(Wire):
    """A coordinator that hears no answer of a stage in the first attempt of a round, and loses a site then."""

    def __init__(self, world: World, lost: str | None) -> None:
        super().__init__(world)
        self._lost = lost

    def ask(self, request: Any, sites: Any, deadline: float | None) -> Any:
        meta = request.message.meta
        given = meta.get("round") or {}
        mine = (meta.get("task"), given.get("index")) == (messages.TRAIN, 1)
        asked = [site for site in sites if not (mine and given["attempt"] > 0 and site == self._lost)]
        replies = list(super().ask(request, asked, deadline))
        return iter([] if mine and request.message.stage == REVEAL and not given["attempt"] else replies)


def test_a_round_whose_sum_was_lost_is_tried_again_over_the_same_sites(worlds: Make, tmp_path: Path) -> None:
    world = worlds()
    engine = Cut(world, None)
    assert run_between(world.job, tmp_path / "run", engine, Wards().describe(), {}, report=False)["selected_round"] > 0
    assert engine.refused == []


def test_it_is_not_tried_again_over_fewer_unless_the_policies_let_it(worlds: Make, tmp_path: Path) -> None:
    world = worlds()
    engine = Cut(world, "evora")
    with pytest.raises(QuorumLost, match="round 1, after 2 attempts"):
        run_between(world.job, tmp_path / "run", engine, Wards().describe(), {}, report=False)
    assert "what 1 of them sent" in engine.refused[0][2]["cause"]
    assert world.reasons("aachen") == ["difference"]
    world = worlds(policy={**POLICY, "cohort": {"retry_over_fewer": True}})
    engine = Cut(world, "evora")
    assert run_between(world.job, tmp_path / "again", engine, Wards().describe(), {}, report=False)["selected_round"]
    assert engine.refused == []


def test_a_site_that_is_away_for_a_round_is_left_out_of_it(worlds: Make, tmp_path: Path) -> None:
    world = worlds()

    def twist(site: str, message: Message) -> Message | None:
        given = message.meta.get("round") or {}
        away = site == "evora" and given.get("index") == 1 and message.stage == messages.CONTRIBUTE
        return None if away else message

    engine = Wire(world, twist)
    assert run_between(world.job, tmp_path / "run", engine, Wards().describe(), {}, report=False)["selected_round"]
    assert engine.refused == []


# -------------------------------------------------------------------------------------------------------- rounds and models


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"index": 7}, "round"),
        ({"index": 10**9}, "round"),
        ({"index": -1}, "round"),
        ({"attempt": 2}, "round"),
        ({"population": 4}, "round"),
        ({"cohort": 4}, "round"),
        ({"seed": 1}, "round"),
        ({"evaluate": True}, "round"),
        ({"work": {"epochs": 40}}, "round"),
        ({"work": {"epochs": None, "steps": 10**9}}, "round"),
        ({"work": {"batch_size": 1}}, "round"),
        ({"work": {"learning_rate": 1000.0}}, "round"),
        ({"more": 1}, "round"),
        ({"max_weight": 1.0}, "weight"),
        ({"max_weight": 0}, "weight"),
        ({"max_weight": "64"}, "weight"),
    ],
)
def test_a_round_is_that_of_the_approved_job(worlds: Make, change: dict[str, Any], reason: str) -> None:
    world = worlds(sites=("aachen", "basel", "cork"))
    given: dict[str, Any] = asdict(facts(world, 0))
    given = {**given, **change, "work": {**given["work"], **change.get("work", {})}}
    message = Message(stage=messages.CONTRIBUTE, meta={"task": messages.TRAIN, "round": given}, arrays=model())
    ((kind, said),) = world.ask("basel", message)
    assert kind == SILENT
    assert world.reasons("basel") == [reason]
    noted = world.entries("basel", "message-refused")[-1]
    assert (noted["stage"], noted["task"], noted["cause"]) == ("contribute", "train", "QuestionRefused")
    assert any(text in said["cause"] for text in ("approved job", "participation.attempts", "max_weight"))


def test_one_model_is_judged_and_no_other_one(worlds: Make) -> None:
    world = prepared(worlds())
    first, _ = judged(world, model(0.05))
    assert first is not None
    for k in range(3):
        found, engine = judged(world, model(0.1 * k))
        assert found is None
        assert engine.refused[0][1] == messages.CONTRIBUTE
    world.restart("basel")
    _, engine = judged(world, model(0.2))
    assert world.reasons("basel") == ["content"] * 4
    again, engine = judged(world, model(0.05))
    assert engine.refused == []
    assert again is not None
    assert torch.equal(again.sums["validation"]["positives"], first.sums["validation"]["positives"])
    for splits in (["train", "validation", "test"], ["test"]):
        found, _ = collected(world, messages.EVALUATE, facts(world, 2), model(0.05), splits=splits)
        assert found is None


def test_a_bound_of_weights_is_one_for_the_run(worlds: Make) -> None:
    world = prepared(worlds())
    assert judged(world, model())[0] is not None
    found, _ = collected(world, messages.TRAIN, facts(world, 0, max_weight=1e30), model())
    assert found is None
    assert world.reasons("cork") == ["weight"]
    world.restart("cork")
    for bound in (128.0, 64.5):
        collected(world, messages.TRAIN, facts(world, 0, max_weight=bound), model())
    assert world.reasons("cork")[1:] == ["weight", "weight"]


def test_a_site_that_the_round_does_not_ask_stays_silent(worlds: Make) -> None:
    world = prepared(worlds(job=JOB_YAML.replace("quorum: 3", "quorum: 3, count: 3")))
    found, _ = collected(world, messages.TRAIN, facts(world, 0, cohort=3), model())
    assert found is not None
    assert len(found.survivors) == 3
    assert sorted(world.reasons(site)[:1] for site in world.sites) == [[], [], [], ["cohort"], ["cohort"]]


def test_tasks_of_another_job_are_not_answered(worlds: Make) -> None:
    world = prepared(worlds(sites=("aachen", "basel", "cork")))
    given = asdict(facts(world, 0))
    for meta, stage in (
        ({"task": messages.CLASSES, "round": given}, messages.CONTRIBUTE),
        ({"task": "everything", "round": given}, messages.CONTRIBUTE),
        ({"task": messages.TRAIN, "round": given, "arm": "local"}, messages.CONTRIBUTE),
        ({"split": "train"}, messages.RELEASE),
    ):
        ((kind, _),) = world.ask("basel", Message(stage=stage, meta=meta, arrays=model()))
        assert kind == SILENT
    assert world.reasons("basel") == ["task", "task", "task", "rows"]
    ((kind, _),) = world.ask("basel", Message(stage=messages.PREPARE, meta={"preprocessing": None}))
    assert (kind, world.reasons("basel")[-1]) == (SILENT, "content")


# -------------------------------------------------------------------------------------------------------- members of a sum


def test_a_sum_has_as_many_members_as_the_policy_wants(worlds: Make) -> None:
    strict = {**POLICY, "cohort": {"minimum_sites": 5, "minimum_quorum": 5}}
    world = prepared(worlds(job=JOB_YAML.replace("quorum: 3", "quorum: 5"), policy=strict))
    assert judged(world, model(), world.sites[:4])[0] is None
    assert judged(world, model(), world.sites[:3])[0] is None
    assert judged(world, model())[0] is not None


@pytest.mark.parametrize("channel", ["{kind: secagg, options: {active: true}}", "{kind: secagg}", "{kind: he}"])
def test_the_difference_of_two_sums_is_not_one_site(worlds: Make, channel: str) -> None:
    world = prepared(worlds(job=JOB_YAML.replace("{kind: secagg, options: {active: true}}", channel)))
    whole, _ = judged(world, model(0.05))
    assert whole is not None
    assert len(whole.survivors) == 5
    for site in world.sites:
        world.restart(site)
    for others in (world.sites[:4], world.sites[1:], world.sites[:3]):
        found, engine = judged(world, model(0.05), others)
        assert found is None
        assert any("the difference of both sums" in str(said) for _, _, said in engine.refused)
    assert set(world.reasons("cork")) == {"difference"}
    assert judged(world, model(0.05))[0] is not None


def questions(folder: Path, sites: int, **changes: Any) -> Questions:
    folder.mkdir(exist_ok=True)
    (folder / "job.yaml").write_text(JOB_YAML.replace("dataset: wards", "dataset: heart"))
    bounds = Bounds(least=3, apart=3, groups=1, most=2, over_fewer=False)
    return Questions(
        folder, load(folder / "job.yaml", []), site="s0", sites=[f"s{k}" for k in range(sites)], rows=60,
        tasks=messages.TASKS, bounds=replace(bounds, **changes),
    )  # fmt: skip


def reveal(ledger: Questions, names: list[int], index: int = 0, part: Any = "values") -> None:
    given = asdict(round_of(ledger._job, index, population=9, cohort=9, max_weight=64.0))
    exchange = Exchange.fresh(run="r", task=messages.TRAIN, round=given, part=part)
    said = {"survivors": {"0": [f"s{k}" for k in names]}}
    meta = {"task": messages.TRAIN, "round": given, "exchange": exchange.to_meta(), "masks": said}
    ledger.admit(Message(stage=REVEAL, meta=meta))


def test_two_groups_far_apart_are_answered_and_a_third_is_not(tmp_path: Path) -> None:
    ledger = questions(tmp_path, 9)
    reveal(ledger, [*range(9)])
    reveal(ledger, [*range(9)])
    with pytest.raises(QuestionRefused, match="what 2 of them sent"):
        reveal(ledger, [*range(7)])
    reveal(ledger, [*range(6)])
    again = questions(tmp_path, 9)
    reveal(again, [*range(6)])
    # over 0-8, 0-5 and 0, 6, 7 each difference is of three or more, and all three together tell of 8 alone
    with pytest.raises(QuestionRefused, match="over 2 groups of sites before"):
        reveal(again, [0, 6, 7])
    reveal(again, [*range(7)], part="measure")
    reveal(again, [*range(7)], index=1)


def test_a_sum_names_this_site_and_sites_of_the_job_once(tmp_path: Path) -> None:
    ledger = questions(tmp_path, 9)
    for names in ([1, 2, 3, 4], [0, 1, 1, 2], [0, 1, 99], [0, 1], []):
        with pytest.raises(QuestionRefused) as caught:
            reveal(ledger, names)
        assert caught.value.reason == "members"
    assert not (tmp_path / ASKED).exists() or '"sum"' not in (tmp_path / ASKED).read_text()


def test_what_was_asked_outlives_a_cut_line_and_no_damage(tmp_path: Path) -> None:
    reveal(questions(tmp_path, 9), [*range(9)])
    path = tmp_path / ASKED
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"sum": "train/0", "mem')
    with pytest.raises(QuestionRefused, match="what 1 of them sent"):
        reveal(questions(tmp_path, 9), [*range(8)])
    assert path.read_bytes() == whole
    path.write_bytes(b"x" + whole)
    with pytest.raises(RunError, match="is damaged"):
        questions(tmp_path, 9)


# -------------------------------------------------------------------------------------------------------- approval, all the time


def test_who_is_revoked_in_a_run_is_trusted_no_longer(worlds: Make) -> None:
    for name in ("dr-smith", "cork"):
        world = prepared(worlds())
        enrolling.revoke_here(world.parties.sites["aachen"].path, name)
        found, engine = judged(world, model())
        assert found is None or "aachen" not in found.survivors
        assert engine.refused[0][0] == "aachen"
        assert name in str(engine.refused[0][2])
        assert world.processes["aachen"]._active is None
        assert world.entries("aachen", "job-refused")[-1]["job"] == world.signed.id


def test_rows_are_counted_when_they_are_used(worlds: Make) -> None:
    world = worlds()
    Wards.rows = 8
    ((kind, said),) = world.ask("aachen", Message(stage=messages.ENROL))
    assert kind == SILENT
    assert "this site has fewer" in said["cause"]
    Wards.rows = 100
    ((kind, _),) = world.ask("aachen", Message(stage=messages.ENROL))
    assert kind == STACKED


def opens_soon(world: World, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that is closed, and open after some seconds."""
    from wardround.deploy.policy import Schedule

    opens = datetime.now(UTC) + timedelta(seconds=seconds)
    monkeypatch.setattr(Schedule, "is_open", lambda self, moment: moment >= opens)
    monkeypatch.setattr(world.processes["aachen"]._stopping, "wait", lambda seconds: threading.Event().wait(0.05))


def test_a_denial_counts_while_a_request_waits_for_its_hours(worlds: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = worlds(sites=("aachen", "basel", "cork"))
    assert world.ask("aachen", Message(stage=messages.ENROL))[0][0] == STACKED
    opens_soon(world, 1.0, monkeypatch)
    deny = threading.Timer(0.3, lambda: world.parties.sites["aachen"].approvals().deny(world.signed.id))
    deny.start()
    ((kind, said),) = world.ask("aachen", Message(stage=messages.ENROL))
    deny.join()
    assert kind == SILENT
    assert "denied" in said["cause"]


def test_a_site_that_is_to_stop_answers_nothing_more(worlds: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = worlds(sites=("aachen", "basel", "cork"))
    opens_soon(world, 3600.0, monkeypatch)
    stop = threading.Timer(0.3, world.processes["aachen"]._stopping.set)
    stop.start()
    with pytest.raises(Ending):
        world.ask("aachen", Message(stage=messages.ENROL))
    stop.join()


def test_a_changed_policy_is_that_of_the_host_once_it_is_approved(worlds: Make) -> None:
    world = worlds(sites=("aachen", "basel", "cork"))
    world.ask("aachen", Message(stage=messages.ENROL))
    before = world.processes["aachen"]._active
    world.allow({**POLICY, "limits": {"rounds": 5, "local_epochs": 1, "seconds_a_task": 60}}, "aachen")
    ((kind, said),) = world.ask("aachen", Message(stage=messages.ENROL))
    assert kind == SILENT
    assert "holds no longer" in said["cause"]
    assert world.offer("aachen")["status"] == "approved"
    assert world.ask("aachen", Message(stage=messages.ENROL))[0][0] == STACKED
    assert world.processes["aachen"]._active is not before


# -------------------------------------------------------------------------------------------------------- the log, and pairs


def test_facts_go_with_the_request_that_they_came_with(worlds: Make) -> None:
    world = worlds(sites=("aachen", "basel", "cork"))
    enrol, prepare = Message(stage=messages.ENROL), Message(stage=messages.PREPARE, meta={"preprocessing": None})
    facts_one, ask_one = world.pair("aachen", enrol, {"counted": 0})
    facts_two, ask_two = world.pair("aachen", prepare, {"counted": 7})
    for items in ([facts_one, ask_two], [facts_two, ask_one]):
        ((kind, said),) = world.raw("aachen", items)
        assert (kind, "those of another request" in said["cause"]) == ("refused", True)
    assert world.reasons("aachen") == ["pair", "pair"]
    bare = [world.item("aachen", "facts", b"{}"), world.pair("aachen", enrol)[1]]
    assert world.raw("aachen", bare)[0][0] == "refused"


def test_the_log_says_what_was_asked_and_answered(worlds: Make) -> None:
    world = prepared(worlds())
    judged(world, model())
    for kind in ("message-received", "message-sent"):
        noted = [entry for entry in world.entries("delft", kind) if "stage" in entry]
        assert [entry["stage"] for entry in noted] == [
            "prepare", "mask-keys", "mask-shares", "contribute", "mask-check", "mask-reveal",
        ]  # fmt: skip
        assert [(entry.get("task"), entry.get("round")) for entry in noted] == [(None, None), *[("evaluate", 2)] * 5]
    asks = [entry for entry in world.entries("delft", "message-received") if entry["what"] == ASK]
    assert len(asks) == 6
    assert not {"preprocessing", "splits"} & set(json.dumps(asks))
