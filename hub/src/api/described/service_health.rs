//! Looking at services and watching them, described.

use domain::workspace::Scope;
use schemas::rest::services::{
    ConfigureHealth, FoundDiagnostics, HealthStatus, LastDiagnostics, ReachService,
};
use serde_json::json;

use crate::api::describe::{Access, Operation, places::Place};

fn on(id: &'static str, summary: &'static str, scope: Scope) -> Operation {
    Operation::new("Services", id, summary, Access::Scope(scope)).at("id", Place::Tunnel)
}

pub fn reach() -> Operation {
    on("reachService", "Look at a service from another agent", Scope::Write)
        .says("That agent looks, the way that `connect reach` goes: TCP, TLS, HTTP, latency.")
        .repeatable()
        .takes::<ReachService>(json!({
            "sourceAgentId": Place::Agent.example(),
            "mode": "full",
            "timeoutMs": 5000,
        }))
        .answers::<FoundDiagnostics>(200, "What it found; a service that does not answer is a finding, too.")
        .refuses(404, &["agent_not_found"])
        .refuses(502, &["agent_failed"])
        .refuses(503, &["agent_offline", "agent_busy"])
        .refuses(504, &["agent_timeout"])
}

pub fn diagnostics() -> Operation {
    on("getDiagnostics", "What was found last", Scope::Read)
        .says("The last look of each kind since the hub's start, and how the service is watched.")
        .answers::<LastDiagnostics>(200, "The findings; `null`: none of that kind.")
        .shows("ETag")
}

pub fn configure() -> Operation {
    on("configureHealth", "Watch a service", Scope::Write)
        .says("The exposing agent looks at its target every so often. What is left out stays as it was.")
        .conditional()
        .takes::<ConfigureHealth>(json!({ "enabled": true, "intervalSeconds": 60 }))
        .answers::<HealthStatus>(200, "How it is watched from now on.")
        .written()
        .refuses(404, &["not_found"])
}
