//! What the hub's users may have this agent do: say how it stands, connect anew, end, serve a target, open a local port.
//!
//! Each command is carried out once: its id is written down before it is begun, and its end after. One that was begun by
//! a process that has gone is not begun again, and the hub is told that nobody knows. The owner's list of targets decides
//! here as everywhere.

use std::{path::PathBuf, time::Instant};

use domain::{
    agent_command::Order,
    ids::TunnelId,
    target::{Protocol, Target},
};
use parking_lot::Mutex;
use schemas::frames::{CommandEnded, CommandFailure, CommandOutcome, OpenPort, PortOutcome, Servable};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Agent, Carries, ports};

mod memory;

use memory::{Known, Memory};

/// How many tunnels and ports the answer to `status` shows; their number is said in any case.
const SHOWN_MAX: usize = 100;

/// What was ordered so far.
#[derive(Debug)]
pub(super) struct Commands {
    memory: Mutex<Memory>,
    /// The command that made the agent connect anew, until it has.
    restarting: Mutex<Option<u128>>,
    began: Instant,
}

/// What follows from a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    Restart,
    Stop,
}

/// A command that was carried out, or will have been.
#[derive(Debug)]
pub(super) struct Done {
    /// `None`: its end is told later.
    pub(super) outcome: Option<CommandOutcome>,
    pub(super) then: Then,
}

impl Commands {
    pub(super) fn open(file: Option<PathBuf>) -> Self {
        Self { memory: Mutex::new(Memory::open(file)), restarting: Mutex::default(), began: Instant::now() }
    }

    /// The end of a restart, once there is a session again.
    pub(super) fn restarted(&self, epoch: u64) -> Option<CommandEnded> {
        let command = self.restarting.lock().take()?;
        let outcome = done(&json!({ "epoch": epoch }));
        self.memory.lock().end(command, &outcome);
        Some(CommandEnded { command, outcome })
    }
}

fn done(result: &Value) -> CommandOutcome {
    CommandOutcome::Done(result.to_string())
}

fn failed(code: &str, message: impl Into<String>) -> CommandOutcome {
    CommandOutcome::Failed(CommandFailure { code: code.to_owned(), message: message.into() })
}

/// Does what a command says, unless it was done already.
pub(super) fn carry_out(agent: &Agent, session: &str, command: u128, order: &str) -> Done {
    let commands = &agent.0.commands;
    let ended = |outcome| Done { outcome: Some(outcome), then: Then::GoOn };
    match commands.memory.lock().begin(command) {
        Known::New => {}
        Known::Ended(outcome) => return ended(outcome),
        Known::Begun => return Done { outcome: None, then: Then::GoOn },
        Known::InDoubt(outcome) => return ended(outcome),
    }
    let order: Order = match serde_json::from_str(order) {
        Ok(order) => order,
        Err(_) => {
            let outcome =
                failed("unknown_action", "this agent does not know the command; update connect there");
            commands.memory.lock().end(command, &outcome);
            return ended(outcome);
        }
    };
    tracing::info!(action = order.action(), "a command came over the hub");
    let (outcome, then) = match order {
        Order::Restart => {
            *commands.restarting.lock() = Some(command);
            return Done { outcome: None, then: Then::Restart };
        }
        Order::Stop => (done(&json!({ "stopped": true })), Then::Stop),
        Order::Status => (done(&status(agent, session)), Then::GoOn),
        Order::Expose { target, .. } => (expose(agent, &target), Then::GoOn),
        Order::Reach { tunnel_id, service, protocol, port } => {
            (reach(agent, tunnel_id, service.as_str(), protocol, port), Then::GoOn)
        }
    };
    commands.memory.lock().end(command, &outcome);
    Done { outcome: Some(outcome), then }
}

/// The owner's word; the hub then makes the tunnel and assigns it, as any other.
fn expose(agent: &Agent, target: &Target) -> CommandOutcome {
    if agent.0.allowed.permits(&target.host, target.port) {
        return done(&json!({ "allowed": true }));
    }
    failed(
        "target_not_allowed",
        format!("the agent's owner does not allow {target}; allow it there: connect expose {target}"),
    )
}

fn reach(agent: &Agent, tunnel: TunnelId, service: &str, protocol: Protocol, port: u16) -> CommandOutcome {
    let wanted = OpenPort { request: 0, tunnel: tunnel.uuid().as_u128(), name: service.to_owned(), port };
    match ports::open_for_hub(agent, &wanted, Carries::of(protocol)) {
        PortOutcome::Listening(local_port) => {
            done(&json!({ "localPort": local_port, "service": service, "tunnelId": tunnel.to_string() }))
        }
        PortOutcome::Taken => {
            failed("local_port_taken", format!("somebody else listens on port {port} there"))
        }
        PortOutcome::Failed(words) => failed("local_port_failed", words),
    }
}

fn status(agent: &Agent, session: &str) -> Value {
    let id = |tunnel: &u128| TunnelId::new(Uuid::from_u128(*tunnel)).to_string();
    let views = agent.0.tunnels.views();
    let views = views.borrow();
    let tunnels: Vec<Value> = views
        .iter()
        .take(SHOWN_MAX)
        .map(|(tunnel, view)| {
            let (state, detail) = match &view.servable {
                None => ("connecting", None),
                Some(Servable::Yes) => ("active", None),
                Some(Servable::Unreachable(words)) => ("unreachable", Some(words)),
                Some(Servable::NotAllowed(words)) => ("not_allowed", Some(words)),
            };
            let target = Target { host: view.host.clone(), port: view.port };
            json!({
                "tunnelId": id(tunnel),
                "name": view.name,
                "target": target.to_string(),
                "state": state,
                "detail": detail,
            })
        })
        .collect();
    let ports = agent.0.ports.lock();
    let shown_ports: Vec<Value> = ports
        .iter()
        .take(SHOWN_MAX)
        .map(|(tunnel, port)| json!({ "tunnelId": id(tunnel), "localPort": port.port() }))
        .collect();
    let options = &agent.0.options;
    json!({
        "agentVersion": options.agent_version,
        "hostName": options.host_name,
        "sessionId": session,
        "uptimeSeconds": agent.0.commands.began.elapsed().as_secs(),
        "tunnelCount": views.len(),
        "tunnels": tunnels,
        "portCount": ports.len(),
        "ports": shown_ports,
    })
}
