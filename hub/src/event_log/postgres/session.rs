//! One connection to the server, with the settings that the log relies on, and what an error of it means.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{sync::watch, task::AbortHandle, time::timeout};
use tokio_postgres::{
    AsyncMessage, Client, Row, Socket, Statement,
    error::Severity,
    types::{ToSql, Type},
};
use wire::tls::trust;

use super::{
    OpenError,
    address::Address,
    tls::{Encrypted, Tls},
};

/// How long a connection may take from its first packet to its last setting.
const CONNECT_PATIENCE: Duration = Duration::from_secs(8);
/// How long a connection that is closed in order may take to say farewell.
const FAREWELL: Duration = Duration::from_secs(1);
/// What commits notify of their position: a hint to look, nothing more.
pub(super) const CHANNEL: &str = "private_connect";

/// Nothing of what the log is depends on the settings of the server, the database or the role. A commit has to be on
/// disk (and where the server's administrator set up synchronous replicas, there) when it is acknowledged; a peer that
/// is gone is noticed by the server too, which then gives its locks to others.
const SETTINGS: &str = "
SET search_path = pg_catalog;
SET client_min_messages = warning;
SET default_transaction_isolation = 'read committed';
SET default_transaction_read_only = off;
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = '60s';
SET tcp_keepalives_idle = 10;
SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 3;
SET tcp_user_timeout = 15000;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
";

/// What went wrong with a statement, split by what is known of its outcome.
#[derive(Debug, Clone)]
pub(super) enum Problem {
    /// The server refused it: nothing of it happened. The connection is good.
    Refused { code: String, reason: String },
    /// The connection is gone or silent: it may have happened.
    Lost(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, reason } => write!(f, "{reason} (SQLSTATE {code})"),
            Self::Lost(reason) => f.write_str(reason),
        }
    }
}

impl From<&tokio_postgres::Error> for Problem {
    fn from(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            // What ends a session says nothing about the statement that it ended with.
            Some(db) if db.parsed_severity() == Some(Severity::Error) => {
                Self::Refused { code: db.code().code().to_owned(), reason: db.message().to_owned() }
            }
            Some(_) | None => Self::Lost(words(error)),
        }
    }
}

/// An error and its causes. Of what the server says only the message: details show values of rows.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        // Some wrappers say what they wrap.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Where connections lead.
#[derive(Debug, Clone)]
pub(super) struct Server {
    address: Address,
    tls: Tls,
}

impl Server {
    pub(super) fn new(address: Address) -> Result<Self, OpenError> {
        let config = match address.trust() {
            Some(trust) => trust.client_config()?,
            None => trust::nobody(),
        };
        Ok(Self { address, tls: Tls(Arc::new(config)) })
    }

    /// The server and the database, for words.
    pub(super) fn shown(&self) -> String {
        self.address.to_string()
    }

    /// Connects. Call it on the runtime that the connection is to live on.
    pub(super) async fn connect(&self) -> Result<Session, Problem> {
        let connecting = async {
            let connected = self.address.config().connect(self.tls.clone()).await;
            let (client, connection) = connected.map_err(|error| Problem::from(&error))?;
            let session = Session::new(client, connection);
            session.client.batch_execute(SETTINGS).await.map_err(|error| Problem::from(&error))?;
            Ok(session)
        };
        let silent = || Problem::Lost(format!("no answer within {} s", CONNECT_PATIENCE.as_secs()));
        timeout(CONNECT_PATIENCE, connecting).await.unwrap_or_else(|_| Err(silent()))
    }
}

/// A connection and the task that moves its bytes, which ends with it.
pub(super) struct Session {
    client: Client,
    /// Why it ended, once it has.
    ended: watch::Receiver<Option<String>>,
    /// Counts the notifications that came.
    notified: watch::Receiver<u64>,
    /// Until it is closed in order.
    task: Option<AbortHandle>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("ended", &*self.ended.borrow()).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Whatever waits for a server that is silent must not wait any longer.
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Session {
    fn new(client: Client, mut connection: tokio_postgres::Connection<Socket, Encrypted<Socket>>) -> Self {
        let (end, ended) = watch::channel(None);
        let (notify, notified) = watch::channel(0);
        let task = tokio::spawn(async move {
            let reason = loop {
                match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(_))) => notify.send_modify(|count| *count += 1),
                    // Notices say what nobody asked for.
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break words(&error),
                    None => break "the connection was closed".to_owned(),
                }
            };
            drop(connection);
            end.send_replace(Some(reason));
        });
        Self { client, ended, notified, task: Some(task.abort_handle()) }
    }

    /// Waits until the connection is gone; says why.
    pub(super) async fn lost(&self) -> String {
        let mut ended = self.ended.clone();
        let reason = ended.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| "the connection was closed".to_owned())
    }

    pub(super) fn is_lost(&self) -> bool {
        self.client.is_closed()
    }

    /// Changes with every notification.
    pub(super) fn notified(&self) -> watch::Receiver<u64> {
        self.notified.clone()
    }

    /// Runs statements that have no parameters and no answer.
    pub(super) async fn run(&self, sql: &str, patience: Duration) -> Result<(), Problem> {
        in_time(patience, self.client.batch_execute(sql)).await
    }

    /// Makes a statement ready that is executed often.
    pub(super) async fn prepared(&self, sql: &str, patience: Duration) -> Result<Statement, Problem> {
        in_time(patience, self.client.prepare(sql)).await
    }

    /// Executes a prepared statement.
    pub(super) async fn execute(
        &self,
        statement: &Statement,
        values: &[&(dyn ToSql + Sync)],
        patience: Duration,
    ) -> Result<Vec<Row>, Problem> {
        in_time(patience, self.client.query(statement, values)).await
    }

    /// Asks once, with the types of the values.
    pub(super) async fn ask(
        &self,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
        patience: Duration,
    ) -> Result<Vec<Row>, Problem> {
        in_time(patience, self.client.query_typed(sql, values)).await
    }

    /// Closes it in order, if the server takes part in that: its locks are free then.
    pub(super) async fn close(mut self) {
        if self.is_lost() {
            return;
        }
        // The server may take a moment to end a session, and the next hub should not have to wait for that.
        drop(self.run("SELECT pg_advisory_unlock_all()", FAREWELL).await);
        let (mut ended, task) = (self.ended.clone(), self.task.take());
        // Without its client a connection sends what it has, says farewell and ends.
        drop(self);
        let over = async { ended.wait_for(Option::is_some).await.is_ok() };
        if timeout(FAREWELL, over).await.is_err()
            && let Some(task) = task
        {
            task.abort();
        }
    }
}

async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Problem> {
    match timeout(patience, work).await {
        Ok(done) => done.map_err(|error| Problem::from(&error)),
        Err(_) => Err(Problem::Lost(format!("no answer within {} s", patience.as_secs()))),
    }
}
