"""A project between hospitals, as one YAML file says it: who takes part, and where the coordinator is."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wardround.config.load import parse_yaml
from wardround.deploy.names import check_name
from wardround.errors import ConfigError

Role = Literal["coordinator", "site", "submitter"]
_HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


class Strict(BaseModel):
    """A node that refuses keys it does not know and takes no value for another's kind."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, validate_default=True
    )


class CoordinatorSpec(Strict):
    """The machine that sites reach."""

    name: str = "coordinator"
    """Its name."""
    addresses: Annotated[list[str], Field(min_length=1)]
    """Host names and IP addresses at which sites reach it; the first is the one that they dial."""
    port: Annotated[int, Field(ge=1, le=65535)] = 443
    """TCP port that sites dial."""

    @field_validator("addresses")
    @classmethod
    def _addresses(cls, value: list[str]) -> list[str]:
        for address in value:
            if not is_address(address):
                raise ValueError(f"{address!r:.100}: expected a host name or an IP address, without scheme and port")
        return value


class ValiditySpec(Strict):
    """How long things hold, in days."""

    identity: Annotated[int, Field(ge=1, le=3650)] = 365
    """Keys of coordinator, sites and submitters, from their enrolment."""
    server: Annotated[int, Field(ge=1, le=825)] = 365
    """The coordinator's TLS certificate."""
    authority: Annotated[int, Field(ge=1, le=7300)] = 3650
    """The project's own authority."""
    warning: Annotated[int, Field(ge=1)] = 30
    """How long before an end `deploy check` begins to warn."""


class Project(Strict):
    """All of the file."""

    project: str
    """The project's name."""
    coordinator: CoordinatorSpec
    """The machine that sites reach."""
    sites: Annotated[list[str], Field(min_length=1)]
    """Names of the hospitals."""
    submitters: list[str] = Field(default_factory=list)
    """Names of the people who may sign jobs; sites choose among them in their policy."""
    validity: ValiditySpec = ValiditySpec()
    """How long things hold."""

    @model_validator(mode="after")
    def _names(self) -> Project:
        named = [("project", self.project), ("coordinator.name", self.coordinator.name)]
        named += [("sites", name) for name in self.sites] + [("submitters", name) for name in self.submitters]
        for where, name in named:
            try:
                check_name(name, where)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        names = [name for _, name in named[1:]]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is named twice: each party has one name, over all roles")
        return self

    def roles(self) -> dict[str, Role]:
        """Name -> role."""
        return {
            self.coordinator.name: "coordinator",
            **dict.fromkeys(self.sites, "site"),
            **dict.fromkeys(self.submitters, "submitter"),
        }


def is_address(text: str) -> bool:
    """Whether a text is a host name or an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOST.fullmatch(text) is not None
    return True


def read_project(path: Path) -> Project:
    """Read a project's file.

    Raises:
        ConfigError: absent, not YAML, an unknown key, a name that is none, or a name given twice.
    """
    return read_strict(path, Project, "a project")


Read = TypeVar("Read", bound=Strict)


def read_strict(path: Path, kind: type[Read], what: str) -> Read:
    """Read a YAML file into a strict model.

    Raises:
        ConfigError: absent, not YAML, an unknown key, or a value that the model does not take.
    """
    return strict_from(parse_yaml(read_settings(path, what), str(path)), kind, str(path))


def read_settings(path: Path, what: str) -> str:
    """The text of a file of settings. Raises ConfigError where it is absent or cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}: give the path of {what}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def strict_from(tree: Any, kind: type[Read], where: str) -> Read:
    """A strict model from plain values; ConfigError names each key that it does not take."""
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected keys and values, and it is a {type(tree).__name__}")
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_said(item) for item in error.errors())) from error


def _said(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown key '{place}'"
    if item["type"] == "missing":
        return f"key '{place}' is missing"
    reason = str(item["msg"]).removeprefix("Value error, ")
    given = "" if isinstance(item["input"], dict) else f" = {item['input']!r:.100}"
    return f"{place}{given}: {reason}" if place else reason
