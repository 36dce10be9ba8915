"""
What a person must be told before anything else: that alerts may not arrive.

In: what store and courier know. Out: plain lines, the worst first, the same for status, page and command line.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

import apsw

from agentd.clock import iso
from agentd.memory import meta, outbox, webhooks

DISABLED = "disabled"
NO_SUCH_WEBHOOK = "no such webhook"


@dataclass(frozen=True, slots=True)
class Hindrances:
    """
    What keeps messages from going out.

    disabled: reasons by webhook. failing: since when, by webhook. waiting, dead: messages by webhook; dead without
    those that something newer has overtaken, buried with them. held: why nothing at all is sent, or None.
    """

    disabled: Mapping[str, str]
    failing: Mapping[str, datetime]
    waiting: Mapping[str, int]
    dead: Mapping[str, int]
    buried: Mapping[str, int]
    held: str | None

    def note(self, webhook: str, known: Collection[str] | None) -> str | None:
        """What a message for this webhook waits for, or None: for its turn. known: the webhooks that there are."""
        if webhook in self.disabled:
            return DISABLED
        return NO_SUCH_WEBHOOK if known is not None and webhook not in known else None


def read_hindrances(c: apsw.Connection) -> Hindrances:
    health, counts = webhooks.health(c), outbox.counts(c)
    return Hindrances(
        webhooks.disabled(c),
        {name: found.failing_since for name, found in health.items() if found.failing_since is not None},
        {name: count.waiting for name, count in counts.items() if count.waiting},
        outbox.undelivered(c),
        {name: count.dead for name, count in counts.items() if count.dead},
        meta.held(c),
    )


def find_trouble(found: Hindrances, known: Collection[str] | None) -> list[str]:
    """known: the webhooks that the configuration names, or None when that cannot be said."""
    lines = []
    if found.held:
        lines.append(f"nothing is sent: {found.held}; look at `agentd outbox list`, then say `agentd doctor resume`")
    for name, why in found.disabled.items():
        if known is None or name in known:
            waiting = _waiting(found.waiting.get(name, 0))
            # Not what the receiver answered: anybody on the machine may read the status.
            why = why.partition(": ")[0]
            lines.append(f"webhook {name} is disabled: {why}; {waiting}; mend it, then `agentd webhook enable {name}`")
    for name, since in found.failing.items():
        if name in found.waiting and name not in found.disabled and (known is None or name in known):
            lines.append(f"webhook {name} fails since {iso(since)}; {_waiting(found.waiting[name])}")
    lines += orphans(found.waiting, known)
    for name, count in found.dead.items():
        messages = "1 message is" if count == 1 else f"{count} messages are"
        lines.append(f"{messages} undeliverable to {name}; `agentd outbox list --state dead` shows why")
    return lines


def orphans(waiting: Mapping[str, int], known: Collection[str] | None) -> list[str]:
    """A line for each webhook that messages wait for and that is gone."""
    return [
        f"{_waiting(count)} for webhook {name}, which the configuration does not name; given up after an hour"
        for name, count in waiting.items()
        if known is not None and name not in known
    ]


def _waiting(count: int) -> str:
    return "1 message waits" if count == 1 else f"{count or 'no'} messages wait"
