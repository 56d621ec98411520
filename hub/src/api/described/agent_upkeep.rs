//! What keeps agents going, what they offer, and what was recorded of them, described.

use domain::workspace::Scope;
use schemas::rest::{
    Agent, AgentCredentials, AuditLogs, Heartbeat, HeartbeatAnswer, RotateToken, SetCapabilities,
};
use serde_json::json;

use crate::api::describe::{Access, Operation, places::Place};

fn on(id: &'static str, summary: &'static str, access: Access) -> Operation {
    Operation::new("Agents", id, summary, access)
}

pub fn rotate_token() -> Operation {
    on("rotateAgentToken", "Exchange an agent's token for a new one", Access::InBody)
        .says(
            "The current token is the credential; it is good for five more minutes. Repeated with the same `Idempotency-Key` \
             in that time, this answers the same new token.",
        )
        .repeatable()
        .takes::<RotateToken>(json!({
            "agentId": Place::Agent.example(),
            "currentToken": "the token that the agent has",
        }))
        .answers::<AgentCredentials>(200, "The new token, shown once.")
        .written()
        .refuses(401, &["invalid_agent_token"])
        .refuses(404, &["agent_not_found", "not_found"])
}

pub fn heartbeat() -> Operation {
    on("sendHeartbeat", "Say that an agent lives", Access::Scope(Scope::Agent))
        .says("It is seen, and told what it should know. Nothing is recorded, so it may be repeated without a key for that.")
        .takes::<Heartbeat>(json!({ "agentId": Place::Agent.example() }))
        .answers::<HeartbeatAnswer>(200, "What waits for it, and whether its token ends soon.")
        .refuses(403, &["agent_not_yours"])
        .refuses(404, &["agent_not_found"])
}

pub fn offering() -> Operation {
    on("listAgentsByCapability", "List agents that offer something", Access::ReadOrAgent)
        .says("Any agent of the workspace may ask for all of them: agents look for each other.")
        .at("capability", Place::Capability)
        .paged("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
        .asks("online", json!({ "type": "boolean", "default": false }), "Only those that are connected.")
        .lists::<Agent>("Who offers it, in the order of their ids; nobody, if nobody does.")
}

pub fn set_capabilities() -> Operation {
    on("setCapabilities", "Say what an agent offers", Access::Scope(Scope::Agent))
        .says("All that it offers from now on: at most 50, with at most 4 KiB of metadata each.")
        .at("id", Place::Agent)
        .repeatable()
        .takes::<SetCapabilities>(json!({
            "capabilities": [{ "name": "run-tests", "metadata": { "languages": ["rust"] } }],
        }))
        .answers::<Agent>(200, "The agent as it is now.")
        .written()
        .refuses(403, &["agent_not_yours"])
        .refuses(404, &["not_found"])
}

pub fn audit_logs() -> Operation {
    on("listAuditLogs", "What was recorded of an agent", Access::ReadOrAgent)
        .says("Newest first, with who caused it. Secrets and their hashes are left out.")
        .at("id", Place::Agent)
        .paged("^[1-9][0-9]{0,18}$")
        .answers::<AuditLogs>(200, "Recorded events of the agent.")
        .shows("Link")
        .refuses(403, &["agent_not_yours"])
}
