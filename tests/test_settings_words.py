"""Durations, sizes and rates as people write them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from agentd.settings import parse_duration, parse_rate, parse_size


@pytest.mark.parametrize("read", [parse_size, parse_duration, parse_rate])
@pytest.mark.parametrize(
    "text", ["9" * 400 + unit for unit in ("GiB", "d", "/s")] + ["-1", "1e999", "\u0663s", "", "5"]
)
def test_what_is_no_quantity_is_a_value_error(read: Callable[[Any], Any], text: str) -> None:
    """Any other exception would leave the loader as a traceback."""
    with pytest.raises(ValueError, match=r"."):
        read(text)


def test_quantities_are_read_in_their_units() -> None:
    assert parse_size("1.5KiB") == 1536
    assert parse_duration("1h30m") == timedelta(minutes=90)
    assert parse_rate("10 / m").per == 60
