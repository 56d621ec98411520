//! Claims of unique things: names, ports, slugs, idempotency keys. Each is a stream of its own, taken with an
//! expected revision, so that two cannot have it, on however many nodes.
//!
//! ```text
//!   free ──take──► taken ──confirm──► confirmed ──release──► released (quarantined until) ──take──► taken
//!                    └───────abandon (unconfirmed after 60 s)──────┘
//! ```
//!
//! Every taking begins a *holding* of its own, known by its command's id, also when the holder had the thing already
//! ([`Command::TakeAgain`]). Whoever frees a thing names the holding that he means, so that what he saw a moment ago
//! cannot free what was taken since.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    event::{self, Read, json, parse},
    ids::WorkspaceId,
    time::Timestamp,
};

/// A claim that its holder's first event has not confirmed after this long is freed (milliseconds).
pub const UNCONFIRMED_MS_MAX: i64 = 60_000;
/// A freed slug stays out of use for 30 days, so that an old link cannot lead to a stranger (milliseconds).
pub const SLUG_QUARANTINE_MS: i64 = 30 * 86_400_000;

/// What can be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimKind {
    /// A tunnel's name within a workspace.
    TunnelName,
    /// A tunnel port on the hub.
    TunnelPort,
    /// A share's subdomain slug.
    Slug,
    /// An `Idempotency-Key` of a caller.
    Idempotency,
    /// The code of a living environment share, within a workspace.
    EnvironmentCode,
}

impl ClaimKind {
    /// The part of the stream name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TunnelName => "name",
            Self::TunnelPort => "port",
            Self::Slug => "slug",
            Self::Idempotency => "idempotency",
            Self::EnvironmentCode => "environment",
        }
    }
    /// How long the thing stays out of use after its release, in milliseconds.
    pub const fn quarantine_ms(self) -> i64 {
        match self {
            Self::Slug => SLUG_QUARANTINE_MS,
            Self::TunnelName | Self::TunnelPort | Self::Idempotency | Self::EnvironmentCode => 0,
        }
    }
}

/// Somebody has it, and nobody else until it is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimTaken {
    pub kind: ClaimKind,
    /// The claimed thing in words: `ws_…/prod-db`, `10007`, a slug, or the digest of an idempotency key.
    pub key: String,
    pub workspace_id: WorkspaceId,
    /// Who has it: an id, or for an idempotency key the command's fingerprint.
    pub holder: String,
    /// The command that took it: a retry of the same command finishes the same creation.
    pub command_id: Uuid,
}

/// The holder exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimConfirmed {
    pub holder: String,
}

/// Nobody has it; nobody may have it before `quarantined_until`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimReleased {
    pub holder: String,
    pub quarantined_until: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Taken(ClaimTaken),
    Confirmed(ClaimConfirmed),
    Released(ClaimReleased),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Taken(_) => ("claim.taken", 1),
            Self::Confirmed(_) => ("claim.confirmed", 1),
            Self::Released(_) => ("claim.released", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Taken(payload) => json(payload),
            Self::Confirmed(payload) => json(payload),
            Self::Released(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("claim.taken", 1) => parse(data, Self::Taken),
            ("claim.confirmed", 1) => parse(data, Self::Confirmed),
            ("claim.released", 1) => parse(data, Self::Released),
            _ => Ok(None),
        }
    }
}

/// What can be asked of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Take {
        claim: ClaimTaken,
        now: Timestamp,
    },
    /// Like [`Command::Take`], and a holder that has the thing already begins a new holding of it: one that gave the
    /// thing up and wants it back before it was released. A release that was meant for the former holding is then
    /// without effect, however late it comes.
    TakeAgain {
        claim: ClaimTaken,
        now: Timestamp,
    },
    Confirm {
        holder: String,
    },
    /// Frees the holding that this command began, and no other.
    Release {
        holder: String,
        command_id: Uuid,
        now: Timestamp,
    },
    /// Frees a claim that was never confirmed, without quarantine: nothing was ever reachable under it. For whoever
    /// looks after claims older than [`UNCONFIRMED_MS_MAX`], once it knows that the holder does not exist (a holder
    /// that does exist is confirmed instead). Unlike a release it cannot hit a claim that was confirmed meanwhile.
    Abandon {
        command_id: Uuid,
    },
}

/// What can stand in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    // The holder may belong to another workspace: the text does not name it.
    #[error("taken already")]
    ClaimTaken { holder: String, command_id: Uuid, workspace_id: WorkspaceId },
    #[error("out of use until {until}")]
    ClaimQuarantined { until: Timestamp },
    #[error("not held by `{holder}`")]
    ClaimNotHeld { holder: String },
}

/// Where a claim stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Claim {
    #[default]
    Free,
    Taken(ClaimTaken),
    Confirmed(ClaimTaken),
    Released {
        quarantined_until: Option<Timestamp>,
    },
}

impl Claim {
    /// Who holds it now.
    pub fn holder(&self) -> Option<&ClaimTaken> {
        match self {
            Self::Taken(claim) | Self::Confirmed(claim) => Some(claim),
            Self::Free | Self::Released { .. } => None,
        }
    }
}

impl Aggregate for Claim {
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    const KIND: &'static str = "claim";

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Take { claim, now } => self.take(claim, *now),
            Command::TakeAgain { claim, now } => match self.holder() {
                Some(held) if held.holder == claim.holder && held.command_id != claim.command_id => {
                    Ok(vec![Event::Taken(claim.clone())])
                }
                Some(_) | None => self.take(claim, *now),
            },
            Command::Confirm { holder } => match self {
                Self::Taken(claim) if claim.holder == *holder => {
                    Ok(vec![Event::Confirmed(ClaimConfirmed { holder: holder.clone() })])
                }
                Self::Confirmed(claim) if claim.holder == *holder => Ok(vec![]),
                Self::Free | Self::Taken(_) | Self::Confirmed(_) | Self::Released { .. } => {
                    Err(Rejection::ClaimNotHeld { holder: holder.clone() })
                }
            },
            Command::Abandon { command_id } => match self {
                Self::Taken(claim) if claim.command_id == *command_id => {
                    Ok(vec![Event::Released(ClaimReleased {
                        holder: claim.holder.clone(),
                        quarantined_until: None,
                    })])
                }
                Self::Free | Self::Taken(_) | Self::Confirmed(_) | Self::Released { .. } => Ok(vec![]),
            },
            Command::Release { holder, command_id, now } => match self.holder() {
                Some(claim) if claim.holder == *holder && claim.command_id == *command_id => {
                    let span = claim.kind.quarantine_ms();
                    let quarantined_until = (span > 0).then(|| now.plus_ms(span));
                    Ok(vec![Event::Released(ClaimReleased { holder: holder.clone(), quarantined_until })])
                }
                // Released already, or taken since, by somebody else or by the same again: what was asked for holds.
                Some(_) | None => Ok(vec![]),
            },
        }
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Taken(claim) => *self = Self::Taken(claim.clone()),
            Event::Confirmed(_) => {
                if let Some(claim) = self.holder().cloned() {
                    *self = Self::Confirmed(claim);
                }
            }
            Event::Released(released) => {
                *self = Self::Released { quarantined_until: released.quarantined_until };
            }
        }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        None
    }

    fn from_event(event: event::Event) -> Option<Event> {
        if let event::Event::Claim(event) = event { Some(event) } else { None }
    }
    fn into_event(event: Event) -> event::Event {
        event::Event::Claim(event)
    }
}

impl Claim {
    fn take(&self, claim: &ClaimTaken, now: Timestamp) -> Result<Vec<Event>, Rejection> {
        match self {
            Self::Taken(held) | Self::Confirmed(held) if held == claim => Ok(vec![]),
            Self::Taken(held) | Self::Confirmed(held) => Err(Rejection::ClaimTaken {
                holder: held.holder.clone(),
                command_id: held.command_id,
                workspace_id: held.workspace_id,
            }),
            Self::Released { quarantined_until: Some(until) } if *until > now => {
                Err(Rejection::ClaimQuarantined { until: *until })
            }
            Self::Free | Self::Released { .. } => Ok(vec![Event::Taken(claim.clone())]),
        }
    }
}

#[cfg(test)]
mod tests;
