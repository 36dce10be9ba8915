"""
A file tried against a watch of the journal: an export as its entries, any other text as far as its lines tell.

In: the watch's settings and rules, and a path. Out: a `Source` that ends, for a `JournalParser`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from agentd.logs.compiled import compile_rules
from agentd.logs.follow import replay_file
from agentd.logs.journal_export import ExportFile, export_format
from agentd.logs.journal_text import BEGINS_ENTRY, TOLD, TextOfJournal
from agentd.logs.multiline import make_joiner
from agentd.logs.parse import make_parser
from agentd.logs.port import Source
from agentd.logs.settings import JournalSource, LogSource, Rule


def open_journal_file(
    settings: JournalSource,
    rules: Sequence[Rule],
    file: Path,
    *,
    now: Callable[[], datetime],
    timezone: str | None,
) -> Source:
    """
    timezone: of times in text that name none; None: the host's own.

    Raises AgentdError when the file cannot be read, ConfigError when the settings name a field that cannot be.
    """
    format = export_format(file)
    if format is not None:
        return ExportFile(file, format, settings, now())
    as_text = LogSource(files=(str(file),), format="plain")
    joiner = make_joiner(BEGINS_ENTRY)
    parser = make_parser(as_text, timezone=timezone)
    lines = replay_file(str(file), as_text, complete=joiner.complete, now=now)
    return TextOfJournal(
        lines,
        joiner,
        lambda text, written_by: parser.time(text, None, written_by),
        _note(settings, rules, file),
    )


def _note(settings: JournalSource, rules: Sequence[Rule], file: Path) -> str:
    keys = [f"`{key}`" for key in ("match", "units", "priority") if getattr(settings, key)]
    fields = sorted({name for name in _asked(rules) if name not in TOLD})
    missing = [*keys, *(f"the field {name}" for name in fields)]
    judged = f"; it does not tell: {', '.join(missing)}" if missing else ""
    return (
        f"{file.name} is text and no export of the journal, so rules see the message of each line{judged}. "
        "For all that the journal has: journalctl -o export --all > FILE"
    )


def _asked(rules: Sequence[Rule]) -> Iterator[str]:
    """The fields that rules read."""
    for asked in compile_rules(rules).checked().asked:
        names = {*asked.rule.by, *([asked.rule.field] if asked.rule.field is not None else [])}
        names |= asked.when.variables - {"line", "fields"} if asked.when is not None else set()
        yield from names - set(asked.match.names if asked.match is not None else ())
