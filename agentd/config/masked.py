"""
The whole configuration in effect, as people may see it.

In: a `Config`. Out: plain JSON values, defaults included, named as in a file.
Promise: what stands in plain where a secret may stand is `***`; a reference (`${env:NAME}`) is shown as it stands, for
it says where to look and nothing else. Secrets within other text are taken out as for logs, and words behind options
such as `--password`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from agentd.secret import SecretText
from agentd.telemetry.redact import STARS, is_sensitive, redact


def masked(settings: BaseModel) -> dict[str, Any]:
    """Blocking, for a thread where it is much: half a second for ten thousand watches."""
    shown: dict[str, Any] = _masked(settings, settings.model_dump(mode="json", by_alias=True))
    return shown


def masked_data(data: Any) -> Any:
    """The same of data that nobody typed yet, such as a change that was asked for."""
    return _plain(data, secret=False)


def _masked(value: Any, plain: Any, *, secret: bool = False) -> Any:
    """plain: the same as JSON has it. secret: it stands under a name of secrets."""
    if isinstance(value, SecretText):
        return _secret_text(value)
    if isinstance(value, BaseModel) and isinstance(plain, Mapping):
        by_name = {}
        for name, field in type(value).model_fields.items():
            by_name[field.serialization_alias or field.alias or name] = getattr(value, name)
        return {key: _masked(by_name.get(key), each, secret=is_sensitive(key)) for key, each in plain.items()}
    if isinstance(value, Mapping) and isinstance(plain, Mapping):
        by_key = {str(key): each for key, each in value.items()}
        return {redact(key): _masked(by_key.get(key), each, secret=is_sensitive(key)) for key, each in plain.items()}
    typed = isinstance(value, list | tuple) and any(isinstance(each, SecretText | BaseModel) for each in value)
    if typed and isinstance(plain, list):
        return [_masked(each, shown, secret=secret) for each, shown in zip(value, plain, strict=True)]
    return _plain(plain, secret=secret)


def _plain(value: Any, *, secret: bool) -> Any:
    if isinstance(value, Mapping):
        return {redact(str(key)): _plain(each, secret=secret or is_sensitive(str(key))) for key, each in value.items()}
    if isinstance(value, list | tuple):
        shown = [_plain(each, secret=secret) for each in value]
        return [
            STARS if index and _is_option(value[index - 1]) and isinstance(each, str) else each
            for index, each in enumerate(shown)
        ]
    if secret and value not in (None, True, False, ""):
        return STARS
    return redact(value) if isinstance(value, str) else value


def _is_option(word: Any) -> bool:
    return isinstance(word, str) and word.startswith("-") and "=" not in word and is_sensitive(word.lstrip("-"))


def _secret_text(value: SecretText) -> str:
    """References as they stand; what is written around them may be a part of the secret."""
    if not value.references:
        return STARS if value.text else ""
    named = [f"${{{source}:{name}}}" for source, name in value.references]
    rest = value.text
    for each in named:
        rest = rest.replace(each, "")
    alone = rest.strip() in ("", "Bearer", "Basic", "Token")
    return value.text if alone else STARS + STARS.join(named) + STARS


def shown_value(value: Any) -> str:
    """A masked value on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)
