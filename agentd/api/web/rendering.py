"""
Templates to pages, and the files beside them.

In: the name of a template and plain values. Out: HTML in which no value is markup, with the headers that keep it so.
Promise: the template engine is loaded with the first page, on a thread, and pages are made on threads: the daemon's
loop goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from agentd.api.caller import Caller
from agentd.api.web import plots, text

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # With `no-referrer` a browser would send its forms with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "X-Robots-Tag": "noindex, nofollow",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_MARKS = re.compile(r"(`[^`\n]{1,200}`|\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z)")
STATIC = {"style.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """tag: changes with the content."""

    content: bytes
    media: str
    tag: str


class Renderer:
    """version: of agentd."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._lock = threading.Lock()
        self._environment: Environment | None = None
        self._static: dict[str, StaticFile] = {}
        # Pages are kept for all who see the same; what differs stands in them as words that nobody can know.
        self._csrf = f"csrf-{secrets.token_hex(16)}"
        self._who = f"who-{secrets.token_hex(16)}"

    async def render(self, template: str, values: Mapping[str, Any], *, now: datetime) -> bytes:
        """A page that is not anybody's yet: `for_caller` makes it so."""
        return await asyncio.to_thread(self._render, template, values, now)

    def for_caller(self, page: bytes, caller: Caller) -> bytes:
        name = escape(text.one_line(caller.name, 100)).encode("utf-8", "replace")
        return page.replace(self._csrf.encode(), escape(caller.csrf).encode()).replace(self._who.encode(), name)

    async def static(self, name: str) -> StaticFile | None:
        if name not in STATIC:
            return None
        return self._static.get(name) or await asyncio.to_thread(self._file, name)

    def _render(self, template: str, values: Mapping[str, Any], now: datetime) -> bytes:
        page = (
            self._loaded()
            .get_template(template)
            .render(values, now=now, csrf=self._csrf, who=self._who, version=self._version)
        )
        return page.encode("utf-8", "replace")

    def _loaded(self) -> Environment:
        with self._lock:
            if self._environment is None:
                self._environment = _environment(self._asset)
            return self._environment

    def _asset(self, name: str) -> str:
        return f"/static/{name}?v={self._file(name).tag}"

    def _file(self, name: str) -> StaticFile:
        found = self._static.get(name)
        if found is None:
            content = (files("agentd.api.web") / "static" / name).read_bytes()
            tag = hashlib.sha256(content).hexdigest()[:16]
            found = self._static[name] = StaticFile(content, STATIC[name], tag)
        return found


def answer(page: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(page, status, headers={**HEADERS, **(headers or {})}, media_type="text/html")


def bare(heading: str, text: str) -> bytes:
    """A page that costs nothing to make."""
    begin = '<!doctype html><html lang="en"><meta charset="utf-8">'
    return f"{begin}<title>{escape(heading)}</title><h1>{escape(heading)}</h1><p>{escape(text)}</p>".encode()


def _environment(asset: Callable[[str], str]) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
    from markupsafe import Markup
    from markupsafe import escape as escape_text

    def finalize(value: Any) -> Any:
        """Of every value that a page shows: none plays tricks, none is endless."""
        if isinstance(value, Markup):
            return value
        return "" if value is None else text.shown(value) if isinstance(value, str) else value

    def tag(shown: str, at: datetime, kind: str) -> Markup:
        iso = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return Markup('<time datetime="{}" title="{}" data-{}>{}</time>').format(iso, text.absolute(at), kind, shown)

    @pass_context
    def ago(context: Any, value: Any) -> Any:
        at = text.moment(value)
        return text.NOTHING if at is None else tag(text.relative(at, context["now"]), at, "ago")

    def when(value: Any) -> Any:
        at = text.moment(value)
        return text.NOTHING if at is None else tag(text.absolute(at), at, "at")

    def marked(value: Any) -> Markup:
        """A sentence: `code` as code, and the moments in it as any other moment."""
        found = []
        for index, part in enumerate(_MARKS.split(text.shown(value))):
            at = text.moment(part) if index % 2 and part[0] != "`" else None
            code = index % 2 and part[0] == "`"
            mark = Markup("<code>{}</code>").format(part[1:-1]) if code else escape_text(part)
            found.append(mark if at is None else tag(text.absolute(at), at, "at"))
        return Markup("").join(found)

    environment = Environment(
        loader=PackageLoader("agentd.api.web"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "duration": text.duration,
        "ms": text.milliseconds,
        "percent": text.percent,
        "usd": text.usd,
        "number": text.number,
        "scalar": text.scalar,
        "one_line": text.one_line,
        "marked": marked,
        "cut": lambda value, most: text.shown(value, most),
    }
    environment.globals |= {
        "ago": ago,
        "when": when,
        "asset": asset,
        "to": text.to,
        "with_query": text.with_query,
        "web_link": text.web_link,
        "strip_paths": plots.strip_paths,
        "strip_words": plots.strip_words,
        "spark": partial(plots.spark),
    }
    return environment
