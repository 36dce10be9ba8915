"""The payload: every field, valid JSON, bounded, and as the published schema says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.deliver.payload import MAX_DATA_BYTES, alert_data, alert_payload, examples, payload_schema, sample_test
from agentd.deliver.plain import Limits, plain, short
from agentd.records import Alert, AlertStatus, EventType, Evidence, Place, Reason, Severity, Transition

NOW = datetime(2026, 11, 20, 9, 0, 3, tzinfo=UTC)
ALERT = Alert(
    fingerprint="9f2c",
    instance="web-1",
    watch="shop",
    severity=Severity.CRITICAL,
    labels={"team": "web"},
    status=AlertStatus.FIRING,
    started_at=NOW,
    summary="status == 200 does not hold (status = 503)",
    values={"status": 503, "latency_ms": 12.4},
    failed=("status == 200",),
    occurrences=3,
    trace_id="ab" * 16,
)
FIRING = Transition(
    AlertStatus.PENDING, AlertStatus.FIRING, Reason.THRESHOLD, "failed 3 of 5", NOW, ALERT, EventType.FIRING
)
VALIDATOR = jsonschema.Draft202012Validator(payload_schema())
LIMITS = Limits(chars=100, items=10, depth=3)


def with_values(values: Mapping[str, Any]) -> Transition:
    return replace(FIRING, alert=replace(ALERT, values=values))


def size(data: Mapping[str, Any]) -> int:
    return len(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())


def test_alert_data_has_every_field_of_its_contract() -> None:
    """Receivers are written against this list; a field that goes missing breaks them silently."""
    assert alert_data(FIRING, links={"alert": "http://agentd/alerts/9f2c"}) == {
        "schema": "agentd.alert/1",
        "fingerprint": "9f2c",
        "watch": "shop",
        "rule": None,
        "severity": "critical",
        "state": "firing",
        "reason": "threshold",
        "reason_text": "failed 3 of 5",
        "instance": "web-1",
        "summary": "shop: status == 200 does not hold (status = 503)",
        "labels": {"team": "web"},
        "values": {"status": 503, "latency_ms": 12.4},
        "failed": ["status == 200"],
        "evidence": [],
        "finding": None,
        "started_at": "2026-11-20T09:00:03.000Z",
        "ended_at": None,
        "muted_by": None,
        "flapping": False,
        "occurrences": 3,
        "cost": None,
        "trace_id": "ab" * 16,
        "links": {"alert": "http://agentd/alerts/9f2c"},
    }


def test_every_example_satisfies_the_schema() -> None:
    """The published examples are what people copy."""
    schema = payload_schema()
    jsonschema.Draft202012Validator.check_schema(schema)

    for example in schema["examples"]:
        VALIDATOR.validate(example)
    assert {example["type"] for example in examples()} == {type.value for type in EventType}


def test_a_group_and_a_finding_have_their_shape() -> None:
    """The schema must not take any object for one of these."""
    for example in examples():
        if example["type"] in ("group.firing", "group.resolved", "goal.finding"):
            for field in example["data"]:
                rest = {key: value for key, value in example["data"].items() if key != field}
                assert not VALIDATOR.is_valid(example | {"data": rest}), field


def test_labels_are_the_same_in_all_messages_of_an_alert() -> None:
    """Receivers know an alert by its labels: a long body beside them must not change how they are cut."""
    labels = {f"l{n}": "v" * 600 for n in range(10)}
    small = replace(FIRING, alert=replace(ALERT, labels=labels))
    large = replace(FIRING, alert=replace(ALERT, labels=labels, values={str(n): "x" * 2000 for n in range(60)}))

    assert alert_data(small)["labels"] == alert_data(large)["labels"]
    assert alert_data(small)["values"] != alert_data(large)["values"]


def test_schema_refuses_what_is_no_message() -> None:
    """A schema that takes everything protects nobody."""
    message = alert_payload(EventType.FIRING, alert_data(FIRING), at=NOW)
    VALIDATOR.validate(message)

    for broken in (
        message | {"type": "alert.unheard"},
        message | {"timestamp": "yesterday"},
        message | {"data": message["data"] | {"severity": "loud"}},
        message | {"data": {key: value for key, value in message["data"].items() if key != "fingerprint"}},
    ):
        assert not VALIDATOR.is_valid(broken)


def test_schema_lets_later_versions_add_fields() -> None:
    """A receiver that validates must not break when agentd is upgraded."""
    message = alert_payload(EventType.FIRING, alert_data(FIRING) | {"new": 1}, at=NOW)

    VALIDATOR.validate(message)


def test_a_test_message_satisfies_the_schema() -> None:
    """`agentd webhook test` is the first message most receivers see."""
    VALIDATOR.validate(alert_payload(EventType.TEST, sample_test("ops", "web-1"), at=NOW))


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no")


class RudeMapping(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (2**70, str(2**70)),
        pytest.param(10**100_000, f"an integer of {(10**100_000).bit_length()} bits", id="huge"),
        (b"caf\xc3\xa9 \xff", "café �"),
        ("a\ud800b", "a?b"),
        (NOW, "2026-11-20T09:00:03.000Z"),
        (timedelta(seconds=1.5), 1.5),
        ({3, 1, 2}, [1, 2, 3]),
        ({1: {2: {3: {4: 5}}}}, {"1": {"2": {"3": "…"}}}),
        (Rude(), "(Rude)"),
        (Severity.INFO, "info"),
        ({None: True}, {"None": True}),
    ],
)
def test_odd_values_become_plain(value: object, expected: object) -> None:
    """Values come from bodies, plugins and CEL; none of them may cost the alert."""
    assert plain(value, LIMITS) == expected


def test_a_value_that_breaks_when_read_is_described() -> None:
    """A plugin's lazy mapping must not stop the alert that shows it."""
    assert isinstance(plain(RudeMapping(), LIMITS), str)


def test_long_text_shows_that_it_was_cut() -> None:
    """A person must see that there was more."""
    assert short("x" * 11, 10) == "x" * 9 + "…"
    assert short("x" * 10, 10) == "x" * 10


@pytest.mark.parametrize(
    "values",
    [
        {"body": "x" * 10_000_000},
        {"body": {str(n): "\x01" * 5000 for n in range(5000)}},
        {str(n): {str(m): [{"a": "é" * 3000}] * 100 for m in range(100)} for n in range(100)},
        {"body": [[[[[["deep" * 100] * 50] * 50] * 50] * 50] * 50] * 50},
    ],
    ids=["long", "control", "wide", "deep"],
)
def test_oversize_values_are_cut_and_the_alert_stays(values: dict[str, Any]) -> None:
    """A target that answers megabytes must not make its own alert undeliverable."""
    hostile = replace(
        with_values(values).alert,
        summary="s" * 100_000,
        labels={str(n): "v" * 999 for n in range(999)},
        evidence=tuple(Evidence(Place("/var/log/a", n), "l" * 10_000) for n in range(1000)),
    )

    data = alert_data(replace(FIRING, alert=hostile))

    assert size(data) <= MAX_DATA_BYTES
    assert data["watch"] == "shop"
    assert data["fingerprint"] == "9f2c"
    VALIDATOR.validate(alert_payload(EventType.FIRING, data, at=NOW))


def test_evidence_says_where_the_line_stands() -> None:
    """A person must be able to find the line in the file, or the entry in the journal."""
    lines = (Evidence(Place("/var/log/auth.log", 1234), "Failed"), Evidence(Place("journal", None, "s=1;i=2"), "oom"))
    told = replace(FIRING, alert=replace(FIRING.alert, evidence=lines, by={"ip": "192.0.2.1"}))

    data = alert_data(told)

    assert data["evidence"] == [
        {"file": "/var/log/auth.log", "offset": 1234, "line": "Failed"},
        {"file": "journal", "cursor": "s=1;i=2", "line": "oom"},
    ]
    assert data["labels"]["ip"] == "192.0.2.1"
    VALIDATOR.validate(alert_payload(EventType.FIRING, data, at=NOW))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=50,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), ANYTHING))
def test_whatever_the_values_the_message_is_valid_and_bounded(values: dict[str, Any]) -> None:
    """The outbox must never hold a row that no format can read."""
    data = alert_data(with_values(values))

    assert size(data) <= MAX_DATA_BYTES
    VALIDATOR.validate(alert_payload(EventType.FIRING, json.loads(json.dumps(data)), at=NOW))
