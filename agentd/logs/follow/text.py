"""
Lines out of bytes: where they end, and what they read in UTF-8.

In: raw bytes of a file in its own encoding.  Out: pieces of whole lines, and their text.
Promise: no work per line for UTF-8 (and for plain ASCII in any encoding that contains it); a byte that cannot be
decoded becomes one "?", so that offsets hold; a line longer than allowed is cut without being held.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentd.errors import ConfigError

_BOMS = {
    "utf-16": ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")),
    "utf-32": ((codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be")),
}
_MENDED = 64 * 1024


@dataclass(frozen=True, slots=True)
class Text:
    """
    Whole lines in UTF-8.

    starts, offsets: for transcoded text, where each line begins in it and in the raw bytes. bad: bytes (of UTF-8) or
    characters (of another encoding) that could not be decoded.
    """

    text: bytes
    starts: Sequence[int] | None = None
    offsets: Sequence[int] | None = None
    bad: int = 0


class Encoding:
    """
    One encoding, its byte order known.

    unit: bytes of its smallest character. newline: as it stands in the file. bom: what may stand at the beginning.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.newline = "\n".encode(name)
        self.unit = len(self.newline)
        self.bom = "\ufeff".encode(name) if name.startswith("utf-") else b""
        self._utf8 = name == "utf-8"
        # These write other scripts in ASCII bytes.
        self._ascii = self.unit == 1 and not name.startswith(("iso2022", "hz"))

    def find(self, data: bytes, start: int) -> int:
        """Index after the first newline at or after `start`, or -1. `data` begins on a character."""
        at = data.find(self.newline, start)
        while at >= 0 and at % self.unit:
            at = data.find(self.newline, at + 1)
        return at + self.unit if at >= 0 else -1

    def rfind(self, data: bytes, start: int, stop: int) -> int:
        """Index after the last newline that lies within [start, stop), or -1."""
        at = data.rfind(self.newline, start, stop)
        while at >= 0 and at % self.unit:
            at = data.rfind(self.newline, start, at + self.unit - 1)
        return at + self.unit if at >= 0 else -1

    def leading_nuls(self, data: bytes) -> int:
        """How many bytes of `data` are NUL characters before the first other one."""
        nuls = len(data) - len(data.lstrip(b"\0"))
        return nuls - nuls % self.unit

    def decode(self, raw: bytes) -> Text:
        """Whole lines, the last one ended by a newline."""
        if self._ascii and raw.isascii():
            return Text(raw)
        if self._utf8:
            try:
                raw.decode()
            except UnicodeDecodeError:
                text = b"".join(_mend(raw))
                return Text(text, bad=text.count(b"?") - raw.count(b"?"))
            return Text(raw)
        return self._transcode(raw)

    def _transcode(self, raw: bytes) -> Text:
        starts, offsets, parts = [], [], []
        start = at = bad = 0
        while at < len(raw):
            end = self.find(raw, at)
            line = raw[at : end - self.unit].decode(self.name, "replace")
            if "\ufffd" in line:
                bad += line.count("\ufffd")
                line = line.replace("\ufffd", "?")
            part = line.replace("\n", "?").encode("utf-8", "replace") + b"\n"
            starts.append(start)
            offsets.append(at)
            parts.append(part)
            start += len(part)
            at = end
        return Text(b"".join(parts), starts, offsets, bad)

    def trim(self, raw: bytes) -> bytes:
        """Leave out a character that was cut in two at the end."""
        if self._utf8:
            for back in range(1, min(4, len(raw)) + 1):
                byte = raw[-back]
                if byte < 0x80:
                    break
                if byte >= 0xC0:
                    whole = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                    return raw[:-back] if back < whole else raw
        return raw


def _mend(raw: bytes) -> Iterator[bytes]:
    """Each bad byte becomes a lone surrogate, each of those a "?": in C, and in pieces that let other threads run."""
    at = 0
    while at < len(raw):
        end = raw.rfind(b"\n", at, at + _MENDED) + 1 or raw.find(b"\n", at) + 1 or len(raw)
        yield raw[at:end].decode("utf-8", "surrogateescape").encode("utf-8", "replace")
        at = end


def find_encoding(name: str, beginning: bytes | None = None) -> Encoding | None:
    """
    The encoding called `name`; for UTF-16 and UTF-32, by the mark at the `beginning` of the file, else little-endian.

    None: the beginning is needed and is too short yet. Raises ConfigError for a name that is unknown or whose text
    has no lines as we read them.
    """
    try:
        known = codecs.lookup(name)
        if known.name in ("utf-8", "utf-8-sig", "ascii"):
            return Encoding("utf-8")
        if marks := _BOMS.get(known.name):
            if beginning is None or len(beginning) < 4:
                return None
            return Encoding(next((order for mark, order in marks if beginning.startswith(mark)), marks[0][1]))
        newline = "\n".encode(known.name)
    except (LookupError, ValueError) as error:  # a NUL in the name, no text encoding, no newline in it
        raise ConfigError(f"encoding {name!r} is not known; use a name such as utf-8, latin-1 or utf-16") from error
    if newline.lstrip(b"\0").rstrip(b"\0") != b"\n" or known.name == "utf-7":
        raise ConfigError(f"encoding {name!r} cannot be read line by line; use utf-8, latin-1, cp1252 or utf-16")
    return Encoding(known.name)


@dataclass(frozen=True, slots=True)
class Cut:
    """
    What lines stand in a piece of a file.

    pieces: (from, to, cut): whole lines of data[from:to]; where `cut` is true the last of them has no newline there,
    because the rest of the line was left out. end: where the whole lines end. stop: where data that was looked at
    ends; between them lies a line that is not whole yet. skipping: the data ends within a line that was cut.
    """

    pieces: list[tuple[int, int, bool]]
    end: int
    stop: int
    skipping: bool


def cut_lines(data: bytes, at: int, longest: int, encoding: Encoding, *, skipping: bool) -> Cut:
    """
    Find the whole lines of data[at:]; lines of more than `longest` bytes are cut to that.

    skipping: data[at:] begins within a line that was cut, whose rest is left out.
    """
    stop = len(data) - len(data) % encoding.unit
    longest -= longest % encoding.unit
    pieces = []
    if skipping:
        at = encoding.find(data, at)
        if at < 0:
            return Cut([], stop, stop, True)
    first = at
    while True:
        # One look from behind for each stretch of the longest line: only a stretch without a newline is too long.
        end = encoding.rfind(data, at, min(at + longest + encoding.unit, stop))
        if end >= 0:
            at = end
            continue
        if stop - at <= longest:
            break
        pieces.append((first, at + longest, True))
        first = at = encoding.find(data, at + longest)
        if at < 0:
            return Cut(pieces, stop, stop, True)
    if first < at:
        pieces.append((first, at, False))
    return Cut(pieces, at, stop, False)
