"""
What the API may read and change of the configuration. A port, as `service.py` is.

Promise: no secret is ever in an answer; what can be changed live is models, their keys and limits, nothing else.
"""

from __future__ import annotations

from typing import Any, Protocol

Json = dict[str, Any]


class SettingsService(Protocol):
    async def config(self) -> Json:
        """
        {"config": the whole configuration in effect, with defaults, secrets as `***`, "origins": {dotted key: where
        its value comes from ("/etc/agentd/agentd.yaml:12", "environment AGENTD_…", ".env AGENTD_…", "overlay", and
        nothing for a default; a watch is one key, "watches[3]")}, "live": dotted keys (with `*`) that may be changed by
        `change`, "overlay": {"file", "keys": that it sets, "trouble": why it is not in effect, or None}, "note"}.
        """
        ...

    async def change(self, patch: Json, *, by: str) -> Json:
        """
        Merge `patch` into the overlay (null takes a key out of it), write it down, go over to it. Returns
        {"changed": dotted keys, "warnings": [...]}. Raises ConfigError: a key that cannot be changed live, or a
        configuration that would be wrong; nothing is changed then. Raises StoreError when it cannot be kept.
        """
        ...

    async def change_model(self, model: Json, *, by: str) -> Json:
        """
        {"provider", "model_name" or "model", "api_key", "max_tokens", "temperature", "name": of the model in `models`,
        default "default", …}: the short form of `change`.
        """
        ...

    async def validate(self, config: Json | str) -> Json:
        """
        config: data, or the text of a file. {"valid": bool, "errors": [{"key", "line", "message", "cure"}],
        "warnings": [...]}. Old and short names are taken as everywhere. Nothing is read that the text names (no
        secret, no file of another), nothing is changed.
        """
        ...
