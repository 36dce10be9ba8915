-- What agents are asked, what came of it, and what it cost.

-- asked: JSON of what was asked beyond the goal. chain: JSON list of the watches that led to this run, the first one
-- in front. finding, plan: JSON. usd_nano: billionths of a dollar; NULL: a price was not known. models: JSON list.
ALTER TABLE runs ADD COLUMN kind          TEXT NOT NULL DEFAULT 'goal';
ALTER TABLE runs ADD COLUMN goal          TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN fingerprint   TEXT;
ALTER TABLE runs ADD COLUMN priority      INTEGER NOT NULL DEFAULT 1 CHECK (priority BETWEEN 0 AND 3);
ALTER TABLE runs ADD COLUMN asked         TEXT NOT NULL DEFAULT '{}';
ALTER TABLE runs ADD COLUMN chain         TEXT NOT NULL DEFAULT '[]';
ALTER TABLE runs ADD COLUMN finding       TEXT;
ALTER TABLE runs ADD COLUMN answer        TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN plan          TEXT;
ALTER TABLE runs ADD COLUMN steps         INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN tool_calls    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN model_calls   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN input_tokens  INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN output_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN cached_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN usd_nano      INTEGER DEFAULT 0;
ALTER TABLE runs ADD COLUMN models        TEXT NOT NULL DEFAULT '[]';

DROP INDEX runs_open;
CREATE INDEX runs_queued    ON runs (priority DESC, due_at, number) WHERE state = 'queued';
CREATE INDEX runs_queued_of ON runs (watch) WHERE state = 'queued';
CREATE INDEX runs_running   ON runs (number) WHERE state = 'running';
CREATE INDEX runs_open_of   ON runs (fingerprint, number) WHERE state IN ('queued', 'running');
CREATE INDEX runs_about     ON runs (fingerprint, number) WHERE fingerprint IS NOT NULL;

-- What models took. A day is UTC, as 2026-11-20. What is reserved counts from the moment it is reserved.
CREATE TABLE spend (
    day           TEXT NOT NULL,
    watch         TEXT NOT NULL,
    run           TEXT NOT NULL,
    model         TEXT NOT NULL,
    calls         INTEGER NOT NULL,
    tokens        INTEGER NOT NULL,
    usd_nano      INTEGER NOT NULL,
    unknown_calls INTEGER NOT NULL,            -- calls whose price is not known
    PRIMARY KEY (day, watch, run, model)
) STRICT, WITHOUT ROWID;

CREATE INDEX spend_run ON spend (run);

-- The same, summed, so that a budget is looked up and not added up. watch: NULL is all of them together.
CREATE TABLE spend_days (
    day           TEXT NOT NULL,
    watch         TEXT,
    calls         INTEGER NOT NULL,
    tokens        INTEGER NOT NULL,
    usd_nano      INTEGER NOT NULL,
    unknown_calls INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX spend_days_watch ON spend_days (day, watch) WHERE watch IS NOT NULL;
CREATE UNIQUE INDEX spend_days_all   ON spend_days (day) WHERE watch IS NULL;

-- Calls that were paid for in advance and are not settled yet.
CREATE TABLE spend_open (
    id       TEXT PRIMARY KEY,
    run      TEXT NOT NULL,
    day      TEXT NOT NULL,
    watch    TEXT NOT NULL,
    model    TEXT NOT NULL,
    tokens   INTEGER NOT NULL,
    usd_nano INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX spend_open_run ON spend_open (run);
