"""The daemon's end of a run: what a host says is looked at before anything is made of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from agentd.agent.caller import Call, HostDied
from agentd.agent.host import RemoteServices
from agentd.agent.job import Job, Outcome
from agentd.agent.port import Record
from agentd.agent.wire import FROM_HOST, BrokenWire, TooLarge, Wire
from agentd.llm.spend import OpenPurse

JOB = Job(run="r1", goal="look")
MIB = 2**20


class Purse(OpenPurse):
    async def query(self, what: str, args: Mapping[str, Any]) -> Any:
        return "known"


class Line:
    """A call, and the wire at the host's end of it."""

    def __init__(self, ours: Wire, theirs: Wire) -> None:
        self.host = theirs
        self.records: list[Record] = []
        self.events: list[Mapping[str, Any]] = []
        call = Call(ours, JOB, Purse(), record=self._record, event=self._event)
        self.outcome = asyncio.create_task(call.run())

    def _record(self, record: Record, size: int) -> None:
        self.records.append(record)

    def _event(self, event: Mapping[str, Any], size: int) -> None:
        self.events.append(event)

    async def ends(self) -> Outcome:
        self.host.send("outcome", outcome={"state": "completed"})
        return await self.outcome

    def raw(self, data: bytes) -> None:
        self.host._writer.write(len(data).to_bytes(4) + data)


@pytest.fixture
async def at() -> AsyncIterator[Line]:
    streams = [await asyncio.open_connection(sock=each) for each in socket.socketpair()]
    ours, theirs = (Wire(*each) for each in streams)
    found = Line(ours, theirs)
    assert await theirs.read() is not None
    yield found
    found.outcome.cancel()
    await asyncio.wait([found.outcome])
    for _, writer in streams:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


QUOTE = {"id": "c1", "model": "default", "tokens": 100, "usd": 0.02}


@pytest.mark.parametrize(
    "wrong",
    [
        {"usd": math.nan},
        {"usd": math.inf},
        {"usd": -1},
        {"usd": "1"},
        {"tokens": -1},
        {"tokens": 1.5},
        {"tokens": True},
        {"id": None},
        {"id": "x" * 1000},
        {"model": {}},
    ],
)
async def test_money_is_asked_for_in_numbers_or_not_at_all(at: Line, wrong: dict[str, Any]) -> None:
    """What compares with no limit would go through every budget."""
    at.host.send("ask", id=1, what="reserve", args=QUOTE | wrong)
    answer = await at.host.read()
    assert answer is not None
    assert answer["error"] == "invalid_input"

    at.host.send("ask", id=2, what="reserve", args=QUOTE)
    answer = await at.host.read()
    assert answer is not None
    assert (answer["id"], "error" in answer) == (2, False)
    await at.ends()


@pytest.mark.parametrize(
    ("do", "frame"),
    [
        ("event", {"seq": "x"}),
        ("event", {"event": {}}),
        ("event", {"event": "A\ndata: b"}),
        ("record", {"seq": 1, "at_s": math.nan, "kind": "x", "data": {}}),
        ("record", {"seq": -1, "at_s": 0.0, "kind": "x", "data": {}}),
        ("record", {"seq": 1, "at_s": 0.0, "kind": "x", "data": []}),
        ("outcome", {"outcome": {"state": "completed", "usd": math.nan}}),
        ("outcome", {"outcome": {"state": "completed", "duration_s": math.inf}}),
        ("outcome", {"outcome": {"state": "completed", "finding": {"summary": "x" * 100_000}}}),
        ("outcome", {"outcome": {"state": "completed", "finding": {"summary": "x", "claims": [{"text": "x"}] * 500}}}),
        ("run", {}),
    ],
)
async def test_what_no_host_of_ours_says_ends_the_run(at: Line, do: str, frame: dict[str, Any]) -> None:
    """Findings go into alerts, messages and memory, and events to whoever follows."""
    at.host.send(do, **frame)

    with pytest.raises(HostDied, match="does not speak as it should"):
        await at.outcome
    assert (at.records, at.events) == ([], [])


@pytest.mark.parametrize("kind", ["event", "record", "ask", "spans", "outcome"])
async def test_a_frame_of_the_host_is_bounded_by_its_kind(at: Line, kind: str) -> None:
    """To read one holds up all else: it is not read to find that it is too large."""
    at.raw(b'{"do":"%s","x":"' % kind.encode() + b"x" * FROM_HOST[kind] + b'"}')

    with pytest.raises(HostDied, match="are allowed"):
        await at.outcome


@pytest.mark.parametrize("data", [b'{"x":1,"do":"event"}', b'{"do":"record","do":"event"}', b' {"do":"event"}'])
async def test_a_frame_is_of_the_kind_that_stands_in_front(at: Line, data: bytes) -> None:
    """Else a large one could pass for one of those that may be large."""
    at.raw(data)

    with pytest.raises(HostDied, match="does not speak as it should"):
        await at.outcome


async def test_what_is_too_large_for_its_frame_is_cut_or_dropped_by_the_host(at: Line) -> None:
    """An honest run must not end because a tool had much to say."""
    RemoteServices(at.host).record(Record(1, 0.0, "result", {"task": "s1.1", "output": ["\x01" * MIB]}))
    at.host.show("event", event="MessageEnd", content="x" * 2 * MIB)
    at.host.show("event", event="TurnEnd", turn=1)
    await at.ends()

    assert [record.data["task"] for record in at.records] == ["s1.1"]
    assert len(json.dumps(at.records[0].data)) <= MIB
    assert [event["event"] for event in at.events] == ["TurnEnd"]
    assert at.host.dropped == 1
    assert issubclass(TooLarge, BrokenWire)
