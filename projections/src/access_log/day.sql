-- The accesses of one day, packed as they were recorded. Rows are only ever appended.
CREATE TABLE packed (
    position INTEGER PRIMARY KEY,
    share BLOB NOT NULL,
    recorded_at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    -- Which status codes and methods are in it, as bits (Facets): what has none of those asked for is not unpacked.
    facets INTEGER NOT NULL,
    event BLOB NOT NULL,
    version INTEGER NOT NULL,
    data TEXT NOT NULL,
    personal BLOB
);
CREATE INDEX packed_by_share ON packed (share, recorded_at, seq, first_at, last_at, facets);
