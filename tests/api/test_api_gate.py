"""Who is let in over TCP: keys, sessions of the page, strangers; a real server, a service that is a fake."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response
from test_api import Fake

from agentd.api.door import Door
from agentd.api.endpoint import Call, Endpoint
from agentd.api.parts import Parts
from agentd.api.server import make_servers, open_socket
from agentd.api.service import Conflict, NotFound, TooMany
from agentd.api.sessions import COOKIE, IDLE_S, LIFE_S, MOST_OF_KEY, Sessions, cookies_in
from agentd.config.key_hash import make_key
from agentd.config.service import ApiSettings
from agentd.errors import AgentdError, ConfigError

KEYS = {scope: make_key(scope) for scope in ("read", "operate", "admin")}
SCOPES = list(KEYS)


def settings(**more: Any) -> ApiSettings:
    keys = [{"name": scope, "hash": hashed, "scope": scope} for scope, (_, hashed) in KEYS.items()]
    plenty = {"requests_per_minute": 6000, "burst_size": 1000}
    return ApiSettings.model_validate({"keys": keys, "rate_limiting": plenty, **more})


class Form(BaseModel):
    what: str = ""


async def _form(call: Call) -> Response:
    return PlainTextResponse(f"{call.by} said {call.asked.what}")


async def _told(call: Call) -> Response:
    return PlainTextResponse(call.by)


@dataclass
class Place:
    service: Fake
    door: Door
    http: httpx.AsyncClient
    port: int

    def bearer(self, scope: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {KEYS[scope][0]}"}

    async def sign_in(self, scope: str) -> tuple[dict[str, str], str]:
        """The headers of a browser that has, and the token of its forms."""
        opened = await self.door.sessions.open(KEYS[scope][0])
        assert opened is not None
        cookie, caller = opened
        return {"Cookie": f"{COOKIE}={cookie}"}, caller.csrf


@contextlib.asynccontextmanager
async def placed(
    host: str = "127.0.0.1", pages: Any = None, feed: Any = None, metering: Any = None, **more: Any
) -> AsyncIterator[Place]:
    service = Fake()
    door = Door(settings(**more), names={"localhost", "127.0.0.1"}, own_uid=os.geteuid())
    listener = open_socket(f"{host}:0")
    port = listener.getsockname()[1]
    form = Endpoint("POST", "/form", _form, "operate", form=Form, documented=False)
    ask, own = (Endpoint("POST", f"/{access}", _told, access, documented=False) for access in ("read", "own"))
    (server,) = make_servers(
        Parts(service, keys=door.listing, more=[form, ask, own], pages=pages, feed=feed, metering=metering),
        [listener],
        door,
    )
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as http:
            yield Place(service, door, http, port)
    finally:
        await server.stop()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with placed() as found:
        yield found


@pytest.mark.parametrize(
    ("method", "path", "least"),
    [
        ("GET", "/api/v1/status", "read"),
        ("POST", "/api/v1/watches/shop/pause", "operate"),
        ("POST", "/api/v1/webhooks/ops/test", "operate"),
        ("POST", "/api/v1/reload", "admin"),
    ],
)
async def test_a_key_may_what_its_scope_says(place: Place, method: str, path: str, least: str) -> None:
    """And what is less; what is more is refused with the scope that is needed, and nothing is done."""
    for scope in SCOPES:
        place.service.asked.clear()
        answer = await place.http.request(method, path, headers=place.bearer(scope))
        may = SCOPES.index(scope) >= SCOPES.index(least)

        assert answer.status_code == (200 if may else 403), scope
        assert bool(place.service.asked) == may
        if not may:
            assert f"this asks for {least}" in answer.json()["detail"]


@pytest.mark.parametrize(
    "shown",
    [
        "Bearer",
        "Bearer x",
        "Bearer {key}x",
        "Basic {key}",
        "{key}",
        "Bearer agentd_nobody.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "Bearer " + "x" * 10_000,
    ],
)
async def test_a_wrong_key_is_told_so_even_where_none_is_needed(place: Place, shown: str) -> None:
    """Taken for no key at all it would seem to work, until the first thing that needs it."""
    answer = await place.http.get("/api/v1/status", headers={"Authorization": shown.format(key=KEYS["read"][0])})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert place.service.asked == []


async def test_two_keys_at_once_are_none(place: Place) -> None:
    """A proxy that adds a header beside the caller's own: which one counts must not be a guess."""
    headers = [("Authorization", f"Bearer {KEYS[scope][0]}") for scope in ("read", "admin")]

    assert (await place.http.post("/api/v1/reload", headers=headers)).status_code == 401


async def test_the_audit_trail_names_the_key(place: Place) -> None:
    """Whatever the body says: who knows a key of one name must not act under another."""
    await place.http.post("/api/v1/watches/shop/resume", headers=place.bearer("operate"), json={"by": "root"})

    assert place.service.asked == [("resume", "shop", "key operate")]


async def test_it_is_known_when_a_key_was_last_used(place: Place) -> None:
    """One that nobody has used for a year may go; the list shows nothing that lets anybody in."""
    await place.http.get("/api/v1/status", headers=place.bearer("operate"))

    answer = await place.http.get("/api/v1/keys", headers=place.bearer("admin"))

    used = {row["name"]: row["last_used_at"] for row in answer.json()["keys"]}
    assert (used["read"], bool(used["operate"]), bool(used["admin"])) == (None, True, True)
    assert "scrypt" not in answer.text
    assert (await place.http.get("/api/v1/keys", headers=place.bearer("operate"))).status_code == 403


async def test_a_key_has_a_rate() -> None:
    """One program that runs wild must not keep the others out, and hears when it may come again."""
    async with placed(rate_limiting={"requests_per_minute": 60, "burst_size": 3}) as place:
        answers = [await place.http.get("/api/v1/status", headers=place.bearer("read")) for _ in range(4)]
        other = await place.http.get("/api/v1/status", headers=place.bearer("admin"))

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].headers["retry-after"] == "1"
    assert answers[-1].headers["content-type"] == "application/problem+json"
    assert other.status_code == 200


async def test_a_key_may_have_a_rate_of_its_own() -> None:
    token, hashed = make_key("fast")
    keys = [{"name": "fast", "hash": hashed, "rate_limiting": {"requests_per_minute": 6000, "burst_size": 50}}]
    async with placed(keys=keys, rate_limiting={"requests_per_minute": 1, "burst_size": 1}) as place:
        headers = {"Authorization": f"Bearer {token}"}
        answers = await asyncio.gather(*(place.http.get("/api/v1/status", headers=headers) for _ in range(50)))

    assert {answer.status_code for answer in answers} == {200}


async def test_a_key_that_a_reload_takes_away_is_worth_nothing(place: Place) -> None:
    """Also the sessions that were opened with it: that is what a key is revoked for."""
    signed_in, _ = await place.sign_in("operate")
    assert (await place.http.get("/api/v1/tasks/x", headers=signed_in)).status_code == 404
    place.door.go_over_to(settings(keys=[]))

    assert (await place.http.get("/api/v1/status", headers=place.bearer("operate"))).status_code == 401
    assert (await place.http.post("/api/v1/reload", headers=signed_in)).status_code == 401


@pytest.mark.parametrize(
    ("more", "readers", "strangers"),
    [
        ({}, ["localhost", "127.0.0.1:80"], ["page.example"]),
        ({"hosts": ["Named.example"]}, ["localhost", "named.example:443"], []),
        ({"public_url": "http://127.0.0.1:8787/"}, ["localhost", "127.0.0.1"], ["page.example"]),
        ({"public_url": "http://agentd.localhost/"}, ["localhost"], []),
        ({"public_url": "https://page.example:8443/"}, [], ["page.example:8443", "localhost", "127.0.0.1"]),
        (
            {"public_url": "https://page.example", "hosts": ["asked.example"]},
            ["asked.example"],
            ["page.example", "127.0.0.1"],
        ),
    ],
)
async def test_where_a_proxy_shows_the_page_only_names_given_for_it_read_without_a_key(
    more: dict[str, Any], readers: list[str], strangers: list[str]
) -> None:
    """nginx as it comes gives the Host of its upstream for everybody on the internet, and no sign of itself."""
    async with placed(**more) as place:

        async def asked(host: str) -> int:
            return (await place.http.get("/api/v1/status", headers={"Host": host})).status_code

        assert {host: await asked(host) for host in readers} == dict.fromkeys(readers, 200)
        refused = {host: await asked(host) for host in strangers}
        assert set(refused.values()) <= {401, 421}
        assert await asked("other.example") == 421


async def test_a_stranger_under_our_own_name_is_asked_for_a_key() -> None:
    """Told that this is not our name, whoever comes by the proxy would not know that a key helps."""
    async with placed(public_url="https://page.example/") as place:
        for host in ("page.example", "localhost"):
            assert (await place.http.get("/api/v1/status", headers={"Host": host})).status_code == 401


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Real-IP", "Via", "CF-Ray"]
)
async def test_who_comes_through_a_proxy_is_not_on_loopback(header: str) -> None:
    """The proxy is; behind it is everybody whom it lets through, and they would read all that is watched."""
    through = {"Host": "localhost", header: "192.0.2.7"}
    async with placed(hosts=["asked.example"]) as place:
        stranger = await place.http.get("/api/v1/status", headers=through)
        known = await place.http.get("/api/v1/status", headers=through | place.bearer("read"))
        health = await place.http.get("/health", headers=through)
        asked = await place.http.get("/api/v1/status", headers=through | {"Host": "asked.example"})

    assert (stranger.status_code, known.status_code, health.status_code) == (401, 200, 200)
    assert asked.status_code == 200, "the operator's word that the proxy asks people who they are"


async def test_whoever_knows_a_key_may_call_us_by_any_name(place: Place) -> None:
    """A page elsewhere cannot know one; a proxy may well pass on another name."""
    headers = {**place.bearer("read"), "Host": "other.example"}

    assert (await place.http.get("/api/v1/status", headers=headers)).status_code == 200


async def test_a_session_reads_and_acts_as_its_key(place: Place) -> None:
    signed_in, csrf = await place.sign_in("operate")

    acted = await place.http.post("/form", data={"what": "hello", "csrf": csrf}, headers=signed_in)
    over_json = await place.http.post("/api/v1/watches/shop/check", headers={**signed_in, "X-CSRF-Token": csrf})
    too_much = await place.http.post("/api/v1/reload", headers={**signed_in, "X-CSRF-Token": csrf})

    assert (acted.status_code, acted.text) == (200, "key operate said hello")
    assert (over_json.status_code, too_much.status_code) == (200, 403)
    assert place.service.asked == [("check", "shop")]


@pytest.mark.parametrize("token", ["", "x", "ü"])
async def test_a_form_without_its_token_does_nothing(place: Place, token: str) -> None:
    """A page elsewhere can make the browser send the cookie, but cannot read our forms."""
    signed_in, _ = await place.sign_in("admin")

    form = await place.http.post("/form", data={"csrf": token}, headers=signed_in)
    over_json = await place.http.post("/api/v1/reload", headers=signed_in)

    assert (form.status_code, over_json.status_code) == (403, 403)
    assert place.service.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Origin": "http://status.example"},
        {"Origin": "https://status.example", "Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_a_form_of_another_origin_does_nothing(place: Place, headers: dict[str, str]) -> None:
    """Even with the token: the browser itself says where the form came from."""
    place.door.go_over_to(settings(cors={"allowed_origins": ["https://status.example"]}))
    signed_in, csrf = await place.sign_in("admin")

    answer = await place.http.post("/form", data={"csrf": csrf}, headers={**signed_in, **headers})

    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://localhost:8787", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://localhost:8787"}, 200),
        ({"Origin": "https://status.example", "Sec-Fetch-Site": "cross-site"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost:9999"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://["}, 403),
    ],
)
async def test_a_page_of_another_origin_has_no_work_done(headers: dict[str, str], status: int) -> None:
    """What needs no key on loopback any page of the web could ask for, with the body of a form; curl says nothing."""
    async with placed(cors={"allowed_origins": ["https://status.example"]}) as place:
        sent = {"Host": "localhost:8787", "Content-Type": "application/x-www-form-urlencoded", **headers}
        near = await place.http.post("/read", headers=sent, content=b"{}")
        known = await place.http.post("/read", headers=sent | place.bearer("read"), content=b"{}")
        own = await place.http.post("/own", headers=sent)

    assert (near.status_code, known.status_code) == (status, status)
    assert own.status_code == 200, "hooks and heartbeats bring a secret of their own"


@pytest.mark.parametrize(
    ("public_url", "origin", "host", "status"),
    [
        ("https://page.example/", "https://page.example", "page.example", 200),
        ("https://page.example/", "https://page.example", "page.example:443", 200),
        ("https://page.example:443/", "https://page.example", "page.example", 200),
        ("https://page.example/", "http://page.example", "page.example", 403),
        ("https://page.example:8443/", "https://page.example:8443", "page.example:8443", 200),
        ("https://page.example/", "https://other.example", "other.example", 200),
    ],
)
async def test_the_scheme_of_an_origin_counts_where_it_is_known(
    public_url: str, origin: str, host: str, status: int
) -> None:
    """Who sits between a browser and us can make pages by http of every name; a proxy may speak TLS for us."""
    async with placed(public_url=public_url) as place:
        signed_in, csrf = await place.sign_in("admin")
        sent = {**signed_in, "Host": host, "Origin": origin}
        assert (await place.http.post("/form", data={"csrf": csrf}, headers=sent)).status_code == status


@pytest.mark.parametrize("cookie", ["x", "", "a" * 5000, '"', "=;=;"])
async def test_a_cookie_that_is_none_of_ours_is_nobody(place: Place, cookie: str) -> None:
    headers = {"Cookie": f"{COOKIE}={cookie}"}

    assert (await place.http.get("/api/v1/status", headers=headers)).status_code == 200
    assert (await place.http.post("/api/v1/reload", headers=headers)).status_code == 401


@pytest.mark.parametrize("other", ["theme=dark", 'prefs={"x":1}', "a b=c", "x=\xfc", "[k]=v", f"{COOKIE}=short", "="])
async def test_cookies_of_other_programs_do_not_undo_a_session(place: Place, other: str) -> None:
    """Cookies know no ports: whatever runs on this host beside us is heard here too."""
    signed_in, _ = await place.sign_in("operate")
    stranger = f"{COOKIE}={'A' * 43}"
    both = {"Cookie": f"{other}; {stranger};{signed_in['Cookie']}; {other}".encode("latin-1")}

    assert (await place.http.get("/api/v1/tasks/x", headers=both)).status_code == 404  # type: ignore[arg-type]


def test_a_cookie_costs_no_more_than_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's reader takes quoted text apart in quadratic time: one request would stop the loop for seconds."""

    def parsed(*_: Any) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr("http.cookies.SimpleCookie.load", parsed)
    monkeypatch.setattr("starlette.requests.cookie_parser", parsed)
    quoted = b'x="' + b"\\101" * 7000 + b'"'
    known = f"{COOKIE}={'b' * 43}".encode()

    assert cookies_in([(b"cookie", quoted + b"; " + known)]) == ["b" * 43]
    assert cookies_in([(b"cookie", (known + b";") * 500)]) == ["b" * 43] * 8
    assert cookies_in([(b"cookie", f'{COOKIE}="{"b" * 43}"'.encode()), (b"x-cookie", known)]) == []


async def test_a_session_ends_by_itself() -> None:
    """A browser that was left open on Friday is nobody on Monday."""
    now_s = 0.0
    sessions = Sessions(Door(settings(), names=(), own_uid=0).keys, lambda: now_s)
    opened = await sessions.open(KEYS["read"][0])
    assert opened is not None
    now_s = IDLE_S
    assert await sessions.caller(opened[0]) is not None, "it was used just in time"
    now_s = 2 * IDLE_S + 1
    assert await sessions.caller(opened[0]) is None

    assert await sessions.open("agentd_read.wrong") is None


async def test_a_session_ends_after_a_week_however_much_it_is_used() -> None:
    """A page that stands open on a wall would keep a cookie good for ever."""
    now_s = 0.0
    sessions = Sessions(Door(settings(), names=(), own_uid=0).keys, lambda: now_s)
    opened = await sessions.open(KEYS["read"][0])
    assert opened is not None
    while now_s < LIFE_S:
        now_s += IDLE_S
        assert await sessions.caller(opened[0]) is not None
    now_s += 1

    assert await sessions.caller(opened[0]) is None


def test_cookies_are_for_https_alone_where_the_page_is_shown_by_it() -> None:
    """From the next reload on, not from the next start."""
    door = Door(settings(), names=(), own_uid=0)
    assert not door.sessions.secure
    door.go_over_to(settings(public_url="https://page.example/"))

    assert door.sessions.secure


async def test_logins_with_one_key_end_no_sessions_but_its_own() -> None:
    """Somebody with a key to read could throw everybody out otherwise, and keep them out."""
    sessions = Sessions(Door(settings(), names=(), own_uid=0).keys)
    admin = await sessions.open(KEYS["admin"][0])
    cookies = [await sessions.open(KEYS["read"][0]) for _ in range(MOST_OF_KEY + 1)]

    known = [each is not None and await sessions.caller(each[0]) is not None for each in (admin, *cookies)]

    assert known == [True, False, *[True] * MOST_OF_KEY], "the oldest goes first"


async def test_a_session_has_a_rate_and_so_has_signing_in() -> None:
    """A key's rate would otherwise end with a login; a page is many calls, so its sessions have a wider one."""
    rate = {"requests_per_minute": 1, "burst_size": 3}
    async with placed(rate_limiting=rate) as place:
        signed_in, _ = await place.sign_in("read")
        statuses = [(await place.http.get("/api/v1/status", headers=signed_in)).status_code for _ in range(70)]
        other, _ = await place.sign_in("admin")
        at_once = (await place.http.get("/api/v1/status", headers=other)).status_code
        for _ in range(2):
            await place.sign_in("admin")
        with pytest.raises(TooMany):
            await place.sign_in("admin")

    assert statuses[:60] == [200] * 60
    assert statuses[-1] == 429
    assert at_once == 200


async def test_a_session_ends_when_its_key_is_rotated_in_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reload tells of it; and who has the old key must not stay with us for months."""
    monkeypatch.setattr("agentd.api.keys._LOOK_AGAIN_S", 0.0)
    (before, old), (after, new) = make_key("ops"), make_key("ops")
    (tmp_path / "hash").write_text(old)
    keys = [{"name": "ops", "scope": "operate", "hash": f"${{file:{tmp_path}/hash}}"}]
    sessions = Door(settings(keys=keys), names=(), own_uid=0).sessions
    opened = await sessions.open(before)
    assert opened is not None
    assert await sessions.caller(opened[0]) is not None

    (tmp_path / "hash").write_text(new)

    assert await sessions.caller(opened[0]) is None
    assert await sessions.open(before) is None
    assert await sessions.open(after) is not None


async def test_pages_of_other_origins_may_not_call_unless_named() -> None:
    """And never with the cookie."""
    origin, asked = {"Origin": "https://status.example"}, {"Access-Control-Request-Method": "GET"}
    async with placed() as place:
        closed = await place.http.get("/api/v1/status", headers=origin)
        place.door.go_over_to(settings(cors={"allowed_origins": ["https://status.example"]}))
        opened = await place.http.get("/api/v1/status", headers=origin)
        preflight = await place.http.options("/api/v1/status", headers={**origin, **asked})
        refused = await place.http.get("/api/v1/status", headers={**origin, "Authorization": "Bearer x"})
        other = await place.http.get("/api/v1/status", headers={"Origin": "https://evil.example"})

    assert "access-control-allow-origin" not in closed.headers
    assert opened.headers["access-control-allow-origin"] == "https://status.example"
    assert preflight.status_code == 200
    assert refused.headers["access-control-allow-origin"] == "https://status.example", "so that it can say why"
    assert "access-control-allow-origin" not in other.headers
    assert "access-control-allow-credentials" not in opened.headers


@pytest.mark.parametrize(("path", "named"), [("/api/v1/status?limit=1", "limit"), ("/api/v1/alerts?al=1", "al")])
async def test_a_parameter_that_there_is_not_is_refused(place: Place, path: str, named: str) -> None:
    """A slip of the pen would otherwise be answered with something else than what was asked."""
    answer = await place.http.get(path)

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{named}: no such parameter")


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "1e3", "x", "", "9" * 50, "\u0661"])
async def test_a_number_is_within_its_bounds(place: Place, limit: str) -> None:
    answer = await place.http.get("/api/v1/outbox", params={"limit": limit})

    assert answer.status_code == 422
    assert answer.json()["detail"] == "limit: write a whole number from 1 to 1000"


async def test_what_curl_sends_by_itself_is_taken_as_json(place: Place) -> None:
    """`curl -d` calls every body a form; whoever writes `{` means JSON."""
    headers = {**place.bearer("operate"), "Content-Type": "application/x-www-form-urlencoded"}
    json_body = await place.http.post("/api/v1/watches/shop/pause", headers=headers, content=b'{"for_s": 5}')
    form = await place.http.post("/api/v1/watches/shop/pause", headers=headers, content=b"for_s=5")

    assert (json_body.status_code, form.status_code) == (200, 415)


async def test_a_method_that_there_is_not_says_which_there_are(place: Place) -> None:
    answer = await place.http.delete("/api/v1/silences")

    assert answer.status_code == 405
    assert {each.strip() for each in answer.headers["allow"].split(",")} == {"GET", "HEAD", "POST"}
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/api/v1/status/", "/form/", "/x/"])
async def test_a_slash_too_many_leads_nowhere(place: Place, path: str) -> None:
    """A redirect would be made of the caller's own Host: a link of ours to anywhere."""
    answer = await place.http.get(path, headers=place.bearer("read") | {"Host": "evil.example"})

    assert answer.status_code == 404
    assert "location" not in answer.headers


class Meter:
    def __init__(self) -> None:
        self.statuses: list[int] = []

    def request_begun(self) -> None:
        pass

    def request_done(self, route: str, method: str, status: int, duration_s: float) -> None:
        self.statuses.append(status)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("x"), 404),
        (Conflict("x"), 409),
        (TooMany("x", retry_after_s=1), 429),
        (ConfigError("x"), 422),
        (AgentdError("x"), 500),
    ],
)
async def test_what_is_refused_is_counted_as_it_is_answered(error: Exception, status: int) -> None:
    """Counted as our own failures, a caller's mistakes would wake somebody at night."""
    meter = Meter()
    async with placed(metering=meter) as place:
        place.service.fails = error
        answer = await place.http.get("/api/v1/status")

    assert ([answer.status_code], meter.statuses) == ([status], [status])


async def test_the_document_says_what_the_routes_check(place: Place) -> None:
    """It is what others make their clients from."""
    document = (await place.http.get("/api/v1/openapi.json")).json()

    pause = document["paths"]["/api/v1/watches/{name}/pause"]["post"]
    assert document["openapi"] == "3.1.0"
    assert pause["security"] == [{"key": []}]
    assert set(pause["responses"]) >= {"200", "401", "403", "404", "422", "429"}
    body = pause["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert document["components"]["schemas"][body]["properties"]["for_s"]["anyOf"][0]["exclusiveMinimum"] == 0
    assert "/form" not in document["paths"]
    ids = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))


def test_loopback_is_told_by_both_ends() -> None:
    """A request that came by another address is nobody's, whatever name it gives."""
    from agentd.api.gate import Gate

    door = Door(settings(), names={"localhost"}, own_uid=0)
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["agentd.caller"].near)

    async def told() -> None:
        for server, client in (("127.0.0.1", "127.0.0.1"), ("10.0.0.1", "127.0.0.1"), ("127.0.0.1", "10.0.0.9")):
            scope = {
                "type": "http",
                "path": "/",
                "headers": [(b"host", b"localhost")],
                "server": (server, 1),
                "client": (client, 2),
            }
            await Gate(app, door, local=False)(scope, None, None)  # type: ignore[arg-type]
        await Gate(app, door, local=False)({**scope, "server": None, "client": None}, None, None)  # type: ignore[arg-type]

    asyncio.run(told())
    assert seen == [True, False, False, False]
