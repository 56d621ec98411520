//! The agents' links: each on the core of its workspace, where tunnel ports and other links of the workspace find it.
//!
//! A workspace's streams meet on one core without locks; streams that are busy move to connections of their own.

use std::{cell::RefCell, collections::HashMap, hash::BuildHasher as _, rc::Rc, sync::Arc, time::Duration};

use domain::ids::{AgentId, TunnelId, WorkspaceId};
use schemas::frames::{Frame, RefusalCode, StreamAdopt, StreamKind, StreamOpen};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use wire::{
    cores::Cores,
    frame_io,
    link::{Arrival, End, Link, LinkStream},
    relay::{any_cancelled, relay_counted},
    side::{Carrier, Parked},
};

use super::{Gateway, counts::NotAsked, data, sessions::Session, streams};
use crate::running::Under;

/// A stream that has poured this much, both ways together, is busy (bytes): what one window holds. Shorter ones would
/// pay for a connection and be over before they have it.
pub(super) const BUSY_AFTER_BYTES: u64 = 64 * 1024;
/// How long a busy stream that found no connection of its own stays where it is.
const MOVE_AGAIN: Duration = Duration::from_secs(2);
/// How often that is tried.
const MOVES_MAX: usize = 5;

/// What one core knows.
#[derive(Debug, Default)]
pub(crate) struct Local {
    links: RefCell<HashMap<AgentId, Held>>,
}

#[derive(Debug, Clone)]
struct Held {
    link: Link,
    session: Arc<Session>,
}

impl Local {
    /// Opens a stream to a tunnel of an agent whose link is here. `None`: it has no link, or its link no room.
    pub(crate) fn open(&self, agent: AgentId, open: &StreamOpen) -> Option<LinkStream> {
        let link = self.links.borrow().get(&agent).map(|held| held.link.clone());
        link.and_then(|link| link.open(open))
    }
}

/// The cores, and whose core is which.
#[derive(Debug)]
pub(crate) struct Links {
    cores: Cores<Local>,
    hasher: std::hash::RandomState,
}

impl Links {
    /// # Errors
    /// The system gives no threads.
    pub(crate) fn start(cores: usize) -> std::io::Result<Self> {
        Ok(Self { cores: Cores::start("streams", cores)?, hasher: std::hash::RandomState::new() })
    }

    /// Runs something on the workspace's core.
    pub(crate) fn spawn<F, T>(&self, workspace: WorkspaceId, make: F)
    where
        F: FnOnce(Rc<Local>) -> T + Send + 'static,
        T: Future<Output = ()> + 'static,
    {
        self.cores.spawn(self.core_of(workspace), make);
    }

    /// Makes a socket that is served on the workspace's core.
    pub(crate) fn register<T>(&self, workspace: WorkspaceId, make: impl FnOnce() -> T) -> T {
        self.cores.register(self.core_of(workspace), make)
    }

    fn core_of(&self, workspace: WorkspaceId) -> usize {
        usize::try_from(self.hasher.hash_one(workspace) % 1_024).expect("under 1,024")
    }

    /// Ends everything on the cores. Blocks until their threads have ended.
    pub(crate) fn stop(&self) {
        self.cores.stop();
    }
}

/// Makes a data connection its session's link.
pub(crate) fn begin(gateway: &Gateway, session: &Arc<Session>, socket: Carrier) {
    let Ok(parked) = Parked::park(socket) else { return };
    let (gateway, session) = (gateway.clone(), Arc::clone(session));
    gateway.clone().links().spawn(session.workspace, move |local| {
        gateway.clone().track(async move {
            if let Ok(carrier) = parked.adopt() {
                run(&gateway, &local, &session, carrier).await;
            }
        })
    });
}

async fn run(gateway: &Gateway, local: &Rc<Local>, session: &Arc<Session>, carrier: Carrier) {
    let tokens = tokens(gateway, session);
    // Tokens first: had the session ended before, nobody would cancel them.
    if session.ending.is_cancelled() && !gateway.is_connected(session.agent) {
        return;
    }
    let link = Link::new(End::Hub, BUSY_AFTER_BYTES);
    let held = Held { link: link.clone(), session: Arc::clone(session) };
    if let Some(former) = local.links.borrow_mut().insert(session.agent, held) {
        // Its streams go on; new ones come here.
        former.link.leave();
    }
    let on_busy = || {
        for stream in link.busy() {
            tokio::task::spawn_local(gateway.track(move_out(
                gateway.clone(),
                Arc::clone(session),
                link.clone(),
                stream,
                Frame::StreamAdopt(StreamAdopt { stream }),
            )));
        }
    };
    let taking = async {
        while let Some(arrival) = link.arrival().await {
            let (gateway, local, session) = (gateway.clone(), Rc::clone(local), Arc::clone(session));
            tokio::task::spawn_local(
                gateway.clone().track(async move { reach(&gateway, &local, &session, arrival).await }),
            );
        }
        std::future::pending::<()>().await;
    };
    let ended = async {
        tokio::select! {
            () = any_cancelled(tokens) => {}
            () = gateway.stopped().cancelled() => {}
        }
    };
    tokio::select! {
        driven = link.drive(carrier, on_busy) => {
            if let Err(error) = driven {
                tracing::debug!(agent = %session.agent, %error, "a link broke");
            }
        }
        () = taking => {}
        () = ended => {}
    }
    let mut links = local.links.borrow_mut();
    if links.get(&session.agent).is_some_and(|held| Arc::ptr_eq(&held.session, session)) {
        links.remove(&session.agent);
    }
}

/// What ends an agent's links, and the streams that it opens itself.
pub(super) fn tokens(gateway: &Gateway, session: &Session) -> Vec<CancellationToken> {
    let running = &gateway.parts().running;
    let mut tokens = vec![running.token(Under::Agent(session.agent))];
    tokens.extend(session.key.map(|key| running.token(Under::Key(key))));
    tokens
}

/// Gives a busy stream a connection of its own, which begins with `adopt`, or leaves it where it is.
pub(super) async fn move_out(gateway: Gateway, session: Arc<Session>, link: Link, stream: u32, adopt: Frame) {
    for _ in 0..MOVES_MAX {
        let deadline = Instant::now() + Duration::from_millis(gateway.settings().open_timeout_ms);
        let moved = async {
            let mut carrier = streams::next_connection(&session, deadline).await.ok()?.adopt().ok()?;
            let told = timeout_at(deadline, frame_io::write(&mut carrier, &adopt)).await;
            matches!(told, Ok(Ok(()))).then_some(carrier)
        };
        if let Some(carrier) = moved.await {
            link.adopt(stream, carrier);
            return;
        }
        sleep(MOVE_AGAIN).await;
    }
}

/// A stream that an agent opens to a tunnel of its workspace.
async fn reach(gateway: &Gateway, local: &Local, session: &Session, arrival: Arrival) {
    let Arrival { open, mut stream } = arrival;
    let counts = gateway.counts().of(open.kind);
    let Ok(_room) = Arc::clone(&session.reach_streams).try_acquire_owned() else {
        counts.not_asked(NotAsked::NoRoom);
        return stream.refuse(RefusalCode::Busy, "the agent has too many streams open".to_owned());
    };
    let mut tokens = tokens(gateway, session);
    let admitted = match data::admit_reach(gateway, session, &open) {
        Ok(admitted) => admitted,
        Err((code, message)) => return stream.refuse(code, message),
    };
    tokens.extend(admitted.tokens);
    let onward = StreamOpen { peer: session.host_name.clone(), ..open };
    if let Some(mut upstream) = local.open(admitted.agent, &onward) {
        let accepting = tokio::task::spawn_local(upstream.accepts(&stream));
        let _open = counts.on_link();
        admitted.used.opened();
        let ended = any_cancelled(tokens);
        let relayed = relay_counted(&mut stream, &mut upstream, ended, counts.carry()).await;
        admitted.used.carried(&relayed);
        accepting.abort();
        if let Some(refused) = upstream.refusal() {
            counts.refused(refused.code);
            stream.refuse(refused.code, refused.message);
        }
        return;
    }
    match Box::pin(data::open_reach(gateway, admitted.agent, &onward)).await {
        Ok(upstream) => {
            stream.accept();
            let _open = counts.open.hold();
            admitted.used.opened();
            let relayed = relay_counted(stream, upstream, any_cancelled(tokens), counts.carry()).await;
            admitted.used.carried(&relayed);
        }
        Err((code, message)) => stream.refuse(code, message),
    }
}

/// What the hub says when it opens a stream through a tunnel's own port.
pub(crate) fn port_open(tunnel: TunnelId, kind: StreamKind, peer: String) -> StreamOpen {
    StreamOpen { tunnel: tunnel.uuid().as_u128(), kind, peer }
}
