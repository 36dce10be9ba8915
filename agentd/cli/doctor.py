"""`agentd doctor`: is the store well, and how to mend it."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import click

from agentd.cli import FAILED
from agentd.cli.client import NoDaemon, call, read_store
from agentd.cli.options import config_option, output_option
from agentd.cli.place import find_place
from agentd.cli.tables import clean, print_json, say
from agentd.errors import StoreError
from agentd.memory import doctor as doctoring
from agentd.memory import webhooks
from agentd.memory.doctor import Finding, Level

_MARKS = {
    "ok": click.style("ok     ", fg="green"),
    "warning": click.style("warning", fg="yellow"),
    "error": click.style("ERROR  ", fg="red"),
}


@click.group(invoke_without_command=True)
@config_option
@output_option
@click.pass_context
def doctor(context: click.Context, config_path: Path | None, output: str) -> None:
    """Examine the store and say what to do. Exits with 1 when something is wrong."""
    context.obj = config_path
    if context.invoked_subcommand is not None:
        return
    state_dir = find_place(config_path).state_dir
    findings = [_graver(each) for each in doctoring.examine(state_dir, datetime.now(UTC))]
    findings += _webhooks(state_dir)
    if output == "json":
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{_MARKS[finding.level]} {finding.what}: {clean(finding.text)}")
            if finding.cure:
                click.echo(f"        {finding.cure}")
    if any(finding.level == "error" for finding in findings):
        sys.exit(FAILED)


def _graver(finding: Finding) -> Finding:
    """Dead letters are alerts that nobody heard of."""
    return replace(finding, level=Level.ERROR) if "dead letters" in finding.text else finding


def _webhooks(state_dir: Path) -> list[Finding]:
    try:
        off = asyncio.run(read_store(state_dir, lambda store: store.state.read(webhooks.disabled)))
    except StoreError:
        return []  # what is wrong with the store is said already
    return [
        Finding(Level.ERROR, "webhook", f"{name} is disabled: {why}", f"mend it, then `agentd webhook enable {name}`")
        for name, why in off.items()
    ]


@doctor.command()
@click.argument("backup", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.pass_obj
def restore(config_path: Path | None, backup: Path) -> None:
    """Put a backup in the place of the state file; sending waits then until `agentd doctor resume`."""
    aside = doctoring.restore(find_place(config_path).state_dir, backup, datetime.now(UTC))
    click.echo(f"restored {backup}; the state before is {aside}")
    click.echo("nothing is sent until you have looked (`agentd outbox list`) and say `agentd doctor resume`")


@doctor.command()
@output_option
@click.pass_obj
def resume(config_path: Path | None, output: str) -> None:
    """Send and read on after a restore."""
    place = find_place(config_path)
    try:
        was_held, text = call(place, "POST", "/api/v1/doctor/resume")["was_held"], "sending goes on"
    except NoDaemon:
        was_held, text = doctoring.resume(place.state_dir), "sending goes on when the daemon starts"
    say({"was_held": was_held}, output, text if was_held else "nothing was held back")
