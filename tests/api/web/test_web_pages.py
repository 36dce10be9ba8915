"""Every page, with what is usual, with what is hostile, and with nothing at all."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pagestage import CSRF, FINGERPRINT, HOSTILE, NEAR, PAGES, READER, Seen, Stage, Views, poisoned_views, watch_view

from agentd.api.caller import NOBODY, Caller


def sound(page: Seen) -> None:
    assert not page.dangers
    assert not page.broken
    assert len(page.ids) == len(set(page.ids))


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_is_sound(path: str) -> None:
    """Broken nesting or doubled ids would break what keeps it up to date."""
    sound(await Stage().see(path))


@pytest.mark.parametrize("path", PAGES)
async def test_nothing_that_a_target_says_becomes_markup(path: str) -> None:
    """A log line must not act in the browser of who reads it."""
    page = await Stage(views=poisoned_views()).see(path)

    sound(page)
    assert page.tags.count("script") == 1
    assert page.tags.count("img") == (2 if path == "/watches/shop" else 0)  # badges
    if path not in ("/status", "/login"):
        assert "{{ 7*7 }}" in page.text
        assert "<script>alert(1)</script>" in page.text


@pytest.mark.parametrize("path", [path for path in PAGES if path not in ("/status", "/login")])
async def test_what_turns_or_hides_text_is_shown_as_its_code(path: str) -> None:
    """`gpj.exe` must not read as `exe.jpg`, nor an address hide a part of itself."""
    page = await Stage(views=poisoned_views()).see(path)

    assert "<U+202E>" in page.text
    assert not set(page.html) & set("\u202e\u200b\x1b")


@pytest.mark.parametrize("path", PAGES)
async def test_a_very_long_text_does_not_make_a_very_long_page(path: str) -> None:
    """A target that answers with a megabyte must not cost every browser one."""
    answer = await Stage(views=poisoned_views("x" * 100_000)).get(path)

    assert answer.status_code == 200
    assert len(answer.content) < 300_000


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_may_load_and_run_only_what_is_ours(path: str) -> None:
    """The policy is what holds when escaping does not."""
    headers = (await Stage().get(path)).headers

    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "noindex" in headers["x-robots-tag"]
    assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("path", PAGES)
async def test_every_form_that_changes_something_carries_the_sessions_token(path: str) -> None:
    """One without it would be refused, and one that needs none could be forged."""
    page = await Stage().see(path)

    for action, fields in page.posts:
        assert fields.get("csrf") == CSRF or action == "/login", action
        assert action.startswith("/")
        assert fields.get("back", "/").startswith("/")


@pytest.mark.parametrize("caller", [NEAR, READER, Caller("ops", "operate", "key")])
@pytest.mark.parametrize(
    "path", ["/", "/watches/shop", "/alerts", f"/alerts/{FINGERPRINT}", "/outbox", "/outbox/msg_1"]
)
async def test_who_may_not_act_sees_no_forms(path: str, caller: Caller) -> None:
    """A button that is refused would be a lie."""
    page = await Stage(caller).see(path)

    assert [action for action, _ in page.posts if action != "/logout"] == []


async def test_the_unknown_are_shown_the_way_to_sign_in_and_back() -> None:
    page = await Stage(NEAR).see("/watches/shop?span=7d")

    assert "/login?next=/watches/shop%3Fspan%3D7d" in page.links
    assert "/memory" not in page.links
    assert "/logout" not in [action for action, _ in page.posts]


@pytest.mark.parametrize(
    "path", ["/", "/watches/shop", "/alerts", f"/alerts/{FINGERPRINT}", "/outbox", "/outbox/msg_1", "/runs"]
)
async def test_the_unknown_read_nothing_that_agents_read_or_people_asked(path: str) -> None:
    """A quote may be a password; whoever reaches the port must not read it."""
    page = await Stage(NEAR).see(path)

    for secret in ("quoted words", "roll back", "the line of the log", "GET /checkout 500", "a question"):
        assert secret not in page.text
    for secret in ("it is down", "web-2", "HTTP 500"):  # of a line, and of a receiver's answer
        assert secret not in page.text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/", "errors: 3 in a row"),
        ("/", "503 Service Unavailable"),
        ("/watches/shop", "errors: 3 in a row"),
        ("/alerts", "errors: 3 in a row"),
        (f"/alerts/{FINGERPRINT}", "errors: 3 in a row"),
        (f"/alerts/{FINGERPRINT}", "answered 500"),
        ("/outbox", "answered 500"),
        ("/outbox/msg_1", "answered 500"),
    ],
)
async def test_the_unknown_read_what_fires_and_why(path: str, said: str) -> None:
    """A page with holes would say nothing to a screen on the wall."""
    assert said in (await Stage(NEAR).see(path)).text


@pytest.mark.parametrize("path", ["/memory", "/audit", "/runs/run_1"])
async def test_a_page_of_records_tells_the_unknown_how_to_see_it(path: str) -> None:
    answer = await Stage(NEAR).get(path)

    assert answer.status_code == 403
    page = Seen.of(answer.text)
    sound(page)
    assert f"/login?next={path}" in page.links
    assert "www-authenticate" not in answer.headers


async def test_nobody_from_elsewhere_sees_more_than_the_way_in() -> None:
    answer = await Stage(NOBODY).get("/")

    assert answer.status_code == 403
    page = Seen.of(answer.text)
    assert "web-1" not in page.text
    assert "/alerts" not in page.links


async def test_the_known_read_what_agents_found() -> None:
    page = await Stage().see(f"/alerts/{FINGERPRINT}")

    for said in ("quoted words", "roll back", "the line of the log", "it is down"):
        assert said in page.text


async def test_a_watch_that_is_not_there_is_a_page_that_says_so() -> None:
    answer = await Stage().get("/watches/<script>")

    assert answer.status_code == 404
    sound(Seen.of(answer.text))
    assert "no watch" in answer.text


EMPTY = Views(
    watches=[],
    alerts=[],
    silences=[],
    deliveries=[],
    runs=[],
    memory={"notes": [], "worked": [], "sizes": {}},
    deeds=[],
    config={"config": {}, "origins": {}, "live": []},
    public={"instance": "i", "state": "unknown", "watches": []},
)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/", "No watches are configured"),
        ("/alerts", "No alerts"),
        ("/runs", "No agent has run yet"),
        ("/outbox", "Nothing waits"),
        ("/memory", "Nothing is remembered yet"),
        ("/audit", "Nobody has done anything yet"),
        ("/settings", "Not known"),
        ("/status", "public: true"),
    ],
)
async def test_a_page_with_nothing_on_it_says_what_would_be_there(path: str, said: str) -> None:
    page = await Stage(views=EMPTY).see(path)

    sound(page)
    assert said in page.text


async def test_a_watch_of_which_nothing_is_known_yet_has_a_page() -> None:
    """The first minute after a start, and every watch that is not enabled."""
    views = Views(watches=[watch_view(enabled=False, verdict=None, summary="", latency_ms=None, checked_at=None)])
    views.more |= {"check": None, "alerts": [], "runs": [], "findings": [], "uptime": {}, "settings": {}}
    views.series |= {"points": [], "bars": [None] * 90, "value": None}
    views.events = []

    page = await Stage(views=views).see("/watches/shop")

    sound(page)
    assert "disabled" in page.text
    assert "No check yet." in page.text


async def test_without_agents_and_settings_there_are_no_pages_of_them() -> None:
    stage = Stage(whole=False)
    page = await stage.see("/")

    assert "/runs" not in page.links
    assert "/settings" not in page.links
    assert (await stage.get("/runs")).status_code == 404


async def watches_shown(stage: Stage, query: str) -> list[str]:
    page = await stage.see(f"/?{query}")
    return [link.removeprefix("/watches/") for link in page.links if link.startswith("/watches/")]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("q=SHO", ["shop"]),
        ("state=ok", ["mail"]),
        ("state=failing", ["shop"]),
        ("label=team%3Dpost", ["mail"]),
        ("label=team", ["shop", "mail"]),
        ("q=mail&state=failing", []),
        ("q=&state=&label=", ["shop", "mail"]),
        ("state=nonsense", []),
    ],
)
async def test_the_address_filters_the_watches(query: str, names: list[str]) -> None:
    """So that it works without a script, and can be sent to somebody."""
    views = Views(alerts=[])

    assert await watches_shown(Stage(views=views), query) == names


async def test_a_filter_finds_watches_that_had_no_room_on_the_overview() -> None:
    stage = Stage(views=Views(alerts=[]))
    stage.views.watches = [watch_view(f"w{number}") for number in range(3)]
    whole = list(stage.views.watches)

    async def overview() -> dict[str, object]:
        return {
            "status": stage.views.status,
            "watches": whole[:1],
            "more_watches": 2,
            "alerts": [],
            "more_alerts": 0,
        }

    stage.ports.overview = overview  # type: ignore[method-assign]  # the port with less room than it has

    assert await watches_shown(stage, "q=w2") == ["w2"]


async def test_a_notice_is_one_of_our_own_sentences() -> None:
    """Whatever an address says, the page does not say it."""
    stage = Stage()

    assert "Acknowledged." in (await stage.see("/?done=acked")).text
    assert "sent again: 3." in (await stage.see("/outbox?done=retried_all&n=3")).text
    assert "sent again: ?." in (await stage.see("/outbox?done=retried_all&n=<b>")).text
    assert "evil" not in (await stage.see("/?done=evil&n=evil")).text


async def test_the_page_of_a_run_shows_each_call_with_what_it_cost() -> None:
    page = await Stage().see("/runs/run_1")

    for said in ("sonnet", "s1.1", "2 tries", "$0.0040", "the pool is exhausted", "decides: replan"):
        assert said in page.text
    assert "#e-s1.1" in page.links
    assert "e-s1.1" in page.ids


async def test_of_a_run_without_any_call_the_record_is_not_said_to_be_gone() -> None:
    """Its lines stand right beneath."""
    views = Views()
    views.run_page = {**views.run_page, "lanes": []}
    said = "Its record is not kept any more."

    assert "It asked no model and used no tool." in (await Stage(views=views).see("/runs/run_1")).text
    views.record = []
    assert said in (await Stage(views=views).see("/runs/run_1")).text


async def test_a_webhook_that_takes_nothing_is_not_shown_as_well() -> None:
    """Green beside a receiver that refuses for an hour would be believed."""
    page = await Stage().see("/outbox")

    assert "failing since 2" in " ".join(page.text.split())
    assert "enabled" not in page.text


async def test_a_sentence_shows_code_as_code_and_moments_as_moments() -> None:
    """What to type stands out, and a moment is told in the zone of who reads."""
    views = Views()
    views.status["trouble"] = ["webhook ops fails since 2026-01-05T10:00:00.000Z; mend it, then `agentd <b>`"]
    pause = {"by": "root", "at": "2026-01-05T10:00:00.000Z", "until": "2026-01-05T11:00:00.000Z", "reason": "`x`"}
    views.watches = [watch_view(paused=True, pause=pause)]
    page = await Stage(views=views).see("/")

    sound(page)
    assert "<code>agentd &lt;b&gt;</code>" in page.html
    assert 'since <time datetime="2026-01-05T10:00:00.000Z"' in page.html
    assert 'paused by root until <time datetime="2026-01-05T11:00:00.000Z"' in page.html
    assert '<a href="/outbox">Outbox →</a>' in page.html


@pytest.mark.parametrize(("rule", "said"), [(None, "No values."), ("errors", "Lines of logs are shown")])
async def test_only_of_a_log_there_are_lines_that_are_not_shown(rule: str | None, said: str) -> None:
    """Who signs in to read the lines of a web page finds none."""
    views = Views()
    views.evidence = []
    views.alerts[0] |= {"rule": rule, "values": {}, "failed": []}

    assert said in (await Stage(NEAR, views).see(f"/alerts/{FINGERPRINT}")).text


async def test_what_a_finding_cost_is_said_in_words() -> None:
    """A price is read at a glance, and leads to the run."""
    views = Views()
    views.alerts[0]["cost"] = {"usd": 0.047655, "tokens": 13389, "model_calls": 1, "models": ["x"], "run": "run_1"}
    page = await Stage(views=views).see(f"/alerts/{FINGERPRINT}")

    assert "$0.0477 · 13\N{NARROW NO-BREAK SPACE}389 tokens · 1 call · run" in " ".join(
        part for part in page.text.split(" ")
    ).replace("\n", " ")


async def test_the_page_of_deeds_says_why_in_words() -> None:
    """Raw JSON is for machines; what is none of it stands as it is."""
    views = Views()
    deed = views.deeds[0]
    details = ('{"models": {"big": {"max_tokens": 5}}}', "{not json", "until 2026-01-05T11:00:00.000Z")
    views.deeds = [deed | {"id": str(number), "detail": detail} for number, detail in enumerate(details)]
    page = await Stage(views=views).see("/audit")

    assert "models.big.max_tokens: 5" in page.text
    assert "{not json" in page.text
    assert 'until <time datetime="2026-01-05T11:00:00.000Z"' in page.html
    assert "/audit" in page.links


async def test_an_unusual_address_is_not_kept() -> None:
    """Addresses are endless; what is kept of them must not be."""
    stage = Stage()
    for _ in range(2):
        await stage.see(f"/?q={'x' * 2000}")

    assert stage.ports.overviews == 2


async def test_many_browsers_cost_one_page_a_second() -> None:
    stage = Stage()
    for _ in range(20):
        await stage.see("/")

    assert stage.ports.overviews == 1


async def test_what_is_kept_is_nobodys_own() -> None:
    """The token of one session on the page of another would let it act in the other's name."""
    stage = Stage()
    mine = await stage.see("/")
    stage.caller = Caller("bob<b>", "operate", "session", csrf="another")
    other = await stage.see("/")

    assert stage.ports.overviews == 1
    assert CSRF in mine.html
    assert CSRF not in other.html
    assert {fields["csrf"] for _, fields in other.posts} == {"another"}
    assert "bob<b>" in other.text


async def test_hostile_text_cannot_stand_for_a_token() -> None:
    views = poisoned_views(HOSTILE + "csrf-" + "0" * 32)

    assert (await Stage(views=views).see("/")).html.count(CSRF) == len((await Stage(views=views).see("/")).posts)


async def test_only_what_answers_is_called_up_or_down() -> None:
    """A log that holds errors is not down."""
    rows = [
        watch_view("shop", verdict="ok"),
        watch_view("syslog", kind="log", verdict="failing", strip=[None] * 90, latency_ms=None),
    ]

    page = await Stage(views=Views(alerts=[], watches=rows)).see("/")

    assert "up" in page.html.split('data-key="watch-shop"')[1].split("</td>")[0]
    log = page.html.split('data-key="watch-syslog"')[1].split("</tr>")[0]
    assert "failing" in log.split("</td>")[0]
    assert "<path" not in log


def test_the_template_engine_is_loaded_with_the_first_page() -> None:
    """A daemon that nobody looks at does not carry it."""
    code = "import sys, agentd.api.web.pages; sys.exit(any(name in sys.modules for name in ('jinja2', 'markupsafe')))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
