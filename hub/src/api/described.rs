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
pub mod environments;
pub mod service_health;
pub mod service_subdomain;
pub mod status;
pub mod webhooks;

/// Cursors of lists from the catalog.
const CATALOG_CURSOR: &str = "^[0-9a-f]{32}$";
