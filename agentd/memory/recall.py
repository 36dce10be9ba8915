"""
Recall: what is known of incidents like this one, for whoever investigates it now.

In: the alert's fingerprint and watch, words about it.  Out: past incidents, the most alike first: when, how long, what
was found, what ended it.
Promise: bounded, and of the past alone: what is still open is told only where something was found about it already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import apsw

from agentd.clock import iso
from agentd.memory import events, notes
from agentd.memory.columns import clipped
from agentd.memory.events import Event
from agentd.memory.notes import Note

Likeness = Literal["same alert", "same watch", "similar"]

_EVENTS = 500
_BARE = 3
_MAX_LINE = 1200
_MAX_PART = 400


@dataclass(frozen=True, slots=True)
class Past:
    """
    One incident, or what one run found.

    at: when it began, or was looked into. lasted, ended_by: None and "" where that is not known (any more).
    finding: of the newest run about it, JSON. run: whose finding that is.
    """

    likeness: Likeness
    at: datetime
    watch: str
    fingerprint: str | None
    summary: str
    lasted: timedelta | None = None
    ended_by: str = ""
    finding: Mapping[str, Any] | None = None
    answer: str = ""
    run: str | None = None

    def line(self) -> str:
        """For the model: one line, without the words of its own that would make it look like anything else."""
        parts = [f"{iso(self.at)} {self.likeness} (watch {self.watch}): {self.summary}"]
        if self.lasted is not None:
            parts.append(f"lasted {_length(self.lasted)}, ended: {self.ended_by or 'unknown'}")
        if found := self._found():
            parts.append(f"found: {found}")
        steps = (self.finding or {}).get("next_steps")
        if isinstance(steps, Sequence) and not isinstance(steps, str) and steps:
            parts.append("advised: " + "; ".join(str(step) for step in steps))
        return clipped(" | ".join(" ".join(clipped(part, _MAX_PART).split()) for part in parts), _MAX_LINE)

    def _found(self) -> str:
        return str((self.finding or {}).get("summary") or self.answer)


@dataclass(frozen=True, slots=True)
class _Episode:
    """One firing of an alert, from its begin to its end."""

    began: Event
    ended: Event | None


def recall(c: apsw.Connection, fingerprint: str | None, watch: str, words: str = "", limit: int = 10) -> list[Past]:
    """
    Past incidents of this alert, then what was found about this watch, then whatever has some of these words.

    c: of history. words: such as the alert's summary; hostile.
    """
    found: list[Past] = []
    if fingerprint is not None:
        found += _of_alert(c, fingerprint, limit)
    told = {past.run for past in found}
    if len(found) < limit:
        of_watch = [note for note in notes.finals_of(c, watch, 3 * limit) if not _is_about(note, fingerprint)]
        found += _as_past("same watch", of_watch, told)
    if len(found) < limit and words:
        hits = notes.search(c, words, type="final", any_word=True, limit=3 * limit)
        found += _as_past("similar", (hit.note for hit in hits if not _is_about(hit.note, fingerprint)), told)
    return found[:limit]


def _is_about(note: Note, fingerprint: str | None) -> bool:
    return fingerprint is not None and note.fingerprint == fingerprint


def _of_alert(c: apsw.Connection, fingerprint: str, limit: int) -> list[Past]:
    finals = notes.finals_about(c, fingerprint, 5 * limit)
    past: list[Past] = []
    bare = 0
    for episode in _episodes(events.last(c, fingerprint=fingerprint, limit=_EVENTS)):
        mine = [note for note in finals if _belongs(note, episode)]
        finals = [note for note in finals if note not in mine]
        if not mine and (episode.ended is None or bare >= _BARE):
            continue
        bare += not mine
        past.append(_incident(episode, mine[0] if mine else None))
    # What is left was found in times whose events are gone.
    past += _as_past("same alert", finals, set())
    past.sort(key=lambda each: (each.run is None, -each.at.timestamp()))
    return past[:limit]


def _episodes(newest_first: Iterable[Event]) -> list[_Episode]:
    """Newest first. An end without its begin is left out: how long it was is not known."""
    found: list[_Episode] = []
    began: Event | None = None
    for event in reversed(list(newest_first)):
        before, after = event.data.get("before"), event.data.get("after")
        if after == "firing" and before != "firing":
            if began is not None:
                found.append(_Episode(began, None))
            began = event
        elif before == "firing" and after != "firing" and began is not None:
            found.append(_Episode(began, event))
            began = None
    if began is not None:
        found.append(_Episode(began, None))
    return found[::-1]


def _belongs(note: Note, episode: _Episode) -> bool:
    """Episodes come newest first, so each takes what was found since its begin: a finding may come after the end."""
    return note.at >= episode.began.at


def _incident(episode: _Episode, note: Note | None) -> Past:
    began, ended = episode.began, episode.ended
    return Past(
        "same alert",
        began.at,
        began.watch or "",
        began.fingerprint,
        str(began.data.get("summary", "")),
        max(ended.at - began.at, timedelta(0)) if ended else None,
        str(ended.data.get("reason_text") or ended.data.get("reason") or "") if ended else "",
        _finding(note) if note else None,
        str(note.data.get("answer", "")) if note else "",
        note.run if note else None,
    )


def _as_past(likeness: Likeness, found: Iterable[Note], told: set[str | None]) -> list[Past]:
    past = []
    for note in found:
        if note.run in told:
            continue
        told.add(note.run)
        summary = note.text.split("\n", 1)[0]
        finding, answer = _finding(note), str(note.data.get("answer", ""))
        past.append(
            Past(likeness, note.at, note.watch, note.fingerprint, summary, finding=finding, answer=answer, run=note.run)
        )
    return past


def _finding(note: Note) -> Mapping[str, Any] | None:
    finding = note.data.get("finding")
    return finding if isinstance(finding, Mapping) else None


def _length(lasted: timedelta) -> str:
    seconds = round(lasted.total_seconds())
    for size, unit, smaller, rest in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            more = seconds % size // smaller
            return f"{seconds // size}{unit}" + (f"{more}{rest}" if more else "")
    return f"{seconds}s"
