//! Reads events by stream and by position, on connections of their own: a long answer holds up no commit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{
    ids::{EventId, RequestId, WorkspaceId},
    recorded::{Families, Family, Personal, Recorded, StreamName},
    time::Timestamp,
};
use tokio::sync::Mutex;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{
    commit::author_of,
    session::{Problem, Server, Session},
    signed, unsigned,
};
use crate::event_log::{ReadError, segments::frame::Link};

/// Connections for readers: views, couriers and actors ask at once, and each connection answers in turn.
const CONNECTIONS: usize = 4;
/// The most bytes of data that one answer has, beyond the first event.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most events of one answer, whatever was asked for.
const ANSWER_EVENTS_MAX: usize = 16_384;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an event's row has, in the order of [`recorded`].
const COLUMNS: &str = "position, seq, stream, revision, id, type, version, recorded_at, workspace, actor, causation, \
                       correlation, data, personal, link, family";

/// An event with what chains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chained {
    pub(super) recorded: Recorded,
    pub(super) link: Link,
    /// As its column says.
    pub(super) family: i16,
}

/// The connections of the readers.
#[derive(Debug)]
pub(super) struct Readers {
    server: Server,
    slots: [Mutex<Slot>; CONNECTIONS],
    next: AtomicUsize,
}

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Empty,
    Open(Arc<Session>),
    /// Could not be made, then: whoever has waited for that try hears why, and does not wait for another one.
    Failed(Instant, String),
}

impl Readers {
    pub(super) fn new(server: Server) -> Self {
        Self { server, slots: Default::default(), next: AtomicUsize::new(0) }
    }

    async fn session(&self) -> Result<(usize, Arc<Session>), ReadError> {
        let (asked, at) = (Instant::now(), self.next.fetch_add(1, Ordering::Relaxed) % CONNECTIONS);
        let mut slot = self.slots[at].lock().await;
        match &*slot {
            Slot::Open(session) if !session.is_lost() => return Ok((at, Arc::clone(session))),
            Slot::Failed(when, reason) if *when > asked => {
                return Err(ReadError::Unavailable(reason.clone()));
            }
            Slot::Empty | Slot::Open(_) | Slot::Failed(..) => {}
        }
        match self.server.connect().await {
            Ok(session) => {
                let session = Arc::new(session);
                *slot = Slot::Open(Arc::clone(&session));
                Ok((at, session))
            }
            Err(problem) => {
                let reason = self.words(&problem);
                *slot = Slot::Failed(Instant::now(), reason.clone());
                Err(ReadError::Unavailable(reason))
            }
        }
    }

    fn words(&self, problem: &Problem) -> String {
        format!("{}: {problem}", self.server.shown())
    }

    async fn ask(
        &self,
        sql: &str,
        values: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, ReadError> {
        let deadline = Instant::now() + PATIENCE;
        let mut tries = 0;
        loop {
            let (at, session) = self.session().await?;
            tries += 1;
            match session.ask(sql, values, PATIENCE).await {
                Ok(rows) => return Ok(rows),
                // Connections that went away while nobody used them, all of them perhaps, are no reason to fail.
                Err(Problem::Lost(_)) if tries <= CONNECTIONS && Instant::now() < deadline => {
                    self.discard(at, &session).await;
                }
                Err(problem) => return Err(ReadError::Unavailable(self.words(&problem))),
            }
        }
    }

    /// Has the next one who comes to this slot make another connection.
    async fn discard(&self, at: usize, session: &Arc<Session>) {
        let mut slot = self.slots[at].lock().await;
        if matches!(&*slot, Slot::Open(open) if Arc::ptr_eq(open, session)) {
            *slot = Slot::Empty;
        }
    }

    /// See [`crate::event_log::EventLog::read_stream`].
    pub(super) async fn read_stream(
        &self,
        stream: &StreamName,
        from_revision: u64,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        let mut events = Vec::new();
        let mut next = from_revision.max(1);
        // All that was asked for: who folds a stream takes a short answer for its end.
        while events.len() < limit {
            let limit = (limit - events.len()).min(ANSWER_EVENTS_MAX);
            let sql = bounded(&format!(
                "SELECT * FROM private_connect.events WHERE stream = $1 AND revision >= $2 ORDER BY revision \
                 LIMIT {limit}"
            ));
            let rows = self.ask(&sql, &[(&stream.as_str(), Type::TEXT), (&signed(next), Type::INT8)]).await?;
            let before = events.len();
            for row in &rows {
                let event = recorded(row)?.recorded;
                if event.stream != *stream || event.revision != next {
                    return Err(ReadError::Damaged(format!(
                        "revision {next} of `{stream}` is missing, at position {} stands revision {}",
                        event.position, event.revision
                    )));
                }
                next += 1;
                events.push(event);
            }
            if events.len() == before {
                break;
            }
        }
        Ok(events)
    }

    /// See [`crate::event_log::EventLog::read_all`].
    pub(super) async fn read_all(
        &self,
        after: u64,
        families: Families,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        let limit = limit.min(ANSWER_EVENTS_MAX);
        let wanted: Vec<Family> = Family::ALL.into_iter().filter(|it| families.contains(*it)).collect();
        let after = signed(after);
        // A part for each family goes along its own index; all of them go along the order itself.
        let part = |condition: &str| {
            format!(
                "SELECT * FROM private_connect.events WHERE {condition} position > {after} ORDER BY position \
                 LIMIT {limit}"
            )
        };
        let events = if wanted.len() == Family::ALL.len() {
            part("")
        } else {
            let parts: Vec<String> = wanted
                .iter()
                .map(|it| format!("({})", part(&format!("family = {} AND", *it as u8))))
                .collect();
            if parts.is_empty() {
                return Ok(Vec::new());
            }
            format!("SELECT * FROM ({}) parts ORDER BY position LIMIT {limit}", parts.join(" UNION ALL "))
        };
        let rows = self.ask(&bounded(&events), &[]).await?;
        let events: Result<Vec<Recorded>, ReadError> =
            rows.iter().map(|row| recorded(row).map(|chained| chained.recorded)).collect();
        let events = events?;
        // Commits become visible in the order of positions, so one that is missing was taken out.
        if wanted.len() == Family::ALL.len() {
            for (event, next) in events.iter().zip(after.saturating_add(1)..) {
                if signed(event.position) != next {
                    return Err(ReadError::Damaged(format!("position {next} is missing")));
                }
            }
        }
        Ok(events)
    }
}

/// Of the events of a query, in the order of their positions, the first and as many more as the bytes allow. Lengths
/// are known without reading what is stored apart for being long.
pub(super) fn bounded(events: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM (
            SELECT *, sum(octet_length(data) + coalesce(octet_length(personal), 0))
                          OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS bytes,
                      row_number() OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS nth
            FROM ({events}) events
        ) events
        WHERE bytes <= {ANSWER_BYTES_MAX} OR nth = 1 ORDER BY position"
    )
}

/// Reads a row of [`COLUMNS`].
pub(super) fn recorded(row: &Row) -> Result<Chained, ReadError> {
    let position: i64 = row.try_get(0).unwrap_or_default();
    form(row).ok_or_else(|| {
        ReadError::Damaged(format!("the event at position {position} does not have the form of one"))
    })
}

fn form(row: &Row) -> Option<Chained> {
    let optional = |at: usize| row.try_get::<_, Option<Uuid>>(at).ok();
    let personal = row.try_get::<_, Option<&[u8]>>(13).ok()?;
    let recorded = Recorded {
        position: unsigned(row.try_get(0).ok()?)?,
        seq: unsigned(row.try_get(1).ok()?)?,
        stream: StreamName::parse(row.try_get(2).ok()?)?,
        revision: unsigned(row.try_get(3).ok()?)?,
        id: EventId::new(row.try_get(4).ok()?),
        event_type: row.try_get::<_, &str>(5).ok()?.into(),
        version: u16::try_from(row.try_get::<_, i32>(6).ok()?).ok()?,
        recorded_at: Timestamp::from_millis(row.try_get(7).ok()?),
        workspace: WorkspaceId::new(row.try_get(8).ok()?),
        actor: author_of(row.try_get(9).ok()?)?,
        causation: optional(10)?.map(EventId::new),
        correlation: optional(11)?.map(RequestId::new),
        data: row.try_get::<_, &str>(12).ok()?.into(),
        personal: personal.map_or(Personal::None, |bytes| Personal::Sealed(bytes.into())),
    };
    let link = row.try_get::<_, &[u8]>(14).ok()?.try_into().ok()?;
    Some(Chained { recorded, link, family: row.try_get(15).ok()? })
}
