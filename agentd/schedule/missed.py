"""
Which runs of a cron line were missed while nobody was there to run them.

In: the line, when it was last due and done, now, and the policy.  Out: the runs to make up, oldest first.
Promise: pure, and never more than a day's worth of hourly runs, however long the time off.

Probes skip, always: a look at the past is of no use.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from agentd.cron import CronSchedule

Policy = Literal["skip", "once", "all"]

MOST_RUNS = 24


def missed_runs(schedule: CronSchedule, last_due: datetime | None, now: datetime, policy: Policy) -> list[datetime]:
    """
    The fires after `last_due` up to `now` that `policy` wants made up, oldest first, in UTC.

    last_due: None for a job that never ran: nothing was missed. One after `now` (the clock was set back since)
    means the same. policy: `skip` none, `once` the latest, `all` the newest 24.
    """
    if last_due is None or policy == "skip":
        return []
    wanted = 1 if policy == "once" else MOST_RUNS
    found: list[datetime] = []
    until = now
    while len(found) < wanted and (at := schedule.last_until(until, last_due)) is not None:
        found.append(at)
        # Fires are whole minutes: the one before is at most this late.
        until = at - datetime.resolution
    return found[::-1]
