"""The settings of a webhook: wrong ones are found at load, with the cure."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agentd.deliver.webhook import WebhookSettings
from agentd.settings import RateLimit

URL = "https://hooks.example/x"


def test_the_example_configuration_is_understood() -> None:
    """These spellings are published."""
    webhook = WebhookSettings.model_validate({"url": "${credential:slack-url}", "format": "slack", "rate": "1/s"})

    assert webhook.rate == RateLimit(1, 1)
    assert webhook.timeout.total_seconds() == 15
    assert webhook.private_networks
    assert webhook.secret == ()


def test_one_secret_or_several() -> None:
    """A list while rotating, a plain value otherwise."""
    one = WebhookSettings.model_validate({"url": URL, "secret": "${credential:a}"})
    two = WebhookSettings.model_validate({"url": URL, "secret": ["${credential:a}", "${env:B}"]})

    assert [str(secret) for secret in one.secret] == ["${credential:a}"]
    assert [str(secret) for secret in two.secret] == ["${credential:a}", "${env:B}"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"url": "ftp://x"}, "begins with https"),
        ({"url": "hooks.example"}, "begins with https"),
        ({"url": URL, "format": "smoke"}, "this version knows alertmanager, apprise, discord"),
        ({"url": URL, "secret": "whsec_???"}, "cannot read the signing secret"),
        ({"url": URL, "format": "template"}, "needs `body`"),
        ({"url": URL, "format": "slack", "body": "x"}, "`body` is for `format: template`"),
        ({"url": URL, "format": "template", "body": "{{ alert }"}, "line 1: unexpected"),
        ({"url": URL, "format": "template", "body": "{{ alarm }}"}, "unknown variable 'alarm'"),
        ({"url": URL, "format": "template", "body": "\n{{ alert.sevrity }}"}, "line 2: an alert has no 'sevrity'"),
        ({"url": URL, "format": "pagerduty"}, "needs `routing_key`"),
        ({"url": URL, "format": "pagerduty", "routing_key": "short"}, "no integration key"),
        ({"url": URL, "routing_key": "k" * 32}, "`routing_key` is for `format: pagerduty`, not standard"),
        ({"url": URL, "format": "slack", "mode": "api"}, "`mode` is for `format: alertmanager`, not slack"),
        ({"url": "http://am:9093/api/v2/alerts", "format": "alertmanager"}, "write `mode: api`"),
        ({"url": URL, "format": "alertmanager", "mode": "both"}, "'webhook' or 'api'"),
        ({"url": "topic", "format": "apprise"}, "begins with the name of a service"),
        ({"url": "ntfy://a, ntfy://b", "format": "apprise"}, "a webhook for each"),
        ({"url": "ntfy://a", "format": "apprise", "secret": "${env:A}"}, "neither signs nor adds headers"),
        ({"url": "ntfy://a", "format": "apprise", "private_networks": False}, "cannot be kept with Apprise"),
        ({"url": URL, "headers": {"webhook-id": "x"}}, "set by agentd itself"),
        ({"url": URL, "headers": {"Bad Name": "x"}}, "no header name"),
        ({"url": URL, "headers": {"X": "a\nb"}}, "line break"),
        ({"url": URL, "timeout": "10m"}, "at most 2m"),
        ({"url": URL, "rate": "fast"}, "cannot read rate"),
        ({"url": URL, "concurrency": 0}, "greater than or equal to 1"),
        ({"url": URL, "tiemout": "1s"}, "Extra inputs"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_cure(given: dict[str, Any], says: str) -> None:
    """What is wrong must be seen by `agentd check`, not at three in the morning."""
    with pytest.raises(ValidationError, match=says.replace("(", r"\(")):
        WebhookSettings.model_validate(given)


@pytest.mark.parametrize(
    "body",
    [
        '{"text": {{ (alert.severity ~ ": " ~ alert.summary) | tojson }}}',
        "{% for alert in alerts %}{{ alert.values.status }}{% endfor %}{{ range(3) | list | tojson }}",
        "{% set x = data.group %}{{ x | default('none') }}",
    ],
)
def test_a_sound_template_is_taken(body: str) -> None:
    """The check must not cry wolf."""
    WebhookSettings.model_validate({"url": URL, "format": "template", "body": body})


def test_secrets_are_read_at_each_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotated secret works without a reload."""
    webhook = WebhookSettings.model_validate({"url": "${env:HOOK}", "headers": {"X": "k ${env:KEY}"}})
    monkeypatch.setenv("HOOK", "https://a.example/1\n")
    monkeypatch.setenv("KEY", "v1")

    first = webhook.expand()
    monkeypatch.setenv("KEY", "v2")

    assert first.url == "https://a.example/1"
    assert (first.headers["X"], webhook.expand().headers["X"]) == ("k v1", "k v2")


def test_settings_show_names_and_no_values() -> None:
    """They are logged, traced and shown by the API."""
    webhook = WebhookSettings.model_validate({"url": "${env:HOOK}", "secret": "whsec_c2VjcmV0c2VjcmV0"})

    assert "c2VjcmV0" not in repr(webhook)


def test_the_schema_accepts_both_spellings_of_secret() -> None:
    """Editors complete from it."""
    schema = WebhookSettings.model_json_schema()

    assert [kind["type"] for kind in schema["properties"]["secret"]["anyOf"]] == ["string", "array"]
