"""Who was counted: a site's control variate moves with a round if, and only if, the server's did.

The reference is SCAFFOLD by hand (Karimireddy et al. 2020, algorithm 1, option II) for logistic regression in NumPy, with
full batches, so that no random number is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from channels.toy_masks import ToyMasks
from federation.adverse import Fault, scripted
from federation.trials import SITES, Trained, a_job, adverse_engine, data_of, local_engine, plain, trained
from wardround.channels.plain import Plain
from wardround.config.job import Job
from wardround.data.preprocess import Preprocessing
from wardround.store.states import Sites, SiteStates, StateFile
from wardround.types import Arrays, Reply, Request

Vector = NDArray[np.float64]
STEPS, RATE, ROUNDS = 3, 0.1, 4
FAULTS: dict[tuple[int, int, str], set[Fault]] = {
    (0, 0, "site-4"): {"lost", "crash after"},
    (1, 0, "site-1"): {"crash after"},
    (1, 0, "site-2"): {"lost"},
    (1, 0, "site-5"): {"late"},
    (2, 0, "site-1"): {"crash before"},
    (2, 0, "site-3"): {"duplicated", "crash after"},
    (3, 0, "site-4"): {"crash after"},
    (3, 0, "site-5"): {"lost", "crash after"},
}
LOST = {(t, site) for (t, _, site), faults in FAULTS.items() if faults & {"lost", "late", "crash before"}}
COUNTED = [tuple(site for site in SITES if (t, site) not in LOST) for t in range(ROUNDS)]


def scaffold_job(**changes: object) -> Job:
    training = {
        "rounds": ROUNDS, "local_steps": STEPS, "batch_size": 569, "optimizer": {"learning_rate": RATE},
        "dtype": "float64",
    }  # fmt: skip
    return a_job("scaffold", training=training, **changes)


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """Weights (the bias last), c, and c_k of every site."""

    weights: Vector
    variate: Vector
    own: dict[str, Vector]


def by_hand(job: Job, preprocessing: Preprocessing, counted: Sequence[Sequence[str]]) -> ByHand:
    rows: dict[str, tuple[Vector, NDArray[np.int64]]] = {}
    for site, data in data_of(job)[1].items():
        train = data.split == 0
        features = preprocessing.transform(data.features[train])
        rows[site] = np.column_stack([features, np.ones(len(features))]), data.labels[train]
    size = next(iter(rows.values()))[0].shape[1]
    x, c = np.zeros(size), np.zeros(size)
    own = {site: np.zeros(size) for site in SITES}
    for there in counted:
        steps: dict[str, Vector] = {}
        changes: dict[str, Vector] = {}
        for site in there:
            features, labels = rows[site]
            y = x.copy()
            for _ in range(STEPS):
                gradient = features.T @ (1.0 / (1.0 + np.exp(-features @ y)) - labels) / len(labels)
                y -= RATE * (gradient - own[site] + c)
            steps[site] = y - x
            changes[site] = (x - y) / (STEPS * RATE) - c
        total = sum(len(rows[site][1]) for site in there)
        for site in there:
            x = x + steps[site] * len(rows[site][1]) / total
            c = c + changes[site] / len(SITES)
            own[site] = own[site] + changes[site]
    return ByHand(weights=x, variate=c, own=own)


def vector(arrays: Arrays, prefix: str = "") -> Vector:
    return np.concatenate([arrays[f"{prefix}linear.{name}"].reshape(-1).numpy() for name in ("weight", "bias")])


def check(found: Trained, expected: ByHand, tolerance: float) -> None:
    np.testing.assert_allclose(vector(found.outcome.server.model.params), expected.weights, rtol=0, atol=tolerance)
    np.testing.assert_allclose(vector(found.outcome.server.rule, "variate/"), expected.variate, rtol=0, atol=tolerance)
    for site in SITES:
        np.testing.assert_allclose(
            vector(found.states[site], "variate/"), expected.own[site], rtol=0, atol=tolerance, err_msg=site
        )


def adverse(folder: Path, job: Job, given: Preprocessing, states: Callable[[Path, str], SiteStates]) -> Trained:
    engine = adverse_engine(folder / "sites", job, Plain(), plan=scripted(FAULTS), states=states)
    return trained(folder / "run", job, engine, preprocessing=given)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Preprocessing:
    """What every run here standardises with."""
    fitted = plain(tmp_path_factory.mktemp("plain") / "run", a_job(training__rounds=1)).outcome.preprocessing
    assert fitted is not None
    return fitted


def test_one_process_is_scaffold_by_hand(given: Preprocessing, tmp_path: Path) -> None:
    job = scaffold_job()
    found = trained(tmp_path / "run", job, local_engine(job, Plain()), preprocessing=given)
    check(found, by_hand(job, given, [SITES] * ROUNDS), 1e-12)


def test_control_variates_are_those_of_who_was_counted(given: Preprocessing, tmp_path: Path) -> None:
    job = scaffold_job()
    found = adverse(tmp_path, job, given, StateFile)
    assert found.survivors == COUNTED
    check(found, by_hand(job, given, COUNTED), 1e-12)


def test_control_variates_are_those_of_who_was_counted_under_masks(given: Preprocessing, tmp_path: Path) -> None:
    # a site that crashes after `contribute` cannot unmask, so only faults without a crash there keep the round whole
    faults = {call: struck - {"crash after"} for call, struck in FAULTS.items()}
    job = scaffold_job()
    engine = adverse_engine(tmp_path / "sites", job, ToyMasks(), plan=scripted(faults))
    found = trained(tmp_path / "run", job, engine, ToyMasks(), given)
    assert found.survivors == COUNTED
    check(found, by_hand(job, given, COUNTED), 1e-6)


def test_a_part_of_the_sites_each_round_is_counted_the_same(given: Preprocessing, tmp_path: Path) -> None:
    job = scaffold_job(participation={"count": 3})
    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=scripted(FAULTS))
    found = trained(tmp_path / "run", job, engine, preprocessing=given)
    counted = [
        tuple(site for site in record["cohort"] if site not in record["missing"]) for record in found.records[1:]
    ]
    assert len(set(counted)) > 1
    assert any(len(there) < 3 for there in counted)
    check(found, by_hand(job, given, counted), 1e-12)


# What follows shows that the tests above can fail: each store breaks the protocol in one way.


class Hasty(StateFile):
    """Takes every pending state for counted."""

    def settle(self, sites: Sites, counted: Mapping[str, int], current: int, best: int | None = None) -> None:
        # a retried attempt (none here) is all that it would tell apart
        pending = self._round
        super().settle(sites, {self.site: pending} if pending not in (-1, current) else {}, current, best)


class Forgetful(StateFile):
    """Keeps what is pending in memory alone, as far as a crash can tell."""

    def __init__(self, path: Path | str, site: str) -> None:
        (Path(path) / "pending.safetensors").unlink(missing_ok=True)
        super().__init__(path, site)


@pytest.mark.parametrize(
    ("states", "wrong"), [(Hasty, ("site-2", "site-4", "site-5")), (Forgetful, ("site-1", "site-3", "site-4"))]
)
def test_without_the_protocol_control_variates_go_astray(
    states: type[StateFile], wrong: tuple[str, ...], given: Preprocessing, tmp_path: Path
) -> None:
    job = scaffold_job()
    found = adverse(tmp_path, job, given, states)
    expected = by_hand(job, given, COUNTED)
    assert found.survivors == COUNTED
    off = {site: np.abs(vector(found.states[site], "variate/") - expected.own[site]).max() for site in SITES}
    assert all(off[site] > 1e-3 for site in wrong), off
    with pytest.raises(AssertionError):
        check(found, expected, 1e-6)


def test_a_request_of_an_earlier_round_is_not_answered_and_forgets_nothing(tmp_path: Path) -> None:
    """A copy of round 0's request that comes after round 1 was staged must not drop round 1."""
    job = scaffold_job()
    engine = local_engine(job, Plain())
    kept: list[Request] = []
    ask = engine.ask

    def keeping(request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        if request.message.meta.get("task") == "train":
            kept.append(request)
        return ask(request, sites, deadline)

    engine.ask = keeping  # type: ignore[method-assign]
    trained(tmp_path / "run", job, engine)
    host = engine.host
    states = host.states.read(SITES, host.network.initial_state)
    host.states.stage(1, SITES, states)
    assert list(ask(kept[0], SITES, None)) == []
    assert host.states.journal(1, SITES)[0] == tuple(SITES)
    assert len(list(ask(kept[1], SITES, None))) > 0
