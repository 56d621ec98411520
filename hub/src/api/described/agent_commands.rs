//! Commands to agents, described.

use domain::workspace::Scope;
use schemas::rest::{AgentCommand, AgentCommands, CommandQueued, SendCommand};
use serde_json::json;

use super::CATALOG_CURSOR;
use crate::api::describe::{Access, Operation, places::Place};

fn on(id: &'static str, summary: &'static str, access: Access) -> Operation {
    Operation::new("Agent commands", id, summary, access).at("id", Place::Agent)
}

pub fn send() -> Operation {
    on("sendCommand", "Tell an agent to do something", Access::Scope(Scope::Write))
        .says(
            "At once where the agent is connected; else when it comes, for `ttlSeconds` (an hour unless said otherwise). What \
             became of it, the command itself says.",
        )
        .repeatable()
        .takes::<SendCommand>(json!({
            "action": "expose",
            "params": { "target": "localhost:5432", "name": "prod-db", "protocol": "tcp" },
            "ttlSeconds": 600,
        }))
        .answers::<CommandQueued>(201, "The command waits, or is on its way.")
        .written()
        .refuses(404, &["tunnel_not_found", "not_found"])
        .refuses(409, &["commands_full", "already_exists"])
}

pub fn list() -> Operation {
    on("listCommands", "List an agent's commands", Access::ReadOrAgent)
        .paged(CATALOG_CURSOR)
        .answers::<AgentCommands>(200, "Commands to the agent, newest first.")
        .shows("Link")
        .refuses(403, &["agent_not_yours"])
}

pub fn get() -> Operation {
    on("getCommand", "Look at a command", Access::ReadOrAgent)
        .says("`result` comes with `done`, `error` with `failed`.")
        .at("command", Place::Command)
        .answers::<AgentCommand>(200, "The command.")
        .shows("ETag")
        .refuses(403, &["agent_not_yours"])
}
