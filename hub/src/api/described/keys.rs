//! API keys and who one is, described.

use domain::workspace::Scope;
use schemas::rest::{CreateKey, Key, Success, WhoAmI, Workspace};
use serde_json::json;

use crate::api::describe::{Access, Operation, places::Place};

fn on(id: &'static str, summary: &'static str, access: Access) -> Operation {
    Operation::new("Authentication", id, summary, access)
}

pub fn whoami() -> Operation {
    on("whoAmI", "Who the credentials are", Access::Known).answers::<WhoAmI>(200, "You.")
}

pub fn workspace() -> Operation {
    on("getWorkspace", "The workspace of the credentials", Access::Scope(Scope::Read))
        .answers::<Workspace>(200, "The workspace.")
        .shows("ETag")
        .refuses(404, &["not_found"])
}

pub fn list() -> Operation {
    on("listKeys", "List API keys", Access::Scope(Scope::Admin))
        .says("Never shows a secret; `prefix` is there to recognise a key by.")
        .paged("^key_[0-9a-f]{32}$")
        .lists::<Key>("Keys that are not revoked, oldest first.")
        .refuses(404, &["not_found"])
}

pub fn create() -> Operation {
    on("createKey", "Create an API key", Access::Scope(Scope::Admin))
        .says("`key` in the answer is shown here and never again. Without `scopes` it may only read.")
        .repeatable()
        .takes::<CreateKey>(json!({
            "name": "ci",
            "scopes": ["write"],
            "allowedIpRanges": ["127.0.0.0/8", "192.0.2.0/24"],
            "expiresIn": "30d",
        }))
        .answers::<Key>(201, "The key with its secret.")
        .written()
        .refuses(404, &["workspace_not_found", "not_found"])
        .refuses(409, &["keys_exhausted", "already_exists"])
}

pub fn revoke() -> Operation {
    on("revokeKey", "Revoke an API key", Access::Scope(Scope::Admin))
        .says("The key stops at once, and the live sessions that it opened are closed.")
        .at("id", Place::Key)
        .conditional()
        .answers::<Success>(200, "It is revoked.")
        .written()
        .refuses(404, &["not_found"])
        .refuses(409, &["last_admin_key"])
}
