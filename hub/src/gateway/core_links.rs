//! Links of the threads that send shares' requests: many small requests and answers leave in one write, and no other
//! thread is woken for them.
//!
//! Such a link is an idle data connection of the session that the hub turns into one ([`schemas::frames::LinkBegin`]), the
//! first time that a thread has something for the agent. It begins before anybody knows whether the agent can do that: one
//! that cannot closes the connection, and what was opened on it gets a connection of its own; after a few tries everything
//! of that session does. One that nobody uses is given up. Streams that turn out to be busy move to connections of their own, as on every link.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use domain::ids::{AgentId, TunnelId};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use schemas::frames::{Frame, LinkAdopt, LinkBegin, StreamKind};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use wire::{
    frame_io,
    link::{End, Link},
    relay::any_cancelled,
    side::Parked,
};

use super::{
    Gateway,
    links::{BUSY_AFTER_BYTES, move_out, tokens},
    sessions::Session,
    streams::{refusal, stream_open},
};
use crate::streams::{CoreStream, CoreStreams, OpenError};

/// Streams of one thread: each of them may hold a window of 64 KiB here while its visitor reads nothing. More than that get
/// connections of their own, whose buffers are the system's.
pub(super) const STREAMS_MAX: usize = 512;
/// A session that so many links failed with is offered no more.
pub(super) const FAILED_MAX: u32 = 3;

/// One thread's links.
#[derive(Debug)]
pub(super) struct CoreLinks {
    gateway: Gateway,
    held: Rc<RefCell<HashMap<AgentId, Rc<Held>>>>,
    /// One reference for each stream.
    places: Rc<()>,
}

#[derive(Debug)]
struct Held {
    link: Link,
    number: u32,
    session: Arc<Session>,
    /// The agent has answered on it.
    is_known: Cell<bool>,
}

impl CoreStreams for CoreLinks {
    fn open<'a>(
        &'a self,
        agent: AgentId,
        tunnel: TunnelId,
        kind: StreamKind,
        peer: &'a str,
    ) -> LocalBoxFuture<'a, Option<Result<CoreStream, OpenError>>> {
        async move {
            if self.gateway.is_draining() || Rc::strong_count(&self.places) > STREAMS_MAX {
                return None;
            }
            let place = Rc::clone(&self.places);
            let held = self.link_to(agent)?;
            let begun = Instant::now();
            let stream = held.link.open(&stream_open(tunnel, kind, peer))?;
            let deadline = begun + Duration::from_millis(self.gateway.settings().open_timeout_ms);
            let opened = match timeout_at(deadline, stream.opened()).await {
                Ok(Ok(())) => Ok(CoreStream { stream, place }),
                Ok(Err(Some(refused))) => Err(refusal(refused)),
                // It broke before there was an answer: nothing of the caller's was sent.
                Ok(Err(None)) => return None,
                Err(_) => Err(OpenError::Timeout),
            };
            if !matches!(opened, Err(OpenError::Timeout)) {
                held.is_known.set(true);
            }
            let counts = self.gateway.counts().of(kind);
            counts.opens.add(1);
            match &opened {
                Ok(_) => counts.opening.add(begun.elapsed()),
                Err(error) => counts.failed(error),
            }
            Some(opened)
        }
        .boxed_local()
    }
}

impl CoreLinks {
    pub(super) fn new(gateway: Gateway) -> Self {
        Self { gateway, held: Rc::default(), places: Rc::default() }
    }

    /// The link to an agent's session; a new one, if a connection for it is at hand.
    fn link_to(&self, agent: AgentId) -> Option<Rc<Held>> {
        let session = self.gateway.sessions().of(agent)?;
        let held = self.held.borrow().get(&agent).map(Rc::clone);
        if let Some(held) = held
            && Arc::ptr_eq(&held.session, &session)
            && !held.link.is_over()
        {
            return Some(held);
        }
        if session.links_failed.load(Relaxed) >= FAILED_MAX {
            return None;
        }
        let socket = session.pool.take_warm()?;
        let number = session.links_begun.fetch_add(1, Relaxed) + 1;
        let link = Link::new(End::Hub, BUSY_AFTER_BYTES);
        let held = Rc::new(Held { link, number, session, is_known: Cell::new(false) });
        if let Some(former) = self.held.borrow_mut().insert(agent, Rc::clone(&held)) {
            // Its streams go on; new ones come here.
            former.link.leave();
        }
        let (gateway, links, running) = (self.gateway.clone(), Rc::clone(&self.held), Rc::clone(&held));
        tokio::task::spawn_local(self.gateway.track(async move {
            run(&gateway, &running, socket).await;
            running.link.end();
            let mut links = links.borrow_mut();
            if links.get(&agent).is_some_and(|held| Rc::ptr_eq(held, &running)) {
                links.remove(&agent);
            }
        }));
        Some(held)
    }
}

/// Carries a link to its end.
async fn run(gateway: &Gateway, held: &Rc<Held>, socket: Parked) {
    let Held { link, number, session, .. } = &**held;
    let tokens = tokens(gateway, session);
    // Tokens first: had the session ended before, nobody would cancel them.
    if session.ending.is_cancelled() && !gateway.is_connected(session.agent) {
        return;
    }
    let on_busy = || {
        for stream in link.busy() {
            let adopt = Frame::LinkAdopt(LinkAdopt { link: *number, stream });
            tokio::task::spawn_local(gateway.track(move_out(
                gateway.clone(),
                Arc::clone(session),
                link.clone(),
                stream,
                adopt,
            )));
        }
    };
    let carrying = async {
        let patience = Duration::from_millis(gateway.settings().open_timeout_ms);
        let begin = Frame::LinkBegin(LinkBegin { link: *number });
        let Ok(mut carrier) = socket.adopt() else { return };
        match timeout(patience, frame_io::write(&mut carrier, &begin)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        if let Err(error) = link.drive(carrier, on_busy).await {
            tracing::debug!(agent = %session.agent, %error, "a link broke");
        }
    };
    let ended = async {
        tokio::select! {
            () = any_cancelled(tokens) => {}
            () = gateway.stopped().cancelled() => {}
            () = unused(gateway, link) => {}
        }
    };
    tokio::select! {
        () = carrying => {
            if !held.is_known.get() && !session.ending.is_cancelled() {
                session.links_failed.fetch_add(1, Relaxed);
            }
        }
        () = ended => {}
    }
}

/// Waits until nobody has used a link for a while.
async fn unused(gateway: &Gateway, link: &Link) {
    let look_every = Duration::from_millis(gateway.settings().core_link_look_ms);
    let mut was_empty = false;
    loop {
        sleep(look_every).await;
        let is_empty = link.streams() == 0;
        if is_empty && was_empty {
            return;
        }
        was_empty = is_empty;
    }
}
