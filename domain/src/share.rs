//! A share: a public, restricted, expiring link to one tunnel.
//!
//! Whether it may be used is derived from share, tunnel, agent, workspace and clock together (`projections::routes`);
//! nothing is correct because an event of this file was appended in time.

use serde::{Deserialize, Serialize};

use crate::{
    aggregate::Aggregate,
    event::{self, Read, json, parse},
    ids::{ShareId, TunnelId, WorkspaceId},
    names::{Description, Name},
    policy::{methods::Method, paths::PathRule},
    time::Timestamp,
};

/// A link exists. Only the hash of its token is here, and a preview to recognise it by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareCreated {
    pub share_id: ShareId,
    pub workspace_id: WorkspaceId,
    pub tunnel_id: TunnelId,
    pub name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
    /// `None`: every path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_paths: Option<Vec<PathRule>>,
    /// `None`: every method except CONNECT and TRACE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_methods: Option<Vec<Method>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit_per_min: Option<u16>,
    pub slug: String,
    /// The slug was chosen, and is therefore guessable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub slug_chosen: bool,
    /// The permanent link of a public tunnel: its slug is the tunnel's public URL.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub public: bool,
    pub read_only: bool,
    /// Lower-case hex SHA-256 of the token.
    pub token_hash: String,
    pub token_preview: String,
}

/// Why a link was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeReason {
    Requested,
    TunnelDeleted,
    TunnelExpired,
}

/// The link refuses from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareRevoked {
    pub reason: RevokeReason,
}

/// Its time was over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareExpired {}

#[expect(clippy::large_enum_variant, reason = "an event is moved once; a box would cost more than the move")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Created(ShareCreated),
    Revoked(ShareRevoked),
    Expired(ShareExpired),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Created(_) => ("share.created", 1),
            Self::Revoked(_) => ("share.revoked", 1),
            Self::Expired(_) => ("share.expired", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Created(payload) => json(payload),
            Self::Revoked(payload) => json(payload),
            Self::Expired(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("share.created", 1) => parse(data, Self::Created),
            ("share.revoked", 1) => parse(data, Self::Revoked),
            ("share.expired", 1) => parse(data, Self::Expired),
            _ => Ok(None),
        }
    }
}

/// What can be asked of a share.
#[expect(clippy::large_enum_variant, reason = "a command is moved once; a box would cost more than the move")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Create { share: ShareCreated, now: Timestamp },
    Revoke { reason: RevokeReason },
    Expire { now: Timestamp },
}

/// The most path rules of one share.
pub const PATH_RULES_MAX: usize = 50;

/// What can stand in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("no such share in this workspace")]
    ShareUnknown,
    /// The id is another share's, or an earlier try of this creation made it with another token or slug.
    #[error("the share exists already, and differently")]
    ShareExists,
    #[error("the expiry lies in the past")]
    ExpiryPast,
    #[error("a rate limit is 1-1000 requests per minute")]
    RateLimitRange,
    #[error("at most {PATH_RULES_MAX} path rules")]
    TooManyPaths,
    #[error("a list of paths or methods must not be empty; leave it out to allow all")]
    EmptyList,
    #[error("the share's time is not over")]
    NotDue,
}

/// How a share ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Revoked { reason: RevokeReason },
    Expired,
}

/// A share as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    pub created: Option<ShareCreated>,
    pub ended: Option<Ended>,
}

impl Aggregate for Share {
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    const KIND: &'static str = "share";

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        match (&self.created, command) {
            (None, Command::Create { share, now }) => create(share, *now),
            // The same command again. Staying silent about another one would confirm a token that opens nothing.
            (Some(created), Command::Create { share, .. }) if created == share => Ok(vec![]),
            (Some(_), Command::Create { .. }) => Err(Rejection::ShareExists),
            (None, Command::Revoke { .. } | Command::Expire { .. }) => Err(Rejection::ShareUnknown),
            (Some(_), Command::Revoke { .. } | Command::Expire { .. }) if self.ended.is_some() => Ok(vec![]),
            (Some(_), Command::Revoke { reason }) => {
                Ok(vec![Event::Revoked(ShareRevoked { reason: *reason })])
            }
            (Some(created), Command::Expire { now }) => match created.expires_at {
                Some(at) if at <= *now => Ok(vec![Event::Expired(ShareExpired {})]),
                Some(_) | None => Err(Rejection::NotDue),
            },
        }
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Created(created) => self.created = Some(created.clone()),
            Event::Revoked(revoked) => self.ended = Some(Ended::Revoked { reason: revoked.reason }),
            Event::Expired(_) => self.ended = Some(Ended::Expired),
        }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        self.created.as_ref().map(|created| created.workspace_id)
    }

    fn from_event(event: event::Event) -> Option<Event> {
        if let event::Event::Share(event) = event { Some(event) } else { None }
    }
    fn into_event(event: Event) -> event::Event {
        event::Event::Share(event)
    }
}

fn create(share: &ShareCreated, now: Timestamp) -> Result<Vec<Event>, Rejection> {
    if share.expires_at.is_some_and(|at| at <= now) {
        return Err(Rejection::ExpiryPast);
    }
    if share.rate_limit_per_min.is_some_and(|limit| !(1..=1000).contains(&limit)) {
        return Err(Rejection::RateLimitRange);
    }
    if share.allowed_paths.as_ref().is_some_and(|rules| rules.len() > PATH_RULES_MAX) {
        return Err(Rejection::TooManyPaths);
    }
    let empty_paths = share.allowed_paths.as_ref().is_some_and(Vec::is_empty);
    let empty_methods = share.allowed_methods.as_ref().is_some_and(Vec::is_empty);
    if empty_paths || empty_methods {
        return Err(Rejection::EmptyList);
    }
    Ok(vec![Event::Created(share.clone())])
}

#[cfg(test)]
mod tests;
