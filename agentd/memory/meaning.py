"""
Recall by meaning: notes that say the same in other words. Only where an embeddings endpoint is configured.

In: words, and whoever turns texts into vectors.  Out: notes, the nearest first.
Promise: nothing of it is loaded before it is used, and whatever fails (no extension, no endpoint, nonsense from it)
leaves the search by words.
"""

from __future__ import annotations

import asyncio
import logging
import math
from array import array
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import apsw

from agentd.memory import notes
from agentd.memory.columns import clipped
from agentd.memory.database import Database
from agentd.memory.notes import Note

log = logging.getLogger(__name__)

Embed = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]

MAX_DIMENSIONS = 8192
AT_ONCE = 32
TIMEOUT_S = 30.0
_MAX_LETTERS = 4000
_MAX_NAME = 200

_MISSING = """
    SELECT number, text FROM notes LEFT JOIN note_vectors ON note = number AND model = ?
    WHERE type = 'final' AND note IS NULL ORDER BY number DESC LIMIT ?"""
_PUT = """
    INSERT OR REPLACE INTO note_vectors (note, model, vector)
    SELECT number, ?2, ?3 FROM notes WHERE number = ?1"""
# Vectors of another length would be an error of the whole query; of length zero are those that nobody could measure.
_NEAREST = """
    SELECT note, vec_distance_cosine(vector, ?1) AS distance FROM note_vectors JOIN notes ON number = note
    WHERE model = ?2 AND octet_length(vector) = ?3 AND (?4 IS NULL OR watch = ?4)
    ORDER BY distance IS NULL, distance LIMIT ?5"""


class Unmeasured(Exception):
    """There is no vector: whoever measures is not there, or says nonsense."""


class Meaning:
    """
    embed: texts to vectors, all of the same length, in the same order; may raise anything. model: its name, since
    vectors of two models do not compare.
    """

    def __init__(self, history: Database, embed: Embed, model: str) -> None:
        self._history = history
        self._embed = embed
        self._model = clipped(model, _MAX_NAME)
        self._warned: set[str] = set()

    async def search(self, words: str, *, watch: str | None = None, limit: int = 20) -> list[Note]:
        """What means the same, the nearest first; by words alone where meaning cannot be had. Raises StoreError."""
        try:
            (vector,) = await self._measure([clipped(words, _MAX_LETTERS)])
            found = await self._history.read(
                partial(nearest, vector=vector, model=self._model, watch=watch, limit=limit)
            )
        except Unmeasured as error:
            self._warn(str(error))
            found = []
        if found:
            return found
        hits = await self._history.read(partial(notes.search, words=words, watch=watch, type="final", limit=limit))
        return [hit.note for hit in hits]

    async def catch_up(self, limit: int = AT_ONCE) -> int:
        """
        Measure up to `limit` of the newest notes that are not measured yet; returns how many were.

        To be called now and then. Raises StoreError; what the endpoint does is logged once.
        """
        missing = await self._history.read(lambda c: c.execute(_MISSING, (self._model, limit)).fetchall())
        if not missing:
            return 0
        try:
            vectors = await self._measure([clipped(str(text), _MAX_LETTERS) for _, text in missing])
        except Unmeasured as error:
            self._warn(str(error))
            return 0

        def put(c: apsw.Connection) -> None:
            for (number, _), vector in zip(missing, vectors, strict=True):
                c.execute(_PUT, (number, self._model, vector))

        await self._history.write(put)
        return len(missing)

    async def _measure(self, texts: Sequence[str]) -> list[bytes]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await self._embed(texts)
        except Exception as error:
            raise Unmeasured(f"the embeddings endpoint failed: {error or type(error).__name__}") from error
        try:
            vectors = [as_bytes(vector) for vector in found]
        except (TypeError, ValueError, OverflowError) as error:
            raise Unmeasured(f"the embeddings endpoint gave no vectors: {error}") from error
        if len(vectors) != len(texts):
            raise Unmeasured(f"the embeddings endpoint gave {len(vectors)} vectors for {len(texts)} texts")
        return vectors

    def _warn(self, why: str) -> None:
        """Once for each reason: a search by words is a good one too."""
        if why not in self._warned and len(self._warned) < 20:
            self._warned.add(why)
            log.warning("meaning_unavailable", extra={"reason": clipped(why, 300)})


def as_bytes(vector: Sequence[float]) -> bytes:
    """32-bit floats; b"" for a vector of zeros alone. Raises ValueError, TypeError or OverflowError."""
    if not 0 < len(vector) <= MAX_DIMENSIONS:
        raise ValueError(f"a vector of {len(vector)} numbers; 1 to {MAX_DIMENSIONS} are read")
    numbers = array("f", vector)
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("a vector with numbers that are none")
    return numbers.tobytes() if any(numbers) else b""


def nearest(c: apsw.Connection, vector: bytes, model: str, *, watch: str | None = None, limit: int = 20) -> list[Note]:
    """The notes whose vectors by `model` are nearest to this one. Raises Unmeasured without the extension."""
    if not vector:
        return []
    load_extension(c)
    rows: list[Any] = c.execute(_NEAREST, (vector, model, len(vector), watch, limit)).fetchall()
    found = [notes.get(c, number) for number, distance in rows if distance is not None]
    return [note for note in found if note is not None]


def load_extension(c: apsw.Connection) -> None:
    """Teach this connection `sqlite-vec`; once is enough. Raises Unmeasured when it is not installed."""
    try:
        c.execute("SELECT vec_version()").fetchall()
        return
    except apsw.SQLError:
        pass
    try:
        import sqlite_vec
    except ImportError as error:
        raise Unmeasured("sqlite-vec is not installed; `pip install agentd[recall]` brings it") from error
    try:
        c.enable_load_extension(True)
        try:
            c.load_extension(sqlite_vec.loadable_path())
        finally:
            # SQL of its own could load whatever it likes as long as this is on.
            c.enable_load_extension(False)
    except (apsw.Error, AttributeError) as error:
        raise Unmeasured(f"sqlite-vec cannot be loaded: {error}") from error
