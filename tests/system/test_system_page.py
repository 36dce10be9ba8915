"""
The page in a real browser: what an operator does in an incident, and how every page looks, reads and is operated.

Whatever is done, nothing is asked of another host and the console stays silent: a breach of the Content Security
Policy, a script that fails, an address that is wrong would be heard there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from agents import configure, finish, model
from anyio.from_thread import BlockingPortal, start_blocking_portal
from around import Target
from browser import Browser, browser, needs_browser
from loopback import free_port
from modelserver import ModelServer, call, calls
from scene import MODEL_KEY, SECRET, Scene, scene
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from stage import Stage

pytestmark = [needs_browser, pytest.mark.slow]

_OPERABLE = """
return [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
  .filter((each) => each.type !== "hidden" && each.checkVisibility() && !each.disabled)
"""


@contextmanager
def quiet(page: Browser, *expected: str) -> Iterator[None]:
    """expected: what the console may say, by what it contains."""
    page.listen()
    page.complaints.clear()
    page.requested.clear()
    yield
    assert page.strangers() == set()
    assert page.requested
    assert [each for each in page.complaints if not any(word in each for word in expected)] == []


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    """A loop on a thread of its own, for what lives around the browser."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def shop(portal: BlockingPortal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with portal.wrap_async_context_manager(scene(tmp_path_factory.mktemp("shop"))) as shop:
        yield shop


@pytest.fixture
def known(page: Browser, shop: Scene) -> Browser:
    """The browser, signed in at the scene."""
    page.show(width=1280)
    if page.driver.get_cookie("agentd_session") is None or not page.driver.current_url.startswith(shop.url):
        page.driver.delete_all_cookies()
        sign_in(page, shop.url, shop.key)
    return page


def sign_in(page: Browser, url: str, key: str) -> None:
    page.open(f"{url}/login")
    page.find("input[name=key]").send_keys(key, Keys.ENTER)
    page.until("Signed in.")


def press(page: Browser, text: str, within: str = "main") -> None:
    """The button or summary with that text."""

    def look() -> WebElement | None:
        found = page.driver.find_elements(By.CSS_SELECTOR, f":is({within}) :is(button, summary, a)")
        return next((each for each in found if each.is_displayed() and each.text.strip() == text), None)

    found = page.wait(look, f"{text!r} to press")
    assert found is not None
    found.click()


def source(page: Browser) -> str:
    return str(page.run("return document.documentElement.outerHTML"))


# What an operator does.


def test_an_incident_from_its_beginning_to_its_end(page: Browser, portal: BlockingPortal, tmp_path: Path) -> None:
    """The page is for the worst hour of somebody's month."""
    with (
        portal.wrap_async_context_manager(Stage(tmp_path)) as stage,
        portal.wrap_async_context_manager(ModelServer()) as server,
    ):
        target: Target = portal.call(stage.target)
        chat = portal.call(stage.add_hook, "chat")
        chat.otherwise = 422
        url = f"http://127.0.0.1:{free_port()}"
        server.answers(calls(call("http_get", url=target.url), call("query_history", what="alerts")), finish())
        configure(
            stage,
            server,
            [
                {
                    "name": "shop",
                    "http": {"url": target.url},
                    "expect": ["status == 200"],
                    "fail_after": 2,
                    "recover_after": 1,
                    "investigate": "Find out why the shop is down.",
                    "public": True,
                },
                {"name": "backstage", "host": {"disk": "/"}, "every": "1h", "expect": ["disk.used_percent <= 100"]},
            ],
            api={"listen": [f"unix:{tmp_path}/api.sock", url.removeprefix("http://")]},
            alerting={"notify": ["hook", "chat"]},
            models={"default": model(server, price={"input": 3000, "output": 15000})},
        )
        portal.call(stage.start)
        key = portal.call(stage.cli, "key", "new", "dana", "--scope", "operate").out.strip()
        page.show(width=1280)
        with quiet(page, "/login - "):  # the key that was wrong
            _hears_of_it(page, url, target)
            _signs_in(page, url, key)
            _acts_on_the_alert(page, url)
            _sends_again(page, url, chat)
            _reads_the_run(page, url)
            _pauses_and_checks(page, url, target)
            _sees_it_end(page, url, target)
            _leaves(page, url)


def _hears_of_it(page: Browser, url: str, target: Target) -> None:
    page.open(f"{url}/")
    page.until("nothing is firing or pending")
    page.until("live")
    page.run("window.still = document.querySelector('[data-key=\"watch-shop\"]')")

    target.status = 503

    page.until("1 firing")
    assert "down" in page.find("[data-key=watch-shop].w-failing").text
    page.until("The disk is full.")
    assert page.run("return window.still.isConnected"), "the page was not loaded anew, and the row is the same"
    assert not page.driver.find_elements(By.CSS_SELECTOR, "main form[method=post]"), "nobody has signed in"


def _signs_in(page: Browser, url: str, key: str) -> None:
    page.open(f"{url}/watches/shop?span=1h")
    press(page, "Sign in with a key", ".who")
    page.find("input[name=key]").send_keys("agentd_dana.wrong")
    press(page, "Sign in")
    page.until("not one of this daemon's")
    page.find("input[name=key]").send_keys(key)
    press(page, "Sign in")
    page.until("Signed in.")
    assert page.driver.current_url == f"{url}/watches/shop?span=1h", "back where it was, without the notice's name"
    assert page.run("return document.cookie") == "", "no script can read the session"


def _acts_on_the_alert(page: Browser, url: str) -> None:
    press(page, "Acknowledge")
    page.until("acknowledged by key dana")
    press(page, "Silence …")
    page.find("[data-key=silence-watch] input[name=reason]").send_keys("router swap")
    press(page, "Silence", "[data-key=silence-watch] form")
    page.until("Silenced.")
    page.until("silenced by key dana")

    page.open(f"{url}/alerts")
    page.until("router swap")
    page.until("muted")
    press(page, "End")

    page.until("The silence has ended.")
    page.until("Nothing is silenced.")


def _sends_again(page: Browser, url: str, chat: Any) -> None:
    page.open(f"{url}/outbox")
    page.until("answered 422")
    refused = {each.id for each in chat.requests}
    chat.otherwise = 200
    press(page, "Retry")

    page.until("It will be sent again at once.")
    page.wait(lambda: refused & set(chat.ids), "the receiver takes what it had refused")
    page.open(f"{url}/outbox")
    if "answered 422" in page.text():
        press(page, "Retry all undeliverable")
        page.until("messages that will be sent again: ")
    page.until("0\nnot delivered")


def _reads_the_run(page: Browser, url: str) -> None:
    page.open(f"{url}/runs")
    press(page, "The disk is full.")
    text = page.until("What it found")
    assert "The disk is full." in text
    assert "$" in page.find("#numbers").text
    lanes = page.driver.find_elements(By.CSS_SELECTOR, ".lane:not(.lane-head)")
    kinds = [str(each.get_attribute("class")).split()[1] for each in lanes]
    assert kinds == ["l-model", "l-tool", "l-tool", "l-model"]
    assert "http_get" in lanes[1].text
    widths = [each.size["width"] for each in page.driver.find_elements(By.CSS_SELECTOR, ".lane rect")]
    assert all(width > 0 for width in widths)


def _pauses_and_checks(page: Browser, url: str, target: Target) -> None:
    page.open(f"{url}/watches/shop?span=1h")
    assert page.find(".plot .area :is(.p-mean, .p-dots)").get_attribute("d"), "its latency is drawn"
    press(page, "Pause …")
    page.find("[data-key=pause] input[name=reason]").send_keys("deploy")
    press(page, "Pause", "[data-key=pause] form")
    page.until("Paused.")
    page.until("paused by key dana")
    looked = target.arrived

    press(page, "Resume")
    page.until("Resumed.")
    page.wait(lambda: target.arrived > looked, "it is looked at again")

    page.open(f"{url}/watches/backstage")
    press(page, "Check now")
    page.until("Checked just now.")


def _sees_it_end(page: Browser, url: str, target: Target) -> None:
    page.open(f"{url}/")
    page.until("1 firing")
    assert page.find("[data-key=watch-shop] .b-failing").get_attribute("d"), "the bar of that minute is red"
    page.run("window.still = true")
    target.status = 200
    page.until("nothing is firing or pending")
    assert page.run("return window.still")


def _leaves(page: Browser, url: str) -> None:
    press(page, "Sign out", ".who")
    page.until("Sign in with a key")
    assert page.driver.get_cookie("agentd_session") is None

    page.open(f"{url}/status")
    text = page.until("shop")
    assert "backstage" not in text
    assert "backstage" not in source(page)


# How every page is.


def test_every_page_fits_and_can_be_read_on_any_screen(known: Browser, shop: Scene) -> None:
    """On a telephone at night is where an alert is read."""
    wrong = []
    with quiet(known, "/watches/nobody"):
        for name, path in shop.pages.items():
            known.open(shop.url + path)
            known.find("main")
            known.run("for (const each of document.querySelectorAll('details')) each.open = true")
            for width in (1280, 360):
                for scheme in ("light", "dark"):
                    known.show(width=width, scheme=scheme)
                    if (wider := known.overflow()) > 0:
                        wrong.append(f"{name}, {width} px: {wider} px wider than the screen")
                    wrong += [f"{name}, {scheme}: {each}" for each in known.faint()]
    assert wrong == []


def test_the_measure_of_contrast_sees_what_is_faint(known: Browser, shop: Scene) -> None:
    """A measure that finds nothing anywhere would be no measure."""
    known.open(f"{shop.url}/")
    assert known.faint() == []
    known.run("document.querySelector('.tile .name').style.opacity = '0.3'")

    (found,) = known.faint()

    assert found.endswith("alerts")


def test_no_page_holds_a_secret(known: Browser, shop: Scene) -> None:
    """Whoever may look at the settings may not have the keys in them."""
    secrets = (SECRET, MODEL_KEY, shop.key.partition(".")[2], shop.stage.hook.secret, shop.stage.hook.port)
    with quiet(known, "/watches/nobody"):
        for name, path in shop.pages.items():
            known.open(shop.url + path)
            html = source(known)
            assert not [each for each in secrets if str(each) in html], name
    known.open(f"{shop.url}/settings")
    assert "models.default.api_key" in source(known)
    assert "${env:MODEL_KEY}" in source(known)


def test_all_of_it_can_be_done_from_the_keyboard(known: Browser, shop: Scene) -> None:
    """Not everybody has a mouse, and nobody's hand is on it in a hurry."""
    with quiet(known):
        for name in ("overview", "watch", "alert", "outbox", "run"):
            known.open(shop.url + shop.pages[name])
            known.find("main")
            wanted: list[WebElement] = known.run(_OPERABLE)
            known.press(Keys.TAB)
            skip = known.driver.switch_to.active_element
            assert skip.text == "Skip to the content", name
            assert skip.rect["y"] >= 0, "it is seen when it has the focus"
            reached = {skip.id}
            for _ in range(len(wanted) + 5):
                known.press(Keys.TAB)
                focused = known.driver.switch_to.active_element
                if focused.tag_name == "body" or focused.id == skip.id:
                    break
                reached.add(focused.id)
                assert known.run(
                    "const style = getComputedStyle(arguments[0]);"
                    "return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0",
                    focused,
                ), f"{name}: nobody sees that {focused.text or focused.tag_name!r} has the focus"
            missing = [each for each in wanted if each.id not in reached]
            assert [each.get_attribute("outerHTML") for each in missing] == [], name

        known.open(f"{shop.url}/")
        known.press(Keys.TAB, Keys.ENTER, Keys.TAB)
        assert known.run("return document.getElementById('main').contains(document.activeElement)"), "it was skipped"
        known.find("input[name=q]").send_keys("store", Keys.ENTER)
        known.wait(lambda: "q=store" in known.driver.current_url, "Enter filters")
        assert "storefront" in known.until("Watches")
        assert not known.driver.find_elements(By.CSS_SELECTOR, "[data-key=watch-login]")


def test_what_happens_takes_neither_focus_nor_what_is_typed(
    known: Browser, shop: Scene, portal: BlockingPortal
) -> None:
    """Who writes a reason while things go on failing should not have to begin anew."""
    with quiet(known):
        known.open(f"{shop.url}/watches/app-log")
        known.until("live")
        press(known, "Silence …")
        field = known.find("[data-key=silence-watch] input[name=reason]")
        field.send_keys("half a rea")

        with (shop.stage.folder / "app.log").open("a") as log:
            log.write("FATAL Out of memory\n")

        known.until("app-log / oom")
        assert known.driver.switch_to.active_element.id == field.id
        field.send_keys("son")
        assert field.get_attribute("value") == "half a reason"
        assert known.find("[data-key=silence-watch]").get_attribute("open") is not None


def test_without_scripts_it_reads_and_acts_the_same(known: Browser, shop: Scene) -> None:
    """A text browser over ssh, a script that does not load: the page is still one."""
    known.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        with quiet(known, "/watches/nobody"):
            for name, path in shop.pages.items():
                known.open(shop.url + path)
                heading = known.find("h1").text
                assert heading, name
            known.open(f"{shop.url}/login?next=/alerts")
            known.find("input[name=key]").send_keys(shop.key, Keys.ENTER)
            known.wait(lambda: "/alerts" in known.driver.current_url, "signed in")
            assert "Signed in." in known.find("main").text
            known.open(f"{shop.url}/alerts/{shop.fingerprint}")
            known.find("input[name=comment]").send_keys("on it", Keys.ENTER)
            known.wait(lambda: "acknowledged by key dana: on it" in known.find("main").text, "acknowledged")
            press(known, "Un-acknowledge")
            known.wait(lambda: "No longer acknowledged." in known.find("main").text, "taken back")
            press(known, "Silence …")
            press(known, "Silence", "[data-key=silence-alert] form")
            known.wait(lambda: "Silenced." in known.find("main").text, "silenced")
            known.open(f"{shop.url}/alerts")
            press(known, "End")
            known.wait(lambda: "The silence has ended." in known.find("main").text, "ended")
    finally:
        known.cdp("Emulation.setScriptExecutionDisabled", value=False)
