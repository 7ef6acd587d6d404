"""What a channel costs a whole run, and whether its sums stay exact while sites drop out.

    WARDROUND_DATA=my-data OMP_NUM_THREADS=1 python -m benchmarks.channels [--only utility runs drops] [--repeats 3] [--quick]

`utility` compares each algorithm over each channel with itself in plain: heart disease, readmission, a small CNN.
`runs` trains heart disease and a small CNN on PneumoniaMNIST over each channel, in turn and each in a fresh process. `drops` puts
contributions of 100 sites through the channels while 30 % of them leave at a random stage of each round.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.fresh import call
from benchmarks.tables import figure, spread, table

PARTS = ("utility", "runs", "drops")
PAGE = Path(__file__).with_name("channels.md")
EXAMPLES = Path(__file__).parents[1] / "examples"
CHANNELS = ("plain", "secagg", "he", "masked-he")
HEART: dict[str, Any] = {"data": {"dataset": "heart"}, "training": {"rounds": 20, "local_epochs": 1, "batch_size": 16}}
CNN: dict[str, Any] = {
    "data": {"dataset": "medmnist", "options": {"name": "pneumoniamnist"}},
    "partition": {"kind": "iid", "sites": 5},
    "model": {"name": "cnn", "options": {"width": 16, "norm": "group"}},
    "training": {"rounds": 6, "local_epochs": 1, "batch_size": 32, "optimizer": {"learning_rate": 0.02}},
}
SITES, LEAVE, VALUES = 100, 0.3, 10_000


def section(part: str, repeats: int, quick: bool) -> str:
    """The table of one part."""
    if part == "utility":
        return _utility(quick)
    return _runs(repeats, quick) if part == "runs" else _drops(quick)


def main() -> None:
    given = command.parser("benchmarks.channels", __doc__, PARTS, repeats=3).parse_args()
    command.measure(given, lambda part, repeats: section(part, repeats, given.quick), PAGE)


# ------------------------------------------------------------------------------------------------ what is learned


def _utility(quick: bool) -> str:
    from wardround.channels.named import NAMED
    from wardround.comparison import tables
    from wardround.comparison.study import compare
    from wardround.config.load import from_mapping, load

    one_thread = {"engine": {"threads": 1, "workers": 1}}
    jobs = {
        "heart": (load(EXAMPLES / "heart.yaml"), 3),
        "readmission": (load(EXAMPLES / "readmission.yaml"), 3),
        "CNN": (from_mapping({**CNN, **one_thread, "evaluation": {"bootstrap": 0}}), 2),
    }
    lines: list[list[str]] = []
    header: list[str] = []
    for name, (job, seeds) in jobs.items():
        print(f"  {name} over {len(NAMED)} channels", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            result = compare(
                job, folder, algorithms=("fedavg", "scaffold"), channels=("plain", "secagg") if quick else tuple(NAMED),
                seeds=2 if quick else seeds, budget=1, baselines=(),
            )  # fmt: skip
        [setting] = result["settings"]
        header, rows = tables.channels(result, setting)
        lines += [[f"{name}, {seeds} seeds", *row] for row in rows]
    return table(["run", *header], lines)


# ------------------------------------------------------------------------------------------------ whole runs


def _runs(repeats: int, quick: bool) -> str:
    lines = []
    for name, tree in (("heart, 4 sites", HEART), ("CNN on PneumoniaMNIST, 5 sites", CNN)):
        seconds: dict[str, list[float]] = {channel: [] for channel in CHANNELS}
        last: dict[str, dict[str, Any]] = {}
        for _ in range(1 if quick else repeats):
            for channel in CHANNELS:
                print(f"  {name}: {channel}", file=sys.stderr, flush=True)
                last[channel] = call("benchmarks.channels:trained", tree=tree, channel=channel)
                seconds[channel].append(last[channel]["seconds"])
        for channel in CHANNELS:
            found = last[channel]
            each = [1e3 * s / found["rounds"] / found["sites"] for s in seconds[channel]]
            ratios = [s / plain for s, plain in zip(seconds[channel], seconds["plain"], strict=True)]
            lines.append(
                [
                    name, channel, f"{found['parameters']:,}", figure(statistics.median(each)), spread(ratios),
                    f"{found['bytes_up'] / found['rounds'] / found['sites'] / 1e3:,.0f}",
                    f"{found['auroc']:.4f}",
                ]
            )  # fmt: skip
    header = ("run", "channel", "parameters", "ms a round and site", "x plain", "kB up a round and site", "AUROC")
    return table(header, lines)


def trained(tree: dict[str, Any], channel: str) -> dict[str, Any]:
    """One run over one channel: seconds of the federation alone, set-up included."""
    from wardround import run
    from wardround.channels.named import NAMED
    from wardround.config.load import from_mapping

    rest = {
        "evaluation": {"baselines": [], "bootstrap": 0, "release_scores": True},
        "engine": {"threads": 1, "workers": 1},
    }
    job = from_mapping({**tree, **rest, "privacy": NAMED[channel]})
    with tempfile.TemporaryDirectory() as folder:
        result = run(job, Path(folder) / "run", report=False)
    return {
        "seconds": result["seconds"],
        "rounds": result["rounds"],
        "sites": len(result["partition"]),
        "parameters": result["model"]["parameters"],
        "bytes_up": result["bytes_up"],
        "auroc": result["federated"]["pooled"]["auroc"],
    }


# ------------------------------------------------------------------------------------------------ drop-outs


def _drops(quick: bool) -> str:
    rounds = 3 if quick else 20
    lines = []
    for channel in ("secagg", "secagg, active", "masked-he"):
        print(f"  {SITES} sites, {channel}", file=sys.stderr, flush=True)
        found = call("benchmarks.channels:dropping", channel=channel, rounds=rounds)
        lines.append(
            [
                channel, f"{found['exact']} of {found['summed']}", f"{found['retried']}", f"{found['left']:.1f}",
                figure(statistics.median(found["seconds"])), figure(max(found["seconds"])),
            ]
        )  # fmt: skip
    header = ("channel", "sums that are exact", "rounds tried again", "sites that left a round", "s a round", "slowest")
    return table(header, lines)


def dropping(channel: str, rounds: int) -> dict[str, Any]:
    """Rounds of 100 sites, of whom 30 % leave at a random stage: each sum against that of the survivors' own digits."""
    import numpy as np
    import torch

    from wardround.channels import registry
    from wardround.channels.named import NAMED
    from wardround.channels.secure import SecureChannel
    from wardround.config.job import PrivacySpec
    from wardround.errors import QuorumLost
    from wardround.types import Contribution, Message, Request, Term

    torch.set_num_threads(1)
    kind, _, active = channel.partition(", ")
    node = NAMED[kind]["channel"]
    node = {**node, "options": {**node.get("options", {}), **({"active": True} if active else {})}}
    built = registry.build(PrivacySpec.model_validate({"channel": node}))
    assert isinstance(built, SecureChannel)
    built.bind("benchmark", None)
    names = tuple(f"site-{i:03d}" for i in range(SITES))
    half = built.site_half(names)
    draw = np.random.default_rng(0)
    seconds, exact, summed, retried, left = [], 0, 0, 0, []
    for index in range(rounds):
        values = torch.from_numpy(draw.normal(0.0, 0.01, (SITES, VALUES)).astype(np.float32))
        weights = torch.from_numpy(draw.integers(1, 64, SITES)).double()
        step = Term(arrays={"w": values}, weights=weights, maximum=64.0)
        contribution = Contribution(sites=names, terms={"step": step})
        for attempt in range(20):
            engine = Leaving(contribution, half, draw)
            meta = {"task": "train", "round": {"index": index, "attempt": attempt}}
            request = Request(message=Message(stage="contribute", meta=meta))
            start = time.perf_counter()
            try:
                [total] = built.collect(engine, request, names, None, 2)
            except QuorumLost:
                retried += 1
                continue
            seconds.append(time.perf_counter() - start)
            left.append(len(engine.gone))
            summed += 1
            exact += _is_exact(built, contribution, total)
            break
    return {"seconds": seconds, "exact": exact, "summed": summed, "retried": retried, "left": statistics.mean(left)}


class Leaving:
    """An engine of which some sites leave for good at a stage of their own."""

    def __init__(self, contribution: Any, half: Any, draw: Any) -> None:
        self._contribution, self._half, self._draw = contribution, half, draw
        self.sites = contribution.sites
        self.gone: set[str] = set()
        self._asks = 0
        leaving = draw.choice(self.sites, int(LEAVE * len(self.sites)), replace=False)
        self._leave = {
            str(site): int(stage) for site, stage in zip(leaving, draw.integers(0, 4, len(leaving)), strict=True)
        }
        self._measuring = True

    def ask(self, request: Any, sites: Sequence[str], deadline: float | None) -> Iterator[Any]:
        from dataclasses import replace

        from wardround.channels.exchange import exchange_of

        if exchange_of(request.message).part == "values":
            self.gone |= {site for site, stage in self._leave.items() if stage == self._asks}
            self._asks += 1
        asked = tuple(site for site in sites if site not in self.gone)
        if request.message.stage != "contribute":
            yield from self._half.stages()[request.message.stage](asked, request)
            return
        place = [self.sites.index(site) for site in asked]
        terms = {
            name: replace(term, arrays={n: v[place] for n, v in term.arrays.items()}, weights=term.weights[place])
            for name, term in self._contribution.terms.items()
        }
        yield from self._half.contribute(replace(self._contribution, sites=asked, terms=terms), request)

    def journal(self, index: int, sites: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
        return (), {}

    def restore(self, sites: Sequence[str], states: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def _is_exact(channel: Any, contribution: Any, total: Any) -> bool:
    """Whether the sum is, bit for bit, that of the survivors' digits, added as integers."""
    import numpy as np

    from wardround.encoding.codec import Decoder, encode
    from wardround.encoding.field import Field
    from wardround.encoding.layout import layout_of

    field = Field(bits=channel.bits, sites=len(contribution.sites))
    layout = layout_of(contribution, field, part="values")
    survivors = [contribution.sites.index(site) for site in total.survivors]
    digits = np.zeros(layout.size, dtype=np.uint64)
    for k in survivors:
        blocks = encode(contribution, k, layout, field, channel.announced, rounding="nearest", seed=0, signs=0)
        digits += np.concatenate(list(blocks))
    decoder = Decoder(layout, field, channel.announced, len(survivors), signs=0)
    from wardround.encoding.codec import BLOCK

    for start in range(0, len(digits), BLOCK):
        decoder.feed(digits[start : start + BLOCK])
    return bool((decoder.result().arrays["step/w"] == total.sums["step"]["w"]).all())


if __name__ == "__main__":
    main()
