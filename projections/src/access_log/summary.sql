-- What is true of all days together. A file whose text differs from this one is thrown away with all days.
CREATE TABLE shares (
    share BLOB PRIMARY KEY,
    workspace BLOB NOT NULL,
    accesses INTEGER NOT NULL,
    denied INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    last_accessed_at INTEGER
) WITHOUT ROWID;
CREATE TABLE tunnels (
    tunnel BLOB PRIMARY KEY,
    workspace BLOB NOT NULL,
    -- Through shares, ports and reach together.
    last_activity_at INTEGER NOT NULL,
    -- Through ports and reach.
    connections INTEGER NOT NULL,
    -- Through all of them.
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL
) WITHOUT ROWID;
-- Which days a share has accesses on, so that a question opens no other file.
CREATE TABLE share_days (
    share BLOB NOT NULL,
    day INTEGER NOT NULL,
    PRIMARY KEY (share, day)
) WITHOUT ROWID;
-- What each day's file holds at least; lags are `recorded_at - accessed_at` (milliseconds), smallest and largest.
CREATE TABLE days (
    day INTEGER PRIMARY KEY,
    first_position INTEGER NOT NULL,
    last_position INTEGER NOT NULL,
    lag_min INTEGER NOT NULL,
    lag_max INTEGER NOT NULL
);
-- Accesses that were recorded while they ran, and how they ended.
CREATE TABLE running (
    event BLOB NOT NULL,
    place INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    latency_ms INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    ended_by TEXT,
    -- Where the access was, and the day that it was recorded on; null where that is not known (yet).
    share BLOB,
    tunnel BLOB,
    day INTEGER,
    PRIMARY KEY (event, place)
) WITHOUT ROWID;
-- Accesses that were running when the part that is being retired ended: empty but for a moment.
CREATE TABLE carried (
    event BLOB NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (event, place)
) WITHOUT ROWID;
-- The first event of the family that is in these sums: what was retired before it was summed up by others.
CREATE TABLE counted (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    first_position INTEGER NOT NULL
);
