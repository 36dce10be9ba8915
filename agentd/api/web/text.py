"""
Text and numbers as the page shows them.

In: plain JSON values; text in them was written by targets, logs and models. Out: text that cannot play tricks: no
control character, nothing that turns or hides what stands beside it, never endless.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

Json = Mapping[str, Any]

NOTHING = "\N{EN DASH}"
"""What stands for a value that is not known."""

MOST_CHARS = 4000
"""Of one text on a page, where nothing else is said."""

# Controls but tab and line feed; what reverses the text around it; what is not seen; lone halves of characters. The
# joiners stay: Persian and emoji need them, and beside what is isolated they hide nothing.
_TRICKS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
# A stack of hundreds of accents on one letter paints over its neighbours.
_ACCENT = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]"
_STACKED = re.compile(f"({_ACCENT}{{4}}){_ACCENT}+")


def shown(text: object, most: int = MOST_CHARS) -> str:
    """The text, what would play tricks as its code, such as `<U+202E>`; cut to about `most` characters."""
    whole = str(text)
    cut = whole if len(whole) <= most else whole[:most] + "…"
    return _STACKED.sub(r"\1", _TRICKS.sub(_code, cut.replace("\r\n", "\n")))


def one_line(text: object, most: int = 300) -> str:
    """The same on one line."""
    return shown(" ".join(str(text)[: most * 4].split()), most)


def _code(found: re.Match[str]) -> str:
    character = ord(found[0])
    return "\N{REPLACEMENT CHARACTER}" if 0xD800 <= character <= 0xDFFF else f"<U+{character:04X}>"


def moment(value: object) -> datetime | None:
    """A moment as views give it, aware; None for what is none."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def absolute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def relative(at: datetime, now: datetime) -> str:
    """Such as `3 min ago` or `in 2 h`."""
    away_s = (now - at).total_seconds()
    if abs(away_s) < 1:
        return "now"
    return f"{duration(abs(away_s))} ago" if away_s > 0 else f"in {duration(-away_s)}"


def duration(seconds: object) -> str:
    """In its two largest units; below a minute with the precision that is worth reading."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not math.isfinite(seconds):
        return NOTHING
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 and seconds != int(seconds) else f"{seconds:.0f} s"
    whole = round(seconds)
    for size, unit, below, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return (
                f"{whole // size} {unit} {rest} {smaller}" if rest and whole < 10 * size else f"{whole // size} {unit}"
            )
    return f"{whole} s"


def milliseconds(value: object) -> str:
    """A latency: `850 µs`, `12.3 ms`, `1.24 s`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return NOTHING
    if value < 0.9995:
        return f"{value * 1000:.0f} µs" if value > 0 else "0 ms"
    if value < 999.5:
        return f"{value:.1f} ms" if value < 99.95 else f"{value:.0f} ms"
    return f"{value / 1000:.2f} s" if value < 9995 else duration(value / 1000)


def percent(share: object) -> str:
    """A share of uptime. Only what is whole is 100 %: 99.999 is cut, never rounded up."""
    if not isinstance(share, int | float) or isinstance(share, bool) or not math.isfinite(share):
        return NOTHING
    if share >= 1:
        return "100 %"
    hundredths = math.floor(max(share, 0.0) * 10_000 + 1e-6) / 100
    return f"{hundredths:.2f} %" if hundredths >= 99 else f"{hundredths:.1f} %"


def usd(value: object) -> str:
    """Unknown is unknown, never zero; and what is little is not nothing."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return "unknown"
    if value == 0:
        return "$0"
    return f"${value:,.2f}" if value >= 10 else f"${value:.4f}" if value >= 0.001 else f"${value:.6f}"


def number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NOTHING
    if isinstance(value, float):
        return f"{value:,.6g}".replace(",", "\N{NARROW NO-BREAK SPACE}") if math.isfinite(value) else NOTHING
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def scalar(value: object) -> str:
    """Any plain value on one line."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return one_line(", ".join(each if isinstance(each, str) else _json(each) for each in value[:50]) or "none")
    if isinstance(value, Mapping):
        return one_line(_json(value))
    return f"{value:.6g}" if isinstance(value, float) else one_line(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def to(*steps: object) -> str:
    """A path of ours: `to("watches", name)`."""
    return "/" + "/".join(quote(str(step).encode("utf-8", "replace"), safe="") for step in steps)


def with_query(path: str, **query: object) -> str:
    """The path with those parameters that are not empty."""
    wanted = {key.rstrip("_"): str(value) for key, value in query.items() if value not in (None, "", False)}
    return f"{path}?{urlencode(wanted, errors='replace')}" if wanted else path


def web_link(value: object) -> str | None:
    """The address where it leads to the web; None for anything else, such as `javascript:`."""
    text = str(value)
    fits = len(text) <= 2000 and re.fullmatch(r"https?://[^\s<>\"'\\]+", text, re.ASCII | re.IGNORECASE)
    return text if fits else None
