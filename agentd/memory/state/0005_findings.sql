-- What an agent found out about an alert's incident, and what that took: JSON, as the payload shows them.

ALTER TABLE alerts ADD COLUMN finding TEXT;
ALTER TABLE alerts ADD COLUMN cost    TEXT;

-- JSON list of the files that a run wrote.
ALTER TABLE runs ADD COLUMN artifacts TEXT NOT NULL DEFAULT '[]';

-- Messages of alerts that wait to be told together with what an agent finds.
CREATE INDEX outbox_held ON outbox (fingerprint) WHERE state = 'waiting' AND type = 'alert.firing' AND attempts = 0;
