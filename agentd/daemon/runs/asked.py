"""
What models were asked by runs, counted for metrics.

In: the record that a run leaves of each call. Out: calls by outcome, tokens, money, and how long they took.
Promise: what a host says is looked at before it is counted: no label can be made up there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from agentd.llm.port import FailureKind
from agentd.telemetry.tally import MODEL_S, OTHER, Spreads, Tally

_MOST_MODELS = 50
_MOST_CHARS = 100
_OK = "ok"
_OUTCOMES = frozenset({*FailureKind, "interrupted"})
_TOKENS = {"input": "input_tokens", "output": "output_tokens", "cached": "cached_tokens"}
_MOST = 10**12


class Asked:
    """calls: by model and outcome. tokens: by model and kind. usd: by model. took_s: how long, by model."""

    def __init__(self) -> None:
        self.calls = Tally(_MOST_MODELS * (len(_OUTCOMES) + 2))
        self.tokens = Tally(_MOST_MODELS * len(_TOKENS))
        self.usd = Tally(_MOST_MODELS)
        self.took_s = Spreads(MODEL_S, _MOST_MODELS)

    def take(self, record: Mapping[str, Any]) -> None:
        """The record of one call: see `agent.asking`."""
        model = record.get("answered_by") or record.get("model")
        model = model[:_MOST_CHARS] if isinstance(model, str) and model else OTHER
        self.calls.add((model, _outcome(record.get("error"))))
        if (took_s := _amount(record.get("duration_s"))) is not None:
            self.took_s.add((model,), took_s)
        if (usd := _amount(record.get("usd"))) is not None:
            self.usd.add((model,), usd)
        usage = record.get("usage")
        if not isinstance(usage, dict):
            return
        for kind, name in _TOKENS.items():
            if (tokens := _amount(usage.get(name))) is not None:
                self.tokens.add((model, kind), int(tokens))


def _outcome(error: object) -> str:
    if error is None:
        return _OK
    kind = error.get("kind") if isinstance(error, dict) else None
    return kind if isinstance(kind, str) and kind in _OUTCOMES else OTHER


def _amount(value: object) -> float | None:
    """A number that can be added up, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) and 0 <= value <= _MOST else None
