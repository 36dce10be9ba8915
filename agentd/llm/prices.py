"""
What a call costs: from the config's `price`, else from the table of `genai-prices`.

In: a model's settings, tokens. Out: USD, or None where no price is known: unknown is never zero.
Promise: the table, which weighs 22 MiB once imported, is read by a short-lived child process (this file, run as a
program), once for each model; daemon and agent host keep a few numbers of it.
Where a price differs by the time of day, the highest is taken: who asks beforehand cannot know when the call is made.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agentd.llm.port import Usage
from agentd.llm.settings import ModelSettings

log = logging.getLogger(__name__)

_CHILD_S = 30.0
_AGAIN_S = 60.0
_PER = 1_000_000
_OURS = Path(__file__).resolve().parents[2]

# Whose prices are whose in the table. What serves other people's models is known by its address alone.
_SELLERS: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("anthropic",),
    "openai": ("openai",),
    "azure": ("azure", "openai"),
    "gemini": ("google",),
    "bedrock": ("aws",),
    "kimi": ("moonshotai",),
    "zhipu": ("zhipuai", "zai"),
    "deepseek": ("deepseek",),
}


@dataclass(frozen=True, slots=True)
class Rate:
    """USD per million tokens for calls whose question is longer than `above` tokens."""

    above: int
    input: float
    output: float
    cached: float
    written: float


_Key = tuple[str, str, str]
_rates: dict[_Key, tuple[Rate, ...] | None] = {}
_ask_at = 0.0


def cost(settings: ModelSettings, usage: Usage) -> float | None:
    """USD of one call, what came from the provider's cache or went there at its own price; None when none is known."""
    rates = _rates_of(settings)
    if rates is None:
        return None
    # The price of the whole call goes by the length of its question.
    rate = next((rate for rate in reversed(rates) if usage.input_tokens > rate.above), rates[0])
    cached = min(usage.cached_tokens, usage.input_tokens)
    written = min(usage.cache_written_tokens, usage.input_tokens - cached)
    fresh = usage.input_tokens - cached - written
    read = fresh * rate.input + cached * rate.cached + written * rate.written
    return (read + usage.output_tokens * rate.output) / _PER


def quote(settings: ModelSettings, input_tokens: int, output_tokens: int) -> float | None:
    """USD that a call may cost at most: none of it from a cache, all of it into one; None when no price is known."""
    fresh = cost(settings, Usage(input_tokens, output_tokens))
    written = cost(settings, Usage(input_tokens, output_tokens, cache_written_tokens=input_tokens))
    return None if fresh is None or written is None else max(fresh, written)


def known(settings: ModelSettings) -> bool:
    """Whether the model has a price, be it 0. Blocks for half a second when the table was not asked for it yet."""
    return _rates_of(settings) is not None


def unpriced(models: Mapping[str, ModelSettings], *, usd: float | None, tokens: int | None) -> tuple[str, ...]:
    """
    Names of the models that a budget of `usd` cannot hold, since nobody knows what they cost.

    usd, tokens: the limits of one budget; with a limit of tokens beside it every model is held. Blocks as `known`.
    Those that the table could not be asked for are not among them: a daemon must start also when it is short of memory.
    """
    if usd is None or tokens is not None:
        return ()
    load(models.values())
    return tuple(
        name
        for name, settings in models.items()
        if settings.price is None and _rates.get(_key(settings)) is None and not _not_asked([settings])
    )


def load(models: Iterable[ModelSettings]) -> None:
    """Ask the table for those of these that it was not asked for yet, at once. Blocks for half a second, if it does."""
    global _ask_at
    missing = _not_asked(models)
    if not missing or time.monotonic() < _ask_at:
        return
    found = _ask_child(missing)
    if found is None:
        _ask_at = time.monotonic() + _AGAIN_S
    else:
        _rates.update(zip(missing, found, strict=True))


def loaded(models: Iterable[ModelSettings]) -> bool:
    """Whether `cost` answers for all of these without blocking."""
    return time.monotonic() < _ask_at or not _not_asked(models)


def _not_asked(models: Iterable[ModelSettings]) -> list[_Key]:
    keys = dict.fromkeys(
        _key(each) for each in models if each.price is None and _may_be_listed(each.provider, each.base_url)
    )
    return [key for key in keys if key not in _rates]


@lru_cache(maxsize=64)
def _may_be_listed(provider: str, base_url: str | None) -> bool:
    """Nobody publishes the prices of a server at an address of one's own network."""
    if provider in _SELLERS:
        return True
    host = urlsplit(base_url or "").hostname or ""
    return "." in host and not host.replace(".", "").isdigit()


def _rates_of(settings: ModelSettings) -> tuple[Rate, ...] | None:
    price = settings.price
    if price is not None:
        cached = price.input if price.cached_input is None else price.cached_input
        return (Rate(0, price.input, price.output, cached, price.input),)
    load([settings])
    return _rates.get(_key(settings))


def _key(settings: ModelSettings) -> _Key:
    return settings.provider, settings.model, settings.base_url or ""


def _ask_child(keys: list[_Key]) -> list[tuple[Rate, ...] | None] | None:
    """None when the child came to nothing; it is asked again a minute later."""
    # -P: what lies in the working folder is not ours to import.
    argv = [sys.executable, "-P", "-m", "agentd.llm.prices"]
    paths = [str(_OURS), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        child = subprocess.run(
            argv,
            input=json.dumps(keys).encode(),
            capture_output=True,
            timeout=_CHILD_S,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        found = [
            None if rates is None else tuple(Rate(int(above), *map(float, rest)) for above, *rest in rates)
            for rates in json.loads(child.stdout)
        ]
        if len(found) != len(keys):
            raise ValueError("it answered for another number of models")
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
        said = getattr(error, "stderr", None) or b""
        lines = said.decode(errors="replace").strip().splitlines()
        log.warning("prices_unknown", extra={"error": str(error)[:200], "said": lines[-1][:200] if lines else ""})
        return None
    return found


def _main() -> None:
    """The child: keys as JSON on stdin, rates as JSON on stdout."""
    now = datetime.now(UTC)
    keys: list[_Key] = json.load(sys.stdin)
    json.dump([_look_up(*key, now) for key in keys], sys.stdout)


def _look_up(provider: str, model: str, base_url: str, now: datetime) -> list[tuple[float, ...]] | None:
    from genai_prices.data_snapshot import get_snapshot

    table = get_snapshot()
    sellers: list[tuple[str | None, str | None]] = [(None, base_url)] if base_url else []
    sellers += [(seller, None) for seller in _SELLERS.get(provider, ())]
    for seller, address in sellers:
        try:
            _, found = table.find_provider_model(model, None, seller, address)
        except LookupError:
            continue
        hours = [found.get_prices(now + timedelta(hours=hour)) for hour in range(24)]
        steps = sorted({0, *(start for price in hours for start in _starts(price))})
        rates = [_highest(hours, above) for above in steps]
        if all(rate is not None for rate in rates):
            return [(above, *rate) for above, rate in zip(steps, rates, strict=True) if rate is not None]
    return None


def _starts(price: Any) -> list[int]:
    parts = (price.input_mtok, price.output_mtok, price.cache_read_mtok, price.cache_write_mtok)
    return [tier.start for part in parts for tier in getattr(part, "tiers", ())]


def _highest(hours: list[Any], above: int) -> tuple[float, ...] | None:
    found = []
    for price in hours:
        # A model that is listed without prices is not free.
        if price.input_mtok is None or price.output_mtok is None:
            return None
        read, answer = _at(price.input_mtok, above), _at(price.output_mtok, above)
        cache = (price.cache_read_mtok, price.cache_write_mtok)
        found.append((read, answer, *(read if part is None else _at(part, above) for part in cache)))
    return tuple(map(max, zip(*found, strict=True)))


def _at(price: Any, above: int) -> float:
    """Of a price by length of question: what holds just above so many tokens."""
    tiers = [tier.price for tier in getattr(price, "tiers", ()) if tier.start <= above]
    return float(tiers[-1] if tiers else getattr(price, "base", price))


if __name__ == "__main__":
    _main()
