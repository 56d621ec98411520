//! What can stand in a path: the ids and tokens, how they look, and what is answered when there is no such thing.

use serde_json::{Value, json};

/// A kind of path parameter. A new one is added here, and the tests that put known, unknown and foreign ids into every
/// path will not compile until they know one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Agent,
    DocsFile,
    Environment,
    Key,
    Share,
    ShareToken,
    Tunnel,
}

impl Place {
    /// What is answered where it names nothing of the caller's workspace.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Agent => "agent_not_found",
            Self::DocsFile => "no_such_url",
            Self::Environment => "environment_not_found",
            Self::Key => "key_not_found",
            Self::Share | Self::ShareToken => "share_not_found",
            Self::Tunnel => "tunnel_not_found",
        }
    }

    pub const fn words(self) -> &'static str {
        match self {
            Self::Agent => "The agent's id.",
            Self::DocsFile => "The name of a file of the page.",
            Self::Environment => "The code of the environment share; neither case nor spaces matter.",
            Self::Key => "The key's id.",
            Self::Share => "The share's id.",
            Self::ShareToken => "The share's token, from its link.",
            Self::Tunnel => "The tunnel's id; a service is a tunnel.",
        }
    }

    /// An example of its form.
    pub const fn example(self) -> &'static str {
        match self {
            Self::Agent => "550e8400-e29b-41d4-a716-446655440000",
            Self::DocsFile => "swagger-ui.css",
            Self::Environment => "x7k9m2",
            Self::Key => "key_0195b2f0a1b27c3d8e4f5a6b7c8d9e0f",
            Self::Share => "share_0195b2f0a1b27c3d8e4f5a6b7c8d9e0f",
            Self::ShareToken => "share_tok_cHJpdmF0ZS1jb25uZWN0LWFuLWV4YW1wbGUtdG9rZW4",
            Self::Tunnel => "tun_0195b2f0a1b27c3d8e4f5a6b7c8d9e0f",
        }
    }

    /// Its form. What breaks it names nothing: 404, not 400.
    pub fn schema(self) -> Value {
        let pattern = match self {
            Self::Agent => "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
            Self::DocsFile => return json!({ "type": "string", "enum": crate::api::docs::FILES }),
            Self::Environment => "^[a-hjkmnp-z1-9]{6}$",
            Self::Key => "^key_[0-9a-f]{32}$",
            Self::Share => "^share_[0-9a-f]{32}$",
            Self::ShareToken => "^share_tok_[0-9A-Za-z_-]{43}$",
            Self::Tunnel => "^tun_[0-9a-f]{32}$",
        };
        json!({ "type": "string", "pattern": pattern })
    }
}
