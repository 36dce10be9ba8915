"""What the page reads of runs, of what agents remember, and where messages about them lead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from house import HOUR, House, Shop, Tell, http, tell
from loopback import serving
from playing import FINDING, PRICED, PlayedHost, goal, played, runs_of, say
from receiver import Receiver

from agentd.agent.wire import Wire
from agentd.api.service import NotFound
from agentd.daemon.app import Daemon
from agentd.daemon.reading import Reader
from agentd.memory import spans

__all__ = ["played", "tell"]  # the fixtures, by their names

ADDRESS = {"api": {"public_url": "https://watch.example/"}}
CALLS = {"content": "", "tool_calls": [{"id": "1", "name": "read_file", "arguments": "{}"}]}
RECORDS: list[tuple[float, str, dict[str, Any]]] = [
    (0.0, "job", {"goal": "x"}),
    (
        2.0,
        "model",
        {
            "purpose": "step",
            "model": "default",
            "answered_by": "default",
            "duration_s": 1.5,
            "usage": {"input_tokens": 100, "output_tokens": 20},
            "usd": 0.001,
            "answer": CALLS,
        },
    ),
    (
        2.0,
        "steps",
        {
            "purpose": "step",
            "tasks": [
                {"id": "s1.1", "tool": "read_file", "depends_on": []},
                {"id": "s1.2", "tool": "http_get", "depends_on": ["s1.1"]},
            ],
        },
    ),
    (2.1, "task", {"task": "s1.1", "tool": "read_file", "input": {"path": "/etc/hosts"}, "attempt": 1}),
    (2.5, "result", {"task": "s1.1", "tool": "read_file", "output": "127.0.0.1 localhost", "error": None}),
    (2.6, "task", {"task": "s1.2", "tool": "http_get", "input": {"url": "http://x/"}, "attempt": 1}),
    (3.0, "result", {"task": "s1.2", "tool": "http_get", "error": "timeout", "message": "took too long"}),
    (3.0, "decision", {"decision": "retry", "reason": "it may pass"}),
    (3.1, "task", {"task": "s1.2", "tool": "http_get", "input": {"url": "http://x/"}, "attempt": 2}),
    (4.0, "result", {"task": "s1.2", "tool": "http_get", "output": {"status": 200}, "error": None}),
    (4.0, "decision", {"decision": "continue", "reason": ""}),
    (
        5.0,
        "model",
        {
            "purpose": "step",
            "model": "default",
            "answered_by": "spare",
            "duration_s": 1.0,
            "error": {"kind": "overloaded", "message": "no"},
        },
    ),
    (5.5, "outcome", {"state": "completed"}),
]


def recorded(*records: tuple[float, str, Any]) -> Any:
    async def play(wire: Wire, job: Mapping[str, Any]) -> None:
        for seq, (at_s, kind, data) in enumerate(records, 1):
            wire.send("record", seq=seq, at_s=at_s, kind=kind, data=data)
        await say(wire, finding=FINDING, input_tokens=100, output_tokens=20)

    return play


async def ran(house: House, daemon: Daemon) -> str:
    await house.clock.advance(HOUR)
    return (await runs_of(daemon))[0].id


def test_a_run_is_drawn_as_its_graph_with_its_cost(tell: Tell, played: PlayedHost) -> None:
    """What waited for what, what failed and was tried again, and which answer cost what."""

    async def story(house: House) -> None:
        played.play = recorded(*RECORDS)
        house.write(goal(), **PRICED)
        async with house.living() as daemon:
            page = await Reader(daemon).run_page(await ran(house, daemon))

            lanes = {lane["id"]: lane for lane in page["lanes"]}
            assert [lane["start_s"] for lane in page["lanes"]] == sorted(lane["start_s"] for lane in page["lanes"])
            first = lanes["m1"]
            assert (first["kind"], first["start_s"], first["end_s"], first["ok"]) == ("model", 0.5, 2.0, True)
            assert (first["tokens"], first["usd"], first["detail"]) == (120, 0.001, "calls read_file")
            read = lanes["s1.1"]
            assert (read["label"], read["start_s"], read["end_s"]) == ("read_file /etc/hosts", 2.1, 2.5)
            assert (read["depends_on"], read["detail"]) == (["m1"], "127.0.0.1 localhost")
            got = lanes["s1.2"]
            assert (got["start_s"], got["end_s"], got["ok"], got["attempts"]) == (2.6, 4.0, True, 2)
            assert got["depends_on"] == ["s1.1"]
            again = lanes["m2"]
            assert (again["label"], again["ok"], again["tokens"]) == ("spare instead of default", False, None)
            assert again["detail"] == "overloaded: no"
            assert set(again["depends_on"]) == {"s1.1", "s1.2"}
            notes = [lane["label"] for lane in page["lanes"] if lane["kind"] == "note"]
            assert notes == ["decides: retry", "completed"]
            assert page["whole"] is True
            assert page["more_lanes"] == 0
            assert page["total_s"] >= 5.5
            assert page["run"]["finding"]["summary"] == FINDING["summary"]
            assert page["run"]["input_tokens"] == 100
            assert "record" not in page["run"]
            json.dumps(page)
            with pytest.raises(NotFound):
                await Reader(daemon).run_page("nobody")

    tell(story)


def test_the_trace_of_a_run_lies_beside_it(tell: Tell, played: PlayedHost) -> None:
    """Where the time went is seen in the spans, nested as they were."""

    def span(id: str, parent: str | None, start_us: int, end_us: int) -> dict[str, Any]:
        return {
            "trace_id": "",
            "span_id": id,
            "parent": parent,
            "name": f"span {id}",
            "start_us": start_us,
            "end_us": end_us,
            "status": "ok",
            "status_text": "",
            "attributes": {},
            "events": [],
            "links": [],
        }

    async def story(house: House) -> None:
        house.write(goal(), **PRICED)
        async with house.living() as daemon:
            id = await ran(house, daemon)
            (run,) = await runs_of(daemon)
            assert run.trace_id is not None
            trace = [span("b", "a", 1_500_000, 2_000_000), span("c", "b", 1_600_000, 1_700_000)]
            trace = [each | {"trace_id": run.trace_id} for each in (*trace, span("a", "outside", 1_000_000, 3_000_000))]
            await daemon.store.history.write(lambda c: spans.save(c, trace))

            found = {each["name"]: each for each in (await Reader(daemon).run_page(id))["spans"]}

            depths = [found[f"span {name}"]["depth"] for name in "abc"]
            assert depths == [0, 1, 2]
            assert found["span b"]["start_s"] - found["span a"]["start_s"] == pytest.approx(0.5)

    tell(story)


def test_a_goal_shows_its_runs_and_what_they_found(tell: Tell, played: PlayedHost) -> None:
    """It is what a goal measures."""

    async def story(house: House) -> None:
        house.write(goal(), **PRICED)
        async with house.living() as daemon:
            id = await ran(house, daemon)

            view = await Reader(daemon).watch("review")

            assert [run["id"] for run in view["runs"]] == [id]
            (found,) = view["findings"]
            assert (found["run"], found["finding"]["summary"]) == (id, FINDING["summary"])
            assert view["settings"]["goal"] == "Look around."

    tell(story)


def test_what_is_remembered_is_found_by_its_words(tell: Tell, played: PlayedHost) -> None:
    """Was this seen before?"""

    async def story(house: House) -> None:
        house.write(goal(), **PRICED)
        async with house.living() as daemon:
            id = await ran(house, daemon)
            await house.clock.advance(60)

            newest = await Reader(daemon).memory(None, 10)
            found = await Reader(daemon).memory("disk", 10)
            nothing = await Reader(daemon).memory('"nowhere AND (', 10)

            assert newest["query"] is None
            assert [note["run"] for note in newest["notes"]] == [id]
            (note,) = found["notes"]
            assert "[disk]" in note["snippet"]
            assert note["finding"]["summary"] == FINDING["summary"]
            assert nothing["notes"] == []
            assert newest["worked"][0]["runs"] == 1
            assert newest["sizes"]["notes"] == {"final": 1}
            assert newest["sizes"]["runs"] == {"completed": 1}
            assert newest["sizes"]["history_bytes"] > 0
            json.dumps(newest)

    tell(story)


def test_a_finding_leads_to_its_run(tell: Tell, played: PlayedHost) -> None:
    """What a model says is to be looked up where it says why."""

    async def story(house: House) -> None:
        async with Receiver() as receiver:
            house.write(goal(report="each"), hook=receiver.url, **PRICED, **ADDRESS)
            async with house.living() as daemon:
                id = await ran(house, daemon)

                links = receiver.taken[0].json["data"]["links"]
                assert links["page"] == links["run"] == f"https://watch.example/runs/{id}"
                assert links["watch"] == "https://watch.example/watches/review"

    tell(story)


def test_an_alert_leads_to_its_page_and_to_the_run_that_looked_into_it(tell: Tell, played: PlayedHost) -> None:
    """The message that says what was found is the one that is read twice."""

    async def story(house: House) -> None:
        shop = Shop()
        shop.up = False
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served, investigate="Why?"), hook=receiver.url, **PRICED, **ADDRESS)
            async with house.living() as daemon:
                await house.clock.advance(10 * 60)
                (run,) = await runs_of(daemon)
                messages = {each.json["type"]: each.json["data"] for each in receiver.taken}

                for data in messages.values():
                    assert data["links"]["page"] == f"https://watch.example/alerts/{data['fingerprint']}"
                    assert data["links"]["watch"] == "https://watch.example/watches/shop"
                told = [data for data in messages.values() if data["finding"]]
                assert {data["links"]["run"] for data in told} == {f"https://watch.example/runs/{run.id}"}
                view = await Reader(daemon).alert(told[0]["fingerprint"])
                assert [each["id"] for each in view["runs"]] == [run.id]

    tell(story)
