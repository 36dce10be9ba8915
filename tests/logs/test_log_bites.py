"""How much of a log is taken at once."""

from __future__ import annotations

from agentd.logs.opening import open_log
from agentd.logs.port import Batch
from agentd.logs.settings import LogSource
from agentd.logs.work import MAX_BATCH_BYTES
from agentd.memory.logs import LogMemory
from agentd.testing import FakeClock


async def test_the_first_bite_of_a_log_is_a_small_one() -> None:
    """Each of its lines may be an alert, and nobody else can commit while five thousand of them are."""
    source = LogSource(command=("sleep", "600"))
    work = open_log("w", source, (), clock=FakeClock(), timezone="UTC", memory=LogMemory())
    read, asked = work.source.read, list[int]()

    def noting(most_bytes: int) -> Batch:
        asked.append(most_bytes)
        return read(most_bytes)

    work.source.read = noting  # type: ignore[method-assign]  # looks on
    try:
        for _ in range(5):
            work.take()
    finally:
        await work.source.close()
    assert asked == [65536, 131072, 262144, MAX_BATCH_BYTES, MAX_BATCH_BYTES]
