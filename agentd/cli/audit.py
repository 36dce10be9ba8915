"""`agentd audit`: who did what, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agentd.cli.client import read_or_open
from agentd.cli.options import config_option, output_option
from agentd.cli.place import find_place
from agentd.cli.tables import print_json, print_table
from agentd.clock import iso
from agentd.memory import audit as rows
from agentd.memory.audit import Deed
from agentd.memory.store import Store


@click.command()
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 500), help="At most so many.")
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Those before this one: the next page.")
@config_option
@output_option
def audit(limit: int, before: int | None, config_path: Path | None, output: str) -> None:
    """List what operators did by command, API or page, newest first: pauses, acknowledgements, changes, reloads."""

    async def offline(store: Store) -> dict[str, Any]:
        found = await store.state.read(lambda c: rows.rows(c, limit=limit + 1, before=before))
        deeds = [_view(deed) for deed in found[:limit]]
        return {"deeds": deeds, "next": deeds[-1]["id"] if len(found) > limit else None}

    asked = None if before is None else str(before)
    answer = read_or_open(find_place(config_path), "/api/v1/audit", offline, limit=str(limit), before=asked)
    if output == "json":
        print_json(answer)
        return
    rows_shown = [deed | {"done_at": deed["at"]} for deed in answer["deeds"]]
    columns = {"done_at": "WHEN", "who": "WHO", "action": "WHAT", "target": "OF WHAT", "detail": "MORE"}
    print_table(rows_shown, columns, empty="Nobody has done anything yet.", cut=("detail",))
    if answer["next"] is not None:
        click.echo(f"older ones: --before {answer['next']}", err=True)


def _view(deed: Deed) -> dict[str, Any]:
    """As the daemon shows it."""
    return {
        "id": str(deed.number),
        "at": iso(deed.at),
        "who": deed.who,
        "action": deed.action,
        "target": deed.target,
        "detail": deed.detail,
    }
