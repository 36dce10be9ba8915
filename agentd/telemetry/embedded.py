"""
What of the traces goes into the embedded store.

In: a finished trace's root, and whether it failed. Out: compact records, handed to `post`.
Promise: every failed trace and every trace marked `agentd.keep` is posted; of the healthy ones at most one per watch
in `every_s`, so that a daemon doing hundreds of checks a second does not write hundreds of rows for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, cast

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

WATCH = "agentd.watch"
"""Attribute of a trace's root: the watch it belongs to."""

KEEP = "agentd.keep"
"""Attribute of a trace's root: keep it, healthy or not."""

_MOST_WATCHES = 20_000


class RunSpan(TypedDict):
    """
    One span as the store keeps it; plain JSON types only.

    trace_id, span_id, parent: lower-case hex; parent is None for a root, and may lie in another process.
    start_us, end_us: microseconds since the epoch. status: `unset`, `ok` or `error`; status_text: why, or "".
    events: name, at_us, attributes each. links: `traceparent` of each linked span.
    """

    trace_id: str
    span_id: str
    parent: str | None
    name: str
    start_us: int
    end_us: int
    status: str
    status_text: str
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    links: list[str]


class EmbeddedSpans:
    """
    The policy of the embedded store.

    post: takes the spans of one trace, root last; must not block. What it raises is the caller's to see.
    every_s: of healthy traces, one per watch in so many seconds; 0 posts them all.
    """

    def __init__(self, post: Callable[[list[RunSpan]], None], *, every_s: float = 10.0) -> None:
        self._post = post
        self._every_ns = round(every_s * 1e9)
        self._last: dict[str, int] = {}

    def wants(self, root: ReadableSpan, failed: bool) -> bool:
        """Whether this trace is to be posted. failed: it has a span that failed or that says `agentd.keep`."""
        if failed or not self._every_ns:
            return True
        watch = str((root.attributes or {}).get(WATCH, root.name))
        end = root.end_time or 0
        last = self._last.get(watch)
        # A wall clock set back would otherwise mute the watch until it caught up again.
        if last is not None and 0 <= end - last < self._every_ns:
            return False
        if last is None and len(self._last) >= _MOST_WATCHES:
            self._last.pop(next(iter(self._last)))
        self._last[watch] = end
        return True

    def __call__(self, spans: list[RunSpan]) -> None:
        self._post(spans)


def compact(span: ReadableSpan) -> RunSpan:
    """The span as a plain record."""
    context = span.get_span_context()
    assert context is not None, "a span that was started has a context"
    parent = span.parent
    return {
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "parent": None if parent is None else f"{parent.span_id:016x}",
        "name": span.name,
        "start_us": (span.start_time or 0) // 1000,
        "end_us": (span.end_time or 0) // 1000,
        "status": span.status.status_code.name.lower(),
        "status_text": span.status.description or "",
        "attributes": _plain(span.attributes),
        "events": [
            {"name": event.name, "at_us": event.timestamp // 1000, "attributes": _plain(event.attributes)}
            for event in span.events
        ],
        "links": [
            f"00-{link.context.trace_id:032x}-{link.context.span_id:016x}-{link.context.trace_flags & 0xFF:02x}"
            for link in span.links
        ],
    }


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "trace_id": str,
    "span_id": str,
    "parent": (str, type(None)),
    "name": str,
    "start_us": int,
    "end_us": int,
    "status": str,
    "status_text": str,
    "attributes": dict,
    "events": list,
    "links": list,
}
_MOST_RECEIVED = 2000


def received(spans: Any, trace_id: str) -> list[RunSpan]:
    """Of what another process says to be spans of this trace, those that are; root last, [] when there are none."""
    found: list[RunSpan] = []
    for span in spans[-_MOST_RECEIVED:] if isinstance(spans, list) else ():
        whole = isinstance(span, dict) and all(isinstance(span.get(key), kind) for key, kind in _FIELDS.items())
        if whole and span["trace_id"] == trace_id:
            found.append(cast(RunSpan, {key: span[key] for key in _FIELDS}))
    return found


def _plain(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: _plain_value(value) for key, value in attributes.items()} if attributes else {}


def _plain_value(value: Any) -> Any:
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, Mapping):
        return _plain(value)
    if isinstance(value, Sequence):
        return [_plain_value(item) for item in value]
    return str(value)
