"""What each layer of a model costs in ciphertexts."""

from __future__ import annotations

from collections.abc import Mapping

from wardround.encoding.layout import Layout


def ciphertexts(layout: Layout, per: int, slots: int) -> Mapping[str, float]:
    """Ciphertexts that each entry of a layout takes, as fractions: entries lie side by side and share ciphertexts.

    Args:
        layout: the vector of digits.
        per: digits an element.
        slots: elements a ciphertext (`Ring.slots`).

    Returns:
        flat name -> ciphertexts. Times the bytes of one (a message's `lengths`), bytes on the wire. What is left of the last
        ciphertext belongs to no entry.
    """
    return {entry.flat: entry.digits / (per * slots) for entry in layout.entries}
