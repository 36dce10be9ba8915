"""
Print for people or for programs.

In: plain values, in which text is hostile: a log line must not paint the terminal. Out: a table or JSON on stdout.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

_COLOURS = {
    "ok": "green",
    "resolved": "green",
    "running": "green",
    "completed": "green",
    "present": "green",
    "failing": "red",
    "firing": "red",
    "dead": "red",
    "failed": "red",
    "missing": "red",
    "critical": "red",
    "pending": "yellow",
    "warning": "yellow",
    "stopped": "yellow",
    "cancelled": "yellow",
    "interrupted": "yellow",
    "blind": "magenta",
    "paused": "cyan",
    "active": "cyan",
}


_PROSE = ("summary", "reason_text", "last_error", "template", "muted_by", "acked_by", "reason", "matchers", "found")
_LEAST_PROSE = 20
_MOST_CUT = 100
# Within prose, to the minute: a whole one is wider than prose may be, and would be broken.
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?Z")
_MOMENTS = ("_at", "_until")


def clean(text: object) -> str:
    """The text on one line, with control characters made visible."""
    shown = "" if text is None else str(text)
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in shown.replace("\n", " "))


def clean_lines(text: object) -> str:
    """The same line by line: a mark stays below what it points at."""
    return "\n".join(clean(line) for line in str(text).rstrip("\n").split("\n"))


def written(value: Any) -> str:
    """The value as JSON has it, and as a condition would: true, null, "text"; numbers to three digits."""
    return json.dumps(_rounded(value), ensure_ascii=False, default=str)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, Mapping):
        return {str(key): _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value


def since(moment: datetime, now: datetime) -> str:
    """How long ago, or in how long, in one or two units: `12s ago`, `in 1h5m`."""
    whole = round((now - moment).total_seconds())
    seconds = abs(whole)
    if seconds < 60:
        length = f"{seconds}s"
    elif seconds < 3600:
        length = f"{seconds // 60}m"
    elif seconds < 86400:
        length = f"{seconds // 3600}h" + (f"{seconds % 3600 // 60}m" if seconds % 3600 >= 60 else "")
    else:
        length = f"{seconds // 86400}d" + (f"{seconds % 86400 // 3600}h" if seconds % 86400 >= 3600 else "")
    return f"{length} ago" if whole >= 0 else f"in {length}"


def _cell(key: str, value: Any, now: datetime) -> str:
    if isinstance(value, str) and key.endswith(_MOMENTS):
        # A moment takes 24 columns, and a person wants its distance; JSON has it in full.
        with contextlib.suppress(ValueError, TypeError):
            return since(datetime.fromisoformat(value), now)
    return clean(value if value is None or isinstance(value, str) else written(value))


def print_json(value: Any) -> None:
    """Letters of every language as they are; what could paint the terminal stays escaped, also beyond ASCII."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo("".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text))


def say(answer: Any, output: str, text: str) -> None:
    """What the daemon answered, for programs; or one sentence of it, for people."""
    if output == "json":
        print_json(answer)
    else:
        click.echo(clean(text))


def print_table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str, cut: Collection[str] = ()
) -> None:
    """
    columns: key of a row to heading, in order; the moments of `…_at` and `…_until` are shown by their distance.
    cut: those that are cut rather than folded, to what the terminal has room for, or to 100 characters elsewhere.

    A word that names a state is coloured on a terminal.
    """
    if not rows:
        click.echo(empty)
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    now = datetime.now(UTC)
    shown = [{key: _cell(key, row.get(key), now) for key in columns} for row in rows]
    for row in shown if not sys.stdout.isatty() else ():
        row |= {key: f"{row[key][: _MOST_CUT - 1]}…" for key in cut if len(row[key]) > _MOST_CUT}
    # Piped output is for grep: one row stays one line, and every column is there.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 400)
    kept = [key for key in columns if not sys.stdout.isatty() or any(row[key] for row in shown)]
    if sys.stdout.isatty():
        for row in shown:
            row |= {key: _ISO.sub(r"\1 \2Z", row[key]) for key in kept if key in _PROSE or key in cut}
        widths = {key: max(cell_len(columns[key]), *(cell_len(row[key]) for row in shown)) for key in kept}
        kept = _stacked(shown, columns, kept, widths, console.width, cut)
    table = Table(box=None, pad_edge=False, header_style="bold")
    least = 0
    for key in kept:
        whole = max(cell_len(columns[key]), *(cell_len(line) for row in shown for line in row[key].split("\n")))
        # Prose gives way on a narrow terminal, names and numbers never: a column of single letters is unreadable.
        is_cut = key in cut
        width = min(whole, _LEAST_PROSE) if key in _PROSE or is_cut else whole
        least += width + 2
        table.add_column(
            columns[key],
            overflow="ellipsis" if is_cut else "fold",
            no_wrap=is_cut or key not in _PROSE,
            min_width=width,
        )
    for key, column in zip(kept, table.columns, strict=True):
        if key in cut:
            # Said outright: rich takes what is too much from all columns that do not wrap, down to nothing.
            column.max_width = max(column.min_width or 0, console.width - least + (column.min_width or 0))
    for row in shown:
        table.add_row(*(Text(row[key], style=_COLOURS.get(row[key], "")) for key in kept))
    console.width = max(console.width, least)
    console.print(table)


def _stacked(
    rows: Sequence[dict[str, str]],
    columns: Mapping[str, str],
    kept: list[str],
    widths: Mapping[str, int],
    room: int,
    cut: Collection[str],
) -> list[str]:
    """The columns to show: where there is no room for all, prose stands below the first prose of its row."""
    prose = [key for key in kept if key in _PROSE and key not in cut]
    least = sum((min(width, _LEAST_PROSE) if key in prose else width) + 2 for key, width in widths.items())
    if len(prose) < 2 or least <= room:
        return kept
    first, *below = prose
    for row in rows:
        more = [f"{columns[key].lower()}: {row[key]}" for key in below if row[key]]
        row[first] = "\n".join(filter(None, [row[first], *more]))
    return [key for key in kept if key not in below]


def print_facts(facts: Mapping[str, Any]) -> None:
    """Name and value, a line each; a value of several lines, such as a place in a file, goes on below itself."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        whole = value.rstrip("\n") if isinstance(value, str) else written(value)
        for number, text in enumerate(clean_lines(whole).split("\n")):
            click.echo(f"{'' if number else name:<{width}}  {click.style(text, fg=_COLOURS.get(text))}")


def counted(number: int, thing: str) -> str:
    """`1 watch`, `2 watches`."""
    plural = "es" if thing.endswith(("ch", "s", "x")) else "s"
    return f"{number} {thing}{'' if number == 1 else plural}"
