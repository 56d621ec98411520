//! What can stand in a path: the ids and tokens, how they look, and what is answered when there is no such thing.

use serde_json::{Value, json};

/// A kind of path parameter. A new one is added here, and the tests that put known, unknown and foreign ids into every
/// path will not compile until they know one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Agent,
    Capability,
    Command,
    Delivery,
    DocsFile,
    Environment,
    Key,
    Share,
    ShareToken,
    Tunnel,
    Webhook,
}

impl Place {
    /// What is answered where it names nothing of the caller's workspace.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Agent => "agent_not_found",
            Self::Environment => "environment_not_found",
            Self::Command => "command_not_found",
            // Of a capability, when there is none in the URL: one that nobody offers is an empty list.
            Self::Capability | Self::DocsFile => "no_such_url",
            Self::Delivery => "delivery_not_found",
            Self::Key => "key_not_found",
            Self::Share | Self::ShareToken => "share_not_found",
            Self::Tunnel => "tunnel_not_found",
            Self::Webhook => "webhook_not_found",
        }
    }

    /// Whether the answer is 404 where it names nothing.
    pub const fn is_looked_up(self) -> bool {
        !matches!(self, Self::Capability)
    }

    pub const fn words(self) -> &'static str {
        match self {
            Self::Agent => "The agent's id.",
            Self::Capability => "What is offered, by its name.",
            Self::Command => "The command's id.",
            Self::Delivery => "The delivery's id.",
            Self::DocsFile => "The name of a file of the page.",
            Self::Environment => "The code of the environment share; neither case nor spaces matter.",
            Self::Key => "The key's id.",
            Self::Share => "The share's id.",
            Self::ShareToken => "The share's token, from its link.",
            Self::Tunnel => "The tunnel's id; a service is a tunnel.",
            Self::Webhook => "The webhook's id.",
        }
    }

    /// An example of its form.
    pub const fn example(self) -> &'static str {
        match self {
            Self::Agent => "550e8400-e29b-41d4-a716-446655440000",
            Self::Capability => "run-tests",
            Self::Command => "cmd_0195b2f0a1b27c3d8e4f5a6b7c8d9e0f",
            Self::Delivery => "dlv_0195b2f0a1b27c3d8e4f5a6b7c8d9e0f",
            Self::DocsFile => "swagger-ui.css",
            Self::Environment => "x7k9m2",
            Self::Key => "key_0195b2f0a1b27c3d8e4f5a6b7c8d9e0f",
            Self::Share => "share_0195b2f0a1b27c3d8e4f5a6b7c8d9e0f",
            Self::ShareToken => "share_tok_cHJpdmF0ZS1jb25uZWN0LWFuLWV4YW1wbGUtdG9rZW4",
            Self::Tunnel => "tun_0195b2f0a1b27c3d8e4f5a6b7c8d9e0f",
            Self::Webhook => "wh_0195b2f0a1b27c3d8e4f5a6b7c8d9e0f",
        }
    }

    /// Its form. What breaks it names nothing: 404, not 400.
    pub fn schema(self) -> Value {
        let pattern = match self {
            Self::Agent => "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
            Self::Capability => return json!({ "type": "string", "minLength": 1, "maxLength": 100 }),
            Self::Command => "^cmd_[0-9a-f]{32}$",
            Self::Delivery => "^dlv_[0-9a-f]{32}$",
            Self::DocsFile => return json!({ "type": "string", "enum": crate::api::docs::FILES }),
            Self::Environment => "^[a-hjkmnp-z1-9]{6}$",
            Self::Key => "^key_[0-9a-f]{32}$",
            Self::Share => "^share_[0-9a-f]{32}$",
            Self::ShareToken => "^share_tok_[0-9A-Za-z_-]{43}$",
            Self::Tunnel => "^tun_[0-9a-f]{32}$",
            Self::Webhook => "^wh_[0-9a-f]{32}$",
        };
        json!({ "type": "string", "pattern": pattern })
    }
}
