"""Where messages lead: the page about this alert, not any page."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from messages import EXAMPLES, message

from agentd.config.service import ApiSettings
from agentd.deliver.formats.digest import digest
from agentd.deliver.links import alert_links, finding_links, group_links
from agentd.deliver.payload import alert_data
from agentd.records import Alert, AlertStatus, Reason, Severity, Transition

BASE = "https://watch.example/agentd"
ALERT = Alert("9f2c", "web-1", "shop", Severity.CRITICAL)


def test_the_first_link_of_an_alert_is_its_own_page() -> None:
    """Who is woken at night shall not have to look for it."""
    links = alert_links(BASE, ALERT)

    assert next(iter(links.items())) == ("page", f"{BASE}/alerts/9f2c")
    assert links["watch"] == f"{BASE}/watches/shop"
    assert "run" not in links


def test_what_an_agent_found_leads_to_its_run() -> None:
    """A claim is worth what it rests on, and that stands there."""
    found = replace(ALERT, finding={"summary": "x"}, cost={"run": "run:1/../2"})

    assert alert_links(BASE, found)["run"] == f"{BASE}/runs/run%3A1%2F..%2F2"
    assert list(finding_links(BASE, watch="review", run="r1").items()) == [
        ("page", f"{BASE}/runs/r1"),
        ("watch", f"{BASE}/watches/review"),
        ("run", f"{BASE}/runs/r1"),
    ]


def test_where_nobody_reaches_a_page_nothing_leads_there() -> None:
    """A link that goes nowhere costs a minute at the worst time."""
    assert alert_links(None, ALERT) == finding_links(None, watch="a", run="b") == group_links([]) == {}
    assert list(alert_links(BASE, ALERT, of_watch=False)) == ["page"]


def test_a_group_leads_to_the_list() -> None:
    """Its alerts are many, and stand there beneath each other."""
    assert digest(message("group.firing")).links == (("page", "http://127.0.0.1:8787/alerts"),)
    one = EXAMPLES["group.firing"]["alerts"][:1]
    assert digest(message("group.firing", alerts=one)).links[0] == ("page", one[0]["links"]["page"])


@pytest.mark.parametrize("links", [{}, None, {"page": "https://other.example/alerts/1"}, {"page": "javascript:1"}])
def test_a_group_of_two_minds_leads_nowhere(links: Any) -> None:
    """As older messages in the outbox have it, or where the address was changed between two alerts."""
    first, second = EXAMPLES["group.firing"]["alerts"]

    assert digest(message("group.firing", alerts=[first, second | {"links": links}])).links == ()


def test_the_same_address_is_shown_once() -> None:
    """Two buttons that do the same make one wonder."""
    assert [name for name, _ in digest(message("goal.finding")).links] == ["page", "watch"]


def test_a_large_alert_has_whole_links() -> None:
    """What is too large is cut; half an address leads elsewhere."""
    large = replace(ALERT, values={f"v{n}": "x" * 2000 for n in range(100)})
    transition = Transition(
        AlertStatus.PENDING, AlertStatus.FIRING, Reason.THRESHOLD, "", datetime(2026, 1, 1, tzinfo=UTC), large
    )
    links = alert_links("https://" + "a" * 200 + ".example", large)

    assert alert_data(transition, links=links)["links"] == links


def test_the_page_is_where_a_proxy_has_it() -> None:
    """The address that is listened on is one that only this machine knows."""
    given: dict[str, Any] = {"listen": ["127.0.0.1:8787"]}

    assert ApiSettings.model_validate(given).page_url == "http://127.0.0.1:8787"
    assert ApiSettings.model_validate(given | {"public_url": f"{BASE}/"}).page_url == BASE
    assert ApiSettings.model_validate({"public_url": BASE}).page_url == BASE
