"""From revealed shares to what is left of the masks on a sum of survivors.

On it are each survivor's own mask, and each mask between a survivor and a member that dropped; those between survivors cancel.
A secret that shares give is compared with what its owner advertised, so an altered share is found, and others are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from wardround.channels.secagg.directory import Directory
from wardround.channels.secagg.keys import pair_key, seed_seal, self_key
from wardround.channels.secagg.primitives import SIZE, Agreement, is_whole, public_of
from wardround.channels.secagg.shamir import SHARE, Joiner, from_bytes
from wardround.channels.secagg.site import BOX
from wardround.errors import MessageError
from wardround.types import Arrays

Shares = Mapping[str, Mapping[str, int]]
"""Whose secret -> holder -> share."""


class Unopened(Exception):
    """Some secret of a group cannot be had from the shares that came."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The masks on the sum of one group.

    Attributes:
        directory: whose masks.
        label: of the exchange and what was asked in it (`Exchange.bound`).
        members: of the group.
        survivors: those in the sum.
        shares: that were revealed, in any group.
        joiner: shared among groups, as it learns whose shares to doubt.
    """

    directory: Directory
    label: bytes
    members: Sequence[str]
    survivors: Sequence[str]
    shares: Shares
    joiner: Joiner

    def masks(self) -> list[tuple[bytes, bool]]:
        """Streams on the sum, and whether they were subtracted. Raises Unopened."""
        there = set(self.survivors)
        found = [(self._own(site), False) for site in self.survivors]
        for gone in self.members:
            near = [site for site in self.directory.neighbours[gone] if site in there]
            if gone in there or not near:
                continue
            secret_half = Agreement(self._pairwise(gone))
            for site in near:
                agreed = secret_half.with_key(self.directory.by_site[site].mask, site)
                found.append((pair_key(agreed, self.directory.digest, self.label, site, gone), site > gone))
        return found

    def _own(self, site: str) -> bytes:
        advert, run = self.directory.by_site[site], self.directory.run

        def right(seed: bytes) -> bool:
            return seed_seal(run, site, advert.serial, seed) == advert.seal

        return self_key(self._joined(site, right), self.directory.digest, self.label, site)

    def _pairwise(self, site: str) -> bytes:
        public = self.directory.by_site[site].mask
        return self._joined(site, lambda secret: is_whole(secret) and public_of(secret) == public)

    def _joined(self, site: str, right: Callable[[bytes], bool]) -> bytes:
        place = self.directory.place
        shares = {place[holder]: share for holder, share in self.shares.get(site, {}).items()}
        threshold = self.directory.rules[self.directory.group_of[site]].threshold
        if len(shares) < threshold:
            raise Unopened(f"{len(shares)} shares of a secret of {site} came, and {threshold} are needed")
        secret = self.joiner.join(
            shares, threshold, lambda value: value < 2 ** (8 * SIZE) and right(value.to_bytes(SIZE, "big"))
        )
        if secret is None:
            raise Unopened(
                f"the {len(shares)} shares of a secret of {site} do not give what it advertised: some were altered, and too few "
                "were not"
            )
        return secret.to_bytes(SIZE, "big")


def shares_from(owners: Sequence[str], arrays: Arrays) -> dict[str, int]:
    """The shares of an answer, one for each owner. Raises MessageError where they are malformed."""
    rows = _rows(arrays, "shares", len(owners), SHARE)
    found = {owner: from_bytes(row) for owner, row in zip(owners, rows, strict=True)}
    good = {owner: share for owner, share in found.items() if share is not None}
    if len(good) < len(owners):
        raise MessageError("a share that it revealed is not a number of the field")
    return good


def boxes_from(directory: Directory, site: str, arrays: Arrays) -> dict[str, bytes]:
    """The boxes that a site sealed, by recipient. Raises MessageError where they are malformed."""
    recipients = directory.neighbours[site]
    return dict(zip(recipients, _rows(arrays, "boxes", len(recipients), BOX), strict=True))


def _rows(arrays: Arrays, name: str, count: int, size: int) -> list[bytes]:
    value = arrays.get(name)
    if value is None or value.dtype != torch.uint8 or tuple(value.shape) != (count, size):
        found = "none" if value is None else f"{value.dtype} {list(value.shape)}"
        raise MessageError(f"array '{name}' is {found}, expected torch.uint8 [{count}, {size}]")
    return [bytes(row) for row in value.numpy()]
