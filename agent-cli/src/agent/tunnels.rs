//! The tunnels that the hub assigned to this agent, and whether their targets can be dialled.
//!
//! Each is probed when it is assigned, again while it cannot be reached, and again after a stream could not dial it;
//! the hub is told whenever that changes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use domain::target::{Protocol, Target};
use parking_lot::Mutex;
use schemas::frames::{Frame, Servable, TunnelAssigned, TunnelState};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Agent, control::Link, dialer};

/// How long a target that cannot be reached is left alone.
const PROBE_AGAIN: Duration = Duration::from_secs(2);
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
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    assigned: Mutex<BTreeMap<u128, Assigned>>,
    views: watch::Sender<BTreeMap<u128, TunnelView>>,
}

#[derive(Debug)]
struct Assigned {
    target: Target,
    protocol: Protocol,
    /// Whether the last dial succeeded.
    good: bool,
    probe_now: Arc<Notify>,
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
        let target = Target { host: tunnel.host.clone(), port: tunnel.port };
        // A protocol of a newer hub is carried like any other bytes.
        let protocol = tunnel.protocol.parse().unwrap_or(Protocol::Auto);
        let assigned =
            Assigned { target, protocol, good: false, probe_now: Arc::clone(&probe_now), over: over.clone() };
        if let Some(former) = tunnels.assigned.lock().insert(tunnel.tunnel, assigned) {
            former.over.cancel();
        }
        let view = TunnelView {
            name: tunnel.name.clone(),
            host: tunnel.host.clone(),
            port: tunnel.port,
            servable: None,
        };
        tunnels.views.send_modify(|views| {
            views.insert(tunnel.tunnel, view);
        });
        let probing = probe(agent.clone(), Arc::clone(link), tunnel, probe_now);
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
        self.views.send_modify(|views| {
            views.remove(&tunnel);
        });
    }

    /// Forgets everything: a new session brings it again.
    pub(super) fn clear(&self) {
        self.assigned.lock().clear();
        self.views.send_modify(BTreeMap::clear);
    }

    /// The target of a tunnel, waiting a moment for its assignment.
    pub(super) async fn target(&self, tunnel: u128) -> Option<Target> {
        if let Some((target, _)) = self.served(tunnel) {
            return Some(target);
        }
        let mut views = self.views.subscribe();
        let known = async { views.wait_for(|views| views.contains_key(&tunnel)).await.is_ok() };
        if !timeout(ASSIGNMENT_PATIENCE, known).await.unwrap_or(false) {
            return None;
        }
        self.served(tunnel).map(|(target, _)| target)
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

    fn note(&self, tunnel: u128, servable: &Servable) {
        if let Some(assigned) = self.assigned.lock().get_mut(&tunnel) {
            assigned.good = *servable == Servable::Yes;
        }
        self.views.send_modify(|views| {
            if let Some(view) = views.get_mut(&tunnel) {
                view.servable = Some(servable.clone());
            }
        });
    }
}

async fn probe(agent: Agent, link: Arc<Link>, tunnel: TunnelAssigned, probe_now: Arc<Notify>) {
    let mut told = None;
    let mut allowed = agent.0.allowed.changes();
    loop {
        allowed.mark_unchanged();
        let servable = look(&agent, &tunnel).await;
        if told.as_ref() != Some(&servable) {
            agent.0.tunnels.note(tunnel.tunnel, &servable);
            let state = TunnelState { tunnel: tunnel.tunnel, servable: servable.clone() };
            if !link.send(Frame::TunnelState(state)).await {
                return;
            }
            told = Some(servable.clone());
        }
        match servable {
            Servable::Yes => probe_now.notified().await,
            Servable::Unreachable(_) => tokio::select! {
                () = probe_now.notified() => {}
                () = sleep(PROBE_AGAIN) => {}
            },
            // Only its owner can change that.
            Servable::NotAllowed(_) => {
                if allowed.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn look(agent: &Agent, tunnel: &TunnelAssigned) -> Servable {
    let target = Target { host: tunnel.host.clone(), port: tunnel.port };
    if !agent.0.allowed.permits(&target.host, target.port) {
        return Servable::NotAllowed(format!("the agent's owner does not allow {target}"));
    }
    if tunnel.protocol == "udp" {
        // Nobody answers a datagram that asks nothing.
        return Servable::Yes;
    }
    match dialer::dial(&target.host, target.port).await {
        Ok(_) => Servable::Yes,
        Err(error) => Servable::Unreachable(format!("{target}: {error}")),
    }
}
