//! The tunnels that the hub assigned to this agent, and whether their targets can be dialled.
//!
//! Each is probed when it is assigned, again while it cannot be reached, and again after a stream could not dial it;
//! the hub is told whenever that changes. What a target speaks, where the tunnel leaves it open, is found out by one look
//! at a time, kept, and found out anew after the target was away or its TLS failed.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::target::{Protocol, Target};
use parking_lot::Mutex;
use schemas::frames::{Frame, Servable, TunnelAssigned, TunnelState};
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Agent,
    control::Link,
    dialer,
    speech::{self, Speech},
    target_tls::{Inside, TlsFailure},
};

/// How long a target that cannot be reached is left alone.
const PROBE_AGAIN: Duration = Duration::from_secs(2);
/// The same for one whose certificate is not accepted: a handshake costs it something.
const PROBE_TLS_AGAIN: Duration = Duration::from_secs(30);
/// How long a stream waits until it is known what its target speaks.
const SPEECH_PATIENCE: Duration = Duration::from_millis(2_500);
/// How long after a look one may doubt it.
const DOUBT_PATIENCE: Duration = Duration::from_secs(1);
/// How long what was seen holds without anybody's doubt, from one session to the next.
const SEEN_LATELY: Duration = Duration::from_secs(60);
/// How often a target that gave nothing away is looked at, and how long after the last time.
const LOOKS_MAX: u32 = 3;
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How long a stream waits for the assignment of its tunnel: the two travel on different connections.
const ASSIGNMENT_PATIENCE: Duration = Duration::from_secs(2);

/// A tunnel as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelView {
    pub name: String,
    pub host: String,
    pub port: u16,
    /// `None` until the first probe has ended.
    pub servable: Option<Servable>,
    /// What the target speaks, once it was looked at: for tunnels of the protocols `auto` and `https`.
    pub speech: Option<Speech>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    assigned: Mutex<BTreeMap<u128, Assigned>>,
    views: watch::Sender<BTreeMap<u128, TunnelView>>,
    /// What targets were found to speak, and when: a hub that comes and goes is no reason to ask them again.
    seen: Mutex<BTreeMap<u128, (Target, Speech, Instant)>>,
}

#[derive(Debug)]
struct Assigned {
    target: Target,
    protocol: Protocol,
    /// Whether the last dial succeeded.
    good: bool,
    /// Where a target that takes datagrams was heard last.
    answering: Option<SocketAddr>,
    probe_now: Arc<Notify>,
    /// What it speaks is to be found out anew.
    doubted: Arc<AtomicBool>,
    over: CancellationToken,
}

impl Tunnels {
    pub(super) fn views(&self) -> watch::Receiver<BTreeMap<u128, TunnelView>> {
        self.views.subscribe()
    }

    /// Takes an assignment, new or changed; its state is told to the hub by a task of its own.
    pub(super) fn assign(agent: &Agent, link: &Arc<Link>, tunnel: TunnelAssigned) {
        let tunnels = &agent.0.tunnels;
        let (probe_now, over) = (Arc::new(Notify::new()), link.ended.child_token());
        let doubted = Arc::new(AtomicBool::new(false));
        let TunnelAssigned { tunnel, name, host, port, protocol } = tunnel;
        let target = Target { host: host.clone(), port };
        // A protocol of a newer hub is carried like any other bytes.
        let protocol = protocol.parse().unwrap_or(Protocol::Auto);
        let assigned = Assigned {
            target: target.clone(),
            protocol,
            good: false,
            answering: None,
            probe_now: Arc::clone(&probe_now),
            doubted: Arc::clone(&doubted),
            over: over.clone(),
        };
        if let Some(former) = tunnels.assigned.lock().insert(tunnel, assigned) {
            former.over.cancel();
        }
        let speech = tunnels.seen_lately(tunnel, &target).filter(|_| protocol == Protocol::Auto);
        let view = TunnelView { name, host, port, servable: None, speech };
        tunnels.views.send_modify(|views| {
            views.insert(tunnel, view);
        });
        let probe = Probe { agent: agent.clone(), tunnel, target, protocol, doubted };
        let probing = probe.run(Arc::clone(link), probe_now);
        agent.0.tasks.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = probing => {}
            }
        });
    }

    pub(super) fn withdraw(&self, tunnel: u128) {
        if let Some(former) = self.assigned.lock().remove(&tunnel) {
            former.over.cancel();
        }
        self.seen.lock().remove(&tunnel);
        self.views.send_modify(|views| {
            views.remove(&tunnel);
        });
    }

    /// Forgets everything: a new session brings it again.
    pub(super) fn clear(&self) {
        self.assigned.lock().clear();
        self.views.send_modify(BTreeMap::clear);
    }

    /// The target of a tunnel and how it is spoken to, waiting a moment for its assignment.
    pub(super) async fn target(&self, tunnel: u128) -> Option<(Target, Protocol)> {
        if let Some(served) = self.served(tunnel) {
            return Some(served);
        }
        let mut views = self.views.subscribe();
        let known = async { views.wait_for(|views| views.contains_key(&tunnel)).await.is_ok() };
        if !timeout(ASSIGNMENT_PATIENCE, known).await.unwrap_or(false) {
            return None;
        }
        self.served(tunnel)
    }

    /// The target of a tunnel and how it is spoken to.
    pub(super) fn served(&self, tunnel: u128) -> Option<(Target, Protocol)> {
        self.assigned.lock().get(&tunnel).map(|assigned| (assigned.target.clone(), assigned.protocol))
    }

    /// What a stream found out about the target; the hub is told if that is news.
    pub(super) fn dialled(&self, tunnel: u128, good: bool) {
        if let Some(assigned) = self.assigned.lock().get(&tunnel)
            && assigned.good != good
        {
            assigned.probe_now.notify_one();
        }
    }

    /// What a target speaks; waits a moment while it is being looked at. `None`: it could not be reached.
    pub(super) async fn speech(&self, tunnel: u128) -> Option<Speech> {
        let mut views = self.views.subscribe();
        let settled = views.wait_for(|views| {
            views.get(&tunnel).is_none_or(|view| {
                view.speech.is_some() || matches!(view.servable, Some(Servable::Unreachable(_)))
            })
        });
        let views = timeout(SPEECH_PATIENCE, settled).await.ok()?.ok()?;
        views.get(&tunnel).and_then(|view| view.speech.clone())
    }

    pub(super) fn note_speech(&self, tunnel: u128, speech: Speech) {
        if let Some((target, _)) = self.served(tunnel) {
            self.seen.lock().insert(tunnel, (target, speech.clone(), Instant::now()));
        }
        self.views.send_modify(|views| {
            if let Some(view) = views.get_mut(&tunnel) {
                view.speech = Some(speech);
            }
        });
    }

    /// What is good enough to be taken for known when a session begins.
    fn seen_lately(&self, tunnel: u128, at: &Target) -> Option<Speech> {
        let seen = self.seen.lock();
        let (target, speech, when) = seen.get(&tunnel)?;
        let is_good = speech.distrust.is_none() && when.elapsed() < SEEN_LATELY && target == at;
        is_good.then(|| speech.clone())
    }

    fn knows_speech(&self, tunnel: u128) -> bool {
        let views = self.views.borrow();
        let speech = views.get(&tunnel).and_then(|view| view.speech.as_ref());
        speech.is_some_and(|speech| speech.protocol != Protocol::Auto)
    }

    fn forget_speech(&self, tunnel: u128) {
        self.seen.lock().remove(&tunnel);
        self.views.send_if_modified(|views| {
            views.get_mut(&tunnel).is_some_and(|view| view.speech.take().is_some())
        });
    }

    /// A stream found out that TLS with a target does not come about.
    pub(super) fn tls_failed(&self, tunnel: u128, failure: &TlsFailure) {
        let is_known = match failure {
            // That says nothing about what was seen.
            TlsFailure::NotSpoken(_) => true,
            TlsFailure::Distrusted(_) => {
                let views = self.views.borrow();
                let speech = views.get(&tunnel).and_then(|view| view.speech.as_ref());
                speech.is_some_and(|speech| speech.distrust.is_some())
            }
            TlsFailure::NoTls | TlsFailure::Failed(_) => false,
        };
        if !is_known {
            self.doubt(tunnel);
        }
    }

    /// What is known of a target's TLS does not hold any more.
    fn doubt(&self, tunnel: u128) {
        if let Some(assigned) = self.assigned.lock().get(&tunnel) {
            assigned.doubted.store(true, Ordering::Relaxed);
            assigned.probe_now.notify_one();
        }
    }

    /// The same for every tunnel to a target.
    pub(super) fn doubt_target(&self, target: &Target) {
        let of_target: Vec<u128> = {
            let assigned = self.assigned.lock();
            assigned.iter().filter(|(_, one)| one.target == *target).map(|(tunnel, _)| *tunnel).collect()
        };
        of_target.into_iter().for_each(|tunnel| self.doubt(tunnel));
    }

    /// Where a target that takes datagrams was heard last.
    pub(super) fn answering_address(&self, tunnel: u128) -> Option<SocketAddr> {
        self.assigned.lock().get(&tunnel).and_then(|assigned| assigned.answering)
    }

    pub(super) fn note_answering_address(&self, tunnel: u128, address: SocketAddr) {
        if let Some(assigned) = self.assigned.lock().get_mut(&tunnel) {
            assigned.answering = Some(address);
        }
    }

    fn note(&self, tunnel: u128, servable: &Servable) {
        if let Some(assigned) = self.assigned.lock().get_mut(&tunnel) {
            assigned.good = *servable == Servable::Yes;
        }
        self.show(tunnel, servable);
    }

    /// Shows the owner, and nobody else, how a target stands: the hub is not told of every datagram that was refused.
    pub(super) fn show(&self, tunnel: u128, servable: &Servable) {
        self.views.send_if_modified(|views| {
            let Some(view) = views.get_mut(&tunnel) else { return false };
            let is_news = view.servable.as_ref() != Some(servable);
            view.servable = Some(servable.clone());
            is_news
        });
    }
}

/// Looks after one assignment.
struct Probe {
    agent: Agent,
    tunnel: u128,
    target: Target,
    protocol: Protocol,
    doubted: Arc<AtomicBool>,
}

/// What a look at a target found.
struct Looked {
    servable: Servable,
    /// A connection to a target that may be looked at further.
    socket: Option<TcpStream>,
    again_after: Option<Duration>,
}

impl Probe {
    async fn run(self, link: Arc<Link>, probe_now: Arc<Notify>) {
        let tunnels = &self.agent.0.tunnels;
        let (mut told, mut looks) = (None, 0);
        let (mut looked_at, mut is_distrusted) = (None::<Instant>, false);
        let mut allowed = self.agent.0.allowed.changes();
        loop {
            allowed.mark_unchanged();
            let is_doubted = self.doubted.swap(false, Ordering::Relaxed);
            if is_doubted && let Some(at) = looked_at {
                // However many streams doubt.
                sleep_until(at + DOUBT_PATIENCE).await;
            }
            looked_at = Some(Instant::now());
            let Looked { servable, socket, mut again_after } = self.look().await;
            let is_doubted = is_doubted || is_distrusted;
            if self.protocol == Protocol::Auto && servable != Servable::Yes {
                tunnels.forget_speech(self.tunnel);
            }
            if is_doubted || servable != Servable::Yes {
                looks = 0;
            }
            if told.as_ref() != Some(&servable) {
                tunnels.note(self.tunnel, &servable);
                let state = TunnelState { tunnel: self.tunnel, servable: servable.clone() };
                if !link.send(Frame::TunnelState(state)).await {
                    return;
                }
                told = Some(servable.clone());
            }
            if let Some(socket) = socket
                && looks < LOOKS_MAX
                && (is_doubted || !tunnels.knows_speech(self.tunnel))
            {
                let judge = self.agent.0.target_tls.judge(&self.target);
                let seen = speech::listen(&judge, &self.target, socket).await;
                tracing::debug!(target = %self.target, ?seen, "looked at what a target speaks");
                looks += 1;
                if seen.speech.protocol == Protocol::Auto && looks < LOOKS_MAX {
                    again_after = Some(LOOK_AGAIN);
                }
                // It may be renewed.
                is_distrusted = seen.speech.distrust.is_some();
                if is_distrusted {
                    again_after = Some(PROBE_TLS_AGAIN);
                }
                tunnels.note_speech(self.tunnel, seen.speech);
            }
            let again = async {
                match again_after {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = probe_now.notified() => {}
                () = again => {}
                // Only its owner can change that.
                changed = allowed.changed(), if matches!(servable, Servable::NotAllowed(_)) => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn look(&self) -> Looked {
        let Self { agent, target, .. } = self;
        let found = |servable, again_after| Looked { servable, socket: None, again_after };
        if !agent.0.allowed.permits(&target.host, target.port) {
            let words = format!("the agent's owner does not allow {target}");
            return found(Servable::NotAllowed(words), None);
        }
        if self.protocol == Protocol::Udp {
            // Nobody answers a datagram that asks nothing.
            return found(Servable::Yes, None);
        }
        let unreachable = |why: &str| Servable::Unreachable(format!("{target}: {why}"));
        let socket = match dialer::dial(&target.host, target.port).await {
            Ok(socket) => socket,
            Err(error) => return found(unreachable(&error.to_string()), Some(PROBE_AGAIN)),
        };
        match self.protocol {
            Protocol::Auto => Looked { servable: Servable::Yes, socket: Some(socket), again_after: None },
            Protocol::Tcp | Protocol::Udp | Protocol::Http => found(Servable::Yes, None),
            Protocol::Https => match self.agree(socket).await {
                Ok(()) => found(Servable::Yes, None),
                Err(failure) => found(unreachable(&failure.to_string()), Some(PROBE_TLS_AGAIN)),
            },
        }
    }

    /// Whether TLS with the target comes about as its owner wants it.
    async fn agree(&self, socket: TcpStream) -> Result<(), TlsFailure> {
        let agreed =
            self.agent.0.target_tls.judge(&self.target).connect(&self.target, socket, Inside::Http1).await;
        let tunnels = &self.agent.0.tunnels;
        let https = |distrust| Speech { protocol: Protocol::Https, is_tls: true, distrust };
        match agreed {
            // HTTP/2 alone is HTTPS too.
            Ok(_) | Err(TlsFailure::NotSpoken(_)) => {
                tunnels.note_speech(self.tunnel, https(None));
                Ok(())
            }
            Err(TlsFailure::Distrusted(words)) => {
                tunnels.note_speech(self.tunnel, https(Some(words.clone())));
                Err(TlsFailure::Distrusted(words))
            }
            Err(failure) => {
                tunnels.forget_speech(self.tunnel);
                Err(failure)
            }
        }
    }
}
