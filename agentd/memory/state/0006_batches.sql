-- Tasks that were asked for together. after: id of the run that this one begins behind. stops: if that one does not
-- complete, this one is cancelled. waits_for: id of the run that has to end first: that one, or if it was cancelled while
-- it waited itself, the one that it waited for.

ALTER TABLE runs ADD COLUMN batch     TEXT;
ALTER TABLE runs ADD COLUMN after     TEXT;
ALTER TABLE runs ADD COLUMN stops     INTEGER NOT NULL DEFAULT 0 CHECK (stops IN (0, 1));
ALTER TABLE runs ADD COLUMN waits_for TEXT;

-- By kind: how many of one kind start is bounded apart from the others, and nobody reads past those that wait longer.
DROP INDEX runs_queued;
CREATE INDEX runs_ready ON runs (kind, priority DESC, due_at, number) WHERE state = 'queued' AND waits_for IS NULL;
CREATE INDEX runs_held  ON runs (waits_for) WHERE waits_for IS NOT NULL;

-- What people asked for, newest first: all of it, and by state.
CREATE INDEX runs_asked    ON runs (number) WHERE kind IN ('task', 'session');
CREATE INDEX runs_asked_in ON runs (state, number) WHERE kind IN ('task', 'session');
