//! A workspace in numbers, described.

use domain::workspace::Scope;
use schemas::rest::services::WorkspaceStatus;

use crate::api::describe::{Access, Operation};

pub fn status() -> Operation {
    Operation::new("Authentication", "getStatus", "The workspace in numbers", Access::Scope(Scope::Read))
        .says("How many agents, tunnels, links and environment shares there are. Shows the caller's own writes.")
        .answers::<WorkspaceStatus>(200, "The numbers.")
}
