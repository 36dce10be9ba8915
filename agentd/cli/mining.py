"""
`agentd logs templates --log FILE`: the kinds of lines in any file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from agentd.cli.tables import print_json, print_table
from agentd.logs.follow import replay_file
from agentd.logs.settings import LogSource
from agentd.logs.templates import Miner, Row

_BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Mined:
    """rows: the most frequent first. lines: the template's id of each line, None of a blank one."""

    rows: list[Row]
    lines: list[str | None]


def mine(file: Path) -> Mined:
    """Learn from the whole file. Raises AgentdError when it cannot be read."""
    now = datetime.now(UTC)
    settings = LogSource(files=(str(file),), format="plain")
    source = replay_file(str(file), settings, complete=len, now=lambda: now)
    miner, ids = Miner(), []
    more = True
    while more:
        batch = source.read(_BLOCK_BYTES)
        more = batch.more
        for block in batch.blocks:
            ids += [miner.add_one(line, now) for line in block.text.decode(errors="replace").split("\n")[:-1]]
    # Two templates may have turned out to be one since.
    return Mined(miner.rows(), [None if id is None else miner.current(id) for id in ids])


def print_each(mined: Mined) -> None:
    """One line for each line: what a program needs that groups them."""
    for id in mined.lines:
        click.echo(id or "-")


def print_mined(mined: Mined, limit: int, output: str) -> None:
    """The table, or the same as JSON."""
    rows = [
        {"id": row.id, "template": row.pattern, "count": row.count, "samples": list(row.samples)}
        for row in mined.rows[:limit]
    ]
    if output == "json":
        print_json({"lines": len(mined.lines), "templates": rows, "more": len(mined.rows) - len(rows)})
        return
    print_table(rows, {"count": "COUNT", "id": "ID", "template": "TEMPLATE"}, empty="There are no lines in it.")
