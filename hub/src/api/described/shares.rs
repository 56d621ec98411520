//! Shares, described.

use domain::workspace::Scope;
use schemas::rest::{CreateShare, ServiceShareCreated, Share, ShareCreated, ShareInfo, Shares, Success};
use serde_json::json;

use super::{CATALOG_CURSOR, history};
use crate::api::describe::{Access, Operation, places::Place};

fn on(id: &'static str, summary: &'static str, scope: Scope) -> Operation {
    Operation::new("Shares", id, summary, Access::Scope(scope))
}

pub fn create_for_tunnel() -> Operation {
    created(on("shareTunnel", "Share a tunnel by link", Scope::Write))
        .answers::<ShareCreated>(201, "The share with its token.")
        .written()
}

pub fn create_for_service() -> Operation {
    created(on("shareService", "Share a service by link", Scope::Write))
        .answers::<ServiceShareCreated>(201, "The share with its token.")
        .written()
}

fn created(operation: Operation) -> Operation {
    operation
        .says("`token` and `shareUrl` are shown here and never again. A link lives for 24 h unless `expiresIn` says otherwise.")
        .at("id", Place::Tunnel)
        .repeatable()
        .takes::<CreateShare>(json!({
            "name": "contractor-access",
            "description": "Temporary access for external team",
            "expiresIn": "24h",
            "allowedPaths": ["/api/*"],
            "allowedMethods": ["GET", "POST"],
            "rateLimitPerMin": 100,
        }))
        .refuses(400, &["not_shareable"])
        .refuses(404, &["not_found"])
        .refuses(409, &["subdomain_taken", "subdomain_quarantined", "already_taken", "quarantined", "already_exists"])
}

pub fn list_of_service() -> Operation {
    on("listSharesOfService", "List a service's shares", Scope::Read)
        .at("id", Place::Tunnel)
        .paged(CATALOG_CURSOR)
        .answers::<Shares>(200, "Its shares, ended ones too; never their tokens.")
        .shows("Link")
}

pub fn list() -> Operation {
    on("listShares", "List shares", Scope::Read)
        .paged(CATALOG_CURSOR)
        .asks("tunnelId", Place::Tunnel.schema(), "Only those of this tunnel.")
        .asks("active", json!({ "type": "boolean" }), "Only those that are, or are not, over.")
        .answers::<Shares>(200, "Shares of the workspace, ended ones too; never their tokens.")
        .shows("Link")
        .refuses(404, &["tunnel_not_found"])
}

pub fn get() -> Operation {
    history(on("getShare", "Look at a share", Scope::Read).at("id", Place::Share))
        .says("A share that has ended is shown on.")
        .answers::<Share>(200, "The share, without its token.")
        .shows("ETag")
}

pub fn revoke() -> Operation {
    on("revokeShare", "Revoke a share", Scope::Write)
        .says("The link refuses the next request, and running streams end within a second. Its record stays.")
        .at("id", Place::Share)
        .conditional()
        .answers::<Success>(200, "It is revoked.")
        .written()
        .refuses(404, &["not_found"])
        .refuses(409, &["not_due"])
}

pub fn info() -> Operation {
    Operation::new("Shares", "getShareInfo", "What a visitor may know of a link", Access::Public)
        .says("For whoever has the link; shows no target.")
        .at("token", Place::ShareToken)
        .answers::<ShareInfo>(200, "The link.")
        .refuses(400, &["validation_failed"])
        .refuses(403, &["share_expired", "share_revoked"])
}
