"""`wardround deploy`: start, stop and look at the processes, and submit a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from wardround.cli.options import Json, NoReport

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
    """What a coordinator or a site is doing."""
    import time

    from wardround.deploy import operate

    while True:
        found = operate.status(folder)
        typer.echo(json.dumps(found) if as_json else "\n".join(_lines(found)))
        if watch is None:
            return
        time.sleep(watch)


def logs(folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False)], lines: Lines = 20) -> None:
    """The last lines of what the processes of a folder said."""
    from wardround.deploy import operate

    for line in operate.logs(folder, lines):
        typer.echo(line)


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
    typer.echo(f"run {signed.id}, for {', '.join(sorted(signed.sites))}")
    typer.echo(f"signed by {signed.submitter}: {path}")


def _lines(found: dict[str, Any]) -> list[str]:
    who = found.get("coordinator") or found.get("site") or "?"
    lines = [f"{who}: {'running' if found['running'] else 'not running'}, {found.get('time', 'never started')}"]
    if "doing" in found:
        connected = "connected" if found.get("connected") else "not connected"
        lines.append(f"  {connected}, {found['doing']}" + (f", run {found['run']}" if found.get("run") else ""))
    else:
        lines += [f"  site {name}: {state}" for name, state in found.get("sites", {}).items()]
        if found.get("run"):
            lines.append(f"  run {found['run']}: {found['phase']}, round {found['round']} of {found['rounds']}")
        lines += [f"  waits: {name}" for name in found.get("inbox", [])]
    lines += [f"  {name}: {state}" for name, state in found.get("runs", {}).items()]
    if found.get("cause"):
        lines.append(f"  {found['cause']}")
    return lines
