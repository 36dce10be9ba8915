"""
The event bus: what happens starts what waits for it.

In: events (`alert:NAME`, `log:WATCH/RULE`, `hook:NAME`, `file:/path`, `unit:NAME`, `startup`), and subscribers, each in
the name of a watch. Out: at most one run of a subscriber at a time; what comes meanwhile leads to one run more.
Promise: nothing here grows without bound, and nothing goes round in circles: an event starts no watch that is among
its own causes, directly or over others. Publishing never waits and never raises.

`Line` decides and knows no time; `Bus` runs. What must not be forgotten over a crash does not rest on this queue: a
subscriber with such work has it written as a row in the transaction of the transition (`also` of the keeper's
`commit`), reads open rows at the start, and takes the event as the word that there is one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Any

log = logging.getLogger("agentd.schedule")

MOST_WAITING = 1000
MOST_WAITING_BYTES = 16 * 2**20
MOST_FOR_ONE = 16
DEEPEST = 8
_LAST_WORDS_S = 5.0


@dataclass(frozen=True, slots=True)
class Event:
    """
    Something happened; as a subscriber gets it, this and what came while it could not be told.

    name: as `on:` writes it. payload: JSON text. chain: the watches that led to it, the first cause first; empty for
    what comes from outside. depth: how many runs led to it, one after the other.
    count: of how many events this is the newest. earlier: those before it that are still known, oldest first.
    """

    name: str
    at: datetime
    payload: str = "null"
    chain: tuple[str, ...] = ()
    depth: int = 0
    count: int = 1
    earlier: tuple[Event, ...] = ()

    @property
    def data(self) -> Any:
        """The payload, read."""
        return json.loads(self.payload)


Subscriber = Callable[[Event], Awaitable[None]]
"""Does what the event asks for, and returns when that is done: until then its watch counts as running."""


class Offer(Enum):
    """What became of an event for one subscriber."""

    STARTS = "starts"
    COALESCED = "coalesced"
    CIRCULAR = "circular"
    TOO_DEEP = "too_deep"
    FULL = "full"

    @property
    def taken(self) -> bool:
        return self in (Offer.STARTS, Offer.COALESCED)


@dataclass(slots=True)
class _Waiting:
    events: deque[Event] = field(default_factory=deque)
    count: int = 0
    causes: dict[str, None] = field(default_factory=dict)
    depth: int = 0

    def add(self, event: Event) -> None:
        self.events.append(event)
        self.count += event.count
        # All that led here counts, also of events whose payload is given up below.
        self.causes |= dict.fromkeys(event.chain)
        self.depth = max(self.depth, event.depth)

    def whole(self) -> Event:
        *earlier, newest = self.events
        chain = tuple(self.causes)
        return replace(newest, chain=chain, depth=self.depth, count=self.count, earlier=tuple(earlier))


class Line:
    """
    Who is to be started by what: pure bookkeeping.

    most, most_bytes: events that wait in all, and the size of their payloads; beyond either the oldest of the same
    watch lives on in the count alone, and a watch for which none waits yet takes that room from the one with most.
    """

    def __init__(self, *, most: int = MOST_WAITING, most_bytes: int = MOST_WAITING_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: dict[str, _Waiting] = {}
        self._ready: dict[str, None] = {}
        self._running: set[str] = set()
        self._events = self._bytes = 0

    def __len__(self) -> int:
        """Events that wait with their payload."""
        return self._events

    def offer(self, who: str, event: Event) -> Offer:
        """An event for `who`: whether it is to run, once more, or why not."""
        if who in event.chain:
            return Offer.CIRCULAR
        if event.depth >= DEEPEST:
            return Offer.TOO_DEEP
        waiting = self._waiting.get(who)
        if waiting is None and len(self._waiting) >= self._most:
            return Offer.FULL
        coalesced = waiting is not None
        if waiting is None:
            waiting = self._waiting[who] = _Waiting()
            if who not in self._running:
                self._ready[who] = None
        waiting.add(event)
        self._events += 1
        self._bytes += len(event.payload)
        self._make_room(who, waiting)
        return Offer.COALESCED if coalesced else Offer.STARTS

    def next(self) -> str | None:
        """Who is to run next; None: nobody waits who may."""
        return next(iter(self._ready), None)

    def take(self, who: str) -> Event:
        """The event of one that waits; from then on it runs, until `done`. KeyError: nothing waits for it."""
        event = self._waiting[who].whole()
        self.forget(who)
        self._running.add(who)
        return event

    def hold(self, who: str) -> None:
        """It runs already, for a reason of its own: what waits for it goes on waiting, until `done`."""
        self._ready.pop(who, None)
        self._running.add(who)

    def done(self, who: str) -> None:
        """Its run is over."""
        self._running.discard(who)
        if who in self._waiting:
            self._ready[who] = None

    def forget(self, who: str) -> None:
        """Nothing waits for it any more; a run under way goes on."""
        self._ready.pop(who, None)
        waiting = self._waiting.pop(who, None)
        for event in waiting.events if waiting else ():
            self._gave_up(event)

    def _make_room(self, who: str, waiting: _Waiting) -> None:
        if len(waiting.events) > MOST_FOR_ONE:
            self._gave_up(waiting.events.popleft())
        while self._events > self._most or self._bytes > self._most_bytes:
            if len(waiting.events) == 1:
                waiting = max(self._waiting.values(), key=lambda each: len(each.events))
                if len(waiting.events) == 1:
                    return  # a payload for each of them is what it takes
            self._gave_up(waiting.events.popleft())

    def _gave_up(self, event: Event) -> None:
        self._events -= 1
        self._bytes -= len(event.payload)


@dataclass(slots=True)
class BusStats:
    """
    published: events that somebody waits for. started: runs. coalesced: events that joined a waiting run.
    circular, too_deep: refused by the loop protection. full: refused for want of room. failed: runs that raised.
    """

    published: int = 0
    started: int = 0
    coalesced: int = 0
    circular: int = 0
    too_deep: int = 0
    full: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _Led:
    chain: tuple[str, ...]
    depth: int


# Of the run in whose context one is: tasks that a run starts inherit it, a check on schedule has none.
_led: ContextVar[_Led | None] = ContextVar("agentd_led", default=None)


class Bus:
    """
    Runs subscribers. Everything here belongs to the loop's own thread.

    may_start: whether a watch may be started now; asked as each event comes.
    """

    def __init__(self, may_start: Callable[[str], bool] = lambda who: True, *, line: Line | None = None) -> None:
        self._may_start = may_start
        self._line = line or Line()
        self._runs: dict[str, tuple[Subscriber, Callable[[], asyncio.Task[None] | None]]] = {}
        self._wanted: dict[str, tuple[str, ...]] = {}
        self._by_event: dict[str, dict[str, None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: set[tuple[str, str]] = set()
        self._pumping = self._closed = False
        self.stats = BusStats()

    def subscribe(
        self,
        who: str,
        names: Iterable[str],
        run: Subscriber,
        *,
        busy: Callable[[], asyncio.Task[None] | None] = lambda: None,
    ) -> None:
        """
        From now on these events, and no others, start the watch `who`.

        busy: its run that is on for another reason: events wait for the end of that, too. It may have looked before.
        What waits already goes to the new `run`.
        """
        self._unlist(who)
        self._runs[who] = (run, busy)
        self._wanted[who] = tuple(dict.fromkeys(names))
        for name in self._wanted[who]:
            self._by_event.setdefault(name, {})[who] = None

    def unsubscribe(self, who: str) -> None:
        """Nothing starts it any more; a run under way goes on."""
        self._unlist(who)
        self._runs.pop(who, None)
        self._line.forget(who)

    @property
    def subscribers(self) -> list[str]:
        return list(self._runs)

    @property
    def names(self) -> list[str]:
        """The events that somebody waits for."""
        return list(self._by_event)

    def wanted(self, name: str) -> bool:
        return name in self._by_event

    def publish(self, name: str, at: datetime, payload: Callable[[], str], *, of: str | None = None) -> list[str]:
        """
        It happened. Returns the watches that it starts, or that run once more for it.

        payload: makes the JSON text; called only when somebody waits for the event.
        of: the watch it happened to. What happens during a run that the bus started was led to by that run, too.
        """
        listed = self._by_event.get(name)
        if not listed or self._closed:
            return []
        led = _led.get()
        chain, depth = (led.chain, led.depth) if led else ((), 0)
        if of is not None and of not in chain:
            chain, depth = (*chain, of), depth + 1
        event = Event(name, at, payload(), chain, depth)
        self.stats.published += 1
        started = [who for who in listed if self._may_start(who) and self._offered(who, event)]
        if started and not self._pumping:
            # Not at once: an alert is two events, and whoever waits for both is to run once.
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)
        return started

    async def stop(self) -> None:
        """Start nothing more; runs under way are cancelled and awaited. Twice is once."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS_S)

    def _offered(self, who: str, event: Event) -> bool:
        offer = self._line.offer(who, event)
        if offer is Offer.COALESCED:
            self.stats.coalesced += 1
        elif not offer.taken:
            self._refused(who, event, offer)
        return offer.taken

    def _refused(self, who: str, event: Event, offer: Offer) -> None:
        setattr(self.stats, offer.value, getattr(self.stats, offer.value) + 1)
        if (who, event.name) not in self._told:
            self._told.add((who, event.name))
            facts = {"watch": who, "event": event.name, "why": offer.value, "chain": " → ".join(event.chain)}
            log.warning("event_refused", extra=facts)

    def _pump(self) -> None:
        self._pumping = False
        while not self._closed and (who := self._line.next()) is not None:
            run, busy = self._runs[who]
            if (running := busy()) is not None:
                self._line.hold(who)
                running.add_done_callback(partial(self._ended, who))
                continue
            task = asyncio.create_task(self._run(who, run, self._line.take(who)), name=f"on:{who}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _ended(self, who: str, _: object = None) -> None:
        self._line.done(who)
        self._pump()

    async def _run(self, who: str, run: Subscriber, event: Event) -> None:
        self.stats.started += 1
        log.info("event_started", extra={"watch": who, "event": event.name, "count": event.count})
        _led.set(_Led((*event.chain, who), event.depth + 1))
        try:
            await run(event)
        except Exception:
            self.stats.failed += 1
            log.exception("event_run_failed", extra={"watch": who, "event": event.name})
        finally:
            self._ended(who)

    def _unlist(self, who: str) -> None:
        self._told = {each for each in self._told if each[0] != who}
        for name in self._wanted.pop(who, ()):
            self._by_event[name].pop(who, None)
            if not self._by_event[name]:
                del self._by_event[name]
