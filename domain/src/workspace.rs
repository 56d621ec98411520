//! A workspace: the tenant, and the API keys that open it.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    aggregate::Aggregate,
    event::{self, Read, json, parse},
    ids::{KeyId, ShareId, WorkspaceId},
    names::Name,
    time::{Day, Timestamp},
};

/// The most keys that one workspace may have alive: a bound on every start and every list.
pub const KEYS_MAX: usize = 1_000;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything, keys included.
    Admin,
    /// Change agents, tunnels and shares.
    Write,
    /// Look.
    Read,
    /// Only register and run agents.
    Agent,
}

impl Scope {
    /// Whether a key with this scope may do what needs `needed`: admin all, write also reads and runs agents.
    pub const fn grants(self, needed: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Write => !matches!(needed, Self::Admin),
            Self::Read => matches!(needed, Self::Read),
            Self::Agent => matches!(needed, Self::Agent),
        }
    }
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Write => "write",
            Self::Read => "read",
            Self::Agent => "agent",
        }
    }
}

/// A tenant began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceCreated {
    pub workspace_id: WorkspaceId,
    pub name: Name,
}

/// A key can be used from now on. Only the hash of its secret is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyCreated {
    pub key_id: KeyId,
    pub name: Name,
    pub scopes: Vec<Scope>,
    /// Lower-case hex SHA-256 of the secret.
    pub key_hash: String,
    /// The first characters of the secret, to recognise it by.
    pub prefix: String,
    /// Where it may be used from; empty: from anywhere.
    pub allowed_ip_ranges: Vec<IpNet>,
    pub expires_at: Option<Timestamp>,
}

/// A key cannot be used any more, and what it opened is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRevoked {
    pub key_id: KeyId,
}

/// What was personal in the records of some days is gone for ever: its keys were destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PersonalErased {
    /// Of the visitors of this share; `None`: of the whole workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_id: Option<ShareId>,
    pub first_day: Day,
    pub last_day: Day,
    /// When that was done; what was recorded later on these days is sealed with other keys.
    pub erased_at: Timestamp,
    /// How many keys that were.
    pub keys: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Created(WorkspaceCreated),
    KeyCreated(KeyCreated),
    KeyRevoked(KeyRevoked),
    PersonalErased(PersonalErased),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Created(_) => ("workspace.created", 1),
            Self::KeyCreated(_) => ("key.created", 1),
            Self::KeyRevoked(_) => ("key.revoked", 1),
            Self::PersonalErased(_) => ("workspace.personal_erased", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Created(payload) => json(payload),
            Self::KeyCreated(payload) => json(payload),
            Self::KeyRevoked(payload) => json(payload),
            Self::PersonalErased(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("workspace.created", 1) => parse(data, Self::Created),
            ("key.created", 1) => parse(data, Self::KeyCreated),
            ("key.revoked", 1) => parse(data, Self::KeyRevoked),
            ("workspace.personal_erased", 1) => parse(data, Self::PersonalErased),
            _ => Ok(None),
        }
    }
}

/// What can be asked of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Create(WorkspaceCreated),
    CreateKey {
        key: KeyCreated,
        now: Timestamp,
    },
    RevokeKey {
        key_id: KeyId,
    },
    /// The keys are destroyed; this is the record of it.
    NoteErasure(PersonalErased),
}

/// What can stand in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("the workspace does not exist")]
    WorkspaceUnknown,
    #[error("the workspace exists already, and differently")]
    WorkspaceExists,
    #[error("the key `{0}` exists already, and differently")]
    KeyExists(KeyId),
    #[error("no key `{0}` in this workspace")]
    KeyUnknown(KeyId),
    #[error("the workspace has {KEYS_MAX} keys; revoke one first")]
    KeysExhausted,
    #[error("a key needs at least one scope")]
    ScopesMissing,
    #[error("the expiry lies in the past")]
    ExpiryPast,
    #[error("this is the last admin key; create another before revoking it")]
    LastAdminKey,
}

/// A key as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub created: KeyCreated,
    pub revoked: bool,
}

/// A workspace as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workspace {
    pub created: Option<WorkspaceCreated>,
    pub keys: BTreeMap<KeyId, Key>,
    /// To know the same note when it comes again.
    pub last_erasure: Option<PersonalErased>,
}

impl Aggregate for Workspace {
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    const KIND: &'static str = "workspace";

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Create(created) => match &self.created {
                None => Ok(vec![Event::Created(created.clone())]),
                Some(known) if known == created => Ok(vec![]),
                Some(_) => Err(Rejection::WorkspaceExists),
            },
            Command::CreateKey { .. } | Command::RevokeKey { .. } | Command::NoteErasure(_)
                if self.created.is_none() =>
            {
                Err(Rejection::WorkspaceUnknown)
            }
            Command::CreateKey { key, now } => self.create_key(key, *now),
            Command::RevokeKey { key_id } => self.revoke_key(*key_id),
            Command::NoteErasure(erased) if self.last_erasure.as_ref() == Some(erased) => Ok(vec![]),
            Command::NoteErasure(erased) => Ok(vec![Event::PersonalErased(erased.clone())]),
        }
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Created(created) => self.created = Some(created.clone()),
            Event::KeyCreated(created) => {
                self.keys.insert(created.key_id, Key { created: created.clone(), revoked: false });
            }
            Event::KeyRevoked(revoked) => {
                if let Some(key) = self.keys.get_mut(&revoked.key_id) {
                    key.revoked = true;
                }
            }
            Event::PersonalErased(erased) => self.last_erasure = Some(erased.clone()),
        }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        self.created.as_ref().map(|created| created.workspace_id)
    }

    fn from_event(event: event::Event) -> Option<Event> {
        if let event::Event::Workspace(event) = event { Some(event) } else { None }
    }
    fn into_event(event: Event) -> event::Event {
        event::Event::Workspace(event)
    }
}

impl Workspace {
    fn create_key(&self, key: &KeyCreated, now: Timestamp) -> Result<Vec<Event>, Rejection> {
        // The same command again, after a crash between the append and the answer.
        if let Some(known) = self.keys.get(&key.key_id) {
            return if known.created == *key { Ok(vec![]) } else { Err(Rejection::KeyExists(key.key_id)) };
        }
        if key.scopes.is_empty() {
            return Err(Rejection::ScopesMissing);
        }
        if key.expires_at.is_some_and(|at| at <= now) {
            return Err(Rejection::ExpiryPast);
        }
        let alive = |key: &&Key| !key.revoked && key.created.expires_at.is_none_or(|at| at > now);
        if self.keys.values().filter(alive).count() >= KEYS_MAX {
            return Err(Rejection::KeysExhausted);
        }
        Ok(vec![Event::KeyCreated(key.clone())])
    }

    fn revoke_key(&self, key_id: KeyId) -> Result<Vec<Event>, Rejection> {
        let key = self.keys.get(&key_id).ok_or(Rejection::KeyUnknown(key_id))?;
        if key.revoked {
            return Ok(vec![]);
        }
        // Whoever revokes the last admin key locks everybody out, the operator's `hub key` aside. A key with an end
        // does not count: it is no way in for good.
        let admin = |key: &Key| {
            !key.revoked && key.created.expires_at.is_none() && key.created.scopes.contains(&Scope::Admin)
        };
        let others = self.keys.iter().filter(|(id, key)| **id != key_id && admin(key)).count();
        if admin(key) && others == 0 {
            return Err(Rejection::LastAdminKey);
        }
        Ok(vec![Event::KeyRevoked(KeyRevoked { key_id })])
    }
}

#[cfg(test)]
mod tests;
