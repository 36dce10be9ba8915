"""
One watch, one alert, for people: facts, and what happened, in the order in which one asks.

In: views of the daemon, or of its store. Out: lines on stdout, in which no word of a target paints the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import click

from agentd.api.views import shown_detail, shown_state
from agentd.cli.client import quoted, read_or_open
from agentd.cli.place import Place
from agentd.cli.stored import stored_alert, stored_watch
from agentd.cli.tables import clean, counted, print_facts, print_table, written

Json = Mapping[str, Any]

_MOST_EVENTS = 20


def read_watch(place: Place, name: str) -> dict[str, Any]:
    """Of the daemon, or of its store. Raises Refused, AgentdError."""
    offline = partial(stored_watch, config=place.config, name=name)
    view: dict[str, Any] = read_or_open(place, f"/api/v1/watches/{quoted(name)}", offline)
    return view


def read_alert(place: Place, begin: str) -> dict[str, Any]:
    """begin: of its fingerprint. Raises Refused, AgentdError."""
    offline = partial(stored_alert, begin=begin)
    view: dict[str, Any] = read_or_open(place, f"/api/v1/alerts/{quoted(begin)}", offline)
    return view


def print_watch(view: Json) -> None:
    facts = {"name": view["name"], "kind": view["kind"], "description": view["description"]}
    facts |= {"state": shown_state(dict(view)), "what": shown_detail(dict(view)), "alert": view["alert"]}
    facts |= {"severity": view["severity"], "labels": _pairs(view["labels"]), "tells": ", ".join(view["notify"])}
    for key in ("checked_at", "next_at", "blind_since"):
        facts[key.removesuffix("_at").replace("_", " ")] = view[key]
    if view["latency_ms"] is not None:
        facts["latency"] = f"{view['latency_ms']:.1f} ms"
    facts["well"] = ", ".join(f"{share:.2%} in {span}" for span, share in view["uptime"].items() if share is not None)
    facts["public"] = "yes" if view["public"] else ""
    _print_facts(facts)
    check = view["check"] or {}
    if check.get("conditions"):
        click.echo("\nconditions")
        for each in check["conditions"]:
            ok = {True: "ok", False: "failing", None: "not asked"}[each["ok"]]
            click.echo(f"  {click.style(f'{ok:<9}', fg=_COLOURS.get(ok))}  {clean(each['text'])}")
    if check.get("values"):
        click.echo("\nvalues")
        for name, value in check["values"].items():
            click.echo(f"  {clean(name)} = {clean(written(value))}")
    for rule in view["rules"] or ():
        firing = f", {counted(rule['firing'], 'alert')}" if rule["firing"] else ""
        click.echo(f"rule {clean(rule['name'])}: {rule['severity']}{firing}")
    if view["alerts"]:
        click.echo("\nalerts")
        _print_alerts(view["alerts"], view["more_alerts"])
    _print_silences(view["silences"])
    _print_runs(view["runs"])
    click.echo("\nsettings")
    for name, value in view["settings"].items():
        click.echo(f"  {clean(name)}: {clean(value if isinstance(value, str) else written(value))}")


def print_alert(view: Json) -> None:
    name = f"{view['watch']}/{view['rule']}" if view["rule"] else view["watch"]
    facts = {"alert": name, "id": view["fingerprint"], "state": view["state"], "severity": view["severity"]}
    facts |= {"what": view["summary"], "why": view["reason_text"], "by": _pairs(view["by"])}
    facts |= {"labels": _pairs(view["labels"]), "values": _pairs(view["values"])}
    facts["failed"] = "\n".join(view["failed"])
    for key in ("pending_since", "started_at", "last_at", "ended_at", "blind_since"):
        facts[key.removesuffix("_at").replace("_", " ")] = view[key]
    if view["occurrences"] > 1:
        facts["occurrences"] = f"{view['occurrences']:,}"
    facts |= {"acked by": view["acked_by"], "muted by": view["muted_by"], "told": ", ".join(view["told"])}
    facts["flapping"] = "yes" if view["flapping"] else ""
    _print_facts(facts)
    if finding := view["finding"]:
        click.echo("\nfound")
        click.echo(f"  {clean(finding.get('summary'))}")
        for step in finding.get("next_steps") or ():
            click.echo(f"  next: {clean(step if isinstance(step, str) else written(step))}")
    if view["evidence"]:
        click.echo("\nevidence")
        for line in view["evidence"]:
            click.echo(f"  {clean(line['line'])}")
    _print_silences(view["silences"])
    if view["history"]:
        click.echo("\nhistory")
        for event in view["history"][:_MOST_EVENTS]:
            text = event["reason_text"] or event["summary"]
            click.echo(clean(f"  {event['at']}  {event['kind']}{': ' + text if text else ''}"))
        if len(view["history"]) > _MOST_EVENTS or view["history_next"] is not None:
            click.echo("  …")
    if view["deliveries"]:
        click.echo("\ntold")
        columns = {"id": "ID", "state": "STATE", "webhook": "WEBHOOK", "type": "TYPE", "created_at": "CREATED"}
        print_table(view["deliveries"], columns | {"attempts": "TRIES", "last_error": "LAST ERROR"}, empty="")
    _print_runs(view["runs"])


_COLOURS = {"ok": "green", "failing": "red"}


def _print_facts(facts: Mapping[str, Any]) -> None:
    print_facts({name: value for name, value in facts.items() if value not in (None, "")})


def _pairs(values: Json) -> str:
    return ", ".join(f"{name}={value if isinstance(value, str) else written(value)}" for name, value in values.items())


def _print_alerts(alerts: Iterable[Json], more: int) -> None:
    rows = [{**row, "id": row["fingerprint"][:8]} for row in alerts]
    columns = {"id": "ID", "state": "STATE", "severity": "SEVERITY", "rule": "RULE", "summary": "WHAT"}
    print_table(rows, columns | {"started_at": "SINCE"}, empty="")
    if more:
        click.echo(f"and {more} more")


def _print_silences(silences: Iterable[Json] | None) -> None:
    for each in silences or ():
        click.echo(clean(f"\nsilenced by {each['author']} until {each['ends_at']}: {each['reason']} ({each['id']})"))


def _print_runs(runs: Iterable[Json]) -> None:
    rows = [{**run, "summary": run["summary"] or run["error"] or run["goal"]} for run in runs]
    if rows:
        click.echo("\nruns of agents")
        columns = {"id": "RUN", "state": "STATE", "due_at": "WHEN", "summary": "WHAT"}
        print_table(rows, columns, cut=("summary",), empty="")
