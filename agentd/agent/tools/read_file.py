"""
The tool `read_file`: a piece of a file, from a place in it or from its end.

Promise: reads no more than it shows, save in a gzip file, of which it unpacks at most `_MAX_UNPACKED` bytes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from agentd.agent.port import ToolContext, ToolFailure
from agentd.agent.tools.beneath import open_file
from agentd.agent.tools.saying import readable, refusing
from agentd.agent.tools.working import Stop, on_thread
from agentd.fleet.messages import WorkerClass
from agentd.llm.port import ToolSpec

_DEFAULT = 16 * 1024
_MOST = 128 * 1024
_MAX_UNPACKED = 256 * 1024 * 1024
_CHUNK = 256 * 1024
_SHOWN_BINARY = 64
_LOOKED_AT = 8192


class ReadFile:
    name = "read_file"
    kind: WorkerClass = "io"
    repeatable = True
    spec = ToolSpec(
        name,
        "Read a piece of a text file beneath the allowed folders. Big files: `tail` for the end, else `offset` and "
        "`limit`; `next_offset` in the answer goes on. gzip files are unpacked.",
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["path"],
            "properties": {
                "path": {"type": "string", "minLength": 1, "maxLength": 4096, "description": "Absolute path"},
                "offset": {"type": "integer", "minimum": 0, "maximum": 2**53, "description": "Byte to begin at"},
                "limit": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": _MOST,
                    "description": f"Most bytes to read; default {_DEFAULT}",
                },
                "tail": {"type": "boolean", "description": "Read the last `limit` bytes, from a whole line on"},
            },
        },
    )

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        # What JSON makes of the text is larger than the text.
        limit = min(input.get("limit", _DEFAULT), max(1024, context.max_output // 2))
        tail = input.get("tail", False)
        offset = input.get("offset", 0)

        def work(stop: Stop) -> dict[str, Any]:
            with open_file(context.permissions, input["path"]) as fd:
                if os.pread(fd, 2, 0) == b"\x1f\x8b":
                    return _packed(fd, offset, limit, tail, stop)
                return _plain(fd, offset, limit, tail)

        with refusing():
            return {"path": input["path"], **await on_thread(work, timeout_s=context.timeout_s)}


def _plain(fd: int, offset: int, limit: int, tail: bool) -> dict[str, Any]:
    size = os.fstat(fd).st_size
    begin = max(0, size - limit) if tail else offset
    # One byte before tells whether a line begins there.
    data = _pread(fd, limit + 1, begin - 1)[1:] if begin else _pread(fd, limit, 0)
    if tail and begin and os.pread(fd, 1, begin - 1) != b"\n":
        cut = data.find(b"\n") + 1
        begin, data = begin + cut, data[cut:]
    # Files of /proc say that they are empty.
    return _answer(data, begin, max(size, begin + len(data)), more=begin + len(data) < size)


def _pread(fd: int, size: int, offset: int) -> bytes:
    data = bytearray()
    while len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
        data += more
    return bytes(data)


def _packed(fd: int, offset: int, limit: int, tail: bool, stop: Stop) -> dict[str, Any]:
    """offset: of the unpacked text."""
    kept, at, cut = bytearray(), 0, False
    for piece in unpacked(fd):
        at += len(piece)
        kept += piece
        if tail:
            del kept[: max(0, len(kept) - limit)]
        elif at <= offset:
            kept.clear()
        elif at >= offset + limit + 1:
            break
        if at >= _MAX_UNPACKED or stop.now:
            cut = True
            break
    if tail:
        begin = at - len(kept)
        if begin:
            first = kept.find(b"\n") + 1
            begin += first
            del kept[:first]
        return {"gzip": True, **({"unpacked_only": at} if cut else {}), **_answer(bytes(kept), begin, None, more=cut)}
    first_at = at - len(kept)
    data = bytes(kept[max(0, offset - first_at) :][: limit + 1])
    more = len(data) > limit or cut
    return {"gzip": True, **_answer(data[:limit], offset, None, more=more)}


def unpacked(fd: int) -> Iterator[bytes]:
    """The pieces of a gzip file, each of at most 256 KiB. Raises ToolFailure for a damaged one."""
    place, waiting, member = 0, b"", zlib.decompressobj(wbits=31)
    while True:
        if member.eof:
            waiting = member.unused_data
            while not waiting.strip(b"\0"):  # padding
                waiting = os.pread(fd, _CHUNK, place)
                place += len(waiting)
                if not waiting:
                    return
            waiting = waiting.lstrip(b"\0")
            if not waiting.startswith(b"\x1f"):
                return
            member = zlib.decompressobj(wbits=31)
        if not waiting:
            waiting = os.pread(fd, _CHUNK, place)
            place += len(waiting)
        fed = waiting
        try:
            piece = member.decompress(fed, _CHUNK)  # fed nothing, it gives what it still holds
        except zlib.error as error:
            raise ToolFailure(f"the gzip file is damaged: {error}") from error
        waiting = member.unconsumed_tail
        if piece:
            yield piece
        elif not fed and not member.eof:
            return


def _answer(data: bytes, offset: int, size: int | None, *, more: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"offset": offset, "bytes": len(data), "more": more}
    if size is not None:
        answer["size"] = size
    if is_binary(data):
        answer |= {"binary": True, "first_bytes": data[:_SHOWN_BINARY].hex(" ")}
        return answer
    # Not to cut a character in two: what is left of it comes with the next piece.
    if more:
        for cut in range(1, 4):
            if len(data) > cut and data[-cut] >= 0xC0:
                data = data[:-cut]
                answer["bytes"] = len(data)
                break
            if len(data) <= cut or data[-cut] < 0x80:
                break
        answer["next_offset"] = offset + len(data)
    answer["text"] = readable(data.decode("utf-8", "replace"))
    return answer


def is_binary(data: bytes) -> bool:
    """Whether it is no text: NUL bytes, or many that are neither UTF-8 nor printable."""
    sample = data[:_LOOKED_AT]
    return b"\0" in sample or is_strange(sample.decode("utf-8", "replace"))


def is_strange(text: str) -> bool:
    """Whether too much of it cannot be read."""
    text = text[:_LOOKED_AT]
    strange = sum(char == "\ufffd" or (char < " " and char not in "\t\n\r\f\x1b\b") for char in text)
    return strange * 10 > len(text) * 3
