"""
How traces of many languages run over lines: what goes on with the line before, given what stood there.

In: lines in order, one by one.  Out: whether each begins an entry. A small automaton over the kinds of lines; its state
is forgotten at every line that begins an entry for sure, which is how a walk may start in the middle of a text.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from agentd.logs.linekind import ERROR_LINE, FINAL_LINE, Kind, kind_of


class _State(IntEnum):
    OPEN = 0  # nothing is awaited
    HEAD = 1  # after a line with time or level: a traceback that follows at once belongs to it
    PYTHON = 2  # in a traceback's frames: its last line is awaited
    GROUP = 3  # in an exception group's traceback, which is indented to its end
    CHAINED = 4  # the next traceback belongs here
    GO = 5
    NODE = 6  # in the block with the caret: the error is awaited
    NODE_ERROR = 7
    PANICKED = 8  # Rust: the next line is the message, whatever it looks like
    RUST = 9


_Step = tuple[bool, _State]
_CALM = frozenset((Kind.ORDINARY, Kind.HEAD))


class TraceWalk:
    """Walks over the lines of one text."""

    __slots__ = ("_before", "_state")

    def __init__(self) -> None:
        self._state = _State.OPEN
        self._before = Kind.BLANK

    def sure(self, line: bytes, before: bytes) -> bool:
        # No state outlives two calm lines: the first ends any trace at the latest.
        kind = kind_of(line)
        return kind is Kind.HEAD or (kind is Kind.ORDINARY and kind_of(before) in _CALM)

    def begins(self, line: bytes) -> bool:
        kind = kind_of(line)
        begins, self._state = self._step(kind, line)
        self._before = kind
        return begins

    def _step(self, kind: Kind, line: bytes) -> _Step:
        state, before = self._state, self._before
        if kind is Kind.HEAD:
            return True, _State.HEAD
        if kind is Kind.BLANK:
            return False, _State.OPEN if state is _State.HEAD else state
        if state is _State.PANICKED:
            state = _State.RUST
            if before is Kind.RUST_PANIC:
                return False, state
        if kind is Kind.INDENTED:
            return False, state
        if kind in _BY_KIND:
            return _BY_KIND[kind](state, before, line)
        return _ordinary(state, before, line)


def _ordinary(state: _State, before: Kind, line: bytes) -> _Step:
    if state is _State.PYTHON and before is Kind.INDENTED and FINAL_LINE.match(line):
        return False, _State.OPEN
    if state is _State.NODE and before is not Kind.NODE_FILE and ERROR_LINE.match(line):
        return False, _State.NODE_ERROR
    return True, _State.OPEN


def _traceback(state: _State, before: Kind, line: bytes) -> _Step:
    return state not in (_State.HEAD, _State.CHAINED), _State.PYTHON


def _group(state: _State, before: Kind, line: bytes) -> _Step:
    return state not in (_State.HEAD, _State.CHAINED), _State.GROUP


def _chained(state: _State, before: Kind, line: bytes) -> _Step:
    return False, _State.CHAINED


def _goes_on(state: _State, before: Kind, line: bytes) -> _Step:
    return False, _State.OPEN if state is _State.HEAD else state


def _closer(state: _State, before: Kind, line: bytes) -> _Step:
    goes_on = before in (Kind.INDENTED, Kind.CLOSER) or state is _State.NODE
    return not goes_on, state if goes_on else _State.OPEN


def _exception(state: _State, before: Kind, line: bytes) -> _Step:
    if state is _State.HEAD and before is Kind.HEAD:
        return False, _State.OPEN
    return _ordinary(state, before, line)


def _panic(state: _State, before: Kind, line: bytes) -> _Step:
    return before is not Kind.PANIC, _State.GO


def _goroutine(state: _State, before: Kind, line: bytes) -> _Step:
    return state is not _State.GO and before is Kind.BLANK, _State.GO


def _go_line(state: _State, before: Kind, line: bytes) -> _Step:
    return (False, state) if state is _State.GO else _ordinary(state, before, line)


def _node_file(state: _State, before: Kind, line: bytes) -> _Step:
    return True, _State.NODE


def _node_version(state: _State, before: Kind, line: bytes) -> _Step:
    return state not in (_State.NODE, _State.NODE_ERROR), _State.OPEN


def _rust_panic(state: _State, before: Kind, line: bytes) -> _Step:
    # Since 1.73 the message has a line of its own.
    return True, _State.PANICKED if line.rstrip().endswith(b":") else _State.RUST


def _rust_note(state: _State, before: Kind, line: bytes) -> _Step:
    return (False, state) if state is _State.RUST else _ordinary(state, before, line)


_BY_KIND: dict[Kind, Callable[[_State, Kind, bytes], _Step]] = {
    Kind.TRACEBACK: _traceback,
    Kind.GROUP_TRACEBACK: _group,
    Kind.CHAINED: _chained,
    Kind.GOES_ON: _goes_on,
    Kind.CLOSER: _closer,
    Kind.EXCEPTION: _exception,
    Kind.PANIC: _panic,
    Kind.GOROUTINE: _goroutine,
    Kind.GO_LINE: _go_line,
    Kind.NODE_FILE: _node_file,
    Kind.NODE_VERSION: _node_version,
    Kind.RUST_PANIC: _rust_panic,
    Kind.RUST_NOTE: _rust_note,
}
