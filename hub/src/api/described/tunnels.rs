//! Tunnels, described; services are the same things.

use domain::workspace::Scope;
use schemas::rest::{ConnectTunnel, Connected, CreateTunnel, Success, Tunnel, TunnelUpdated, UpdateTunnel};
use serde_json::json;

use super::{CATALOG_CURSOR, history};
use crate::api::describe::{Access, Operation, places::Place};

fn on(id: &'static str, summary: &'static str, scope: Scope) -> Operation {
    Operation::new("Tunnels", id, summary, Access::Scope(scope))
}

pub fn create() -> Operation {
    let operation = on("createTunnel", "Create a tunnel", Scope::Write)
        .says(
            "Exposes a service through an agent, as `connect expose` does. While the agent is online the answer waits up to \
             2 s for its word and says `active` or `error`; otherwise `connecting`.",
        )
        .repeatable()
        .takes::<CreateTunnel>(json!({
            "target": "localhost:5432",
            "name": "prod-db",
            "protocol": "tcp",
            "agentId": Place::Agent.example(),
            "isPublic": false,
        }));
    made(operation).answers::<Tunnel>(201, "The tunnel.").written()
}

/// What the creation of a tunnel is refused with.
pub fn made(operation: Operation) -> Operation {
    operation
        .refuses(400, &["protected_port"])
        .refuses(404, &["agent_not_found", "tunnel_not_found", "not_found"])
        .refuses(
            409,
            &[
                "tunnel_name_taken",
                "tunnel_names_exhausted",
                "already_taken",
                "quarantined",
                "already_exists",
            ],
        )
        .refuses(503, &["tunnel_ports_exhausted"])
}

pub fn list() -> Operation {
    listed(on("listTunnels", "List tunnels", Scope::Read))
}

/// The list, under either name.
pub fn listed(operation: Operation) -> Operation {
    operation.paged(CATALOG_CURSOR).lists::<Tunnel>("Tunnels that are not deleted, newest first.")
}

pub fn get() -> Operation {
    got(on("getTunnel", "Look at a tunnel", Scope::Read))
}

/// A single one, under either name.
pub fn got(operation: Operation) -> Operation {
    history(operation.at("id", Place::Tunnel)).answers::<Tunnel>(200, "The tunnel.").shows("ETag")
}

pub fn update() -> Operation {
    updated(on("updateTunnel", "Change a tunnel", Scope::Write))
}

/// A change, under either name.
pub fn updated(operation: Operation) -> Operation {
    operation
        .says("Name, metadata (kept as it is, at most 16 KiB), paused or active. Paused, it refuses new connections at once.")
        .at("id", Place::Tunnel)
        .conditional()
        .takes::<UpdateTunnel>(json!({
            "name": "production-database",
            "status": "active",
            "metadata": { "environment": "production" },
        }))
        .answers::<TunnelUpdated>(200, "What it is now.")
        .written()
        .refuses(404, &["not_found"])
        .refuses(409, &["tunnel_name_taken", "already_taken", "quarantined"])
}

pub fn delete() -> Operation {
    deleted(on("deleteTunnel", "Delete a tunnel", Scope::Write))
}

/// An end, under either name.
pub fn deleted(operation: Operation) -> Operation {
    operation
        .says("Its connections are closed within a second, and its shares are revoked.")
        .at("id", Place::Tunnel)
        .conditional()
        .answers::<Success>(200, "It is deleted.")
        .written()
        .refuses(404, &["not_found"])
}

pub fn connect() -> Operation {
    on("connectTunnel", "Connect to a tunnel", Scope::Write)
        .says(
            "Asks another agent to listen on a local port that leads to the tunnel, as `connect reach` does; answers as soon \
             as it listens.",
        )
        .at("id", Place::Tunnel)
        .repeatable()
        .takes::<ConnectTunnel>(json!({ "agentId": Place::Agent.example(), "localPort": 5432 }))
        .answers::<Connected>(200, "The agent listens.")
        .refuses(404, &["agent_not_found"])
        .refuses(409, &["local_port_taken"])
        .refuses(502, &["local_port_failed", "agent_failed"])
        .refuses(503, &["tunnel_paused", "agent_offline", "agent_busy"])
        .refuses(504, &["agent_timeout"])
}
