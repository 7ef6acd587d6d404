"""What the server takes of a site's direct answers: everything is looked at, since one site must not end a run of many.

A site that sends nonsense is passed over and named; the run goes on while the quorum holds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

import torch

from wardround.errors import MessageError
from wardround.plain import plain
from wardround.types import Reply

MOST_TIMES = 1024
"""Between hospitals, where a job sets no `aggregation.max_weight`: a site that says it has more than so many times the rows of
the middle one of the others is passed over. The bound of all weights follows from the largest, and sums are whole numbers
below it: one absurd count would make all others' weights vanish."""
MOST_ROWS = 2**40
_EXECUTORS = ("stacked", "sequential")
_REASON = 500


def rows_of(reply: Reply) -> dict[str, int]:
    """Site -> training rows, of an answer to `enrol`.

    Raises:
        MessageError: of another form.
    """
    arrays = reply.message.arrays
    if not reply.stacked or set(arrays) != {"rows"}:
        raise MessageError(f"its answer to enrol has the arrays {sorted(arrays)!r:.80}, expected 'rows'")
    rows = arrays["rows"]
    if rows.dtype != torch.int64 or tuple(rows.shape) != (len(reply.sites),):
        raise MessageError(f"its rows are {rows.dtype} of shape {list(rows.shape)!r:.40}, expected one int64")
    counts = rows.tolist()
    wrong = [n for n in counts if not 0 <= n <= MOST_ROWS]
    if wrong:
        raise MessageError(f"it says that it has {wrong[0]} training rows")
    return dict(zip(reply.sites, counts, strict=True))


def executor_of(reply: Reply) -> tuple[str, str]:
    """By which executor a site trains, and why, of an answer to `prepare`.

    Raises:
        MessageError: of another form.
    """
    executor, reason = reply.message.meta.get("executor"), reply.message.meta.get("reason")
    if executor not in _EXECUTORS or not isinstance(reason, str):
        raise MessageError(f"it says that it trains by {executor!r:.80}, expected one of {', '.join(_EXECUTORS)}")
    return executor, plain(reason)[:_REASON]


def absurd(rows: Mapping[str, int]) -> dict[str, str]:
    """Sites with far more rows than the others say, and why each is passed over."""
    found = {}
    for site, own in rows.items():
        others = [n for name, n in rows.items() if name != site]
        if others and own > MOST_TIMES * max(statistics.median_high(others), 1):
            found[site] = (
                f"it says that it has {own} training rows, more than {MOST_TIMES} times those of the others: where that is so, "
                "set aggregation.max_weight in the job"
            )
    return found


def heavy(rows: Mapping[str, int]) -> dict[str, str]:
    """The site that has more than half of all rows, which then decides what the model becomes, where there is one."""
    total = sum(rows.values())
    return {
        site: f"it has {math.floor(100 * own / total)} % of all rows, as it says: it alone outweighs the others"
        for site, own in rows.items()
        if len(rows) > 2 and 2 * own > total
    }
