"""What the sites of one process hold: who they are, whom they trust, and where their channel's state is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.errors import IdentityError, missing_extra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True, kw_only=True)
class Home:
    """The identities of a process.

    Attributes:
        identities: site -> its signing key, of the sites of this process: one at a hospital, all in a simulation.
        pins: site -> raw public key (32 bytes) of every site that this process trusts, its own included.
        folder: where a site's channel state is kept over a restart; None: in memory. A run needs a folder of its own.
        minimum: fewest sites of a sum that the sites here take part in, whatever the job says; the channel's own number where
            that is higher.

    Raises:
        IdentityError: a site's own key is not the one that is pinned to its name.
    """

    identities: Mapping[str, Ed25519PrivateKey]
    pins: Mapping[str, bytes]
    folder: Path | None = None
    minimum: int = 0

    def __post_init__(self) -> None:
        for site, identity in self.identities.items():
            if self.pins.get(site) != identity.public_key().public_bytes_raw():
                raise IdentityError(
                    f"site '{site}' has a signing key whose public half is not the one pinned to its name: other sites would "
                    "refuse what it signs; give it the key that belongs to the pin"
                )

    @classmethod
    def simulated(cls, sites: Sequence[str]) -> Home:
        """Fresh identities for all sites of a simulation, pinned to each other."""
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        except ModuleNotFoundError as error:
            raise missing_extra("cryptography", "secure") from error

        identities = {site: Ed25519PrivateKey.generate() for site in sites}
        pins = {site: key.public_key().public_bytes_raw() for site, key in identities.items()}
        return cls(identities=identities, pins=pins)
