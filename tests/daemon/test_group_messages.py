"""What a storm sends, as its receiver gets it: the published schema holds for groups that really were told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from house import House, Shop, Tell, http, tell
from loopback import serving
from messages import rendered, settings
from receiver import Receiver

from agentd.cli import cli
from agentd.deliver.formats import Message
from agentd.records import EventType

__all__ = ["tell"]  # the fixture, by its name

MINUTE = 60.0


def storm(tell: Tell) -> list[dict[str, Any]]:
    """Every message about 205 watches that fail, are reminded of, recover in part, fail again and are over."""
    taken: list[dict[str, Any]] = []

    async def story(house: House) -> None:
        shop, till = Shop(), Shop()
        async with Receiver() as receiver, serving(shop.answer) as shops, serving(till.answer) as tills:
            watches = [http(shops, f"shop-{n}", every="12h", labels={"zone": "dmz"}) for n in range(202)]
            watches += [http(tills, f"till-{n}", every="12h", labels={"zone": "dmz"}) for n in range(3)]
            alerting = {"group_by": ["zone"], "group_wait": "10s", "group_interval": "5m", "remind_every": "20m"}
            house.write(*watches, hook=receiver.url, alerting=alerting, defaults={"fail_after": 1})
            async with house.living() as daemon:
                for up, till_up, wait in [
                    (False, False, 30 * MINUTE),
                    (False, True, 6 * MINUTE),
                    (False, False, 6 * MINUTE),
                    (True, True, 6 * MINUTE),
                ]:
                    shop.up, till.up = up, till_up
                    for planned in daemon.plan.watches.values():
                        daemon.scheduler.run_now(planned.watch.name)
                    await house.clock.advance(wait)
            taken.extend(request.json for request in receiver.taken)

    tell(story)
    return taken


def test_the_published_schema_holds_for_every_message_of_a_storm(tell: Tell) -> None:
    """Receivers build on `agentd schema --payload`, and a group is what they get on the worst of days."""
    schema = json.loads(CliRunner().invoke(cli, ["schema", "--payload"]).output)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())

    told = storm(tell)

    for message in told:
        validator.validate(message)
    groups = [message["data"] for message in told if message["type"].startswith("group.")]
    assert {group["reason"] for group in groups} >= {"new_firing", "repeat", "new_resolved", "all_clear"}
    for group in groups:
        assert group["firing"] + group["resolved"] == len(group["alerts"]) + group["omitted"]
        assert len(json.dumps(group, ensure_ascii=False).encode()) < 300 * 1024
    assert any(group["omitted"] for group in groups)


@pytest.mark.parametrize("char", ["x", "<", "😀"])
@pytest.mark.parametrize(
    ("format", "most_bytes", "given"),
    [
        ("slack", 64 * 1024, {}),
        ("discord", 64 * 1024, {}),
        ("teams", 28 * 1024, {}),
        ("pagerduty", 512_000, {"routing_key": "a" * 32}),
        ("alertmanager", 1024 * 1024, {}),
    ],
)
def test_two_hundred_members_with_long_evidence_can_be_told(
    format: str, most_bytes: int, given: dict[str, str], char: str
) -> None:
    """A message that its receiver refuses for its size is an alert that nobody gets."""
    schema = json.loads(CliRunner().invoke(cli, ["schema", "--payload"]).output)
    example = next(each["data"] for each in schema["examples"] if each["type"] == "group.firing")
    line = char * 1000
    evidence = [{"file": "/var/log/auth.log", "offset": n, "line": line} for n in range(6)]
    member = example["alerts"][1] | {"summary": f"ssh: {line}", "evidence": evidence}
    alerts = [member | {"fingerprint": f"{n:032x}", "labels": {"ip": f"192.0.2.{n}"}} for n in range(200)]
    data = example | {"firing": 200, "alerts": alerts}
    told = Message("msg_1", EventType.GROUP_FIRING, datetime(2026, 1, 5, tzinfo=UTC), data, webhook="ops", lane="{}")

    made = rendered(told, settings(format, **given))

    for each in (made.body, *made.more):
        assert len(each) <= most_bytes
        json.loads(each)
