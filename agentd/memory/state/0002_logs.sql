-- What watching logs needs: how far each stream is read, and the state that the rules have led to.

ALTER TABLE alerts ADD COLUMN evidence TEXT NOT NULL DEFAULT '[]';
ALTER TABLE alerts ADD COLUMN last_at INTEGER;

CREATE TABLE log_positions (
    watch  TEXT NOT NULL,
    stream TEXT NOT NULL,
    data   TEXT NOT NULL,
    PRIMARY KEY (watch, stream)
) STRICT, WITHOUT ROWID;

-- digest: of the settings of the rule that the window was made by; under other settings it means nothing.
CREATE TABLE log_windows (
    watch  TEXT NOT NULL,
    rule   TEXT NOT NULL,
    key    TEXT NOT NULL,
    digest TEXT NOT NULL,
    data   TEXT NOT NULL,
    PRIMARY KEY (watch, rule, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE log_templates (
    watch      TEXT NOT NULL,
    id         TEXT NOT NULL,
    pattern    TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    PRIMARY KEY (watch, id)
) STRICT, WITHOUT ROWID;

-- When a watch first followed its source: rules that compare with the past need to know how much past there is.
CREATE TABLE log_started (
    watch TEXT PRIMARY KEY,
    at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
