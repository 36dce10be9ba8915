"""What everybody may see: the status page, badges, files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pagestage import NEAR, Stage

import agentd.api.web
from agentd.api.caller import NOBODY
from agentd.api.web import badges
from agentd.api.web.badges import badge, state_badge, text_width, uptime_badge

HERE = Path(agentd.api.web.__file__).parent


async def test_the_status_page_is_for_everybody() -> None:
    page = await Stage(NOBODY).see("/status")

    assert "Some systems are down" in page.text
    assert "99.12 %" in page.text
    assert "1.2.3" not in page.text  # the version is nobody's business


async def test_who_is_near_sees_no_more_on_it_than_everybody() -> None:
    """What is shown to visitors is looked at on the machine first."""
    page = await Stage(NEAR).see("/status")

    assert "1.2.3" not in page.text
    assert "Sign in" not in page.text


async def test_a_pause_of_everything_is_said() -> None:
    """Planned work is not a riddle."""
    stage = Stage(NOBODY)
    stage.views.public["state"] = stage.views.public["watches"][0]["state"] = "paused"

    assert "Paused" in (await stage.see("/status")).text
    assert "paused" in (await stage.get("/badges/shop.svg")).text


async def test_a_public_watch_has_badges_that_others_may_show_and_keep() -> None:
    answer = await Stage(NOBODY).get("/badges/shop.svg")

    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["cache-control"] == "public, max-age=60"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "down" in answer.text


async def test_a_badge_of_uptime_is_of_the_span_that_is_asked_for() -> None:
    stage = Stage(NOBODY)

    assert "99.12%" in (await stage.get("/badges/shop/uptime.svg")).text
    assert "100%" in (await stage.get("/badges/shop/uptime.svg?span=24h")).text
    assert "unknown" in (await stage.get("/badges/shop/uptime.svg?span=7d")).text
    assert (await stage.get("/badges/shop/uptime.svg?span=99y")).status_code == 422


async def test_a_watch_that_is_not_public_has_no_badge() -> None:
    """Nor is it told whether there is one of that name."""
    stage = Stage(NOBODY)

    private, missing = await stage.get("/badges/mail.svg"), await stage.get("/badges/nothing.svg")

    assert private.status_code == missing.status_code == 404
    assert private.text.replace("mail", "") == missing.text.replace("nothing", "")


def parts(svg: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)  # our own
    return [each for each in root.iter() if each.tag.endswith("}text")]


@pytest.mark.parametrize("label", ["shop", "a" * 63, "<script>&\"'", "ünïcödé ⚠", "\u202etxt", ""])
def test_a_badge_is_an_image_whose_texts_fit(label: str) -> None:
    """Other fonts are narrower or wider: `textLength` holds them to the room that was made."""
    svg = badge(label, "up", badges.GREEN)

    width = int(ElementTree.fromstring(svg).attrib["width"])  # our own
    texts = parts(svg)
    assert all(int(each.attrib["x"]) + int(each.attrib["textLength"]) < width for each in texts)
    assert texts[-1].text == "up"


def test_a_wider_text_gets_more_room() -> None:
    assert text_width("WWWW") > 2 * text_width("iiii")
    assert text_width("shop") == 27


@pytest.mark.parametrize(
    ("share", "word", "colour"),
    [
        (1.0, "100%", badges.GREEN),
        (0.999999, "99.99%", badges.GREEN),
        (0.99, "99.00%", badges.GREEN),
        (0.97, "97.00%", badges.YELLOW),
        (0.5, "50.00%", badges.RED),
        (None, "unknown", badges.GREY),
    ],
)
def test_what_was_not_always_up_is_never_a_hundred(share: float | None, word: str, colour: str) -> None:
    svg = uptime_badge("30d", share)

    assert parts(svg)[-1].text == word
    assert colour in svg


def test_a_state_that_nobody_knows_is_unknown() -> None:
    assert parts(state_badge("shop", "whatever"))[-1].text == "unknown"
    assert parts(state_badge("shop", "failing"))[-1].text == "down"


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [badges.GREEN, badges.YELLOW, badges.RED, badges.VIOLET, badges.GREY])
def test_white_can_be_read_on_every_colour(colour: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5."""
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def schemes() -> list[dict[str, str]]:
    """The colours of the page, light and dark."""
    css = (HERE / "static" / "style.css").read_text()
    blocks = [part.split("}")[0] for part in css.split(":root {")[1:3]]
    light, dark = (
        {name.strip(): value.strip() for name, _, value in (each.partition(":") for each in block.split(";"))}
        for block in blocks
    )
    return [light, {**light, **dark}]


def whole(colour: str) -> str:
    return colour if len(colour) == 7 else "#" + "".join(each * 2 for each in colour[1:])


@pytest.mark.parametrize("scheme", schemes(), ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "behind"),
    [
        (text, behind)
        for text in ("text", "muted", "accent", "ok", "bad", "warn", "blind")
        for behind in ("back", "surface")
    ]
    + [(text, f"{text}-back") for text in ("ok", "bad", "warn", "blind", "accent")]
    + [("text", "raised"), ("muted", "raised"), ("accent", "raised"), ("text", "warn-back")],
)
def test_every_text_can_be_read(scheme: dict[str, str], text: str, behind: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5."""
    one, other = (luminance(whole(scheme[f"--{name}"])) for name in (text, behind))

    assert (max(one, other) + 0.05) / (min(one, other) + 0.05) >= 4.5


@pytest.mark.parametrize(
    ("name", "media"),
    [("style.css", "text/css"), ("app.js", "text/javascript"), ("icon.svg", "image/svg+xml")],
)
async def test_files_are_kept_by_browsers_as_long_as_they_are_the_same(name: str, media: str) -> None:
    stage = Stage(NEAR)
    html = (await stage.see("/")).html
    address = next(part for part in html.split('"') if part.startswith(f"/static/{name}?v="))

    answer = await stage.get(address)

    assert answer.headers["content-type"].startswith(media)
    assert "immutable" in answer.headers["cache-control"]
    assert "immutable" not in (await stage.get(f"/static/{name}?v=other")).headers["cache-control"]


@pytest.mark.parametrize("name", ["nothing.css", "..%2Fpages.py", "%2e%2e%2ftemplates%2fbase.html"])
async def test_no_other_file_is_given_out(name: str) -> None:
    assert (await Stage(NEAR).get(f"/static/{name}")).status_code == 404


async def test_search_engines_are_sent_away() -> None:
    assert "Disallow: /" in (await Stage(NOBODY).get("/robots.txt")).text


def test_pages_and_script_name_nothing_that_lies_elsewhere() -> None:
    """No request may leave the host."""
    for file in [*(HERE / "templates").iterdir(), HERE / "static" / "app.js", HERE / "static" / "style.css"]:
        assert "//" not in file.read_text().replace("// ", ""), file.name
    assert "innerHTML" not in (HERE / "static" / "app.js").read_text()


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to read the script")
def test_the_script_can_be_read() -> None:
    subprocess.run(["node", "--check", HERE / "static" / "app.js"], check=True)
