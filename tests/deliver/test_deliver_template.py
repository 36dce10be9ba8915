"""Templates: an operator's mistake costs one message, never the daemon."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from agentd.deliver.formats import Message, Rendered, template
from agentd.deliver.formats.renderer import Renderer, RendererLost, TemplateError
from agentd.deliver.payload import examples
from agentd.deliver.webhook import WebhookSettings
from agentd.errors import DeliveryDelayed, DeliveryRefused
from agentd.records import EventType

NOW = datetime(2026, 11, 20, 9, 0, 3, tzinfo=UTC)
EXAMPLES = {example["type"]: example["data"] for example in examples()}


@pytest.fixture(scope="module", autouse=True)
def no_child_left() -> Iterator[None]:
    yield
    template._renderer.close()


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    renderer = Renderer(deadline_s=1.0)
    yield renderer
    renderer.close()


def render(body: str, type: str = "alert.firing", headers: dict[str, str] | None = None, **data: Any) -> Rendered:
    settings = WebhookSettings.model_validate(
        {"url": "https://chat.example", "format": "template", "body": body, "headers": headers or {}}
    )
    message = Message("msg_1", EventType(type), NOW, EXAMPLES[type] | data)
    return asyncio.run(template.render(message, settings))


def test_the_published_example_renders() -> None:
    """It is what people start from."""
    rendered = render('{"text": {{ (alert.severity ~ ": " ~ alert.summary) | tojson }}}')

    assert json.loads(rendered.body) == {"text": "critical: shop: status == 200 does not hold (status = 503)"}
    assert rendered.headers == {"Content-Type": "application/json"}


def test_values_named_like_methods_are_values() -> None:
    """Jinja looks for `dict.values` first, and `alert.values.status` would be an error."""
    assert render("{{ alert.values.status }}").body == b"503"


def test_hostile_text_cannot_leave_its_json_string() -> None:
    """A summary with quotes and markup comes from whoever we watch."""
    evil = '"}, "admin": true, {{ 7*7 }} <!here> {"x": "'

    rendered = render('{"text": {{ alert.summary | tojson }}}', summary=evil)

    assert json.loads(rendered.body) == {"text": evil}


def test_every_event_can_be_written_with_the_same_template() -> None:
    """A template written for alerts must survive `agentd webhook test`."""
    body = '{"text": {{ alert.summary | tojson }}, "n": {{ alerts | length }}}'

    assert "Nothing is wrong" in json.loads(render(body, "agentd.test").body)["text"]
    assert json.loads(render(body, "alert.resolved").body)["text"].startswith("shop: ok again")
    assert json.loads(render(body, "group.firing").body)["n"] == 2
    assert json.loads(render(body, "goal.finding").body)["text"].startswith("morning-review: analysis by a language")


@pytest.mark.parametrize("type", list(EXAMPLES))
def test_all_fields_of_an_alert_are_there_in_every_event(type: str) -> None:
    """A missing field is an error in a template, and would bury the message."""
    fields = ", ".join(f"alert.{name}" for name in EXAMPLES["alert.firing"])

    assert len(json.loads(render(f"{{{{ [{fields}] | tojson }}}}", type).body)) == len(EXAMPLES["alert.firing"])


def test_a_group_can_be_counted() -> None:
    """What a template for groups needs stands in `data`."""
    body = '{"n": {{ data.firing }}, "more": {{ data.omitted }}, "team": {{ group.team | tojson }}}'

    assert json.loads(render(body, "group.firing").body) == {"n": 2, "more": 0, "team": "web"}


def test_another_content_type_need_not_be_json() -> None:
    """Plain text receivers exist (ntfy)."""
    rendered = render("{{ alert.watch }} is {{ alert.state }}", headers={"content-type": "text/plain"})

    assert rendered == Rendered(b"shop is firing", {})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"a": {{ alert.labels.nope | tojson }}}', "line 1: 'dict object' has no attribute 'nope'"),
        ('{"a": {{ alert.summary }}}', "no valid JSON"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ alert.summary.__class__.__mro__ }}", "unsafe"),
        ("{{ alert.labels.update({'a': 1}) }}", "unsafe"),
    ],
)
def test_what_cannot_be_written_is_refused_with_the_reason(body: str, says: str) -> None:
    """It would fail the same way at every retry; a person must see why."""
    with pytest.raises(DeliveryRefused, match=says):
        render(body)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "longer than 1 s"),
        ("{{ 'x' * 10 ** 10 }}", "too much memory"),
        ("{{ '%9999999999d' % 1 }}", "too much memory"),
        ("{% for a in range(99999) %}0123456789012345678901234567890{% endfor %}", "more than 2097152 characters"),
        ("{{ range(10 ** 9) }}", "Range too big"),
        ("{{ 10 ** (10 ** 10) }}", "longer than 1 s|too much memory"),
    ],
)
def test_a_runaway_template_is_stopped_and_the_next_one_works(renderer: Renderer, body: str, says: str) -> None:
    """Neither time nor memory of the daemon may hang on what somebody wrote into a template."""
    with pytest.raises((TemplateError, RendererLost), match=says):
        renderer.render(body, {})

    assert renderer.render("{{ a }}", {"a": "well"}) == "well"


def test_one_child_serves_many_messages(renderer: Renderer) -> None:
    """Starting a process per message would cost more than sending it."""
    renderer.render("a", {})
    first = renderer.pid
    renderer.render("b", {})

    assert first is not None
    assert renderer.pid == first


def test_a_child_that_died_is_replaced(renderer: Renderer) -> None:
    """The OOM killer takes the child, not the alerts."""
    renderer.render("a", {})
    assert renderer._child is not None
    renderer._child.kill()
    renderer._child.wait()

    assert renderer.render("b", {}) == "b"


def test_a_child_that_cannot_answer_costs_no_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed for memory, starved or suspended in mid-render: the machine's trouble passes, a buried alert does not."""
    small = Renderer(deadline_s=0.2)
    monkeypatch.setattr(template, "_renderer", small)
    try:
        render("{{ alert.severity | tojson }}")
        assert small.pid is not None
        os.kill(small.pid, signal.SIGSTOP)

        with pytest.raises(DeliveryDelayed, match="its process was killed"):
            render("{{ alert.severity | tojson }}")

        assert render("{{ alert.severity | tojson }}").body == b'"critical"'
    finally:
        small.close()
