"""The states of a row by which people may ask."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from agentd.memory import outbox
from agentd.memory.store import Store
from agentd.records import Delivery, EventType

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


async def test_each_state_can_be_asked_for(tmp_path: Path) -> None:
    """A list that shows a state must also find by it."""
    store = await Store.open(tmp_path)
    for name in ("sent", "late", "refused"):
        delivery = Delivery(name, "ops", name, EventType.FIRING, "{}", NOW, NOW, name)
        await store.state.write(lambda c, each=delivery: outbox.put(c, each))  # type: ignore[misc]  # bound as it is now
    until = NOW + timedelta(hours=1)
    await store.state.write(lambda c: outbox.claim(c, now=NOW, lease_until=until, limit=1))
    await store.state.write(lambda c: outbox.bury(c, "refused", now=NOW, error="no"))

    found = {
        state: [row.delivery.id for row in await store.state.read(lambda c, of=state: outbox.rows(c, state=of))]  # type: ignore[misc]
        for state in outbox.STATES
    }

    assert found == {"waiting": ["sent", "late"], "claimed": ["sent"], "dead": ["refused"]}
    assert await store.state.read(outbox.undelivered) == {"ops": 1}
    await store.close()
