"""
Whom a rule counts for: the values of its `by`, as one text; and the table of such keys that never grows too large.

In: groups and fields of entries, as hostile as the lines they came from. Out: texts of at most 256 characters a
value, fit for the store, free of secrets, that can be taken apart again.
Promise: at most `most` keys; the least recently seen leaves. Recency is coarse, so that a steady population of keys
costs neither moves nor writes: a key moves up once in each turn, and a turn ends when an eighth of the table is new.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from agentd.logs.compiled import value_of
from agentd.logs.port import Entry

Clean = Callable[[Any], Any]
"""Takes secrets out of a value as JSON has them."""

NONE = "(none)"
"""The value of what an entry does not have: such entries count together, and none is passed over."""

ALL = "*"
"""The one key of a rule without `by`."""

MOST_CHARS = 256
_BETWEEN = "\x1f"
_BEFORE_VALUE = "\x1e"
_CONTROLS = dict.fromkeys((0, 0x1C, 0x1D, 0x1E, 0x1F), " ")


class Window:
    """
    What a rule knows of one key; the types of rules add to it.

    seq: how recent it is. fired: event time of its last occurrence, while the alert may be firing.
    due: when it is to be looked at again. kept: whether the store has it.
    """

    __slots__ = ("due", "fired", "kept", "seq")

    def __init__(self) -> None:
        self.seq = 0
        self.fired: float | None = None
        self.due = 0.0
        self.kept = False


W = TypeVar("W", bound=Window)


class Keys(Generic[W]):
    """Windows by key, least recently seen first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.next = 1
        self.turn = 0
        self.fresh = 0
        self.windows: OrderedDict[str, W] = OrderedDict()

    def __len__(self) -> int:
        return len(self.windows)

    def __contains__(self, key: str) -> bool:
        return key in self.windows

    def touch(self, key: str, window: W) -> bool:
        """Note that `key` was seen; True when that changed its rank."""
        if window.seq >= self.turn:
            return False
        self.windows.move_to_end(key)
        window.seq = self.next
        self.next += 1
        return True

    def add(self, key: str, window: W) -> None:
        """A key that is not there. The table may be one too large then: see `crowded`."""
        window.seq = self.next
        self.next += 1
        self.windows[key] = window
        self.fresh += 1
        if self.fresh >= max(1, self.most // 8):
            self.fresh = 0
            self.turn = self.next

    def crowded(self) -> Iterator[tuple[str, W]]:
        """Take out, oldest first, what is too much."""
        while len(self.windows) > self.most:
            yield self.windows.popitem(last=False)

    def state(self) -> list[int]:
        return [self.next, self.turn, self.fresh]

    def restore(self, state: list[int], windows: list[tuple[str, W]]) -> None:
        self.next, self.turn, self.fresh = state
        for key, window in sorted(windows, key=lambda pair: pair[1].seq):
            self.windows[key] = window
            self.next = max(self.next, window.seq + 1)


class Naming:
    """The key of an entry under a rule's `by`, and the names and values of a key."""

    def __init__(self, by: tuple[str, ...], clean: Clean) -> None:
        self.by = by
        self._clean = clean
        self._only = by[0] if len(by) == 1 else None

    def key(self, groups: Mapping[str, str], entry: Entry, known: Mapping[str, Any]) -> str:
        """known: a key that stands there was made here, and needs no second look."""
        if self._only is not None:
            raw = groups.get(self._only) or value_of(self._only, groups, entry) or NONE
            return raw if raw in known else self.cleaned(raw)
        if not self.by:
            return ALL
        parts = [groups.get(name) or value_of(name, groups, entry) or NONE for name in self.by]
        raw = _BETWEEN.join(parts)
        # A part with a separator in it gives one too many, and no known key has that.
        return raw if raw in known else _BETWEEN.join(map(self.cleaned, parts))

    def with_value(self, key: str, value: str) -> str:
        """A key for one value of `field`, beneath the key of `by`."""
        return f"{key}{_BEFORE_VALUE}{self.cleaned(value)}"

    def named(self, key: str) -> dict[str, str]:
        return dict(zip(self.by, key.split(_BETWEEN), strict=True)) if self.by else {}

    def cleaned(self, value: str) -> str:
        """`value` without secrets and separators, fit for the store, at most 256 characters."""
        value = self._clean(value)
        if not value.isascii():
            # JSON may spell out half of a surrogate pair, which no store takes.
            value = value.encode("utf-8", "replace").decode()
        return capped(value.translate(_CONTROLS)) or NONE


def without_value(key: str) -> str:
    """The key of `by` that `with_value` was given."""
    return key.partition(_BEFORE_VALUE)[0]


def capped(text: str) -> str:
    """`text`, or where it is longer than 256 characters its head and a hash of the whole."""
    if len(text) <= MOST_CHARS:
        return text
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{text[: MOST_CHARS - 17]}~{digest}"
