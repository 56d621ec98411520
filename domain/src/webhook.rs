//! A webhook: a subscription to events, delivered by signed POST.
//!
//! Its secret is in no event: it follows from the webhook's id, the number of the draw and a key of the keyring. What
//! became of its deliveries is no fact about it, and stands in a stream of its own ([`crate::delivery`]).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    event::{self, Read, json, parse},
    ids::{WebhookId, WorkspaceId},
    names::Description,
    public_events,
    time::Timestamp,
};

/// How long a secret goes on signing after its successor was made: what receivers have to change over in.
pub const SECRET_GRACE_MS: i64 = 24 * 3_600_000;
/// The most secrets that sign at once, the current one included: who rotates faster than that has a reason to drop the
/// oldest.
pub const SECRETS_MAX: usize = 4;

/// The types that a webhook is sent; `*` stands for every public one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Filter(Vec<String>);

/// Why a list of types is none; the message fits after the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    #[error("must name at least one type of event, or \"*\" for all")]
    Empty,
    #[error("names {0}, which is no type of event; GET /v1/webhooks/events lists them")]
    Unknown(String),
    #[error("names {0} twice")]
    Twice(String),
}

impl Filter {
    /// Checks a list of types.
    ///
    /// # Errors
    /// [`InvalidFilter`] says which rule is broken.
    pub fn parse(types: &[String]) -> Result<Self, InvalidFilter> {
        if types.is_empty() {
            return Err(InvalidFilter::Empty);
        }
        for (place, it) in types.iter().enumerate() {
            if it != "*" && !public_events::is_public(it) {
                // What is shown back is cut: it may be of any length.
                return Err(InvalidFilter::Unknown(format!("{:?}", it.chars().take(64).collect::<String>())));
            }
            if types[..place].contains(it) {
                return Err(InvalidFilter::Twice(format!("{it:?}")));
            }
        }
        Ok(Self(types.to_vec()))
    }

    /// Whether events of a type are sent.
    pub fn matches(&self, event_type: &str) -> bool {
        public_events::is_public(event_type) && self.0.iter().any(|it| it == "*" || it == event_type)
    }

    /// As it was written.
    pub fn types(&self) -> &[String] {
        &self.0
    }
}

/// A webhook exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookCreated {
    pub webhook_id: WebhookId,
    pub workspace_id: WorkspaceId,
    pub url: String,
    pub events: Filter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    pub is_active: bool,
    /// What its first secret is drawn with.
    pub draw: Uuid,
}

/// What changed; what is absent stayed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookUpdated {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Filter>,
    /// Empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
}

/// Why a webhook is sent nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisableReason {
    /// Somebody switched it off.
    Requested,
    /// The receiver answered 410: it is gone for good.
    Gone,
    /// Nothing got through for days.
    Failing,
}

/// It is sent nothing until somebody enables it. What happens meanwhile waits for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookDisabled {
    pub reason: DisableReason,
}

/// It is sent events again, from where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookEnabled {}

/// It has a new secret; the one before signs along for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSecretRotated {
    /// What the new secret is drawn with: the command that asked for it.
    pub draw: Uuid,
    pub previous_until: Timestamp,
}

/// Some events were too old when their turn came, and were not delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSkipped {
    /// When the first of them was recorded.
    pub from: Timestamp,
    /// When the last of them was recorded.
    pub to: Timestamp,
    pub count: u64,
}

/// It is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookDeleted {}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Created(WebhookCreated),
    Updated(WebhookUpdated),
    Disabled(WebhookDisabled),
    Enabled(WebhookEnabled),
    SecretRotated(WebhookSecretRotated),
    Skipped(WebhookSkipped),
    Deleted(WebhookDeleted),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Created(_) => ("webhook.created", 1),
            Self::Updated(_) => ("webhook.updated", 1),
            Self::Disabled(_) => ("webhook.disabled", 1),
            Self::Enabled(_) => ("webhook.enabled", 1),
            Self::SecretRotated(_) => ("webhook.secret_rotated", 1),
            Self::Skipped(_) => ("webhook.skipped", 1),
            Self::Deleted(_) => ("webhook.deleted", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Created(payload) => json(payload),
            Self::Updated(payload) => json(payload),
            Self::Disabled(payload) => json(payload),
            Self::Enabled(payload) => json(payload),
            Self::SecretRotated(payload) => json(payload),
            Self::Skipped(payload) => json(payload),
            Self::Deleted(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("webhook.created", 1) => parse(data, Self::Created),
            ("webhook.updated", 1) => parse(data, Self::Updated),
            ("webhook.disabled", 1) => parse(data, Self::Disabled),
            ("webhook.enabled", 1) => parse(data, Self::Enabled),
            ("webhook.secret_rotated", 1) => parse(data, Self::SecretRotated),
            ("webhook.skipped", 1) => parse(data, Self::Skipped),
            ("webhook.deleted", 1) => parse(data, Self::Deleted),
            _ => Ok(None),
        }
    }
}

/// What shall be different.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub url: Option<String>,
    pub events: Option<Filter>,
    /// Empty: none.
    pub description: Option<Description>,
    pub is_active: Option<bool>,
}

/// What can be asked of a webhook. URL and types were checked before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Create(Box<WebhookCreated>),
    Change(Box<Changes>),
    /// It cannot be delivered to.
    Disable {
        reason: DisableReason,
    },
    RotateSecret {
        draw: Uuid,
        now: Timestamp,
    },
    /// Its courier left events out.
    Skip(WebhookSkipped),
    Delete,
}

/// What can stand in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("no such webhook in this workspace")]
    WebhookUnknown,
    /// The id is another's, or an earlier try of this creation made it with other content.
    #[error("the webhook exists already, and differently")]
    WebhookExists,
}

/// What a secret is drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    pub draw: Uuid,
    /// Until when it signs along; `None`: it is the current one.
    pub until: Option<Timestamp>,
}

/// A webhook as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// As it was created: what a repeated creation is compared with.
    pub original: WebhookCreated,
    /// As it is now.
    pub created: WebhookCreated,
    /// Why it is sent nothing, if so.
    pub disabled: Option<DisableReason>,
    /// The current one first, then its predecessors, newest first.
    pub secrets: Vec<Draw>,
    /// What was left out last.
    pub skipped: Option<WebhookSkipped>,
}

impl Details {
    /// What the secrets that sign now are drawn with, the current one first.
    pub fn signing(&self, now: Timestamp) -> impl Iterator<Item = Uuid> + '_ {
        let signs = move |secret: &&Draw| secret.until.is_none_or(|until| until > now);
        self.secrets.iter().filter(signs).map(|secret| secret.draw)
    }
    pub fn is_active(&self) -> bool {
        self.disabled.is_none()
    }
}

/// A webhook's life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Webhook {
    #[default]
    Unknown,
    Live(Box<Details>),
    Deleted(Box<Details>),
}

impl Webhook {
    /// The webhook until it is deleted.
    pub fn live(&self) -> Option<&Details> {
        if let Self::Live(details) = self { Some(details) } else { None }
    }
    fn details(&mut self) -> Option<&mut Details> {
        match self {
            Self::Unknown => None,
            Self::Live(details) | Self::Deleted(details) => Some(details),
        }
    }
}

impl Aggregate for Webhook {
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    const KIND: &'static str = "webhook";

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        let details = match (self, command) {
            (Self::Unknown, Command::Create(created)) => {
                return Ok(vec![Event::Created((**created).clone())]);
            }
            (Self::Live(details) | Self::Deleted(details), Command::Create(created))
                if details.original == **created =>
            {
                return Ok(vec![]);
            }
            (Self::Live(_) | Self::Deleted(_), Command::Create(_)) => return Err(Rejection::WebhookExists),
            (Self::Deleted(_), Command::Delete | Command::Disable { .. } | Command::Skip(_)) => {
                return Ok(vec![]);
            }
            (Self::Unknown | Self::Deleted(_), _) => return Err(Rejection::WebhookUnknown),
            (Self::Live(details), _) => details,
        };
        Ok(match command {
            Command::Create(_) => return Err(Rejection::WebhookExists),
            Command::Change(changes) => details.change(changes),
            Command::Disable { .. } if details.disabled.is_some() => vec![],
            Command::Disable { reason } => vec![Event::Disabled(WebhookDisabled { reason: *reason })],
            // The same command again.
            Command::RotateSecret { draw, .. } if details.secrets.iter().any(|it| it.draw == *draw) => vec![],
            Command::RotateSecret { draw, now } => {
                let previous_until = now.plus_ms(SECRET_GRACE_MS);
                vec![Event::SecretRotated(WebhookSecretRotated { draw: *draw, previous_until })]
            }
            Command::Skip(skipped) if details.skipped.as_ref() == Some(skipped) => vec![],
            Command::Skip(skipped) => vec![Event::Skipped(skipped.clone())],
            Command::Delete => vec![Event::Deleted(WebhookDeleted {})],
        })
    }

    fn evolve(&mut self, event: &Event) {
        if let Event::Created(created) = event {
            *self = Self::Live(Box::new(Details {
                original: created.clone(),
                created: created.clone(),
                disabled: (!created.is_active).then_some(DisableReason::Requested),
                secrets: vec![Draw { draw: created.draw, until: None }],
                skipped: None,
            }));
            return;
        }
        let Some(details) = self.details() else { return };
        match event {
            Event::Created(_) => {}
            Event::Skipped(skipped) => details.skipped = Some(skipped.clone()),
            Event::Updated(updated) => details.update(updated),
            Event::Disabled(disabled) => {
                details.disabled = Some(disabled.reason);
                details.created.is_active = false;
            }
            Event::Enabled(_) => {
                details.disabled = None;
                details.created.is_active = true;
            }
            Event::SecretRotated(rotated) => {
                for secret in &mut details.secrets {
                    secret.until.get_or_insert(rotated.previous_until);
                }
                details.secrets.insert(0, Draw { draw: rotated.draw, until: None });
                details.secrets.truncate(SECRETS_MAX);
            }
            Event::Deleted(_) => {
                let details = details.clone();
                *self = Self::Deleted(Box::new(details));
            }
        }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        match self {
            Self::Unknown => None,
            Self::Live(details) | Self::Deleted(details) => Some(details.created.workspace_id),
        }
    }

    fn from_event(event: event::Event) -> Option<Event> {
        if let event::Event::Webhook(event) = event { Some(event) } else { None }
    }
    fn into_event(event: Event) -> event::Event {
        event::Event::Webhook(event)
    }
}

impl Details {
    fn change(&self, changes: &Changes) -> Vec<Event> {
        let known = &self.created;
        let empty = changes.description.as_ref().is_some_and(|text| text.as_str().is_empty());
        let same_description =
            changes.description == known.description || (empty && known.description.is_none());
        let updated = WebhookUpdated {
            url: changes.url.clone().filter(|url| *url != known.url),
            events: changes.events.clone().filter(|events| *events != known.events),
            description: changes.description.clone().filter(|_| !same_description),
        };
        let mut events = Vec::new();
        if updated != WebhookUpdated::default() {
            events.push(Event::Updated(updated));
        }
        match (changes.is_active, self.disabled) {
            (Some(true), Some(_)) => events.push(Event::Enabled(WebhookEnabled {})),
            (Some(false), None) => {
                events.push(Event::Disabled(WebhookDisabled { reason: DisableReason::Requested }));
            }
            (Some(true), None) | (Some(false), Some(_)) | (None, _) => {}
        }
        events
    }

    fn update(&mut self, updated: &WebhookUpdated) {
        if let Some(url) = &updated.url {
            self.created.url.clone_from(url);
        }
        if let Some(events) = &updated.events {
            self.created.events = events.clone();
        }
        if let Some(text) = &updated.description {
            self.created.description = Some(text.clone()).filter(|text| !text.as_str().is_empty());
        }
    }
}

#[cfg(test)]
mod tests;
