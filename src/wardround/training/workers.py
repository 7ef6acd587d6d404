"""Executor and evaluator over worker processes: the sites of a chunk in parts, each done by the very code of one process.

A worker has one thread. Features and labels lie in files that every process maps into its memory, so rows are shared and
never sent; the module and whatever else a run needs once lies beside them, and a worker loads it with its first task.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.errors import ConfigError, WardroundError
from wardround.training import schedule
from wardround.training.evaluate import Evaluator, flat
from wardround.training.executors import Sequential, Stacked
from wardround.training.pictures import Pictures
from wardround.types import Arrays, Features, LocalRule, ModelState, Round, Rows, Server, Trained

Ints = NDArray[np.int64]
_Sites = dict[str, NDArray[Any]]
"""`start`, `count` and `keys` of the sites of a part, see `Rows`."""
_IDLE_SECONDS = 300
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LOKY_MAX_MEMORY_LEAK_SIZE": "1e15",  # mapped rows that a worker has touched count as its memory, and are no leak
}


class Workers:
    """K sites spread over processes: an `Executor`, and an `Evaluator`'s `logits`.

    Each site's result is that of one process with one thread, in whichever worker it was made.

    Args:
        executor: what each worker runs over its part of the sites.
        features, labels: all prepared rows, on the CPU; stored pictures whose files are mapped here are mapped there too.
        number: worker processes, at least 2. They start at once, and serve later runs of this process too.

    Attributes:
        number: worker processes.
        name: the executor's.
        features, labels: the same rows, in memory that the processes share.

    Raises:
        ConfigError: a module that cannot be sent to another process.
        OSError: no room for the rows in the temporary folder.
    """

    def __init__(
        self, executor: Stacked | Sequential, features: Tensor | Features, labels: Tensor, number: int
    ) -> None:
        self.name = executor.name
        self.number, self._independent = number, executor.probe.independent
        recipe = _portable(
            (
                type(executor),
                executor.module,
                executor.optimizer,
                executor.probe,
                executor.switches,
                executor.frozen,
                executor.recipe,
            ),
            "the model",
        )
        path = [os.getcwd() if folder == "" else folder for folder in sys.path]
        self._folder = Path(tempfile.mkdtemp(prefix="wardround-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        try:
            (self._folder / "context").write_bytes(pickle.dumps((os.getpid(), path, recipe)))
            if isinstance(features, Pictures):
                (self._folder / "pictures").write_bytes(pickle.dumps(features.shared(self._folder)))
            elif isinstance(features, Tensor):
                np.save(self._folder / "features.npy", features.numpy())
            np.save(self._folder / "labels.npy", labels.numpy())
        except BaseException:
            self.close()
            raise
        self.features, self.labels = _mapped(self._folder)
        self._pool().submit(_start, self._folder)

    def train(self, rule: LocalRule, server: Server, states: Arrays, data: Rows, round: Round) -> Trained:
        """Train the K sites of `data`, whose rows are this object's; see `Executor`."""
        steps = schedule.step_counts(data.keys, data.count, round, join_single=not self._independent)
        parts = split(steps, self.number)
        done = self._each(_train, parts, data, states, _portable(rule, f"algorithm {rule.name}"), server, round)

        def together(found: Sequence[Arrays]) -> Arrays:
            whole = {name: value.new_empty(len(steps), *value.shape[1:]) for name, value in found[0].items()}
            for part, arrays in zip(parts, found, strict=True):
                for name, value in arrays.items():
                    whole[name].index_copy_(0, torch.from_numpy(part), value)
            return whole

        return Trained(
            terms={term: together([one.terms[term] for one in done]) for term in done[0].terms},
            states=together([one.states for one in done]),
            loss=together([{"loss": one.loss} for one in done])["loss"],
        )

    def logits(self, model: ModelState, states: Arrays, data: Rows) -> tuple[Tensor, Tensor, Ints]:
        """As `Evaluator.logits`."""
        index, owner = flat(data)
        parts = split(data.count, self.number)
        done = self._each(_logits, parts, data, states, model)
        place = np.concatenate([np.flatnonzero(np.isin(owner, part)) for part in parts])
        return torch.cat(done)[torch.from_numpy(np.argsort(place))], data.labels[index], owner

    def close(self) -> None:
        """Remove the shared files; what is mapped stays readable. The processes end when they have been idle for long."""
        self._remove()

    def _each(
        self, task: Callable[..., Any], parts: Sequence[Ints], data: Rows, states: Arrays, *shared: object
    ) -> list[Any]:
        from loky.process_executor import TerminatedWorkerError

        pool = self._pool()
        try:
            futures = [
                pool.submit(
                    task,
                    self._folder,
                    {"start": data.start[part], "count": data.count[part], "keys": data.keys[part]},
                    {name: value[torch.from_numpy(part)] for name, value in states.items()},
                    *shared,
                )
                for part in parts
            ]
            return [future.result() for future in futures]
        except BaseException as error:
            pool.shutdown(kill_workers=True)  # the others would work on for nobody
            if isinstance(error, TerminatedWorkerError):
                raise WardroundError(
                    f"one of {self.number} worker processes died, most often for lack of memory: free some and resume the run, "
                    "or begin it again with lower engine.workers or engine.chunk; workers: 1 would show any other cause"
                ) from error
            raise

    def _pool(self) -> Any:
        from loky import get_reusable_executor

        by_value = {Tensor: _by_value}
        return get_reusable_executor(
            max_workers=self.number, timeout=_IDLE_SECONDS, env=_ENVIRONMENT,
            initializer=_begin, initargs=(os.getpid(),), job_reducers=by_value, result_reducers=by_value,
        )  # fmt: skip


def split(work: Ints, parts: int) -> list[Ints]:
    """K sites in at most `parts` lists of nearly equal work: the longest first, each to the list that has least so far.

    Args:
        work: int64 [K], of each site.
        parts: at least 1.

    Returns:
        int64 [k] each, ascending; an empty list is left out.
    """
    load = [0] * parts
    lists: list[list[int]] = [[] for _ in range(parts)]
    for site in np.argsort(-work, kind="stable").tolist():
        least = load.index(min(load))
        load[least] += max(int(work[site]), 1)
        lists[least].append(site)
    return [np.sort(np.array(part, dtype=np.int64)) for part in lists if part]


def _by_value(tensor: Tensor) -> tuple[Callable[..., Tensor], tuple[NDArray[Any]]]:
    """How a tensor is pickled: as a NumPy array, several times quicker than PyTorch's own way."""
    return torch.from_numpy, (tensor.detach().numpy(),)


def _portable(thing: object, name: str) -> bytes:
    """As bytes for a worker, which must have its own import path before it reads them; classes of a script go by value."""
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(thing))
    except Exception as error:  # what cannot be pickled says so in many ways
        raise ConfigError(
            f"{name} cannot be sent to a worker process: {type(error).__name__}: {error}; use engine.workers: 1"
        ) from error


def _mapped(folder: Path) -> tuple[Tensor | Pictures, Tensor]:
    labels = torch.from_numpy(np.load(folder / "labels.npy", mmap_mode="c"))
    if (folder / "pictures").exists():
        return Pictures.mapped(pickle.loads((folder / "pictures").read_bytes())), labels
    return torch.from_numpy(np.load(folder / "features.npy", mmap_mode="c")), labels


# --------------------------------------------------------------------------------------------------------- in a worker


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    torch.set_num_threads(1)
    threading.Thread(target=_follow, args=(parent, None), daemon=True).start()


def _follow(parent: int, folder: Path | None) -> None:
    """End with a parent that was killed, and leave nothing behind; on Windows a broken pipe ends it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    if folder is None:
        time.sleep(1.0)  # first whoever maps rows removes them
    else:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _start(folder: Path) -> None:
    _context(folder)


@lru_cache(maxsize=1)
def _context(folder: Path) -> tuple[Stacked | Sequential, Evaluator, Callable[..., Rows]]:
    """What this worker needs once a run: how to train, how to score, and what gives the rows of some sites."""
    parent, sys.path[:], recipe = pickle.loads((folder / "context").read_bytes())
    threading.Thread(target=_follow, args=(parent, folder), daemon=True).start()
    kind, module, optimizer, probe, switches, frozen, how = _loaded(recipe)
    evaluator = Evaluator(module, stackable=kind is Stacked, channels_last=probe.channels_last)
    features, labels = _mapped(folder)
    return (
        kind(module, optimizer, probe, switches, frozen, how),
        evaluator,
        partial(Rows, features=features, labels=labels),
    )


def _loaded(portable: bytes) -> Any:
    try:
        return pickle.loads(portable)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"a worker process cannot load what the job names: {error}; make its module importable, or use engine.workers: 1"
        ) from error


def _train(folder: Path, sites: _Sites, states: Arrays, rule: bytes, server: Server, round: Round) -> Trained:
    executor, _, rows = _context(folder)
    return executor.train(_loaded(rule), server, states, rows(**sites), round)


def _logits(folder: Path, sites: _Sites, states: Arrays, model: ModelState) -> Tensor:
    _, evaluator, rows = _context(folder)
    return evaluator.logits(model, states, rows(**sites))[0]
