"""Templates: an operator's mistake costs one message, never the daemon."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

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


def checked(body: str) -> WebhookSettings:
    return WebhookSettings.model_validate({"url": "https://chat.example", "format": "template", "body": body})


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


@pytest.mark.parametrize(
    "body",
    [
        "{{ 'x' * 10 ** 8 }}",
        "{{ ('x' * 10 ** 8) | upper }}",
        "{{ 'a' ~ 'x' * 10 ** 8 }}",
        "{{ '%0100000000d' % 1 }}",
        "{% set x = 'a' | center(10 ** 8) %}",
        "{% for i in [0] * 10 ** 7 %}{% endfor %}",
        "{% if 2 ** (10 ** 9) %}{% endif %}",
    ],
)
def test_looking_at_a_template_works_nothing_of_it_out(body: str) -> None:
    """Whoever may ask whether a configuration is right would else take the daemon's memory and its time."""
    checked("{{ alert.summary }}")
    tracemalloc.start()
    try:
        checked(body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 2 * 2**20


def test_a_bomb_leaves_nothing_in_the_child(renderer: Renderer) -> None:
    """What is kept of a template once it is compiled must not eat the room of those beside it."""
    for size in range(10):
        with pytest.raises(TemplateError, match="more than 2097152 characters"):
            renderer.render(f"{{{{ 'x' * {100_000_000 + size} }}}}", {})

    assert renderer.render("{{ a }}", {"a": "well"}) == "well"


@pytest.mark.parametrize(
    "body",
    [
        "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
        "{{ " + "1+" * 3000 + "1 }}",
        "{% for a in alerts %}" * 30 + "{% endfor %}" * 30,
        "{% if alert %}" * 150 + "{% endif %}" * 150,
        "{{ [" + "1," * 30000 + "] }}",
        "{{ " + "9" * 5000 + " }}",
        "{{ lipsum(10000) }}",
        "{{ " + "x" * 60000 + " }}",
    ],
)
def test_an_endless_template_is_a_fault_with_its_place_and_no_crash(body: str) -> None:
    """It would end a reload in the middle, and the check of it."""
    with pytest.raises(ValidationError, match="body") as caught:
        checked(body)

    assert len(caught.value.errors()[0]["msg"]) < 300


def test_a_long_template_of_people_is_taken() -> None:
    """Whole pages are written with them."""
    line = "{% if alert.severity == 'critical' %}<b>{{ alert.summary | upper | tojson }}</b>{% endif %}\n"

    checked(line * 200)


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
