"""By which executor the sites of a simulation are trained, and in how many processes.

Both follow from the job, the model, the data's shape and the machine, never from a clock.
"""

from __future__ import annotations

import math
import multiprocessing

import torch

from wardround.config.job import Job, highest
from wardround.errors import ConfigError
from wardround.federation.baselines import sites_asked
from wardround.training.probe import Probe

_PIXELS = 2**13
"""Pixels of a batch from which a convolution of one site keeps a CPU busier than a grouped one of many."""
_WORTH = 2**25
"""Features that a worker trains on to earn its start of 1 to 2 s: 5 s of small convolutions, more of larger ones."""


def choose_executor(job: Job, found: Probe, shape: tuple[int, ...], device: torch.device) -> tuple[bool, str]:
    """Whether to stack, and why, in words.

    Args:
        job: the run.
        found: what the probe says of the model.
        shape: of one prepared row; (channels, height, width) for a picture.
        device: where it trains.

    Raises:
        ConfigError: `stacked` is asked for, and the model cannot be.
    """
    asked = job.engine.executor
    if asked == "sequential":
        return False, "sequential: engine.executor asks for it"
    if asked == "stacked" and not found.stackable:
        raise ConfigError(
            f"engine.executor = stacked, but this model cannot be: {found.reason}; use auto or sequential"
        )
    pixels = job.training.batch_size * math.prod(shape[1:])
    if found.convolves and not found.stochastic and convolves_apart(job, shape, device):
        return False, f"sequential: on a CPU convolutions of {pixels} pixels a batch are faster one site at a time"
    return found.stackable, found.reason


def convolves_apart(job: Job, shape: tuple[int, ...], device: torch.device) -> bool:
    """Whether sites train one by one if the model has convolutions; arguments as for `choose_executor`."""
    pixels = job.training.batch_size * math.prod(shape[1:])
    auto = job.engine.executor == "auto" and device.type == "cpu" and pixels >= _PIXELS
    return auto or job.engine.executor == "sequential"


def choose_workers(
    job: Job, *, stacked: bool, shape: tuple[int, ...], rows: int, sites: int, device: torch.device
) -> int:
    """Processes that share the sites; 1 is this one.

    `auto` takes more than one where sites train one by one on a CPU and the run is long enough to pay for their start: at
    most the threads that PyTorch may use here (`engine.threads`), and cores.

    Args:
        job: the run.
        stacked: whether sites are stacked.
        shape: of one prepared row.
        rows: training rows of all sites.
        sites: their number.
        device: where it trains.

    Raises:
        ConfigError: several workers for a device that they cannot share.
    """
    asked = job.engine.workers
    if asked == 1 or (asked == "auto" and (stacked or device.type != "cpu")):
        return 1
    if device.type != "cpu":
        raise ConfigError(
            f"engine.workers = {asked} on engine.device {device.type}: workers share the cores of a CPU, and one process keeps "
            "any other device busy; use workers: 1"
        )
    together = sites_asked(job, sites)
    if asked != "auto":
        return min(asked, together)
    work = job.training
    steps, epochs = work.work
    each = highest(steps) * work.batch_size if steps else highest(epochs or 1) * rows / sites
    earned = int(together * each * work.rounds * math.prod(shape) / _WORTH)
    return min(earned, together, _cores()) if earned > 1 else 1


def _cores() -> int:
    from loky import cpu_count

    if multiprocessing.current_process().daemon:  # which may not have children
        return 1
    return min(torch.get_num_threads(), int(cpu_count()))
