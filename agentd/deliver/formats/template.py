"""
A body written by the operator: a Jinja template over plain data.

Promise: rendering happens in a child process of its own (`template_child`), which is killed at its deadline and
capped in memory and output: a loop without end in a template costs two seconds of one CPU, never the daemon. The
check at load reads the template and works out nothing of it.
A thread could not be stopped, and Jinja stays out of the daemon's memory while it runs.
"""

from __future__ import annotations

import asyncio
import atexit
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from agentd.clock import iso
from agentd.deliver.formats import JSON, Message, Rendered
from agentd.deliver.formats.renderer import Renderer, RendererLost, TemplateError
from agentd.deliver.payload import AlertData, examples
from agentd.errors import DeliveryDelayed, DeliveryRefused
from agentd.records import EventType

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from agentd.deliver.webhook import WebhookSettings

VARIABLES = {
    "id": "the message's id, the same over all attempts",
    "type": "such as alert.firing",
    "timestamp": "when it happened",
    "data": "everything the message says",
    "alert": "the alert (of a group the first, of a test a sample, of a finding what it says)",
    "alerts": "all alerts of the message",
    "group": "the labels a group has in common, or none",
}

MAX_TOKENS = 10_000
"""Words, signs and gaps in the braces of a template: many hundred lines, and a tenth of a second to look at."""

_renderer = Renderer()
atexit.register(_renderer.close)
# One thread: templates wait for each other and for nothing else.
_thread = ThreadPoolExecutor(1, thread_name_prefix="template")


def check(settings: WebhookSettings) -> None:
    """The template must be there, be Jinja, and name only what a message has."""
    if not settings.body or not settings.body.strip():
        raise ValueError("`format: template` needs `body`: the Jinja template of the request's body")
    if (wrong := _wrong_with(settings.body)) is not None:
        raise ValueError(wrong)


# The same body may stand in many webhooks.
@lru_cache(maxsize=16)
def _wrong_with(body: str) -> str | None:
    """None when it can be compiled. Nothing of it is worked out here: that is the child's, and may take for ever."""
    from jinja2 import TemplateSyntaxError, nodes
    from jinja2.meta import TrackingCodeGenerator

    environment = _environment()
    try:
        if next(islice(environment.lex(body), MAX_TOKENS, None), None) is not None:
            return f"body: has more than {MAX_TOKENS} words, signs and gaps in its braces; make it simpler"
        tree = environment.parse(body)
        names = TrackingCodeGenerator(environment)
        names.optimizer = None
        names.visit(tree)
        environment.compile(tree)
    except TemplateSyntaxError as error:
        return f"body, line {error.lineno}: {error.message}; see the Jinja template designer guide"
    except (SyntaxError, RecursionError, MemoryError):
        return "body: is nested too deeply, or is too long a chain; make it simpler"
    except (ValueError, OverflowError) as error:
        return f"body: {str(error).partition(';')[0]}; see the Jinja template designer guide"
    if unknown := sorted(names.undeclared_identifiers - VARIABLES.keys() - environment.globals.keys()):
        return f"body: unknown variable {unknown[0][:100]!r}; a template knows {', '.join(VARIABLES)}"
    fields = {field.alias or name for name, field in AlertData.model_fields.items()}
    for access in tree.find_all(nodes.Getattr):
        if isinstance(access.node, nodes.Name) and access.node.name == "alert" and access.attr not in fields:
            known = ", ".join(sorted(fields))
            return f"body, line {access.lineno}: an alert has no {access.attr[:100]!r}; it has {known}"
    return None


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    from agentd.deliver.formats.template_child import make_environment

    return make_environment()


async def render(message: Message, settings: WebhookSettings) -> Rendered:
    assert settings.body is not None, "checked at load"
    loop = asyncio.get_running_loop()
    try:
        text = await loop.run_in_executor(_thread, _renderer.render, settings.body, _variables(message))
    except TemplateError as error:
        raise DeliveryRefused(f"the template cannot write this message: {error}") from error
    except RendererLost as error:
        raise DeliveryDelayed(f"the template wrote nothing: {error}") from error
    except OSError as error:
        raise DeliveryDelayed(f"no process to write the template in: {error.strerror}") from error
    own_type = next((value.text for name, value in settings.headers.items() if name.lower() == "content-type"), None)
    if own_type is None or "json" in own_type.lower():
        _must_be_json(text)
    return Rendered(text.encode("utf-8", "replace"), {} if own_type else dict(JSON))


def _variables(message: Message) -> dict[str, Any]:
    data = dict(message.data)
    if message.type is EventType.TEST:
        sample = examples()[0]["data"]
        alerts = [sample | {"severity": "info", "summary": data["summary"], "instance": data["instance"]}]
    elif message.type is EventType.FINDING:
        alerts = [_as_alert(data, iso(message.timestamp))]
    else:
        alerts = data.get("alerts") or [data]
    return {
        "id": message.id,
        "type": message.type.value,
        "timestamp": iso(message.timestamp),
        "data": data,
        "alert": alerts[0],
        "alerts": alerts,
        "group": data.get("group"),
    }


def _as_alert(data: dict[str, Any], at: str) -> dict[str, Any]:
    """A finding in the words of an alert, so that a template written for alerts writes it too."""
    found = data.get("finding") or {}
    blank: dict[str, Any] = {field.alias or name: None for name, field in AlertData.model_fields.items()}
    blank |= {"values": {}, "failed": [], "evidence": [], "labels": {}, "links": {}, "occurrences": 1}
    blank |= {key: value for key, value in data.items() if key in blank and key != "schema"}
    analysis = f"analysis by a language model: {found.get('summary', '')}"
    return blank | {
        "schema": "agentd.alert/1",
        "fingerprint": "",
        "severity": found.get("severity", "info"),
        "state": "resolved" if found.get("status") == "ok" else "firing",
        "reason": "finding",
        "reason_text": data.get("goal", ""),
        "summary": f"{data.get('watch', '')}: {analysis}",
        "started_at": at,
        "flapping": False,
    }


def _must_be_json(text: str) -> None:
    try:
        json.loads(text)
    except ValueError as error:
        raise DeliveryRefused(
            f"the template wrote no valid JSON: {error}; pass values through `| tojson`, "
            "or set another Content-Type in `headers`"
        ) from error
