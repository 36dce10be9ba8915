"""Act on the running daemon: `pause`, `resume`, `reload`, `webhook test`, `webhook enable`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agentd.cli import FAILED, FIRING
from agentd.cli.client import call, quoted
from agentd.cli.names import watch_names, webhook_names
from agentd.cli.options import config_option, output_option
from agentd.cli.place import find_place
from agentd.cli.tables import clean, print_json, say
from agentd.settings import positive_duration


@click.command()
@click.argument("watch", shell_complete=watch_names)
@click.option("--for", "lasting", help="Resume by itself after this time, e.g. 2h.")
@click.option("--reason", default="", help="Why; kept in the audit trail.")
@config_option
@output_option
def pause(watch: str, lasting: str | None, reason: str, config_path: Path | None, output: str) -> None:
    """Stop checking a watch; its alert stays as it is."""
    try:
        for_s = positive_duration(lasting).total_seconds() if lasting else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--for") from error
    path = f"/api/v1/watches/{quoted(watch)}/pause"
    answer = call(find_place(config_path), "POST", path, {"for_s": for_s, "reason": reason})
    text = f"{watch} is paused until {answer['paused_until'] or 'somebody resumes it'}"
    if before := answer["replaced"]:
        text += f"; this replaces the pause by {before['by']} until {before['until'] or 'somebody resumes it'}"
    say(answer, output, text)


@click.command()
@click.argument("watch", shell_complete=watch_names)
@config_option
@output_option
def resume(watch: str, config_path: Path | None, output: str) -> None:
    """Check a paused watch again."""
    answer = call(find_place(config_path), "POST", f"/api/v1/watches/{quoted(watch)}/resume")
    say(answer, output, f"{watch} runs again" + (f", next at {answer['next_at']}" if answer["next_at"] else ""))


@click.command("check")
@click.argument("watch", shell_complete=watch_names)
@config_option
@output_option
def check_now(watch: str, config_path: Path | None, output: str) -> None:
    """
    Have the daemon look through WATCH now, or ask its goal. Unlike `agentd test`, this counts.

    Exits with 0 when all is well or a run begins, 3 when the target fails, 1 when we could not look.
    """
    answer = call(find_place(config_path), "POST", f"/api/v1/watches/{quoted(watch)}/check")
    check = answer["check"]
    if check is not None:
        say(answer, output, f"{watch}: {check['verdict']}" + (f": {check['summary']}" if check["summary"] else ""))
        sys.exit({"ok": 0, "failing": FIRING, "blind": FAILED}[check["verdict"]])
    if "run" not in answer:
        say(answer, output, f"{watch} was not looked at yet")
    elif answer["run"] is None:
        say(answer, output, f"{watch} waits already; `agentd runs --watch {watch}` shows it")
    else:
        say(answer, output, f"{answer['run']} is asked; `agentd runs {answer['run']}` shows what comes of it")


@click.command()
@config_option
@output_option
def reload(config_path: Path | None, output: str) -> None:
    """Make the daemon read its configuration again; a wrong one leaves it as it is."""
    answer = call(find_place(config_path), "POST", "/api/v1/reload")
    say(answer, output, f"reloaded{'; ' + answer['note'] if answer['note'] else ''}")


@click.group()
def webhook() -> None:
    """Try a webhook, or take a disabled one back."""


@webhook.command("test")
@click.argument("name", shell_complete=webhook_names)
@config_option
@output_option
def test_(name: str, config_path: Path | None, output: str) -> None:
    """Send a marked sample to a webhook now and say what it answered."""
    answer = call(find_place(config_path), "POST", f"/api/v1/webhooks/{quoted(name)}/test")
    if output == "json":
        print_json(answer)
    elif answer["ok"]:
        click.echo(f"{name} took it: status {answer['status']} in {answer['latency_ms']:.0f} ms")
    else:
        click.echo(f"{name} did not take it: {clean(answer['error'])}", err=True)
        if answer["answer"]:
            click.echo(f"it answered: {clean(answer['answer'])}", err=True)
    if not answer["ok"]:
        sys.exit(FAILED)


@webhook.command()
@click.argument("name", shell_complete=webhook_names)
@config_option
@output_option
def enable(name: str, config_path: Path | None, output: str) -> None:
    """Send to a webhook again that was disabled (it had answered 410)."""
    answer = call(find_place(config_path), "POST", f"/api/v1/webhooks/{quoted(name)}/enable")
    say(answer, output, f"{name} is enabled" + ("" if answer["was_disabled"] else " (it was not disabled)"))
