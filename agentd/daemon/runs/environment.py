"""
What of the daemon's environment the agent host gets: it reads what the whole world writes.

In: the environment, the configuration. Out: the variables that a host on this machine needs to ask the models and
servers that the configuration names.
Promise: nothing else goes along; not the secrets of webhooks, nor those of a model that is no longer configured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from agentd.config.models import Config
from agentd.secret import SecretText

_PLAIN = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PYTHONPATH", "XDG_CACHE_HOME"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "AGENTD_AGENT_IDLE_S"),
)
_PLAIN_BEGINNINGS = ("LC_",)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_AWS, _COLLECTOR = "AWS_", "OTEL_"


def host_environment(environment: Mapping[str, str], config: Config) -> dict[str, str]:
    """The variables of `environment` that a host needs for this configuration."""
    names, beginnings = _of_models(config)
    for source, name in _references([config.models, config.agent.mcp]):
        if source == "env":
            names.add(name)
        elif source == "credential":
            names.add("CREDENTIALS_DIRECTORY")
    if config.telemetry.otlp_endpoint is not None:
        beginnings.add(_COLLECTOR)
    names.update(_PLAIN)
    every = (*_PLAIN_BEGINNINGS, *beginnings)
    return {
        name: value
        for name, value in environment.items()
        if name in names or name.lower() in _PROXIES or name.startswith(every)
    }


def _of_models(config: Config) -> tuple[set[str], set[str]]:
    """What providers' own tools read, where the configuration is silent: names, and beginnings of names."""
    from agentd.llm.providers import PROVIDERS

    names: set[str] = set()
    beginnings: set[str] = set()
    for model in config.models.values():
        provider = PROVIDERS[model.provider]
        if model.api_key is None:
            names.update(provider.key_env)
            beginnings |= {_AWS} if provider.name == "bedrock" else set()
        if model.base_url is None:
            names.update(provider.base_url_env)
    return names, beginnings


def _references(value: Any) -> Iterator[tuple[str, str]]:
    """The secrets that are named in it, however deep."""
    if isinstance(value, SecretText):
        yield from value.references
    elif isinstance(value, str):
        if "${" in value:
            yield from SecretText(value).references
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _references(getattr(value, name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _references(each)
