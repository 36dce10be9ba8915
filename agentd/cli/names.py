"""
Names that a shell completes: of watches, alerts, runs as the running daemon has them, of webhooks, models and keys as
the configuration does.

In: what is typed so far. Out: names that begin so. Promise: quick and silent. Where there is no daemon, no answer or
no right to ask, nothing is completed, and nothing is printed into the line that somebody is typing.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from glob import escape
from pathlib import Path
from typing import Any

import click

from agentd.config.document import read_document
from agentd.config.key_files import FOLDER
from agentd.config.loader import find_config

Complete = Callable[[click.Context, click.Parameter, str], list[str]]

_PATIENCE_S = 1.0
_MOST = 500


def _names(path: str, pick: Callable[[Any], Iterator[Any]], **query: str) -> Complete:
    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        found: dict[str, None] = {}
        # Completion must not fail loudly, whatever the configuration, the daemon or the store are like.
        with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
            for name in pick(_ask(context, path, query)):
                if isinstance(name, str) and name.startswith(incomplete) and name.isprintable():
                    found[name] = None
                if len(found) == _MOST:
                    break
        return list(found)

    return complete


def _ask(context: click.Context, path: str, query: dict[str, str]) -> Any:
    import httpx

    from agentd.cli.client import knock
    from agentd.cli.place import find_socket

    config: Path | None = context.params.get("config_path")
    socket = find_socket(config)
    knock(socket)
    transport = httpx.HTTPTransport(uds=str(socket))
    with httpx.Client(transport=transport, timeout=_PATIENCE_S) as client:
        return client.get(f"http://agentd{path}", params=query).raise_for_status().json()


def _alert_names(answer: Any) -> Iterator[Any]:
    for row in answer["alerts"]:
        yield f"{row['watch']}/{row['rule']}" if row["rule"] else row["watch"]
    yield from _alert_ids(answer)


def _alert_ids(answer: Any) -> Iterator[Any]:
    yield from (row["fingerprint"][:8] for row in answer["alerts"])


watch_names = _names("/api/v1/watches", lambda answer: (row["name"] for row in answer["watches"]))
alert_names = _names("/api/v1/alerts", _alert_names)
alert_ids = _names("/api/v1/alerts", _alert_ids, all="1")
silence_ids = _names("/api/v1/silences", lambda answer: (row["id"] for row in answer["silences"]))
run_ids = _names("/api/v1/runs", lambda answer: (row["id"] for row in answer["runs"]), limit="100")
message_ids = _names("/api/v1/outbox", lambda answer: (row["id"] for row in answer["deliveries"]), limit="100")


def webhook_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Those of the main file: no list of the daemon's has them all."""
    return _in_file(context, incomplete, lambda data: data["webhooks"])


def key_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Those that `key new` made: others it does not revoke."""
    with contextlib.suppress(Exception):
        folder = find_config(context.params.get("config_path")).parent / FOLDER
        return sorted(path.stem for path in folder.glob(f"{escape(incomplete)}*.yaml"))
    return []


def model_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Those of the main file, where alone they may stand."""
    return _in_file(context, incomplete, lambda data: data["models"])


def _in_file(context: click.Context, incomplete: str, pick: Callable[[Any], Any]) -> list[str]:
    with contextlib.suppress(Exception):
        document, _ = read_document(find_config(context.params.get("config_path")))
        return [name for name in pick(document.data) if isinstance(name, str) and name.startswith(incomplete)]
    return []
