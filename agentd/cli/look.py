"""Look: `status`, `watches`, `alerts`. Nothing here changes anything."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from agentd.api.agents_view import agents_view
from agentd.api.trouble import find_trouble, read_hindrances
from agentd.api.views import (
    alert_view,
    in_order_of_need,
    is_current,
    moment,
    shown_detail,
    shown_state,
)
from agentd.cli import FAILED, FIRING
from agentd.cli.act import check_now
from agentd.cli.client import read_or_open, runs_elsewhere
from agentd.cli.names import alert_ids, watch_names
from agentd.cli.options import config_option, output_option
from agentd.cli.place import Place, find_place
from agentd.cli.stored import stored_watches
from agentd.cli.tables import clean, counted, print_facts, print_json, print_table, written
from agentd.memory import alerts as alert_rows
from agentd.memory import meta, outbox
from agentd.memory.store import Store


@click.command()
@config_option
@output_option
def status(config_path: Path | None, output: str) -> None:
    """Say whether the daemon runs and how it is. Exits with 1 when it does not run."""
    place = find_place(config_path)
    answer = read_or_open(place, "/api/v1/status", lambda store: _status(store, place))
    if output == "json":
        print_json(answer)
    else:
        for line in answer.get("trouble", ()):
            click.secho(clean(line), fg="red")
        print_facts(_flat(answer) | {"socket": str(place.socket)})
    if answer["state"] != "running":
        sys.exit(FAILED)


async def _status(store: Store, place: Place) -> dict[str, Any]:
    from agentd.daemon.runs.jobs import default_model

    config = place.config
    known, model, now = (
        config.webhooks if config else None,
        default_model(config) if config else None,
        datetime.now(UTC),
    )
    counts = await store.state.read(outbox.counts)
    alive = await store.state.read(meta.alive_at)
    agents = await store.state.read(lambda c: agents_view(c, config, now, model=model, host_pid=None))
    return {
        "state": "not running" if runs_elsewhere(place) is None else "not reached",
        "last_alive_at": moment(alive),
        "state_dir": str(store.path),
        "trouble": find_trouble(await store.state.read(read_hindrances), known),
        "outbox": {
            "waiting": sum(count.waiting for count in counts.values()),
            "dead": sum(count.dead for count in counts.values()),
        },
        **({"agents": agents} if agents is not None else {}),
    }


def _flat(answer: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for key, value in answer.items():
        if key == "trouble":
            continue
        if key == "agents":
            value = _agents(value)
        elif isinstance(value, dict):
            parts = [f"{name} {_list(each)}" for name, each in value.items() if each is not None]
            value = ", ".join(parts) or "none"
        if value not in (None, ""):
            facts[key.replace("_", " ")] = value
    return facts


def _agents(view: dict[str, Any]) -> str:
    """What they do now, whom they ask, and what is left of today."""
    today = view["today"]
    parts = [f"running {view['running']}", f"queued {view['queued']}", f"model {view['model'] or 'none'}"]
    usd = f"${today['usd']:.4f}" + ("" if today["usd_limit"] is None else f" of ${today['usd_limit']:g}")
    tokens = f"{today['tokens']:,}" + ("" if today["tokens_limit"] is None else f" of {today['tokens_limit']:,}")
    parts.append(f"spent today (UTC) {usd}, {tokens} tokens")
    if today["calls_of_unknown_price"]:
        parts.append(f"{counted(today['calls_of_unknown_price'], 'call')} of unknown price")
    if view["host_pid"] is not None:
        parts.append(f"pid of the agents' process {view['host_pid']}")
    return ", ".join(parts)


def _list(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return value if isinstance(value, str) else written(value)


class _OrOne(click.Group):
    """`agentd watches NAME` means `agentd watches show NAME`, where NAME is none of its commands."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = watch_names(ctx, self.params[0], incomplete)
        return [*super().shell_complete(ctx, incomplete), *map(CompletionItem, names)]


@click.group(cls=_OrOne, invoke_without_command=True)
@config_option
@output_option
@click.pass_context
def watches(context: click.Context, config_path: Path | None, output: str) -> None:
    """List the watches with what each last saw; or one whole: `agentd watches NAME`."""
    if context.invoked_subcommand is None:
        _list_watches(config_path, output)


watches.add_command(check_now)


@watches.command()
@click.argument("name", metavar="WATCH", shell_complete=watch_names)
@config_option
@output_option
@click.pass_context
def show(context: click.Context, name: str, config_path: Path | None, output: str) -> None:
    """Show WATCH whole: what it last saw, its alerts, how often it was well, its settings."""
    from agentd.cli.details import print_watch, read_watch

    above = context.parent.params if context.parent is not None else {}
    view = read_watch(find_place(config_path or above.get("config_path")), name)
    if "json" in (output, above.get("output")):
        print_json(view)
    else:
        print_watch(view)


def _list_watches(config_path: Path | None, output: str) -> None:
    place = find_place(config_path)

    async def offline(store: Store) -> dict[str, Any]:
        return {"watches": await stored_watches(store, place.config)}

    answer = read_or_open(place, "/api/v1/watches", offline)
    if output == "json":
        print_json(answer)
        return
    rows = [row | {"verdict": shown_state(row), "summary": shown_detail(row)} for row in answer["watches"]]
    columns = {"name": "WATCH", "kind": "KIND", "verdict": "VERDICT", "alert": "ALERT", "checked_at": "CHECKED"}
    print_table(rows, columns | {"summary": "WHAT"}, empty="No watches are configured.")


def _found(alert: dict[str, Any]) -> dict[str, Any]:
    """What an agent found out about it, in one sentence, and the run that has the rest."""
    finding = alert["finding"] or {}
    return {"found": finding.get("summary"), "run": (alert.get("cost") or {}).get("run")}


@click.command()
@click.argument("identity", metavar="[ID]", required=False, shell_complete=alert_ids)
@click.option("--all", "everything", is_flag=True, help="Resolved ones too.")
@click.option("--exit-code", is_flag=True, help="Exit with 3 when something is firing.")
@config_option
@output_option
def alerts(identity: str | None, everything: bool, exit_code: bool, config_path: Path | None, output: str) -> None:
    """
    List the alerts that are pending or firing; or show one whole, of whose ID the first digits are enough.

    What is shown of one: its history, its lines of evidence, what an agent found, who was told.
    """
    place = find_place(config_path)
    if identity is not None:
        _show_alert(place, identity, exit_code, output)
        return

    async def offline(store: Store) -> dict[str, Any]:
        found = in_order_of_need(await store.state.read(alert_rows.load_all))
        return {"alerts": [alert_view(alert) for alert in found if everything or is_current(alert)]}

    answer = read_or_open(place, "/api/v1/alerts", offline, all="1" if everything else None)
    if output == "json":
        print_json(answer)
    else:
        rows = [row | {"id": row["fingerprint"][:8]} for row in answer["alerts"]]
        columns = {"id": "ID", "state": "STATE", "severity": "SEVERITY", "watch": "WATCH", "rule": "RULE"}
        columns |= {"summary": "WHAT", "reason_text": "WHY", "started_at": "SINCE"}
        columns |= {"muted_by": "MUTED BY", "acked_by": "ACKED"}
        if any(row["finding"] for row in rows):
            rows = [row | _found(row) for row in rows]
            columns |= {"found": "FOUND", "run": "RUN"}
        print_table(rows, columns, empty="All is well.")
    if exit_code and any(alert["state"] == "firing" for alert in answer["alerts"]):
        sys.exit(FIRING)


def _show_alert(place: Place, identity: str, exit_code: bool, output: str) -> None:
    from agentd.cli.details import print_alert, read_alert

    view = read_alert(place, identity)
    if output == "json":
        print_json(view)
    else:
        print_alert(view)
    if exit_code and view["state"] == "firing":
        sys.exit(FIRING)
