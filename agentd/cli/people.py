"""Keep people from being told: `ack` says that somebody is on it, `silence` that nobody wants to hear of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from agentd.api.views import silence_view
from agentd.cli.client import call, quoted, read_or_open
from agentd.cli.names import alert_names, silence_ids
from agentd.cli.options import config_option, output_option
from agentd.cli.place import find_place
from agentd.cli.tables import clean, counted, print_json, print_table
from agentd.clock import iso
from agentd.memory import silences
from agentd.memory.store import Store
from agentd.settings import parse_duration, positive_duration


@click.command()
@click.argument("alerts", nargs=-1, required=True, metavar="ALERT...", shell_complete=alert_names)
@click.option("--undo", is_flag=True, help="Nobody is on it any more: remind and escalate again.")
@click.option("--comment", default="", help="What is being done; shown with the alert.")
@config_option
@output_option
def ack(alerts: tuple[str, ...], undo: bool, comment: str, config_path: Path | None, output: str) -> None:
    """
    Say that you are on a firing alert: no reminders, no escalation until it is over.

    ALERT is the name of a watch, WATCH/RULE, or the ID that `agentd alerts` shows.
    """
    body = {"alerts": list(alerts), "undo": undo, "comment": comment}
    answer = call(find_place(config_path), "POST", "/api/v1/alerts/ack", body)
    if output == "json":
        print_json(answer)
        return
    for alert in answer["alerts"]:
        name = f"{alert['watch']}/{alert['rule']}" if alert["rule"] else alert["watch"]
        done = "is not acknowledged any more" if undo else f"is acknowledged by {alert['acked_by']}"
        click.echo(clean(f"{name} ({alert['fingerprint'][:8]}) {done}"))
    if not answer["alerts"]:
        click.echo("nothing of it fires any more")


@click.group()
def silence() -> None:
    """Keep alerts from being told for a time."""


@silence.command()
@click.argument("matchers", nargs=-1, metavar="MATCHER...")
@click.option("--for", "lasting", required=True, help="How long, e.g. 2h.")
@click.option("--reason", required=True, help="Why; shown with each alert that it mutes.")
@click.option("--start", help="When it begins: a moment such as 2026-03-01T22:00, or in how long, such as 2h.")
@click.option("--all", "everything", is_flag=True, help="It may silence everything.")
@config_option
@output_option
def add(
    matchers: tuple[str, ...],
    lasting: str,
    reason: str,
    start: str | None,
    everything: bool,
    config_path: Path | None,
    output: str,
) -> None:
    """
    Silence the alerts that all MATCHERs take.

    A MATCHER is NAME=VALUE, NAME!=VALUE, NAME=~PATTERN or NAME!~PATTERN, as in Alertmanager. NAME is watch, rule,
    severity, instance, or a label. A pattern holds from the first letter to the last.
    """
    body: dict[str, Any] = {"matchers": list(matchers), "reason": reason, "all": everything}
    try:
        body["for_s"] = positive_duration(lasting).total_seconds()
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--for") from error
    if start is not None:
        body["starts_at"] = iso(_begin(start))
    answer = call(find_place(config_path), "POST", "/api/v1/silences", body)
    if output == "json":
        print_json(answer)
        return
    view = answer["silence"]
    begin = f"begins at {view['starts_at']}" if view["state"] == "planned" else "holds"
    would = "would mute" if view["state"] == "planned" else "mutes"
    text = f"silence {view['id']} {begin}, until {view['ends_at']}; now it {would} {counted(answer['alerts'], 'alert')}"
    click.echo(clean(text))
    if answer["note"]:
        click.secho(clean(answer["note"]), fg="yellow", err=True)


def _begin(text: str) -> datetime:
    """A moment without a zone is meant by this machine's clock."""
    now = datetime.now(UTC)
    try:
        return now + parse_duration(text)
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        what = f"cannot read {text!r}; write a moment such as {now:%Y-%m-%d}T22:00, or in how long, such as 2h"
        raise click.BadParameter(what, param_hint="--start") from error


@silence.command("list")
@click.option("--expired", is_flag=True, help="Those of the last 30 days that are over, too.")
@config_option
@output_option
def list_(expired: bool, config_path: Path | None, output: str) -> None:
    """List the silences that hold or will."""

    async def offline(store: Store) -> dict[str, Any]:
        now = datetime.now(UTC)
        rows = await store.state.read(lambda c: silences.all_of(c) if expired else silences.open_ones(c, now))
        return {"silences": [silence_view(row, now) for row in rows]}

    answer = read_or_open(find_place(config_path), "/api/v1/silences", offline, all="1" if expired else None)
    if output == "json":
        print_json(answer)
        return
    rows = [row | {"matchers": " ".join(row["matchers"]) or "everything"} for row in answer["silences"]]
    columns = {"id": "ID", "state": "STATE", "matchers": "WHAT", "starts_at": "BEGIN", "ends_at": "END"}
    columns |= {"author": "BY", "reason": "WHY"} | ({"ended_by": "ENDED BY"} if expired else {})
    print_table(rows, columns, empty="Nothing is silenced.")


@silence.command()
@click.argument("identity", metavar="ID", shell_complete=silence_ids)
@config_option
@output_option
def end(identity: str, config_path: Path | None, output: str) -> None:
    """End a silence before its time; what still fires is told then."""
    answer = call(find_place(config_path), "DELETE", f"/api/v1/silences/{quoted(identity)}")
    if output == "json":
        print_json(answer)
        return
    still = f"; {counted(answer['alerts'], 'alert')} of it still there" if answer["alerts"] else ""
    click.echo(f"silence {answer['silence']['id']} is over{still}")
