-- A message for a webhook. Rows leave some weeks after they are done.
CREATE TABLE deliveries (
    webhook BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    workspace BLOB NOT NULL,
    id BLOB NOT NULL,
    message_id BLOB NOT NULL,
    event_type TEXT NOT NULL,
    source TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- pending, retrying, delivered, dead_lettered
    status TEXT NOT NULL,
    tries INTEGER NOT NULL,
    next_at INTEGER,
    done_at INTEGER,
    gave_up TEXT,
    PRIMARY KEY (webhook, sequence)
) WITHOUT ROWID;

CREATE INDEX deliveries_by_id ON deliveries (id);
CREATE INDEX deliveries_by_status ON deliveries (webhook, status, sequence);
CREATE INDEX deliveries_by_end ON deliveries (done_at) WHERE done_at IS NOT NULL;

CREATE TABLE tries (
    webhook BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    latency_ms INTEGER NOT NULL,
    status INTEGER,
    problem TEXT,
    PRIMARY KEY (webhook, sequence, number)
) WITHOUT ROWID;
