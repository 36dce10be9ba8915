"""
Messages for tests of formats: one of every type, and hostile ones.

`EXAMPLES` are the published examples' data by type; `message(type)` is a Message of one, with changes; `NASTY` makes
texts that want to be markup, and `hostile(type, …)` puts such texts wherever a target or a log can;
`worst(type, char)` has as much of them as can be.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from agentd.deliver.formats import Message, Rendered, load
from agentd.deliver.payload import examples
from agentd.deliver.webhook import WebhookSettings
from agentd.records import EventType

NOW = datetime(2026, 11, 20, 9, 0, 3, tzinfo=UTC)
EXAMPLES: dict[str, dict[str, Any]] = {example["type"]: example["data"] for example in examples()}
TYPES = list(EXAMPLES)

WIDE = ["*", "€", "😀", '"', "<"]
"""What escaping, UTF-8, UTF-16 or JSON makes longer."""

NASTY = st.text(
    alphabet=st.sampled_from("ab<>&`*_@here[](){}#$\\|~:/.\"' \n\x00\u202e€😀\ud800"),
    max_size=3000,
)


def message(type: str, lane: str = '{"watch":"shop"}', **changes: Any) -> Message:
    return Message("msg_1", EventType(type), NOW, EXAMPLES[type] | changes, webhook="ops", lane=lane)


def hostile(type: str, text: str, mapping: Mapping[str, str], items: Sequence[str]) -> Message:
    """A message of that type in which every text that can come from outside is one of these."""
    links = {"page": "https://agentd.example/a?x=1&y=" + "2" * 900} | dict(mapping)
    alert = EXAMPLES["alert.firing"] | {"summary": text, "watch": text, "rule": text, "instance": text}
    alert |= {"reason_text": text, "labels": mapping, "values": mapping, "failed": items, "links": links}
    alert |= {"evidence": [{"line": line} for line in items], "muted_by": text, "trace_id": text}
    finding = {"summary": text, "status": text, "severity": "critical", "confidence": 2, "next_steps": items}
    alert |= {"finding": finding | {"claims": [{"text": item, "evidence": items[:3]} for item in items]}}
    data = EXAMPLES[type]
    if "alerts" in data:
        state = data["alerts"][0]["state"]
        data = data | {"group": mapping, "omitted": 7, "alerts": [alert | {"state": state}] * 60}
    elif type == "goal.finding":
        data = data | {"watch": text, "labels": mapping, "instance": text, "links": links, "finding": alert["finding"]}
    elif type == "agentd.test":
        data = data | {"summary": text, "instance": text}
    else:
        data = data | {key: value for key, value in alert.items() if key in data and key != "state"}
    return Message("msg_1", EventType(type), NOW, data, webhook="ops", lane="")


def worst(type: str, char: str) -> Message:
    """A hostile message in which everything is as long as can be, all of the same character."""
    return hostile(type, char * 4000, {f"{n}{char * 300}": char * 1200 for n in range(30)}, [char * 1200] * 30)


def settings(format: str, **given: Any) -> WebhookSettings:
    return WebhookSettings.model_validate({"url": "https://hooks.example/x", "format": format} | given)


def rendered(told: Message, given: WebhookSettings) -> Rendered:
    render = load(given.format).render
    assert render is not None
    return asyncio.run(_awaited(render(told, given)))


def body(told: Message, given: WebhookSettings) -> Any:
    return json.loads(rendered(told, given).body)


async def _awaited(result: Any) -> Rendered:
    done = await result
    assert isinstance(done, Rendered)
    return done
