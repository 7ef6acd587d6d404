"""`wardround deploy`: the table of its commands, and nothing else."""

from __future__ import annotations

import typer

from wardround.cli import operate, trust

_SETTINGS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings=_SETTINGS,
    help="Run between hospitals: who takes part, what a site allows, what was done.",
    epilog="[bold]Examples[/bold]\n\n  wardround deploy provision project.yaml --out coordinator\n\n"
    "  wardround deploy site init vienna.json --out vienna\n\n  wardround deploy check vienna",
)
site = typer.Typer(no_args_is_help=True, context_settings=_SETTINGS, help="At a hospital.")
coordinator = typer.Typer(no_args_is_help=True, context_settings=_SETTINGS, help="The coordinator's process.")
log = typer.Typer(no_args_is_help=True, context_settings=_SETTINGS, help="The audit log.")

app.command("provision")(trust.provision)
app.command("enrol")(trust.enrol)
app.command("rotate")(trust.rotate)
app.command("move")(trust.move)
app.command("revoke")(trust.revoke)
app.command("check")(trust.check)
site.command("init")(trust.site_init)
site.command("join")(trust.join)
site.command("review")(trust.review)
site.command("approve")(trust.approve)
site.command("deny")(trust.deny)
log.command("verify")(trust.log_verify)
log.command("show")(trust.log_show)
app.command("submit")(operate.submit)
app.command("status")(operate.status)
for table, start in ((coordinator, operate.coordinator_start), (site, operate.site_start)):
    table.command("start")(start)
    table.command("stop")(operate.stop)
    table.command("status")(operate.status)
    table.command("logs")(operate.logs)
app.add_typer(coordinator, name="coordinator")
app.add_typer(site, name="site")
app.add_typer(log, name="log")
