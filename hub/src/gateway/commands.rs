//! Commands to agents over their sessions: sent when they are queued and at each session until their end is known, and
//! what agents say of them.
//!
//! Everything here may happen twice: an agent remembers what it was told, and an ended command stays ended.

use std::time::Duration;

use domain::{
    agent_command::{Command, CommandQueued, Order, Outcome, Progress, RESULT_BYTES_MAX},
    ids::{AgentId, CommandId, TunnelId},
    names::Name,
    target::{Protocol, Target},
    time::Timestamp,
    tunnel::TunnelUpdated,
};
use schemas::frames::{CommandEnded, CommandOrdered, CommandOutcome, Frame};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Gateway, sessions::Session, settle::who};
use crate::{
    actors::ExecuteError,
    api::error::ApiError,
    creation::{CreateError, NewTunnel},
    secrets::Seed,
};

/// How often a fact is offered to a log that takes no writes, and how long to wait in between. A command that could not
/// be recorded is sent again to the agent's next session, and answered as before.
const TRIES_MAX: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// The longest code and message of an agent that are kept (characters).
const CODE_CHARS_MAX: usize = 64;
const MESSAGE_CHARS_MAX: usize = 500;

impl Gateway {
    /// Sends a command to its agent, if that is connected: after it was queued.
    pub fn order(&self, id: CommandId) {
        let Some(entry) = self.parts().routes.command(id) else { return };
        let Some(queued) = entry.state.pending() else { return };
        if let Some(session) = self.sessions().of(queued.agent_id)
            && let Some(frame) = frame(queued, &entry.state.progress, self.parts().clock.now())
        {
            session.send(frame);
        }
    }

    /// What waits for an agent that has just come, the oldest first.
    pub(super) fn waiting_orders(&self, agent: AgentId) -> Vec<Frame> {
        let now = self.parts().clock.now();
        let pending = self.parts().routes.pending_commands(agent);
        let waiting =
            pending.iter().filter_map(|(_, entry)| frame(entry.state.pending()?, &entry.state.progress, now));
        waiting.collect()
    }
}

/// `None`: too late. One that the agent took is told again: its end is still of interest.
fn frame(queued: &CommandQueued, progress: &Progress, now: Timestamp) -> Option<Frame> {
    if *progress == Progress::Queued && queued.expires_at <= now {
        return None;
    }
    let order = serde_json::to_string(&queued.order).expect("plain data with string keys");
    Some(Frame::CommandOrdered(CommandOrdered { command: queued.command_id.uuid().as_u128(), order }))
}

/// The agent has a command.
pub(super) async fn taken(gateway: &Gateway, session: &Session, command: u128) {
    if let Some((id, _)) = of_agent(gateway, session, command) {
        record(gateway, session, id, Command::Deliver { session_id: session.id }).await;
    }
}

/// The agent says how a command ended.
pub(super) async fn ended(gateway: &Gateway, session: &Session, ended: CommandEnded) {
    let Some((id, queued)) = of_agent(gateway, session, ended.command) else { return };
    let outcome = match (outcome(ended.outcome), queued.order) {
        // The agent's part is to allow the target; the tunnel is the hub's.
        (Outcome::Done { .. }, Order::Expose { target, name, protocol }) => {
            match expose(gateway, session, id, target, name, protocol).await {
                Some(outcome) => outcome,
                None => return,
            }
        }
        (outcome, _) => outcome,
    };
    record(gateway, session, id, Command::Finish { outcome }).await;
}

/// An agent speaks of its own commands only.
fn of_agent(gateway: &Gateway, session: &Session, command: u128) -> Option<(CommandId, CommandQueued)> {
    let id = CommandId::new(Uuid::from_u128(command));
    let entry = gateway.parts().routes.command(id)?;
    let queued = entry.state.queued.clone()?;
    (queued.agent_id == session.agent && queued.workspace_id == session.workspace).then_some((id, queued))
}

/// What an agent says is kept, up to a length.
fn outcome(said: CommandOutcome) -> Outcome {
    let cut = |text: &str, chars: usize| -> String {
        text.chars().filter(|c| !c.is_control()).take(chars).collect()
    };
    match said {
        CommandOutcome::Done(json) => {
            let is_short = json.len() <= RESULT_BYTES_MAX;
            match serde_json::from_str(&json) {
                Ok(result) if is_short => Outcome::Done { result },
                Ok(_) | Err(_) => {
                    failed("result_unreadable", "it was done, and the agent's result cannot be read")
                }
            }
        }
        CommandOutcome::Failed(failure) => Outcome::Failed {
            code: cut(&failure.code, CODE_CHARS_MAX),
            message: cut(&failure.message, MESSAGE_CHARS_MAX),
        },
    }
}

fn failed(code: &str, message: &str) -> Outcome {
    Outcome::Failed { code: code.to_owned(), message: message.to_owned() }
}

/// Makes the tunnel that the agent agreed to, or brings the agent's own of that name there. `None`: not now; the command
/// is sent again.
async fn expose(
    gateway: &Gateway,
    session: &Session,
    id: CommandId,
    target: Target,
    name: Option<Name>,
    protocol: Protocol,
) -> Option<Outcome> {
    let parts = gateway.parts();
    let own = name.as_ref().and_then(|name| {
        let known = parts.routes.tunnel_named(session.workspace, name.as_str())?;
        let entry = parts.routes.tunnel(known)?;
        (entry.state.open()?.created.agent_id == session.agent).then_some(known)
    });
    let made = match own {
        Some(known) => {
            let change =
                TunnelUpdated { target: Some(target), protocol: Some(protocol), ..TunnelUpdated::default() };
            parts.creator.update(&who(session), known, change).await.map(|_| known)
        }
        None => {
            // From the command's id: however often its end is told, it makes one tunnel. No secret comes from this seed.
            let first_seen = parts.routes.command(id).map(|entry| entry.created_at)?;
            let seed = Seed::derived(&[0; 32], id.uuid(), first_seen);
            let new = NewTunnel {
                agent_id: session.agent,
                name,
                target,
                protocol,
                is_public: false,
                expires_at: None,
            };
            parts.creator.tunnel(&who(session), &seed, new).await.map(|(id, _)| id)
        }
    };
    match made {
        Ok(tunnel) => Some(exposed(gateway, tunnel)),
        Err(error) => refused(error),
    }
}

fn exposed(gateway: &Gateway, tunnel: TunnelId) -> Outcome {
    let entry = gateway.parts().routes.tunnel(tunnel);
    let Some(details) = entry.as_ref().and_then(|entry| entry.state.open()) else {
        return failed("tunnel_not_found", "the tunnel was deleted meanwhile");
    };
    let created = &details.created;
    Outcome::Done {
        result: serde_json::json!({
            "tunnelId": tunnel.to_string(),
            "name": created.name,
            "targetHost": created.target.host,
            "targetPort": created.target.port,
            "tunnelPort": created.tunnel_port,
        }),
    }
}

/// What stands in the way for good ends the command; what may pass does not.
fn refused(error: CreateError) -> Option<Outcome> {
    let passes = matches!(
        &error,
        CreateError::Claim(error) if is_passing(error)
    ) || matches!(&error, CreateError::Tunnel(error) if is_passing(error));
    if passes {
        return None;
    }
    let shown = ApiError::from(error);
    Some(failed(shown.code, &shown.message))
}

fn is_passing<R>(error: &ExecuteError<R>) -> bool {
    match error {
        ExecuteError::Busy | ExecuteError::Unavailable(_) | ExecuteError::InDoubt(_) => true,
        ExecuteError::Rejected(_)
        | ExecuteError::NotFound
        | ExecuteError::Changed
        | ExecuteError::Refused(_) => false,
    }
}

async fn record(gateway: &Gateway, session: &Session, id: CommandId, command: Command) {
    for _ in 0..TRIES_MAX {
        match gateway.parts().executor.command(id, who(session), command.clone()).await {
            Ok(_) => return,
            Err(error) if is_passing(&error) => sleep(TRY_AGAIN).await,
            Err(error) => return tracing::error!(command = %id, ?error, "a command's state was refused"),
        }
    }
    tracing::warn!(command = %id, "a command's state could not be recorded, it is sent again");
}
