"""
`agentd memory`: what agents found, what tools told them, what worked and what it cost.

Reads the store's files itself, also beside a daemon: an export may take long, and is nobody else's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import click

from agentd.cli.client import read_store
from agentd.cli.newfile import new_file
from agentd.cli.options import config_option, output_option
from agentd.cli.place import find_place
from agentd.cli.tables import counted, print_facts, print_json, print_table
from agentd.clock import iso
from agentd.memory import ledger, notes, retention, spend, worked
from agentd.memory.notes import Note, NoteType
from agentd.memory.spend import Spent
from agentd.memory.store import Store
from agentd.memory.worked import Worked

_PAGE = 500
_DAYS = 7

TYPES = click.Choice(["final", "tool_result"])


@click.group()
def memory() -> None:
    """Show, search and export what agents found, and what worked."""


@memory.command()
@click.option("--kind", help="What worked for this kind of task alone.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="So many rows at most.")
@config_option
@output_option
def stats(kind: str | None, limit: int, config_path: Path | None, output: str) -> None:
    """Say how much is remembered, what it cost, and which ways of working went well."""
    now = datetime.now(UTC)
    answer = _read(config_path, partial(_stats, kind=kind, limit=limit, day=spend.day_of(now)))
    if output == "json":
        print_json(answer)
        return
    print_facts(_facts(answer))
    click.echo()
    rows = [row | {"went well": f"{row['successes']} of {row['runs']}"} for row in answer["worked"]]
    rows = [row | {"usd": "unknown" if row["usd"] is None else f"{row['usd']:.4f}"} for row in rows]
    columns = {"kind": "TASK", "worker": "WORKER", "shape": "GRAPH", "model": "MODEL", "went well": "WENT WELL"}
    columns |= {"latency_s": "SECONDS", "tokens": "TOKENS", "usd": "USD", "last_at": "LAST"}
    print_table(rows, columns, empty=f"No runs{f' of kind {kind}' if kind else ''} are remembered yet.")
    for line in answer["advice"]:
        click.echo(f"  {line}")


async def _stats(store: Store, kind: str | None, limit: int, day: str) -> dict[str, Any]:
    def of_state(c: apsw.Connection) -> dict[str, Any]:
        return {
            "runs": {state.value: number for state, number in ledger.counts(c).items()},
            "spent_today": _spent(spend.today(c, day)),
            "spent": {each: _spent(sums) for each, sums in spend.days(c, _DAYS).items()},
        }

    def of_history(c: apsw.Connection) -> dict[str, Any]:
        return {
            "notes": notes.counts(c),
            "bytes": retention.used_bytes(c),
            "worked": [_worked(row) for row in worked.rows(c, kind, limit)],
            "advice": worked.advice(c, kind) if kind is not None else [],
        }

    return await store.state.read(of_state) | await store.history.read(of_history)


def _facts(answer: dict[str, Any]) -> dict[str, str]:
    today = answer["spent_today"]
    return {
        "findings": str(answer["notes"].get("final", 0)),
        "tool results": str(answer["notes"].get("tool_result", 0)),
        "history": f"{answer['bytes'] / 2**20:.1f} MiB",
        "runs": ", ".join(f"{number} {state}" for state, number in answer["runs"].items()) or "none",
        "spent today": _money(today),
        f"in {_DAYS} days": "; ".join(f"{day} {_money(sums)}" for day, sums in answer["spent"].items()) or "nothing",
    }


def _money(sums: dict[str, Any]) -> str:
    said = f"${sums['usd']:.4f}, {counted(sums['tokens'], 'token')}, {counted(sums['calls'], 'call')}"
    return said + (f", {sums['unknown_calls']} of unknown price" if sums["unknown_calls"] else "")


def _spent(sums: Spent) -> dict[str, Any]:
    return {"usd": sums.usd, "tokens": sums.tokens, "calls": sums.calls, "unknown_calls": sums.unknown_calls}


def _worked(row: Worked) -> dict[str, Any]:
    """Of one run, on average: latency_s, tokens, usd."""
    return {
        "kind": row.kind,
        "worker": row.worker,
        "shape": row.shape,
        "model": row.model,
        "runs": row.runs,
        "successes": row.successes,
        "latency_s": round(row.latency_s, 3),
        "tokens": row.tokens // row.runs,
        "usd": row.usd,
        "last_at": iso(row.last_at),
    }


@memory.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--watch", help="Of this watch alone.")
@click.option("--alert", "fingerprint", help="About the alert with this fingerprint alone.")
@click.option("--type", "type_", type=TYPES, help="What runs ended with, or what tools said.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="So many at most.")
@config_option
@output_option
def search(
    words: tuple[str, ...],
    watch: str | None,
    fingerprint: str | None,
    type_: NoteType | None,
    limit: int,
    config_path: Path | None,
    output: str,
) -> None:
    """
    Find notes that have all the WORDS, the best match first.

    WORD* stands for all words that begin so, "several words" in quotes for these in this order.
    """
    query = " ".join(_typed(word) for word in words)
    if not any(letter.isalnum() for letter in query):
        raise click.UsageError("no word to look for: write at least one with letters or digits")

    async def find(store: Store) -> list[notes.Found]:
        return await store.history.read(
            lambda c: notes.search(c, query, watch=watch, fingerprint=fingerprint, type=type_, limit=limit)
        )

    found = _read(config_path, find)
    if output == "json":
        print_json([hit.note.event() | {"snippet": hit.snippet} for hit in found])
        return
    rows = [_row(hit.note) | {"summary": hit.snippet} for hit in found]
    columns = {"noted_at": "WHEN", "type": "TYPE", "watch": "WATCH", "run": "RUN", "tool": "TOOL", "summary": "WHAT"}
    print_table(rows, columns, empty=f"Nothing that is remembered has {query}.")


def _typed(word: str) -> str:
    """A shell takes the quotes away: what has spaces was a phrase."""
    whole = word.encode(errors="surrogateescape").decode(errors="replace")
    return f'"{whole}"' if " " in whole and '"' not in whole else whole


def _row(note: Note) -> dict[str, Any]:
    return {"noted_at": iso(note.at), "type": note.type, "watch": note.watch, "run": note.run, "tool": note.tool}


@memory.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--watch", help="Of this watch alone.")
@click.option("--type", "type_", type=TYPES, help="What runs ended with, or what tools said.")
@config_option
def export(file: Path | None, watch: str | None, type_: NoteType | None, config_path: Path | None) -> None:
    """
    Write all notes, oldest first, as lines of JSON: to FILE, or to where you are.

    Each is {"type": "final", …} or {"type": "tool_result", "step", "tool", "output", …}.
    """

    async def write(store: Store) -> int:
        count = await store.history.read(lambda c: notes.count(c, watch=watch, type=type_))
        with new_file(file) as out, _progress(count, shown=file is not None or not sys.stdout.isatty()) as advance:
            number, written = 0, 0
            while page := await store.history.read(
                partial(notes.after, number=number, watch=watch, type=type_, limit=_PAGE)
            ):
                # ASCII alone: what a tool or a model said must not paint the terminal that this may go to.
                out.write("".join(json.dumps(note.event()) + "\n" for note in page))
                number, written = page[-1].number, written + len(page)
                advance(len(page))
        return written

    written = _read(config_path, write)
    if file is not None:
        click.echo(f"{counted(written, 'note')} written to {file}", err=True)


@contextlib.contextmanager
def _progress(total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    if not shown or not sys.stderr.isatty():
        yield lambda notes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("notes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("export", total=total)
        yield lambda notes: bar.advance(task, notes)


def _read(config_path: Path | None, work: Callable[[Store], Any]) -> Any:
    return asyncio.run(read_store(find_place(config_path).state_dir, work))
