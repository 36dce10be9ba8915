"""
The part of the configuration that makes a watch, as people may see it on its page.

In: the typed settings. Out: plain JSON values, as they could stand in the file.
Promise: secrets are masked as everywhere; of an address that stands there in plain, what it is asked for is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agentd.api.service import Json
from agentd.config.masked import masked
from agentd.config.watches import Watch
from agentd.secret import SecretText
from agentd.telemetry.redact import STARS, redact

# Without user, query and fragment: hooks and feeds carry their keys there.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{0,20}://[^\s?#@]*", re.IGNORECASE)


def as_written(watch: Watch) -> Json:
    """What was written of its settings, defaults that were added included, and nothing that was not."""
    named = watch.model_dump(mode="json", by_alias=True, exclude_unset=True)
    shown: Json = _only(masked(watch), named)
    url = getattr(watch.source, "url", None)
    if watch.kind is not None and isinstance(url, SecretText) and url.literal and "url" in shown.get(watch.kind, {}):
        shown[watch.kind]["url"] = _address(url.text)
    return shown


def _only(shown: Any, named: Any) -> Any:
    """Of what is shown, the keys that are named."""
    if isinstance(named, Mapping) and isinstance(shown, Mapping):
        return {
            key: _only(shown[key], each) for key, each in ((redact(k), v) for k, v in named.items()) if key in shown
        }
    if isinstance(named, list) and isinstance(shown, list):
        return [_only(each, part) for each, part in zip(shown, named, strict=False)]
    return shown


def _address(text: str) -> str:
    """A page that does not say where its watch looks would be no use."""
    found = _ADDRESS.match(text)
    if found is None:
        return STARS
    return redact(found[0]) + (STARS if found.end() < len(text) else "")
