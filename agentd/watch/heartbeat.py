"""
Heartbeats: a job says that it ran, and its silence is what is noticed.

In: beats (by `Beats.beat`, from the API), and the rows that an earlier life of the daemon left.
Out: an observation that fails once a beat is overdue, or at once when the job reports its own failure;
rows to be stored.
Promise: silence is measured on the monotonic clock, so a wall clock that jumps fires nothing. The wall clock is
asked once, at the start, to place the rows of an earlier life. Time in which the machine was suspended does not
count: no beat could have reached us. A beat that fell into our own downtime is pardoned, but at most
`MAX_PARDONS` times in a row, so that a daemon restarted daily at the very hour of the job cannot hide a dead one:
it is told of after at most `MAX_PARDONS + 1` times (expect_every + grace), plus those downtimes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import Field

from agentd.clock import Clock
from agentd.memory.heartbeats import Beat
from agentd.records import Observation
from agentd.secret import Secret
from agentd.settings import Duration, PositiveDuration, Rate, RateLimit, Settings, show_duration
from agentd.watch.probe import Kind, ProbeTools

MAX_PARDONS = 2
MAX_MESSAGE_CHARS = 500
REPORTED_FAILURE = "the job reported failure"
"""Behind it stands what the job said."""

_MIN_GRACE = timedelta(seconds=10)
_MAX_GRACE = timedelta(hours=1)
_MIN_LOOK = timedelta(seconds=1)
_MAX_LOOK = timedelta(seconds=10)


def is_pardoned(
    since: datetime, every: timedelta, grace: timedelta, down: tuple[datetime, datetime], pardons: int
) -> bool:
    """
    Whether the beat awaited after `since` could not have reached us.

    It is awaited from `since + every - grace` to `since + every + grace`; if the daemon was `down` (from, to) at
    any moment of that, it may have been lost, and silence is to be counted anew from the end of the downtime.
    """
    down_from, down_to = down
    if pardons >= MAX_PARDONS or down_to <= since:
        return False
    return down_from <= since + every + grace and down_to >= since + every - grace


class Beats:
    """
    The heartbeats that came in, in memory; the daemon restores them at the start and stores what changed.

    up_since: the start of this daemon. down: its last downtime (from, to), or None at the very first start.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start_s = clock.monotonic()
        self.up_since = clock.now()
        self.down: tuple[datetime, datetime] | None = None
        self._beats: dict[str, Beat] = {}
        self._since_s: dict[str, float] = {}
        self._at_s: dict[str, float] = {}
        self._changed: set[str] = set()

    def restore(self, rows: Iterable[Beat], alive_until: datetime | None) -> None:
        """
        Take over the rows of an earlier life; call it once, before the first look.

        alive_until: the last moment at which that life is known to have run; None when nothing is known of it.
        """
        rows = list(rows)
        if alive_until is None:
            alive_until = min((row.at for row in rows), default=None)
        if alive_until is not None:
            self.down = (min(alive_until, self.up_since), self.up_since)
        for row in rows:
            self._beats[row.watch] = row
            self._at_s[row.watch] = self._placed(row.at)
            self._since_s[row.watch] = self._placed(row.since or row.at)

    def _placed(self, moment: datetime) -> float:
        # A row from the future (the clock was set back meanwhile) counts as just now: late, but never wrong.
        return self._start_s - max(0.0, (self.up_since - moment).total_seconds())

    def beat(self, watch: str, now: datetime, ok: bool = True, message: str = "") -> None:
        """A job reported. The caller has made sure that there is such a watch, and that the job may speak for it."""
        count = self._beats[watch].count if watch in self._beats else 0
        text = " ".join(message.split())[:MAX_MESSAGE_CHARS]
        self._put(Beat(watch, now, ok, text, count + 1))

    def expect(self, watch: str) -> Beat:
        """The last beat of the watch; if none ever came, silence counts from the first call of this."""
        if watch not in self._beats:
            self._put(Beat(watch, self._clock.now()))
        return self._beats[watch]

    def silence(self, watch: str, every: timedelta, grace: timedelta) -> timedelta:
        """How long the next beat has been awaited; pardons one that our downtime may have eaten."""
        beat = self.expect(watch)
        since = beat.since or beat.at
        if self.down is not None and is_pardoned(since, every, grace, self.down, beat.pardons):
            self._beats[watch] = replace(beat, since=self.down[1], pardons=beat.pardons + 1)
            self._since_s[watch] = self._start_s
            self._changed.add(watch)
        return timedelta(seconds=self._clock.monotonic() - self._since_s[watch])

    def age_s(self, watch: str) -> float:
        """Seconds since the last beat came, or since the watch was first known; pardons change nothing of it."""
        return self._clock.monotonic() - self._at_s[watch]

    def take_changed(self) -> list[Beat]:
        """The rows that are newer than the store's; the caller stores them, or gives them back to `keep_changed`."""
        changed = [self._beats[watch] for watch in sorted(self._changed)]
        self._changed.clear()
        return changed

    def keep_changed(self, rows: Iterable[Beat]) -> None:
        """The rows could not be stored (a full disk): hand them out again next time."""
        self._changed.update(row.watch for row in rows if row.watch in self._beats)

    def forget_others(self, watches: Collection[str]) -> list[str]:
        """Drop every watch but these (they left the config); gives the names whose rows are to be deleted."""
        gone = sorted(set(self._beats) - set(watches))
        for watch in gone:
            del self._beats[watch], self._since_s[watch], self._at_s[watch]
            self._changed.discard(watch)
        return gone

    def _put(self, beat: Beat) -> None:
        self._beats[beat.watch] = beat
        self._since_s[beat.watch] = self._at_s[beat.watch] = self._clock.monotonic()
        self._changed.add(beat.watch)


class HeartbeatSettings(Settings):
    """`heartbeat:` a job that must report by POST /api/v1/heartbeat/NAME."""

    expect_every: PositiveDuration = Field(description="the job reports at least this often")
    grace: Duration | None = Field(
        default=None,
        description="how much later it may come; default: a tenth of expect_every, at least 10s, at most 1h",
    )
    token: Secret | None = Field(
        default=None,
        description="what the job sends as bearer token; without one an API key or the unix socket is needed",
    )
    rate: Rate = Field(default=RateLimit(60, 60.0), description="most reports that are taken")

    @property
    def allowed_grace(self) -> timedelta:
        if self.grace is not None:
            return self.grace
        return min(max(self.expect_every / 10, _MIN_GRACE), _MAX_GRACE)

    @property
    def look_every(self) -> timedelta:
        """
        How often to look whether it reported: a look costs nothing, and what is late by its grace is told of at most
        half a grace later; between one second and ten.
        """
        return min(max(self.allowed_grace / 2, _MIN_LOOK), _MAX_LOOK)


class HeartbeatProbe:
    """Looks at what came in; touches no network."""

    def __init__(self, settings: HeartbeatSettings, watch: str, beats: Beats) -> None:
        self._watch = watch
        self._beats = beats
        self._every = settings.expect_every
        self._grace = settings.allowed_grace

    async def look(self, timeout_s: float) -> Observation:
        beat = self._beats.expect(self._watch)
        silence = self._beats.silence(self._watch, self._every, self._grace)
        age_s = self._beats.age_s(self._watch)
        values: dict[str, Any] = {
            "beat_age_s": round(age_s, 3),
            "beats": beat.count,
            "last_ok": beat.ok,
            "message": beat.message,
        }
        complaint = self._complaint(beat, silence, timedelta(seconds=age_s))
        return Observation(values=values, error=complaint, early="no beat yet" if beat.count == 0 else None)

    def _complaint(self, beat: Beat, silence: timedelta, age: timedelta) -> str | None:
        if silence > self._every + self._grace:
            rule = f"expected every {show_duration(self._every)}, grace {show_duration(self._grace)}"
            waited = show_duration(timedelta(seconds=int(age.total_seconds())))
            if beat.count == 0:
                return f"no heartbeat ever, watched for {waited} ({rule})"
            return f"no heartbeat for {waited} ({rule})"
        if not beat.ok:
            said = f": {beat.message}" if beat.message else ""
            return f"{REPORTED_FAILURE}{said}"
        return None

    async def close(self) -> None:
        """Nothing is held."""


def _open(settings: HeartbeatSettings, watch: str, tools: ProbeTools) -> HeartbeatProbe:
    return HeartbeatProbe(settings, watch, tools.beats)


HEARTBEAT = Kind(
    name="heartbeat",
    settings=HeartbeatSettings,
    variables={
        "beat_age_s": "seconds since the last heartbeat, or since the watch was first known",
        "beats": "heartbeats ever received",
        "last_ok": "whether the last one reported success",
        "message": "what the last one said",
    },
    open=_open,
    network=False,
    every=_MAX_LOOK.total_seconds(),
)
