"""Names that both sides of homomorphic encryption use."""

from __future__ import annotations

KEYS, MAKE, TAKE, REVEAL = "he-keys", "he-make", "he-take", "reveal"
"""Stages."""
GROUP, BOX = "he_group", "he_box"
"""Key of a message's meta with the sites and the parameter set; name of the fact that holds a site's box."""
ASKED, ABSTAINED = "asked", "abstained"
"""Members of a request to open: what the members of the sum were asked (`asked_of`, hexadecimal), and whose part is nothing."""
ELEMENTS = "elements"
"""The array that an opened sum comes in."""
DEFAULT_SITES = 128
"""Sites of the largest sum, where nobody says how many there are."""
LEAST_MEMBERS = 3
"""Of a sum of two, each site knows the other's part."""
