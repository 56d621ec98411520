//! Device login, described.

use domain::workspace::Scope;
use schemas::rest::{DeviceCode, DeviceDecided, DeviceDecision, DeviceToken, StartDeviceLogin};
use serde_json::json;

use crate::api::describe::{Access, Operation};

/// A code of the form that machines show.
const USER_CODE: &str = "BCDF-GHJK";

fn on(id: &'static str, summary: &'static str, access: Access) -> Operation {
    Operation::new("Device login", id, summary, access)
}

pub fn start() -> Operation {
    on("startDeviceLogin", "Begin a login of a machine without a key", Access::Public)
        .says("The machine shows `userCode` and `verificationUrl`, and asks for its key with `deviceCode`. Each call gives another code.")
        .takes::<StartDeviceLogin>(json!({ "label": "build-machine", "agentName": "builder" }))
        .answers::<DeviceCode>(200, "The codes, good for 15 minutes.")
        .refuses(429, &["too_many_devices"])
        .refuses(503, &["too_many_devices"])
}

pub fn token() -> Operation {
    on("getDeviceToken", "Ask for the machine's key", Access::Public)
        .says(
            "400 `authorization_pending` until somebody has decided; then the key is made, and shown this once. Not more often \
             than every `interval` seconds: `slow_down` makes it longer. HEAD takes nothing.",
        )
        .needs(
            "device_code",
            json!({ "type": "string", "pattern": "^pcd_[0-9A-Za-z_-]{43}$" }),
            "The `deviceCode` of the login.",
        )
        .answers::<DeviceToken>(200, "The key, which may write and run agents.")
        .refuses(400, &["authorization_pending", "slow_down", "expired_token", "access_denied"])
        .refuses(404, &["workspace_not_found", "not_found"])
        .refuses(409, &["keys_exhausted", "already_exists"])
        .writes()
}

pub fn approve() -> Operation {
    decision(on("approveDeviceLogin", "Let a machine in", Access::KeyOnly(Scope::Admin)))
        .says("Its key is made in the name of the key that approves, in that key's workspace.")
        .answers::<DeviceDecided>(200, "What the machine said of itself.")
}

pub fn deny() -> Operation {
    decision(on("denyDeviceLogin", "Turn a machine away", Access::KeyOnly(Scope::Admin)))
        .answers::<DeviceDecided>(200, "What the machine said of itself.")
}

fn decision(operation: Operation) -> Operation {
    operation
        .repeatable()
        .takes::<DeviceDecision>(json!({ "userCode": USER_CODE }))
        .refuses(404, &["device_code_not_found"])
        .refuses(409, &["device_decided"])
        .refuses(429, &["device_locked_out"])
}

pub fn page() -> Operation {
    on("getDevicePage", "A page to let a machine in", Access::Public)
        .says("Where `verificationUrl` leads: a person types the machine's code and a key with the scope `admin`.")
        .answers_text("The page.", "text/html")
        .refuses(400, &["validation_failed"])
}

pub fn page_decision() -> Operation {
    let text = |length: u32| json!({ "type": "string", "minLength": 1, "maxLength": length });
    let form = json!({
        "type": "object",
        "required": ["user_code", "api_key", "decision"],
        "properties": {
            "user_code": text(16),
            "api_key": text(200),
            "decision": { "type": "string", "enum": ["approve", "deny"] },
        },
    });
    let example =
        json!({ "user_code": USER_CODE, "api_key": "a key with the scope admin", "decision": "approve" });
    on("sendDevicePage", "That page's form", Access::InBody)
        .says("For the page; programs use `approveDeviceLogin`. Answers are pages, also of what went wrong.")
        .takes_form(form, example)
        .answers_page(200, "It is decided.")
        .answers_page(400, "A field is wrong.")
        .answers_page(401, "The key is not good.")
        .answers_page(403, "The key may not do that, or not from here.")
        .answers_page(404, "No machine waits under the code.")
        .answers_page(409, "It was decided already.")
        .answers_page(429, "Too often; `Retry-After` says when again.")
        .shows("Retry-After")
}
