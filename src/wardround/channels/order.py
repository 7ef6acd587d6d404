"""Replies in canonical order: whoever answers first, sums come out in the same bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from wardround.types import Reply


def canonical(replies: Iterable[Reply], sites: Sequence[str]) -> Iterator[Reply]:
    """The replies, each site at most once, in the order of `sites`; holds back only those that came too early.

    A reply that speaks for a site not asked, or for one already heard, is ignored.
    """
    place = {site: i for i, site in enumerate(sites)}
    early: dict[int, Reply] = {}
    heard: set[str] = set()
    due = 0
    for reply in replies:
        if not reply.sites or not heard.isdisjoint(reply.sites) or not place.keys() >= set(reply.sites):
            continue
        heard.update(reply.sites)
        early[place[reply.sites[0]]] = reply
        while due in early:
            ready = early.pop(due)
            due += len(ready.sites)
            yield ready
    for start in sorted(early):
        yield early[start]
