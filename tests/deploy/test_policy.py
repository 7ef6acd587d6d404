"""A site's policy: what is not allowed is refused, by key, value and what is wanted; a job can only be stricter."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from wardround.config.job import Job
from wardround.config.load import from_mapping
from wardround.deploy.policy import KNOWN, TEMPLATE, Asked, Facts, Release, Schedule, SitePolicy, Verdict, read_policy
from wardround.deploy.project import strict_from
from wardround.errors import ConfigError

SITES = ("budapest", "cleveland", "zurich", "basel")
FACTS = Facts(rows=200, classes={"healthy": 150, "ill": 90})
POLICY: dict[str, Any] = {
    "data": {"heart": {"dataset": "custom", "options": {"folder": "/data/heart"}, "from_job": ["seed"]}},
    "allow": {"submitters": ["dr-smith"], "models": ["logistic", "mlp"], "algorithms": ["fedavg", "scaffold"]},
}
JOB: dict[str, Any] = {
    "data": {"dataset": "heart"},
    "participation": {"quorum": 3},
    "privacy": {"channel": {"kind": "secagg"}},
    "evaluation": {"baselines": []},
}


def policy(**changes: Any) -> SitePolicy:
    return strict_from({**POLICY, **changes}, SitePolicy, "site.yaml")


def job(**changes: Any) -> Job:
    return from_mapping({**JOB, **changes})


def judged(
    given: Job | None = None, rules: SitePolicy | None = None, facts: Facts | None = FACTS, **asked: Any
) -> Verdict:
    surroundings = {"submitter": "dr-smith", "sites": SITES, "plugins": {}, **asked}
    return (rules or policy()).judge(given or job(), facts, Asked(**surroundings))


def test_a_job_within_the_policy_is_allowed_and_made_the_sites_own() -> None:
    asked = job(
        engine={"device": "cuda:1", "threads": 64, "workers": 8, "compile": True},
        data={"dataset": "heart", "options": {"seed": 3}},
    )
    verdict = judged(asked)
    assert verdict.reasons == []
    assert verdict.allowed
    own = verdict.tightened
    assert own is not None
    assert own.data.dataset == "custom"
    assert own.data.options == {"folder": "/data/heart", "seed": 3}
    assert (own.engine.device, own.engine.threads, own.engine.workers, own.engine.compile) == ("cpu", 1, 1, False)
    assert own.engine.executor == "sequential"
    assert own.evaluation.release_scores is False
    # what the federation computes together is as it was asked
    for part in ("model", "algorithm", "training", "participation", "aggregation", "privacy", "seed"):
        assert getattr(own, part) == getattr(asked, part)


@pytest.mark.parametrize(
    ("given", "key", "wanted"),
    [
        ({"data": {"dataset": "wdbc"}}, "data.dataset = 'wdbc'", "data binds heart"),
        ({"data": {"dataset": "heart", "options": {"folder": "/etc"}}}, "'/etc'", "from_job has seed"),
        ({"partition": {"kind": "iid"}}, "partition.kind = 'iid'", "natural"),
        ({"partition": {"features": {"noise": 1.0}}}, "partition.features", "leave it out"),
        ({"model": {"name": "cnn"}}, "model.name = 'cnn'", "allow.models has logistic, mlp"),
        ({"model": {"pretrained": "imagenet"}}, "model.pretrained = 'imagenet'", "weights has no such file"),
        ({"model": {"pretrained": {"weights": "/x.pth"}}}, "model.pretrained = '/x.pth'", "weights has no such file"),
        ({"algorithm": {"name": "fedbn"}}, "algorithm.name = 'fedbn'", "allow.algorithms"),
        ({"algorithm": {"server": {"name": "adam"}}}, "algorithm.server.name = 'adam'", "allow.servers has average"),
        ({"privacy": {"channel": {"kind": "plain"}}}, "privacy.channel.kind = 'plain'", "privacy.hiding_channel wants"),
        ({"training": {"rounds": 201}}, "training.rounds = 201", "limits.rounds is 200"),
        ({"training": {"local_epochs": [1, 21]}}, "training.local_epochs = 21", "limits.local_epochs is 20"),
        ({"training": {"local_steps": 10_001}}, "training.local_steps = 10001", "limits.local_steps is 10000"),
        ({"finetuning": {"epochs": 21}}, "finetuning.epochs = 21", "limits.finetuning_epochs is 20"),
        ({"participation": {"quorum": 2}}, "participation.quorum = 2", "cohort.minimum_quorum is 3"),
        ({"participation": {}}, "participation.quorum = 2", "cohort.minimum_quorum is 3"),
        ({"participation": {"quorum": 3, "fraction": 0.5}}, "2 of 4 asked", "cohort.minimum_sites is 3"),
        ({"participation": {"quorum": 3, "count": 2}}, "2 of 4 asked", "cohort.minimum_sites is 3"),
        ({"participation": {"quorum": 3, "count": 50}}, "participation.count = 50", "at most 4"),
        ({"participation": {"quorum": 50}}, "participation.quorum = 50", "at most 4"),
        ({"evaluation": {"held_out": ["cleveland", "budapest"]}}, "2 of 2 asked", "cohort.minimum_sites is 3"),
        ({"privacy": {"channel": {"kind": "secagg", "options": {"groups": 2}}}}, "4 of 4 asked in 2", "minimum_sites is 3"),
        ({"privacy": {"channel": {"kind": "secagg", "options": {"groups": 0}}}}, "asked in 0", "minimum_sites is 3"),
        ({"evaluation": {"baselines": [], "release_scores": True}}, "release_scores = True", "release.row_scores is false"),
        ({"evaluation": {"baselines": [], "maps": 4}}, "evaluation.maps = 4", "stay here"),
        ({"evaluation": {"baselines": ["centralized"]}}, "evaluation.baselines", "records are not merged"),
    ],
)  # fmt: skip
def test_a_job_below_the_floor_is_refused_by_key_value_and_what_is_wanted(
    given: dict[str, Any], key: str, wanted: str
) -> None:
    verdict = judged(job(**given))
    assert not verdict.allowed
    assert verdict.tightened is None
    assert [reason for reason in verdict.reasons if key in reason and wanted in reason], verdict.reasons


def test_who_and_with_whom_matters() -> None:
    assert "submitter = 'mallory'" in judged(submitter="mallory").reasons[0]
    assert "1 of 1 asked" in judged(sites=("zurich",), rules=policy(cohort={"minimum_quorum": 1})).reasons[0]
    assert "2 of 2 asked" in judged(sites=("zurich", "basel", "basel")).reasons[0]
    peers = policy(allow={**POLICY["allow"], "peers": ["budapest", "cleveland", "zurich"]})
    assert judged(rules=peers).reasons == ["sites = 'basel': allow.peers has budapest, cleveland, zurich"]


def test_too_few_or_unknown_rows_are_refused_without_telling_how_many() -> None:
    (reason,) = judged(facts=Facts(rows=37, classes={})).reasons
    assert "cohort.minimum_rows is 50" in reason
    assert "37" not in reason
    (reason,) = judged(facts=Facts(rows=9, classes={}), rules=policy(cohort={"minimum_rows": 1})).reasons
    assert "release.smallest_count is 10" in reason
    (reason,) = judged(facts=None).reasons
    assert "were not counted" in reason


def test_a_site_may_ask_for_more_of_its_channel() -> None:
    active = policy(privacy={"channel_options": {"active": True}})
    assert "privacy.channel_options wants active: True" in judged(rules=active).reasons[0]
    given = job(privacy={"channel": {"kind": "secagg", "options": {"active": True}}})
    assert judged(given, active).allowed
    noisy = policy(privacy={"differential_privacy": True})
    assert "privacy.dp = None" in judged(rules=noisy).reasons[0]


def test_the_plain_channel_needs_three_words_from_the_site() -> None:
    plain = job(privacy={"channel": {"kind": "plain"}})
    allow = {**POLICY["allow"], "channels": ["plain"]}
    open_ = {
        "allow": allow,
        "privacy": {"hiding_channel": False},
        "release": {"site_figures": True, "smallest_count": 1},
    }
    assert judged(plain, policy(**open_)).allowed
    for withheld in (
        {"allow": POLICY["allow"]},
        {"privacy": {}},
        {"release": {"site_figures": False, "smallest_count": 1}},
        {"release": {"site_figures": True}},
    ):
        assert not judged(plain, policy(**{**open_, **withheld})).allowed


def test_a_plug_in_channel_is_not_believed_to_hide(tmp_path: Path) -> None:
    (tmp_path / "hospital_channel.py").write_text("")
    digest = _hash(b"")
    rules = policy(
        allow={**POLICY["allow"], "channels": ["hospital_channel:Hiding"]}, plugins={"hospital_channel:Hiding": digest}
    )
    given = job(privacy={"channel": {"kind": "hospital_channel:Hiding"}})
    verdict = judged(given, rules, plugins={"hospital_channel:Hiding": digest}, folder=tmp_path)
    assert all("privacy.channel.kind" in reason for reason in verdict.reasons)
    assert not verdict.allowed


# -------------------------------------------------------------------------------------------------------- plug-ins


def test_code_is_the_file_that_the_administrator_approved(tmp_path: Path) -> None:
    name, code = "hospital_nets:Deep", b"class Deep: pass\n"
    (tmp_path / "hospital_nets.py").write_bytes(code)
    rules = policy(allow={**POLICY["allow"], "models": [name]}, plugins={name: _hash(code)})
    given = job(model={"name": name})
    assert judged(given, rules, plugins={name: _hash(code)}, folder=tmp_path).allowed
    assert "the job means None" in judged(given, rules, folder=tmp_path).reasons[0]
    assert "the job means 0000" in judged(given, rules, plugins={name: "0" * 64}, folder=tmp_path).reasons[0]
    assert "here lies None" in judged(given, rules, plugins={name: _hash(code)}).reasons[0]
    (tmp_path / "hospital_nets.py").write_bytes(code + b"import os\n")
    assert "here lies" in judged(given, rules, plugins={name: _hash(code)}, folder=tmp_path).reasons[0]
    unapproved = policy(allow={**POLICY["allow"], "models": [name]})
    assert "has not approved it" in judged(given, unapproved, plugins={name: _hash(code)}, folder=tmp_path).reasons[0]


@pytest.mark.parametrize(
    "given",
    [
        {"model": {"name": "os:system"}},
        {"model": {"options": {"block": "subprocess:run"}}},
        {"algorithm": {"name": "wardround.store.atomic:remove_tree", "options": {"path": "/"}}},
        {"algorithm": {"server": {"name": "builtins:exec"}}},
        {"aggregation": {"rule": "shutil:rmtree"}},
        {"engine": {"kind": "evil:Engine"}},
        {"partition": {"features": {"effect": "evil:Effect"}}},
        {"privacy": {"channel": {"kind": "secagg", "options": {"carrier": "evil:Carrier"}}}},
    ],
)
def test_a_name_that_would_be_imported_is_refused_wherever_it_stands(given: dict[str, Any]) -> None:
    verdict = judged(job(**given))
    assert [reason for reason in verdict.reasons if "has not approved it" in reason]


def test_the_sites_own_dataset_plugin_must_be_the_approved_file_too(tmp_path: Path) -> None:
    name, code = "hospital_data:Heart", b"class Heart: pass\n"
    data = {"heart": {"dataset": name}}
    with pytest.raises(ConfigError, match="not under plugins"):
        policy(data=data)
    rules = policy(data=data, plugins={name: _hash(code)})
    assert not judged(rules=rules, folder=tmp_path).allowed
    (tmp_path / "hospital_data.py").write_bytes(code)
    assert judged(rules=rules, folder=tmp_path).allowed


def test_pretrained_weights_are_known_by_their_hash() -> None:
    given = job(model={"pretrained": {"weights": "/weights/a.safetensors", "sha256": "ab" * 32}})
    assert not judged(given).allowed
    assert judged(given, policy(weights=["ab" * 32])).allowed


# ----------------------------------------------------------------------------------------------------- fail closed


def test_every_key_of_a_job_is_one_that_the_policy_was_written_for() -> None:
    known = {
        key: frozenset(value) if isinstance(value, dict) else frozenset() for key, value in Job().model_dump().items()
    }
    assert known == dict(KNOWN), "a key was added to the job: decide what the policy says of it, then add it here"


def test_a_key_that_the_policy_does_not_know_refuses_every_job(monkeypatch: pytest.MonkeyPatch) -> None:
    from wardround.deploy import policy as module

    monkeypatch.setattr(module, "KNOWN", {**KNOWN, "training": KNOWN["training"] - {"rounds"}})
    assert "training.rounds" in judged().reasons[0]
    monkeypatch.setattr(module, "KNOWN", {key: value for key, value in KNOWN.items() if key != "finetuning"})
    assert "finetuning" in judged().reasons[0]


def test_the_template_allows_nothing(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(TEMPLATE)
    rules = read_policy(tmp_path / "site.yaml")
    assert rules == SitePolicy()
    assert not judged(rules=rules).allowed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected keys and values"),
        ("alow: {}", "unknown key 'alow'"),
        ("allow: {modles: []}", "unknown key 'allow.modles'"),
        ("allow: {models: logistic}", "allow.models = 'logistic'"),
        ("privacy: {hiding_channel: 'no'}", "privacy.hiding_channel"),
        ("cohort: {minimum_sites: '3'}", "cohort.minimum_sites"),
        ("cohort: {minimum_sites: 0}", "cohort.minimum_sites"),
        ("release: {smallest_count: -1}", "release.smallest_count"),
        ("limits: {rounds: 1.5}", "limits.rounds"),
        ("plugins: {'os.path:join': x}", "64 hexadecimal"),
        ("weights: [x]", "64 hexadecimal"),
        ("schedule: {hours: '20-6'}", "20:00-06:00"),
        ("schedule: {hours: '20:00-20:00'}", "20:00-06:00"),
        ("schedule: {timezone: Mars/Olympus}", "no such time zone"),
        ("schedule: {days: []}", "at least one day"),
        ("approval: {auto: [{name: a, submitters: []}]}", "submitters"),
        ("approval: {auto: [{name: a, submitters: [x]}, {name: a, submitters: [y]}]}", "two rules of one name"),
        ("approval: {auto: [{name: 'A B', submitters: [x]}]}", "expected a-z"),
        ("allow: {}\nallow: {}", "given twice"),
        ("allow: [", "not YAML"),
        ("!!python/object/apply:os.system [touch ran]", "not YAML"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_policy(tmp_path / "site.yaml")


def test_an_absent_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        read_policy(tmp_path / "site.yaml")


def test_the_digest_is_of_what_the_policy_says_not_of_its_text(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("# a comment\n" + yaml.safe_dump(POLICY))
    assert read_policy(path).digest == policy().digest
    assert policy(cohort={"minimum_rows": 51}).digest != policy().digest


# ------------------------------------------------------------------------------------- figures, schedule, limits


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 40)), st.integers(1, 15))
def test_small_counts_do_not_leave_nor_can_be_had_by_subtraction(counts: dict[str, int], smallest: int) -> None:
    shown = Release(smallest_count=smallest).suppressed(counts)
    hidden = [name for name, count in shown.items() if count is None]
    assert all(count is None or count == 0 or count >= smallest for count in shown.values())
    assert all(shown[name] in (None, counts[name]) for name in counts)
    if len(hidden) == 1:  # then nothing else is there to hide it among
        assert all(counts[name] == 0 for name in counts if name not in hidden)


def test_counts_that_are_large_enough_are_told() -> None:
    assert Release().suppressed({"healthy": 150, "ill": 10, "none": 0}) == {"healthy": 150, "ill": 10, "none": 0}
    assert Release().suppressed({"healthy": 150, "ill": 9, "other": 20}) == {"healthy": 150, "ill": None, "other": None}


def test_a_window_over_midnight_belongs_to_the_day_it_begins_on() -> None:
    night = Schedule(days=["fri"], hours="20:00-06:00", timezone="Europe/Vienna")
    friday = datetime(2026, 3, 6, tzinfo=UTC)  # Vienna is one hour ahead
    assert not night.is_open(friday + timedelta(hours=18, minutes=59))
    assert night.is_open(friday + timedelta(hours=19))
    assert night.is_open(friday + timedelta(hours=28, minutes=59))
    assert not night.is_open(friday + timedelta(hours=29))
    assert not night.is_open(friday + timedelta(hours=1))  # the night from Thursday
    assert night.next_open(friday) == friday + timedelta(hours=19)
    assert night.next_open(friday + timedelta(hours=20)) == friday + timedelta(hours=20)
    assert night.next_open(friday + timedelta(hours=29)) == friday + timedelta(days=7, hours=19)


def test_a_window_within_a_day_and_whole_days() -> None:
    monday = datetime(2026, 3, 2, tzinfo=UTC)
    work = Schedule(days=["mon"], hours="08:00-17:00")
    assert [work.is_open(monday + timedelta(hours=h)) for h in (7, 8, 16, 17)] == [False, True, True, False]
    assert not work.is_open(monday + timedelta(days=1, hours=9))
    assert Schedule().is_open(monday)
    assert not Schedule(days=["tue"]).is_open(monday)
    assert Schedule(days=["tue"]).next_open(monday) == monday + timedelta(days=1)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA bounds allocations on Linux")
def test_memory_is_bounded_and_no_core_is_dumped() -> None:
    code = (
        "import resource\nfrom wardround.deploy.policy import Limits, apply_limits\n"
        "assert apply_limits(Limits(memory_megabytes=400)) == []\n"
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)\n"
        "small = bytearray(50_000_000)\n"
        "try:\n    bytearray(600_000_000)\nexcept MemoryError:\n    print('bounded')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "bounded"), done.stderr


def _hash(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_a_job_names_no_file_of_a_site() -> None:
    rules = policy(data={"heart": {"dataset": "custom", "options": {"path": "/data"}, "from_job": ["schema"]}})
    content = {"label": "ill", "columns": []}
    allowed = judged(job(data={"dataset": "heart", "options": {"schema": content}}), rules)
    assert allowed.allowed, allowed.reasons
    refused = judged(job(data={"dataset": "heart", "options": {"schema": "/etc/passwd"}}), rules)
    assert not refused.allowed
    assert "/etc/passwd" in refused.reasons[0]
    assert "a job names no file of this site" in refused.reasons[0]


# ------------------------------------------------------------------------------------- figures of this site alone

SPLIT = {"train": (90, 60), "validation": (30, 20), "test": (30, 10)}
TOLD: dict[str, Any] = {"evaluation": {"baselines": [], "site_figures": True}}


def counted(**splits: tuple[int, ...]) -> Facts:
    return Facts(rows=150, classes={"healthy": 150, "ill": 90}, splits={**SPLIT, **splits})


def test_a_job_that_asks_for_figures_of_this_site_is_refused_by_default() -> None:
    (reason,) = judged(job(**TOLD), facts=counted()).reasons
    assert reason.startswith("evaluation.site_figures = True: release.site_figures is false")
    assert judged(job(**TOLD), policy(release={"site_figures": True}), counted()).allowed
    assert judged(job(), facts=counted()).allowed


def test_a_site_whose_small_counts_could_be_subtracted_refuses_without_telling_them() -> None:
    open_ = policy(release={"site_figures": True})
    for split in SPLIT:
        (reason,) = judged(job(**TOLD), open_, counted(**{split: (30, 7)})).reasons
        assert "release.smallest_count is 10" in reason
        assert "7" not in reason
        assert judged(job(**TOLD), open_, counted(**{split: (30, 0)})).allowed
    (reason,) = judged(job(**TOLD), open_).reasons  # rows by split are not known
    assert "were not counted" in reason
    knowing = policy(release={"site_figures": True, "small_classes": "withhold"})
    assert judged(job(**TOLD), knowing, counted(test=(30, 7))).allowed
    every = policy(release={"site_figures": True, "smallest_count": 1})
    assert judged(job(**TOLD), every, counted(test=(30, 1))).allowed


def test_a_model_of_this_site_alone_is_trained_where_the_policy_says_so() -> None:
    asked = job(evaluation={"baselines": ["local"]})
    assert judged(asked).reasons == ["evaluation.baselines = 'local': allow.baselines has none"]
    verdict = judged(asked, policy(allow={**POLICY["allow"], "baselines": ["local"]}))
    assert verdict.allowed
    assert verdict.tightened is not None
    assert verdict.tightened.evaluation.baselines == ("local",)


def test_a_review_says_what_of_this_site_alone_leaves() -> None:
    from wardround.deploy.approval import _leaves

    asked = job(evaluation={"baselines": ["local"], "site_figures": True})
    allow = {**POLICY["allow"], "baselines": ["local"]}
    rules = policy(allow=allow, release={"site_figures": True, "small_classes": "withhold"})
    told = _leaves(asked, judged(asked, rules, counted()))
    assert "and of the one that it trains alone" in told[0]
    assert "AUROC" in told[1]
    assert len(told) == 2
    few = " ".join(_leaves(asked, judged(asked, rules, counted(test=(30, 7)))))
    assert "no figure on test rows: a class has fewer than 10" in few
    assert "THE SUM OF ALL SITES" in few
    assert _leaves(job(), judged(job(), rules, counted())) == []
