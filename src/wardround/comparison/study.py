"""A comparison from plan to result: what is missing is trained, the best configuration of each cell is taken, and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wardround.comparison import trial as trials
from wardround.comparison.page import write
from wardround.comparison.plan import BASELINES, Plan, Trial, plan
from wardround.comparison.result import Result, result_of
from wardround.comparison.trial import Record
from wardround.config.job import Job
from wardround.errors import ConfigError
from wardround.store import atomic

Listener = Callable[[Mapping[str, Any]], None]
"""Told of `{"event": "trial", "done", "all", "cached", "method", "setting", "seed"}` after each trial."""


@dataclass
class _Progress:
    listener: Listener
    all: int
    done: int = 0

    def tell(self, trial: Trial, *, cached: bool) -> None:
        self.done += 1
        facts = {"method": trial.method, "setting": trial.setting, "seed": trial.seed}
        self.listener({"event": "trial", "done": self.done, "all": self.all, "cached": cached, **facts})


def compare(
    job: Job, out: Path | str, *,
    algorithms: Sequence[str], alphas: Sequence[str] = (), channels: Sequence[str] = (),
    seeds: int = 5, budget: int = 8, metric: str = "auroc",
    reference: str | None = None, baselines: Sequence[str] = BASELINES, target: float | None = None,
    jobs: int = 1, listener: Listener = lambda event: None,
) -> Result:  # fmt: skip
    """Compare algorithms on the same patients, and write `comparison.json`, `.html`, `.md`, `.csv` and `figures/`.

    Args:
        job: what all runs have in common.
        out: folder of the comparison; trials that it holds are not trained again.
        algorithms, alphas, channels, seeds, budget, metric, reference, baselines, target: see `plan.plan`.
        jobs: processes, of one thread each unless the job says otherwise. The figures do not depend on it.
        listener: told of progress.

    Returns:
        What `comparison.json` holds.

    Raises:
        WardroundError: see `plan.plan` and `carry_out`.
    """
    asked = plan(
        job, algorithms=algorithms, alphas=alphas, channels=channels, seeds=seeds, budget=budget, metric=metric,
        reference=reference, baselines=baselines, target=target,
    )  # fmt: skip
    result = carry_out(asked, out, jobs=jobs, listener=listener)
    write(Path(out), result)
    return result


def carry_out(plan: Plan, out: Path | str, *, jobs: int = 1, listener: Listener = lambda event: None) -> Result:
    """Train what a plan asks for, and say what it shows.

    Trials are kept in `OUT/trials`, by content: what was trained before, by this comparison or another into the same
    folder, with the same job, records, code and versions, is not trained again. A trial that was cut short goes on from its
    last commit.

    Returns:
        What `comparison.json` holds.

    Raises:
        ConfigError: no method can run.
        DataError: records that cannot be read or dealt.
        StorageError: the disk cannot be written.
    """
    out = Path(out)
    folder, work = out / "trials", out / "unfinished"
    for path in (folder, work):
        atomic.make_folder(path)
    wanted = plan.trials()
    data = trials.fingerprint(plan.job)
    progress = _Progress(listener, len(wanted))
    records: list[Record] = []
    missing: list[Trial] = []
    for trial in wanted:
        known = trials.cached(folder, trial, data)
        if known is None:
            missing.append(trial)
        else:
            # the names of a cell are the plan's: two settings may mean the same job
            records.append({**known, "method": trial.method, "setting": trial.setting, "number": trial.number})
            progress.tell(trial, cached=True)
    refused: dict[str, str] = {}
    for trial, record in _executed(missing, folder, work, jobs, refused):
        if "refused" in record:
            refused.setdefault(trial.method, record["refused"])
        else:
            records.append(record)
        progress.tell(trial, cached=False)
    if not any(record["method"] not in refused for record in records):
        raise ConfigError("no method could be trained: " + "; ".join(f"{m}: {why}" for m, why in refused.items()))
    result = result_of(plan, [r for r in records if r["method"] not in refused], refused)
    atomic.write_json(out / "comparison.json", result)
    atomic.remove_tree(work)
    return result


def _executed(
    missing: Iterable[Trial], folder: Path, work: Path, jobs: int, refused: Mapping[str, str]
) -> Iterator[tuple[Trial, Record]]:
    """Trials with their records, as they end; those of a method that was refused meanwhile are passed over."""
    if jobs == 1:
        for trial in missing:
            if trial.method in refused:
                yield trial, {"refused": refused[trial.method]}
            else:
                yield trial, trials.execute(trial, folder, work)
        return
    from concurrent.futures import FIRST_COMPLETED, Future, wait

    from loky import ProcessPoolExecutor

    queue = iter(missing)
    running: dict[Future[Record], Trial] = {}
    pool = ProcessPoolExecutor(max_workers=jobs)
    try:
        while True:
            # two a process, so that none waits for the next, and a refusal is known before the rest is begun
            while len(running) < 2 * jobs and (following := next(queue, None)) is not None:
                if following.method in refused:
                    yield following, {"refused": refused[following.method]}
                else:
                    running[pool.submit(trials.execute, following, folder, work)] = following
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=True, kill_workers=True)
