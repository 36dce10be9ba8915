"""
What an overlay must not bring about together with the files: that a secret of theirs goes to an address of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agentd.config.checks import Entry
from agentd.config.document import KeyPath
from agentd.config.environment import Overrides
from agentd.config.overlay import Overlay
from agentd.errors import Problem
from agentd.llm.providers import PROVIDERS
from agentd.llm.settings import present_provider


def check_addresses(root: Entry, overlay: Overlay, overrides: Overrides) -> Iterator[Problem]:
    """
    root: what is in effect, everything merged. A model whose address comes from the overlay has its key from there.

    Who may change models could else have every key sent to an address of their own, and none is ever to be given away.
    """
    models = root.raw.get("models")
    for name, model in models.items() if overlay.data and isinstance(models, Mapping) else ():
        address: KeyPath = ("models", name, "base_url")
        key: KeyPath = ("models", name, "api_key")
        if not isinstance(model, Mapping) or overrides.origin(address) or not overlay.sets(address):
            continue
        if overlay.sets(key) and not overrides.origin(key):
            continue
        provider = PROVIDERS.get(str(present_provider(model.get("provider"))))
        if model.get("api_key") is None and (provider is None or not provider.key_env):
            continue
        what = "comes with no key of its own, and a key that files or environment hold is not sent there"
        yield root.problem(address, what, "give `api_key` with it; any word will do where none is asked for")
