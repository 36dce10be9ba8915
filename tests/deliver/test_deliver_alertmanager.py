"""Alertmanager: what we post is what the real one takes, and our webhook has the shape of its own."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages import EXAMPLES, NASTY, NOW, TYPES, WIDE, body, hostile, message, rendered, worst
from messages import settings as webhook
from receiver import Receiver

from agentd.clock import SystemClock, iso
from agentd.deliver.formats import Message, load
from agentd.deliver.sender import Sender

HOOK = webhook("alertmanager")
API = webhook("alertmanager", mode="api")

NAME = r"^[a-zA-Z_][a-zA-Z0-9_]*$"
LABELS = {
    "type": "object",
    "propertyNames": {"pattern": NAME},
    "additionalProperties": {"type": "string", "minLength": 1},
}
MOMENT = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}
# `postableAlerts` of Alertmanager's api/v2/openapi.yaml, and prometheus.io/docs/alerting/latest/configuration,
# "webhook_config".
POSTABLE = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["labels", "startsAt", "endsAt"],
        "additionalProperties": False,
        "properties": {
            "labels": LABELS | {"minProperties": 1},
            "annotations": LABELS,
            "startsAt": MOMENT,
            "endsAt": MOMENT,
            "generatorURL": {"type": "string", "pattern": "^https?://"},
        },
    },
}
ALERT = {
    "status": {"enum": ["firing", "resolved"]},
    "labels": LABELS | {"minProperties": 1},
    "annotations": LABELS,
    "startsAt": MOMENT,
    "endsAt": MOMENT,
    "generatorURL": {"type": "string"},
    "fingerprint": {"type": "string"},
}
TOLD = {
    "version": {"const": "4"},
    "groupKey": {"type": "string", "minLength": 1},
    "truncatedAlerts": {"type": "integer", "minimum": 0},
    "status": {"enum": ["firing", "resolved"]},
    "receiver": {"type": "string"},
    "groupLabels": LABELS,
    "commonLabels": LABELS,
    "commonAnnotations": LABELS,
    "externalURL": {"type": "string"},
    "alerts": {
        "type": "array",
        "minItems": 1,
        "items": {"type": "object", "required": list(ALERT), "additionalProperties": False, "properties": ALERT},
    },
}
POSTABLES = jsonschema.Draft202012Validator(POSTABLE)
WEBHOOK = jsonschema.Draft202012Validator(
    {"type": "object", "required": list(TOLD), "additionalProperties": False, "properties": TOLD}
)


@pytest.mark.parametrize("type", TYPES)
def test_every_event_has_the_shape_of_both(type: str) -> None:
    """Receivers of Alertmanager's webhooks are many, and none of them was written for us."""
    WEBHOOK.validate(body(message(type), HOOK))
    POSTABLES.validate(body(message(type), API))


def test_the_webhook_says_what_alertmanager_says() -> None:
    """The fields are read by name."""
    told = body(message("group.firing", omitted=3, lane='{"team":"web","zone":""}'), HOOK)

    assert (told["status"], told["receiver"], told["truncatedAlerts"]) == ("firing", "ops", 3)
    assert told["groupLabels"] == {"team": "web"}
    assert told["groupKey"] == '{}:{team="web"}'
    assert told["commonLabels"] == {"instance": "web-1", "severity": "critical", "team": "web"}
    assert told["externalURL"] == "http://127.0.0.1:8787"
    shop, ssh = told["alerts"]
    assert shop["labels"]["alertname"] == "shop"
    assert ssh["labels"]["alertname"] == "ssh / bruteforce"
    assert ssh["labels"]["ip"] == "192.0.2.7"
    assert (shop["startsAt"], shop["endsAt"]) == ("2026-11-20T09:00:03.000Z", "0001-01-01T00:00:00Z")
    assert shop["fingerprint"] == "9f2c41d0a7b3e865"
    assert shop["annotations"]["summary"] == "shop: status == 200 does not hold (status = 503)"
    assert "Failed password" in ssh["annotations"]["lines"]


def test_a_resolve_carries_its_end() -> None:
    """By this alone a receiver knows that it is over."""
    told = body(message("alert.resolved"), HOOK)

    assert (told["status"], told["alerts"][0]["status"]) == ("resolved", "resolved")
    assert told["alerts"][0]["endsAt"] == "2026-11-20T13:10:03.000Z"


@pytest.mark.parametrize(
    "type", ["alert.firing", "alert.updated", "alert.reminder", "alert.flapping", "alert.resolved"]
)
def test_an_alert_has_the_same_labels_in_all_its_messages(type: str) -> None:
    """Alertmanager knows an alert by nothing else: with others it would be a new one, and the old would never end."""
    assert body(message(type), API)[0]["labels"] == body(message("alert.firing"), API)[0]["labels"]


def test_what_fires_is_believed_until_the_next_reminder_must_have_come() -> None:
    """Without an end of ours Alertmanager would resolve it after five minutes."""
    (alert,) = body(message("alert.reminder"), API)

    assert alert["endsAt"] == iso(NOW + timedelta(days=4))


def test_an_alert_that_rises_ends_what_it_was() -> None:
    """The severity is a label: the warning that became critical would stay open beside it for days."""
    now, *before = body(message("alert.escalated"), API)

    assert now["labels"]["severity"] == "critical"
    assert [each["labels"]["severity"] for each in before] == ["info", "warning"]
    assert {each["endsAt"] for each in before} == {iso(NOW)}
    assert len(body(message("alert.escalated"), HOOK)["alerts"]) == 1


def test_an_end_before_the_beginning_is_moved() -> None:
    """A clock that jumped back must not make Alertmanager refuse the resolve for good."""
    (alert,) = body(message("alert.resolved", ended_at="2026-11-20T08:00:00.000Z"), API)

    assert alert["endsAt"] == alert["startsAt"]


@pytest.mark.parametrize(
    ("url", "called"),
    [
        ("http://am:9093", "http://am:9093/api/v2/alerts"),
        ("http://am:9093/prefix/", "http://am:9093/prefix/api/v2/alerts"),
        ("http://am:9093/api/v2/alerts", "http://am:9093/api/v2/alerts"),
    ],
)
def test_the_api_is_found_from_the_address_of_alertmanager(url: str, called: str) -> None:
    """People know where their Alertmanager is, and seldom the path of its API."""
    assert load("alertmanager").address(url, API) == called
    assert load("alertmanager").address(url, HOOK) == url


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(TYPES),
    NASTY,
    st.dictionaries(NASTY, NASTY, max_size=40),
    st.lists(NASTY, max_size=40),
)
def test_any_message_has_the_shape(type: str, text: str, mapping: dict[str, str], items: list[str]) -> None:
    """One label that it does not take, and Alertmanager answers 400 to all of them."""
    told = hostile(type, text, mapping, items)

    WEBHOOK.validate(body(told, HOOK))
    POSTABLES.validate(body(told, API))


# The real one.


@dataclass
class Alertmanager:
    url: str
    hook_port: int

    def alerts(self) -> list[dict[str, Any]]:
        """What it holds as firing."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/api/v2/alerts").raise_for_status().json()
        return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """Debian's, telling our receiver of the watch `shop`."""
    if shutil.which("prometheus-alertmanager") is None:
        pytest.skip("needs prometheus-alertmanager (units/prepare test)")
    folder: Path = tmp_path_factory.mktemp("alertmanager")
    port, hook_port = free_port(), free_port()
    (folder / "config.yml").write_text(
        json.dumps(
            {
                "route": {
                    "receiver": "nobody",
                    "group_by": ["watch"],
                    "group_wait": "0s",
                    "group_interval": "1s",
                    "routes": [{"receiver": "hook", "matchers": ['watch="shop"']}],
                },
                "receivers": [
                    {"name": "nobody"},
                    {"name": "hook", "webhook_configs": [{"url": f"http://127.0.0.1:{hook_port}/hook"}]},
                ],
            }
        )
    )
    process = subprocess.Popen(
        [
            "prometheus-alertmanager",
            f"--config.file={folder}/config.yml",
            f"--storage.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            "--log.level=error",
        ]
    )
    alertmanager = Alertmanager(f"http://127.0.0.1:{port}", hook_port)
    try:
        for _ in range(300):
            try:
                if httpx.get(f"{alertmanager.url}/-/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        else:
            pytest.fail("Alertmanager did not get ready")
        yield alertmanager
    finally:
        process.terminate()
        process.wait()


def lately(type: str, **changes: Any) -> Message:
    """A message of now: Alertmanager goes by its own clock."""
    began = datetime.now(UTC) - timedelta(minutes=1)
    over = iso(began + timedelta(seconds=30)) if type == "alert.resolved" else None
    told = message(type, started_at=iso(began), ended_at=over, **changes)
    return replace(told, timestamp=datetime.now(UTC))


async def arrived(receiver: Receiver, status: str) -> Any:
    async with asyncio.timeout(60):
        while True:
            for request in receiver.taken:
                if request.json["status"] == status:
                    return request.json
            await asyncio.sleep(0.05)


async def test_the_real_one_takes_holds_and_ends_our_alert_and_speaks_as_we_do(real: Alertmanager) -> None:
    """Its own answer is the only proof; and what it sends a receiver is what ours must look like."""
    sender = Sender(webhook("alertmanager", mode="api", url=real.url), clock=SystemClock())
    async with Receiver(port=real.hook_port) as receiver:
        await sender.send(lately("alert.firing"))
        (held,) = await asyncio.to_thread(real.alerts)
        theirs = await arrived(receiver, "firing")
        await sender.send(lately("alert.resolved"))
        left = await asyncio.to_thread(real.alerts)
        over = await arrived(receiver, "resolved")
    await sender.close()
    ours = await asyncio.to_thread(body, message("alert.firing"), HOOK)

    assert held["status"]["state"] == "active"
    assert held["labels"] == ours["alerts"][0]["labels"]
    assert datetime.fromisoformat(held["endsAt"]) > datetime.now(UTC) + timedelta(days=3)
    assert left == []
    assert over["alerts"][0]["labels"] == held["labels"]
    WEBHOOK.validate(theirs)
    assert ours.keys() == theirs.keys()
    assert ours["alerts"][0].keys() == theirs["alerts"][0].keys()
    for name in ("version", "status", "truncatedAlerts", "groupLabels"):
        assert ours[name] == theirs[name], name
    assert theirs["groupKey"].endswith(':{watch="shop"}')  # before it, the route of its own configuration
    assert ours["groupKey"].endswith(':{watch="shop"}')
    for name in ("status", "labels", "annotations", "endsAt", "generatorURL"):
        assert ours["alerts"][0][name] == theirs["alerts"][0][name], name


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    type=st.sampled_from(TYPES),
    text=NASTY,
    mapping=st.dictionaries(NASTY, NASTY, max_size=20),
    items=st.lists(NASTY, max_size=10),
)
def test_the_real_one_takes_whatever_we_post(
    real: Alertmanager, type: str, text: str, mapping: dict[str, str], items: list[str]
) -> None:
    """It refuses a whole batch for one bad name, and the message would be buried."""
    told = hostile(type, text, mapping, items)

    answer = httpx.post(
        f"{real.url}/api/v2/alerts",
        content=rendered(told, API).body,
        headers={"Content-Type": "application/json"},
    )

    assert answer.status_code == 200, answer.text


def test_members_of_a_group_are_alerts_of_their_own() -> None:
    """Alertmanager groups by itself; what one message of ours says of five is five alerts there."""
    told = body(message("group.firing", alerts=[EXAMPLES["alert.firing"], EXAMPLES["alert.resolved"]]), API)

    assert [each["endsAt"] for each in told] == [iso(NOW + timedelta(days=4)), "2026-11-20T13:10:03.000Z"]


@pytest.mark.parametrize("char", WIDE)
@pytest.mark.parametrize("type", TYPES)
def test_limits_hold_at_the_worst(type: str, char: str) -> None:
    """As long as can be, of what grows most on its way."""
    WEBHOOK.validate(body(worst(type, char), HOOK))
    POSTABLES.validate(body(worst(type, char), API))
