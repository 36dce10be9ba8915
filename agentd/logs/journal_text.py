"""
A file of text tried against a watch of the journal: what `journalctl` prints for people, or a syslog file.

In: the file's blocks of lines. Out: entries as the journal gives them, as far as a line tells: the frame is taken off
and gives `timestamp`, `hostname`, `program` and `pid`; what is left is the message, several lines where the following
ones are indented. A line without a frame is a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from agentd.clock import iso
from agentd.logs.journal_entry import Gathered
from agentd.logs.multiline import Joiner
from agentd.logs.port import Batch, Block, Counters, Source

BEGINS_ENTRY = r"^\S"
"""Further lines of a message are indented to where its first one begins."""

# journalctl(1), --output: short, short-precise, short-iso, short-full, short-unix, short-monotonic, with-unit.
_FRAME = re.compile(
    r"""
    (?:<\d{1,3}>)?
    (?P<stamp>
        [A-Z][a-z]{2}\ {1,2}\d{1,2}\ \d\d:\d\d:\d\d(?:\.\d{1,6})?
      | (?:[A-Z][a-z]{2}\ )?\d{4}-\d\d-\d\d[T\ ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d|\ [A-Z]{2,5}(?=\ ))?
      | \d{9,11}\.\d{6}
      | \[\ *\d{1,12}\.\d{6}\]
    )[ ]
    (?:(?P<host>[^\s:\[\]]{1,255})\ )?
    (?P<program>[^\s:\[\]][^:\[\]\n]{0,127}?)
    (?:\[(?P<pid>\d{1,10})\])?:(?:\ |$)
    """,
    re.VERBOSE | re.ASCII | re.MULTILINE,
)
_WEEKDAY = re.compile(r"[A-Z][a-z]{2} (?=\d{4}-)")
_SAYS_JOURNALCTL = re.compile(rb"-- (?:Boot [0-9a-f]{32}|Reboot|No entries|Logs begin|Journal begins|Unsealed).*--")
TOLD = ("message", "timestamp", "hostname", "program", "pid")
"""The fields that a line tells."""

TimeOf = Callable[[str, datetime], datetime | None]


class TextOfJournal:
    """
    A `Source` around another that gives lines; give its blocks to a `JournalParser`.

    time_of: the moment that a line begins with, and the one it was written by at the latest. note: told once.
    """

    def __init__(self, lines: Source, joiner: Joiner, time_of: TimeOf, note: str) -> None:
        self.counters = lines.counters
        self._lines = lines
        self._joiner = joiner
        self._time_of = time_of
        self._notes = [note]

    def read(self, most_bytes: int) -> Batch:
        batch = self._lines.read(most_bytes)
        batch.blocks = [each for block in batch.blocks if (each := self._entries(block)) is not None]
        batch.notes += self._notes
        self._notes = []
        return batch

    async def wait(self, timeout_s: float) -> None:
        await self._lines.wait(timeout_s)

    async def close(self) -> None:
        await self._lines.close()

    def _entries(self, block: Block) -> Block | None:
        gathered = Gathered(Counters())
        offsets = []
        written_by = block.written_by or block.read_at
        for begin, end in self._joiner.entries(block.text):
            data = block.text[begin:end].rstrip(b"\r\n")
            if not _SAYS_JOURNALCTL.fullmatch(data):
                text = data.decode(errors="replace")
                fields = unframed(text)
                if at := self._time_of(_WEEKDAY.sub("", text, count=1), written_by):
                    fields["timestamp"] = iso(at)
                gathered.put("", fields["message"].encode(), fields)
                offsets.append(block.offset + begin)
        if not offsets:
            return None
        return replace(gathered.block(block.stream, block.read_at), file=block.file, offsets=offsets, cursors=None)


def unframed(text: str) -> dict[str, Any]:
    """What a line tells, without its moment."""
    frame = _FRAME.match(text)
    if frame is None:
        return {"message": text}
    fields: dict[str, Any] = {"message": _without_indent(text[frame.end() :], frame.end()), "program": frame["program"]}
    if frame["host"]:
        fields["hostname"] = frame["host"]
    if frame["pid"]:
        fields["pid"] = int(frame["pid"])
    return fields


def _without_indent(message: str, width: int) -> str:
    if "\n" not in message:
        return message
    first, *rest = message.split("\n")
    return "\n".join([first, *(line[width:] if line[:width].isspace() else line.lstrip() for line in rest)])
