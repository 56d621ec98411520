-- Where every recorded event of a workspace stands and what it concerns; what it says is read from the log.
-- A file whose text differs from this one is thrown away and filled again.
CREATE TABLE events (
    workspace BLOB NOT NULL,
    -- The number of its family.
    family INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    -- The log's own position: the order between families.
    position INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    type TEXT NOT NULL,
    -- The id of a key or an agent, or the name of a part of the hub.
    actor TEXT NOT NULL,
    stream TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (workspace, family, seq)
) WITHOUT ROWID;
-- The last number of what was retired.
CREATE TABLE retired (
    workspace BLOB NOT NULL,
    family INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (workspace, family)
) WITHOUT ROWID;
-- Facts alone are asked for by these, and no claims.
CREATE INDEX facts_by_type ON events (workspace, type, seq) WHERE family = 0 AND type NOT GLOB 'claim.*';
CREATE INDEX facts_by_actor ON events (workspace, actor, seq) WHERE family = 0 AND type NOT GLOB 'claim.*';
-- Which facts concern a thing: by its own stream, by name, or through what it belongs to.
CREATE TABLE concerns (
    workspace BLOB NOT NULL,
    thing BLOB NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (thing, workspace, seq)
) WITHOUT ROWID;
-- What a thing belongs to, as the first fact of its stream said.
CREATE TABLE things (
    workspace BLOB NOT NULL,
    thing BLOB NOT NULL,
    owner BLOB NOT NULL,
    PRIMARY KEY (thing, workspace, owner)
) WITHOUT ROWID;
