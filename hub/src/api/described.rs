//! What each route says of itself, a file for each group, a function for each handler of the same name.

pub mod agent_commands;
pub mod agent_messages;
pub mod agent_upkeep;
pub mod agents;
pub mod device;
pub mod docs;
pub mod health;
pub mod keys;
pub mod services;
pub mod shares;
pub mod tunnels;

pub mod access_logs;
pub mod audit;
pub mod environments;
pub mod events;
pub mod service_health;
pub mod service_subdomain;
pub mod status;
pub mod webhooks;

use serde_json::json;

use super::describe::Operation;

/// A single thing can be asked for as it was.
fn history(operation: Operation) -> Operation {
    operation
        .asks(
            "at",
            json!({ "type": "string", "anyOf": [{ "format": "date-time" }, { "pattern": "^[1-9][0-9]{0,17}$" }] }),
            "As facts had it at a moment of the past, or at a position of the workspace's facts (`/v1/audit` and `/v1/events` show \
             them); expiry is judged then, counters and `last…At` are absent. At most 50,000 events are read.",
        )
        .refuses(400, &["history_too_long"])
        .refuses(410, &["history_retired"])
        .refuses(503, &["too_many_readings"])
}

/// Cursors of lists from the catalog.
const CATALOG_CURSOR: &str = "^[0-9a-f]{32}$";
