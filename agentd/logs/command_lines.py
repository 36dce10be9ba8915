"""
A stream of bytes cut into lines.

In: bytes as they come. Out: whole lines of valid UTF-8, each with its newline.
Promise: no more than one line of the longest allowed is held. A longer one is cut, and counted; a byte that cannot be
decoded becomes a "?", and is counted.
"""

from __future__ import annotations

import codecs

from agentd.errors import ConfigError
from agentd.logs.journal_entry import readable
from agentd.logs.port import Counters

_UTF8 = {"utf-8", "ascii"}
_COUNTED = "agentd.counted"
_replaced = 0


def _replace(error: UnicodeError) -> tuple[str, int]:
    global _replaced
    assert isinstance(error, UnicodeDecodeError)
    _replaced += error.end - error.start
    return "?" * (error.end - error.start), error.end


codecs.register_error(_COUNTED, _replace)


def _decoder(encoding: str) -> codecs.IncrementalDecoder | None:
    """None for UTF-8, of which ASCII is a part."""
    try:
        "".encode(encoding)  # some that have a name give no text: base64
        if codecs.lookup(encoding).name in _UTF8:
            return None
        return codecs.getincrementaldecoder(encoding)(_COUNTED)
    except LookupError:
        raise ConfigError(f"encoding: {encoding!r} is unknown; write e.g. utf-8, latin-1 or utf-16") from None


class Lines:
    """
    longest: bytes of a line, without its newline. encoding: of the bytes; the lines are UTF-8.

    Raises ConfigError for an encoding that Python does not know.
    """

    def __init__(self, counters: Counters, longest: int, encoding: str = "utf-8") -> None:
        self._counters = counters
        self._longest = longest
        self._rest = bytearray()
        self._cutting = False
        self._decoder = _decoder(encoding)

    def feed(self, data: bytes) -> bytes:
        """The lines that these bytes complete."""
        data = self._decoded(data, last=False)
        out = bytearray()
        begin = 0
        while True:
            if not self._rest and not self._cutting:
                begin = self._many(out, data, begin)
            end = data.find(b"\n", begin)
            if end < 0:
                break
            self._line(out, data, begin, end)
            begin = end + 1
        self._hold(data, begin, len(data))
        return bytes(out)

    def flush(self) -> bytes:
        """The last line, which nobody ended."""
        out = bytearray()
        data = self._decoded(b"", last=True)
        self._hold(data, 0, len(data))
        if self._rest or self._cutting:
            self._line(out, b"", 0, 0)
        return bytes(out)

    def _decoded(self, data: bytes, *, last: bool) -> bytes:
        global _replaced
        if self._decoder is None:
            return data
        _replaced = 0
        text = self._decoder.decode(data, last)
        self._counters.undecodable += _replaced
        return text.encode(errors="replace")

    def _many(self, out: bytearray, data: bytes, begin: int) -> int:
        """Whole lines in one go, if none of them can be too long; where it got to."""
        end = data.rfind(b"\n", begin, begin + self._longest) + 1
        if end <= begin:
            return begin
        lines = data[begin:end]
        self._counters.lines += lines.count(b"\n")
        out += readable(lines, self._counters)
        return end

    def _line(self, out: bytearray, data: bytes, begin: int, end: int) -> None:
        self._hold(data, begin, end)
        self._counters.lines += 1
        out += readable(bytes(self._rest), self._counters)
        out += b"\n"
        self._rest.clear()
        self._cutting = False

    def _hold(self, data: bytes, begin: int, end: int) -> None:
        if self._cutting:
            return
        self._rest += memoryview(data)[begin : min(end, begin + self._longest - len(self._rest) + 1)]
        if len(self._rest) > self._longest:
            self._cutting = True
            self._counters.truncated += 1
            cut = self._longest
            # Not through a character.
            while cut > self._longest - 3 and cut and self._rest[cut] & 0xC0 == 0x80:
                cut -= 1
            del self._rest[cut:]
