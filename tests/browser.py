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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # root has none; the pages are ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_PATIENCE_S = 30.0


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
        return WebDriverWait(self.driver, _PATIENCE_S).until(
            lambda driver: driver.find_element(By.CSS_SELECTOR, selector)
        )

    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def until(self, wanted: str) -> str:
        """Wait for a text on the page; returns all of it."""
        WebDriverWait(self.driver, _PATIENCE_S).until(lambda driver: wanted in self.text(), f"{wanted!r} on the page")
        return self.text()

    def show(self, *, width: int, height: int = 900, scheme: Literal["light", "dark"] = "light") -> None:
        self.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path: Path) -> None:
        taken = self.cdp("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.driver.execute_script("return document.documentElement.scrollWidth - innerWidth"))

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
