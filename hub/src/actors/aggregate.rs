//! The one actor behind every aggregate: load by replay, decide, append, evolve, publish, sleep when idle.

use std::{sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, AtomicResponse, Context, Handler, Message, WrapFuture,
};
use domain::{
    aggregate::Aggregate,
    event::Event,
    ids::EventId,
    recorded::{Personal, Recorded, StreamName},
};
use projections::routes::Routes;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Done, ExecuteError, FailFast, Who};
use crate::{
    clock::SharedClock,
    event_log::{Append, AppendError, Appended, Expected, NewEvent, SharedLog},
};

/// An actor that was told nothing for this long gives its memory back; its stream remembers.
pub const IDLE_MAX: Duration = Duration::from_secs(60);
/// How often a command is decided again when another writer was faster.
const CONFLICTS_MAX: usize = 3;
/// Events of a stream are replayed in pages of this many.
const REPLAY_PAGE: usize = 1_000;
/// The most commands that wait for one aggregate; the next one is refused with "busy".
pub const MAILBOX_MAX: usize = 1_024;

/// What every aggregate actor works with.
#[derive(Debug)]
pub struct Deps {
    pub log: SharedLog,
    pub routes: Arc<Routes>,
    pub clock: SharedClock,
}

/// Judge this command.
#[derive(Debug, Message)]
#[rtype(result = "Result<Done, ExecuteError<A::Rejection>>")]
pub struct Execute<A: Aggregate> {
    pub who: Who,
    /// Only if the stream is at this revision.
    pub expected: Option<u64>,
    pub command: A::Command,
    /// The sealed personal part of the first event, where there is one.
    pub personal: Option<Box<[u8]>>,
}

impl<A: Aggregate> Clone for Execute<A> {
    fn clone(&self) -> Self {
        Self {
            who: self.who.clone(),
            expected: self.expected,
            command: self.command.clone(),
            personal: self.personal.clone(),
        }
    }
}

/// An aggregate at a revision of its stream.
#[derive(Debug, Clone)]
struct Loaded<A> {
    state: A,
    revision: u64,
    /// Where its last event is: what a caller must see to have read it.
    position: u64,
}

/// One aggregate. Its state is a cache: whenever in doubt it is dropped and replayed.
#[derive(Debug)]
pub struct AggregateActor<A: Aggregate> {
    stream: StreamName,
    deps: Arc<Deps>,
    loaded: Option<Loaded<A>>,
    last_told: Instant,
    _fail_fast: FailFast,
}

impl<A: Aggregate> AggregateActor<A> {
    pub fn new(stream: StreamName, deps: Arc<Deps>) -> Self {
        Self { stream, deps, loaded: None, last_told: Instant::now(), _fail_fast: FailFast(A::KIND) }
    }

    fn sleep_when_idle(&self, ctx: &mut Context<Self>, after: Duration) {
        ctx.run_later(after, |actor, ctx| {
            let idle = actor.last_told.elapsed();
            if idle >= IDLE_MAX {
                ctx.stop();
            } else {
                actor.sleep_when_idle(ctx, IDLE_MAX - idle);
            }
        });
    }
}

impl<A: Aggregate> Actor for AggregateActor<A> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MAX);
        self.sleep_when_idle(ctx, IDLE_MAX);
    }
}

impl<A: Aggregate> Handler<Execute<A>> for AggregateActor<A> {
    // Exclusive: no other command may be decided until this one is in the log.
    type Result = AtomicResponse<Self, Result<Done, ExecuteError<A::Rejection>>>;

    fn handle(&mut self, message: Execute<A>, _: &mut Self::Context) -> Self::Result {
        self.last_told = Instant::now();
        let (stream, deps, loaded) = (self.stream.clone(), Arc::clone(&self.deps), self.loaded.take());
        let work = async move { execute(&stream, &deps, loaded, message).await };
        AtomicResponse::new(Box::pin(work.into_actor(self).map(|(loaded, answer), actor, _| {
            actor.loaded = loaded;
            answer
        })))
    }
}

/// What is left in memory, and the answer.
type Outcome<A> = (Option<Loaded<A>>, Result<Done, ExecuteError<<A as Aggregate>::Rejection>>);

async fn execute<A: Aggregate>(
    stream: &StreamName,
    deps: &Deps,
    mut loaded: Option<Loaded<A>>,
    message: Execute<A>,
) -> Outcome<A> {
    for _ in 0..CONFLICTS_MAX {
        let mut current = match loaded.take() {
            Some(current) => current,
            None => match replay::<A>(stream, deps).await {
                Ok(current) => current,
                Err(reason) => return (None, Err(ExecuteError::Unavailable(reason))),
            },
        };
        // The one place where a workspace's border is checked for commands: what belongs to another workspace does
        // not exist here.
        if current.state.workspace().is_some_and(|owner| owner != message.who.workspace) {
            return (Some(current), Err(ExecuteError::NotFound));
        }
        // Judged at the revision that the append expects: of two with the same precondition one is second.
        if message.expected.is_some_and(|expected| expected != current.revision) {
            return (Some(current), Err(ExecuteError::Changed));
        }
        let events = match current.state.decide(&message.command) {
            Ok(events) => events,
            Err(rejection) => return (Some(current), Err(ExecuteError::Rejected(rejection))),
        };
        if events.is_empty() {
            let done = Done { position: current.position, revision: current.revision };
            return (Some(current), Ok(done));
        }
        let append = to_append(stream, &message, current.revision, &events, deps);
        let ids: Vec<EventId> = append.events.iter().map(|event| event.id).collect();
        let error = match deps.log.append(append).await {
            Ok(appended) => {
                remember(stream, &message.who, &mut current, events, &ids, appended, &deps.routes);
                let done = Done { position: appended.position, revision: appended.revision };
                return (Some(current), Ok(done));
            }
            Err(error) => error,
        };
        match error {
            // Somebody else wrote to the stream: forget, read on, decide again.
            AppendError::Conflict { .. } => {}
            AppendError::Unavailable(reason) => {
                return (Some(current), Err(ExecuteError::Unavailable(reason)));
            }
            AppendError::Refused(reason) => return (Some(current), Err(ExecuteError::Refused(reason))),
            AppendError::InDoubt(reason) => return (None, Err(ExecuteError::InDoubt(reason))),
        }
    }
    (None, Err(ExecuteError::Busy))
}

async fn replay<A: Aggregate>(stream: &StreamName, deps: &Deps) -> Result<Loaded<A>, String> {
    let mut loaded = Loaded { state: A::default(), revision: 0, position: 0 };
    loop {
        let page = deps
            .log
            .read_stream(stream, loaded.revision + 1, REPLAY_PAGE)
            .await
            .map_err(|error| error.to_string())?;
        let last = page.len() < REPLAY_PAGE;
        for recorded in page {
            // An aggregate that does not understand its own past must not decide about its future.
            let event = recorded.event().map_err(|error| format!("stream `{stream}`: {error}"))?;
            deps.routes.apply(&recorded, &event);
            let event = A::from_event(event).ok_or_else(|| {
                format!("stream `{stream}` holds `{}`, which is not of its kind", recorded.event_type)
            })?;
            loaded.state.evolve(&event);
            loaded.revision = recorded.revision;
            loaded.position = recorded.position;
        }
        if last {
            return Ok(loaded);
        }
    }
}

fn to_append<A: Aggregate>(
    stream: &StreamName,
    Execute { who, personal, .. }: &Execute<A>,
    revision: u64,
    events: &[A::Event],
    deps: &Deps,
) -> Append {
    let format = deps.routes.log_format().format();
    let events = events
        .iter()
        .enumerate()
        .map(|(place, event)| {
            let encoded = A::into_event(event.clone()).encode_for(format);
            NewEvent {
                id: EventId::new(Uuid::now_v7()),
                event_type: encoded.event_type,
                version: encoded.version,
                data: encoded.data,
                personal: personal.clone().filter(|_| place == 0),
                causation: who.causation,
            }
        })
        .collect();
    Append {
        stream: stream.clone(),
        expected: Expected::Revision(revision),
        workspace: who.workspace,
        actor: who.actor.clone(),
        correlation: who.request,
        at: deps.clock.now(),
        events,
    }
}

fn remember<A: Aggregate>(
    stream: &StreamName,
    who: &Who,
    current: &mut Loaded<A>,
    events: Vec<A::Event>,
    ids: &[EventId],
    appended: Appended,
    routes: &Routes,
) {
    let before_last = u64::try_from(events.len() - 1).expect("a count of events fits");
    for (offset, (event, id)) in (0_u64..).zip(events.into_iter().zip(ids)) {
        current.state.evolve(&event);
        let event: Event = A::into_event(event);
        let (event_type, version) = event.type_and_version();
        let recorded = Recorded {
            position: appended.position - (before_last - offset),
            // The log knows it; `Routes` does not ask.
            seq: 0,
            stream: stream.clone(),
            revision: appended.revision - (before_last - offset),
            id: *id,
            event_type: event_type.into(),
            version,
            recorded_at: appended.recorded_at,
            workspace: who.workspace,
            actor: who.actor.clone(),
            causation: who.causation,
            correlation: who.request,
            data: Box::default(),
            personal: Personal::None,
        };
        routes.apply(&recorded, &event);
    }
    current.revision = appended.revision;
    current.position = appended.position;
}
