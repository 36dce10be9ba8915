"""
The command line: one file per group of commands, each imported only when it is called.

Exit codes: 0 done; 1 it did not work, or a task failed, was stopped or cancelled, or a replay diverges; 2 the
configuration or the call is wrong; 3 looked, and something is firing (`alerts --exit-code`, `test`) or what an agent
found is a problem (`task`); 75 the daemon ended itself for a clean restart; 130 left by a second Ctrl-C.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys

import click

from agentd import __version__
from agentd.cli.tables import clean_lines
from agentd.errors import AgentdError, ConfigError, InvalidConfig

COMMANDS = {
    "run": ("agentd.cli.run", "run"),
    "demo": ("agentd.cli.demo", "demo"),
    "check": ("agentd.cli.config", "check"),
    "init": ("agentd.cli.config", "init"),
    "schema": ("agentd.cli.config", "schema"),
    "config": ("agentd.cli.config_live", "config"),
    "test": ("agentd.cli.try_out", "test"),
    "status": ("agentd.cli.look", "status"),
    "watches": ("agentd.cli.look", "watches"),
    "alerts": ("agentd.cli.look", "alerts"),
    "ack": ("agentd.cli.people", "ack"),
    "silence": ("agentd.cli.people", "silence"),
    "logs": ("agentd.cli.logs", "logs"),
    "memory": ("agentd.cli.memory", "memory"),
    "task": ("agentd.cli.task", "task"),
    "interactive": ("agentd.cli.interactive", "interactive"),
    "runs": ("agentd.cli.runs", "runs"),
    "replay": ("agentd.cli.runs", "replay"),
    "models": ("agentd.cli.models", "models"),
    "outbox": ("agentd.cli.outbox", "outbox"),
    "webhook": ("agentd.cli.act", "webhook"),
    "audit": ("agentd.cli.audit", "audit"),
    "key": ("agentd.cli.key", "key"),
    "pause": ("agentd.cli.act", "pause"),
    "resume": ("agentd.cli.act", "resume"),
    "reload": ("agentd.cli.act", "reload"),
    "doctor": ("agentd.cli.doctor", "doctor"),
    "completion": ("agentd.cli.completion", "completion"),
}

FAILED = 1
WRONG = 2
FIRING = 3

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Commands(click.Group):
    """Imports a command when it is asked for: `agentd status` must not wait for what `agentd run` needs."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="agentd")
def cli() -> None:
    """Watch endpoints, logs, commands, units, this machine and jobs; decide; tell people through webhooks."""


def main() -> None:
    """Run the command line; an error that agentd raised on purpose is a message, not a traceback."""
    try:
        cli(prog_name="agentd", color=False if _wants_no_colour() else None)
    except InvalidConfig as error:
        for problem in error.problems:
            click.echo(clean_lines(problem), err=True)
        sys.exit(WRONG)
    except AgentdError as error:
        # What the daemon answered may quote what a target said.
        click.echo(f"agentd: {clean_lines(str(error) or type(error).__name__)}", err=True)
        sys.exit(WRONG if isinstance(error, ConfigError) else FAILED)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _give_up_writing(error)
        sys.exit(FAILED)


def _wants_no_colour() -> bool:
    """https://no-color.org; a terminal alone gets colours anyway."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def _give_up_writing(error: OSError) -> None:
    """Say that the output ends early; what is still buffered would fail once more, with a traceback, at the exit."""
    with contextlib.suppress(OSError):
        click.echo(f"agentd: cannot write {error.filename or 'the output'}: {error.strerror}", err=True)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
