"""
`agentd test WATCH`: one look through a watch, and what would come of it. Nothing is sent, nothing is stored.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from agentd.alert.lifecycle import step
from agentd.alert.routing import Routing
from agentd.cli import FAILED, FIRING
from agentd.cli.client import read_store
from agentd.cli.names import watch_names
from agentd.cli.options import config_option, output_option
from agentd.cli.place import environment_for
from agentd.cli.tables import clean, print_json, written
from agentd.cli.try_agent import asked_lines, asked_view
from agentd.clock import SystemClock
from agentd.config.loader import Loaded, find_config, load
from agentd.config.people import routing_from
from agentd.config.watches import Watch
from agentd.daemon.assemble import assemble
from agentd.deliver.links import alert_links
from agentd.deliver.payload import alert_data, alert_payload
from agentd.errors import AgentdError, StoreError
from agentd.memory import heartbeats
from agentd.memory.heartbeats import Beat
from agentd.memory.store import STATE
from agentd.pacing import KeyedBuckets
from agentd.pipeline import ProbeWatch, judged, look
from agentd.records import Alert, EventType, Judgement, Observation, Verdict
from agentd.secret import read_secrets_from
from agentd.telemetry.redact import register_secret, without_secrets
from agentd.watch.heartbeat import HEARTBEAT, Beats
from agentd.watch.probe import ProbeTools

_MAX_SHOWN = 400


@click.command()
@click.argument("watch_name", metavar="WATCH", shell_complete=watch_names)
@click.option("--log", "file", type=click.Path(path_type=Path), help="Run this file through a log watch's rules.")
@click.option("--missed", is_flag=True, help="With --log: show the lines that no rule matched.")
@click.option(
    "--limit", type=click.IntRange(0), default=5, show_default=True, help="With --log: so many lines of a kind; 0: all."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --output json.")
@config_option
@output_option
def test(
    watch_name: str,
    file: Path | None,
    missed: bool,
    limit: int,
    as_json: bool,
    config_path: Path | None,
    output: str,
) -> None:
    """
    Run one probe of WATCH now and show what was seen, each condition with its values, what that would do to the
    alert, and the payload that would go out when it fires. Sends nothing, stores nothing.

    Of a watch that follows a log, run a FILE through its rules at full speed: what each rule matched, which alerts
    would have fired and resolved and when, in the log's own time, and what would have been sent.

    Of a goal, and of what a watch would have investigated, show what an agent would be asked, with which model, tools
    and budget; none is asked.

    Exits with 0 when all is well, 3 when the target fails or a rule would have fired, 1 when we could not look.
    """
    path = find_config(config_path)
    loaded = load(path, environment=environment_for(path))
    read_secrets_from(loaded.environment, register_secret)
    output = "json" if as_json else output
    found = _found(loaded, watch_name)
    asked = asked_view(found, loaded.config) if found.enabled else None
    if (found.log or found.journal) is not None:
        _replay(loaded, watch_name, file, missed, limit, output, asked)
        return
    if file is not None:
        raise AgentdError(f"{watch_name} follows no log, so no file can be run through it; leave --log out")
    if found.goal is not None and found.enabled:
        _print_goal(watch_name, asked or {}, output)
        return
    watch = _open(loaded, watch_name)
    report = asyncio.run(_try(watch, routing_from(loaded.config), loaded.config.api.page_url)) | {"investigate": asked}
    if output == "json":
        print_json(report)
    else:
        _print(report)
    sys.exit({"ok": 0, "failing": FIRING, "blind": FAILED}[report["verdict"]])


def _found(loaded: Loaded, name: str) -> Watch:
    for watch in loaded.config.watches:
        if watch.name == name:
            return watch
    names = ", ".join(sorted(watch.name for watch in loaded.config.watches)) or "none"
    raise AgentdError(f"no watch {name!r}; the configuration has: {names}")


def _print_goal(name: str, asked: dict[str, Any], output: str) -> None:
    """A goal costs money, and is not asked by way of trial."""
    if output == "json":
        print_json({"watch": name, **asked})
        return
    click.echo(f"{name} (goal): an agent is asked")
    for line in asked_lines(asked):
        click.echo(f"  {line}")
    click.echo(f"\nnot asked now; `agentd watches check {name}` has the daemon ask it, `agentd task` asks anything")


def _print_investigation(asked: dict[str, Any] | None) -> None:
    if asked is not None:
        click.echo("  starts an agent when it fires (not asked now)")
        for line in asked_lines(asked):
            click.echo(f"    {line}")


def _replay(
    loaded: Loaded,
    name: str,
    file: Path | None,
    missed: bool,
    limit: int,
    output: str,
    asked: dict[str, Any] | None,
) -> None:
    from agentd.cli.replay import print_report, try_file

    if file is None:
        raise AgentdError(f"{name} follows a log; say which file to run through it: agentd test {name} --log FILE")
    report = try_file(loaded, name, file, missed=missed, limit=limit, page=loaded.config.api.page_url)
    report |= {"investigate": asked}
    if output == "json":
        print_json(report)
    else:
        print_report(report)
        _print_investigation(asked)
    sys.exit(FIRING if any(event["state"] == "firing" for event in report["timeline"]) else 0)


def _open(loaded: Loaded, name: str) -> ProbeWatch:
    clock = SystemClock()
    beats = Beats(clock)
    tools = ProbeTools(clock, KeyedBuckets(loaded.config.daemon.host_rate), beats)
    plan = assemble(loaded, tools, instance=loaded.config.daemon.instance or socket.gethostname())
    if name in plan.watches:
        watch = plan.watches[name].watch
        if watch.kind == HEARTBEAT.name:
            # Restored as of now: whatever has become late until this moment is late.
            beats.restore([_stored_beat(loaded, name)], clock.now())
        return watch
    disabled = not _found(loaded, name).enabled
    why = "it is disabled (`enabled: false`)" if disabled else "this version does not run its source"
    raise AgentdError(f"{name} cannot be tried: {why}")


def _stored_beat(loaded: Loaded, name: str) -> Beat:
    """The last heartbeat that the daemon took; a command gets none itself. Raises AgentdError when there is none."""
    state_dir = loaded.config.daemon.find_state_dir(loaded.environment)
    try:
        rows = asyncio.run(read_store(state_dir, lambda store: store.state.read(heartbeats.load)))
    except StoreError as error:
        why = str(error) if _may_be(state_dir / STATE) else f"no daemon has run here, {state_dir} is empty"
        raise AgentdError(f"{name} cannot be tried: its beats are what the daemon has stored; {why}") from error
    for row in rows:
        if row.watch == name:
            return row
    raise AgentdError(
        f"{name} cannot be tried: the daemon whose state is in {state_dir} does not wait for its beats yet; "
        "start it, or `agentd reload`"
    )


def _may_be(path: Path) -> bool:
    """False when it is surely not there."""
    try:
        return path.exists()
    except PermissionError:
        return True


async def _try(watch: ProbeWatch, routing: Routing, page: str | None) -> dict[str, Any]:
    clock = SystemClock()
    try:
        observation = await look(watch, clock)
    finally:
        await watch.probe.close()
    _, judgement = judged(observation, watch.conditions)
    values = without_secrets(observation.values)
    now = clock.now()
    return {
        "watch": watch.name,
        "kind": watch.kind,
        "verdict": judgement.verdict.value,
        "summary": judgement.summary,
        "duration_ms": round(observation.duration_s * 1000, 1),
        "error": without_secrets(observation.error),
        "blind": without_secrets(observation.blind),
        "observation": {key: _short(value) for key, value in values.items()},
        "conditions": _conditions(watch, observation, values),
        "alert": _alert_step(watch, judgement, now),
        "notify": list(routing.of(watch.calm, watch.wish).notify),
        "payload": _payload(watch, judgement, now, page),
    }


def _conditions(watch: ProbeWatch, observation: Observation, shown: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for condition in watch.conditions:
        _, seen = condition.explain(shown)
        rows.append({"condition": condition.source, "holds": condition.holds(observation.values), "values": seen})
    return rows


def _alert_step(watch: ProbeWatch, judgement: Judgement, now: datetime) -> str:
    policy = watch.policy
    if judgement.verdict is Verdict.BLIND:
        return "the streak stays as it is; it alerts as blind when this lasts longer than blind_after"
    if judgement.verdict is Verdict.OK:
        return f"none; a firing alert would resolve after {policy.recover_after} such checks in a row"
    after = step(watch.calm, judgement, policy, now).alert
    needed = f"{policy.needed} in a row" if policy.needed == policy.of else f"{policy.needed} of {policy.of}"
    return f"from ok to {after.status.value} ({after.reason_text}); it fires at {needed}"


def _payload(watch: ProbeWatch, judgement: Judgement, now: datetime, page: str | None) -> dict[str, Any] | None:
    """What would go out at the check with which the alert fires; None when nothing fails."""
    if judgement.verdict is not Verdict.FAILING:
        return None
    alert: Alert = watch.calm
    for _ in range(watch.policy.needed):
        taken = step(alert, judgement, watch.policy, now)
        alert = taken.alert
    assert taken.transition is not None
    data = alert_data(replace(taken.transition, alert=alert), links=alert_links(page, alert))
    return alert_payload(EventType.FIRING, data, at=now)


def _short(value: Any) -> Any:
    return value[:_MAX_SHOWN] + "…" if isinstance(value, str) and len(value) > _MAX_SHOWN else value


def _print(report: dict[str, Any]) -> None:
    colour = {"ok": "green", "failing": "red", "blind": "magenta"}[report["verdict"]]
    verdict = click.style(report["verdict"], fg=colour, bold=True)
    click.echo(f"{report['watch']} ({report['kind']}): {verdict} in {report['duration_ms']} ms")
    if report["summary"]:
        click.echo(f"  {clean(report['summary'])}")
    if report["observation"]:
        click.echo("\nseen")
        for key, value in report["observation"].items():
            click.echo(f"  {key} = {clean(written(value))}")
    if report["conditions"]:
        click.echo("\nconditions")
        for row in report["conditions"]:
            mark = click.style("holds", fg="green") if row["holds"] else click.style("FAILS", fg="red")
            values = ", ".join(f"{name} = {clean(written(value))}" for name, value in row["values"].items())
            click.echo(f"  {mark}  {clean(row['condition'])}{f'   ({values})' if values else ''}")
    click.echo(f"\nalert\n  {report['alert']}")
    click.echo(f"  tells: {', '.join(report['notify']) or 'nobody'}")
    _print_investigation(report["investigate"])
    if report["payload"]:
        click.echo("\npayload when it fires (not sent)")
        print_json(report["payload"])
