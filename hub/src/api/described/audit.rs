//! The audit, described.

use domain::workspace::Scope;
use schemas::rest::{
    AuditLogs,
    audit::{AuditStats, DataErased, EraseData},
};
use serde_json::{Value, json};

use crate::api::describe::{Access, Operation, places::Place};

/// Cursors of pages: the last number of the page before.
const CURSOR: &str = "^[1-9][0-9]{0,17}$";

fn on(id: &'static str, summary: &'static str) -> Operation {
    Operation::new("Audit", id, summary, Access::Scope(Scope::Read))
}

fn moment() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

/// Which facts, alike for all questions.
fn filtered(operation: Operation) -> Operation {
    operation
        .asks(
            "type",
            json!({ "type": "string", "maxLength": 64, "pattern": "^[a-z_]+\\.[a-z_]+$" }),
            "Of this type, such as `tunnel.created`.",
        )
        .asks(
            "actor",
            json!({ "type": "string", "pattern": "^[0-9A-Za-z_.-]{1,64}$" }),
            "Caused by this: the id of a key or an agent, or a part of the hub such as `operator`.",
        )
        .asks("since", moment(), "Recorded at this moment or later.")
        .asks("until", moment(), "Recorded at this moment or earlier.")
}

/// Of these things.
fn concerning(operation: Operation) -> Operation {
    operation
        .asks("agentId", Place::Agent.schema(), "Concerning this agent, its tunnels and their shares.")
        .asks("tunnelId", Place::Tunnel.schema(), "Concerning this tunnel and its shares.")
        .asks("shareId", Place::Share.schema(), "Concerning this share.")
        .refuses(404, &["agent_not_found", "tunnel_not_found", "share_not_found"])
}

fn listed(operation: Operation) -> Operation {
    operation
        .paged(CURSOR)
        .says(
            "Newest first, of deleted things too. A page may be short, even empty, and have a `Link` to the next: then few \
             events fit. Who used a share is in `/v1/shares/{id}/logs`.",
        )
        .answers::<AuditLogs>(200, "Recorded facts.")
        .shows("Link")
}

pub fn list() -> Operation {
    listed(concerning(filtered(on("listAudit", "Who did what, and when"))))
}

pub fn stats() -> Operation {
    concerning(filtered(on("getAuditStats", "What was recorded, in numbers")))
        .says("Counts the newest of the last 500,000 facts that fit the filters; `complete` says whether there are older ones.")
        .answers::<AuditStats>(200, "The numbers.")
        .refuses(503, &["too_many_readings"])
}

pub fn of_agent() -> Operation {
    listed(filtered(on("listAuditOfAgent", "What concerned an agent").at("id", Place::Agent)))
}

pub fn of_tunnel() -> Operation {
    listed(filtered(on("listAuditOfTunnel", "What concerned a tunnel").at("id", Place::Tunnel)))
}

pub fn of_share() -> Operation {
    listed(filtered(on("listAuditOfShare", "What concerned a share").at("id", Place::Share)))
}

/// What becomes of a request to erase, alike for both.
fn erases(operation: Operation) -> Operation {
    operation
        .repeatable()
        .takes::<EraseData>(json!({ "from": "2026-03-01", "until": "2026-03-02" }))
        .answers::<DataErased>(200, "It is erased, and recorded as `workspace.personal_erased`.")
        .written()
        .refuses(404, &["workspace_not_found", "not_found"])
}

pub fn erase_of_share() -> Operation {
    let erase =
        Operation::new("Shares", "eraseAccesses", "Erase who used a share", Access::Scope(Scope::Admin));
    erases(erase.at("id", Place::Share)).says(
        "Addresses, user agents, paths and texts of these days (UTC) are erased for ever, by destroying the keys that they are \
         sealed with. That there were accesses stays known, and the log stays verifiable.",
    )
}

pub fn erase() -> Operation {
    let erase = Operation::new("Audit", "eraseData", "Erase what is personal", Access::Scope(Scope::Admin));
    erases(erase).says(
        "As `/v1/shares/{id}/logs/erase`, for all shares of the workspace and for the messages between its agents.",
    )
}
