//! The writer: one task that judges, places and commits; the only one that changes the log.
//!
//! What waits becomes one statement, and everybody is answered when the server has committed it. There is no timer: a
//! lone append is sent at once, and while the server works the next batch gathers. When the connection is lost under a
//! batch, its callers wait until another connection has said what became of it: committed, and they are told so, or not,
//! and it is sent again. Whoever would have to wait longer than the patience below is told that it is in doubt. What
//! comes while the server is away is turned away at once.
#![expect(
    clippy::vec_box,
    reason = "requests come boxed from the queue; between queue and batch only pointers move"
)]

mod away;
mod revisions;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    event::Event,
    ids::EventId,
    recorded::{Actor, SYSTEM_WORKSPACE, StreamName},
    seal::{self, LogSealed},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_postgres::types::Type;
use uuid::Uuid;

use self::revisions::Revisions;
use super::{
    Durable, Health, Options, Shared,
    commit::{self, Outcome},
    judge::{self, Batch, Found, View},
    keeper::{Keeper, Sealed},
    schema::Writing,
    session::{Problem, Server},
    unsigned,
};
use crate::event_log::{Append, AppendError, Appended, Expected, NewEvent, segments::frame, verify::hex};

/// A batch takes no more appends from here on: what waits longer than this takes to send is felt as latency.
const COMMIT_BYTES: usize = 4 * 1024 * 1024;
/// Nor more appends than this.
const COMMIT_APPENDS: usize = 4_096;
/// How long a commit may take before its connection counts as lost.
pub(super) const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a question before a commit may take.
const ASK_PATIENCE: Duration = Duration::from_secs(10);
/// How often a writer with nothing to do asks whether the log is still its own; a server that went away is noticed then
/// at the latest.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long that may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// An append on its way to the writer: encoded by its caller, but for its place.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) append: Append,
    /// One frame after the other: what the chain covers is computed in them.
    pub(super) frames: Vec<u8>,
    pub(super) queued: Instant,
    pub(super) reply: oneshot::Sender<Result<Appended, AppendError>>,
    /// Its share of the queue.
    pub(super) _permit: Option<OwnedSemaphorePermit>,
}

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    Append(Box<Request>),
    Close,
}

/// A batch of which nobody knows whether it was committed.
#[derive(Debug)]
struct Doubt {
    requests: Vec<Box<Request>>,
    batch: Batch,
    since: Instant,
}

/// What a connection is still good for.
enum Standing {
    Good,
    /// It is gone, with a batch on it, perhaps.
    Lost(String, Option<Box<Doubt>>),
    /// Another hub has the log: nothing is written any more.
    Over(String),
}

/// What there is to do.
enum Next {
    Append(Box<Request>),
    Look,
    Lost(String),
    Close,
}

/// The writer's state.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    server: Server,
    holder: Uuid,
    queue: mpsc::UnboundedReceiver<Message>,
    /// Taken from the queue and not committed.
    held: VecDeque<Box<Request>>,
    revisions: Revisions,
    keeper: Option<Keeper>,
    /// Up to where the last seal goes that is recorded in the log, when it was recorded, and how often that happens.
    recorded_seal: Option<u64>,
    recorded_seal_at: Instant,
    record_seal_every: Duration,
    doubt_patience: Duration,
    closing: bool,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        server: Server,
        holder: Uuid,
        queue: mpsc::UnboundedReceiver<Message>,
        keeper: Keeper,
        options: &Options,
    ) -> Self {
        Self {
            shared,
            server,
            holder,
            queue,
            held: VecDeque::new(),
            revisions: Revisions::default(),
            keeper: Some(keeper),
            recorded_seal: None,
            recorded_seal_at: Instant::now(),
            record_seal_every: options.record_seal_every,
            doubt_patience: options.doubt_patience,
            closing: false,
        }
    }

    /// Where the last seal stands that the log has already.
    pub(super) fn has_recorded_seal(&mut self, position: Option<u64>) {
        self.recorded_seal = position.map(|position| position.saturating_sub(1));
    }

    /// Runs until it is told to close.
    pub(super) async fn run(mut self, writing: Writing) {
        // A panic must not leave a log that looks writable: every later append is told.
        let guard = FailOnUnwind(Arc::clone(&self.shared));
        let mut connected = Some(writing);
        while let Some(writing) = connected.take() {
            match self.work(&writing).await {
                Standing::Good => {
                    self.last_seal(&writing).await;
                    writing.session.close().await;
                }
                Standing::Lost(reason, doubt) => {
                    let pid = writing.pid;
                    drop(writing);
                    connected = self.come_back(&reason, pid, doubt).await;
                }
                Standing::Over(reason) => {
                    drop(writing);
                    self.refuse_for_good(&reason).await;
                }
            }
        }
        if let Some(keeper) = self.keeper.take() {
            keeper.stop().await;
        }
        {
            let mut health = self.shared.health.lock();
            if !matches!(*health, Health::Failed(_)) {
                *health = Health::Closed;
            }
        }
        // What came too late is told so; what comes even later finds the queue gone.
        self.queue.close();
        self.turn_away_waiting("the event log is closed");
        drop(guard);
    }

    /// Commits what comes, until it is told to close or the connection is no longer good.
    async fn work(&mut self, writing: &Writing) -> Standing {
        loop {
            let standing = match self.next(writing).await {
                Next::Append(first) => {
                    let requests = self.gather(first);
                    self.settle(writing, requests).await
                }
                Next::Look => self.look(writing).await,
                Next::Lost(reason) => Standing::Lost(reason, None),
                Next::Close => return Standing::Good,
            };
            if !matches!(standing, Standing::Good) {
                return standing;
            }
        }
    }

    async fn next(&mut self, writing: &Writing) -> Next {
        if let Some(held) = self.held.pop_front() {
            return Next::Append(held);
        }
        if self.closing {
            return Next::Close;
        }
        tokio::select! {
            message = self.queue.recv() => match message {
                Some(Message::Append(request)) => Next::Append(request),
                Some(Message::Close) | None => Next::Close,
            },
            reason = writing.session.lost() => Next::Lost(reason),
            () = tokio::time::sleep(LOOK_EVERY) => Next::Look,
        }
    }

    /// `first`, and what waits behind it.
    fn gather(&mut self, first: Box<Request>) -> Vec<Box<Request>> {
        let mut bytes = first.frames.len();
        let mut requests = vec![first];
        while requests.len() < COMMIT_APPENDS && bytes < COMMIT_BYTES {
            let next = match self.held.pop_front() {
                Some(held) => held,
                None => match self.queue.try_recv() {
                    Ok(Message::Append(request)) => request,
                    Ok(Message::Close) => {
                        self.closing = true;
                        break;
                    }
                    Err(_) => break,
                },
            };
            bytes += next.frames.len();
            requests.push(next);
        }
        requests.extend(self.due_seal());
        requests
    }

    /// Judges, commits and answers.
    async fn settle(&mut self, writing: &Writing, mut requests: Vec<Box<Request>>) -> Standing {
        if let Err(problem) = self.learn_revisions(writing, &requests).await {
            return self.not_judged(requests, &problem);
        }
        let durable = self.shared.durable.lock().clone();
        let mut known: Option<HashMap<EventId, Found>> = None;
        loop {
            let view = View { durable: &durable, revisions: self.revisions.chosen(), known: known.as_ref() };
            let judged = judge::judge(&mut requests, view);
            let Ok(batch) = judged else {
                match known_of(writing, &requests).await {
                    Ok(found) => known = Some(found),
                    Err(problem) => return self.not_judged(requests, &problem),
                }
                continue;
            };
            if batch.placed.is_empty() {
                self.answer(requests, batch, None);
                return Standing::Good;
            }
            match commit::commit(writing, self.holder, durable.position, &requests, &batch).await {
                Outcome::Committed => {
                    self.committed(requests, batch, durable);
                    return Standing::Good;
                }
                // An id that is recorded already, or the like: judged again with what there is.
                Outcome::Refused { code, .. } if code == UNIQUE_VIOLATION && known.is_none() => {
                    match known_of(writing, &requests).await {
                        Ok(found) => known = Some(found),
                        Err(problem) => return self.not_judged(requests, &problem),
                    }
                }
                Outcome::Refused { code, reason } => return self.refused(requests, batch, &code, &reason),
                Outcome::NotOurs => {
                    let reason = "another hub has taken the event log over";
                    self.answer(requests, batch, Some(&AppendError::Unavailable(reason.into())));
                    return Standing::Over(reason.into());
                }
                Outcome::Lost(reason) => {
                    let doubt = Doubt { requests, batch, since: Instant::now() };
                    return Standing::Lost(reason, Some(Box::new(doubt)));
                }
            }
        }
    }

    /// Shows a committed batch and answers everybody.
    fn committed(&mut self, requests: Vec<Box<Request>>, mut batch: Batch, mut durable: Durable) {
        let bytes: usize = requests.iter().map(|request| request.frames.len()).sum();
        self.shared.stats.committed(batch.placed.len() as u64, bytes as u64);
        durable.position = batch.position;
        durable.recorded_at = batch.recorded_at;
        durable.heads.extend(std::mem::take(&mut batch.heads));
        self.shared.publish(durable);
        self.revisions.grew(batch.revisions.drain());
        {
            let mut health = self.shared.health.lock();
            if matches!(*health, Health::Refused(_)) {
                *health = Health::Writable;
            }
        }
        self.answer(requests, batch, None);
    }

    /// Nothing of the batch was written, and the server says why.
    fn refused(&mut self, requests: Vec<Box<Request>>, batch: Batch, code: &str, reason: &str) -> Standing {
        let reason = format!("{} refused a commit: {reason} (SQLSTATE {code})", self.shared.server);
        tracing::warn!(reason, "an append was not written; the log is as it was");
        *self.shared.health.lock() = Health::Refused(reason.clone());
        self.answer(requests, batch, Some(&AppendError::Unavailable(reason.clone())));
        // What is in memory may be what is wrong.
        self.revisions.forget();
        // A replica has a primary somewhere, and a server that is in trouble may have other connections.
        let is_other = code == READ_ONLY || ["08", "57", "XX"].iter().any(|class| code.starts_with(class));
        if is_other { Standing::Lost(reason, None) } else { Standing::Good }
    }

    /// Nothing was written, since nothing was sent but questions.
    fn not_judged(&mut self, requests: Vec<Box<Request>>, problem: &Problem) -> Standing {
        let reason = problem.to_string();
        for request in requests {
            self.tell(*request, Err(AppendError::Unavailable(self.away_words(&reason))));
        }
        Standing::Lost(reason, None)
    }

    /// Answers everybody of a batch; `failure`: it was not committed.
    fn answer(&self, requests: Vec<Box<Request>>, batch: Batch, failure: Option<&AppendError>) {
        for (request, verdict) in requests.into_iter().zip(batch.verdicts) {
            let result = match (failure, verdict.rests_on_commit, verdict.result) {
                (Some(failure), true, Ok(_)) => Err(failure.clone()),
                // It was judged by an append that did not come to be: certainly not written, try again.
                (Some(_), true, Err(_)) => {
                    Err(AppendError::Unavailable("the append that it waited for failed".into()))
                }
                (_, _, result) => result,
            };
            self.tell(*request, result);
        }
    }

    fn tell(&self, request: Request, result: Result<Appended, AppendError>) {
        self.shared.stats.answered(result.as_ref().map(drop), request.queued.elapsed());
        // A caller that went away does not want to know.
        drop(request.reply.send(result));
    }

    /// Has the revision of every stream that is appended to.
    async fn learn_revisions(&mut self, writing: &Writing, requests: &[Box<Request>]) -> Result<(), Problem> {
        let unknown = self.revisions.choose(requests.iter().map(|request| &request.append.stream));
        if unknown.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = unknown.iter().map(StreamName::as_str).collect();
        let rows = writing.session.execute(&writing.revisions, &[&names], ASK_PATIENCE).await?;
        let learnt = rows.iter().filter_map(|row| {
            let stream = StreamName::parse(row.try_get(0).ok()?)?;
            Some((stream, unsigned(row.try_get(1).ok()?)?))
        });
        self.revisions.grew(learnt);
        Ok(())
    }

    /// Whether the log is still this hub's and takes writes, asked in silence.
    async fn look(&mut self, writing: &Writing) -> Standing {
        let refused = matches!(*self.shared.health.lock(), Health::Refused(_));
        // A server that refused a commit is asked to write: its disk may have room again.
        let sql = if refused {
            "UPDATE private_connect.head SET node = node WHERE holder = $1 AND term = $2 RETURNING true"
        } else {
            "SELECT true FROM private_connect.head WHERE holder = $1 AND term = $2"
        };
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&self.holder, Type::UUID), (&writing.term, Type::INT8)];
        match writing.session.ask(sql, &values, LOOK_PATIENCE).await {
            Ok(rows) if rows.is_empty() => {
                Standing::Over("another hub has taken the event log over".to_owned())
            }
            Ok(_) => {
                if refused {
                    *self.shared.health.lock() = Health::Writable;
                }
                match self.due_seal() {
                    Some(seal) => self.settle(writing, vec![seal]).await,
                    None => Standing::Good,
                }
            }
            Err(Problem::Refused { .. }) if refused => Standing::Good,
            Err(problem) => Standing::Lost(problem.to_string(), None),
        }
    }

    /// The newest seal as an append, when it is time to record one and it says something new.
    fn due_seal(&mut self) -> Option<Box<Request>> {
        if self.recorded_seal_at.elapsed() < self.record_seal_every {
            return None;
        }
        let sealed = self.keeper.as_ref()?.latest()?;
        self.seal_request(sealed)
    }

    fn seal_request(&mut self, sealed: Sealed) -> Option<Box<Request>> {
        // One that covers nothing but the last one says nothing new.
        let is_new = self.recorded_seal.is_none_or(|recorded| sealed.position > recorded + 1);
        if !is_new {
            return None;
        }
        (self.recorded_seal, self.recorded_seal_at) = (Some(sealed.position), Instant::now());
        let (reply, _) = oneshot::channel();
        let append = sealed_append(&sealed);
        let mut frames = Vec::new();
        for event in &append.events {
            frame::encode(&mut frames, &append, event);
        }
        Some(Box::new(Request { append, frames, queued: Instant::now(), reply, _permit: None }))
    }

    /// Seals the end and records that: what comes after the last seal could be cut off unnoticed.
    async fn last_seal(&mut self, writing: &Writing) {
        let Some(keeper) = self.keeper.take() else { return };
        let Some(request) = keeper.stop().await.and_then(|sealed| self.seal_request(sealed)) else { return };
        if let Standing::Lost(reason, _) | Standing::Over(reason) = self.settle(writing, vec![request]).await
        {
            tracing::warn!(reason, "the last seal is in its file, and perhaps not in the log");
        }
    }
}

/// SQLSTATE: an id or a revision is there already.
const UNIQUE_VIOLATION: &str = "23505";
/// SQLSTATE: the server takes no writes.
const READ_ONLY: &str = "25006";

/// Which of the events are recorded, and where.
async fn known_of(writing: &Writing, requests: &[Box<Request>]) -> Result<HashMap<EventId, Found>, Problem> {
    let ids: Vec<Uuid> =
        requests.iter().flat_map(|request| &request.append.events).map(|event| event.id.uuid()).collect();
    let rows = writing.session.execute(&writing.known, &[&ids], ASK_PATIENCE).await?;
    Ok(rows.iter().filter_map(judge::found).collect())
}

fn sealed_append(sealed: &Sealed) -> Append {
    let event = seal::Event::Sealed(LogSealed {
        position: sealed.position,
        recorded_at: sealed.recorded_at,
        heads: hex(&sealed.heads),
        seal: hex(&sealed.bytes),
    });
    let encoded = Event::Seal(event).encode();
    Append {
        stream: StreamName::seals(),
        expected: Expected::Any,
        workspace: SYSTEM_WORKSPACE,
        actor: Actor::System("log".to_owned()),
        correlation: None,
        at: sealed.recorded_at,
        events: vec![NewEvent {
            id: EventId::new(Uuid::now_v7()),
            event_type: encoded.event_type,
            version: encoded.version,
            data: encoded.data,
            personal: None,
            causation: None,
        }],
    }
}

/// Marks the log as failed when the writer's task unwinds.
struct FailOnUnwind(Arc<Shared>);

impl Drop for FailOnUnwind {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.health.lock() = Health::Failed("the log's writer panicked".into());
        }
    }
}
