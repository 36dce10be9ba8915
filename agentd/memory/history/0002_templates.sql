-- What is known of each kind of log line, apart from its identity: counts since it was first seen, and samples.

CREATE TABLE templates (
    watch    TEXT NOT NULL,
    id       TEXT NOT NULL,
    pattern  TEXT NOT NULL,
    count    INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    samples  TEXT NOT NULL,
    PRIMARY KEY (watch, id)
) STRICT, WITHOUT ROWID;
