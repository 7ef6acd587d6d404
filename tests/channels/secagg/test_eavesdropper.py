"""A script that is given everything the server ever received, written from the protocol and not from the code.

It rebuilds whatever secrets the shares give, takes off every mask that it can, and looks at what is left. With sites that
follow the protocol nothing is; with sites that give both halves away, it finds every value, so the test can fail.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from channels.secagg.harness import Ward, collect, draw, exact, ward
from wardround import wire
from wardround.channels.secagg.directory import Directory
from wardround.channels.secagg.server import MaskServer, MaskSpec
from wardround.channels.secagg.site import MaskSite
from wardround.errors import MessageError
from wardround.types import Message, Request

P = 2**256 + 297
LENGTH = 64


def tagged(purpose: str, *parts: bytes) -> bytes:
    whole = b"".join(len(part).to_bytes(8, "big") + part for part in (f"wardround/secagg/1/{purpose}".encode(), *parts))
    return hashlib.sha256(whole).digest()


def stream(agreed: bytes, salt: bytes, purpose: str, *parts: bytes) -> np.ndarray:
    key = HKDF(algorithm=SHA256(), length=32, salt=salt, info=tagged(purpose, *parts)).derive(agreed)
    return np.frombuffer(Cipher(AES256(key), CTR(bytes(16))).encryptor().update(bytes(8 * LENGTH)), dtype="<u8")


def at_zero(points: Mapping[int, int]) -> bytes:
    total = 0
    for x, y in points.items():
        term = y
        for other in points:
            if other != x:
                term = term * other * pow(other - x, -1, P) % P
        total += term
    return (total % P % 2**256).to_bytes(32, "big")


@dataclass
class Heard:
    """One exchange, as the server heard it."""

    label: bytes
    directory: dict[str, object]
    salt: bytes
    adverts: dict[str, list[bytes]]
    """Site -> public keys for boxes and masks, seal of the seed, signature."""
    near: dict[str, list[str]]
    threshold: int
    uploads: dict[str, np.ndarray]
    halves: list[dict[str, dict[int, int]]]
    """Of mask keys and of seeds: whose -> holder's number -> share."""


def heard(here: Ward) -> Iterator[Heard]:
    directories = {}
    for request in here.requests:
        masks = request.message.meta.get("masks", {})
        for given in (masks.get("directory"), masks.get("next")):
            if isinstance(given, dict):
                text = json.dumps(given, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
                directories[tagged("directory", text)] = given
    for request in here.requests:
        if request.message.stage != "contribute":
            continue
        meta = request.message.meta
        salt = bytes.fromhex(meta["masks"]["directory"])
        given = directories[salt]
        about = meta["exchange"]
        sites = [advert[0] for advert in given["adverts"]]
        mine = [reply for reply in here.received if reply.message.meta["exchange"] == about]
        uploads = {
            r.sites[0]: r.message.arrays["words"].numpy().view(np.uint64)
            for r in mine
            if r.message.stage == "contribute"
        }
        halves: list[dict[str, dict[int, int]]] = [{}, {}]
        for reply in mine:
            if reply.message.stage == "mask-reveal":
                for name in ("shares", "leaked"):
                    rows = reply.message.arrays.get(name, torch.zeros(0, 33, dtype=torch.uint8)).numpy()
                    for owner, row in zip(sites, rows, strict=False):
                        # of a survivor the seed is asked, of the others the mask key; a leak is the other half
                        which = (owner in uploads) == (name == "shares")
                        number = int.from_bytes(bytes(row), "big")
                        if number:
                            halves[which].setdefault(owner, {})[sites.index(reply.sites[0]) + 1] = number
        yield Heard(
            label=json.dumps(about, sort_keys=True, separators=(",", ":")).encode()
            + hashlib.sha256(wire.encode(request.message)).digest(),
            directory=given, salt=salt,
            adverts={a[0]: [base64.b64decode(part) for part in a[2:]] for a in given["adverts"]},
            near={site: [other for other in sites if other != site] for site in sites},
            threshold=given["rules"][0][2], uploads=uploads, halves=halves,
        )  # fmt: skip


def broken(tape: Heard) -> dict[str, np.ndarray]:
    """Site -> its upload less every mask that the tape gives, of the sites on whose upload no mask is left."""
    secrets: list[dict[str, bytes]] = [{}, {}]
    for which in (0, 1):
        for owner, points in tape.halves[which].items():
            if len(points) >= tape.threshold:
                secrets[which][owner] = at_zero(dict(list(points.items())[: tape.threshold]))
    keys, seeds = secrets
    found = {}
    for site, sent in tape.uploads.items():
        left, masks = sent.copy(), len(tape.near[site]) + 1
        if site in seeds:
            left, masks = left - stream(seeds[site], tape.salt, "self", tape.label, site.encode()), masks - 1
        for other in tape.near[site]:
            own, theirs = (site, other) if site in keys else (other, site)
            if own not in keys:
                continue
            agreed = X25519PrivateKey.from_private_bytes(keys[own]).exchange(
                X25519PublicKey.from_public_bytes(tape.adverts[theirs][1])
            )
            mask = stream(agreed, tape.salt, "pair", tape.label, *sorted((site.encode(), other.encode())))
            left, masks = (left + mask if site > other else left - mask), masks - 1
        found[site] = left
        if masks:
            # what is left with masks on: as good as random, where values are below 2^20
            assert np.median(left) > 2**60
            assert (left >= 2**40).mean() > 0.9
    return found


class Leaky(MaskSite):
    """A broken variant: some sites give the other halves away as well."""

    leaks: frozenset[str] = frozenset()

    def reveal(self, site: str, request: Request, following: Directory | MessageError | None = None) -> Message:
        upload = self._state(site).upload
        message = super().reveal(site, request, following)
        if site not in self.leaks or upload is None:
            return message
        there = set(request.message.meta["masks"]["survivors"]["0"])
        owners = [owner for owner in upload.directory.holders[site] if owner in upload.held]
        rows = b"".join(upload.held[owner][owner not in there] or bytes(33) for owner in owners)
        message.arrays["leaked"] = torch.frombuffer(bytearray(rows), dtype=torch.uint8).reshape(-1, 33)
        return message


def leaking(sites: int) -> type[MaskSite]:
    class Some(Leaky):
        leaks = frozenset(f"hospital-{i:03}" for i in range(sites))

    return Some


def recovered(here: Ward) -> list[str]:
    """Whose value the script finds in some exchange."""
    tapes = list(heard(here))
    assert tapes
    return [site for tape in tapes for site, left in broken(tape).items() if (left == here.values[site]).all()]


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize("dropping", [0, 1, 3])
def test_everything_that_the_server_hears_opens_no_upload(active: bool, dropping: int) -> None:
    here = ward(10, MaskSpec(active=active))
    draw(here, LENGTH)
    server = MaskServer(here.spec)
    for index in range(3):
        here.mute = {("contribute", site) for site in here.sites[:dropping]} if index else set()
        assert exact(here, collect(here, server, index=index))
    assert recovered(here) == []


@pytest.mark.parametrize(
    ("leaks", "found"),
    # ten sites, threshold six: a victim's mask key takes six leaks that are not its own
    [(5, 0), (6, 4), (7, 10), (10, 10)],
)
def test_sites_that_give_both_halves_away_are_overheard(leaks: int, found: int) -> None:
    here = ward(10, kind=leaking(leaks))
    draw(here, LENGTH)
    assert exact(here, collect(here, MaskServer(here.spec)))
    assert len(recovered(here)) == found


def test_an_upload_that_came_too_late_stays_masked() -> None:
    """The server holds the message of a site whose mask key it was then given: its own mask is still on it."""
    here = ward(6)
    draw(here, LENGTH)
    late = here.sites[0]
    here.mute = {("contribute", late)}
    assert exact(here, collect(here, MaskServer(here.spec)))
    tape = next(heard(here))
    points = tape.halves[0][late]
    key = X25519PrivateKey.from_private_bytes(at_zero(dict(list(points.items())[: tape.threshold])))
    assert key.public_key().public_bytes_raw() == tape.adverts[late][1]
    (message,) = here.lost
    left = message.message.arrays["words"].numpy().view(np.uint64).copy()
    for other in tape.near[late]:
        agreed = key.exchange(X25519PublicKey.from_public_bytes(tape.adverts[other][1]))
        mask = stream(agreed, tape.salt, "pair", tape.label, late.encode(), other.encode())
        left -= mask  # its name is the first of all, so it added each
    assert np.median(left) > 2**60
    assert not (left == here.values[late]).any()
