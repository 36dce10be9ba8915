"""Inbound webhooks: who is let in, what acts once, how often, and what of the body reaches an event."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from agentd.api.alertmanager import read_alertmanager
from agentd.api.hook import MOST_NESTED, TOLERANCE, Call, Hooks, Replays, payload_of
from agentd.api.rates import Rates
from agentd.api.service import Conflict, Forbidden, NoSecret, NotFound, TooMany
from agentd.config.service import Hook
from agentd.testing import FakeClock

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
BODY = b'{"ref": "main"}'


class Door:
    """One hook, and a hand that knocks."""

    def __init__(self, clock: FakeClock, **settings: Any) -> None:
        self.clock = clock
        self.hooks = Hooks(clock, Rates())
        self.hooks.replace({"deploy": Hook.model_validate({"secret": SECRET, **settings})})
        self.read = 0

    async def knock(
        self, headers: Mapping[str, str], body: bytes = BODY, *, name: str = "deploy", trusted: bool = False
    ) -> Call:
        async def said() -> bytes:
            self.read += 1
            return body

        return await self.hooks.admit(name, headers, said, trusted=trusted)

    def signed(
        self, id: str = "msg_1", body: bytes = BODY, *, secret: str = SECRET, ago: timedelta = timedelta()
    ) -> dict[str, str]:
        at = self.clock.now() - ago
        return {
            "webhook-id": id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret).sign(id, at, body.decode()),
        }


def told(story: Callable[[FakeClock], Coroutine[Any, Any, None]]) -> None:
    clock = FakeClock()
    clock.run(story(clock))


def test_a_message_signed_by_the_standard_library_is_let_in() -> None:
    """What every sender of Standard Webhooks uses must fit what we compute."""

    async def story(clock: FakeClock) -> None:
        door = Door(clock)

        call = await door.knock(door.signed())

        assert (call.id, call.fresh) == ("msg_1", True)
        assert json.loads(call.payload) == {"hook": "deploy", "id": "msg_1", "body": {"ref": "main"}}

    told(story)


def test_a_bearer_token_is_let_in() -> None:
    async def story(clock: FakeClock) -> None:
        door = Door(clock, secret="a plain token")

        call = await door.knock({"authorization": "bearer a plain token"}, b"hello")

        assert json.loads(call.payload) == {"hook": "deploy", "id": None, "body": "hello"}

    told(story)


def changed(**headers: str) -> Callable[[Door], dict[str, str]]:
    return lambda door: door.signed() | {f"webhook-{name}": value for name, value in headers.items()}


@pytest.mark.parametrize(
    ("headers", "reads"),
    [
        (lambda door: {}, False),
        (lambda door: {"authorization": "Bearer wrong"}, False),
        (lambda door: {"authorization": "Bearer "}, False),
        (lambda door: {"authorization": f"Basic {SECRET}"}, False),
        (lambda door: door.signed(ago=TOLERANCE + timedelta(seconds=1)), False),
        (lambda door: door.signed(ago=-TOLERANCE - timedelta(seconds=1)), False),
        (changed(timestamp="now"), False),
        (changed(timestamp="1e9"), False),
        (changed(timestamp="9" * 13), False),
        (changed(timestamp="٣"), False),
        (changed(id=""), False),
        (changed(id="x" * 257), False),
        (changed(id="msg.1"), False),
        (changed(id="msg 1"), False),
        (lambda door: {key: value for key, value in door.signed().items() if key != "webhook-id"}, False),
        (lambda door: door.signed(secret=OTHER), True),
        (lambda door: door.signed(body=b'{"ref": "evil"}'), True),
        (changed(id="msg_2"), True),
        (changed(signature=""), True),
        (changed(signature="v1,"), True),
        (changed(signature="v1,\xff\xfe"), True),
        (
            lambda door: door.signed() | {"webhook-signature": door.signed()["webhook-signature"].replace("v1", "v2")},
            True,
        ),
        (lambda door: door.signed(secret=OTHER) | {"authorization": "Bearer wrong"}, True),
    ],
)
def test_nobody_else_is_let_in(headers: Callable[[Door], dict[str, str]], reads: bool) -> None:
    """A hook starts things; and whoever is no sender by his headers costs us no body."""

    async def story(clock: FakeClock) -> None:
        door = Door(clock)

        with pytest.raises(Forbidden):
            await door.knock(headers(door))

        assert door.read == reads

    told(story)


def test_a_large_body_is_read_like_a_small_one() -> None:
    """It is read on a thread; what comes of it is the same."""

    async def story(clock: FakeClock) -> None:
        body = json.dumps({"text": "x" * 100_000}).encode()
        call = await Door(clock).knock({"authorization": f"Bearer {SECRET}"}, body)

        assert json.loads(call.payload)["body"] == json.loads(body)

    told(story)


def test_a_hook_that_is_not_there_is_not_found() -> None:
    async def story(clock: FakeClock) -> None:
        with pytest.raises(NotFound):
            await Door(clock).knock({}, name="other", trusted=True)

    told(story)


def test_who_has_no_secret_cannot_tell_which_hooks_there_are() -> None:
    """Their names say what a house is built of, and which doors are worth a try."""

    async def story(clock: FakeClock) -> None:
        door = Door(clock)
        stranger = "whsec_" + base64.b64encode(b"somebody else's secret..").decode()
        late = door.signed(secret=stranger, ago=timedelta(hours=1))
        for headers in ({}, {"authorization": "Bearer x"}, door.signed(secret=stranger), late):
            said, read = [], []
            for name in ("deploy", "other"):
                before = door.read
                with pytest.raises(Forbidden) as refused:
                    await door.knock(headers, name=name)
                said.append(str(refused.value))
                read.append(door.read - before)

            assert said[0] == said[1]
            assert read[0] == read[1]

    told(story)


def test_the_joints_of_what_is_signed_cannot_be_moved() -> None:
    """`id.time.body`: with a full stop in the id, a signed text could be sent again as another message."""

    async def story(clock: FakeClock) -> None:
        door = Door(clock)
        stamp = str(int(clock.now().timestamp()))
        headers = door.signed("msg", f"{stamp}.text".encode())
        await door.knock(headers, f"{stamp}.text".encode())

        with pytest.raises(Forbidden):
            await door.knock(headers | {"webhook-id": f"msg.{stamp}"}, b"text")

    told(story)


def test_both_secrets_are_good_while_they_rotate() -> None:
    """The sender changes at another moment than we do."""

    async def story(clock: FakeClock) -> None:
        door = Door(clock, secret=[SECRET, OTHER])
        both = door.signed("c", secret=OTHER)["webhook-signature"] + " " + door.signed("c")["webhook-signature"]

        assert (await door.knock(door.signed("a"))).fresh
        assert (await door.knock(door.signed("b", secret=OTHER))).fresh
        assert (await door.knock(door.signed("c") | {"webhook-signature": both})).fresh
        assert (await door.knock({"authorization": f"Bearer {OTHER}"})).fresh

    told(story)


def test_a_secret_that_is_gone_does_not_shut_out_the_other(tmp_path: Path) -> None:
    async def story(clock: FakeClock) -> None:
        door = Door(clock, secret=[f"${{file:{tmp_path / 'old'}}}", SECRET])
        assert (await door.knock(door.signed())).fresh

        door = Door(clock, secret=f"${{file:{tmp_path / 'old'}}}")
        with pytest.raises(NoSecret):
            await door.knock(door.signed())

    told(story)


def test_where_a_missing_secret_should_be_is_for_the_log_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody may knock: they learn no path, and cannot fill the log."""

    async def story(clock: FakeClock) -> None:
        door = Door(clock, secret=f"${{file:{tmp_path / 'key'}}}")
        for headers in ({"authorization": "Bearer x"}, door.signed(), door.signed("msg_2")):
            with pytest.raises(NoSecret) as caught:
                await door.knock(headers)
            assert str(tmp_path) not in str(caught.value)
        (tmp_path / "key").write_text(SECRET)
        assert (await door.knock(door.signed())).fresh
        (tmp_path / "key").unlink()
        with pytest.raises(NoSecret):
            await door.knock(door.signed("msg_3"))

    told(story)
    logged = [record for record in caplog.records if record.message == "hook_secret_missing"]
    assert [str(tmp_path) in record.__dict__["error"] for record in logged] == [True, True]


def test_a_secret_in_another_encoding_breaks_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment may hold any bytes."""
    monkeypatch.setattr("agentd.secret._environment", {"HOOK_KEY": "f\udcfcr"})

    async def story(clock: FakeClock) -> None:
        door = Door(clock, secret="${HOOK_KEY}")
        for headers in ({"authorization": "Bearer x"}, door.signed()):
            with pytest.raises(Forbidden):
                await door.knock(headers)

    told(story)


def test_an_empty_secret_fits_nobody(tmp_path: Path) -> None:
    """It comes of a file that is being written."""
    (tmp_path / "key").touch()

    async def story(clock: FakeClock) -> None:
        door = Door(clock, secret=f"${{file:{tmp_path / 'key'}}}")
        for headers in ({"authorization": "Bearer "}, door.signed()):
            with pytest.raises(Forbidden):
                await door.knock(headers)

    told(story)


def test_a_replayed_message_is_refused() -> None:
    """Whoever saw one deploy pass by must not be able to start another."""

    async def story(clock: FakeClock) -> None:
        door = Door(clock)
        headers = door.signed()
        await door.knock(headers)
        clock.tick(120)

        with pytest.raises(Conflict):
            await door.knock(headers)
        clock.tick(200)
        with pytest.raises(Forbidden, match="5 minutes"):
            await door.knock(headers)

    told(story)


def test_a_message_signed_anew_is_taken_as_done() -> None:
    """A sender that did not get our answer sends again; it should hear that all is well, and nothing starts twice."""

    async def story(clock: FakeClock) -> None:
        door = Door(clock)
        await door.knock(door.signed())
        for _ in range(10):
            clock.tick(200)
            assert not (await door.knock(door.signed())).fresh

    told(story)


def test_a_message_turned_away_for_its_rate_may_come_again() -> None:
    async def story(clock: FakeClock) -> None:
        door = Door(clock, rate="1/m")
        await door.knock(door.signed("a"))
        headers = door.signed("b")
        with pytest.raises(TooMany) as refused:
            await door.knock(headers)
        assert refused.value.retry_after_s == 60

        await clock.advance(60)

        assert (await door.knock(headers)).fresh

    told(story)


def test_who_knows_no_secret_does_not_use_up_the_rate() -> None:
    """Or anybody could keep the real sender out."""

    async def story(clock: FakeClock) -> None:
        door = Door(clock, rate="1/m")
        for _ in range(100):
            with pytest.raises(Forbidden):
                await door.knock(door.signed(secret=OTHER))

        assert (await door.knock(door.signed())).fresh

    told(story)


def test_a_message_is_taken_once_however_many_bring_it_at_once() -> None:
    """Two connections with the same message: one of them acts."""

    async def story(clock: FakeClock) -> None:
        door = Door(clock, rate="100/s")
        headers = door.signed()

        outcomes = await asyncio.gather(*(door.knock(headers) for _ in range(20)), return_exceptions=True)

        assert sum(isinstance(each, Call) and each.fresh for each in outcomes) == 1
        assert sum(isinstance(each, Conflict) for each in outcomes) == 19

    told(story)


def test_what_is_remembered_of_messages_is_bounded_and_lets_no_replay_through() -> None:
    """Forgetting the earliest makes everything up to its time too old, not new."""
    clock, replays = FakeClock(), Replays(most=3)
    now = int(clock.now().timestamp())
    for n in range(5):
        assert replays.look(f"m{n}", now + n, clock.now())
        replays.remember(f"m{n}", now + n)

    for n in (0, 1):
        with pytest.raises(Forbidden):
            replays.look(f"m{n}", now + n, clock.now())
    for n in (2, 3, 4):
        with pytest.raises(Conflict):
            replays.look(f"m{n}", now + n, clock.now())
    assert replays.look("new", now + 5, clock.now())
    clock.tick(TOLERANCE + timedelta(seconds=10))
    assert replays.look("newer", now + 310, clock.now())
    assert replays._by_stamp == []


def test_a_changed_rate_holds_at_once() -> None:
    async def story(clock: FakeClock) -> None:
        door = Door(clock, rate="1/m")
        await door.knock(door.signed("a"))
        door.hooks.replace({"deploy": Hook.model_validate({"secret": SECRET, "rate": "2/m"})})

        assert (await door.knock(door.signed("b"))).fresh
        with pytest.raises(Conflict):
            await door.knock(door.signed("a"))

    told(story)


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b"", ""),
        (b"plain text \xff", "plain text \ufffd"),
        (b"[1, 2.5, null]", [1, 2.5, None]),
        (b'"text"', "text"),
        (b'{"n": NaN}', '{"n": NaN}'),
        (b"1" * 5000, "1" * 5000),
        (b'"\\ud800"', "\ud800"),
        (b"[" * 50_000, "[" * 50_000),
        (b"[" * MOST_NESTED + b"]" * MOST_NESTED, "[" * MOST_NESTED + "]" * MOST_NESTED),
        (b"[" * (MOST_NESTED - 1) + b"]" * (MOST_NESTED - 1), json.loads("[" * 99 + "]" * 99)),
    ],
    ids=["empty", "text", "list", "string", "nan", "long number", "half a pair", "deep", "too deep", "deep enough"],
)
def test_any_body_becomes_json(body: bytes, read: Any) -> None:
    """Senders send what they like; an event is JSON that can be written and read anywhere."""
    payload = payload_of("x", None, body)

    assert json.loads(payload.encode()) == {"hook": "x", "id": None, "body": read}


ALERT = {
    "status": "firing",
    "labels": {"alertname": "Down", "zone": "dmz"},
    "annotations": {"summary": "it is down"},
    "startsAt": "2026-11-21T10:00:00Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus/graph",
    "fingerprint": "ab12",
}
WHOLE = {
    "version": "4",
    "status": "firing",
    "receiver": "agentd",
    "groupKey": "{}:{}",
    "groupLabels": {"zone": "dmz"},
    "truncatedAlerts": 2,
    "alerts": [ALERT, ALERT | {"status": "resolved", "endsAt": "2026-11-21T11:00:00Z"}],
}


def test_what_alertmanager_posts_is_read() -> None:
    """Its field names stay out of what a goal or a condition reads."""
    said = json.loads(payload_of("am", None, json.dumps(WHOLE).encode()))

    assert said["body"] == WHOLE
    assert said["alertmanager"]["truncated"] == 2
    assert said["alertmanager"]["alerts"] == [
        {
            "status": "firing",
            "fingerprint": "ab12",
            "labels": {"alertname": "Down", "zone": "dmz"},
            "annotations": {"summary": "it is down"},
            "starts_at": "2026-11-21T10:00:00Z",
            "ends_at": None,
            "url": "http://prometheus/graph",
        },
        {
            "status": "resolved",
            "fingerprint": "ab12",
            "labels": {"alertname": "Down", "zone": "dmz"},
            "annotations": {"summary": "it is down"},
            "starts_at": "2026-11-21T10:00:00Z",
            "ends_at": "2026-11-21T11:00:00Z",
            "url": "http://prometheus/graph",
        },
    ]


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "4",
        {"version": "3", "alerts": []},
        {"version": "4"},
        {"version": "4", "alerts": {}},
        {"version": "4", "alerts": [None]},
        {"version": "4", "alerts": [{"status": "odd"}]},
        {"version": "4", "alerts": [{"status": ["firing"]}]},
    ],
)
def test_what_only_looks_like_alertmanager_is_not_taken_for_it(body: Any) -> None:
    assert read_alertmanager(body) is None


def test_what_is_odd_in_an_alert_is_left_out() -> None:
    """Anybody may send a body of this form."""
    found = read_alertmanager(
        {"version": "4", "alerts": [{"status": "firing", "labels": {"a": 1, "b": "x"}, "fingerprint": 7}]}
    )

    assert found is not None
    (alert,) = found["alerts"]
    assert (alert["labels"], alert["fingerprint"], alert["annotations"]) == ({"b": "x"}, "", {})
