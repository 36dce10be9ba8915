"""Whatever lies in the overlay, or stands under old names, loading ends in a configuration or in InvalidConfig."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentd.config.loader import load, look_at
from agentd.config.old_names import translate
from agentd.config.overlay import LIVE, NAME, check_overlay, patched
from agentd.errors import ConfigError, InvalidConfig

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
FILE = "models: {default: {provider: zhipu, model: m}}\nagent: {max_steps: 3}\nwatches: []\n"
WORDS = st.sampled_from(
    (
        *("model", "models", "default", "execution", "tools", "service", "agent", "api", "daemon", "commands", "files"),
        *("model_name", "provider", "timeout_seconds", "max_steps", "enable_file_operations", "allowed_paths", "cors"),
        *("log_level", "rate_limiting", "budgets", "run", "usd", "base_url", "api_key", "task_timeout", "retry_delay"),
        *("bind_address", "listen", "allow", "forbid", "fallback", "rate", "state_dir", "max_retries", "metrics", "x"),
    )
)
WORDS_IN_TEXT = st.sampled_from(("zhipu", "local", "3s", ""))
VALUES = st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats() | WORDS_IN_TEXT
DATA = st.recursive(VALUES, lambda inner: st.dictionaries(WORDS, inner, max_size=5) | st.lists(inner, max_size=3))
MAPPING = st.dictionaries(WORDS, DATA, max_size=6)
LEAF = st.sampled_from([key.replace("*", "default") for key in LIVE] + ["models.default.api_key", "budgets.run"])


def try_to_load(text: str, overlay: bytes | None = None, environment: dict[str, str] | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agentd.yaml"
        path.write_text(text)
        if overlay is not None:
            (Path(folder) / NAME).write_bytes(overlay)
        loaded = None
        with contextlib.suppress(InvalidConfig):
            loaded = load(path, environment={"STATE_DIRECTORY": folder, **(environment or {})}, prices=False)
        assert loaded is not None or text != FILE or environment, "an overlay keeps nobody from starting"


@CALM
@given(st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b'{"agent": {"max_steps": 1e999}}')
@example(b'{"agent": {"max_steps": ' + b"9" * 5000 + b"}}")
@example('{"models": {"\ud800": {}}}'.encode(errors="surrogatepass"))
def test_any_bytes_in_the_overlay(content: bytes) -> None:
    try_to_load(FILE, content)


@CALM
@given(st.dictionaries(LEAF, DATA, max_size=4))
def test_any_values_under_live_keys(values: dict[str, Any]) -> None:
    data: dict[str, Any] = {}
    for key, value in values.items():
        nested = value
        for step in reversed(key.split(".")):
            nested = {step: nested}
        data = patched(data, nested)
    try_to_load(FILE, json.dumps(data).encode())


@CALM
@given(MAPPING)
def test_any_data_under_old_names(data: dict[str, Any]) -> None:
    before = repr(data)
    found = translate(data)

    assert repr(data) == before
    assert translate(found.data).data == found.data or found.problems or "nan" in before
    try_to_load(yaml.safe_dump(data))
    look_at(data)
    with contextlib.suppress(ConfigError):
        check_overlay(found.data)


@CALM
@given(st.lists(WORDS, min_size=1, max_size=4), DATA)
def test_any_variable_of_an_old_name(words: list[str], value: Any) -> None:
    name = "AGENTD_" + "__".join(words).upper()
    try_to_load(FILE, environment={name: json.dumps(value)})
