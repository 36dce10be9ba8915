-- Who is told of what, and what keeps people from being told.

-- One group of alerts for one webhook, from its first member to its all-clear. first_at: the first look at it; looks
-- follow in ticks from there. look_at: the next one; NULL when nothing but a change calls for one.
CREATE TABLE groups (
    webhook       TEXT NOT NULL,
    key           TEXT NOT NULL,
    labels        TEXT NOT NULL,
    first_at      INTEGER NOT NULL,
    look_at       INTEGER,
    pace          TEXT NOT NULL,
    told_at       INTEGER,
    told_firing   TEXT NOT NULL DEFAULT '[]',
    told_resolved TEXT NOT NULL DEFAULT '[]',
    told_muted    TEXT NOT NULL DEFAULT '[]',
    reminders     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (webhook, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX groups_look ON groups (look_at) WHERE look_at IS NOT NULL;

-- fired: the payload's data when it fired, data: as it is now. one_off: to be told although nobody saw it fire.
-- muted: it was when it ended. news: something about it changed that is to be told although it was told of already.
CREATE TABLE group_members (
    webhook     TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    firing      INTEGER NOT NULL,
    one_off     INTEGER NOT NULL,
    news        INTEGER NOT NULL,
    muted       INTEGER NOT NULL DEFAULT 0,
    event       TEXT NOT NULL,
    at          INTEGER NOT NULL,
    fired       TEXT NOT NULL,
    data        TEXT NOT NULL,
    traceparent TEXT,
    PRIMARY KEY (webhook, key, fingerprint)
) STRICT, WITHOUT ROWID;

CREATE INDEX group_members_of ON group_members (fingerprint);

-- matchers: a JSON list of texts such as watch="shop". ended_by: who ended it before its time; ends_at says when.
CREATE TABLE silences (
    id        TEXT PRIMARY KEY,
    matchers  TEXT NOT NULL,
    starts_at INTEGER NOT NULL,
    ends_at   INTEGER NOT NULL,
    author    TEXT NOT NULL,
    reason    TEXT NOT NULL,
    ended_by  TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX silences_end ON silences (ends_at);

-- Reminders are the group's business now.
ALTER TABLE alerts DROP COLUMN reminders;
ALTER TABLE alerts DROP COLUMN remind_at;
ALTER TABLE alerts ADD COLUMN escalated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE alerts ADD COLUMN outcomes TEXT NOT NULL DEFAULT '';

-- What an all-clear supersedes is found without a look at every dead letter.
CREATE INDEX outbox_dead_in ON outbox (webhook, lane) WHERE state = 'dead' AND superseded = 0;
