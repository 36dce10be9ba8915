"""
`agentd logs`: what the logs that are followed consist of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agentd.api.views import template_view
from agentd.cli.client import quoted, read_or_open
from agentd.cli.names import watch_names
from agentd.cli.options import config_option, output_option
from agentd.cli.place import find_place
from agentd.cli.tables import print_json, print_table
from agentd.memory import templates as template_rows
from agentd.memory.store import Store


@click.group()
def logs() -> None:
    """What the logs that are followed consist of."""


@logs.command()
@click.argument("watch", metavar="[WATCH]", required=False, shell_complete=watch_names)
@click.option("--log", "file", type=click.Path(path_type=Path), help="Of this file instead of a watch's log.")
@click.option("--each", is_flag=True, help="With --log: the template's id of each line, in the order of the lines.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="So many at most.")
@config_option
@output_option
def templates(
    watch: str | None, file: Path | None, each: bool, limit: int, config_path: Path | None, output: str
) -> None:
    """
    Show the kinds of lines in the log that WATCH follows: how many, how often, first and last seen.

    With --log, of any file, packed or not; no configuration and no daemon is needed for that.
    """
    if file is not None:
        from agentd.cli.mining import mine, print_each, print_mined

        mined = mine(file)
        if each:
            print_each(mined)
        else:
            print_mined(mined, limit, output)
        return
    if watch is None:
        raise click.UsageError("say which WATCH, or which file with --log FILE")
    place = find_place(config_path)

    async def offline(store: Store) -> dict[str, Any]:
        rows = await store.history.read(lambda c: template_rows.of(c, watch, limit))
        return {"watch": watch, "templates": [template_view(row) for row in rows]}

    answer = read_or_open(place, f"/api/v1/watches/{quoted(watch)}/templates", offline, limit=str(limit))
    if output == "json":
        print_json(answer)
        return
    columns = {"count": "COUNT", "rate_per_hour": "AN HOUR", "first_at": "FIRST", "last_at": "LAST", "id": "ID"}
    print_table(answer["templates"], columns | {"template": "TEMPLATE"}, empty=f"No lines of {watch} were seen yet.")
