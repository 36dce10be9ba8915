"""
agentd(8): every command with its options, as click knows them; and what a command line cannot say of itself.

In: the commands. Out: the page.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from agentd import __version__
from agentd.cli import FAILED, FIRING, WRONG, cli
from agentd.cli.manual import roff
from agentd.cli.options import config_option, output_option

EXIT_CODES = {
    0: "Done.",
    FAILED: "It did not work; a task failed, was stopped or cancelled; a replay diverges; the daemon does not run "
    "(`status`).",
    WRONG: "The configuration or the call is wrong.",
    FIRING: "Looked, and something is firing (`alerts --exit-code`), a target fails (`test`, `watches check`), or what "
    "an agent found is a problem (`task`).",
    75: "The daemon ended itself for a clean restart.",
    130: "Left by a second Ctrl-C.",
}

ENVIRONMENT = {
    "AGENTD_CONFIG": "The main configuration file, where `--config` does not name one.",
    "AGENTD_SECTION__KEY": "Overrides a key of the configuration outside of `watches`: "
    "`AGENTD_DAEMON__LOG_LEVEL=debug` sets `daemon.log_level`. Also read from `.env` beside the main file; what "
    "stands in the environment goes first.",
    "STATE_DIRECTORY, XDG_STATE_HOME, HOME": "Where the stores are, when `daemon.state_dir` does not say: the first; "
    "`agentd` in the second; `.local/state/agentd` in the third.",
    "RUNTIME_DIRECTORY": "Where the unix socket is, when `api.listen` names none; else in the folder of the stores.",
    "CREDENTIALS_DIRECTORY": "Where `${credential:NAME}` is looked up; set by systemd.",
    "NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS": "How systemd hears that the daemon is ready and alive, and hands it "
    "sockets.",
    "AGENTD_AGENT_SOCKET": "Where agents run in a service of their own; set by the unit.",
    "NO_COLOR": "Whatever it says, nothing is coloured. Only a terminal gets colours anyway.",
}

FILES = {
    "./agentd.yaml, /etc/agentd/agentd.yaml": "The configuration, the first that is there; see `agentd.yaml(5)`.",
    "watches.d/*.yaml": "More watches and webhooks, where `include` says so.",
    "keys.d/*.yaml": "Keys to the API, beside the main file; `agentd key new` writes them.",
    ".env": "Variables, beside the main file.",
    "/etc/agentd/environment, /etc/agentd/agent.environment": "Variables of the service and of its agents, for root "
    "alone to read.",
    "/etc/agentd/credentials/": "Secrets that the unit names by `LoadCredential=`.",
    "/var/lib/agentd/": "The stores of the service: state, history, traces, backups.",
    "/run/agentd/api.sock": "Where commands reach the service.",
    "/opt/agentd/share/doc/agentd/README.md": "How to begin, with examples.",
}

SIGNALS = {
    "SIGTERM, SIGINT": "The daemon drains: what runs is ended or waited for, at most `daemon.drain_timeout`, and "
    "everything is stored.",
    "SIGHUP": "The daemon reads its configuration again; a wrong one leaves it as it is.",
    "SIGABRT": "Sent by systemd's watchdog: the stack of every thread goes into the journal.",
}


def commands_page() -> str:
    return roff.page("AGENTD", 8, __version__, "System administration", _parts())


def _parts() -> Iterator[str]:
    yield roff.section("NAME")
    yield "agentd \\- monitoring daemon that watches, decides, and tells people through webhooks"
    yield roff.section("SYNOPSIS")
    yield f".B agentd\n{roff.escaped('COMMAND [OPTIONS] [ARGUMENTS]')}"
    yield roff.section("DESCRIPTION")
    yield roff.paragraph(cli.help or "")
    yield roff.paragraph(
        "`agentd run` is the daemon. The other commands are its clients: they speak to it over its unix socket. Where "
        "none runs, those that only look read what it stored, and say so on stderr."
    )
    yield roff.paragraph(
        "Tables are coloured on a terminal; on a pipe each row is one line. `--output json` prints everything for "
        "programs, where a command has it."
    )
    yield roff.section("OPTIONS")
    yield roff.paragraph("All commands that need to know where the daemon is, or that print a table, have these:")
    with click.Context(cli, info_name="agentd") as context:
        for shared in _shared(context):
            yield roff.term(*shared)
        yield roff.term("-h, --help", "Say what a command does, and what it takes.")
        yield roff.term("--version", "Of `agentd` itself: print the version.")
        yield roff.section("COMMANDS")
        for command, path, inner in _walk(context, cli):
            yield from _command(command, path, inner)
    yield from _table("EXIT STATUS", {str(code): text for code, text in EXIT_CODES.items()})
    yield from _table("ENVIRONMENT", ENVIRONMENT)
    yield from _table("FILES", FILES)
    yield from _table("SIGNALS", SIGNALS)
    yield roff.section("SEE ALSO")
    yield ".BR agentd.yaml (5),\n.BR systemd.service (5),\n.BR journalctl (1)"


def _walk(context: click.Context, group: click.Group) -> Iterator[tuple[click.Command, str, click.Context]]:
    """Every command that does something itself, in the order of the help."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        with click.Context(command, info_name=name, parent=context) as inner:
            if not isinstance(command, click.Group) or command.invoke_without_command:
                yield command, inner.command_path, inner
            if isinstance(command, click.Group):
                yield from _walk(inner, command)


def _command(command: click.Command, path: str, context: click.Context) -> Iterator[str]:
    pieces = [piece for piece in command.collect_usage_pieces(context) if piece not in ("COMMAND [ARGS]...",)]
    yield roff.subsection(" ".join([path, *pieces]))
    for text in inspect.cleandoc(command.help or "").replace("\b", "").split("\n\n"):
        yield roff.paragraph(text)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts and record not in _shared(context):
            yield roff.term(*record)


def _shared(context: click.Context) -> list[tuple[str, str]]:
    """What most commands have, told once."""
    made = config_option(output_option(lambda: None)).__click_params__  # type: ignore[attr-defined]  # click's mark
    return [record for each in made if (record := each.get_help_record(context)) is not None]


def _table(name: str, rows: dict[str, str]) -> Iterator[str]:
    yield roff.section(name)
    for key, text in rows.items():
        yield roff.term(key, text)
