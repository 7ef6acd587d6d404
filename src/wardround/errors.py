"""The error tree. Every error names the thing, its value, what was expected and what to do.

    WardroundError            70  internal, unless a subclass says otherwise
    |- ConfigError             2  the job file or the command line
    |- DataError               3  records that are absent, malformed or too few
    |- QuorumLost              4  too few sites answered
    |- Refused                 5  by policy or for privacy
    |- RunError                6  a run folder that is damaged, or does not belong to this job
    |- IdentityError           7  identity or cryptographic failure
    |- StorageError            8  a disk that cannot be written
    `- MessageError           70  bytes from another machine that are not a message

130 is an interruption by the user; 0 is done.
"""

from __future__ import annotations


class WardroundError(Exception):
    """The root of everything this package raises on purpose."""

    exit_code = 70


class ConfigError(WardroundError):
    """The job is not one that can run: an unknown key, a value out of range, a combination that means nothing."""

    exit_code = 2


class DataError(WardroundError):
    """Records are absent, malformed, or too few for what was asked."""

    exit_code = 3


class QuorumLost(WardroundError):
    """Fewer sites contributed than the job's quorum."""

    exit_code = 4


class Refused(WardroundError):
    """A policy or a privacy rule forbids it."""

    exit_code = 5


class RunError(WardroundError):
    """A run folder is damaged, or its job is not the one given."""

    exit_code = 6


class IdentityError(WardroundError):
    """An identity could not be checked, or a cryptographic step failed."""

    exit_code = 7


class StorageError(WardroundError):
    """A file could not be written: no space, no permission."""

    exit_code = 8


class MessageError(WardroundError):
    """Bytes that came from another machine are not a message of this protocol."""


INTERRUPTED = 130


def missing_extra(package: str, extra: str) -> ConfigError:
    """The error for an optional dependency that is not installed."""
    return ConfigError(f'{package} is not installed, and this needs it: pip install "wardround[{extra}]"')
