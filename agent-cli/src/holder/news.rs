//! News about what a process wanted: refused connections of its ports, and whether a target of its own answers.
//!
//! Followed where the session is, told to the process that asked, kept there as state: whoever looks late sees all.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use uuid::Uuid;

use super::{
    session::{ReachError, Session, TargetState},
    wire::{Granted, Want},
};
use crate::agent::{
    Reason, Refusals,
    refusals::{self, Tally},
};

/// News that may wait for the process they are for; the newest are told in one then.
const WAITING_MAX: usize = 64;

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum News {
    /// So many connections more were refused for a reason.
    Refused { tunnel: Uuid, reason: Reason, more: u64, words: String },
    /// Whether this machine's target of a tunnel answers.
    Target { tunnel: Uuid, state: TargetState },
}

/// What all news so far amount to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Connections that were refused since this process began.
    pub refused: BTreeMap<Uuid, Refusals>,
    /// The targets that this process watches, as far as anything is known.
    pub targets: BTreeMap<Uuid, TargetState>,
}

impl Known {
    pub(super) fn learn(&mut self, news: News) {
        match news {
            News::Refused { tunnel, reason, more, words } => {
                refusals::add(self.refused.entry(tunnel).or_default(), reason, more, &words);
            }
            News::Target { tunnel, state } => {
                self.targets.insert(tunnel, state);
            }
        }
    }
}

/// What one process got of a session: its open ports, and those who follow what becomes of them. Dropping it ends all.
pub(super) struct Grants<S: Session> {
    session: Arc<S>,
    ports: Vec<S::Port>,
    followers: JoinSet<()>,
    news: mpsc::Sender<News>,
}

impl<S: Session> Grants<S> {
    /// Nothing yet, and where the news will be.
    pub(super) fn of(session: Arc<S>) -> (Self, mpsc::Receiver<News>) {
        let (news, waiting) = mpsc::channel(WAITING_MAX);
        (Self { session, ports: Vec::new(), followers: JoinSet::new(), news }, waiting)
    }

    /// A want for any port becomes a want for the one that was opened: a takeover must bring back the same number.
    pub(super) async fn grant(&mut self, want: &mut Want) -> Granted {
        match want {
            Want::Allow(target) => {
                self.session.allow(target);
                Ok(0)
            }
            Want::CheckCertificate { target, check } => {
                self.session.check_certificate(target, check).map(|()| 0).map_err(ReachError::Failed)
            }
            Want::Reach { tunnel, service, carries, port } => {
                let open = self.session.reach(*tunnel, service, *carries, *port).await?;
                *port = S::number(&open);
                self.followers.spawn(follow_refusals(*tunnel, S::refusals(&open), self.news.clone()));
                self.ports.push(open);
                Ok(*port)
            }
            Want::Watch { tunnel } => {
                let following = follow_target(*tunnel, Arc::clone(&self.session), self.news.clone());
                self.followers.spawn(following);
                Ok(0)
            }
        }
    }
}

// Ends with the port.
async fn follow_refusals(tunnel: Uuid, mut refusals: watch::Receiver<Refusals>, news: mpsc::Sender<News>) {
    let mut told = Refusals::new();
    loop {
        let now = refusals.borrow_and_update().clone();
        for (reason, Tally { count, words }) in &now {
            let more = count - told.get(reason).map_or(0, |tally| tally.count);
            if more > 0 {
                let refused = News::Refused { tunnel, reason: *reason, more, words: words.clone() };
                if news.send(refused).await.is_err() {
                    return;
                }
            }
        }
        told = now;
        if refusals.changed().await.is_err() {
            return;
        }
    }
}

async fn follow_target<S: Session>(tunnel: Uuid, session: Arc<S>, news: mpsc::Sender<News>) {
    let mut told = None;
    while let Some(state) = session.target(tunnel, told.as_ref()).await {
        if news.send(News::Target { tunnel, state: state.clone() }).await.is_err() {
            return;
        }
        told = Some(state);
    }
}
