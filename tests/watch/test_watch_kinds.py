"""What holds for every kind of probe."""

from __future__ import annotations

import pytest

from agentd.condition import compile_condition
from agentd.watch import KINDS
from agentd.watch.probe import Kind


def test_every_kind_is_found_by_its_name() -> None:
    assert {"http", "tcp", "tls", "dns", "heartbeat"} <= set(KINDS)
    assert all(name == kind.name for name, kind in KINDS.items())


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_default_conditions_can_be_compiled(kind: Kind) -> None:
    """They are used by every watch that names none of its own."""
    for condition in kind.expect:
        compile_condition(condition, kind.variables)
