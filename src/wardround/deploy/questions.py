"""What a coordinator may ask of this site in a run: what the approved job says, with one content, over one group of sites.

A site holds the job that was signed, so it can tell what the rounds of an honest coordinator ask. Before anything is answered, a
request is compared with that; and what was answered is kept in the run's folder, for two answers can tell what one does not:

- A question with another content (another model in the same round) is another look at the same records.
- The same question over other sites tells, by difference, what the sites between the two groups sent.

`asked.jsonl` has a line for each content that was taken and each group of sites for which a sum was let be opened. Masks and
ciphertexts hide a contribution until a site helps to open the sum, so it is then that the group counts. A retry, a repetition, a
coordinator that begins again and a site that begins again ask the same of the same sites, which is no second question.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wardround import streams
from wardround.channels.exchange import EXCHANGE, PART_VALUES, exchange_of
from wardround.channels.he.stages import REVEAL as OPEN
from wardround.channels.secagg.directory import KEY
from wardround.channels.secagg.site import REVEAL
from wardround.config.job import Job
from wardround.deploy.policy import HIDING, SitePolicy
from wardround.errors import MessageError, Refused, RunError
from wardround.federation import messages
from wardround.federation.schedule import CLASSES_INDEX, cohort_of, round_of
from wardround.store import atomic
from wardround.types import SPLITS, Json, Message

ASKED = "asked.jsonl"
LEAST_SITES = 3
"""Of a sum of two, each knows the other's part, and so it is with a difference of two sums."""
_MEANT = ("task", "splits", messages.BEST, messages.SELECTED)
"""Members of a request's meta that say, beside the round and the arrays, what is asked."""
_WEIGHED = (messages.TRAIN, messages.EVALUATE, messages.OVERLAY)
_RATE = 1e-9
"""Relative difference of learning rates that two machines' mathematics may have."""


class QuestionRefused(Refused):
    """A request that the approved job does not give.

    Attributes:
        reason: one word for the audit log: `task`, `round`, `cohort`, `weight`, `content`, `members`, `difference`, `rows`.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the site's policy and the job say of sums.

    Attributes:
        least: fewest sites of a sum that is opened; 0 where the channel hides nothing, and no sum has members to check.
        apart: fewest sites in which two groups may differ that answer the same question.
        groups: into how many groups the channel divides sites.
        most: groups of sites that may answer one question.
        over_fewer: whether they may differ in fewer than `apart`.
    """

    least: int
    apart: int
    groups: int
    most: int
    over_fewer: bool

    @classmethod
    def of(cls, policy: SitePolicy, job: Job) -> Bounds:
        """Those of a job under a policy."""
        cohort, channel = policy.cohort, job.privacy.channel
        groups = channel.options.get("groups", 1)
        apart = max(cohort.minimum_sites, LEAST_SITES)
        # with several groups the quorum is counted over all of them, of which a site sees its own
        least = apart if groups != 1 else max(apart, cohort.minimum_quorum, job.participation.quorum or 0)
        return cls(
            least=least if channel.kind in HIDING else 0, apart=apart, groups=groups,
            most=job.participation.attempts if cohort.retry_over_fewer else 2, over_fewer=cohort.retry_over_fewer,
        )  # fmt: skip


class Questions:
    """What may be asked of one model of a run, and what was.

    Args:
        folder: of the model at this site.
        job: what its loop follows.
        site: this one.
        sites: all of the signed job.
        rows: training rows here.
        tasks: additive tasks that the model's loop has.
        bounds: of sums.
    """

    def __init__(
        self, folder: Path, job: Job, *, site: str, sites: Collection[str], rows: int, tasks: Collection[str],
        bounds: Bounds,
    ) -> None:  # fmt: skip
        self._path, self._job, self._site = folder / ASKED, job, site
        self._sites, self._rows, self._tasks, self._bounds = tuple(sorted(sites)), rows, tasks, bounds
        self._keys = streams.site_keys(self._sites)
        self._contents: dict[str, Json] = {}
        self._groups: dict[str, list[frozenset[str]]] = {}
        self._read()

    def admit(self, message: Message) -> None:
        """Take a request, as the model's site reads it, that is about to be answered; it is on the disk when this returns.

        Raises:
            QuestionRefused: the approved job does not ask this, or not once more.
            MessageError: it has not the form of a request.
            StorageError: it cannot be kept.
        """
        stage, meta = message.stage, message.meta
        if stage == messages.RELEASE:
            raise QuestionRefused(
                "rows", "scores of single rows leave no hospital, and no coordinator's loop asks for them"
            )
        if stage == messages.PREPARE:
            self._keep(
                "prepare", _digest(message, {name: meta.get(name) for name in ("preprocessing", "class_weights")})
            )
        if stage in (messages.ENROL, messages.PREPARE, messages.FIGURES):
            return  # what figures may be asked for, and how often, is judged where they leave
        asked = self._round(meta)
        members = self._members(stage, meta, asked)
        if stage == messages.CONTRIBUTE:
            self._content(message)
        elif members is not None:
            self._opened(meta, members)

    # ------------------------------------------------------------------------------------------------ what the job says

    def _round(self, meta: Mapping[str, Json]) -> tuple[str, ...]:
        """The sites that the job asks in the round of a request, whose facts are those that follow from the job."""
        task: Any = meta.get("task")
        given: Any = meta.get("round")
        if task not in self._tasks:
            raise QuestionRefused("task", f"the approved job has no task {task!r:.80}")
        if not isinstance(given, dict) or type(given.get("index")) is not int:
            raise MessageError("a request names no round: server and site differ in their version")
        index, rounds = given["index"], self._job.training.rounds
        lowest, highest = {
            messages.STATISTICS: (-2 * len(self._sites) - 2, -1),  # a turn loses a site, or is the last
            messages.CLASSES: (CLASSES_INDEX, CLASSES_INDEX),
            messages.TRAIN: (0, rounds - 1),
            messages.EVALUATE: (rounds, rounds + 1),
            messages.OVERLAY: (rounds, rounds),
        }[task]
        if not lowest <= index <= highest:
            raise QuestionRefused(
                "round", f"{task} is asked for in round {index}, and the approved job has {lowest} to {highest}"
            )
        asked = self._sites
        if task == messages.TRAIN:
            asked = cohort_of(self._job, self._sites, self._keys, index)
        if self._site not in asked:
            raise QuestionRefused("cohort", f"round {index} of the approved job does not ask {self._site}")
        self._facts(given, index, len(asked))
        if task in _WEIGHED:
            self._weight(given["max_weight"])
        self._exchange(meta, given)
        return asked

    def _facts(self, given: Mapping[str, Json], index: int, cohort: int) -> None:
        weight: Any = given.get("max_weight")
        attempt: Any = given.get("attempt")
        if type(weight) not in (int, float) or not math.isfinite(weight) or weight <= 0:
            raise QuestionRefused("weight", f"max_weight is {weight!r:.80}, expected a finite number above 0")
        if type(attempt) is not int or not 0 <= attempt < self._job.participation.attempts:
            raise QuestionRefused(
                "round",
                f"attempt {attempt!r:.80} of a round, and participation.attempts is {self._job.participation.attempts}",
            )
        found = round_of(self._job, index, population=len(self._sites), cohort=cohort, max_weight=weight)
        expected = json.loads(json.dumps(asdict(replace(found, attempt=attempt))))
        for name, here, there in _pairs(expected, given):
            if not _alike(name, here, there):
                raise QuestionRefused(
                    "round", f"round {index} has {name} = {there!r:.80}, and the approved job says {here!r:.80}"
                )

    def _weight(self, given: float) -> None:
        said = self._job.aggregation.max_weight
        if said is not None and given != said:
            raise QuestionRefused("weight", f"max_weight is {given:g}, and the approved job says {said:g}")
        if given < self._rows:
            raise QuestionRefused("weight", f"max_weight is {given:g}, below the training rows of this site")
        self._keep("max_weight", float(given), reason="weight")

    def _exchange(self, meta: Mapping[str, Json], given: Mapping[str, Json]) -> None:
        if EXCHANGE not in meta:
            if self._bounds.least:
                raise MessageError("a request of a channel that hides names no exchange")
            return
        exchange = exchange_of(Message(stage="any", meta=meta))
        said = (exchange.task, exchange.index, exchange.attempt)
        if said != (meta["task"], given["index"], given["attempt"]):
            raise QuestionRefused("round", f"the exchange {said!r:.200} is not that of the round that it comes with")

    # ------------------------------------------------------------------------------------------------ what was asked

    def _content(self, message: Message) -> None:
        meta = message.meta
        task, index = meta["task"], meta["round"]["index"]
        arrays = set(message.arrays)
        if task == messages.EVALUATE:
            expected = ["validation"] if index == self._job.training.rounds else [*SPLITS]
            if meta.get("splits") != expected:
                raise QuestionRefused("content", f"evaluate asks in round {index} for {meta.get('splits')!r:.80}")
        elif task == messages.STATISTICS and arrays != (set() if index % 2 == 0 else {"mean"}):
            raise QuestionRefused("content", f"statistics in round {index} come with {sorted(arrays)!r:.80}")
        elif task in (messages.CLASSES, messages.OVERLAY) and arrays:
            raise QuestionRefused("content", f"{task} comes with {sorted(arrays)!r:.80}, expected nothing")
        said = {name: meta[name] for name in _MEANT if name in meta}
        facts = {name: value for name, value in meta["round"].items() if name != "attempt"}
        self._keep(f"{task}/{index}", _digest(message, {**said, "round": facts}))

    def _members(self, stage: str, meta: Mapping[str, Json], asked: Sequence[str]) -> frozenset[str] | None:
        """The sites of the sum that a request is about, where it names them."""
        least = self._bounds.least
        if not least:
            return None
        said: Any = meta.get(KEY) if isinstance(meta.get(KEY), dict) else {}
        if stage == messages.CONTRIBUTE and "members" in said:
            names = self._group(said["members"])
        elif stage == REVEAL:
            names = self._group(said.get("survivors"))
        elif stage == OPEN:
            names = self._group({"0": meta.get("members")})
        else:
            return None
        found = frozenset(names)
        if not found <= set(asked):
            raise QuestionRefused("members", "a sum has members that the approved job does not ask in this round")
        if len(found) < least:
            raise QuestionRefused(
                "members", f"a sum of {len(found)} sites, and this site takes part in those of {least} or more"
            )
        return found

    def _group(self, given: Json) -> list[str]:
        groups: list[Any] = [*given.values()] if isinstance(given, dict) else []
        whole = all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in groups)
        own = [names for names in groups if self._site in names] if whole else []
        if len(own) != 1 or len(set(own[0])) != len(own[0]):
            raise QuestionRefused(
                "members", f"the sites of a sum are not groups of different sites, with {self._site} in one"
            )
        return list(own[0])

    def _opened(self, meta: Mapping[str, Json], members: frozenset[str]) -> None:
        """Note the sites of a sum that is about to be opened, where their difference to another one's tells too little."""
        exchange = exchange_of(Message(stage="any", meta=meta))
        task, index = exchange.task, exchange.index
        # every turn of the statistics asks for the same first and second sums
        which = index % 2 if task == messages.STATISTICS else index
        key = f"{task}/{which}" + ("" if exchange.part == PART_VALUES else f"/{exchange.part}")
        before = self._groups.get(key, [])
        if members in before:
            return
        if len(before) >= self._bounds.most:
            raise QuestionRefused(
                "members", f"{task} in round {index} was answered over {len(before)} groups of sites before"
            )
        between = min((len(members ^ earlier) for earlier in before), default=self._bounds.apart)
        if between < self._bounds.apart and not self._bounds.over_fewer:
            raise QuestionRefused(
                "difference", f"{task} in round {index} was answered over other sites before, and the difference of both sums is "
                f"what {between} of them sent: {self._bounds.apart} or more must be between (cohort.retry_over_fewer is false); "
                "bring those sites back, or submit the job anew"
            )  # fmt: skip
        self._append({"sum": key, "members": sorted(members)})
        self._groups.setdefault(key, []).append(members)

    def _keep(self, key: str, value: Json, *, reason: str = "content") -> None:
        known = self._contents.get(key)
        if known is None:
            self._append({"asked": key, "value": value})
            self._contents[key] = value
        elif known != value:
            raise QuestionRefused(
                reason, f"{key} was asked in this run with other contents: one question is answered once"
            )

    # ------------------------------------------------------------------------------------------------ the file

    def _append(self, line: Mapping[str, Json]) -> None:
        atomic.make_folder(self._path.parent)
        atomic.append_line(self._path, json.dumps(line, sort_keys=True))

    def _read(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # cut short while it was written: its answer never left
            atomic.cut(self._path, whole)
        for line in data[:whole].splitlines():
            try:
                one: Any = json.loads(line)
                if "sum" in one:
                    self._groups.setdefault(one["sum"], []).append(frozenset(one["members"]))
                else:
                    self._contents[one["asked"]] = one["value"]
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(
                    f"{self._path}, what was asked in this run, is damaged: put it back as it was, or run the job anew; without "
                    "it a question could be answered twice"
                ) from error


def _pairs(expected: Mapping[str, Json], given: Mapping[str, Json]) -> list[tuple[str, Json, Json]]:
    """(name, here, there) of all facts of two rounds, one level into `work`."""
    found: list[tuple[str, Json, Json]] = []
    for name in sorted({*expected, *given}):
        here, there = expected.get(name), given.get(name)
        if isinstance(here, dict) and isinstance(there, dict):
            found += _pairs(here, there)
        else:
            found.append((name, here, there))
    return found


def _alike(name: str, here: Json, there: Json) -> bool:
    if name == "learning_rate" and type(there) in (int, float):
        return math.isclose(here, there, rel_tol=_RATE)
    return type(here) is type(there) and bool(here == there)


def _digest(message: Message, said: Mapping[str, Json]) -> str:
    """SHA-256 of what was said and of all arrays, of which one is in memory at a time; hexadecimal."""
    whole = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in sorted(message.arrays):
        value = message.arrays[name]
        whole.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        if value.numel():
            whole.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()
