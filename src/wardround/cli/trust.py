"""`wardround deploy`: identities, enrolment, approval and the audit log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from wardround.cli.options import Json
from wardround.plain import plain, plain_lines

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Of a coordinator, a site or a submitter.", show_default=False)
]
SiteFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.", show_default=False)]
CoordinatorFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="A new folder.", show_default=False)]
Note = Annotated[str, typer.Option(help="Why, for this site's own files. No patient data.")]


def provision(
    project: Annotated[Path, typer.Argument(metavar="PROJECT.yaml", help="Who takes part.", show_default=False)],
    out: Out,
    as_json: Json = False,
) -> None:
    """Make the coordinator's folder: its keys, the project's authority, one enrolment file for everybody else.

    Send each OUT/enrolments/NAME.json to its party where others cannot read it.
    """
    from wardround.deploy import enrolling

    folder = enrolling.provision(project, out)
    files = sorted(str(path) for path in (out / "enrolments").iterdir())
    _tell(
        as_json, {"folder": str(out), "fingerprint": folder.identity().fingerprint, "enrolments": files},
        f"coordinator {folder.name}: {folder.identity().fingerprint}", *(f"send privately: {file}" for file in files),
    )  # fmt: skip


def site_init(
    enrolment: Annotated[Path, typer.Argument(metavar="ENROLMENT", help="From the coordinator.", show_default=False)],
    out: Out,
    as_json: Json = False,
) -> None:
    """Make a site's or a submitter's own keys and the request to send to the coordinator."""
    from wardround.deploy import enrolling

    folder = enrolling.init_party(enrolment, out)
    request = out / "request.json"
    _tell(
        as_json, {"folder": str(out), "name": folder.name, "fingerprint": folder.identity().fingerprint, "request": str(request)},
        f"{folder.role} {folder.name}: {folder.identity().fingerprint}", f"send to the coordinator: {request}",
        *([f"then say what this site allows: {folder.policy_path}"] if folder.role == "site" else []),
    )  # fmt: skip


def enrol(
    folder: CoordinatorFolder,
    requests: Annotated[
        list[Path] | None, typer.Argument(metavar="REQUEST...", help="Signing requests.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Take signing requests into the roster, all or none. Without any, write enrolment files of names added to project.yaml.

    Send DIR/roster.json to all, and read its code to them by telephone.
    """
    from wardround.deploy import enrolling

    roster = enrolling.enrol(folder, requests or [])
    file = folder / "roster.json"
    parties = {entry.name: entry.fingerprint for entry in roster.entries}
    _tell(
        as_json, {"roster": str(file), "serial": roster.serial, "code": roster.code, "parties": parties},
        *(f"{entry.role} {entry.name}: {entry.fingerprint}" for entry in roster.entries),
        f"send to all: {file}", f"code: {roster.code}",
    )  # fmt: skip


def join(
    folder: SiteFolder,
    roster: Annotated[Path, typer.Argument(metavar="ROSTER", help="From the coordinator.", show_default=False)],
    code: Annotated[
        str | None, typer.Option(help="The roster's code, as others read it to you by telephone.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Pin the keys of all. New names and unproved keys need the code."""
    from wardround.deploy import enrolling

    found = enrolling.join(folder, roster, code)
    rows = [{"name": one.name, "what": one.what, "proved": one.proved, "text": one.text} for one in found]
    _tell(
        as_json, {"folder": str(folder), "changes": rows}, *(one.text for one in found), f"joined: {len(found)} changes"
    )


def rotate(
    folder: Folder,
    server: Annotated[bool, typer.Option("--server", help="Coordinator: a new TLS certificate.")] = False,
    identity: Annotated[bool, typer.Option("--identity", help="Coordinator: a new signing key.")] = False,
    authority: Annotated[
        bool, typer.Option("--authority", help="Coordinator: a new authority beside the old.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Renew keys. At a site or a submitter: the next keys, and the request that proves them with the present ones."""
    from wardround.deploy import enrolling, kit
    from wardround.errors import ConfigError

    chosen = [name for name, asked in (("server", server), ("identity", identity), ("authority", authority)) if asked]
    if isinstance(kit.open_folder(folder), kit.PartyFolder):
        if chosen:
            raise ConfigError(f"--{chosen[0]} belongs to the coordinator's folder, and {folder} is another's")
        request = enrolling.rotate_party(folder)
        _tell(
            as_json,
            {"request": str(request)},
            f"send to the coordinator: {request}",
            "then join the roster that comes back",
        )
        return
    if len(chosen) != 1:
        raise ConfigError("in the coordinator's folder, give one of --server, --identity and --authority")
    roster = enrolling.rotate_coordinator(folder, chosen[0])  # type: ignore[arg-type]
    then = "restart the coordinator" if server else f"send to all: {folder / 'roster.json'}"
    _tell(as_json, {"rotated": chosen[0], "serial": roster.serial, "code": roster.code}, f"renewed: {chosen[0]}", then)


def move(folder: CoordinatorFolder, as_json: Json = False) -> None:
    """The coordinator has other addresses: certificate, enrolment files and roster for those that project.yaml names now.

    Keep the old address behind the new one there while it still leads here. Restart the coordinator, then send DIR/roster.json to
    all; they join it without a code.
    """
    from wardround.deploy import enrolling

    roster = enrolling.move(folder)
    file = folder / "roster.json"
    _tell(
        as_json, {"roster": str(file), "serial": roster.serial, "address": roster.dialled, "addresses": list(roster.addresses)},
        f"sites dial {roster.dialled}; the certificate is for {', '.join(roster.addresses)}", "restart the coordinator",
        f"send to all: {file}",
    )  # fmt: skip


def revoke(
    folder: Folder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Trust a key no longer: for all, at the coordinator; for this site alone, at a site."""
    from wardround.deploy import enrolling, kit

    if isinstance(kit.open_folder(folder), kit.PartyFolder):
        mark = enrolling.revoke_here(folder, name)
        _tell(as_json, {"revoked": name, "fingerprint": mark}, f"{name}: {mark} is not trusted here any more")
        return
    roster = enrolling.revoke(folder, name)
    file = folder / "roster.json"
    again = folder / "enrolments" / f"{name}.json"
    _tell(
        as_json, {"revoked": name, "roster": str(file), "serial": roster.serial},
        f"{name} is revoked; send to all: {file}",
        *([f"should {name} come back with new keys: {again}"] if again.exists() else []),
    )  # fmt: skip


def check(
    folder: Folder,
    clear: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take messages again by one that was active in two places.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fingerprints, the roster's code, what ends soon, and what is wrong; exit code 7 where something is."""
    from wardround.deploy import checkup, kit
    from wardround.deploy.names import check_name
    from wardround.errors import IdentityError

    if clear is not None:
        held = checkup.clear(folder, check_name(clear, "--clear"))
        typer.echo(
            json.dumps({"event": "cleared", "name": clear, "runs": held})
            if as_json
            else plain(f"{clear}: cleared in {held} runs")
        )
    found = checkup.check(folder)
    marks = {"ok": "ok", "warning": "! ", "error": "!!"}
    rows = [{"level": one.level, "what": one.what, "text": one.text} for one in found]
    try:
        code = kit.open_folder(folder).roster().code
    except IdentityError:
        code = None
    _tell(
        as_json, {"findings": rows, "code": code}, *(f"{marks[one.level]} {one.what:<12} {one.text}" for one in found)
    )
    if any(one.level == "error" for one in found):
        raise typer.Exit(IdentityError.exit_code)


def review(
    folder: SiteFolder,
    job: Annotated[
        str | None, typer.Argument(help="Its id; without one, all jobs are listed.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """A job in plain words, what site.yaml says of it, and what differs from the last approved one."""
    from wardround.deploy import kit

    approvals = kit.party_folder(folder).approvals()
    if job is None:
        found = approvals.decisions()
        rows = [
            {"job": one.job, "status": one.status, "by": one.by, "time": one.time, "reasons": one.reasons}
            for one in found
        ]
        _tell(as_json, {"jobs": rows}, *(f"{one.status:<9} {one.job}  by {one.by}, {one.time}" for one in found))
        return
    verdict = _verdict(folder, job)
    text = approvals.review(job, verdict)
    _tell(as_json, {"job": job, "allowed": verdict.allowed, "reasons": verdict.reasons, "text": text}, text.rstrip())


def approve(
    folder: SiteFolder,
    job: Annotated[str, typer.Argument(help="Its id.", show_default=False)],
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Let a job run that site.yaml allows."""
    from wardround.deploy import kit

    decision = kit.party_folder(folder).approvals().approve(job, _verdict(folder, job), note=note)
    _tell(as_json, {"job": job, "status": decision.status}, f"{job}: {decision.status}")


def deny(
    folder: SiteFolder,
    job: Annotated[str, typer.Argument(help="Its id.", show_default=False)],
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Do not let a job run, also where it was approved before."""
    from wardround.deploy import kit

    decision = kit.party_folder(folder).approvals().deny(job, note=note)
    _tell(as_json, {"job": job, "status": decision.status}, f"{job}: {decision.status}")


def log_verify(
    folder: Folder,
    witness: Annotated[
        list[Path] | None,
        typer.Option(metavar="LOG", help="audit.jsonl of another party, who noted heads of this log; repeat it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Whether an audit log is whole: nothing changed, dropped, moved; with others' logs, not written anew; exit code 6 if not.

    DIR may also be an audit.jsonl itself.
    """
    from wardround.deploy import audit, kit
    from wardround.errors import ConfigError, RunError

    path, pins, name = folder, None, None
    if folder.is_dir():
        owner = kit.open_folder(folder)
        path, name = owner.audit_path, owner.name
        pins = owner.pins() if witness else None
    heads = []
    for other in witness or ():
        if name is None:
            raise ConfigError("--witness needs the owner's folder as DIR, which says whose log it is")
        damage = audit.verify(other)
        if damage:
            raise RunError(f"{other}: the witness's own log is damaged: {damage[0].text}")
        heads += audit.witnessed(other, name)
    faults = audit.verify(path, heads, pins)
    rows = [{"kind": one.kind, "n": one.n, "text": one.text} for one in faults]
    lines = [f"{one.kind}: {one.text}" for one in faults] or [f"{path}: whole, {len(heads)} noted heads agree"]
    _tell(as_json, {"log": str(path), "heads": len(heads), "faults": rows}, *lines)
    if faults:
        raise typer.Exit(RunError.exit_code)


def log_show(
    folder: Folder,
    last: Annotated[int, typer.Option(min=0, help="Entries from the end; 0 for all.")] = 50,
    kind: Annotated[str | None, typer.Option(help="Only this kind.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """The entries of an audit log, unchecked."""
    from wardround.deploy import audit

    path = folder / "audit.jsonl" if folder.is_dir() else folder
    found = [entry for entry in audit.AuditLog(path, None).entries() if kind in (None, entry.get("kind"))]
    own = {"n", "time", "kind", "before", "hash"}
    for entry in found[-last:] if last else found:
        if as_json:
            typer.echo(json.dumps(entry))
            continue
        facts = "  ".join(f"{name}={_short(value)}" for name, value in entry.items() if name not in own)
        number, kind_of = str(entry.get("n")), str(entry.get("kind"))
        typer.echo(plain(f"{number:>6}  {entry.get('time')}  {kind_of:<18} {facts}"))


def _verdict(folder: Path, job: str) -> Any:
    from wardround.deploy import kit

    site = kit.party_folder(folder)
    approvals = site.approvals()
    return site.judge(approvals.signed(job), approvals.facts(job))


def _short(value: Any) -> str:
    text = ",".join(str(one) for one in value) if isinstance(value, list) else str(value)
    return text if len(text) <= 64 else f"{text[:16]}..."


def _tell(as_json: bool, tree: dict[str, Any], *lines: str) -> None:
    for line in [json.dumps(tree)] if as_json else lines:
        typer.echo(line if as_json else plain_lines(line))
