"""Patients dealt evenly at random."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wardround.data.partitions.patients import Ints, Patients


class IID:
    """Sites differ by one patient at most."""

    advice = "use fewer sites"

    def deal(self, patients: Patients, sites: int, rng: np.random.Generator) -> Iterator[Ints]:
        """See `Dealing.deal`; a single draw where all patients have as many rows."""
        while True:
            owner = np.empty(len(patients), dtype=np.int64)
            owner[rng.permutation(len(patients))] = np.arange(len(patients)) * sites // len(patients)
            yield owner
            if patients.rows.min() == patients.rows.max():
                return
