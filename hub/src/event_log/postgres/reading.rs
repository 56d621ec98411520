//! A log in a database that is only read, whoever writes it: for commands that look back.
//!
//! Commits notify of themselves; that is a hint to look at once. What is true is what is asked every half second.

use std::{sync::Arc, time::Duration};

use domain::recorded::{Families, Recorded};
use tokio::{sync::watch, time::sleep};
use uuid::Uuid;

use super::{
    OpenError, Threads,
    address::Address,
    reader::Readers,
    schema,
    session::{CHANNEL, Problem, Server, Session},
    unsigned,
};
use crate::event_log::ReadError;

/// How often the head is asked for when nothing is heard.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a server that went away is left alone.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// A log that is read.
#[derive(Debug)]
pub struct Reading {
    log_id: Uuid,
    head: watch::Receiver<u64>,
    readers: Arc<Readers>,
    threads: Threads,
}

impl Reading {
    /// Looks at the log in a database.
    ///
    /// # Errors
    /// [`OpenError`]: the server cannot be reached, or there is no log.
    pub async fn open(address: Address) -> Result<Self, OpenError> {
        let server = Server::new(address)?;
        let threads = Threads::start("log")?;
        let (shown, following) = (server.shown(), server.clone());
        let away = |problem: Problem| OpenError::Away { server: shown.clone(), reason: problem.to_string() };
        let none = |reason: &str| OpenError::Unusable { server: shown.clone(), reason: reason.to_owned() };
        let first = threads.spawn(async move {
            let session = following.connect().await?;
            if !schema::exists(&session).await? {
                return Ok(None);
            }
            let known = look(&session).await?;
            Ok::<_, Problem>(known.map(|known| (session, following, known)))
        });
        let found = first.await.map_err(|error| OpenError::Threads(std::io::Error::other(error)))?;
        let Some((session, following, (log_id, position))) = found.map_err(away)? else {
            return Err(none("there is no event log in it"));
        };
        let (shows, head) = watch::channel(position);
        threads.spawn(follow(session, following, shows));
        Ok(Self { log_id, head, readers: Arc::new(Readers::new(server)), threads })
    }

    /// The identity of this log.
    pub fn log_id(&self) -> Uuid {
        self.log_id
    }

    /// The position of the last event, watched: every event up to it is readable.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// As [`crate::event_log::EventLog::read_all`].
    ///
    /// # Errors
    /// The server is away, or the log is damaged.
    pub async fn read_all(
        &self,
        after: u64,
        families: Families,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        let readers = Arc::clone(&self.readers);
        let read = self.threads.spawn(async move { readers.read_all(after, families, limit).await }).await;
        read.unwrap_or_else(|error| Err(ReadError::Unavailable(error.to_string())))
    }
}

/// Shows where the log ends for as long as anybody wants to know.
async fn follow(session: Session, server: Server, shows: watch::Sender<u64>) {
    let mut connected = Some(session);
    while !shows.is_closed() {
        let session = match connected.take() {
            Some(session) => Ok(session),
            None => server.connect().await,
        };
        let problem = match session {
            Ok(session) => follow_on(&session, &shows).await,
            Err(problem) => problem,
        };
        tracing::debug!(%problem, "the event log is not followed for a moment");
        sleep(TRY_AGAIN_AFTER).await;
    }
}

/// The same with this connection, until it is no longer good.
async fn follow_on(session: &Session, shows: &watch::Sender<u64>) -> Problem {
    if let Err(problem) = session.run(&format!("LISTEN {CHANNEL}"), PATIENCE).await {
        return problem;
    }
    let mut notified = session.notified();
    loop {
        match look(session).await {
            Ok(Some((_, position))) => {
                shows.send_if_modified(|shown| {
                    let further = position > *shown;
                    *shown = position.max(*shown);
                    further
                });
            }
            Ok(None) => return Problem::Lost("the event log is gone".to_owned()),
            Err(problem) => return problem,
        }
        tokio::select! {
            reason = session.lost() => return Problem::Lost(reason),
            () = shows.closed() => return Problem::Lost("nobody wants to know".to_owned()),
            _ = notified.changed() => {}
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// The log's id and where it ends.
async fn look(session: &Session) -> Result<Option<(Uuid, u64)>, Problem> {
    let rows = session.ask("SELECT log_id, position FROM private_connect.head", &[], PATIENCE).await?;
    Ok(rows.first().and_then(|row| Some((row.try_get(0).ok()?, unsigned(row.try_get(1).ok()?)?))))
}
