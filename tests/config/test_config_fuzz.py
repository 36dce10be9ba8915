"""Whatever stands in the file, loading it ends in a configuration or in InvalidConfig, and in nothing else."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentd.config.document import parse_document, plain_scalar
from agentd.config.loader import load
from agentd.errors import InvalidConfig

EXAMPLE = (Path(__file__).parents[2] / "conf" / "agentd.example.yaml").read_bytes()
DATA = parse_document(EXAMPLE, "example")[0].data
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def try_to_load(content: bytes, environment: dict[str, str] | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agentd.yaml"
        path.write_bytes(content)
        with contextlib.suppress(InvalidConfig):
            load(path, environment=environment or {})


@CALM
@given(st.binary(max_size=300))
def test_any_bytes(content: bytes) -> None:
    try_to_load(content)


@CALM
@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`#,? \n\t\\0~<.x", max_size=80))
def test_any_text_of_signs_that_mean_something(text: str) -> None:
    try_to_load(text.encode())


@CALM
@given(st.lists(st.tuples(st.integers(0, len(EXAMPLE)), st.integers(0, 12), st.binary(max_size=6)), max_size=4))
def test_the_example_with_bytes_changed(edits: list[tuple[int, int, bytes]]) -> None:
    content = EXAMPLE
    for start, length, replacement in edits:
        content = content[:start] + replacement + content[start + length :]
    try_to_load(content)


def paths_in(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(found for key, value in pairs for found in paths_in(value, (*path, key)))]


PATHS = paths_in(DATA)[1:]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        ["", "a", "0s", "9" * 400 + "GiB", "9" * 400 + "d", "${env:}", "${x:y}", "${file:/\0}", "*", "1 of 1"]
    )
    | st.sampled_from(
        ["http://[", "https://a:b/", "tcp:[", "\0", "\ud83d\ude00", "0 0 31 2 *", "../..", "[::1", "1e999/s"]
    )
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def replaced(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = data.copy()
    copy[path[0]] = replaced(data[path[0]], path[1:], value)
    return copy


@settings(CALM, max_examples=400)
@given(st.sampled_from(PATHS), VALUES)
def test_the_example_with_a_value_replaced(path: tuple[Any, ...], value: Any) -> None:
    """Every model, those of the probes and webhooks too, meets values of every type."""
    changed = replaced(DATA, path, value)
    try_to_load(yaml.safe_dump(changed, allow_unicode=True).encode("utf-8", "surrogatepass"))


@CALM
@given(
    st.sampled_from(PATHS), st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)
)
def test_any_override(path: tuple[Any, ...], value: str) -> None:
    name = "AGENTD_" + "__".join(str(step).upper() for step in path)
    try_to_load(EXAMPLE, {name.replace("\0", ""): value})


@CALM
@given(st.text(alphabet="0123456789+-._eExXoOinfNaANF", max_size=12))
def test_plain_scalars_agree_with_what_numbers_say(text: str) -> None:
    """A scalar is a number, a word of the schema, or its own text."""
    value = plain_scalar(text)

    assert value is None or type(value) in (int, float, str)
    if isinstance(value, str):
        assert value == text
