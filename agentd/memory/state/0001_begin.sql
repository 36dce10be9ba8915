-- The first schema of the state file. Moments are whole microseconds since 1970, UTC.

CREATE TABLE alerts (
    fingerprint   TEXT PRIMARY KEY,
    instance      TEXT NOT NULL,
    watch         TEXT NOT NULL,
    rule          TEXT,
    severity      TEXT NOT NULL,
    status        TEXT NOT NULL,
    by            TEXT NOT NULL,
    labels        TEXT NOT NULL,
    "window"      TEXT NOT NULL,
    oks           INTEGER NOT NULL,
    blind_since   INTEGER,
    pending_since INTEGER,
    started_at    INTEGER,
    ended_at      INTEGER,
    reason        TEXT,
    reason_text   TEXT NOT NULL,
    summary       TEXT NOT NULL,
    "values"      TEXT NOT NULL,
    failed        TEXT NOT NULL,
    occurrences   INTEGER NOT NULL,
    reminders     INTEGER NOT NULL,
    remind_at     INTEGER,
    acked_by      TEXT,
    muted_by      TEXT,
    flapping      INTEGER NOT NULL,
    told          TEXT NOT NULL,
    trace_id      TEXT
) STRICT, WITHOUT ROWID;

-- Deliveries. `head` marks the first waiting row of each (webhook, lane): only a head is ever sent, so that
-- order holds and a claim looks at no row that cannot go, however many wait behind it.
CREATE TABLE outbox (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    webhook     TEXT NOT NULL,
    lane        TEXT NOT NULL,
    type        TEXT NOT NULL,
    fingerprint TEXT,
    data        TEXT NOT NULL,
    traceparent TEXT,
    created_at  INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    last_error  TEXT,
    last_status INTEGER,
    state       TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'dead')),
    head        INTEGER NOT NULL DEFAULT 0,
    leased      INTEGER NOT NULL DEFAULT 0,
    ready_at    INTEGER NOT NULL,            -- due_at, or the end of the lease while leased
    dead_at     INTEGER,
    superseded  INTEGER NOT NULL DEFAULT 0   -- dead, and something newer about the same alert arrived
) STRICT;

CREATE INDEX outbox_ready   ON outbox (webhook, ready_at) WHERE head = 1;
CREATE UNIQUE INDEX outbox_head ON outbox (webhook, lane) WHERE head = 1;
CREATE INDEX outbox_lane    ON outbox (webhook, lane, seq) WHERE state = 'waiting';
CREATE INDEX outbox_remind  ON outbox (fingerprint, webhook) WHERE state = 'waiting' AND type = 'alert.reminder';
CREATE INDEX outbox_dead    ON outbox (dead_at) WHERE state = 'dead';
CREATE INDEX outbox_dead_of ON outbox (fingerprint, webhook) WHERE state = 'dead' AND superseded = 0;

-- What receivers took, without the message itself; the newest ten thousand.
CREATE TABLE delivered (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL,
    seq          INTEGER NOT NULL,
    webhook      TEXT NOT NULL,
    lane         TEXT NOT NULL,
    type         TEXT NOT NULL,
    fingerprint  TEXT,
    created_at   INTEGER NOT NULL,
    delivered_at INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    status       INTEGER
) STRICT;

CREATE INDEX delivered_id ON delivered (id);

CREATE TABLE webhooks (
    name          TEXT PRIMARY KEY,
    disabled_at   INTEGER,
    reason        TEXT,
    failing_since INTEGER,
    last_success  INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE probes (
    watch     TEXT PRIMARY KEY,
    last_due  INTEGER,
    last_done INTEGER,
    verdict   TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,
    watch      TEXT NOT NULL,
    trigger    TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN
               ('queued', 'running', 'completed', 'failed', 'stopped', 'cancelled', 'interrupted')),
    due_at     INTEGER NOT NULL,
    started_at INTEGER,
    ended_at   INTEGER,
    error      TEXT,
    trace_id   TEXT
) STRICT;

CREATE INDEX runs_open  ON runs (due_at) WHERE state IN ('queued', 'running');
CREATE INDEX runs_watch ON runs (watch, number);
CREATE INDEX runs_ended ON runs (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE heartbeats (
    watch   TEXT PRIMARY KEY,
    at      INTEGER NOT NULL,
    ok      INTEGER NOT NULL,
    message TEXT NOT NULL,
    count   INTEGER NOT NULL,
    since   INTEGER,
    pardons INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE pauses (
    watch  TEXT PRIMARY KEY,
    by     TEXT NOT NULL,
    at     INTEGER NOT NULL,
    until  INTEGER,
    reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    who    TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
