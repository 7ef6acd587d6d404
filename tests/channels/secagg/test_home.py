"""Identities of a process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wardround.channels.home import Home
from wardround.errors import IdentityError


def test_simulated_sites_trust_each_other() -> None:
    home = Home.simulated(["a", "b"])
    assert home.folder is None
    for site, identity in home.identities.items():
        identity.public_key().verify(identity.sign(b"x"), b"x")
        assert home.pins[site] == identity.public_key().public_bytes_raw()
    assert Home.simulated(["a"]).pins["a"] != home.pins["a"]
    assert "private" not in repr(home.pins)


def test_a_site_s_own_key_must_be_the_pinned_one() -> None:
    home, other = Home.simulated(["a", "b"]), Home.simulated(["a", "b"])
    with pytest.raises(IdentityError, match="site 'a' has a signing key"):
        replace(home, pins={**home.pins, "a": other.pins["a"]})
    with pytest.raises(IdentityError, match="site 'b'"):
        replace(home, pins={"a": home.pins["a"]})
    replace(home, identities={"a": home.identities["a"]})  # a hospital: one identity, everybody's pins
