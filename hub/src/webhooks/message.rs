//! Makes a message's body from the log, at every try anew: the same bytes each time, as long as nothing was erased.

use std::sync::Arc;

use bytes::Bytes;
use domain::{
    access,
    delivery::{Part, Planned, Source},
    environment::{self, EnvironmentShared},
    event::Event,
    ids::{EnvironmentId, ShareId, WorkspaceId},
    public_events,
    recorded::{Families, Family, Personal, Recorded, StreamName},
};
use projections::public_event::{self, Known};
use schemas::rest::{events::PublicEvent, webhooks::WebhookMessage};
use serde_json::{Map, Value};

use crate::{
    environments::Codes,
    event_log::{ReadError, SharedLog},
    keyring::Keyring,
};

/// What bodies are made with.
#[derive(Debug)]
pub struct Messages {
    pub log: SharedLog,
    pub keyring: Arc<Keyring>,
    pub codes: Codes,
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum NoBody {
    #[error("what the message is made from is no longer in the log")]
    Lost,
    #[error(transparent)]
    Log(#[from] ReadError),
}

impl Messages {
    /// The body of a message.
    ///
    /// # Errors
    /// [`NoBody`]; only [`NoBody::Lost`] is for ever.
    pub async fn body(&self, workspace: WorkspaceId, planned: &Planned) -> Result<Bytes, NoBody> {
        let event = match &planned.source {
            Source::Event { position } => {
                let recorded = self.at(*position, Family::Facts, workspace).await?;
                let code = self.code_of(&recorded).await?;
                public_event::public(&recorded, Known { code: code.as_deref() })
            }
            Source::Accesses { share_id, parts } => {
                self.accesses(workspace, *share_id, parts, &planned.message_id.to_string()).await?
            }
        };
        Ok(told(event, planned.sequence))
    }

    async fn accesses(
        &self,
        workspace: WorkspaceId,
        share: ShareId,
        parts: &[Part],
        id: &str,
    ) -> Result<PublicEvent, NoBody> {
        let (mut accesses, mut last) = (Vec::new(), None);
        let mut tunnel = None;
        for part in parts {
            let mut recorded = match self.at(part.position, Family::Accesses, workspace).await {
                Ok(recorded) => recorded,
                // The oldest of them have left by the log's retention: the others are told.
                Err(NoBody::Lost) => continue,
                Err(error) => return Err(error),
            };
            self.open(&mut recorded, share);
            let Ok(Event::Access(access::Event::Accessed(accessed))) = recorded.event() else { continue };
            let shown = public_event::accesses(&recorded, &accessed);
            accesses.extend(shown.into_iter().skip(part.first.into()).take(part.count.into()));
            tunnel = Some(accessed.tunnel_id);
            last = Some(recorded.recorded_at);
        }
        let (Some(at), Some(tunnel)) = (last, tunnel) else { return Err(NoBody::Lost) };
        let accesses = serde_json::to_value(accesses).expect("plain data with string keys");
        Ok(PublicEvent {
            id: id.to_owned(),
            event_type: public_events::ACCESSED.to_owned(),
            event: public_events::ACCESSED.to_owned(),
            timestamp: at.to_string(),
            workspace_id: workspace.to_string(),
            data: Map::from_iter([
                ("shareId".to_owned(), Value::String(share.to_string())),
                ("tunnelId".to_owned(), Value::String(tunnel.to_string())),
                ("accesses".to_owned(), accesses),
            ]),
        })
    }

    fn open(&self, recorded: &mut Recorded, share: ShareId) {
        if let Personal::Sealed(sealed) = &recorded.personal {
            let opened = self.keyring.open_personal(recorded.workspace, Some(share), sealed);
            recorded.personal = opened.map_or(Personal::Erased, |text| Personal::Open(text.into()));
        }
    }

    /// The event of a workspace at a position.
    async fn at(&self, position: u64, family: Family, workspace: WorkspaceId) -> Result<Recorded, NoBody> {
        let found = self.log.read_all(position.saturating_sub(1), Families::only(family), 1).await?;
        let found = found.into_iter().next();
        found.filter(|it| it.position == position && it.workspace == workspace).ok_or(NoBody::Lost)
    }

    /// The code of the environment share that an event is about. It is drawn from what its first event says.
    async fn code_of(&self, recorded: &Recorded) -> Result<Option<String>, NoBody> {
        let id = recorded.stream.as_str().strip_prefix("environment-");
        let Some(id) = id.and_then(|id| id.parse::<EnvironmentId>().ok()) else { return Ok(None) };
        let first = self.log.read_stream(&StreamName::environment(id), 1, 1).await?;
        let shared = first.first().and_then(|first| match first.event() {
            Ok(Event::Environment(environment::Event::Shared(shared))) => Some(shared),
            Ok(_) | Err(_) => None,
        });
        Ok(shared.map(|EnvironmentShared { environment_id, draw, .. }| self.codes.draw(environment_id, draw)))
    }
}

/// An event as a webhook's message.
pub fn told(event: PublicEvent, sequence: u64) -> Bytes {
    let message = WebhookMessage {
        id: event.id,
        event_type: event.event_type,
        event: event.event,
        timestamp: event.timestamp,
        workspace_id: event.workspace_id,
        sequence,
        data: event.data,
    };
    serde_json::to_vec(&message).expect("plain data with string keys").into()
}
