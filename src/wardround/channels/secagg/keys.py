"""What the two ends of a mask, a box or a signature must derive alike.

A `label` is `Exchange.bound`, but of a box, which is sealed before anything is asked, `Exchange.label`.
"""

from __future__ import annotations

from collections.abc import Sequence

from wardround.channels.secagg.primitives import canonical, derive, digest


def pair_key(agreed: bytes, directory: bytes, label: bytes, one: str, other: str) -> bytes:
    """The key of the mask of a pair in the exchange and question `label`, the same at both ends."""
    names = sorted((one.encode(), other.encode()))
    return derive(agreed, directory, "pair", label, *names)


def self_key(seed: bytes, directory: bytes, label: bytes, site: str) -> bytes:
    """The key of a site's own mask in the exchange and question `label`."""
    return derive(seed, directory, "self", label, site.encode())


def seed_seal(run: str, site: str, serial: int, seed: bytes) -> bytes:
    """A commitment to a seed of 256 bits: hiding since nobody can guess the seed."""
    return digest("seed", run.encode(), site.encode(), serial.to_bytes(8, "big"), seed)


def box_key(agreed: bytes, directory: bytes, sender: str, recipient: str) -> bytes:
    """The key of the one box from `sender` to `recipient` under a directory."""
    return derive(agreed, directory, "box", sender.encode(), recipient.encode())


def box_about(label: str, directory: bytes, sender: str, recipient: str) -> bytes:
    """What a box is bound to beside its content."""
    return canonical([label, directory.hex(), sender, recipient])


def survivors_content(
    label: bytes, directory: bytes, group: int, members: Sequence[str], survivors: Sequence[str], *, abstained: bool
) -> bytes:
    """What a survivor signs; one whose own part is nothing says so."""
    said = [group, list(members), list(survivors), abstained]
    return digest("survivors", label, directory, canonical(said))
