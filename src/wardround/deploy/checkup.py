"""What holds in a folder, what ends soon, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from wardround.deploy import canonical, pki
from wardround.deploy.kit import CoordinatorFolder, PartyFolder, open_folder
from wardround.errors import ConfigError, IdentityError, MessageError


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of `deploy check`.

    Attributes:
        level: `ok`, `warning` or `error`.
        what: about whom or which file.
        text: in words.
    """

    level: Literal["ok", "warning", "error"]
    what: str
    text: str


def check(path: Path) -> list[Finding]:
    """What holds, what ends soon and what is wrong in a folder."""
    folder = open_folder(path)
    days = folder.project.validity.warning if isinstance(folder, CoordinatorFolder) else 30
    found = [_tried("identity", lambda: folder.identity().fingerprint)]
    try:
        ends = pki.read_certificates(folder.authority)[0].not_valid_after_utc
        found.append(_until("authority", ends, days, "rotate --authority"))
    except IdentityError as error:
        found.append(Finding(level="error", what="authority", text=str(error)))
    if isinstance(folder, CoordinatorFolder):
        certificate, _ = folder.server
        held = pki.validity(certificate)
        found.append(_until("server", held.ends, days, "rotate --server", " for " + ", ".join(held.addresses)))
        found.append(_tried("server", lambda: pki.check_issued(certificate, folder.authority)))
        found.append(_tried("address", folder.settled))
        found += [
            Finding(level="warning", what=name, text="not enrolled yet: their request is awaited")
            for name in folder.project.roles()
            if folder.roster().entry(name) is None
        ]
    elif folder.role == "site":
        found.append(_tried("node key", lambda: pki.sign_with_node_key(folder.node_key, b"check") and "readable"))
        found.append(_tried("policy", lambda: _policy_text(folder)))
    try:
        roster, pins = folder.roster(), folder.pins()
    except (IdentityError, MessageError) as error:
        return [*found, Finding(level="error", what="roster", text=str(error))]
    found.append(Finding(level="ok", what="roster", text=f"serial {roster.serial}, code {roster.code}"))
    for entry in roster.entries:
        if entry.fingerprint in pins.revoked:
            found.append(
                Finding(level="warning", what=entry.name, text=f"{entry.role}, {entry.fingerprint}, revoked here")
            )
            continue
        ends = canonical.time_from(entry.ends, "the roster")
        found.append(_until(entry.name, ends, days, "rotate", f", {entry.role}, {entry.fingerprint}"))
    own = roster.entry(folder.name)
    if found[0].level == "ok" and (own is None or own.fingerprint != found[0].text):
        found.append(
            Finding(level="error", what="roster", text="has another key for this party than identity.pem: join again")
        )
    found += [
        Finding(
            level="error", what=sender, text=f"was active in two places in run {run}; `--clear {sender}` once it is not"
        )
        for sender, run in _contested(folder)
    ]
    return found


def clear(path: Path, sender: str) -> int:
    """Take messages by a sender again that was active in two places; how many runs it was held in."""
    seen = open_folder(path).seen()
    try:
        return seen.clear(sender)
    finally:
        seen.close()


def _contested(folder: CoordinatorFolder | PartyFolder) -> list[tuple[str, str]]:
    if not (folder.path / "seen.db").exists():
        return []
    seen = folder.seen()
    try:
        return seen.contested()
    finally:
        seen.close()


def _policy_text(folder: PartyFolder) -> str:
    policy = folder.policy()
    return f"{len(policy.data)} datasets bound, version {policy.digest[:12]}"


def _until(what: str, ends: datetime, days: int, remedy: str, more: str = "") -> Finding:
    left = ends - canonical.now()
    text = f"holds until {ends:%Y-%m-%d}{more}"
    if left <= timedelta():
        return Finding(level="error", what=what, text=f"EXPIRED on {ends:%Y-%m-%d}{more}: {remedy}")
    if left <= timedelta(days=days):
        return Finding(level="warning", what=what, text=f"{text}: {left.days} days are left, {remedy}")
    return Finding(level="ok", what=what, text=text)


def _tried(what: str, look: Callable[[], object]) -> Finding:
    try:
        return Finding(level="ok", what=what, text=str(look()))
    except (IdentityError, ConfigError, MessageError) as error:
        return Finding(level="error", what=what, text=str(error))
