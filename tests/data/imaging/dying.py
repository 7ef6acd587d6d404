"""Workers of a preparation that die or dawdle, for the tests of what a preparation makes of them."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from wardround.data.imaging import prepare as module

POISON = "poison"


def fit_with_a_reader_that_dies(task: Any) -> int:
    """A shard whose reader ends its process, as a segmentation fault would, at each study named after `POISON`."""
    examine = module.examine

    def deadly(study: Any, *rest: Any) -> Any:
        if POISON in study.name:
            os._exit(66)
        return examine(study, *rest)

    module.examine = deadly
    try:
        return module._fit_shard(task)
    finally:
        module.examine = examine


def probe_that_dies(asked: Any) -> Any:
    """A look at a picture of the sample that ends its process where the picture is named after `POISON`."""
    if POISON in asked[0].name:
        os._exit(66)
    return _probe(asked)


def worker_that_dies_at_once(task: Any) -> int:
    """A process that dies before it reads anything."""
    os._exit(66)


def fit_slowly(task: Any) -> int:
    """A shard that takes a fifth of a second more."""
    time.sleep(0.2)
    return _fit_shard(task)


_fit_shard, _probe = module._fit_shard, module._probe

if __name__ == "__main__":  # the command line, with small slow shards: rows of a shard, then the command's words
    from data.imaging import dying
    from wardround.cli.app import app
    from wardround.cli.exit import guarded

    module._SHARD_ROWS = int(sys.argv[1])
    module._fit_shard = dying.fit_slowly
    sys.exit(guarded(app, sys.argv[2:]))
