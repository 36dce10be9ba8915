-- The first schema of the history file. Moments are whole microseconds since 1970, UTC. Nothing here is needed to alert.

-- Raw results, in the order they came. No index by watch: at hundreds of checks a second it would dirty a page for
-- every one of them. Plots read the roll-ups; what did not go well has a small index of its own.
CREATE TABLE results (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    watch       TEXT NOT NULL,
    at          INTEGER NOT NULL,
    verdict     INTEGER NOT NULL,           -- 0 ok, 1 failing, 2 blind
    duration_us INTEGER NOT NULL,
    latency_us  INTEGER,
    summary     TEXT NOT NULL,
    trace_id    TEXT
) STRICT;

CREATE INDEX results_bad ON results (watch, number) WHERE verdict <> 0;

-- level: seconds covered by a row (60, 3600, 86400), which begins at `at`.
CREATE TABLE rollups (
    level      INTEGER NOT NULL,
    watch      TEXT NOT NULL,
    at         INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    failing    INTEGER NOT NULL,
    blind      INTEGER NOT NULL,
    timed      INTEGER NOT NULL,            -- results with a latency
    sum_us     INTEGER NOT NULL,
    min_us     INTEGER,
    max_us     INTEGER,
    histogram  TEXT NOT NULL,               -- "class:count,…"; see rollups.py
    PRIMARY KEY (level, watch, at)
) STRICT, WITHOUT ROWID;

CREATE INDEX rollups_age ON rollups (level, at);

-- How far the results are rolled up.
CREATE TABLE rolled (
    only   INTEGER PRIMARY KEY CHECK (only = 1),
    number INTEGER NOT NULL
) STRICT;

INSERT INTO rolled VALUES (1, 0);

-- Traces: all spans of one run in a row.
CREATE TABLE spans (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    trace_id   TEXT NOT NULL,
    watch      TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    data       TEXT NOT NULL
) STRICT;

CREATE INDEX spans_trace ON spans (trace_id);
CREATE INDEX spans_watch ON spans (watch, failed, number);

-- What happened: transitions, deliveries, reloads. Append only.
CREATE TABLE events (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    watch       TEXT,
    fingerprint TEXT,
    data        TEXT NOT NULL
) STRICT;

CREATE INDEX events_watch       ON events (watch, number) WHERE watch IS NOT NULL;
CREATE INDEX events_fingerprint ON events (fingerprint, number) WHERE fingerprint IS NOT NULL;
