"""
Long-term memory: what runs ended with, and what tools said on the way. Append only, found again by words.

In: the end of a run, the result of a tool.  Out: notes by words, by alert, in order; each as one event of JSON.
Promise: whatever is typed as a query is words to look for, never syntax; text of strangers is cut, never refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import apsw

from agentd.clock import from_us, iso, to_us
from agentd.memory.columns import bounded_json, clipped, from_json, to_json, value

NoteType = Literal["final", "tool_result"]

MAX_TEXT = 8 * 1024
MAX_RESULT = 4 * 1024
_MAX_DATA = 32 * 1024
_MAX_NAME = 200
_MAX_WORDS = 16
_MAX_WORD = 64
_MAX_QUERY = 2000
_LOOKED_THROUGH = 5000
_AROUND = 60

_COLUMNS = "number, at, type, run, watch, fingerprint, step, tool, text, data"
_QUALIFIED = ", ".join(f"notes.{column}" for column in _COLUMNS.split(", "))
_WHICH = """
    (?1 IS NULL OR notes.watch = ?1) AND (?2 IS NULL OR notes.fingerprint = ?2) AND (?3 IS NULL OR notes.type = ?3)"""
_ADD = """
    INSERT INTO notes (at, type, run, watch, fingerprint, step, tool, text, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_MATCHING = f"""
    SELECT notes.number, notes_words.rank FROM notes_words JOIN notes ON notes.number = notes_words.rowid
    WHERE notes_words MATCH ?4 AND {_WHICH} ORDER BY notes_words.rank, notes.number DESC LIMIT ?5"""
# By themselves: in the query above they would be made for every match, not for those that are shown.
_SHOWN = f"""
    SELECT {_QUALIFIED}, snippet(notes_words, 0, '[', ']', '…', 24)
    FROM notes_words JOIN notes ON notes.number = notes_words.rowid
    WHERE notes_words MATCH ?1 AND notes_words.rowid = ?2"""
_CONTAINING = f"""
    SELECT {_COLUMNS} FROM (SELECT * FROM notes WHERE {_WHICH} ORDER BY number DESC LIMIT {_LOOKED_THROUGH})
    WHERE text LIKE ?4 ESCAPE '\\' ORDER BY number DESC LIMIT ?5"""
_AFTER = f"SELECT {_COLUMNS} FROM notes WHERE number > ?4 AND {_WHICH} ORDER BY number LIMIT ?5"
_LAST = f"SELECT {_COLUMNS} FROM notes WHERE {_WHICH} ORDER BY number DESC LIMIT ?4"
_ABOUT = f"SELECT {_COLUMNS} FROM notes WHERE fingerprint = ? AND type = 'final' ORDER BY number DESC LIMIT ?"
_OF_WATCH = f"SELECT {_COLUMNS} FROM notes WHERE watch = ? AND type = 'final' ORDER BY number DESC LIMIT ?"
_GET = f"SELECT {_COLUMNS} FROM notes WHERE number = ?"
_COUNTS = "SELECT type, count(*) FROM notes GROUP BY type"
_COUNT = f"SELECT count(*) FROM notes WHERE {_WHICH}"


@dataclass(frozen=True, slots=True)
class Note:
    """
    type: `final`: what a run ended with; `tool_result`: what a tool said. text: what is searched. step, tool: of a
    tool result. data: plain JSON, beyond these what `event` shows.
    """

    number: int
    at: datetime
    type: str
    run: str
    watch: str
    fingerprint: str | None
    step: int | None
    tool: str | None
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def event(self) -> dict[str, Any]:
        """`{"type": "final", "answer", "finding", …}` or `{"type": "tool_result", "step", "tool", "output", …}`."""
        found: dict[str, Any] = {"type": self.type}
        if self.type == "tool_result":
            found |= {"step": self.step, "tool": self.tool, "output": self.data.get("output", self.text)}
        else:
            found |= self.data
        about = {"run": self.run, "watch": self.watch, "fingerprint": self.fingerprint, "at": iso(self.at)}
        return found | about


@dataclass(frozen=True, slots=True)
class Found:
    """A note that a search found. snippet: the place, the words in brackets."""

    note: Note
    snippet: str


def add_final(
    c: apsw.Connection,
    *,
    at: datetime,
    run: str,
    watch: str,
    fingerprint: str | None,
    answer: str,
    finding: Mapping[str, Any] | None = None,
) -> int:
    """What a run ended with; finding: its JSON. Returns the note's number."""
    words = "\n".join(dict.fromkeys(_words_of(finding, answer)))
    data = bounded_json({"answer": clipped(answer, MAX_TEXT), "finding": finding}, _MAX_DATA)
    names = (clipped(run, _MAX_NAME), clipped(watch, _MAX_NAME))
    c.execute(_ADD, (to_us(at), "final", *names, fingerprint, None, None, clipped(words, MAX_TEXT), data))
    return c.last_insert_rowid()


def add_tool_result(
    c: apsw.Connection,
    *,
    at: datetime,
    run: str,
    watch: str,
    fingerprint: str | None,
    step: int,
    tool: str,
    output: Any,
) -> int:
    """What a tool said, plain JSON, shortened: `outputs` keeps it whole. Returns the note's number."""
    if isinstance(output, str):
        words, data = output, "{}"
    else:
        data = bounded_json({"output": output}, MAX_RESULT)
        words = " ".join(_leaves(from_json(data).get("output")))
    names = (clipped(run, _MAX_NAME), clipped(watch, _MAX_NAME), fingerprint, step, clipped(tool, _MAX_NAME))
    c.execute(_ADD, (to_us(at), "tool_result", *names, _shortened(words, MAX_RESULT), data))
    return c.last_insert_rowid()


def search(
    c: apsw.Connection,
    words: str,
    *,
    watch: str | None = None,
    fingerprint: str | None = None,
    type: NoteType | None = None,
    any_word: bool = False,
    limit: int = 20,
) -> list[Found]:
    """
    The notes that have all the words (any_word: one of them), the best match first.

    A word that ends in `*` stands for all that begin so, "several words" in quotes for these in this order. Where
    nothing is found like that, the newest notes that contain the text as it stands: parts of words, or languages
    that put no space between them.
    """
    which = (watch, fingerprint, type)
    if query := match_query(words, any_word=any_word):
        numbers = [row[0] for row in c.execute(_MATCHING, (*which, query, limit)).fetchall()]
        rows = [row for number in numbers for row in c.execute(_SHOWN, (query, number)).fetchall()]
        if rows:
            return [Found(_note(row[:-1]), str(row[-1])) for row in rows]
    plain = clipped(words.strip().strip('"*'), _MAX_WORD * 4)
    if not plain or any_word:
        return []
    pattern = "%" + re.sub(r"([\\%_])", r"\\\1", plain) + "%"
    return [Found(note, _around(note.text, plain)) for note in _notes(c.execute(_CONTAINING, (*which, pattern, limit)))]


def match_query(words: str, *, any_word: bool = False) -> str | None:
    """What was typed as a query of FTS5 in which nothing is syntax; None when there is no word in it."""
    terms = []
    for phrase, word in re.findall(r'"([^"]*)"|([^\s"]+)', words[:_MAX_QUERY])[:_MAX_WORDS]:
        plain = clipped(phrase or word, _MAX_WORD)
        # Marks alone are no word: an empty phrase would match nothing, and with it all others nothing.
        if any(letter.isalnum() for letter in plain):
            terms.append('"' + plain.rstrip("*").replace('"', '""') + '"' + ("*" if word.endswith("*") else ""))
    return (" OR " if any_word else " AND ").join(terms) or None


def get(c: apsw.Connection, number: int) -> Note | None:
    return next(iter(_notes(c.execute(_GET, (number,)))), None)


def after(
    c: apsw.Connection,
    number: int,
    *,
    watch: str | None = None,
    fingerprint: str | None = None,
    type: NoteType | None = None,
    limit: int = 500,
) -> list[Note]:
    """The notes behind this number, oldest first."""
    return _notes(c.execute(_AFTER, (watch, fingerprint, type, number, limit)))


def last(
    c: apsw.Connection,
    *,
    watch: str | None = None,
    fingerprint: str | None = None,
    type: NoteType | None = None,
    limit: int = 20,
) -> list[Note]:
    """Newest first."""
    return _notes(c.execute(_LAST, (watch, fingerprint, type, limit)))


def finals_about(c: apsw.Connection, fingerprint: str, limit: int = 20) -> list[Note]:
    """What runs about this alert ended with, newest first."""
    return _notes(c.execute(_ABOUT, (fingerprint, limit)))


def finals_of(c: apsw.Connection, watch: str, limit: int = 20) -> list[Note]:
    """What runs of this watch ended with, newest first."""
    return _notes(c.execute(_OF_WATCH, (watch, limit)))


def counts(c: apsw.Connection) -> dict[str, int]:
    """By type."""
    return {str(type): int(number) for type, number in c.execute(_COUNTS)}


def count(
    c: apsw.Connection, *, watch: str | None = None, fingerprint: str | None = None, type: NoteType | None = None
) -> int:
    return int(value(c.execute(_COUNT, (watch, fingerprint, type))))


def _words_of(finding: Mapping[str, Any] | None, answer: str) -> Iterable[str]:
    """The words of a finding, those that say most in front; of the answer when there are none."""
    if finding is None:
        yield answer
        return
    yield from _leaves(finding.get("summary"))
    claims = finding.get("claims")
    for claim in claims if isinstance(claims, list | tuple) else ():
        yield from _leaves(claim.get("text") if isinstance(claim, Mapping) else claim)
    yield from _leaves(finding.get("next_steps"))
    yield from _leaves(finding.get("analysis"))


def _leaves(found: Any, depth: int = 8) -> Iterable[str]:
    if isinstance(found, str):
        yield found
    elif isinstance(found, Mapping) and depth:
        for key, each in found.items():
            if not isinstance(each, Mapping | list | tuple):
                yield f"{key}: {each if isinstance(each, str) else to_json([each])[1:-1]}"
            else:
                yield from _leaves(each, depth - 1)
    elif isinstance(found, list | tuple) and depth:
        for each in found:
            yield from _leaves(each, depth - 1)
    elif found is not None:
        yield to_json([found])[1:-1]


def _shortened(words: str, limit: int) -> str:
    """Begin and end: what went wrong often stands last."""
    if len(words) <= limit:
        return clipped(words, limit)
    tail = limit // 4
    return clipped(words[: limit - tail - 3] + " … " + words[-tail:], limit)


def _around(text: str, plain: str) -> str:
    at = max(text.lower().find(plain.lower()), 0)
    begin, end = max(at - _AROUND, 0), at + len(plain) + _AROUND
    cut = text[begin:at] + "[" + text[at : at + len(plain)] + "]" + text[at + len(plain) : end]
    return ("…" if begin else "") + cut + ("…" if end < len(text) else "")


def _notes(rows: Iterable[tuple[Any, ...]]) -> list[Note]:
    return [_note(row) for row in rows]


def _note(row: tuple[Any, ...]) -> Note:
    number, at, type, run, watch, fingerprint, step, tool, text, data = row
    return Note(number, from_us(at), type, run, watch, fingerprint, step, tool, text, from_json(data))
