//! Ports of databases: never published, by no flag (seed 001, "Automatic Protection").

/// The engine behind a protected port; `None` for every other port.
pub const fn protected_engine(port: u16) -> Option<&'static str> {
    Some(match port {
        5432 => "PostgreSQL",
        3306 => "MySQL",
        27017 => "MongoDB",
        6379 | 6380 => "Redis",
        26257 => "CockroachDB",
        9042 => "Cassandra",
        8529 => "ArangoDB",
        7687 => "Neo4j",
        1433 => "SQL Server",
        1521 => "Oracle",
        50000 => "DB2",
        _ => return None,
    })
}
