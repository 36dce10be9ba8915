"""
Read a stream of events that each hold JSON, as servers of the chat protocol really send it.

In: bytes as they arrive, cut anywhere. Out: JSON values, and `DONE`.
Promise: no more than one line is held, and that is bounded; what cannot be read raises `Garbled`.

Server-sent events (WHATWG HTML §9.2) say lines end in CR, LF or both, `data:` may lack its space, an event's data may
take several lines. Servers add: no empty line between events, plain JSON lines without `data:`, one JSON document in
spite of `stream: true`, a page of HTML.
"""

from __future__ import annotations

import json
from typing import Any, Final

MAX_LINE_BYTES = 4 * 1024 * 1024

DONE: Final = object()
"""The stream's own end, `[DONE]`."""

_MAX_HELD_BYTES = 64 * 1024
_MAX_HELD_LINES = 100
_BOM = b"\xef\xbb\xbf"


class Garbled(ValueError):
    """This is no such stream; the message says what it is instead."""


class EventReader:
    """One answer's body. strange: lines came that belong to no stream of events."""

    def __init__(self) -> None:
        self.strange = False
        self._rest = bytearray()
        self._held = b""
        self._error = False
        self._begun = False
        self._document = False
        self._spaces = 0

    def feed(self, chunk: bytes) -> list[Any]:
        """What came whole with these bytes. Raises Garbled."""
        rest = self._rest
        rest += chunk
        if not self._begun and not self._begin():
            return []
        # Only the new bytes are searched: a long line comes in many pieces.
        end = rest.rfind(b"\n") if b"\n" in chunk and not self._document else -1
        if end < 0:
            if len(rest) > MAX_LINE_BYTES:
                raise Garbled("a line without end")
            return []
        whole = bytes(rest[:end])
        del rest[: end + 1]
        return self._lines(whole)

    def end(self) -> list[Any]:
        """What was still held when the body ended, without what is no whole event. Raises Garbled."""
        whole, self._rest = bytes(self._rest), bytearray()
        if self._document:
            try:
                return [_parsed(whole)]
            except ValueError:
                pass  # no document, then one JSON value a line
        return self._lines(whole)

    def _begin(self) -> bool:
        start = bytes(self._rest).removeprefix(_BOM).lstrip()
        if _BOM.startswith(start):  # nothing yet, or the beginning of a mark
            self._spaces += len(self._rest) - len(start)
            if self._spaces > MAX_LINE_BYTES:
                raise Garbled("nothing but space")
            self._rest[:] = start
            return False
        del self._rest[: len(self._rest) - len(start)]
        self._begun = True
        self._document = start.startswith((b"{", b"["))
        if start.startswith(b"<"):
            raise Garbled("a web page")
        return True

    def _lines(self, whole: bytes) -> list[Any]:
        found: list[Any] = []
        if b"\r" in whole:
            # The last one belongs to the line feed that was cut off; it begins no line of its own.
            whole = whole.removesuffix(b"\r")
            whole = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        for line in whole.split(b"\n"):
            if line.startswith(b"data:"):
                self._take(line[5:], found)
            elif not line or line.isspace():
                if self._held:
                    raise Garbled("events that are no JSON")
                self._error = False
            elif line.startswith(b"error:"):
                # llama.cpp's server: a field of its own in place of `data:`.
                self._error = True
                self._take(line[6:], found)
            elif line.startswith(b"event:"):
                self._error = line[6:].strip() == b"error"
            elif line.startswith((b"{", b"[", b" ", b"\t")):
                self._take(line, found)
            elif line.startswith(b"<"):
                raise Garbled("a web page")
            elif not line.startswith((b":", b"id:", b"retry:")):
                self.strange = True
        return found

    def _take(self, data: bytes, found: list[Any]) -> None:
        text = data.strip()
        if text == b"[DONE]":
            found.append(DONE)
            return
        if not text and not self._held:
            return
        if self._held:
            text = self._held + b"\n" + text
        try:
            value = _parsed(text)
        except ValueError:
            # Perhaps the event goes on in the next line. Bounded, for each line is read together with all before it.
            if len(text) > _MAX_HELD_BYTES or text.count(b"\n") > _MAX_HELD_LINES:
                raise Garbled("events that are no JSON") from None
            self._held = text
            return
        self._held = b""
        if self._error and not (isinstance(value, dict) and "error" in value):
            value = {"error": value}
        found.append(value)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text.decode())
    except UnicodeDecodeError:
        return json.loads(text.decode("utf-8", "replace"))
    except RecursionError:
        raise Garbled("JSON without bottom") from None
