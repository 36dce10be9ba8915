-- Tasks that were asked for together. after: id of the run that this one begins behind. held: that one has not ended yet.
-- stops: if that one does not complete, this one is cancelled.

ALTER TABLE runs ADD COLUMN batch TEXT;
ALTER TABLE runs ADD COLUMN after TEXT;
ALTER TABLE runs ADD COLUMN held  INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0, 1));
ALTER TABLE runs ADD COLUMN stops INTEGER NOT NULL DEFAULT 0 CHECK (stops IN (0, 1));

-- By kind: how many of one kind start is bounded apart from the others, and nobody reads past those that wait longer.
DROP INDEX runs_queued;
CREATE INDEX runs_ready ON runs (kind, priority DESC, due_at, number) WHERE state = 'queued' AND held = 0;
CREATE INDEX runs_held  ON runs (after) WHERE state = 'queued' AND held = 1;

-- What people asked for, newest first: all of it, and by state.
CREATE INDEX runs_asked    ON runs (number) WHERE kind IN ('task', 'session');
CREATE INDEX runs_asked_in ON runs (state, number) WHERE kind IN ('task', 'session');
