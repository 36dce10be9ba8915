"""`agentd models`: the configured models, whether they can be asked, and what they say when they are."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import click

from agentd.cli import FAILED
from agentd.cli.answer import shown_usd
from agentd.cli.options import config_option, output_option
from agentd.cli.place import environment_for
from agentd.cli.tables import clean, print_json, print_table
from agentd.clock import SystemClock
from agentd.config.loader import find_config, load
from agentd.config.models import Config
from agentd.errors import AgentdError, ConfigError
from agentd.llm.settings import ModelSettings, Provider
from agentd.secret import read_secrets_from
from agentd.telemetry.redact import redact, register_secret

PROVIDERS: tuple[str, ...] = get_args(Provider)
_QUESTION = "Answer with one word: what is the capital of France?"
_MOST_TOKENS = 256
_ASK_S = 30.0

Json = dict[str, Any]


@click.command()
@click.option("--ask", is_flag=True, help="Really ask each of them one short question; that costs what it costs.")
@click.option("--provider", type=click.Choice(PROVIDERS), help="List what this provider offers, instead.")
@config_option
@output_option
def models(ask: bool, provider: str | None, config_path: Path | None, output: str) -> None:
    """
    List the configured models: whether their keys are there and their prices known. No key is ever shown.

    Exits with 1 when --ask got no answer from one of them.
    """
    path = find_config(config_path)
    loaded = load(path, environment=environment_for(path), prices=False)
    read_secrets_from(loaded.environment, register_secret)
    if provider is not None:
        _offers(loaded.config, provider, output)
        return
    listed = _listed(loaded.config)
    if ask:
        answers = asyncio.run(_ask_all(loaded.config.models))
        listed = [row | {"answer": answers[row["name"]]} for row in listed]
    if output == "json":
        print_json({"models": listed})
    else:
        _print(listed, ask)
    if any(row["answer"]["error"] for row in listed if ask):
        sys.exit(FAILED)


def _listed(config: Config) -> list[Json]:
    from agentd.daemon.runs.jobs import default_model
    from agentd.llm.client import open_models
    from agentd.llm.spend import OpenPurse

    first = default_model(config)
    found = open_models(config.models, purse=OpenPurse(), clock=SystemClock()).listing()
    return [
        {
            "name": each.name,
            "provider": each.provider,
            "model": each.model,
            "key": each.key,
            "price_known": each.price_known,
            "context_tokens": each.window,
            "protocol": each.protocol,
            "fallback": list(each.fallback),
            "default": each.name == first,
        }
        for each in found
    ]


def _print(listed: list[Json], ask: bool) -> None:
    rows = [
        row
        | {
            "price": "known" if row["price_known"] else "unknown",
            "fallback": ", ".join(row["fallback"]),
            "default": "default" if row["default"] else None,
            "summary": _answer(row["answer"]) if ask else None,
        }
        for row in listed
    ]
    columns = {"name": "NAME", "provider": "PROVIDER", "model": "MODEL", "key": "KEY", "price": "PRICE"}
    columns |= {"context_tokens": "WINDOW", "protocol": "TOOLS", "default": "DEFAULT", "fallback": "FALLBACK"}
    if ask:
        columns["summary"] = "ANSWER"
    print_table(rows, columns, empty="No models are configured: agents gather evidence, and nobody reads it.")


def _answer(answer: Json) -> str:
    if answer["error"]:
        return f"FAILED: {answer['error']}"
    return f"{answer['text']!r} in {answer['took_s']:.1f} s, {answer['tokens']} tokens, {shown_usd(answer['usd'])}"


async def _ask_all(settings: Mapping[str, ModelSettings]) -> dict[str, Json]:
    """Each alone, without those who would stand in for it, and once."""
    from agentd.llm.client import open_models
    from agentd.llm.spend import OpenPurse

    patience = timedelta(seconds=_ASK_S)
    alone = {
        name: each.model_copy(update={"fallback": (), "retries": 0, "timeout": min(each.timeout, patience)})
        for name, each in settings.items()
    }
    opened = open_models(alone, purse=OpenPurse(), clock=SystemClock())
    try:
        answers = await asyncio.gather(*(_ask(opened, name) for name in alone))
    finally:
        await opened.close()
    return dict(zip(alone, answers, strict=True))


async def _ask(opened: Any, name: str) -> Json:
    from agentd.llm.port import ChatMessage, complete

    began = time.monotonic()
    answer: Json = {"text": "", "took_s": 0.0, "tokens": 0, "usd": None, "served_by": "", "error": None}
    try:
        done = await complete(
            opened.get(name), "", [ChatMessage("user", _QUESTION)], max_tokens=_MOST_TOKENS, timeout_s=_ASK_S
        )
    except AgentdError as error:
        return answer | {"error": redact(str(error))[:500], "took_s": round(time.monotonic() - began, 3)}
    return answer | {
        "text": done.message.content.strip()[:100],
        "took_s": round(time.monotonic() - began, 3),
        "tokens": done.usage.total,
        "usd": done.usd,
        "served_by": done.served_by[:100],
    }


def _offers(config: Config, provider: str, output: str) -> None:
    """At every address that the configuration has for it, else at its own."""
    places = {(each.base_url, each.api_key): each for each in config.models.values() if each.provider == provider}
    asked = list(places.values()) or [ModelSettings.model_validate({"provider": provider, "model": "any"})]
    names = sorted(set(asyncio.run(_names(asked))))
    if output == "json":
        print_json({"provider": provider, "models": names})
        return
    for name in names:
        click.echo(clean(name))
    if not names:
        click.echo(f"{provider} lists no models", err=True)


async def _names(asked: list[ModelSettings]) -> list[str]:
    import httpx

    from agentd.llm import providers

    found: list[str] = []
    async with httpx.AsyncClient() as http:
        for settings in asked:
            if providers.base_url(settings) is None and settings.provider != "bedrock":
                raise ConfigError(
                    f"provider {settings.provider} has no address of its own, and no model here names one; "
                    "write `models.NAME.base_url`"
                )
            found += await providers.list_models(settings, http, who=settings.provider)
    return found
