//! Streams that only the two agents can read: `reach` from both its ends.
//!
//! Nothing falls back to bytes that the hub could read: a stream that cannot be sealed is refused, with the reason.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use wire::{
    sealed::{
        Greeted, Opening, Part, Sealed, Session, Used,
        handshake::{initiate, respond},
        say_unknown, write_all,
    },
    side::Side,
};

use super::{Agent, trust::Verdict};

/// Sessions that others have with this agent; the one unused for longest goes first.
const SESSIONS_MAX: usize = 1_024;
/// How long the other side may take over a handshake or its first record.
const PATIENCE: Duration = Duration::from_secs(15);

/// The sessions of one agent.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// With those who expose, by tunnel.
    reaching: Mutex<HashMap<u128, Arc<Reaching>>>,
    /// With those who reach, by the session's id.
    exposing: Mutex<HashMap<[u8; 16], Exposing>>,
}

#[derive(Debug)]
struct Reaching {
    session: Session,
    last: AtomicU64,
}

#[derive(Debug)]
struct Exposing {
    session: Arc<Session>,
    used: Used,
    last: Instant,
}

/// Why a stream was not sealed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealFailure {
    /// The other side has forgotten the session: a new stream shakes hands anew.
    #[error("the exposing agent has started anew")]
    Forgotten,
    #[error("the service answers with another key than before: pinned is {pinned}, now it is {found}")]
    Changed { pinned: String, found: String },
    #[error(transparent)]
    Broken(#[from] io::Error),
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the exposing agent does not answer")
}

/// Makes a stream to a tunnel one that only its agent can read. `side` is kept out of the error: whoever lent it can ask it why
/// it broke.
pub(super) async fn seal<S: Side>(
    agent: &Agent,
    mut side: S,
    tunnel: u128,
    service: &str,
) -> Result<Sealed<S>, (S, SealFailure)> {
    let known = agent.0.sealing.reaching.lock().get(&tunnel).cloned();
    let (reaching, counter, is_new) = match known {
        Some(reaching) => {
            let counter = reaching.last.fetch_add(1, Ordering::Relaxed) + 1;
            let opening = Opening::Resume { session: reaching.session.id(), counter };
            if let Err(error) = write_all(&mut side, &opening.bytes()).await {
                return Err((side, error.into()));
            }
            (reaching, counter, false)
        }
        None => match timeout(PATIENCE, shake(agent, &mut side, service)).await {
            Ok(Ok(session)) => (Arc::new(Reaching { session, last: AtomicU64::new(0) }), 0, true),
            Ok(Err(failure)) => return Err((side, failure)),
            Err(_) => return Err((side, late().into())),
        },
    };
    let mut sealed = reaching.session.stream(side, Part::Reaching, tunnel, counter);
    match timeout(PATIENCE, sealed.greeted()).await {
        Ok(Ok(Greeted::Known)) => {
            if is_new {
                agent.0.sealing.reaching.lock().insert(tunnel, reaching);
            }
            Ok(sealed)
        }
        Ok(Ok(Greeted::Unknown)) => {
            let mut known = agent.0.sealing.reaching.lock();
            if known.get(&tunnel).is_some_and(|known| Arc::ptr_eq(known, &reaching)) {
                known.remove(&tunnel);
            }
            Err((sealed.into_side(), SealFailure::Forgotten))
        }
        Ok(Err(error)) => Err((sealed.into_side(), error.into())),
        Err(_) => Err((sealed.into_side(), late().into())),
    }
}

async fn shake(agent: &Agent, side: &mut impl Side, service: &str) -> Result<Session, SealFailure> {
    write_all(side, &Opening::Handshake.bytes()).await?;
    let mut changed = None;
    let options = &agent.0.options;
    let session = initiate(side, &options.identity, |key| match options.known.judge(service, &key) {
        Verdict::Trusted => true,
        Verdict::Changed { pinned } => {
            changed = Some(SealFailure::Changed { pinned, found: key.fingerprint() });
            false
        }
    })
    .await;
    match (session, changed) {
        (_, Some(changed)) => Err(changed),
        (session, None) => Ok(session?),
    }
}

/// The exposing end of a sealed stream.
///
/// # Errors
/// The stream's; what it says is no opening, or a counter came twice.
pub(super) async fn unseal<S: Side>(agent: &Agent, side: S, tunnel: u128) -> io::Result<Sealed<S>> {
    timeout(PATIENCE, opened(agent, side, tunnel)).await.map_err(|_| late())?
}

async fn opened<S: Side>(agent: &Agent, mut side: S, tunnel: u128) -> io::Result<Sealed<S>> {
    let (session, counter) = match Opening::read(&mut side).await? {
        Opening::Handshake => {
            let session = Arc::new(respond(&mut side, &agent.0.options.identity).await?);
            agent.0.sealing.remember(Arc::clone(&session));
            (session, 0)
        }
        Opening::Resume { session, counter } => match agent.0.sealing.resume(session, counter) {
            Some(Ok(session)) => (session, counter),
            Some(Err(Replayed)) => return Err(io::ErrorKind::InvalidData.into()),
            None => {
                say_unknown(&mut side).await?;
                return Err(io::Error::other("the other side's session is not known"));
            }
        },
    };
    let mut sealed = session.stream(side, Part::Exposing, tunnel, counter);
    sealed.greet().await?;
    Ok(sealed)
}

/// A counter that was used before.
struct Replayed;

impl Sessions {
    fn remember(&self, session: Arc<Session>) {
        let mut exposing = self.exposing.lock();
        if exposing.len() >= SESSIONS_MAX
            && let Some(oldest) = exposing.iter().min_by_key(|(_, held)| held.last).map(|(id, _)| *id)
        {
            exposing.remove(&oldest);
        }
        let mut used = Used::default();
        used.take(0);
        exposing.insert(session.id(), Exposing { session, used, last: Instant::now() });
    }

    fn resume(&self, session: [u8; 16], counter: u64) -> Option<Result<Arc<Session>, Replayed>> {
        let mut exposing = self.exposing.lock();
        let held = exposing.get_mut(&session)?;
        held.last = Instant::now();
        Some(if held.used.take(counter) { Ok(Arc::clone(&held.session)) } else { Err(Replayed) })
    }
}
