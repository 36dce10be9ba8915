"""
What a daemon has kept, and said, about an alert: for whoever has to find out why its story is not whole.

In: the folder of its state, the daemons that lived there, a word of the alert's `by`. Out: lines for people: its rows,
what was sent of it when, what the log says of both. Looked at from outside, read-only.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stage import Daemon

_ABOUT = {
    "alerts": "SELECT fingerprint, status, started_at, last_at, ended_at, occurrences, muted_by, told FROM alerts",
    "group_members": "SELECT webhook, key, firing, one_off, news, muted, event, at, fingerprint FROM group_members",
    "groups": "SELECT webhook, key, first_at, look_at, told_at, told_firing, told_resolved FROM groups",
    "outbox": "SELECT seq, id, type, state, head, leased, attempts, created_at, due_at, ready_at, last_error, lane, "
    "fingerprint FROM outbox",
    "delivered": "SELECT seq, id, type, attempts, created_at, delivered_at, status, lane FROM delivered",
}
_WHERE = {
    "alerts": "instr(by, ?1)",
    "group_members": "instr(key, ?1)",
    "groups": "instr(key, ?1)",
    "outbox": "instr(lane, ?1)",
    "delivered": "instr(lane, ?1)",
}


def is_at_rest(state_dir: Path) -> bool:
    """Whether no alert fires and no message waits."""
    with _store(state_dir) as store:
        (busy,) = store.execute(
            "SELECT EXISTS (SELECT 1 FROM alerts WHERE status = 'firing') OR EXISTS (SELECT 1 FROM outbox)"
        ).fetchone()
    return not busy


def story_of(state_dir: Path, daemons: Sequence[Daemon], word: str) -> Iterator[str]:
    """All about the alert whose `by` holds `word`, where each group holds one alert. Times are in us, as stored."""
    ids: set[str] = set()
    with _store(state_dir) as store:
        store.row_factory = sqlite3.Row
        for table, query in _ABOUT.items():
            rows = store.execute(f"{query} WHERE {_WHERE[table]}", (f'"{word}"',)).fetchall()
            yield from (f"  {table}: {dict(row)}" for row in rows) if rows else [f"  {table}: nothing"]
            ids.update(str(row[name]) for row in rows for name in ("id", "fingerprint") if name in row.keys())  # noqa: SIM118
    for number, daemon in enumerate(daemons):
        yield from (f"  daemon {number}: {line}" for line in _said(daemon, word, ids))


@contextlib.contextmanager
def _store(state_dir: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(f"file:{state_dir / 'state.db'}?mode=ro", uri=True)) as store:
        yield store


def _said(daemon: Daemon, word: str, ids: Iterable[str]) -> Iterator[str]:
    for event in daemon.events:
        words = [str(value) for value in event.values()]
        if any(each in words for each in ids) or any(f"{word} " in f"{each} " for each in words):
            yield str(event)
