//! Agents, described.

use domain::workspace::Scope;
use schemas::rest::{Agent, AgentCredentials, ProvisionAgent, RegisterAgent, Success};
use serde_json::json;

use super::{CATALOG_CURSOR, history};
use crate::api::describe::{Access, Operation, places::Place};

fn on(id: &'static str, summary: &'static str, access: Access) -> Operation {
    Operation::new("Agents", id, summary, access)
}

pub fn register() -> Operation {
    on("registerAgent", "Register an agent", Access::KeyOnly(Scope::Agent))
        .says("Answers a token that is good for 30 days and shown once. A known `agentId` gets a new one.")
        .repeatable()
        .takes::<RegisterAgent>(json!({
            "agentId": Place::Agent.example(),
            "label": "alices-laptop",
            "name": "alice",
        }))
        .answers::<AgentCredentials>(200, "A known agent with a new token.")
        .written()
        .answers::<AgentCredentials>(201, "A new agent.")
        .written()
        .refuses(403, &["agent_not_yours"])
        .refuses(404, &["agent_not_found", "not_found"])
}

pub fn provision() -> Operation {
    on("provisionAgent", "Provision a short-lived agent", Access::KeyOnly(Scope::Agent))
        .says("The agent ends with its token, after `ttlSeconds` (two hours unless said otherwise).")
        .repeatable()
        .takes::<ProvisionAgent>(
            json!({ "clientType": "github-actions", "label": "build-42", "ttlSeconds": 3600 }),
        )
        .answers::<AgentCredentials>(201, "The agent.")
        .written()
        .refuses(404, &["agent_not_found", "not_found"])
}

pub fn list() -> Operation {
    on("listAgents", "List agents", Access::Scope(Scope::Read))
        .paged(CATALOG_CURSOR)
        .lists::<Agent>("Agents, newest first.")
}

pub fn online() -> Operation {
    on("listOnlineAgents", "List agents that are connected", Access::Scope(Scope::Read))
        .paged("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
        .lists::<Agent>("Connected agents, in the order of their ids.")
}

pub fn get() -> Operation {
    history(on("getAgent", "Look at an agent", Access::Scope(Scope::Read)).at("id", Place::Agent))
        .answers::<Agent>(200, "The agent.")
        .shows("ETag")
}

pub fn delete() -> Operation {
    on("deleteAgent", "Delete an agent", Access::Scope(Scope::Write))
        .says("Its session ends, and its tunnels with it.")
        .at("id", Place::Agent)
        .conditional()
        .answers::<Success>(200, "It is deleted.")
        .written()
        .refuses(404, &["not_found"])
}
