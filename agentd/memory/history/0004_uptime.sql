-- Of an hour or a day: in how many of its minutes somebody could look, and how long these were well, in microseconds.
-- NULL: not counted; of a minute it follows from its checks, of what an older agentd rolled up it is estimated.
ALTER TABLE rollups ADD COLUMN seen INTEGER;
ALTER TABLE rollups ADD COLUMN well_us INTEGER;
