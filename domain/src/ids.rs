//! Identifiers: parsed and shown here, never made here (the hub makes them from its clock and the OS's randomness).
//!
//! On the wire an id is its prefix and 32 lower-case hex digits of a UUID (v7, so ids sort by creation);
//! agents alone are plain UUIDs, as seed 004 shows them.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

/// What an [`Id`] identifies; carries the prefix.
pub trait IdKind: 'static {
    /// The prefix on the wire, with its underscore; empty for agents.
    const PREFIX: &'static str;
    /// The word for error messages.
    const NAME: &'static str;
}

/// A typed identifier. `Copy`, sixteen bytes; the kind exists at compile time only.
pub struct Id<K>(Uuid, PhantomData<fn() -> K>);

impl<K> Id<K> {
    /// Wraps a UUID that was made elsewhere.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }
    /// The bare UUID.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K> std::hash::Hash for Id<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<K: IdKind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if K::PREFIX.is_empty() {
            self.0.as_hyphenated().fmt(f)
        } else {
            write!(f, "{}{}", K::PREFIX, self.0.as_simple())
        }
    }
}
impl<K: IdKind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no id of the expected kind. Callers answer "not found": an id that cannot exist does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {0} id")]
pub struct InvalidId(pub &'static str);

impl<K: IdKind> FromStr for Id<K> {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId(K::NAME);
        if K::PREFIX.is_empty() {
            // Only the canonical hyphenated lower-case form: one id has one spelling.
            let uuid = Uuid::try_parse(text).map_err(|_| invalid.clone())?;
            return if uuid.as_hyphenated().to_string() == text { Ok(Self::new(uuid)) } else { Err(invalid) };
        }
        let hex = text.strip_prefix(K::PREFIX).ok_or_else(|| invalid.clone())?;
        if hex.len() != 32 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid);
        }
        Uuid::try_parse(hex).map(Self::new).map_err(|_| invalid)
    }
}

impl<K: IdKind> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de, K: IdKind> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Kinds of identifiers.
pub mod kind {
    use super::IdKind;

    #[derive(Debug)]
    pub enum Workspace {}
    #[derive(Debug)]
    pub enum Key {}
    #[derive(Debug)]
    pub enum Agent {}
    #[derive(Debug)]
    pub enum Tunnel {}
    #[derive(Debug)]
    pub enum Share {}
    #[derive(Debug)]
    pub enum Event {}
    #[derive(Debug)]
    pub enum Request {}
    #[derive(Debug)]
    pub enum Session {}
    #[derive(Debug)]
    pub enum Command {}
    #[derive(Debug)]
    pub enum Message {}
    #[derive(Debug)]
    pub enum Environment {}
    #[derive(Debug)]
    pub enum Webhook {}
    #[derive(Debug)]
    pub enum Delivery {}

    impl IdKind for Workspace {
        const PREFIX: &'static str = "ws_";
        const NAME: &'static str = "workspace";
    }
    impl IdKind for Key {
        const PREFIX: &'static str = "key_";
        const NAME: &'static str = "key";
    }
    impl IdKind for Agent {
        const PREFIX: &'static str = "";
        const NAME: &'static str = "agent";
    }
    impl IdKind for Tunnel {
        const PREFIX: &'static str = "tun_";
        const NAME: &'static str = "tunnel";
    }
    impl IdKind for Share {
        const PREFIX: &'static str = "share_";
        const NAME: &'static str = "share";
    }
    impl IdKind for Event {
        const PREFIX: &'static str = "evt_";
        const NAME: &'static str = "event";
    }
    impl IdKind for Request {
        const PREFIX: &'static str = "req_";
        const NAME: &'static str = "request";
    }
    impl IdKind for Session {
        const PREFIX: &'static str = "ses_";
        const NAME: &'static str = "session";
    }
    impl IdKind for Command {
        const PREFIX: &'static str = "cmd_";
        const NAME: &'static str = "command";
    }
    impl IdKind for Message {
        const PREFIX: &'static str = "msg_";
        const NAME: &'static str = "message";
    }
    impl IdKind for Environment {
        const PREFIX: &'static str = "env_";
        const NAME: &'static str = "environment share";
    }
    impl IdKind for Webhook {
        const PREFIX: &'static str = "wh_";
        const NAME: &'static str = "webhook";
    }
    impl IdKind for Delivery {
        const PREFIX: &'static str = "dlv_";
        const NAME: &'static str = "delivery";
    }
}

/// A tenant: nothing ever crosses its border.
pub type WorkspaceId = Id<kind::Workspace>;
/// An API key (the id, never the secret).
pub type KeyId = Id<kind::Key>;
/// A running `connect` with an identity.
pub type AgentId = Id<kind::Agent>;
/// A tunnel, which is also a service.
pub type TunnelId = Id<kind::Tunnel>;
/// A public link to one tunnel.
pub type ShareId = Id<kind::Share>;
/// A recorded event; appending the same id twice records it once.
pub type EventId = Id<kind::Event>;
/// One request to the hub: the correlation id of everything it caused.
pub type RequestId = Id<kind::Request>;
/// One live connection of an agent to the hub.
pub type SessionId = Id<kind::Session>;
/// Something that an agent is asked to do.
pub type CommandId = Id<kind::Command>;
/// A message from one agent to another.
pub type MessageId = Id<kind::Message>;
/// What one agent exposes, handed to teammates by a code.
pub type EnvironmentId = Id<kind::Environment>;
/// A subscription to events.
pub type WebhookId = Id<kind::Webhook>;
/// One message for one webhook, however often it is tried.
pub type DeliveryId = Id<kind::Delivery>;

#[cfg(test)]
mod tests;
