"""
A real browser: Debian's Chromium, without a window, driven by its own driver.

In: pages on loopback. Out: what stands on them, what was fetched for them, what the console says.
Promise: no name but loopback's is resolved, so that a page that asks for something elsewhere fails, and is heard.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

T = TypeVar("T")

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # root has none; the pages are ours
    "--disable-gpu",
    "--hide-scrollbars",  # pictures are as wide as the page
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_PATIENCE_S = 30.0

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="chromium and chromium-driver are not installed; units/prepare test"
)

# What of all text on the page stands out too little, as `contrast: text`. A canvas mixes the colours, so that any way
# to write them, and any transparency, counts as it is seen.
_FAINT = """
const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
const context = canvas.getContext("2d", {willReadFrequently: true});
const backs = new Map(), found = [];
function mixed(layers) {
  context.globalAlpha = 1;
  context.fillStyle = matchMedia("(prefers-color-scheme: dark)").matches ? "black" : "white";
  context.fillRect(0, 0, 1, 1);
  for (const [colour, alpha] of layers) {
    context.globalAlpha = alpha;
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
  }
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
}
function layers(element) {
  if (!element) return [];
  if (!backs.has(element)) {
    backs.set(element, [...layers(element.parentElement), [getComputedStyle(element).backgroundColor, 1]]);
  }
  return backs.get(element);
}
function light([r, g, b]) {
  const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
function look(element, colour, text) {
  let alpha = 1;
  for (let each = element; each; each = each.parentElement) alpha *= getComputedStyle(each).opacity;
  const back = light(mixed(layers(element))), front = light(mixed([...layers(element), [colour, alpha]]));
  const contrast = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
  if (contrast < arguments_least) found.push(`${contrast.toFixed(2)}: ${text.trim().slice(0, 60)}`);
}
const arguments_least = arguments[0];
let texts = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode.data, element = walker.currentNode.parentElement;
  if (!text.trim() || element.closest("script, style, title, desc") || !element.checkVisibility()) continue;
  texts += 1;
  const style = getComputedStyle(element);
  look(element, element instanceof SVGElement ? style.fill : style.color, text);
}
for (const element of document.querySelectorAll("input[placeholder]")) {
  if (element.checkVisibility()) look(element, getComputedStyle(element, "::placeholder").color, element.placeholder);
}
return [texts, found];
"""


class Browser:
    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.requested: list[str] = []
        self.complaints: list[str] = []

    def open(self, url: str) -> None:
        self.driver.get(url)

    def cdp(self, command: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, arguments)

    def find(self, selector: str) -> WebElement:
        """The first element of a CSS selector, once it is there."""

        def look() -> WebElement | None:
            found = self.driver.find_elements(By.CSS_SELECTOR, selector)
            return found[0] if found else None

        element = self.wait(look, f"{selector} on the page")
        assert element is not None
        return element

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script in the page returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    def press(self, *keys: str) -> None:
        """Type into whatever has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def until(self, wanted: str) -> str:
        """Wait for a text on the page; returns all of it."""
        self.wait(lambda: wanted in self.text(), f"{wanted!r} on the page")
        return self.text()

    def wait(self, look: Callable[[], T], what: str) -> T:
        """The first true thing that `look` gives; what: for who waits in vain."""
        try:
            waiting = WebDriverWait(self.driver, _PATIENCE_S, 0.1, [StaleElementReferenceException])
            return waiting.until(lambda _: look())
        except TimeoutException:
            pytest.fail(f"{what}: not within {_PATIENCE_S} s at {self.driver.current_url}\n{self.text()}")

    def faint(self, least: float = 4.5) -> list[str]:
        """Texts that stand out less than that (WCAG 2, 1.4.3)."""
        texts, found = self.run(_FAINT, least)
        assert texts, "a page without any text"
        return list(found)

    def show(self, *, width: int, height: int = 900, scheme: Literal["light", "dark"] = "light") -> None:
        self.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path: Path) -> None:
        """What the window shows, as PNG or WebP, as the path ends."""
        how = {"format": "webp", "quality": 90} if path.suffix == ".webp" else {"format": "png"}
        taken = self.cdp("Page.captureScreenshot", **how)
        path.write_bytes(base64.b64decode(taken["data"]))

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.run("return document.documentElement.scrollWidth - innerWidth"))

    def listen(self) -> None:
        """Take in what was fetched and what the console said since the last time."""
        for entry in self.driver.get_log("performance"):  # type: ignore[no-untyped-call]
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                self.requested.append(event["params"]["request"]["url"])
        said = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        self.complaints += [entry["message"] for entry in said if entry["level"] != "INFO"]

    def strangers(self) -> set[str]:
        """Hosts that were asked and are not this machine."""
        self.listen()
        hosts = {urlsplit(url).hostname or "" for url in self.requested if url.startswith(("http", "ws"))}
        return hosts - {"127.0.0.1"}


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """profile: a folder of its own, which may be thrown away."""
    options = Options()
    for option in (*_OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    assert CHROMIUM is not None
    assert DRIVER is not None
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
