-- The catalog's tables. A file whose text differs from this one is thrown away and filled again from the log.
-- Every primary key begins with the workspace, so that no question can cross its border. Times are milliseconds.
CREATE TABLE agents (
    workspace BLOB NOT NULL,
    id BLOB NOT NULL,
    label TEXT NOT NULL,
    name TEXT NOT NULL,
    client_type TEXT,
    ephemeral INTEGER NOT NULL,
    token_expires_at INTEGER NOT NULL,
    agent_version TEXT,
    session BLOB,
    node TEXT,
    boot BLOB,
    connected_at INTEGER,
    last_seen_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER,
    revision INTEGER NOT NULL,
    PRIMARY KEY (workspace, id)
) WITHOUT ROWID;
CREATE INDEX agents_kept ON agents (workspace, id) WHERE deleted_at IS NULL;
CREATE INDEX agents_by_name ON agents (workspace, name, id) WHERE deleted_at IS NULL AND ephemeral = 0;
CREATE INDEX agents_online ON agents (node) WHERE session IS NOT NULL;

CREATE TABLE tunnels (
    workspace BLOB NOT NULL,
    id BLOB NOT NULL,
    agent BLOB NOT NULL,
    name TEXT NOT NULL,
    target_host TEXT NOT NULL,
    target_port INTEGER NOT NULL,
    tunnel_port INTEGER NOT NULL,
    protocol TEXT NOT NULL,
    is_public INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    paused INTEGER NOT NULL,
    session BLOB,
    outage TEXT,
    connected_at INTEGER,
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    closed_at INTEGER,
    revision INTEGER NOT NULL,
    PRIMARY KEY (workspace, id)
) WITHOUT ROWID;
CREATE INDEX tunnels_open ON tunnels (workspace, id) WHERE closed_at IS NULL;
CREATE INDEX tunnels_of_agent ON tunnels (workspace, agent, id) WHERE closed_at IS NULL;

CREATE TABLE shares (
    workspace BLOB NOT NULL,
    id BLOB NOT NULL,
    tunnel BLOB NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    allowed_paths TEXT,
    allowed_methods TEXT,
    rate_limit_per_min INTEGER,
    slug TEXT NOT NULL,
    slug_chosen INTEGER NOT NULL,
    read_only INTEGER NOT NULL,
    token_digest BLOB,
    token_preview TEXT NOT NULL,
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    revoked_at INTEGER,
    revoke_reason TEXT,
    ended_at INTEGER,
    revision INTEGER NOT NULL,
    PRIMARY KEY (workspace, id)
) WITHOUT ROWID;
CREATE INDEX shares_live ON shares (workspace, id) WHERE ended_at IS NULL;
CREATE INDEX shares_of_tunnel ON shares (workspace, tunnel, id);
-- The two questions without a workspace: a visitor has nothing but a token or a slug.
CREATE INDEX shares_former_by_token ON shares (token_digest) WHERE ended_at IS NOT NULL;
CREATE INDEX shares_former_by_slug ON shares (slug, ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE keys (
    workspace BLOB NOT NULL,
    id BLOB NOT NULL,
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    scopes TEXT NOT NULL,
    allowed_ip_ranges TEXT NOT NULL,
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER,
    PRIMARY KEY (workspace, id)
) WITHOUT ROWID;
CREATE INDEX keys_live ON keys (workspace, id) WHERE revoked_at IS NULL;

-- Commands to agents. The order, its outcome and what ended it are JSON as in the events.
CREATE TABLE commands (
    workspace BLOB NOT NULL,
    id BLOB NOT NULL,
    agent BLOB NOT NULL,
    agent_order TEXT NOT NULL,
    status TEXT NOT NULL,
    outcome TEXT,
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (workspace, id)
) WITHOUT ROWID;
CREATE INDEX commands_of_agent ON commands (workspace, agent, id);
