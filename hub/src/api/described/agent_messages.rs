//! Messages between agents, described.

use domain::workspace::Scope;
use schemas::rest::{
    BroadcastMessage, BroadcastSent, MarkMessagesRead, MessageSent, Messages, MessagesRead, SendMessage,
};
use serde_json::json;

use crate::api::describe::{Access, Operation, places::Place};

fn on(id: &'static str, summary: &'static str, access: Access) -> Operation {
    Operation::new("Agent messages", id, summary, access)
        .at("id", Place::Agent)
        .refuses(403, &["agent_not_yours"])
}

pub fn list() -> Operation {
    on("listMessages", "Read an agent's messages", Access::ReadOrAgent)
        .says("Newest first. Reading does not mark them as read.")
        .paged("^msg_[0-9a-f]{32}$")
        .asks("unread", json!({ "type": "boolean", "default": false }), "Only those that are unread.")
        .answers::<Messages>(200, "Messages to the agent; of what was erased the payload is null.")
        .shows("Link")
}

pub fn send() -> Operation {
    on("sendMessage", "Send a message to an agent", Access::Scope(Scope::Agent))
        .says(
            "From the agent in the URL to another one of the workspace, at once where that is connected. It is kept for \
             `ttlSeconds` (a week unless said otherwise); `payload` is any JSON of at most 16 KiB.",
        )
        .repeatable()
        .takes::<SendMessage>(json!({
            "toAgentId": Place::Agent.example(),
            "topic": "build",
            "payload": { "state": "green" },
            "ttlSeconds": 3600,
        }))
        .answers::<MessageSent>(201, "It is in the agent's box.")
        .written()
        .refuses(404, &["not_found"])
        .refuses(409, &["mailbox_full", "already_exists"])
}

pub fn broadcast() -> Operation {
    on("broadcastMessage", "Send a message to all other agents", Access::Scope(Scope::Agent))
        .says(
            "To every other agent of the workspace that can still connect, at most 1,000. Whose box is full of unread \
             messages is left out and named in `skipped`.",
        )
        .repeatable()
        .takes::<BroadcastMessage>(json!({ "topic": "deploy", "payload": { "version": "1.4.0" } }))
        .answers::<BroadcastSent>(201, "Who has it.")
        .shows("PConnect-Position")
        .refuses(404, &["not_found"])
        .refuses(409, &["too_many_agents", "already_exists"])
}

pub fn mark_read() -> Operation {
    on("markMessagesRead", "Mark messages as read", Access::Scope(Scope::Agent))
        .says("Those that `messageIds` names; without it, all.")
        .repeatable()
        .takes::<MarkMessagesRead>(json!({}))
        .answers::<MessagesRead>(200, "How many were unread, and how many still are.")
        .shows("PConnect-Position")
        .refuses(404, &["message_not_found", "not_found"])
}
