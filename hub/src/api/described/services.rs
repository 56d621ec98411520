//! Services, described.

use domain::workspace::Scope;
use schemas::rest::{Diagnostics, RegisterService, Tunnel};
use serde_json::json;

use super::tunnels;
use crate::api::describe::{Access, Operation, places::Place};

fn on(id: &'static str, summary: &'static str, scope: Scope) -> Operation {
    Operation::new("Services", id, summary, Access::Scope(scope))
}

pub fn register() -> Operation {
    let operation = on("registerService", "Register a service", Scope::Write)
        .says("Creates the service of that name, or brings it to where it is now.")
        .repeatable()
        .takes::<RegisterService>(json!({
            "agentId": Place::Agent.example(),
            "name": "staging-api",
            "targetHost": "localhost",
            "targetPort": 8080,
            "protocol": "http",
        }));
    tunnels::made(operation)
        .answers::<Tunnel>(200, "A known service as it is now.")
        .written()
        .answers::<Tunnel>(201, "A new service.")
        .written()
}

pub fn list() -> Operation {
    tunnels::listed(on("listServices", "List services", Scope::Read))
}

pub fn get() -> Operation {
    tunnels::got(on("getService", "Look at a service", Scope::Read))
}

pub fn update() -> Operation {
    tunnels::updated(on("updateService", "Change a service", Scope::Write))
}

pub fn delete() -> Operation {
    tunnels::deleted(on("deleteService", "Delete a service", Scope::Write))
}

pub fn check() -> Operation {
    on("checkService", "Look at a service's target now", Scope::Read)
        .says("The exposing agent looks: DNS, TCP, TLS, HTTP, latency.")
        .at("id", Place::Tunnel)
        .repeatable()
        .takes_nothing()
        .answers::<Diagnostics>(200, "What it found; a target that does not answer is a finding, too.")
        .refuses(502, &["agent_failed"])
        .refuses(503, &["agent_offline", "agent_busy"])
        .refuses(504, &["agent_timeout"])
}
