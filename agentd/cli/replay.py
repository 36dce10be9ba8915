"""
`agentd test WATCH --log FILE`: the file through the watch's rules at full speed. Nothing is sent, nothing is stored.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from agentd.alert.routing import Routing
from agentd.api.views import moment
from agentd.cli.tables import clean, counted, print_json
from agentd.clock import SystemClock
from agentd.config.loader import Loaded
from agentd.config.people import routing_from
from agentd.daemon.assemble import open_log_watch, try_log
from agentd.deliver.links import alert_links
from agentd.deliver.payload import alert_data, alert_payload
from agentd.errors import AgentdError
from agentd.pipeline.replay import Report, replay
from agentd.pipeline.watches import LogWatch
from agentd.records import Transition
from agentd.telemetry.redact import redact

MOST_PAYLOADS = 1000


def try_file(loaded: Loaded, name: str, file: Path, *, missed: bool, limit: int, page: str | None) -> dict[str, Any]:
    """The report of a file, for `print_report` or as JSON. Raises AgentdError when the file cannot be read."""
    config = next(watch for watch in loaded.config.watches if watch.name == name)
    instance = loaded.config.daemon.instance or socket.gethostname()
    watch = open_log_watch(config, loaded.config, SystemClock(), instance).watch
    work = try_log(config, file, SystemClock())
    started = time.perf_counter()
    with _progress(file) as progress:
        report = replay(watch, work, instance=instance, show=limit, missed=missed, progress=progress)
    return _view(watch, file, report, time.perf_counter() - started, page, routing_from(loaded.config))


@contextlib.contextmanager
def _progress(file: Path) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal. The size is that of the file as it lies; an unpacked one may read further."""
    if not sys.stderr.isatty():
        yield lambda bytes_read: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(clean(file.name), total=max(1, _size(file)))
        yield lambda bytes_read: bar.update(task, completed=bytes_read)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise AgentdError(f"{file}: {error.strerror}") from error


def _view(
    watch: LogWatch, file: Path, report: Report, took_s: float, page: str | None, routing: Routing
) -> dict[str, Any]:
    return {
        "watch": watch.name,
        "file": str(file),
        "lines": report.lines,
        "bytes": report.bytes,
        "seconds": round(took_s, 3),
        "rules": [
            {"rule": name, "lines": rule.hits, "alerts": rule.fired, "samples": [redact(line) for line in rule.samples]}
            for name, rule in report.rules.items()
        ],
        "matched": report.matched,
        "missed": report.missed,
        "missed_lines": [redact(line) for line in report.missed_lines],
        "last_at": moment(report.last_at),
        "timeline": [_event(transition) for transition in report.timeline],
        "more_events": report.cut,
        "still_firing": [
            {
                "rule": alert.rule,
                "by": dict(alert.by),
                "since": moment(alert.started_at),
                "occurrences": alert.occurrences,
                "resolves_at": moment(alert.last_at + watch.rules[alert.rule or ""].resolve_after)
                if alert.last_at
                else None,
            }
            for alert in report.firing
        ],
        "notify": list(routing.of(watch.calm, watch.wish).notify),
        "payloads": [
            alert_payload(transition.event, _data(transition, page), at=transition.at)
            for transition in report.timeline[:MOST_PAYLOADS]
            if transition.event is not None
        ],
        "notes": report.notes,
    }


def _data(transition: Transition, page: str | None) -> dict[str, Any]:
    return alert_data(transition, links=alert_links(page, transition.alert))


def _event(transition: Transition) -> dict[str, Any]:
    alert = transition.alert
    return {
        "at": moment(transition.at),
        "state": transition.after.value,
        "rule": alert.rule,
        "by": dict(alert.by),
        "severity": alert.severity.value,
        "reason": transition.reason.value,
        "reason_text": transition.reason_text,
        "summary": alert.summary,
        "occurrences": alert.occurrences,
    }


def print_report(report: dict[str, Any]) -> None:
    """The report for people."""
    size, took = report["bytes"] / 1e6, max(report["seconds"], 1e-6)
    click.echo(
        f"{report['watch']} on {clean(report['file'])}: {counted(report['lines'], 'line')}, "
        f"{size:.1f} MB in {took:.2f} s ({size / took:.0f} MB/s)"
    )
    for note in report["notes"]:
        click.echo(click.style(f"  note: {clean(note)}", fg="yellow"))
    click.echo("\nrules")
    for rule in report["rules"]:
        click.echo(f"  {rule['rule']}: {counted(rule['lines'], 'line')}, {counted(rule['alerts'], 'alert')}")
        for line in rule["samples"]:
            click.echo(f"    {clean(line)[:300]}")
    if report["missed"] is not None:
        click.echo(f"\nmatched by no rule: {counted(report['missed'], 'line')}")
        for line in report["missed_lines"]:
            click.echo(f"  {clean(line)[:300]}")
    click.echo("\nwhat would have happened")
    for event in report["timeline"]:
        state = click.style(f"{event['state']:<8}", fg="red" if event["state"] == "firing" else "green", bold=True)
        by = " ".join(f"{clean(key)}={clean(value)}" for key, value in event["by"].items())
        what = " ".join(part for part in (event["rule"] or "", by) if part)
        click.echo(f"  {event['at']}  {state}  {what}: {clean(event['summary'])[:300]} ({event['reason_text']})")
    if not report["timeline"]:
        click.echo("  nothing: no rule would have fired")
    if report["more_events"]:
        click.echo(f"  … and {report['more_events']} more")
    for alert in report["still_firing"]:
        by = "".join(f" {clean(key)}={clean(value)}" for key, value in alert["by"].items())
        click.echo(
            f"  still firing at the end: {alert['rule']}{by}; resolves at {alert['resolves_at']} if nothing comes"
        )
    click.echo(f"  tells: {', '.join(report['notify']) or 'nobody'}")
    if report["payloads"]:
        click.echo("\nthe first message (not sent)")
        print_json(report["payloads"][0])
