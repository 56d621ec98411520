//! Where a core's connections come from: a listener of its own, or another listener on the same address that knows the
//! edge's connections by the name that they ask for.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::mpsc;

use super::metrics::Metrics;

/// Connections that were handed over and wait for a core, at most; like the backlog of a listener.
const HANDED_OVER_MAX: usize = 1_024;

/// A core's source.
#[derive(Debug)]
pub(super) enum Source {
    Listener(std::net::TcpListener),
    Handed(mpsc::Receiver<std::net::TcpStream>),
}

/// The way to the cores for connections that somebody else accepted.
#[derive(Debug)]
pub(super) struct Intake {
    cores: Vec<mpsc::Sender<std::net::TcpStream>>,
    next: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl Intake {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { cores: Vec::new(), next: AtomicUsize::new(0), metrics }
    }

    /// One more core.
    pub(super) fn add_core(&mut self) -> Source {
        let (sender, handed) = mpsc::channel(HANDED_OVER_MAX);
        self.cores.push(sender);
        Source::Handed(handed)
    }

    /// Gives a connection to the core whose turn it is; closes it when that one has too many, or has ended.
    pub(super) fn hand_over(&self, socket: std::net::TcpStream) {
        let turn = self.next.fetch_add(1, Relaxed) % self.cores.len().max(1);
        let is_taken = self.cores.get(turn).is_some_and(|core| core.try_send(socket).is_ok());
        if !is_taken {
            self.metrics.connections_refused.add(1);
        }
    }
}
