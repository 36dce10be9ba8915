"""
Fakes for time, language models and receivers, shipped so that users can test their own configurations and plugins.

`FakeClock`: time that is moved by hand. `ScriptedModel`: a language model that says what it was told to.
`RecordingWebhook`: a receiver on loopback that keeps and verifies what it is sent.
Each is loaded when first asked for, so that a test of one needs nothing of the others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentd.testing.clock import FakeClock
    from agentd.testing.model import ScriptedModel
    from agentd.testing.webhook import Received, RecordingWebhook

__all__ = ["FakeClock", "Received", "RecordingWebhook", "ScriptedModel"]

_HOMES = {
    "FakeClock": "agentd.testing.clock",
    "ScriptedModel": "agentd.testing.model",
    "Received": "agentd.testing.webhook",
    "RecordingWebhook": "agentd.testing.webhook",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(home), name)
    return found
