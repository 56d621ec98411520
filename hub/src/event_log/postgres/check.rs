//! Checks the whole log in a database: its order, its chains, its seals. Changes nothing, and may run while a hub
//! writes: it looks at the log as it stood when it began.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    time::Duration,
};

use domain::{
    event::Event,
    ids::EventId,
    recorded::{Family, Personal, Recorded, StreamName},
    seal,
    time::Timestamp,
};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{
    Threads,
    address::Address,
    reader::{self, Chained},
    schema,
    session::{Problem, Server, Session},
    signed, unsigned,
};
use crate::{
    event_log::{
        ReadError,
        segments::{
            SEAL_BYTES, Seal,
            chain::{Head, Heads, heads_hash},
            frame::{self, Content, Link, Place},
            list_seals_in,
        },
        verify::{BadRow, LastSeal, VerifyFailure, VerifyReport, cannot, hex, read_seals},
    },
    keyring::seal_public_keys,
};

/// Events read at once.
const PAGE: usize = 4_096;
/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Checks the log at an address, with the seals of a folder (which may be missing) and the keys of a keyring.
/// `expected_head` is a head noted at any earlier time.
///
/// # Errors
/// [`VerifyFailure`], naming the first bad event.
pub async fn verify(
    address: Address,
    keyring: &Path,
    seals: &Path,
    expected_head: Option<&str>,
) -> Result<VerifyReport, VerifyFailure> {
    let keys = seal_public_keys(keyring).map_err(cannot)?;
    let files = list_seals_in(seals).map_err(cannot)?;
    let expected_head = expected_head.map(str::to_owned);
    let threads = Threads::start("verify").map_err(cannot)?;
    let checking = threads.spawn(async move {
        let server = Server::new(address).map_err(cannot)?;
        let session =
            server.connect().await.map_err(|problem| cannot(format!("{}: {problem}", server.shown())))?;
        let log = server.shown();
        let unreadable = |problem: Problem| cannot(format!("{log}: {problem}"));
        let is_there = schema::exists(&session).await.map_err(unreadable)?;
        let log_id = if is_there { schema::log_id(&session).await.map_err(unreadable)? } else { None };
        let Some(log_id) = log_id else { return Err(cannot(format!("there is no event log in {log}"))) };
        // Before the log: a hub may be writing both, and what was sealed was committed before.
        let kept = read_seals(&files, log_id, &keys)?;
        let check = Check::begin(session, server.shown(), log_id).await?;
        let mut waiting: Vec<Waiting> = kept.iter().map(|found| Waiting::kept(&found.seal)).collect();
        waiting.extend(check.recorded_seals(&keys).await?);
        waiting.sort_by_key(|waiting| waiting.position);
        let last_seal = kept
            .last()
            .map(|found| LastSeal { position: found.seal.position, recorded_at: found.seal.recorded_at });
        check.run(waiting, last_seal, expected_head).await
    });
    checking.await.map_err(cannot)?
}

/// A statement about the log at a position, until the walk gets there.
struct Waiting {
    position: u64,
    heads: Link,
    /// The event that made it, if one did.
    event: Option<(u64, EventId)>,
}

impl Waiting {
    fn kept(seal: &Seal) -> Self {
        Self { position: seal.position, heads: seal.heads, event: None }
    }
}

struct Check {
    session: Session,
    log: String,
    log_id: Uuid,
    /// Where the log says that it ends.
    end: u64,
    heads: Heads,
    recorded_at: Option<Timestamp>,
    revisions: HashMap<StreamName, u64>,
    events: [u64; 3],
    position: u64,
    frame: Vec<u8>,
}

impl Check {
    async fn begin(session: Session, log: String, log_id: Uuid) -> Result<Self, VerifyFailure> {
        let mut check = Self {
            session,
            log,
            log_id,
            end: 0,
            heads: Heads::new(),
            recorded_at: None,
            revisions: HashMap::new(),
            events: [0; 3],
            position: 0,
            frame: Vec::new(),
        };
        let begin = check.session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", PATIENCE).await;
        begin.map_err(|problem| cannot(format!("{}: {problem}", check.log)))?;
        let rows = check.ask("SELECT position FROM private_connect.head", &[]).await?;
        let end = rows.first().and_then(|row| unsigned(row.try_get(0).ok()?));
        check.end = end.ok_or_else(|| check.bad(0, "the row that says where it ends is missing"))?;
        Ok(check)
    }

    async fn ask(
        &self,
        sql: &str,
        values: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)],
    ) -> Result<Vec<tokio_postgres::Row>, VerifyFailure> {
        let rows = self.session.ask(sql, values, PATIENCE).await;
        rows.map_err(|problem| cannot(format!("{}: {problem}", self.log)))
    }

    fn bad(&self, position: u64, reason: &str) -> VerifyFailure {
        let log = self.log.clone();
        VerifyFailure::BadRow(BadRow { log, position, stream: None, event: None, reason: reason.to_owned() })
    }

    fn bad_event(&self, recorded: &Recorded, reason: &str) -> VerifyFailure {
        VerifyFailure::BadRow(BadRow {
            log: self.log.clone(),
            position: recorded.position,
            stream: Some(recorded.stream.to_string()),
            event: Some(recorded.id),
            reason: reason.to_owned(),
        })
    }

    async fn page(&self, condition: &str, after: u64) -> Result<Vec<Chained>, VerifyFailure> {
        let sql = reader::bounded(&format!(
            "SELECT * FROM private_connect.events WHERE {condition} position > $1 ORDER BY position LIMIT {PAGE}"
        ));
        let rows = self.ask(&sql, &[(&signed(after), Type::INT8)]).await?;
        let read = rows.iter().map(reader::recorded).collect::<Result<_, ReadError>>();
        read.map_err(|error| match error {
            ReadError::Damaged(reason) => self.bad(after + 1, &reason),
            ReadError::Unavailable(reason) => cannot(reason),
        })
    }

    /// What the log says of itself.
    async fn recorded_seals(&self, keys: &[[u8; 32]]) -> Result<Vec<Waiting>, VerifyFailure> {
        let condition = format!("stream = '{}' AND", StreamName::seals());
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let page = self.page(&condition, after).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = last.recorded.position;
            for Chained { recorded, .. } in page {
                let seal = sealed(&recorded, self.log_id, keys);
                let seal = seal.map_err(|reason| self.bad_event(&recorded, reason))?;
                if seal.position >= recorded.position {
                    return Err(self.bad_event(&recorded, "a seal of what comes after it"));
                }
                let event = Some((recorded.position, recorded.id));
                found.push(Waiting { position: seal.position, heads: seal.heads, event });
            }
        }
    }

    async fn run(
        mut self,
        waiting: Vec<Waiting>,
        last_seal: Option<LastSeal>,
        expected_head: Option<String>,
    ) -> Result<VerifyReport, VerifyFailure> {
        let seals = waiting.iter().filter(|waiting| waiting.event.is_none()).count() as u64;
        let mut waiting = waiting.into_iter().peekable();
        let mut expected_head_at = None;
        loop {
            let page = self.page("", self.position).await?;
            if page.is_empty() {
                break;
            }
            for chained in page {
                self.follow(&chained)?;
                while let Some(seal) = waiting.next_if(|seal| seal.position <= self.position) {
                    self.compare(&seal)?;
                }
                let head = || hex(&heads_hash(&self.heads));
                if expected_head_at.is_none() && expected_head.as_ref().is_some_and(|it| *it == head()) {
                    expected_head_at = Some(self.position);
                }
            }
        }
        if self.position != self.end {
            let reason = format!("it says that it ends at position {}, and has no event here", self.end);
            return Err(self.bad(self.position + 1, &reason));
        }
        if let Some(seal) = waiting.next() {
            let reason = format!("it was sealed up to position {}, and has no event here", seal.position);
            return Err(self.bad(self.position + 1, &reason));
        }
        self.compare_ends().await?;
        let head = hex(&heads_hash(&self.heads));
        if let Some(expected) = expected_head
            && expected_head_at.is_none()
        {
            return Err(VerifyFailure::OtherHead { expected, head, position: self.position });
        }
        let workspaces: BTreeSet<_> = self.heads.keys().map(|(workspace, _)| *workspace).collect();
        Ok(VerifyReport {
            log_id: self.log_id,
            position: self.position,
            events: Family::ALL.map(|family| (family, self.events[family as usize])),
            workspaces: workspaces.len(),
            head,
            expected_head_at,
            seals,
            last_seal,
            retired: None,
            unfinished_commit: false,
        })
    }

    /// Takes the next event of the log.
    fn follow(&mut self, chained: &Chained) -> Result<(), VerifyFailure> {
        let recorded = &chained.recorded;
        if recorded.position != self.position + 1 {
            let reason =
                format!("the event is missing; the next one is {} at {}", recorded.id, recorded.position);
            return Err(self.bad(self.position + 1, &reason));
        }
        let family = recorded.family();
        if chained.family != family as i16 {
            return Err(self.bad_event(recorded, "its stream belongs to another family"));
        }
        let head = self.heads.get(&(recorded.workspace, family)).copied().unwrap_or_default();
        if recorded.seq != head.seq + 1 {
            return Err(self.bad_event(recorded, "its seq does not follow the one before"));
        }
        if self.link(recorded, &head.link) != Some(chained.link) {
            return Err(self.bad_event(recorded, "its link does not continue the chain"));
        }
        if self.recorded_at.is_some_and(|last| recorded.recorded_at < last) {
            return Err(self.bad_event(recorded, "it was recorded before its predecessor"));
        }
        let revision = self.revisions.entry(recorded.stream.clone()).or_default();
        *revision += 1;
        if recorded.revision != *revision {
            return Err(self.bad_event(recorded, "its revision does not follow the one before"));
        }
        self.heads.insert((recorded.workspace, family), Head { seq: recorded.seq, link: chained.link });
        self.recorded_at = Some(recorded.recorded_at);
        self.events[family as usize] += 1;
        self.position = recorded.position;
        Ok(())
    }

    /// The link that the event should have; `None` where a part of it is longer than any event's.
    fn link(&mut self, recorded: &Recorded, previous: &Link) -> Option<Link> {
        let personal = match &recorded.personal {
            Personal::Sealed(bytes) => Some(&**bytes),
            Personal::None | Personal::Open(_) | Personal::Erased => None,
        };
        let content = Content {
            workspace: recorded.workspace,
            id: recorded.id,
            version: recorded.version,
            stream: recorded.stream.as_str(),
            event_type: &recorded.event_type,
            actor: &recorded.actor,
            causation: recorded.causation,
            correlation: recorded.correlation,
            data: &recorded.data,
            personal,
        };
        if !content.is_within_limits() {
            return None;
        }
        self.frame.clear();
        frame::encode_content(&mut self.frame, &content);
        let place = Place {
            position: recorded.position,
            seq: recorded.seq,
            revision: recorded.revision,
            recorded_at: recorded.recorded_at,
        };
        Some(frame::place(&mut self.frame, place, previous))
    }

    fn compare(&self, seal: &Waiting) -> Result<(), VerifyFailure> {
        if seal.position == self.position && seal.heads == heads_hash(&self.heads) {
            return Ok(());
        }
        let words = "the log up to here is not the one that was sealed";
        Err(match seal.event {
            None => self.bad(seal.position, words),
            Some((at, id)) => self.bad(seal.position, &format!("{words} by event {id} at position {at}")),
        })
    }

    /// The ends of chains as the next commit would take them.
    async fn compare_ends(&self) -> Result<(), VerifyFailure> {
        let rows = self.ask("SELECT workspace, family, seq, link FROM private_connect.chains", &[]).await?;
        let ends: Option<Heads> = rows.iter().map(schema::chain_end).collect();
        if ends.as_ref() == Some(&self.heads) {
            return Ok(());
        }
        Err(self.bad(self.position, "the table of the chains' ends is not what the events come to"))
    }
}

/// The seal that an event has, with a right signature under a key of the keyring.
fn sealed(recorded: &Recorded, log_id: Uuid, keys: &[[u8; 32]]) -> Result<Seal, &'static str> {
    let Ok(Event::Seal(seal::Event::Sealed(said))) = recorded.event() else {
        return Err("it stands among the seals and is none");
    };
    let bytes: [u8; SEAL_BYTES] = unhex(&said.seal).ok_or("a seal that is not written in hex")?;
    let seal = Seal::read(&bytes, log_id)?;
    if !keys.contains(&seal.public_key) {
        return Err("the seal is signed with a key that is not in the keyring");
    }
    if seal.position != said.position
        || hex(&seal.heads) != said.heads
        || seal.recorded_at != said.recorded_at
    {
        return Err("the seal says something else than the event");
    }
    Ok(seal)
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
