"""What a site needs before it can take part, looked at one thing at a time: its folder, its records, its way to the coordinator.

The way is walked as the site's relay walks it: the proxy that the environment names (or none), TCP, TLS with the project's own
authority, and one call to Flower's Fleet interface, which is refused because it is not signed. The answer's `Date` is the
coordinator's clock.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import shutil
import socket
import ssl
import stat
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from wardround.deploy import checkup
from wardround.deploy.kit import PartyFolder, party_folder
from wardround.errors import ConfigError, IdentityError, MessageError, WardroundError

if TYPE_CHECKING:
    from wardround.config.job import Job

AHEAD, BEHIND = 5.0, 300.0
"""Seconds that a site's clock may be ahead of the coordinator's and behind it: Flower takes no call that is signed outside."""
_UNSURE = 2.0
"""Seconds that a whole-second date and the way of the answer may hide."""
_SECONDS = 10.0
_WARN_DAYS = 30
_LEAST_BYTES, _SPARE_BYTES = 2**28, 2**30
_CALL = "/v1/fleet/pull-messages"
_LEVELS: dict[str, Literal["good", "note", "bad"]] = {"ok": "good", "warning": "note", "error": "bad"}
_FLOWER = (1, 41)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing that was looked at.

    Attributes:
        state: `good`, `note` or `bad`.
        what: which thing.
        found: in words.
        remedy: what to do; empty where nothing is.
    """

    state: Literal["good", "note", "bad"]
    what: str
    found: str
    remedy: str = ""


class _Broken(Exception):
    """The way ends here."""

    def __init__(self, what: str, found: str, remedy: str) -> None:
        super().__init__(found)
        self.line = Line(state="bad", what=what, found=found, remedy=remedy)


def diagnose(path: Path) -> list[Line]:
    """Look at all of it; nothing is changed.

    Args:
        path: a site's folder.

    Raises:
        ConfigError: there is no site's folder.
    """
    folder = party_folder(path)
    if folder.role != "site":
        raise ConfigError(f"{path} belongs to {folder.name}, a {folder.role}: give a site's folder")
    return [*_versions(), *_folder(folder), *_policy(folder), *_disk(folder), *_process(folder), *_way(folder)]


# ------------------------------------------------------------------------------------------------------- this machine


def _versions() -> Iterator[Line]:
    from wardround import __version__
    from wardround.deploy.supervise import interpreter

    yield Line(state="good", what="wardround", found=__version__)
    try:
        python = interpreter()
        asked = "import importlib.metadata as m; print(m.version('flwr'))"
        told = subprocess.run([python, "-c", asked], capture_output=True, text=True, timeout=60, check=False)
    except ConfigError as error:
        yield Line(state="bad", what="Flower", found=str(error), remedy="install it as the message says")
        return
    except (OSError, subprocess.SubprocessError) as error:
        yield Line(state="bad", what="Flower", found=f"its interpreter does not run: {error}", remedy="install it anew")
        return
    version = told.stdout.strip()
    fitting = version.split(".")[:2] == [str(part) for part in _FLOWER]
    yield Line(
        state="good" if fitting else "bad", what="Flower", found=f"{version or 'not installed'}, of {python}",
        remedy="" if fitting else "this version of wardround speaks to 1.41: pip install flwr==1.41.0 there",
    )  # fmt: skip


def _folder(folder: PartyFolder) -> Iterator[Line]:
    """What `deploy check` finds, and who else could read or change the folder."""
    try:
        for one in checkup.check(folder.path):
            remedy = "" if one.level == "ok" else "as the line says; `wardround deploy check DIR` shows it alone"
            yield Line(state=_LEVELS[one.level], what=one.what, found=one.text, remedy=remedy)
    except (IdentityError, ConfigError, MessageError, OSError) as error:
        yield Line(state="bad", what="folder", found=str(error), remedy="restore the folder from a backup")
    if os.name != "posix":
        return
    for path, forbidden, remedy in (
        (folder.path, 0o077, "chmod 700"), (folder.policy_path, 0o022, "chmod go-w"), (folder.plugins, 0o022, "chmod go-w")
    ):  # fmt: skip
        if not path.exists():
            continue
        found = path.stat()
        mode = stat.S_IMODE(found.st_mode)
        if mode & forbidden:
            yield Line(state="bad", what="permissions", found=f"{path} has mode {mode:04o}", remedy=f"{remedy} {path}")
        elif found.st_uid != os.geteuid():
            yield Line(
                state="note", what="permissions", found=f"{path} belongs to user {found.st_uid}, and this is {os.geteuid()}",
                remedy="run this as the user that runs the site",
            )  # fmt: skip


def _policy(folder: PartyFolder) -> Iterator[Line]:
    """Whether the policy lets anything in, and whether the records that it binds can be read."""
    try:
        policy = folder.policy()
    except ConfigError:
        return  # `deploy check` has said it
    if not policy.data or not policy.allow.submitters:
        yield Line(
            state="note", what="policy", found="it binds no dataset or lists no submitter, so every job is refused",
            remedy=f"edit {folder.policy_path}: docs/deploy/policy.md",
        )  # fmt: skip
    if not policy.schedule.is_open(datetime.now(UTC)):
        opens = policy.schedule.next_open(datetime.now(UTC))
        yield Line(state="note", what="schedule", found=f"closed until {opens:%Y-%m-%d %H:%M} UTC: requests wait")
    for name, binding in policy.data.items():
        what, options = f"data {name}", binding.options
        if binding.from_job:
            job = _latest(folder, name)
            if job is None:
                yield _unread(what, binding.options, binding.from_job)
                continue
            options = policy.tighten(job).data.options
        yield _records(folder, what, binding.dataset, options, policy.cohort.minimum_rows)


def _latest(folder: PartyFolder, name: str) -> Job | None:
    """The newest job for a dataset that came here."""
    approvals = folder.approvals()
    with contextlib.suppress(WardroundError):
        for decision in sorted(approvals.decisions(), key=lambda one: one.time, reverse=True):
            job = approvals.signed(decision.job).job
            if job.data.dataset == name:
                return job
    return None


def _unread(what: str, options: Mapping[str, Any], awaited: Sequence[str]) -> Line:
    """A binding that needs a job to be read: at least its files are looked for."""
    for key, value in options.items():
        if isinstance(value, str) and Path(value).is_absolute() and not os.access(value, os.R_OK):
            return Line(
                state="bad", what=what, found=f"{key} = {value}: there is no such file, or it cannot be read",
                remedy="mend the binding in site.yaml, or the rights of this user",
            )  # fmt: skip
    text = f"{', '.join(awaited)} comes with a job, so no rows are counted yet"
    return Line(state="note", what=what, found=text, remedy="run this again when a job waits")


def _records(folder: PartyFolder, what: str, dataset: str, options: Mapping[str, Any], least: int) -> Line:
    from wardround.config.job import DataSpec
    from wardround.data import registry
    from wardround.data.check import check_records

    if ":" in dataset:
        text = f"{dataset} is a plug-in: it is loaded when an approved job asks for it, and not here"
        return Line(state="note", what=what, found=text)
    try:
        made = registry.build(DataSpec(dataset=dataset, options=dict(options)))
        description = made.describe()
        own = folder.name if folder.name in description.sites or len(description.sites) > 1 else description.sites[0]
        data = made.load(own)
        check_records(description, {folder.name: data})
    except (WardroundError, OSError, ValueError, KeyError) as error:
        text = str(error) if isinstance(error, WardroundError) else f"{type(error).__name__} while reading {dataset}"
        return Line(
            state="bad", what=what, found=text, remedy="mend the binding in site.yaml, or WARDROUND_DATA, or the files"
        )
    rows, patients = len(data.labels), len(set(data.patients.tolist()))
    text = f"{rows} rows of {patients} patients, by {dataset}"
    if rows < least:
        return Line(
            state="bad", what=what, found=f"{text}; cohort.minimum_rows is {least}",
            remedy="every job will be refused: the policy asks for more rows than there are",
        )  # fmt: skip
    return Line(state="good", what=what, found=text)


def _disk(folder: PartyFolder) -> Iterator[Line]:
    spare = shutil.disk_usage(folder.path).free
    text = f"{spare / 2**30:.1f} GiB free at {folder.path}"
    if not os.access(folder.path, os.W_OK):
        yield Line(
            state="bad", what="disk", found=f"{folder.path} cannot be written",
            remedy="let the site's user own the folder",
        )  # fmt: skip
    elif spare < _LEAST_BYTES:
        yield Line(state="bad", what="disk", found=text, remedy="make room: state and messages are kept on the disk")
    else:
        few = spare < _SPARE_BYTES
        yield Line(state="note" if few else "good", what="disk", found=text, remedy="make room soon" if few else "")


def _process(folder: PartyFolder) -> Iterator[Line]:
    from wardround.deploy import operate

    try:
        told = operate.status(folder.path)
    except WardroundError as error:
        yield Line(state="note", what="process", found=str(error))
        return
    if not told["running"]:
        yield Line(state="note", what="process", found="not running", remedy="wardround deploy site start DIR")
        return
    doing = told.get("doing", "")
    if told.get("connected"):
        yield Line(state="good", what="process", found=f"running, connected, {doing}")
        return
    cause = str(told.get("cause") or "no cause yet")
    remedy = "see the lines below, and `wardround deploy site logs DIR`"
    if cause.startswith("HTTP 412"):  # how Flower refuses a node key
        remedy = "the coordinator does not take this node key: not enrolled, revoked, or in use by another process; ask there"
    yield Line(state="bad", what="process", found=f"running, not connected, {doing}: {cause}", remedy=remedy)


# ---------------------------------------------------------------------------------------------------------- the way


@dataclass(frozen=True, kw_only=True)
class _Proxy:
    """An HTTP proxy that the environment names."""

    host: str
    port: int
    credentials: str

    @property
    def text(self) -> str:
        return f"{self.host}:{self.port}"


def _way(folder: PartyFolder) -> Iterator[Line]:
    """From here to the coordinator, step by step, as far as it goes."""
    host, port = _address(folder)
    try:
        proxy = _proxy(host)
        if proxy is None:
            yield Line(state="good", what="proxy", found="none: a direct connection")
        else:
            yield Line(state="good", what="proxy", found=f"{proxy.text}, as the environment says")
        yield _resolved(*((host, port) if proxy is None else (proxy.host, proxy.port)), port_of=proxy is not None)
        with _connected(host, port, proxy) as plain:
            through = f" through {proxy.text}" if proxy else ""
            yield Line(state="good", what="TCP", found=f"{host}:{port}{through} takes connections")
            with _secured(folder, plain, host) as channel:
                yield _certificate(channel)
                yield from _answered(channel, host)
    except _Broken as broken:
        yield broken.line


def _address(folder: PartyFolder) -> tuple[str, int]:
    host, _, port = folder.address.rpartition(":")
    return host.strip("[]"), int(port)


def _proxy(host: str) -> _Proxy | None:
    """The proxy that the relay uses: HTTPS_PROXY or ALL_PROXY, but for what NO_PROXY names."""
    named = urllib.request.getproxies()
    address = named.get("https") or named.get("all")
    if not address or urllib.request.proxy_bypass(host):
        return None
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if parts.scheme != "http" or not parts.hostname:
        raise _Broken(
            "proxy", f"the environment names {parts.scheme}://{parts.hostname or '?'}: expected http://HOST:PORT",
            "set HTTPS_PROXY=http://HOST:PORT for the site's process",
        )  # fmt: skip
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    return _Proxy(host=parts.hostname, port=parts.port or 80, credentials=user)


def _resolved(host: str, port: int, *, port_of: bool) -> Line:
    try:
        found = sorted({str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except OSError as error:
        remedy = (
            "ask the network's administrators for the proxy's name" if port_of else "ask for its DNS entry; behind a proxy that "
            "resolves names, set HTTPS_PROXY for the site's process"
        )  # fmt: skip
        raise _Broken("DNS", f"{host} has no address here: {error}", remedy) from error
    return Line(state="good", what="DNS", found=f"{host} is {', '.join(found)}")


@contextlib.contextmanager
def _connected(host: str, port: int, proxy: _Proxy | None) -> Iterator[socket.socket]:
    target = (host, port) if proxy is None else (proxy.host, proxy.port)
    try:
        plain = socket.create_connection(target, _SECONDS)
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else str(error.strerror or error)
        remedy = (
            f"let the firewall pass TCP out to {target[0]}:{target[1]}; if it does, ask the coordinator whether it runs"
            if proxy is None
            else "ask the network's administrators for the proxy's port"
        )
        raise _Broken("TCP", f"{target[0]}:{target[1]}: {why}", remedy) from error
    with plain:
        if proxy is not None:
            _tunnel(plain, host, port, proxy)
        yield plain


def _tunnel(plain: socket.socket, host: str, port: int, proxy: _Proxy) -> None:
    """Ask the proxy for a way through (RFC 9110, 9.3.6)."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.credentials:
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(proxy.credentials.encode()).decode()}")
    try:
        plain.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        said = b""
        while b"\r\n\r\n" not in said and len(said) < 2**14:
            more = plain.recv(1)  # no byte of what follows may be taken
            if not more:
                break
            said += more
    except OSError as error:
        raise _Broken("proxy", f"{proxy.text} broke off: {error}", "ask the network's administrators") from error
    status = said.split(b"\r\n", 1)[0].decode("latin-1")[:80]
    if status.split(" ")[1:2] != ["200"]:
        raise _Broken(
            "proxy", f"{proxy.text} does not open {target}: {status or 'no answer'}",
            f"let the proxy pass CONNECT to {target}; 407 means that it wants a name and a password in HTTPS_PROXY",
        )  # fmt: skip


@contextlib.contextmanager
def _secured(folder: PartyFolder, plain: socket.socket, host: str) -> Iterator[ssl.SSLSocket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=str(folder.authority))
    except (OSError, ssl.SSLError) as error:
        text = f"{folder.authority} cannot be used: {error}"
        raise _Broken("TLS", text, "join the roster again, which has it") from error
    try:
        channel = context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise _Broken("TLS", f"the certificate at {host} does not hold: {error.verify_message}", _why(error)) from error
    except (ssl.SSLError, OSError) as error:
        text = f"no TLS with {host}: {getattr(error, 'reason', None) or error}"
        raise _Broken(
            "TLS", text, "what answers there is not the coordinator, or something between breaks TLS"
        ) from error
    with channel:
        yield channel


def _why(error: ssl.SSLCertVerificationError) -> str:
    expired, not_yet = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID
    if error.verify_code == expired:
        return (
            "if this machine's clock is right, the coordinator renews it: wardround deploy rotate DIR --server, restart"
        )
    if error.verify_code == not_yet:
        return "this machine's clock is behind: set it by NTP"
    if "match" in error.verify_message:
        return "the coordinator's name is missing in its certificate: coordinator.addresses, then wardround deploy move DIR"
    return (
        "it is not of the project's authority: a proxy that inspects TLS must leave this address alone; after a rotation of "
        "the authority, join the new roster"
    )


def _certificate(channel: ssl.SSLSocket) -> Line:
    told = channel.getpeercert() or {}
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(told.get("notAfter"))), UTC)
    left = ends - datetime.now(UTC)
    text = f"{channel.version()}, certificate of the project's authority, holds until {ends:%Y-%m-%d}"
    if left < timedelta(days=_WARN_DAYS):
        remedy = "tell the coordinator: wardround deploy rotate DIR --server"
        return Line(state="note", what="TLS", found=f"{text}: {max(left.days, 0)} days are left", remedy=remedy)
    return Line(state="good", what="TLS", found=text)


def _answered(channel: ssl.SSLSocket, host: str) -> Iterator[Line]:
    """One unsigned call: whether a SuperLink refuses it, and what its clock says."""
    channel.sendall(
        f"POST {_CALL} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/protobuf\r\nContent-Length: 0\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    response = http.client.HTTPResponse(channel, method="POST")
    here = datetime.now(UTC)
    try:
        response.begin()
        here = datetime.now(UTC)
    except (OSError, http.client.HTTPException) as error:
        text = f"no answer: {type(error).__name__}"
        raise _Broken("SuperLink", text, "ask the coordinator whether it runs") from error
    yield _spoke(response.status)
    yield _clock(response.getheader("date"), here)


def _spoke(status: int) -> Line:
    if status in (400, 401, 415, 422):
        return Line(state="good", what="SuperLink", found="answers, and refuses a call without a key")
    if status in (502, 503, 504):
        text, remedy = (
            f"HTTP {status}: nginx is there, the coordinator behind it is not",
            "ask the coordinator to start it",
        )
    elif status == 429:
        text, remedy = "HTTP 429: too many calls from this address", "ask the coordinator to raise nginx's limits"
    else:
        text, remedy = f"HTTP {status}, where a call without a key is refused with 401", "something else answers there"
    return Line(state="bad", what="SuperLink", found=text, remedy=remedy)


def _clock(date: str | None, here: datetime) -> Line:
    try:
        there = parsedate_to_datetime(date or "")
    except ValueError:
        return Line(state="note", what="clock", found="the coordinator told no time", remedy="compare clocks by hand")
    if there.tzinfo is None:
        there = there.replace(tzinfo=UTC)
    ahead = (here - there).total_seconds() - 0.5  # the date is cut to whole seconds: half of one on average
    text = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the coordinator's"
    if ahead > AHEAD + _UNSURE or ahead < -BEHIND:
        return Line(
            state="bad", what="clock", found=f"{text}: at most {AHEAD:g} s ahead and {BEHIND:g} s behind are taken",
            remedy="set this machine's clock by NTP; if it is right, tell the coordinator",
        )  # fmt: skip
    if abs(ahead) > _UNSURE:
        return Line(state="note", what="clock", found=text, remedy="set this machine's clock by NTP")
    return Line(state="good", what="clock", found=f"within {_UNSURE:g} s of the coordinator's")
