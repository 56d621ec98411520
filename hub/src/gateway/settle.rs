//! What the log learns of a session: its tunnels' states in the order of their frames, and at last its end.
//!
//! One task a session. It outlives the connection's actor, frozen or dropped, so that no end goes unrecorded.

use std::{sync::Arc, time::Duration};

use domain::{
    agent,
    agent::DisconnectReason,
    ids::TunnelId,
    recorded::Actor as Author,
    tunnel::{self, Condition, Outage},
};
use schemas::frames::{CommandEnded, Servable, TunnelState};
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{Gateway, commands, sessions::Session};
use crate::actors::{ExecuteError, Who};

/// How often a fact is offered to a log that takes no writes, and how long to wait in between.
const TRIES_MAX: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// The longest reason of an agent that is kept (characters).
const DETAIL_CHARS_MAX: usize = 300;
/// How many states a session may report at once, and how many a second after that: an agent whose target flickers
/// must not fill the log.
const STATES_BURST: f64 = 2_000.0;
const STATES_PER_SECOND: f64 = 20.0;

/// What an agent says that the log must know.
#[derive(Debug)]
pub(crate) enum Report {
    Tunnel(TunnelState),
    CommandTaken(u128),
    CommandEnded(CommandEnded),
}

/// Follows a session to its end.
pub(crate) async fn attend(gateway: Gateway, session: Arc<Session>, mut states: Receiver<Report>) {
    let mut pace = Pace { allowance: STATES_BURST, at: Instant::now() };
    loop {
        tokio::select! {
            biased;
            () = session.ending.cancelled() => break,
            state = states.recv() => match state {
                Some(said) => {
                    pace.wait().await;
                    match said {
                        Report::Tunnel(state) => report(&gateway, &session, state).await,
                        Report::CommandTaken(command) => commands::taken(&gateway, &session, command).await,
                        Report::CommandEnded(ended) => commands::ended(&gateway, &session, ended).await,
                    }
                }
                None => break,
            },
        }
    }
    // An agent that was told to stop says so and leaves: its last words count.
    while let Ok(said) = states.try_recv() {
        match said {
            Report::Tunnel(_) => {}
            Report::CommandTaken(command) => commands::taken(&gateway, &session, command).await,
            Report::CommandEnded(ended) => commands::ended(&gateway, &session, ended).await,
        }
    }
    // If nobody gave a reason before, the connection broke.
    gateway.close(&session, DisconnectReason::Lost, None);
    record_end(&gateway, &session).await;
    // The goodbye has a moment to leave; then the socket is shut, whatever its actor does.
    let moment = Duration::from_millis(gateway.settings().goodbye_ms_max);
    let actor_gone = async { while states.recv().await.is_some() {} };
    if timeout(moment, actor_gone).await.is_err() {
        session.shut();
    } else {
        sleep(moment).await;
        let _ = session.socket.shutdown(std::net::Shutdown::Both);
    }
}

struct Pace {
    allowance: f64,
    at: Instant,
}

impl Pace {
    async fn wait(&mut self) {
        let now = Instant::now();
        let earned = (now - self.at).as_secs_f64() * STATES_PER_SECOND;
        self.at = now;
        self.allowance = (self.allowance + earned).min(STATES_BURST) - 1.0;
        if self.allowance < 0.0 {
            sleep(Duration::from_secs_f64(-self.allowance / STATES_PER_SECOND)).await;
        }
    }
}

async fn report(gateway: &Gateway, session: &Session, state: TunnelState) {
    let tunnel = TunnelId::new(Uuid::from_u128(state.tunnel));
    if !serves(gateway, session, tunnel) {
        return;
    }
    let command = match state.servable {
        Servable::Yes => tunnel::Command::MarkConnected { session_id: session.id },
        Servable::Unreachable(detail) => {
            tunnel::Command::MarkDisconnected { outage: Outage::TargetUnreachable(kept(&detail)) }
        }
        Servable::NotAllowed(detail) => {
            tunnel::Command::MarkDisconnected { outage: Outage::TargetRefused(kept(&detail)) }
        }
    };
    record_tunnel(gateway, session, tunnel, command).await;
    gateway.sessions().states.send_modify(|count| *count += 1);
}

/// An agent speaks for its own tunnels only.
fn serves(gateway: &Gateway, session: &Session, tunnel: TunnelId) -> bool {
    gateway.parts().routes.tunnel(tunnel).is_some_and(|entry| {
        entry.state.open().is_some_and(|details| {
            details.created.agent_id == session.agent && details.created.workspace_id == session.workspace
        })
    })
}

/// The session's end, unless a newer session of the agent has made that a fact already.
async fn record_end(gateway: &Gateway, session: &Session) {
    let turn = gateway.sessions().turn(session.agent);
    let _turn = turn.lock().await;
    if gateway.is_connected(session.agent) {
        return;
    }
    let reason = (*session.reason.lock()).unwrap_or(DisconnectReason::Lost);
    for _ in 0..TRIES_MAX {
        let command = agent::Command::Disconnect { session_id: session.id, reason };
        match gateway.parts().executor.agent(session.agent, who(session), command).await {
            Ok(_)
            | Err(
                ExecuteError::Rejected(_)
                | ExecuteError::NotFound
                | ExecuteError::Changed
                | ExecuteError::Refused(_),
            ) => break,
            Err(ExecuteError::Busy | ExecuteError::Unavailable(_) | ExecuteError::InDoubt(_)) => {
                sleep(TRY_AGAIN).await;
            }
        }
    }
    for tunnel in gateway.parts().routes.tunnels_of(session.agent) {
        let settled = gateway.parts().routes.tunnel(tunnel).is_some_and(|entry| {
            entry.state.open().is_some_and(|details| details.condition != Condition::Connecting)
        });
        if settled {
            let command = tunnel::Command::MarkDisconnected { outage: Outage::AgentDisconnected };
            record_tunnel(gateway, session, tunnel, command).await;
        }
    }
    gateway.sessions().states.send_modify(|count| *count += 1);
}

async fn record_tunnel(gateway: &Gateway, session: &Session, tunnel: TunnelId, command: tunnel::Command) {
    for _ in 0..TRIES_MAX {
        match gateway.parts().executor.tunnel(tunnel, who(session), command.clone()).await {
            Ok(_) | Err(ExecuteError::Rejected(_) | ExecuteError::NotFound | ExecuteError::Changed) => return,
            Err(ExecuteError::Refused(reason)) => {
                return tracing::error!(%tunnel, reason, "a tunnel's state was refused by the log");
            }
            // Marking a tunnel again changes nothing, so doubt is settled by doing it again.
            Err(ExecuteError::Busy | ExecuteError::Unavailable(_) | ExecuteError::InDoubt(_)) => {
                sleep(TRY_AGAIN).await;
            }
        }
    }
    tracing::warn!(%tunnel, "a tunnel's state could not be recorded");
}

pub(super) fn who(session: &Session) -> Who {
    Who { workspace: session.workspace, actor: Author::Agent(session.agent), request: None, causation: None }
}

fn kept(detail: &str) -> String {
    detail.chars().filter(|c| !c.is_control()).take(DETAIL_CHARS_MAX).collect()
}
