"""
The ledger: what ran, what is to run, what was due and not done.

Runs (goals, tasks) have a row each; probes have one row per watch, written now and then, never per check.
Promise: a run that was queued is never forgotten, and after a crash none is still called running.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, Literal, get_args

import apsw

from agentd.clock import from_optional_us, from_us, optional_us, to_us
from agentd.memory import spend
from agentd.memory.columns import bounded_json, clipped, first, from_json, text, to_json, value, whole_json
from agentd.records import Verdict

RunKind = Literal["goal", "investigate", "task", "session"]
KINDS: tuple[RunKind, ...] = get_args(RunKind)

MAX_GOAL = 32 * 1024
MAX_ANSWER = 64 * 1024
MAX_JSON = 64 * 1024
MAX_ASKED = 256 * 1024
"""Characters of JSON of what was asked, without what only describes it."""
_MAX_ERROR = 2000
_NO_LIMITS: Mapping[RunKind, int] = dict.fromkeys(KINDS, 10_000)
_MAX_NAME = 200
_MAX_CHAIN = 50
_MAX_MODELS = 20
_MAX_ARTIFACTS = 100
_MAX_PATH = 4096
_MOST = 10**15
_RAREST = timedelta(days=730)
# What only describes a run may be cut. All else of `asked` says how far it is narrowed: without that it could do more.
_DESCRIBES = ("metadata", "payload")
_CUT = "left_out"


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Priority(IntEnum):
    """Of queued runs the highest starts first, the oldest within one."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3

    @property
    def word(self) -> Literal["low", "normal", "high", "critical"]:
        """As requests and jobs write it; back by `Priority[word.upper()]`."""
        return _WORDS[self.value]


_WORDS: tuple[Literal["low", "normal", "high", "critical"], ...] = ("low", "normal", "high", "critical")


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """
    What came of a run.

    finding, plan: plain JSON. usd_nano: billionths of a dollar, None when a price was not known. models: those that
    answered, by their names in the config. artifacts: files that it wrote.
    """

    answer: str = ""
    finding: Mapping[str, Any] | None = None
    plan: Mapping[str, Any] | None = None
    steps: int = 0
    tool_calls: int = 0
    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    usd_nano: int | None = 0
    models: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """
    One execution of a goal or task.

    trigger: what started it (`schedule`, `cron`, `startup`, `api`, `alert:NAME`, …). due_at: when it had to start.
    fingerprint: of the alert that it is about. asked: plain JSON of what was asked beyond the goal. chain: the watches
    that led to it, the first one in front. batch: what it was asked for together with. after: the run of its batch
    that it begins behind. stops: it is cancelled when that one does not complete.
    """

    id: str
    watch: str
    trigger: str
    due_at: datetime
    state: RunState = RunState.QUEUED
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    trace_id: str | None = None
    kind: RunKind = "goal"
    goal: str = ""
    fingerprint: str | None = None
    priority: Priority = Priority.NORMAL
    asked: Mapping[str, Any] = field(default_factory=dict)
    chain: tuple[str, ...] = ()
    batch: str | None = None
    after: str | None = None
    stops: bool = False
    outcome: RunOutcome = RunOutcome()


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """When a watch's probe was last due and last done, and what came of it."""

    watch: str
    last_due: datetime | None = None
    last_done: datetime | None = None
    verdict: Verdict | None = None


_COLUMNS = """id, watch, trigger, due_at, state, started_at, ended_at, error, trace_id, kind, goal, fingerprint,
    priority, asked, chain, answer, finding, plan, steps, tool_calls, model_calls, input_tokens, output_tokens,
    cached_tokens, usd_nano, models, artifacts, batch, after, stops"""
_QUEUE = """
    INSERT INTO runs (id, watch, trigger, state, due_at, trace_id, kind, goal, fingerprint, priority, asked, chain,
                      batch, after, stops, waits_for)
    VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_START = "UPDATE runs SET state = 'running', started_at = ?2 WHERE id = ?1 AND state = 'queued'"
# Values of variables for commands are often passwords, and of no use once the run is over.
_FORGET_ENVIRONMENT = "asked = iif(json_valid(asked), json_remove(asked, '$.environment'), asked)"
_END = f"""
    UPDATE runs SET state = ?2, ended_at = ?3, error = ?4, trace_id = coalesce(?5, trace_id), {_FORGET_ENVIRONMENT}
    WHERE id = ?1 AND (state = 'queued' OR (state = 'running' AND NOT ?6))"""
_CAME = """
    UPDATE runs SET answer = ?2, finding = ?3, plan = ?4, steps = ?5, tool_calls = ?6, model_calls = ?7,
                    input_tokens = ?8, output_tokens = ?9, cached_tokens = ?10, usd_nano = ?11, models = ?12,
                    artifacts = ?13
    WHERE id = ?1"""
_INTERRUPT = f"""
    UPDATE runs SET state = 'interrupted', ended_at = ?1, error = ?2, {_FORGET_ENVIRONMENT} WHERE state = 'running'"""
_QUEUED = """
    SELECT id, watch, kind, trigger, priority, due_at, number FROM runs
    WHERE kind = ? AND state = 'queued' AND waits_for IS NULL AND due_at <= ?
    ORDER BY priority DESC, due_at, number LIMIT ?"""
_WAITS_FOR = "SELECT waits_for FROM runs WHERE id = ?"
_RELEASE = "UPDATE runs SET waits_for = ?2 WHERE waits_for = ?1 AND (state <> 'queued' OR stops = 0 OR ?3)"
_HELD_BEHIND = "SELECT id FROM runs WHERE waits_for = ? AND state = 'queued'"
_RUNNING_IDS = "SELECT id FROM runs WHERE state = 'running'"
_WAITING = "SELECT count(*) FROM runs WHERE state = 'queued' AND watch = ?"
_ALL_WAITING = "SELECT count(*) FROM runs WHERE state = 'queued'"
_RUNNING = f"SELECT {_COLUMNS} FROM runs WHERE state = 'running' ORDER BY number"
_OPEN_OF = f"""
    SELECT {_COLUMNS} FROM runs INDEXED BY runs_open_of WHERE fingerprint = ? AND state IN ('queued', 'running')
    ORDER BY number DESC LIMIT 1"""
_STATE = "SELECT state FROM runs WHERE id = ?"
_QUEUED_ABOUT = f"""
    SELECT {_COLUMNS} FROM runs INDEXED BY runs_open_of
    WHERE fingerprint = ? AND state IN ('queued', 'running') AND state = 'queued' AND watch = ? AND kind = ?
    ORDER BY number LIMIT 1"""
_ASK_ANEW = "UPDATE runs SET asked = ?2, priority = max(priority, ?3) WHERE id = ?1 AND state = 'queued'"
_LOOKED_INTO = "SELECT count(*) FROM runs WHERE fingerprint = ? AND watch = ? AND due_at >= ?"
_GET = f"SELECT {_COLUMNS} FROM runs WHERE id = ?"
_FURTHER = "(?5 IS NULL OR number < ?5)"
_RUNS = f"""
    SELECT {_COLUMNS} FROM runs
    WHERE (?1 IS NULL OR watch = ?1) AND (?2 IS NULL OR state = ?2) AND (?3 IS NULL OR kind = ?3) AND {_FURTHER}
    ORDER BY number DESC LIMIT ?4"""
_OF_WATCH = f"""
    SELECT {_COLUMNS} FROM runs WHERE watch = ?1 AND (?2 IS NULL OR state = ?2) AND (?3 IS NULL OR kind = ?3)
    AND {_FURTHER} ORDER BY number DESC LIMIT ?4"""
_ABOUT = f"""
    SELECT {_COLUMNS} FROM runs WHERE fingerprint = ?1 AND (?2 IS NULL OR state = ?2) AND (?3 IS NULL OR kind = ?3)
    AND {_FURTHER} ORDER BY number DESC LIMIT ?4"""
_ASKED_FOR = f"""
    SELECT {_COLUMNS} FROM runs INDEXED BY runs_asked WHERE kind IN ('task', 'session') AND number < ?1
    ORDER BY number DESC LIMIT ?2"""
_ASKED_FOR_IN = f"""
    SELECT {_COLUMNS}, number FROM runs INDEXED BY runs_asked_in
    WHERE kind IN ('task', 'session') AND state = ?3 AND number < ?1 ORDER BY number DESC LIMIT ?2"""
_NUMBER = "SELECT number FROM runs WHERE id = ?"
_COUNTS = "SELECT state, count(*) FROM runs GROUP BY state"
_LAST_DUE = "SELECT max(due_at) FROM runs WHERE watch = ? AND kind = 'goal'"
# Whether a watch's goal was missed is told by its newest run, be that as long ago as the goal is rare.
_FREE = """
    (kind <> 'goal' OR ended_at < ?1 OR EXISTS (
        SELECT 1 FROM runs AS newer
        WHERE newer.watch = runs.watch AND newer.kind = 'goal' AND newer.number > runs.number))
"""
_TRIM_OLD = f"""
    DELETE FROM runs WHERE number IN
        (SELECT number FROM runs WHERE ended_at < ?2 AND {_FREE} ORDER BY ended_at LIMIT ?3)"""
_TRIM_MANY = f"""
    DELETE FROM runs WHERE number IN
        (SELECT number FROM runs WHERE ended_at IS NOT NULL AND {_FREE} ORDER BY ended_at LIMIT ?2)"""
_PULL_IN = "UPDATE runs SET due_at = ?1 WHERE state = 'queued' AND due_at > ?1"
_ENDED = "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL"
_SIZE = """
    SELECT avg(400 + octet_length(goal) + octet_length(asked) + octet_length(answer) +
               coalesce(octet_length(finding), 0) + coalesce(octet_length(plan), 0) + coalesce(octet_length(error), 0))
    FROM (SELECT * FROM runs WHERE ended_at IS NOT NULL ORDER BY ended_at DESC LIMIT 200)"""
_SAVE_PROBE = "INSERT OR REPLACE INTO probes (watch, last_due, last_done, verdict) VALUES (?, ?, ?, ?)"
_PROBES = "SELECT watch, last_due, last_done, verdict FROM probes"
_FORGET_PROBE = "DELETE FROM probes WHERE watch = ?"


def queue(c: apsw.Connection, run: Run, *, held: bool = False) -> None:
    """
    Remember that `run` is to start at its due time; what is longer than the store keeps is cut, save what narrows
    the run: of a run that `was_cut` it is known at least that it is not what was asked.

    held: it is not to start before `run.after` has ended.
    Raises apsw.ConstraintError when the id is known.
    """
    c.execute(
        _QUEUE,
        (
            text(run.id),
            text(run.watch),
            clipped(run.trigger, _MAX_NAME),
            to_us(run.due_at),
            run.trace_id,
            run.kind,
            clipped(run.goal, MAX_GOAL),
            run.fingerprint,
            int(run.priority),
            _kept(run.asked),
            to_json([clipped(each, _MAX_NAME) for each in run.chain[-_MAX_CHAIN:]]),
            run.batch,
            run.after,
            run.stops,
            run.after if held else None,
        ),
    )


def is_kept(asked: Mapping[str, Any]) -> bool:
    """Whether the ledger takes all of it that narrows a run."""
    return whole_json(_narrows(asked), MAX_ASKED) is not None


def was_cut(run: Run) -> bool:
    """Whether anything is missing of what narrows this run, which must then not start."""
    return _CUT in run.asked


def asks_the_same(known: Run, run: Run) -> bool:
    """
    Whether `run`, not queued yet, asks for what `known` was asked for, whoever asks. Of a run that has ended the values
    for commands are forgotten, and not compared.
    """
    kept, asked = dict(known.asked), from_json(_kept(run.asked))
    if known.ended_at is not None:
        kept.pop("environment", None)
        asked.pop("environment", None)
    said = (known.kind, known.goal, known.priority, kept)
    return said == (run.kind, clipped(run.goal, MAX_GOAL), run.priority, asked)


def start(c: apsw.Connection, id: str, now: datetime) -> bool:
    """False when it is not queued any more (cancelled meanwhile)."""
    c.execute(_START, (id, to_us(now)))
    return c.changes() > 0


def end(
    c: apsw.Connection,
    id: str,
    now: datetime,
    state: RunState,
    *,
    error: str | None = None,
    trace_id: str | None = None,
    outcome: RunOutcome | None = None,
    unbegun: bool = False,
) -> bool:
    """
    It came to an end; only the first end counts: False when it had ended already. unbegun: False when it has begun.

    What the run had reserved and not settled by then stays counted as spent.
    """
    why = None if error is None else clipped(error, _MAX_ERROR)
    c.execute(_END, (id, state.value, to_us(now), why, trace_id, unbegun))
    if c.changes() == 0:
        return False
    if outcome is not None:
        c.execute(_CAME, (id, *_came(outcome)))
    spend.close_run(c, id)
    let_go(c, id, now, state)
    return True


def let_go(c: apsw.Connection, id: str, now: datetime, state: RunState) -> None:
    """
    What is held behind this run, which ended so, may start; or is cancelled, where it is meant to be. Of a run that was
    held itself, it waits on for what that one waited for.
    """
    ended = [(id, state is RunState.COMPLETED)]
    while ended:
        id, completed = ended.pop()
        ahead = first(c.execute(_WAITS_FOR, (id,)))
        c.execute(_RELEASE, (id, ahead and ahead[0], completed))
        left: list[Any] = c.execute(_HELD_BEHIND, (id,)).fetchall()
        for (behind,) in left:
            why = f"the task before it in its batch did not complete: {id}"
            c.execute(_END, (behind, RunState.CANCELLED.value, to_us(now), why, None, True))
            ended.append((behind, False))


def interrupt_all_running(c: apsw.Connection, now: datetime, why: str = "the daemon stopped while it ran") -> int:
    """At start: nobody runs what the last process was running. Returns how many there were."""
    running: list[Any] = c.execute(_RUNNING_IDS).fetchall()
    c.execute(_INTERRUPT, (to_us(now), clipped(why, _MAX_ERROR)))
    found = c.changes()
    spend.close_all(c)
    for (id,) in running:
        let_go(c, id, now, RunState.INTERRUPTED)
    return found


@dataclass(frozen=True, slots=True)
class Queued:
    """What of a run that waits decides whether it is to start."""

    id: str
    watch: str
    kind: RunKind
    trigger: str
    priority: Priority
    due_at: datetime


def queued(c: apsw.Connection, now: datetime, limits: Mapping[RunKind, int] = _NO_LIMITS) -> list[Queued]:
    """
    The runs that are to start now: the highest priority in front, within one what was due first.

    limits: so many of a kind at most. What waits for another's end is not among them.
    """
    found: list[Any] = []
    for kind, limit in limits.items():
        found += c.execute(_QUEUED, (kind, to_us(now), limit)).fetchall()
    found.sort(key=lambda row: (-row[4], *row[5:]))
    return [
        Queued(id, watch, kind, trigger, Priority(priority), from_us(due_at))
        for id, watch, kind, trigger, priority, due_at, _ in found
    ]


def pull_in(c: apsw.Connection, now: datetime) -> int:
    """
    What waits for later than `now` is due now: a run is due when it is queued at the latest, so the clock was ahead.

    Returns how many moved.
    """
    c.execute(_PULL_IN, (to_us(now),))
    return c.changes()


def waiting(c: apsw.Connection, watch: str | None = None) -> int:
    """How many runs of the watch are queued; None: of all watches."""
    return int(value(c.execute(_ALL_WAITING) if watch is None else c.execute(_WAITING, (watch,))))


def running(c: apsw.Connection) -> list[Run]:
    """Oldest first."""
    return [_run(row) for row in c.execute(_RUNNING)]


def open_of(c: apsw.Connection, fingerprint: str) -> Run | None:
    """The newest run about this alert that is queued or running."""
    row = first(c.execute(_OPEN_OF, (fingerprint,)))
    return _run(row) if row else None


def is_running(c: apsw.Connection, id: str) -> bool:
    return first(c.execute(_STATE, (id,))) == (RunState.RUNNING.value,)


def queued_about(c: apsw.Connection, fingerprint: str, watch: str, kind: RunKind) -> Run | None:
    """The run of this watch about this alert that waits already."""
    row = first(c.execute(_QUEUED_ABOUT, (fingerprint, watch, kind)))
    return _run(row) if row else None


def ask_anew(c: apsw.Connection, id: str, run: Run) -> None:
    """The run that waits is to be about what `run` asks, and no later than that one would be."""
    c.execute(_ASK_ANEW, (id, _kept(run.asked), int(run.priority)))


def looked_into(c: apsw.Connection, fingerprint: str, watch: str, *, since: datetime) -> bool:
    """Whether a run of this watch about this alert was asked for since then."""
    return bool(value(c.execute(_LOOKED_INTO, (fingerprint, watch, to_us(since)))))


def get(c: apsw.Connection, id: str) -> Run | None:
    row = first(c.execute(_GET, (id,)))
    return _run(row) if row else None


def runs(
    c: apsw.Connection,
    *,
    watch: str | None = None,
    state: RunState | None = None,
    kind: RunKind | None = None,
    fingerprint: str | None = None,
    limit: int = 100,
    before: int | None = None,
) -> list[Run]:
    """Newest first: about an alert, of a watch, or of all. before: only those that were queued before this `number`."""
    query = _ABOUT if fingerprint is not None else _OF_WATCH if watch is not None else _RUNS
    about = watch if fingerprint is None else fingerprint
    found = c.execute(query, (about, state and state.value, kind, limit, before))
    return [_run(row) for row in found]


def asked_for(
    c: apsw.Connection, *, states: Sequence[RunState] = (), limit: int = 100, before: int | None = None
) -> list[Run]:
    """What people asked for, newest first. states: only those; empty: all. before: as for `runs`."""
    further = _MOST if before is None else before
    if not states:
        return [_run(row) for row in c.execute(_ASKED_FOR, (further, limit))]
    found: list[Any] = []
    for state in states:
        found += c.execute(_ASKED_FOR_IN, (further, limit, state.value)).fetchall()
    found.sort(key=lambda row: row[-1], reverse=True)
    return [_run(row) for row in found[:limit]]


def number(c: apsw.Connection, id: str) -> int | None:
    """How many-th run this is; None for one that is not known."""
    row = first(c.execute(_NUMBER, (id,)))
    return None if row is None else int(row[0])


def counts(c: apsw.Connection) -> dict[RunState, int]:
    """Runs by state, of those that are kept."""
    found: list[Any] = c.execute(_COUNTS).fetchall()
    return {RunState(state): number for state, number in found}


def last_due(c: apsw.Connection, watch: str) -> datetime | None:
    """When the latest run of the watch's own goal was due: from there on runs may have been missed."""
    return from_optional_us(value(c.execute(_LAST_DUE, (watch,))))


def trim(
    c: apsw.Connection,
    before: datetime,
    *,
    max_rows: int = 100_000,
    max_bytes: int | None = None,
    limit: int = 500,
) -> int:
    """
    Delete up to `limit` ended runs that ended before `before` or are too many; returns how many went. The newest run of
    each watch's goal stays for two years more: from there on runs may have been missed.

    max_bytes: what all of them may take, about; judged by the newest.
    """
    forgotten = to_us(before - _RAREST)
    c.execute(_TRIM_OLD, (forgotten, to_us(before), limit))
    gone = c.changes()
    if gone >= limit:
        return gone
    if max_bytes is not None and (size := value(c.execute(_SIZE))) is not None:
        max_rows = min(max_rows, int(max_bytes / size))
    surplus = value(c.execute(_ENDED)) - max_rows
    if surplus > 0:
        c.execute(_TRIM_MANY, (forgotten, min(surplus, limit - gone)))
        gone += c.changes()
    return gone


def save_probes(c: apsw.Connection, rows: Iterable[ProbeRow]) -> None:
    """Write what changed since the last call: once a minute and at stop, in one go."""
    c.executemany(
        _SAVE_PROBE,
        [
            (text(row.watch), optional_us(row.last_due), optional_us(row.last_done), row.verdict and row.verdict.value)
            for row in rows
        ],
    )


def load_probes(c: apsw.Connection) -> dict[str, ProbeRow]:
    """By watch."""
    found: list[Any] = c.execute(_PROBES).fetchall()
    return {
        watch: ProbeRow(watch, from_optional_us(due), from_optional_us(done), Verdict(verdict) if verdict else None)
        for watch, due, done, verdict in found
    }


def forget_probe(c: apsw.Connection, watch: str) -> None:
    """The config no longer names it."""
    c.execute(_FORGET_PROBE, (watch,))


def _narrows(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in asked.items() if key not in _DESCRIBES}


def _kept(asked: Mapping[str, Any]) -> str:
    found = whole_json(_narrows(asked), MAX_ASKED)
    if found is None:
        return to_json({_CUT: "it was too long"})
    kept = from_json(found)
    for key in _DESCRIBES:
        if key in asked:
            kept[key] = from_json(bounded_json({key: asked[key]}, MAX_JSON)).get(key, {_CUT: "it was too long"})
    return to_json(kept)


def _came(outcome: RunOutcome) -> tuple[Any, ...]:
    return (
        clipped(outcome.answer, MAX_ANSWER),
        None if outcome.finding is None else bounded_json(outcome.finding, MAX_JSON),
        None if outcome.plan is None else bounded_json(outcome.plan, MAX_JSON),
        _count(outcome.steps),
        _count(outcome.tool_calls),
        _count(outcome.model_calls),
        _count(outcome.input_tokens),
        _count(outcome.output_tokens),
        _count(outcome.cached_tokens),
        None if outcome.usd_nano is None else _count(outcome.usd_nano),
        to_json([clipped(each, _MAX_NAME) for each in outcome.models[:_MAX_MODELS]]),
        to_json([clipped(each, _MAX_PATH) for each in outcome.artifacts[:_MAX_ARTIFACTS]]),
    )


def _count(number: int) -> int:
    return min(max(number, 0), _MOST)


def _run(row: tuple[Any, ...]) -> Run:
    return Run(
        id=row[0],
        watch=row[1],
        trigger=row[2],
        due_at=from_us(row[3]),
        state=RunState(row[4]),
        started_at=from_optional_us(row[5]),
        ended_at=from_optional_us(row[6]),
        error=row[7],
        trace_id=row[8],
        kind=row[9],
        goal=row[10],
        fingerprint=row[11],
        priority=Priority(row[12]),
        asked=from_json(row[13]),
        chain=tuple(from_json(row[14])),
        outcome=RunOutcome(
            answer=row[15],
            finding=_optional_json(row[16]),
            plan=_optional_json(row[17]),
            steps=row[18],
            tool_calls=row[19],
            model_calls=row[20],
            input_tokens=row[21],
            output_tokens=row[22],
            cached_tokens=row[23],
            usd_nano=row[24],
            models=tuple(from_json(row[25])),
            artifacts=tuple(from_json(row[26])),
        ),
        batch=row[27],
        after=row[28],
        stops=bool(row[29]),
    )


def _optional_json(stored: str | None) -> Any:
    return None if stored is None else from_json(stored)
