"""
Badges: a word about one watch as a small picture, for a README or a dashboard.

In: what is public. Out: SVG that looks the same wherever it is shown: every text is given its width.
"""

from __future__ import annotations

from html import escape

from agentd.api.web.text import one_line

# Advance widths of the printable ASCII characters in Verdana and its like, in tenths of a pixel at 11 px.
_WIDTHS = (
    35, 44, 51, 92, 70, 105, 86, 30, 43, 43, 55, 92, 35, 40, 35, 37, 70, 70, 70, 70, 70, 70, 70, 70, 70, 70, 37, 37,
    92, 92, 92, 58, 110, 75, 75, 77, 85, 70, 63, 85, 83, 32, 32, 72, 61, 95, 82, 87, 66, 87, 76, 70, 67, 81, 75, 109,
    75, 67, 75, 43, 37, 43, 92, 55, 55, 67, 70, 60, 70, 68, 39, 70, 70, 31, 31, 64, 31, 107, 70, 67, 70, 70, 45, 57,
    43, 70, 65, 90, 65, 65, 58, 70, 37, 70, 92,
)  # fmt: skip
_OTHER = 110
_PAD = 7
_MOST_CHARS = 63

# White text on each of these has a contrast of 4.5 at least.
GREEN, YELLOW, RED, VIOLET, GREY = "#1a7f37", "#8a6100", "#c62f3b", "#7350c0", "#656d76"
STATES = {"ok": ("up", GREEN), "failing": ("down", RED), "blind": ("unknown", VIOLET), "paused": ("paused", GREY)}


def text_width(text: str) -> int:
    """In pixels at 11 px."""
    tenths = sum(_WIDTHS[ord(each) - 32] if " " <= each <= "~" else _OTHER for each in text)
    return -(-tenths // 10)


def state_badge(name: str, state: str | None) -> str:
    word, colour = STATES.get(state or "", ("unknown", GREY))
    return badge(name, word, colour)


def uptime_badge(span: str, share: float | None) -> str:
    """share: 0 to 1, or None while nothing is known."""
    if share is None:
        return badge(f"uptime {span}", "unknown", GREY)
    # Cut, never rounded up: what was down for a minute was not up all the time.
    hundredths = int(min(max(share, 0.0), 1.0) * 10_000 + 1e-6)
    text = "100%" if hundredths == 10_000 else f"{hundredths / 100:.2f}%"
    colour = GREEN if hundredths >= 9_900 else YELLOW if hundredths >= 9_500 else RED
    return badge(f"uptime {span}", text, colour)


def badge(label: str, word: str, colour: str) -> str:
    label, word = one_line(label, _MOST_CHARS), one_line(word, _MOST_CHARS)
    left, right = text_width(label), text_width(word)
    split, width = left + 2 * _PAD, left + right + 4 * _PAD
    title = escape(f"{label}: {word}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" viewBox="0 0 {width} 20" role="img"'
        f' aria-label="{title}"><title>{title}</title>'
        f'<clipPath id="r"><rect width="{width}" height="20" rx="4"/></clipPath>'
        f'<g clip-path="url(#r)"><path fill="#3d444d" d="M0 0h{split}v20H0z"/>'
        f'<path fill="{escape(colour)}" d="M{split} 0h{width - split}v20H{split}z"/></g>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,Geneva,sans-serif" font-size="11">'
        f"{_text(_PAD, left, label)}{_text(split + _PAD, right, word)}</g></svg>"
    )


def _text(x: int, width: int, text: str) -> str:
    return f'<text x="{x}" y="14" textLength="{width}">{escape(text)}</text>' if text else ""
