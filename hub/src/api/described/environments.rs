//! Environment shares and teammates, described.

use domain::workspace::Scope;
use schemas::rest::{
    Success,
    environments::{
        CreateEnvironment, Decided, EnvironmentCreated, EnvironmentJoined, EnvironmentShare, JoinedAgent,
        Joiner, Teammate,
    },
};
use serde_json::json;

use crate::api::describe::{Access, Operation, places::Place};

/// Names of teammates as UTF-8 in hexadecimal digits.
const NAME_CURSOR: &str = "^([0-7][0-9a-f]|(c[2-9a-f]|d[0-9a-f])[89ab][0-9a-f]\
    |(e0[ab][0-9a-f]|e[1-9abcef][89ab][0-9a-f]|ed[89][0-9a-f])[89ab][0-9a-f]\
    |(f0[9ab][0-9a-f]|f[1-3][89ab][0-9a-f]|f48[0-9a-f])([89ab][0-9a-f]){2})+$";

fn on(id: &'static str, summary: &'static str, scope: Scope) -> Operation {
    Operation::new("Environment shares", id, summary, Access::Scope(scope))
}

/// With a code in its path: wrong ones are counted.
fn by_code(id: &'static str, summary: &'static str, scope: Scope) -> Operation {
    on(id, summary, scope).at("code", Place::Environment).refuses(429, &["too_many_wrong_codes"])
}

/// For whoever shared it.
fn of_owner(operation: Operation) -> Operation {
    operation.refuses(403, &["not_the_owner"])
}

pub fn create() -> Operation {
    on("shareEnvironment", "Share what an agent exposes", Scope::Write)
        .says(
            "A snapshot of the agent's active tunnels, for whoever of the workspace has the code; lives for 24 h unless \
             `expiresIn` says otherwise, at most 7 days.",
        )
        .repeatable()
        .takes::<CreateEnvironment>(json!({
            "agentId": Place::Agent.example(),
            "name": "alices-stack",
            "expiresIn": "24h",
            "requireApproval": false,
        }))
        .answers::<EnvironmentCreated>(201, "The environment share with its code.")
        .written()
        .refuses(400, &["nothing_to_share"])
        .refuses(404, &["agent_not_found", "environment_not_found", "not_found"])
        .refuses(409, &["environments_exhausted", "too_many_routes", "already_exists"])
        .refuses(503, &["no_code_left"])
}

pub fn list() -> Operation {
    on("listEnvironments", "List environment shares", Scope::Read)
        .says("Those that the key shared; an admin key sees all of the workspace.")
        .paged("^env_[0-9a-f]{32}$")
        .lists::<EnvironmentShare>("Environment shares that are not over, oldest first.")
}

pub fn get() -> Operation {
    by_code("getEnvironment", "Look at an environment share", Scope::Read)
        .answers::<EnvironmentShare>(200, "The environment share.")
        .shows("ETag")
}

pub fn join() -> Operation {
    by_code("joinEnvironment", "Join an environment share", Scope::Write)
        .says(
            "The agent listens on a local port for each route: the target's own, or another one where that is in use. Joining \
             again is answered as the first time.",
        )
        .repeatable()
        .takes::<Joiner>(json!({ "agentId": Place::Agent.example() }))
        .answers::<EnvironmentJoined>(200, "It has joined, and listens.")
        .shows("ETag")
        .answers::<EnvironmentJoined>(202, "The owner has to approve it; without routes.")
        .shows("ETag")
        .refuses(403, &["join_denied"])
        .refuses(404, &["agent_not_found", "not_found"])
        .refuses(409, &["own_environment", "too_many_joiners"])
        .refuses(503, &["agent_offline"])
}

pub fn pending() -> Operation {
    of_owner(by_code("listPendingJoiners", "List who waits for approval", Scope::Read))
        .says("For the key that shared it, or an admin key.")
        .paged("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
        .lists::<JoinedAgent>("Agents that wait, in the order of their ids.")
}

pub fn approve() -> Operation {
    decided(by_code("approveJoiner", "Let an agent join", Scope::Write))
}

pub fn deny() -> Operation {
    decided(by_code("denyJoiner", "Let an agent not join", Scope::Write))
}

fn decided(operation: Operation) -> Operation {
    of_owner(operation)
        .says("For the key that shared it, or an admin key. Of several decisions about one request the first counts.")
        .repeatable()
        .takes::<Joiner>(json!({ "agentId": Place::Agent.example() }))
        .answers::<Decided>(200, "It is decided.")
        .written()
        .refuses(404, &["agent_not_found", "not_found"])
        .refuses(409, &["not_pending"])
}

pub fn revoke() -> Operation {
    of_owner(by_code("revokeEnvironment", "Revoke an environment share", Scope::Write))
        .says("For the key that shared it, or an admin key. Nobody joins any more, and joined routes close.")
        .conditional()
        .answers::<Success>(200, "It is revoked.")
        .written()
        .refuses(404, &["not_found"])
}

pub fn teammates() -> Operation {
    on("listTeammates", "List teammates", Scope::Read)
        .says("People are known by the names of their agents.")
        .paged(NAME_CURSOR)
        .lists::<Teammate>("Teammates by name.")
}
