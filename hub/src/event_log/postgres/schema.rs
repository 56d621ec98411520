//! The tables, and who may write them: taking the log over, and back after a connection was lost.
//!
//! The row of `head` says where the log ends, who holds it, and in which of the holder's terms. Every commit changes that
//! row, and only if holder, term and position are those that it was made for; every connection of the writer begins a
//! term. So when a new connection has its term, whatever an older one sent is either in the log already or never will
//! be: the row is locked by the one or has another term for the other. The advisory lock beside it only keeps a second
//! hub from starting while the first one lives.

use std::time::Duration;

use domain::{ids::WorkspaceId, recorded::StreamName, time::Timestamp};
use tokio_postgres::{Row, Statement, types::Type};
use uuid::Uuid;

use super::{
    Durable, OpenError, commit, families, judge,
    session::{Problem, Server, Session},
    unsigned,
};
use crate::event_log::segments::chain::{Head, Heads};

/// Of the tables. A change of them is a new number, and a step from the old one.
const LAYOUT: i32 = 1;
/// How long a statement of the setup may take: it may wait for the last commit of a connection that was lost.
const PATIENCE: Duration = Duration::from_secs(15);
/// The oldest server that has every setting that is set (`tcp_user_timeout`) and whose makers still mend it.
const VERSION_MIN: i32 = 130_000;
/// Of the advisory lock, in the database: `pclog_01`.
const LOCK: &str = "8098435780673744945";

/// One row says where the log ends; one a chain where that ends; the rest are events. `C` compares bytes, whatever the
/// server's language.
const TABLES: &str = r#"
CREATE TABLE private_connect.head (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    layout      integer NOT NULL,
    log_id      uuid NOT NULL,
    position    bigint NOT NULL,
    recorded_at bigint,
    holder      uuid NOT NULL,
    term        bigint NOT NULL,
    node        text NOT NULL
) WITH (fillfactor = 10);
CREATE TABLE private_connect.chains (
    workspace uuid NOT NULL,
    family    smallint NOT NULL,
    seq       bigint NOT NULL,
    link      bytea NOT NULL,
    PRIMARY KEY (workspace, family)
) WITH (fillfactor = 50);
CREATE TABLE private_connect.events (
    position    bigint PRIMARY KEY,
    family      smallint NOT NULL,
    stream      text COLLATE "C" NOT NULL,
    revision    bigint NOT NULL,
    id          uuid NOT NULL,
    type        text COLLATE "C" NOT NULL,
    version     integer NOT NULL,
    recorded_at bigint NOT NULL,
    workspace   uuid NOT NULL,
    actor       text COLLATE "C" NOT NULL,
    causation   uuid,
    correlation uuid,
    data        text NOT NULL,
    personal    bytea,
    seq         bigint NOT NULL,
    link        bytea NOT NULL,
    CONSTRAINT events_id UNIQUE (id),
    CONSTRAINT events_revision UNIQUE (stream, revision)
);
CREATE INDEX events_family ON private_connect.events (family, position);
"#;

/// The writer's connection.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) session: Session,
    /// The process that serves it at the server.
    pub(super) pid: i32,
    pub(super) term: i64,
    pub(super) commit: Statement,
    pub(super) revisions: Statement,
    pub(super) known: Statement,
}

/// The log, held.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) session: Writing,
    pub(super) log_id: Uuid,
    pub(super) durable: Durable,
    /// The position of the last seal that stands in the log itself.
    pub(super) last_seal: Option<u64>,
}

/// Why the log is not held again.
#[derive(Debug)]
pub(super) enum Lost {
    /// Not now.
    Away(String),
    /// Another hub has it.
    Over(String),
}

impl From<Problem> for Lost {
    fn from(problem: Problem) -> Self {
        Self::Away(problem.to_string())
    }
}

/// Takes a log that nobody holds, or makes one.
/// `expected`: the only log that is good.
pub(super) async fn take_over(
    server: &Server,
    holder: Uuid,
    expected: Option<Uuid>,
    node: &str,
) -> Result<Taken, OpenError> {
    let shown = server.shown();
    let away = |problem: Problem| match problem {
        // Still starting, or out of connections: it may be otherwise in a moment.
        Problem::Refused { code, reason } if !(code.starts_with("57P") || code.starts_with("53")) => {
            OpenError::Unusable { server: shown.clone(), reason: format!("{reason} (SQLSTATE {code})") }
        }
        Problem::Refused { .. } | Problem::Lost(_) => {
            OpenError::Away { server: shown.clone(), reason: problem.to_string() }
        }
    };
    let unusable = |reason: String| OpenError::Unusable { server: shown.clone(), reason };
    let session = server.connect().await.map_err(|problem| match problem {
        // A wrong password or an unknown database ends the connection, and comes as words alone.
        Problem::Lost(reason) if reason.contains("(SQLSTATE 28") || reason.contains("(SQLSTATE 3D") => {
            unusable(reason)
        }
        Problem::Refused { .. } | Problem::Lost(_) => away(problem),
    })?;
    look_at_server(&session).await.map_err(away)?.map_err(unusable)?;
    if !lock(&session).await.map_err(away)? {
        let node = holder_of(&session).await.map_err(away)?;
        return Err(OpenError::InUse { server: shown.clone(), node });
    }
    let is_there = exists(&session).await.map_err(away)?;
    let found = if is_there { log_id(&session).await.map_err(away)? } else { None };
    if let Some(known) = expected
        && found != expected
    {
        return Err(OpenError::Another { server: shown.clone(), known, found });
    }
    if !is_there {
        make(&session, holder, node).await.map_err(away)?;
    }
    let layout = one(&session, "SELECT layout FROM private_connect.head").await.map_err(away)?;
    let layout: i32 =
        layout.map_or(Ok(0), |row| row.try_get(0)).map_err(|error| unusable(error.to_string()))?;
    if layout != LAYOUT {
        return Err(unusable(format!(
            "its tables have layout {layout}, and this build knows {LAYOUT}; is the hub of another version?"
        )));
    }
    let sql = "UPDATE private_connect.head SET holder = $1, term = term + 1, node = $2
               RETURNING log_id, term, position, recorded_at";
    let rows = session.ask(sql, &[(&holder, Type::UUID), (&node, Type::TEXT)], PATIENCE).await;
    let row = rows.map_err(away)?.pop().ok_or_else(|| unusable("its head is missing".to_owned()))?;
    match held(session, &row).await {
        Ok(Ok(taken)) => Ok(taken),
        Ok(Err(reason)) => Err(OpenError::Damaged { server: shown.clone(), reason }),
        Err(problem) => Err(away(problem)),
    }
}

/// Begins a new term of a holder whose connection was lost. `previous`: the process that served it.
pub(super) async fn take_back(server: &Server, holder: Uuid, previous: i32) -> Result<Taken, Lost> {
    let session = server.connect().await?;
    let sql = "UPDATE private_connect.head SET term = term + 1 WHERE holder = $1
               RETURNING log_id, term, position, recorded_at";
    let mut rows = session.ask(sql, &[(&holder, Type::UUID)], PATIENCE).await?;
    let Some(row) = rows.pop() else {
        let node = holder_of(&session).await?;
        return Err(Lost::Over(format!("another hub, node `{node}`, has taken the event log over")));
    };
    if !lock(&session).await? {
        // Our own older connection, of which the server does not know yet that it is dead. It can write nothing more.
        let end = "SELECT pg_terminate_backend($1) FROM pg_locks
                   WHERE locktype = 'advisory' AND pid = $1 LIMIT 1";
        session.ask(end, &[(&previous, Type::INT4)], PATIENCE).await?;
        return Err(Lost::Away("the connection before is still held at the server".to_owned()));
    }
    let taken = held(session, &row).await?;
    // Whoever changed the tables by hand finds out by `hub verify`; here it only must not go on.
    taken.map_err(Lost::Over)
}

/// What one needs to know before anything is written.
async fn look_at_server(session: &Session) -> Result<Result<(), String>, Problem> {
    let sql = "SELECT current_setting('server_version_num')::integer, current_setting('server_encoding'),
                      current_setting('fsync'), pg_is_in_recovery()";
    let Some(row) = one(session, sql).await? else { return Ok(Err("it says nothing".to_owned())) };
    let read = || -> Result<(i32, String, String, bool), tokio_postgres::Error> {
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
    };
    let (version, encoding, fsync, is_replica) = match read() {
        Ok(read) => read,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if version < VERSION_MIN {
        return Ok(Err(format!(
            "the server has version {}, and 13 is the oldest that is good",
            version / 10_000
        )));
    }
    if encoding != "UTF8" {
        return Ok(Err(format!("the database has the encoding {encoding}; make one with ENCODING 'UTF8'")));
    }
    if is_replica {
        return Err(Problem::Lost("the server is a replica, which takes no writes".to_owned()));
    }
    if fsync == "off" {
        tracing::warn!(
            "the PostgreSQL server runs with fsync=off: what it acknowledges, a power cut can undo"
        );
    }
    Ok(Ok(()))
}

async fn lock(session: &Session) -> Result<bool, Problem> {
    let row = one(session, &format!("SELECT pg_try_advisory_lock({LOCK})")).await?;
    Ok(row.is_some_and(|row| row.try_get(0).unwrap_or(false)))
}

/// The name of the node that has the log.
async fn holder_of(session: &Session) -> Result<String, Problem> {
    if !exists(session).await? {
        return Ok("unknown".to_owned());
    }
    let row = one(session, "SELECT node FROM private_connect.head").await?;
    Ok(row.and_then(|row| row.try_get(0).ok()).unwrap_or_else(|| "unknown".to_owned()))
}

pub(super) async fn exists(session: &Session) -> Result<bool, Problem> {
    let row = one(session, "SELECT to_regclass('private_connect.head') IS NOT NULL").await?;
    Ok(row.is_some_and(|row| row.try_get(0).unwrap_or(false)))
}

/// The identity of the log that is there.
pub(super) async fn log_id(session: &Session) -> Result<Option<Uuid>, Problem> {
    let row = one(session, "SELECT log_id FROM private_connect.head").await?;
    Ok(row.and_then(|row| row.try_get(0).ok()))
}

/// Makes the tables: all of them or none.
async fn make(session: &Session, holder: Uuid, node: &str) -> Result<(), Problem> {
    // An administrator may have made the schema for a role that may make none.
    let row = one(session, "SELECT to_regnamespace('private_connect') IS NULL").await?;
    let is_missing = row.is_some_and(|row| row.try_get(0).unwrap_or(false));
    let schema = if is_missing { "CREATE SCHEMA private_connect;" } else { "" };
    let log_id = Uuid::new_v4();
    // Nodes have plain names, but who knows: a quote ends no text here.
    let node = node.replace('\'', "''");
    let all = format!(
        "BEGIN; {schema} {TABLES} INSERT INTO private_connect.head
             (layout, log_id, position, holder, term, node)
         VALUES ({LAYOUT}, '{log_id}', 0, '{holder}', 0, '{node}'); COMMIT;"
    );
    session.run(&all, PATIENCE).await
}

/// Everything that the writer begins with; the inner error: what is wrong with the tables.
async fn held(session: Session, row: &Row) -> Result<Result<Taken, String>, Problem> {
    let read = || -> Result<(Uuid, i64, i64, Option<i64>), tokio_postgres::Error> {
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
    };
    let (log_id, term, position, recorded_at) = match read() {
        Ok(read) => read,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let sql = format!(
        "SELECT (SELECT position FROM private_connect.events ORDER BY position DESC LIMIT 1), pg_backend_pid(),
                (SELECT position FROM private_connect.events WHERE stream = '{}' ORDER BY revision DESC LIMIT 1)",
        StreamName::seals()
    );
    let row = one(&session, &sql).await?;
    let last: Option<i64> = row.as_ref().and_then(|row| row.try_get(0).ok()).flatten();
    let last_seal: Option<i64> = row.as_ref().and_then(|row| row.try_get(2).ok()).flatten();
    let pid: i32 = row.and_then(|row| row.try_get(1).ok()).unwrap_or_default();
    let last = last.unwrap_or(0);
    if last != position {
        return Ok(Err(format!(
            "its head says that it ends at position {position}, its last event has {last}"
        )));
    }
    let rows =
        session.ask("SELECT workspace, family, seq, link FROM private_connect.chains", &[], PATIENCE).await?;
    let mut heads = Heads::new();
    for row in &rows {
        let Some((chain, head)) = chain_end(row) else {
            return Ok(Err("a chain's end does not have its form".to_owned()));
        };
        heads.insert(chain, head);
    }
    session.run("SET plan_cache_mode = force_generic_plan", PATIENCE).await?;
    let commit = session.prepared(commit::SQL, PATIENCE).await?;
    let revisions = session.prepared(judge::REVISIONS, PATIENCE).await?;
    let known = session.prepared(judge::KNOWN, PATIENCE).await?;
    let durable = Durable {
        position: unsigned(position).unwrap_or(0),
        recorded_at: recorded_at.map(Timestamp::from_millis),
        heads,
    };
    let session = Writing { session, pid, term, commit, revisions, known };
    let last_seal = last_seal.and_then(unsigned);
    Ok(Ok(Taken { session, log_id, durable, last_seal }))
}

pub(super) fn chain_end(row: &Row) -> Option<((WorkspaceId, domain::recorded::Family), Head)> {
    let workspace: Uuid = row.try_get(0).ok()?;
    let family = *families().get(&row.try_get::<_, i16>(1).ok()?)?;
    let seq = unsigned(row.try_get(2).ok()?)?;
    let link = row.try_get::<_, &[u8]>(3).ok()?.try_into().ok()?;
    Some(((WorkspaceId::new(workspace), family), Head { seq, link }))
}

async fn one(session: &Session, sql: &str) -> Result<Option<Row>, Problem> {
    Ok(session.ask(sql, &[], PATIENCE).await?.pop())
}
