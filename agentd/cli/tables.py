"""
Print for people or for programs.

In: plain values, in which text is hostile: a log line must not paint the terminal. Out: a table or JSON on stdout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

_COLOURS = {
    "ok": "green",
    "resolved": "green",
    "running": "green",
    "failing": "red",
    "firing": "red",
    "dead": "red",
    "critical": "red",
    "pending": "yellow",
    "warning": "yellow",
    "blind": "magenta",
    "paused": "cyan",
}


def clean(text: object) -> str:
    """The text on one line, with control characters made visible."""
    shown = "" if text is None else str(text)
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in shown.replace("\n", " "))


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


def print_json(value: Any) -> None:
    """Letters of every language as they are; what could paint the terminal stays escaped, also beyond ASCII."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo("".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text))


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str) -> None:
    """columns: key of a row to heading, in order. A word that names a state is coloured on a terminal."""
    if not rows:
        click.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for key in columns:
        table.add_column(columns[key], overflow="fold", no_wrap=key in ("id", "name", "watch", "state"))
    for row in rows:
        cells = [clean(row.get(key)) for key in columns]
        table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in cells))
    # Piped output is for grep: one row stays one line.
    width = None if sys.stdout.isatty() else 400
    Console(width=width, highlight=False).print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Name and value, a line each."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        text = clean(value if isinstance(value, str) else written(value))
        click.echo(f"{name:<{width}}  {click.style(text, fg=_COLOURS.get(text))}")
