"""
The part of the configuration that makes a watch, as people may see it.

In: the typed settings. Out: plain JSON values, as they could stand in the file.
Promise: what stands in the file in plain where a secret may stand is shown as stars; a reference to a secret
(`${env:NAME}`) is shown as it stands, for it says where to look and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from agentd.api.service import Json
from agentd.secret import SecretText
from agentd.telemetry.redact import STARS, is_sensitive, redact

# An address without what is asked of it: hooks and feeds carry their keys there.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{0,20}://[^\s?#@]*", re.IGNORECASE)


def masked(settings: BaseModel) -> Json:
    """What was written of these settings, defaults that were added included, and nothing that was not."""
    plain = settings.model_dump(mode="json", exclude_unset=True)
    shown: Json = _masked(settings, plain)
    return shown


def _masked(value: Any, plain: Any, *, secret: bool = False) -> Any:
    """plain: the same as JSON has it. secret: it stands under a name of secrets."""
    if isinstance(value, SecretText):
        return _secret_text(value)
    if isinstance(value, BaseModel) and isinstance(plain, Mapping):
        return {key: _masked(getattr(value, key, None), each, secret=is_sensitive(key)) for key, each in plain.items()}
    if isinstance(value, Mapping) and isinstance(plain, Mapping):
        # A name may be of another type before it is JSON.
        by_name = {str(key): each for key, each in value.items()}
        return {redact(key): _masked(by_name.get(key), each, secret=is_sensitive(key)) for key, each in plain.items()}
    if isinstance(value, list | tuple) and isinstance(plain, list):
        return [_masked(each, shown, secret=secret) for each, shown in zip(value, plain, strict=False)]
    if isinstance(plain, str):
        return STARS if secret and not plain.startswith("${") else redact(plain)
    if isinstance(plain, Mapping | list):  # of a type that writes itself
        return _masked(plain, plain, secret=secret)
    return plain


def _secret_text(value: SecretText) -> str:
    if value.references:
        return redact(value.text)
    address = _ADDRESS.match(value.text)
    if address is None:
        return STARS
    return redact(address[0]) + (STARS if address.end() < len(value.text) else "")
