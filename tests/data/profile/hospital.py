"""A made-up hospital table with names and doctors: what must be found before such a table is shared."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

GIVEN = ("Anna", "Maria", "Peter", "Thomas", "Laura", "Julia", "Martin", "Sofia", "Paul", "Elena", "Jan", "Clara")
FAMILY = ("Berger", "Novak", "Rossi", "Lindqvist", "Moreau", "Okafor", "Haddad", "Kowalski", "Silva", "Brandt")
DOCTORS = ("Dr. Weiss", "Dr. Amann", "Dr. Castell", "Dr. Ferro", "Dr. Ilic", "Dr. Osei")
SITES = ("north", "south", "harbour", "hill")
IDENTIFIERS = ("patient_name", "date_of_birth", "mrn", "email", "phone", "home_address", "attending")
"""Columns that say who somebody is."""


def rows(count: int = 600, seed: int = 0) -> list[dict[str, str]]:
    """Rows with every trap planted once; the last three of `hill` are alone in that site and of one class."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        given, family = draw.choice(GIVEN), draw.choice(FAMILY)
        ill = draw.random() < 0.4
        site = "hill" if number >= count - 3 else str(draw.choice(SITES[:3]))
        if site == "hill":
            ill = False
        made.append(
            {
                "patient_name": f"{given} {family}",
                "date_of_birth": f"19{draw.integers(30, 99)}-{draw.integers(1, 13):02d}-{draw.integers(1, 29):02d}",
                "mrn": f"MRN-{100000 + number * 7}",
                "email": f"{given}.{family}{number}@example.org".lower(),
                "phone": f"+49 170 {draw.integers(1000000, 9999999)}",
                "home_address": f"{draw.integers(1, 200)} Mill Street",
                "attending": str(draw.choice(DOCTORS)),
                "hospital": site,
                "age": str(draw.integers(18, 95)),
                "sex": str(draw.choice(["f", "m"])),
                # 0 means not measured
                "cholesterol": "0" if draw.random() < 0.15 else f"{draw.normal(210, 35):.0f}",
                # 999 means not measured
                "heart_rate": "999" if draw.random() < 0.05 else f"{draw.normal(75 + 6 * ill, 10):.0f}",
                "smoker": str(draw.choice(["yes", "no", "unknown"], p=[0.3, 0.6, 0.1])),
                "ward": "A",
                # written when the outcome is known
                "discharge_code": ("7" if ill else str(draw.choice(["1", "2", "3"]))),
                "marker": f"{draw.normal(1.5 if ill else 0, 1):.3f}",
                "remarks": f"Seen by {draw.choice(DOCTORS)} who spoke with {given} {family} about result {number}",
                "ill": "1" if ill else "0",
            }
        )
    return made


def write(path: Path, made: list[dict[str, str]]) -> Path:
    """A CSV file with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(made[0]))
        writer.writeheader()
        writer.writerows(made)
    return path
