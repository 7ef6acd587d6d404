"""`wardround deploy`: start, stop and look at the processes, and submit a job."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from wardround.cli.options import Json, NoReport
from wardround.plain import plain

CoordinatorFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.", show_default=False)]
SiteFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.", show_default=False)]
Detach = Annotated[bool, typer.Option("--detach", help="In the background; systemd wants the foreground.")]
Lines = Annotated[int, typer.Option("--lines", "-n", min=1, help="Lines of each log.")]


def coordinator_start(
    folder: CoordinatorFolder,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT, where it is not what sites dial.")] = None,
    once: Annotated[bool, typer.Option("--once", help="End when no job is left.")] = False,
    no_report: NoReport = False,
    detach: Detach = False,
) -> None:
    """Serve sites and run the jobs of the inbox, until stopped."""
    if detach:
        from wardround.deploy import operate

        more = [
            *(["--listen", listen] if listen else []),
            *(["--once"] if once else []),
            *(["--no-report"] if no_report else []),
        ]
        typer.echo(f"process {operate.detach(['deploy', 'coordinator', 'start', str(folder), *more], folder)}")
        return
    from wardround.deploy.coordinator import Coordinator

    Coordinator(folder, listen=listen, once=once, report=not no_report).run()


def site_start(folder: SiteFolder, detach: Detach = False) -> None:
    """Connect to the coordinator and work on what this site's policy allows, until stopped."""
    if detach:
        from wardround.deploy import operate

        typer.echo(f"process {operate.detach(['deploy', 'site', 'start', str(folder)], folder)}")
        return
    from wardround.deploy.site_process import SiteProcess

    SiteProcess(folder).run()


def stop(folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False)]) -> None:
    """Stop the process of a folder; a run that it breaks off goes on when it is started again."""
    from wardround.deploy import operate

    typer.echo("stopped" if operate.stop(folder) else "nothing was running")


def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False)],
    as_json: Json = False,
    watch: Annotated[float | None, typer.Option(help="Show it again every so many seconds.", min=0.5)] = None,
) -> None:
    """What a coordinator or a site is doing; at a coordinator each site's part in the run, and whom it waits for."""
    import time

    from wardround.deploy import operate

    while True:
        found = operate.status(folder)
        width = shutil.get_terminal_size((80, 24)).columns
        typer.echo(json.dumps(found) if as_json else "\n".join(_lines(found, width, datetime.now(UTC))))
        if watch is None:
            return
        time.sleep(watch)


def logs(folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False)], lines: Lines = 20) -> None:
    """The last lines of what the processes of a folder said."""
    from wardround.deploy import operate

    for line in operate.logs(folder, lines):
        typer.echo(plain(line))


def submit(
    job: Annotated[
        Path, typer.Argument(metavar="JOB", help="A job (YAML), or a signed one (JSON).", show_default=False)
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder, or a submitter's.")],
    signer: Annotated[
        Path | None, typer.Option("--as", metavar="DIR", help="Folder of the submitter who signs.")
    ] = None,
    site: Annotated[list[str] | None, typer.Option("--site", help="A site that it needs; default all.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign a job and put it into the coordinator's inbox; in a submitter's folder, only sign it.

    [bold]Examples[/bold]

      wardround deploy submit examples/heart.yaml coordinator --as dr-lee

      wardround deploy submit examples/heart.yaml dr-lee
    """
    from wardround.deploy import operate

    signed, path = operate.submit(job, folder, signer=signer, sites=site or (), overrides=overrides or ())
    if as_json:
        typer.echo(json.dumps({"run": signed.id, "file": str(path), "sites": sorted(signed.sites)}))
        return
    typer.echo(plain(f"run {signed.id}, for {', '.join(sorted(signed.sites))}"))
    typer.echo(plain(f"signed by {signed.submitter}: {path}"))


def _lines(found: dict[str, Any], width: int, here: datetime) -> list[str]:
    who = found.get("coordinator") or found.get("site") or "?"
    said = [f"{who}: {'running' if found['running'] else 'not running'}"]
    if found["running"]:
        said.append("connected" if found.get("connected") else "not connected")
    lines = [", ".join([*said, found.get("time", "never started")]), *_kept(found)]
    if "doing" in found:
        run = f", run {found['run']}" if found.get("run") else ""
        lines.append(f"  {found['doing']}{run}, {found.get('answered', 0)} requests answered since the start")
    else:
        lines += _run(found) + _sites(found, width, here)
    restarts = found.get("restarts") or {"relay": found.get("relay_restarts", 0)}
    again = ", ".join(f"{kind} {count}" for kind, count in restarts.items() if count)
    lines += [f"  begun again: {again}"] if again else []
    lines += [f"  in the inbox: {name}" for name in found.get("inbox", [])]
    lines += [f"  {name}: {state}" for name, state in found.get("runs", {}).items()]
    lines += [f"  {found['cause']}"] if found.get("cause") else []
    return [plain(line) for line in lines]


def _kept(found: dict[str, Any]) -> list[str]:
    """What the keeper of a process in the background did."""
    told = found.get("keeper") or {}
    count, cause = told.get("restarts", 0), told.get("cause")
    if told.get("alive"):
        doing = "waits to begin it again" if told["status"] == "waiting" else "begins it again when it dies"
        before = f"; begun again {count} {'time' if count == 1 else 'times'}, last {cause}" if count else ""
        return [f"  in the background: a keeper {doing}{before}"]
    if told.get("status") == "failed" and not found["running"]:
        return [f"  it {cause}", "  no further start would mend that: see to it, then start it"]
    if told.get("status") in ("running", "waiting"):
        return ["  its keeper was killed: nothing begins it again"]
    return []


def _run(found: dict[str, Any]) -> list[str]:
    if not found.get("run"):
        return []
    lines = [f"  run {found['run']}"]
    line = f"    {found['phase']}, round {found['round']} of {found['rounds']}"
    each, left = found.get("seconds_a_round"), found.get("seconds_left")
    if found["phase"].startswith("training") and each is not None and left is not None:
        line += f", {_time(each)} a round, about {_time(left)} left"
    lines.append(line)
    waiting = found.get("waiting") or []
    if waiting and not found["phase"].startswith("waiting"):
        lines.append(f"    waiting for {', '.join(waiting)}")
    return lines


_COLUMNS = ("state", "seen", "counted", "missed", "up", "down")


def _sites(found: dict[str, Any], width: int, here: datetime) -> list[str]:
    """A line a site; long names are cut so that a line is no longer than the terminal is wide."""
    from wardround.cli.console import bytes_text

    states, parts, seen = found.get("sites", {}), found.get("parts", {}), found.get("seen", {})
    if not states and not parts:
        return []
    shown = _COLUMNS if parts else _COLUMNS[:2]
    rows = [("site", *shown)]
    for name in sorted({*states, *parts}):
        part = parts.get(name, {})
        state = states.get(name, "unknown")
        when = "now" if state == "online" and found["running"] else _ago(seen.get(name), here)
        figures = [
            str(part.get("counted", 0)),
            str(part.get("missed", 0)),
            *(bytes_text(part.get(n, 0)) for n in ("up", "down")),
        ]
        rows.append((name, *(state, when, *figures)[: len(shown)]))
    wide = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    wide[0] = max(min(wide[0], width - 2 - sum(2 + one for one in wide[1:])), 8)
    return [
        "  " + "  ".join(
            _cut(cell, wide[k]).ljust(wide[k]) if k < 3 else cell.rjust(wide[k]) for k, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]  # fmt: skip


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _ago(moment: str | None, here: datetime) -> str:
    if not moment:
        return "not yet"
    return f"{_time(max((here - datetime.fromisoformat(moment)).total_seconds(), 0.0))} ago"
