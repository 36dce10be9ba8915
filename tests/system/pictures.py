"""
The pictures of the page that the README shows. This makes them anew:

    PYTHONPATH=tests .venv/bin/python tests/system/pictures.py

In: `scene.py`'s shop, in the Chromium that `units/prepare test` brings. Out: conf/pictures/*.webp (PNG would be
nearly twice as large); with `--all FOLDER` every page at 1280 and 360 px, light and dark, as PNG, to be looked at.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from browser import Browser, browser
from scene import Scene, scene
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).resolve().parent.parent.parent

Scheme = Literal["light", "dark"]
_SCHEMES: tuple[Scheme, ...] = ("light", "dark")
_LONGEST = 6000

# Name, page, width, height, scheme. Higher than a page is, it is cut to it.
PICTURES: Sequence[tuple[str, str, int, int, Scheme]] = (
    ("overview-light.webp", "overview", 1280, 1200, "light"),
    ("overview-dark.webp", "overview", 1280, 1200, "dark"),
    ("watch.webp", "watch", 1280, 720, "light"),
    ("run.webp", "run", 1280, 980, "light"),
    ("phone.webp", "overview", 360, 780, "dark"),
)


def take(shop: Scene, folder: Path, pictures: Sequence[tuple[str, str, int, int, Scheme]]) -> None:
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as page:
        page.show(width=1280)
        page.open(f"{shop.url}/login")
        page.find("input[name=key]").send_keys(shop.key, Keys.ENTER)
        page.until("Signed in.")
        for name, which, width, height, scheme in pictures:
            _take(page, shop.url + shop.pages[which], folder / name, width, height, scheme)


def _take(page: Browser, url: str, path: Path, width: int, height: int, scheme: Scheme) -> None:
    page.show(width=width, height=600, scheme=scheme)
    page.open(url)
    page.find("main")
    whole = int(page.run("return document.documentElement.scrollHeight"))
    page.show(width=width, height=min(height, whole), scheme=scheme)
    page.run("document.activeElement.blur()")
    page.wait(lambda: page.run("return document.querySelector('[data-live=none], #live:not([hidden])')"), "it is live")
    page.picture(path)


async def main(arguments: Sequence[str]) -> None:
    everything = "--all" in arguments
    folders = [each for each in arguments if not each.startswith("-")]
    folder = Path(folders[0]) if folders else ROOT / "conf" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="shop-") as place:
        async with scene(Path(place)) as shop:
            pictures = (
                PICTURES
                if not everything
                else [
                    (f"{which}-{width}-{scheme}.png", which, width, _LONGEST, scheme)
                    for which in shop.pages
                    for width in (1280, 360)
                    for scheme in _SCHEMES
                ]
            )
            await asyncio.to_thread(take, shop, folder, pictures)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
