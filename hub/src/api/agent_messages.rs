//! Messages between agents of one workspace. What they say is sealed in the log and opened for whoever they are for.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use domain::{
    ids::{AgentId, MessageId},
    message::{
        BROADCAST_MAX, Command, MAILBOX_MAX, MessageSent, PAYLOAD_BYTES_MAX, TTL_SECONDS, TTL_SECONDS_DEFAULT,
    },
    names::Name,
    recorded::{Personal, StreamName},
    time::Timestamp,
};
use futures_util::{StreamExt as _, stream};
use schemas::rest::{self, BroadcastMessage, BroadcastSent, MarkMessagesRead, MessagesRead, SendMessage};
use serde_json::Value;

use super::{Ports, agents, body::Body, caller::Caller, error::ApiError, idempotency, lists};
use crate::{actors::Done, secrets::Seed};

/// How many boxes a broadcast is put into at once: group commit makes them share their fsyncs.
const AT_ONCE: usize = 64;
/// How many messages one request may name as read.
const READ_AT_ONCE_MAX: usize = MAILBOX_MAX;

/// What a message says, checked.
struct Letter {
    payload: String,
    topic: Option<Name>,
    ttl_ms: i64,
    from: AgentId,
    broadcast: bool,
}

impl Letter {
    fn checked(
        from: AgentId,
        payload: &Value,
        topic: Option<&str>,
        ttl_seconds: Option<i64>,
    ) -> Result<Self, ApiError> {
        let payload = payload.to_string();
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(ApiError::field(
                "payload",
                format_args!("must be at most {PAYLOAD_BYTES_MAX} bytes"),
            ));
        }
        let topic = topic.map(Name::parse).transpose().map_err(|error| ApiError::field("topic", error))?;
        let seconds = ttl_seconds.map_or(Ok(TTL_SECONDS_DEFAULT), u64::try_from).unwrap_or_default();
        // Below zero is none, which is out of range as well.
        if !TTL_SECONDS.contains(&seconds) {
            return Err(ApiError::field("ttlSeconds", "must be from 60 to 2592000"));
        }
        let ttl_ms = i64::try_from(seconds).expect("at most a month") * 1_000;
        Ok(Self { payload, topic, ttl_ms, from, broadcast: false })
    }

    /// Puts it into a box.
    async fn deliver(
        &self,
        ports: &Ports,
        caller: &Caller,
        seed: &Seed,
        to: AgentId,
    ) -> Result<(MessageId, Timestamp, Done), ApiError> {
        let first_seen = seed.first_seen().unwrap_or_else(|| ports.clock.now());
        let id = MessageId::new(seed.uuid(first_seen, &format!("message-{to}")));
        let expires_at = first_seen.plus_ms(self.ttl_ms);
        let _desk = ports.desk.of(to).await;
        if ports.routes.message(id).is_none() {
            make_room(ports, caller, to).await?;
        }
        let sealed = ports.keyring.seal_personal(caller.workspace, None, first_seen, &self.payload);
        let sealed = sealed.map_err(|error| {
            ApiError::unavailable("log_unavailable", format!("The keyring takes no writes: {error}."))
        })?;
        let message = MessageSent {
            message_id: id,
            workspace_id: caller.workspace,
            from: self.from,
            to,
            key_id: caller.key_id(),
            topic: self.topic.clone(),
            broadcast: self.broadcast,
            payload_bytes: u32::try_from(self.payload.len()).unwrap_or(u32::MAX),
            expires_at,
        };
        let command = Command::Send { message, now: first_seen };
        let done = ports.executor.message(id, caller.who(), command, Some(sealed)).await?;
        Ok((id, expires_at, done))
    }
}

/// A full box loses the oldest message that was read; one full of unread ones takes no more.
async fn make_room(ports: &Ports, caller: &Caller, to: AgentId) -> Result<(), ApiError> {
    let kept = ports.routes.messages_of(to);
    if kept.len() < MAILBOX_MAX {
        return Ok(());
    }
    let oldest_read = kept.iter().rev().find(|(_, entry)| entry.state.read).map(|(id, _)| *id);
    let Some(id) = oldest_read else {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "mailbox_full",
            format!("{MAILBOX_MAX} messages wait for agent {to}; try again when it has read some."),
        ));
    };
    ports.executor.message(id, caller.who(), Command::MakeRoom, None).await?;
    Ok(())
}

/// `POST /v1/agents/:id/messages/send`: in the name of the agent in the URL.
pub async fn send(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    from: web::Path<String>,
    body: Body<SendMessage>,
) -> Result<HttpResponse, ApiError> {
    let (from, _) = agents::speaks_for(&ports, &caller, &from)?;
    let asked = &body.value;
    let letter = Letter::checked(from, &asked.payload, asked.topic.as_deref(), asked.ttl_seconds)?;
    let (to, _) = agents::find(&ports, &caller, &asked.to_agent_id)?;
    let seed = idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let (id, expires_at, done) = letter.deliver(&ports, &caller, &seed, to).await?;
    let mut response = HttpResponse::Created();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(rest::MessageSent {
        success: true,
        message_id: id.to_string(),
        expires_at: expires_at.to_string(),
    }))
}

/// `POST /v1/agents/:id/messages/broadcast`: to every other agent of the workspace that can still connect.
pub async fn broadcast(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    from: web::Path<String>,
    body: Body<BroadcastMessage>,
) -> Result<HttpResponse, ApiError> {
    let (from, _) = agents::speaks_for(&ports, &caller, &from)?;
    let asked = &body.value;
    let letter = Letter::checked(from, &asked.payload, asked.topic.as_deref(), asked.ttl_seconds)?;
    let letter = Letter { broadcast: true, ..letter };
    let to = audience(&ports, &caller, from)?;
    let seed = idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let first_seen = seed.first_seen().unwrap_or_else(|| ports.clock.now());
    let delivered: Vec<_> = stream::iter(to)
        .map(|to| {
            let (letter, ports, caller, seed) = (&letter, &ports, &caller, &seed);
            async move { (to, letter.deliver(ports, caller, seed, to).await) }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let (mut message_ids, mut skipped, mut last) = (Vec::new(), Vec::new(), None::<Done>);
    for (to, outcome) in delivered {
        match outcome {
            Ok((id, _, done)) => {
                message_ids.push(id.to_string());
                last = later(last, done);
            }
            Err(full) if full.code == "mailbox_full" => skipped.push(to.to_string()),
            // Whoever repeats it with its Idempotency-Key reaches those that are left.
            Err(error) => return Err(error),
        }
    }
    let mut response = HttpResponse::Created();
    if let Some(done) = last {
        lists::written(&ports, &caller, done, &mut response);
    }
    Ok(response.json(BroadcastSent {
        success: true,
        delivered: message_ids.len() as u64,
        message_ids,
        skipped,
        expires_at: first_seen.plus_ms(letter.ttl_ms).to_string(),
    }))
}

/// The later of two writes.
fn later(one: Option<Done>, other: Done) -> Option<Done> {
    Some(one.filter(|one| one.position >= other.position).unwrap_or(other))
}

fn audience(ports: &Ports, caller: &Caller, from: AgentId) -> Result<Vec<AgentId>, ApiError> {
    let now = ports.clock.now();
    let agents = ports.routes.all_agents().into_iter().filter(|(id, entry)| {
        let registered = entry.state.registered.as_ref();
        *id != from
            && registered.is_some_and(|registered| registered.workspace_id == caller.workspace)
            && entry.state.tokens.iter().any(|token| ports.routes.token_holds(&entry.state, token, now))
    });
    let mut to: Vec<AgentId> = agents.map(|(id, _)| id).collect();
    to.sort_unstable();
    if to.len() > BROADCAST_MAX {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "too_many_agents",
            format!("A broadcast reaches at most {BROADCAST_MAX} agents; send to them one by one."),
        ));
    }
    Ok(to)
}

/// `GET /v1/agents/:id/messages`: newest first; `unread=true` leaves out what was read.
pub async fn list(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    agent: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (agent, _) = agents::look_at(&ports, &caller, &agent)?;
    let parameters = lists::parameters(&request, &["limit", "cursor", "unread"])?;
    let page = lists::page(&parameters)?;
    let only_unread = match lists::parameter(&parameters, "unread") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(ApiError::field("unread", "must be true or false")),
    };
    let below = match &page.cursor {
        None => None,
        Some(text) => Some(
            text.parse::<MessageId>()
                .map_err(|_| ApiError::field("cursor", "must be one that an earlier page gave"))?,
        ),
    };
    let now = ports.clock.now();
    let kept: Vec<_> = ports
        .routes
        .messages_of(agent)
        .into_iter()
        .filter(|(_, entry)| entry.state.kept(now).is_some())
        .collect();
    let unread = kept.iter().filter(|(_, entry)| !entry.state.read).count() as u64;
    let mut rest_of_box = kept
        .into_iter()
        .filter(|(id, entry)| below.is_none_or(|below| *id < below) && !(only_unread && entry.state.read))
        .peekable();
    let mut messages = Vec::new();
    let mut last = None;
    while messages.len() < page.limit
        && let Some((id, entry)) = rest_of_box.next()
    {
        last = Some(id);
        let Some(sent) = entry.state.sent.clone() else { continue };
        messages.push(rest::ReceivedMessage {
            id: id.to_string(),
            from_agent_id: sent.from.to_string(),
            topic: sent.topic.map(|topic| topic.to_string()),
            broadcast: sent.broadcast,
            payload: payload(&ports, &caller, id).await?,
            sent_at: entry.created_at.to_string(),
            expires_at: sent.expires_at.to_string(),
            read: entry.state.read,
        });
    }
    let next = last.filter(|_| rest_of_box.peek().is_some()).map(|id| id.to_string());
    Ok(lists::answer(&request, &rest::Messages { messages, unread }, next.as_deref()))
}

/// What a message says: the first event of its stream, opened.
async fn payload(ports: &Ports, caller: &Caller, id: MessageId) -> Result<Value, ApiError> {
    let stream = StreamName::message(id);
    let events = ports.log.read_stream(&stream, 1, 1).await.map_err(ApiError::internal)?;
    let text = match events.first().map(|event| &event.personal) {
        Some(Personal::Sealed(bytes)) => ports.keyring.open_personal(caller.workspace, None, bytes),
        Some(Personal::Open(text)) => Some(text.to_string()),
        Some(Personal::None | Personal::Erased) | None => None,
    };
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null))
}

/// `POST /v1/agents/:id/messages/read`: those that are named, or all.
pub async fn mark_read(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    agent: web::Path<String>,
    body: Body<MarkMessagesRead>,
) -> Result<HttpResponse, ApiError> {
    let (agent, _) = agents::speaks_for(&ports, &caller, &agent)?;
    let now = ports.clock.now();
    let kept = ports.routes.messages_of(agent);
    let named: Vec<MessageId> = match &body.value.message_ids {
        None => kept.iter().map(|(id, _)| *id).collect(),
        Some(ids) if ids.len() > READ_AT_ONCE_MAX => {
            return Err(ApiError::field("messageIds", format_args!("must be at most {READ_AT_ONCE_MAX}")));
        }
        Some(ids) => ids
            .iter()
            .map(|text| {
                let id: Option<MessageId> = text.parse().ok();
                // Of somebody else's box or of none: both look the same.
                let id = id.filter(|id| kept.iter().any(|(known, _)| known == id));
                id.ok_or_else(|| ApiError::not_found("message", text))
            })
            .collect::<Result<_, _>>()?,
    };
    idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let unread: Vec<MessageId> = kept
        .iter()
        .filter(|(id, entry)| !entry.state.read && entry.state.kept(now).is_some() && named.contains(id))
        .map(|(id, _)| *id)
        .collect();
    let marked = unread.len() as u64;
    let done: Vec<_> = stream::iter(unread)
        .map(|id| {
            let (ports, caller) = (&ports, &caller);
            async move { ports.executor.message(id, caller.who(), Command::MarkRead, None).await }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut last = None::<Done>;
    for done in done {
        last = later(last, done?);
    }
    let left = ports.routes.messages_of(agent);
    let unread =
        left.iter().filter(|(_, entry)| !entry.state.read && entry.state.kept(now).is_some()).count();
    let mut response = HttpResponse::Ok();
    if let Some(done) = last {
        lists::written(&ports, &caller, done, &mut response);
    }
    Ok(response.json(MessagesRead { success: true, marked, unread: unread as u64 }))
}
