"""A job as it travels: data, signed by whoever submits it, naming the sites it needs by their keys.

The run's id is the job's name and the first digits of a SHA-256 over all that is signed, so that one id is one job. Code does
not travel: a plug-in is named with the SHA-256 of its file, and a site runs the file that lies in its own folder of plug-ins.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from wardround.config.job import Job
from wardround.config.load import from_mapping, parse_yaml
from wardround.config.plugins import only_from
from wardround.deploy import canonical
from wardround.deploy.identity import Identity, IdentityRefused, Pins, fingerprint
from wardround.deploy.names import check_name, is_name
from wardround.errors import ConfigError, DataError, MessageError, Refused
from wardround.types import Json

LABEL = b"wardround/job/1\x00"
LIMIT = 2**20
"""Longest signed job in bytes."""
_PLUGIN_LIMIT = 4 * 2**20
"""Longest file of a plug-in in bytes."""
_ID_DIGITS = 16
_NONCE = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MARK = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_FILES = ("file", "path", "root", "schema")
"""Options of datasets that name files; a schema may be its content as well."""
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, kw_only=True)
class SignedJob:
    """A job with its signature.

    Attributes:
        job_yaml: the whole job, defaults included, as canonical JSON (which is YAML too).
        submitter: who signed it.
        sites: name -> fingerprint of the sites that it needs: no others may take part.
        created: when, by the submitter's clock.
        nonce: 32 hexadecimal digits, so that the same job submitted again is another run.
        plugins: `module:Class` -> SHA-256 of the module's file.
        signature: the submitter's, 64 bytes.
    """

    job_yaml: bytes
    submitter: str
    sites: Mapping[str, str]
    created: str
    nonce: str
    plugins: Mapping[str, str]
    signature: bytes

    @property
    def id(self) -> str:
        """The run's id: the job's name, as far as a name may go, and 16 digits."""
        slug = re.sub(r"[^a-z0-9_-]+", "-", str(canonical.parse(self.job_yaml, "the job").get("name", "run")).lower())
        return f"{slug.strip('-_')[:40] or 'run'}-{self.digest[:_ID_DIGITS]}"

    @property
    def digest(self) -> str:
        """SHA-256 of all that is signed, hexadecimal."""
        return hashlib.sha256(self.signed()).hexdigest()

    @property
    def job(self) -> Job:
        """The job itself.

        Raises:
            ConfigError: it has a key or a value that this version does not know.
        """
        return from_mapping(canonical.parse(self.job_yaml, "the job"), where=f"job of {self.submitter}")

    def signed(self) -> bytes:
        """What the signature is over."""
        return LABEL + canonical.encode(self._tree())

    def to_bytes(self) -> bytes:
        """As it travels and lies on the disk: canonical JSON."""
        return canonical.encode({**self._tree(), "signature": self.signature.hex()})

    @classmethod
    def from_bytes(cls, data: bytes) -> SignedJob:
        """The signed job in `data`, unchecked but for its form.

        Raises:
            MessageError: not one.
        """
        if len(data) > LIMIT:
            raise MessageError(f"a signed job of {len(data)} bytes, and at most {LIMIT} are taken")
        what = "a signed job"
        tree = canonical.parse(data, what)
        found = cls(
            job_yaml=canonical.encode(canonical.member(tree, "job", dict, what)),
            submitter=canonical.member(tree, "submitter", str, what),
            sites=canonical.member(tree, "sites", dict, what),
            created=canonical.member(tree, "created", str, what),
            nonce=canonical.member(tree, "nonce", str, what),
            plugins=canonical.member(tree, "plugins", dict, what),
            signature=_hex(canonical.member(tree, "signature", str, what)),
        )
        canonical.time_from(found.created, what)
        sound = (
            found.to_bytes() == data
            and is_name(found.submitter)
            and _NONCE.fullmatch(found.nonce)
            and found.sites
            and all(is_name(name) and _fits(_MARK, mark) for name, mark in found.sites.items())
            and all(_fits(_REFERENCE, name) and _fits(_DIGEST, digest) for name, digest in found.plugins.items())
        )
        if not sound:
            raise MessageError("a signed job has members of another form: it was made by another version, or by hand")
        return found

    def verify(self, pins: Pins, *, me: str | None = None, now: datetime | None = None) -> None:
        """Check the submitter's signature, and that each site it needs is the one that is pinned here.

        Args:
            pins: who is trusted.
            me: the site that was asked, which must be among those needed; None at a coordinator.
            now: the time here.

        Raises:
            IdentityRefused: a stranger, who may not submit, a revoked or expired key, or a job that was altered.
            Refused: a site that it needs is not pinned here, has another key, or this site is not among them.
        """
        pins.verify(self.submitter, self.signed(), self.signature, now=now)
        pins.check_role(self.submitter, "submitter", "coordinator")
        for name, mark in sorted(self.sites.items()):
            try:
                pinned = fingerprint(pins.key(name, now=now))
                pins.check_role(name, "site")
            except IdentityRefused as error:
                raise Refused(f"job {self.id} needs site {name} ({mark}): {error}") from error
            if pinned != mark:
                raise Refused(
                    f"job {self.id} needs site {name} with key {mark}, and {pinned} is pinned here: join the newest roster, and "
                    "ask the submitter to sign the job anew"
                )
        if me is not None and me not in self.sites:
            raise Refused(
                f"job {self.id} needs {', '.join(sorted(self.sites))}, and this is {me}: it is not for this site"
            )

    def _tree(self) -> dict[str, Json]:
        return {
            "job": canonical.parse(self.job_yaml, "the job"),
            "submitter": self.submitter,
            "sites": dict(self.sites),
            "created": self.created,
            "nonce": self.nonce,
            "plugins": dict(self.plugins),
        }


def sign_job(
    identity: Identity, job: Job, sites: Mapping[str, str], *, plugins: Path | None = None, now: datetime | None = None
) -> SignedJob:
    """Sign a job for the sites that it needs.

    Args:
        identity: of the submitter.
        job: the job.
        sites: name -> fingerprint.
        plugins: the folder with the files of the job's plug-ins, where it names any.
        now: the time here.

    Raises:
        ConfigError: no site, a malformed name, or a plug-in whose file is not there.
    """
    if not sites:
        raise ConfigError("a job needs sites, and none is named: name them as the roster does")
    for name in sites:
        check_name(name, "a site that the job needs")
    found = sorted({reference for _, reference in references(job)})
    if found and plugins is None:
        raise ConfigError(f"the job names plug-ins ({', '.join(found)}), and no folder of their files was given")
    unsigned = SignedJob(
        job_yaml=canonical.encode(job.model_dump(mode="json")), submitter=identity.name, sites=dict(sites),
        created=canonical.time_text(now or canonical.now()), nonce=secrets.token_hex(16),
        plugins={name: plugin_hash(plugins, name) for name in found} if plugins is not None else {}, signature=b"",
    )  # fmt: skip
    return SignedJob(**{**vars(unsigned), "signature": identity.sign(unsigned.signed())})


# -------------------------------------------------------------------------------------------------------- plug-ins


def references(job: Job) -> Iterator[tuple[str, str]]:
    """(key, `module:Class`) of every text in the job that could name an object to import, options included.

    Whatever has this form counts, wherever it stands: a name that is imported somewhere must not slip through because a list
    of keys was not kept up to date.
    """
    yield from _references(job.model_dump(mode="json"), "")


def _references(value: Json, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if _REFERENCE.fullmatch(value):
            yield key, value
    elif isinstance(value, Mapping):
        for name, member in value.items():
            yield from _references(member, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for number, member in enumerate(value):
            yield from _references(member, f"{key}.{number}")


def named_files(job: Job) -> Iterator[tuple[str, Json]]:
    """(option, value) of the dataset's options that would name files of whichever machine reads the job."""
    for name, value in job.data.options.items():
        if name in _FILES and not (name == "schema" and isinstance(value, Mapping)):
            yield name, value


def plugin_file(folder: Path, reference: str) -> Path:
    """The file that a plug-in lies in: FOLDER/module.py. Nothing is imported.

    Raises:
        ConfigError: not `module:Class` with a plain module, a module that is installed or belongs to Python, whose code would
            run instead of the file's, or no such file.
    """
    module, _, attribute = reference.partition(":")
    if not module.isidentifier() or not attribute.isidentifier():
        raise ConfigError(
            f"plug-in {reference!r:.100}: between hospitals it is 'module:Class', one file without packages"
        )
    elsewhere = [path for path in sys.path if Path(path or ".").resolve() != folder.resolve()]
    if module in sys.stdlib_module_names or PathFinder.find_spec(module, elsewhere) is not None:
        raise ConfigError(
            f"plug-in {reference!r}: {module} is installed here, and would run instead of the file: rename it"
        )
    path = folder / f"{module}.py"
    if path.is_symlink() or not path.is_file():
        raise ConfigError(f"plug-in {reference!r}: there is no file {path}; put it there")
    return path


def plugin_hash(folder: Path, reference: str) -> str:
    """SHA-256 of the file that a plug-in lies in.

    Raises:
        ConfigError: as `plugin_file`.
        DataError: the file cannot be read.
    """
    return hashlib.sha256(_plugin_bytes(folder, reference)).hexdigest()


def plugin_source(folder: Path, reference: str, approved: Mapping[str, str]) -> tuple[bytes, str]:
    """The bytes of an approved plug-in, read once, so that what was checked is what is run, and the path of its file.

    Args:
        folder: of plug-ins.
        reference: `module:Class`.
        approved: `module:Class` -> SHA-256.

    Raises:
        Refused: it is not approved, or its file is another one.
        ConfigError, DataError: as `plugin_hash`.
    """
    wanted = approved.get(reference)
    if wanted is None:
        raise Refused(f"plug-in {reference!r:.100}: it is not approved here, and nothing of it was imported")
    data = _plugin_bytes(folder, reference)
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise Refused(f"plug-in {reference!r}: the file {wanted} is approved, and in {folder} lies {found}")
    return data, str(folder / f"{reference.partition(':')[0]}.py")


def approved_plugins(folder: Path, approved: Callable[[], Mapping[str, str]]) -> AbstractContextManager[None]:
    """Within it, the code of a plug-in is the bytes of a file in `folder` that is approved then; nothing else is imported."""
    return only_from(lambda reference: plugin_source(folder, reference, approved()))


def read_approved(path: Path) -> dict[str, str]:
    """A coordinator's own list of plug-ins: YAML, `module:Class` -> SHA-256 of `plugins/module.py`; {} without the file.

    Raises:
        ConfigError: of another form.
    """
    if not path.exists():
        return {}
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"), str(path)) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected `module:Class: SHA-256` in each line, and this is a {type(tree).__name__}")
    for name, digest in tree.items():
        if not (_fits(_REFERENCE, name) and _fits(_DIGEST, digest)):
            raise ConfigError(
                f"{path}: {name!r:.100}: {digest!r:.100}: expected module:Class and 64 hexadecimal digits"
            )
    return tree


def check_plugins(signed: SignedJob, folder: Path, approved: Mapping[str, str]) -> None:
    """Whether all code that a job names is approved here, and the file that it means. Nothing is imported.

    Raises:
        Refused: it is not.
        ConfigError, DataError: as `plugin_hash`.
    """
    for key, reference in references(signed.job):
        wanted, named = approved.get(reference), signed.plugins.get(reference)
        if wanted is None:
            raise Refused(
                f"{key} = {reference!r:.100}: it names code that is not approved here: read its file, put it into {folder}, and "
                f"add its SHA-256 to {folder.with_suffix('.yaml')}"
            )
        if named != wanted:
            raise Refused(f"{key} = {reference!r}: the file {wanted} is approved here, and the job means {named}")
        plugin_source(folder, reference, approved)


def _plugin_bytes(folder: Path, reference: str) -> bytes:
    path = plugin_file(folder, reference)
    try:
        # neither a link nor a pipe that was put there since
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"plug-in {reference!r}: {path} is no file")
            data = file.read(_PLUGIN_LIMIT + 1)
    except OSError as error:
        raise DataError(f"plug-in {reference!r}: {path} cannot be read: {error.strerror or error}") from error
    if len(data) > _PLUGIN_LIMIT:
        raise ConfigError(f"plug-in {reference!r}: {path} is longer than {_PLUGIN_LIMIT} bytes")
    return data


def _fits(form: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _hex(text: str) -> bytes:
    if _SIGNATURE.fullmatch(text) is None:
        raise MessageError("the signature of a job is not 128 hexadecimal digits")
    return bytes.fromhex(text)
