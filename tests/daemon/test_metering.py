"""Work that is done without the cycle collector."""

from __future__ import annotations

import gc

import pytest

from agentd.daemon.metering import _undisturbed


def test_the_cycle_collector_works_again_afterwards() -> None:
    """Off for a moment is quiet for the loop; off for ever is a leak."""
    assert _undisturbed(gc.isenabled) is False
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        _undisturbed(lambda: 1 // 0)
    assert gc.isenabled()
    gc.disable()
    try:
        assert _undisturbed(gc.isenabled) is False
        assert not gc.isenabled()  # as whoever we live with wants it
    finally:
        gc.enable()
