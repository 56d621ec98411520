//! Streams over the session's link: those that the hub opens to this machine's targets, and those that this machine
//! opens to the workspace's tunnels.
//!
//! Links live on the agent's own thread ([`wire::cores`]); what runs there finds them in [`Local`]. Beside the session's own
//! link, which the agent keeps, the hub makes further ones of idle data connections, for the requests of shares.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use schemas::frames::{StreamKind, StreamOpen, preface::Purpose};
use tokio::time::sleep;
use wire::{
    link::{Arrival, End, Link as Streams, LinkStream},
    side::{Carrier, Parked, Side},
};

use super::{Agent, control::Link, data, data_connection, sealing, target::Opened};

/// How long to leave the hub alone after a link failed.
const LINK_AGAIN: Duration = Duration::from_secs(1);

/// The number of a session's own link; the hub gives further ones other numbers.
pub(super) const OWN: u32 = 0;

/// What the agent's thread knows.
#[derive(Debug, Default)]
pub(super) struct Local {
    /// The newest last. A former session's links live as long as their streams.
    links: RefCell<Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    session: String,
    number: u32,
    link: Streams,
}

impl Local {
    /// Opens a stream to a tunnel of the workspace on the newest link. `None`: there is none, or it has no room.
    pub(super) fn open(&self, tunnel: u128, kind: StreamKind) -> Option<LinkStream> {
        let link = self.links.borrow().iter().rfind(|kept| kept.number == OWN)?.link.clone();
        link.open(&StreamOpen { tunnel, kind, peer: String::new() })
    }

    /// Gives a stream of a session's link a connection of its own; one whose stream has ended is closed.
    fn adopt(&self, session: &str, (number, stream): (u32, u32), carrier: Carrier) {
        let links = self.links.borrow();
        let known = links.iter().find(|kept| kept.session == session && kept.number == number);
        if let Some(link) = known.map(|kept| kept.link.clone()) {
            drop(links);
            link.adopt(stream, carrier);
        }
    }
}

/// Keeps a link to the hub for as long as the session lives.
pub(super) async fn keep(agent: Agent, session: Arc<Link>) {
    loop {
        let opened = tokio::select! {
            () = session.ended.cancelled() => return,
            opened = data_connection::connect(&agent, &session, Purpose::Link) => opened,
        };
        match opened.and_then(Parked::park) {
            Ok(parked) => {
                let (done, ended) = tokio::sync::oneshot::channel::<()>();
                let (on_core, session) = (agent.clone(), Arc::clone(&session));
                agent.on_core(move |local| async move {
                    if let Ok(carrier) = parked.adopt() {
                        run(&on_core, &local, &session, OWN, carrier).await;
                    }
                    drop(done);
                });
                // Nobody sends: it is dropped.
                let _ = ended.await;
            }
            Err(error) => tracing::debug!(%error, "the link to the hub failed"),
        }
        tokio::select! {
            () = session.ended.cancelled() => return,
            () = sleep(LINK_AGAIN) => {}
        }
    }
}

/// Makes a data connection a further link of the session.
pub(super) fn begin(agent: &Agent, session: &Arc<Link>, number: u32, carrier: Carrier) {
    let Ok(parked) = Parked::park(carrier) else { return };
    let (on_core, session) = (agent.clone(), Arc::clone(session));
    agent.on_core(move |local| async move {
        if let Ok(carrier) = parked.adopt() {
            run(&on_core, &local, &session, number, carrier).await;
        }
    });
}

async fn run(agent: &Agent, local: &Rc<Local>, session: &Link, number: u32, carrier: Carrier) {
    let link = Streams::new(End::Agent, u64::MAX);
    let kept = Kept { session: session.session_id.clone(), number, link: link.clone() };
    local.links.borrow_mut().push(kept);
    let taking = async {
        while let Some(arrival) = link.arrival().await {
            let agent = agent.clone();
            tokio::task::spawn_local(
                agent.clone().0.tasks.track_future(async move { serve(&agent, arrival).await }),
            );
        }
        std::future::pending::<()>().await;
    };
    let leaving = async {
        // The next session brings a link of its own; what runs here may go on.
        session.ended.cancelled().await;
        link.leave();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        driven = link.drive(carrier, || ()) => {
            if let Err(error) = driven {
                tracing::debug!(%error, "the link to the hub broke");
            }
        }
        () = taking => {}
        () = leaving => {}
        () = agent.0.stop.cancelled() => {}
    }
    local.links.borrow_mut().retain(|kept| kept.session != session.session_id || kept.number != number);
}

/// Dials the target of a stream that the hub opened, and relays.
async fn serve(agent: &Agent, arrival: Arrival) {
    let Arrival { open, stream } = arrival;
    // Boxed: what dialling takes is not to be kept for as long as the stream lives.
    match Box::pin(data::dial(agent, &open)).await {
        Ok((target, _room)) => {
            stream.accept();
            carry(agent, stream, target, &open).await;
        }
        Err((code, message)) => stream.refuse(code, message),
    }
}

/// Carries a stream to its target, opening what the other agent has sealed.
pub(super) async fn carry(agent: &Agent, stream: impl Side, target: Opened, open: &StreamOpen) {
    match open.kind {
        StreamKind::SealedTcp | StreamKind::SealedUdp => {
            let unsealed = Box::pin(sealing::unseal(agent, stream, open.tunnel)).await;
            match unsealed {
                Ok(stream) => target.carry(agent, stream).await,
                Err(error) => tracing::debug!(%error, "a sealed stream could not be opened"),
            }
        }
        StreamKind::Tcp | StreamKind::Http | StreamKind::Http2 | StreamKind::Udp => {
            target.carry(agent, stream).await;
        }
    }
}

/// Takes over a running stream, named by link and number, with a connection of its own.
pub(super) fn adopt(agent: &Agent, session: &Link, stream: (u32, u32), carrier: Carrier) {
    let Ok(parked) = Parked::park(carrier) else { return };
    let session = session.session_id.clone();
    agent.on_core(move |local| async move {
        if let Ok(carrier) = parked.adopt() {
            local.adopt(&session, stream, carrier);
        }
    });
}
