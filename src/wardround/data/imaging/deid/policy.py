"""What to remove and what to keep: a small YAML file that a hospital's data protection officer can read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from wardround.config.job import Node
from wardround.config.load import parse_yaml
from wardround.data.imaging.deid.held import Held
from wardround.errors import ConfigError


class Rules(Node):
    """Choices within the Basic Profile of DICOM PS3.15 Annex E, and beyond it."""

    burned_in: Literal["blank", "refuse", "keep"] = "blank"
    """Text found in the pixels: blanked, or the file refused. `keep` looks at nothing; it is for phantoms."""
    dates: Literal["remove", "shift"] = "remove"
    """`shift` is the option Retain Longitudinal Temporal Information with Modified Dates: whole days, the same a patient."""
    device: bool = False
    """The option Retain Device Identity: station name, serial numbers."""
    patient: bool = True
    """The option Retain Patient Characteristics: sex, age (over 89 binned), size, weight."""
    face: Literal["remove", "warn", "keep"] = "remove"
    """Head CT and MR: the face is removed where orientation and vertex are known, else warned of; `warn` only warns."""
    sites: Literal["pseudonym", "keep"] = "pseudonym"
    """Names of hospitals in tables."""
    columns: dict[str, Literal["keep", "drop", "map", "patient", "age", "interval"]] = Field(default_factory=dict)
    """Of tables: what to do with a column, instead of what its name and values suggest."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The rules, and the secrets that stay at the hospital.

    Attributes:
        rules: what to do.
        held: pseudonyms, shifts and UIDs.
    """

    rules: Rules
    held: Held

    @classmethod
    def open(cls, folder: Path | str, rules: Rules | None = None) -> Policy:
        """A policy whose secrets lie in `folder`, which is made with new ones where it does not exist.

        Raises:
            StorageError: the folder cannot be made or written.
            DataError: what lies in it is damaged.
        """
        return cls(rules=rules or Rules(), held=Held.open(Path(folder)))


def read_rules(path: Path | str) -> Rules:
    """Rules from a YAML file. Raises ConfigError that names the key, its value and what was expected."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the policy {path} cannot be read: {error}") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree or {}, dict):
        raise ConfigError(f"{path}: a policy is a mapping such as 'dates: shift', and this is a {type(tree).__name__}")
    try:
        return Rules.model_validate(tree or {})
    except ValidationError as error:
        faults = "; ".join(
            f"unknown key '{'.'.join(map(str, item['loc']))}': known here: {', '.join(Rules.model_fields)}"
            if item["type"] == "extra_forbidden"
            else f"{'.'.join(map(str, item['loc']))} = {item['input']!r}: {item['msg']}"
            for item in error.errors()
        )
        raise ConfigError(f"{path}: {faults}") from error
