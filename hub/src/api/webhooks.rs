//! Webhooks: create, change, look, and what became of what was sent.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use domain::{
    delivery::Said,
    ids::{DeliveryId, EventId, WebhookId},
    names::Description,
    policy::webhook_url::Endpoint,
    public_events,
    time::Timestamp,
    webhook::{self, Changes, Command, Details, Filter, SECRET_GRACE_MS, Webhook},
    workspace::Scope,
};
use projections::{
    deliveries::{DeliveryRow, Status, TryRow},
    routes::Entry,
};
use schemas::rest::{
    Success,
    webhooks::{
        CreateWebhook, Delivery, DeliveryAttempt, DeliveryCounts, DescribedEventType, Redelivered,
        ReplayWebhook, UpdateWebhook, Webhook as Shown, WebhookCreated, WebhookSecretRotated, WebhookTested,
    },
};
use uuid::Uuid;

use super::{
    Ports,
    body::{Body, Nothing},
    caller::Caller,
    error::ApiError,
    idempotency, lists,
};
use crate::{
    secrets::Seed,
    webhooks::{Again, NoCourier, WEBHOOKS_MAX, is_taken, places},
};

type Found = (WebhookId, Arc<Entry<Webhook>>);

/// `POST /v1/webhooks`: the secret is shown here and never again.
pub async fn create(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    body: Body<CreateWebhook>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let asked = &body.value;
    // What the fields say is checked before an idempotency key is spent on it.
    let (url, events) = (checked_url(&ports, &asked.url)?, filter(&asked.events)?);
    let description = description(asked.description.as_deref())?.filter(|text| !text.as_str().is_empty());
    let seed = idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let now = seed.first_seen().unwrap_or_else(|| ports.clock.now());
    let id = WebhookId::new(seed.uuid(now, "webhook"));
    let is_new = ports.routes.webhook(id).is_none();
    if is_new && ports.routes.webhooks_of(caller.workspace).len() >= WEBHOOKS_MAX {
        return Err(ApiError::conflict(
            "webhooks_exhausted",
            format!("A workspace has at most {WEBHOOKS_MAX} webhooks; delete one first."),
        ));
    }
    let created = webhook::WebhookCreated {
        webhook_id: id,
        workspace_id: caller.workspace,
        url,
        events,
        description,
        is_active: asked.is_active.unwrap_or(true),
        draw: seed.uuid(now, "secret"),
    };
    let command = Command::Create(Box::new(created.clone()));
    let done = ports.executor.webhook(id, caller.who(), command).await?;
    ports.webhooks.follow(id);
    let created_at = ports.routes.webhook(id).map_or(now, |entry| entry.created_at);
    let mut response = HttpResponse::Created();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(WebhookCreated {
        id: id.to_string(),
        url: created.url,
        events: created.events.types().to_vec(),
        description: created.description.map(|text| text.as_str().to_owned()),
        is_active: created.is_active,
        created_at: created_at.to_string(),
        secret: ports.webhooks.secret(id, created.draw).reveal().to_owned(),
    }))
}

fn checked_url(ports: &Ports, text: &str) -> Result<String, ApiError> {
    let judged = Endpoint::parse(text).and_then(|endpoint| endpoint.admit(&ports.settings.webhook_allow));
    judged.map(|()| text.to_owned()).map_err(|error| ApiError::field("url", error))
}

fn filter(types: &[String]) -> Result<Filter, ApiError> {
    Filter::parse(types).map_err(|error| ApiError::field("events", error))
}

fn description(text: Option<&str>) -> Result<Option<Description>, ApiError> {
    let parsed = text.map(Description::parse).transpose();
    parsed.map_err(|error| ApiError::field("description", error))
}

/// `GET /v1/webhooks`, oldest first.
pub async fn list(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let page = lists::page(&lists::parameters(&request, &["limit", "cursor"])?)?;
    let here = ports.routes.webhooks_of(caller.workspace).into_iter().filter_map(|id| {
        let entry = ports.routes.webhook(id)?;
        Some((id, (id, entry)))
    });
    let (found, next) = page.cut(here)?;
    let shown: Vec<Shown> = found.iter().map(|it| show(&ports, it)).collect::<Result<_, _>>()?;
    Ok(lists::answer(&request, &shown, next.as_deref()))
}

/// `GET /v1/webhooks/events`.
pub async fn types(caller: Caller) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let described = public_events::TYPES.iter().map(|event_type| DescribedEventType {
        event_type: (*event_type).to_owned(),
        description: public_events::words(event_type).unwrap_or_default().to_owned(),
    });
    Ok(HttpResponse::Ok().json(described.collect::<Vec<_>>()))
}

/// The caller's webhook of that id; another workspace's does not exist.
fn find(ports: &Ports, caller: &Caller, text: &str) -> Result<Found, ApiError> {
    let missing = || ApiError::not_found("webhook", text);
    let id: WebhookId = text.parse().map_err(|_| missing())?;
    let entry = ports.routes.webhook(id).ok_or_else(missing)?;
    let details = entry.state.live().ok_or_else(missing)?;
    if details.created.workspace_id == caller.workspace { Ok((id, entry)) } else { Err(missing()) }
}

fn live(found: &Found) -> Result<&Details, ApiError> {
    found.1.state.live().ok_or_else(|| ApiError::not_found("webhook", found.0))
}

fn show(ports: &Ports, found: &Found) -> Result<Shown, ApiError> {
    let details = live(found)?;
    let created = &details.created;
    let counts = lists::view(ports.deliveries.counts(created.workspace_id, found.0))?;
    let now = ports.clock.now();
    let previous =
        details.secrets.iter().filter_map(|secret| secret.until).filter(|until| *until > now).max();
    Ok(Shown {
        id: found.0.to_string(),
        url: created.url.clone(),
        events: created.events.types().to_vec(),
        description: created.description.as_ref().map(|text| text.as_str().to_owned()),
        is_active: details.is_active(),
        disabled_reason: details.disabled.map(word),
        created_at: found.1.created_at.to_string(),
        updated_at: found.1.changed_at.to_string(),
        previous_secret_until: previous.map(|until| until.to_string()),
        deliveries: DeliveryCounts {
            waiting: counts.waiting,
            delivered: counts.delivered,
            dead_lettered: counts.dead_lettered,
        },
    })
}

/// The wire name of a plain enum's value.
fn word(value: impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).expect("plain enums are words");
    value.as_str().expect("plain enums are words").to_owned()
}

/// `GET /v1/webhooks/:id`.
pub async fn get(
    ports: web::Data<Ports>,
    caller: Caller,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let found = find(&ports, &caller, &id)?;
    let shown = show(&ports, &found)?;
    Ok(HttpResponse::Ok().insert_header(("etag", lists::etag(found.1.revision))).json(shown))
}

/// `PATCH /v1/webhooks/:id`.
pub async fn update(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<UpdateWebhook>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (id, entry) = find(&ports, &caller, &id)?;
    let expected = lists::if_match(&request, entry.revision)?;
    let asked = &body.value;
    let changes = Changes {
        url: asked.url.as_deref().map(|text| checked_url(&ports, text)).transpose()?,
        events: asked.events.as_deref().map(filter).transpose()?,
        description: description(asked.description.as_deref())?,
        is_active: asked.is_active,
    };
    let command = Command::Change(Box::new(changes));
    let done = ports.executor.webhook_at(id, caller.who(), expected, command).await?;
    ports.webhooks.follow(id);
    let shown = show(&ports, &find(&ports, &caller, &id.to_string())?)?;
    let mut response = HttpResponse::Ok();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(shown))
}

/// `DELETE /v1/webhooks/:id`: nothing is sent from now on.
pub async fn delete(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (id, entry) = find(&ports, &caller, &id)?;
    let expected = lists::if_match(&request, entry.revision)?;
    let done = ports.executor.webhook_at(id, caller.who(), expected, Command::Delete).await?;
    ports.webhooks.follow(id);
    let mut response = HttpResponse::Ok();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(Success { success: true }))
}

/// `POST /v1/webhooks/:id/rotate-secret`: the former secret signs along for a day.
pub async fn rotate_secret(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    _: Nothing,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (id, _) = find(&ports, &caller, &id)?;
    let seed = idempotency::seed(&ports, &caller, &request, b"").await?;
    let draw = draw_of(&seed, &ports);
    let now = ports.clock.now();
    let command = Command::RotateSecret { draw, now };
    let done = ports.executor.webhook(id, caller.who(), command).await?;
    let found = find(&ports, &caller, &id.to_string())?;
    // What a repetition is told is what was decided the first time.
    let secrets = &live(&found)?.secrets;
    let until = secrets.iter().skip_while(|it| it.draw != draw).skip(1).find_map(|it| it.until);
    let mut response = HttpResponse::Ok();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(WebhookSecretRotated {
        id: id.to_string(),
        secret: ports.webhooks.secret(id, draw).reveal().to_owned(),
        previous_secret_until: until.unwrap_or_else(|| now.plus_ms(SECRET_GRACE_MS)).to_string(),
    }))
}

fn draw_of(seed: &Seed, ports: &Ports) -> Uuid {
    seed.uuid(seed.first_seen().unwrap_or_else(|| ports.clock.now()), "secret")
}

/// `POST /v1/webhooks/:id/test`: sends a message now and says what came of it.
pub async fn test(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    _: Nothing,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let found = find(&ports, &caller, &id)?;
    let seed = idempotency::seed(&ports, &caller, &request, b"").await?;
    let now = seed.first_seen().unwrap_or_else(|| ports.clock.now());
    // A repetition sends the same message again: to the receiver it is one.
    let message = EventId::new(seed.uuid(now, "message"));
    let (reply, latency_ms) = ports.webhooks.test(found.0, live(&found)?, message).await;
    let (status_code, error) = match reply.said {
        Said::Status(status) => (Some(status), None),
        Said::Nothing(problem) => (None, Some(word(problem))),
    };
    Ok(HttpResponse::Ok().json(WebhookTested {
        delivered: is_taken(reply.said),
        message_id: message.to_string(),
        status_code,
        error,
        latency_ms: u64::from(latency_ms),
    }))
}

/// `POST /v1/webhooks/:id/replay`: sends what happened from there on once more.
pub async fn replay(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<ReplayWebhook>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (id, _) = find(&ports, &caller, &id)?;
    let from = match (body.value.from_position, &body.value.since) {
        (Some(0), None) => return Err(ApiError::field("fromPosition", "must be at least 1")),
        (Some(position), None) => From::Position(position),
        (None, Some(text)) => From::Time(text.parse().map_err(|error| ApiError::field("since", error))?),
        (None, None) | (Some(_), Some(_)) => {
            return Err(ApiError::field("fromPosition", "or `since` must be given, and not both"));
        }
    };
    idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let position = match from {
        From::Position(seq) => places::before_seq(&ports.log, caller.workspace, seq).await,
        From::Time(at) => places::before_time(&ports.log, at).await,
    };
    let position = position.map_err(ApiError::internal)?;
    ports.webhooks.replay(id, position).await.map_err(no_courier)?;
    Ok(HttpResponse::Ok().json(Success { success: true }))
}

/// From where somebody wants to have events again.
enum From {
    Position(u64),
    Time(Timestamp),
}

fn no_courier(_: NoCourier) -> ApiError {
    let words =
        "This webhook's courier did not take the order in time; look whether it was done, then try again.";
    ApiError::unavailable("busy", words)
}

/// `GET /v1/webhooks/:id/deliveries?status`, newest first.
pub async fn deliveries(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let (id, _) = find(&ports, &caller, &id)?;
    let parameters = lists::parameters(&request, &["limit", "cursor", "status"])?;
    let page = lists::page(&parameters)?;
    let status = match lists::parameter(&parameters, "status") {
        None => None,
        Some(text) => Some(Status::named(text).ok_or_else(|| {
            ApiError::field("status", "must be of pending, retrying, delivered, dead_lettered")
        })?),
    };
    see_deliveries(&ports).await;
    let found = lists::view(ports.deliveries.list(caller.workspace, id, status, page.of_view()))?;
    let shown: Vec<Delivery> = found.rows.iter().map(|row| delivered(id, row)).collect();
    Ok(lists::answer(&request, &shown, found.next.as_deref()))
}

/// Waits a moment until the delivery log shows what couriers have noted until now.
async fn see_deliveries(ports: &Ports) {
    let head = *ports.log.head().borrow();
    ports.views.wait_for_deliveries(head, lists::VIEWS_PATIENCE).await;
}

/// `GET /v1/webhooks/:id/deliveries/:delivery`.
pub async fn delivery(
    ports: web::Data<Ports>,
    caller: Caller,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let (id, row) = find_delivery(&ports, &caller, &path).await?;
    // It changes by tries, which are no revisions of anything: their number is what there is.
    let tag = lists::etag(u64::from(row.tries));
    Ok(HttpResponse::Ok().insert_header(("etag", tag)).json(delivered(id, &row)))
}

async fn find_delivery(
    ports: &Ports,
    caller: &Caller,
    (webhook, delivery): &(String, String),
) -> Result<(WebhookId, DeliveryRow), ApiError> {
    let (id, _) = find(ports, caller, webhook)?;
    let missing = || ApiError::not_found("delivery", delivery);
    let delivery: DeliveryId = delivery.parse().map_err(|_| missing())?;
    see_deliveries(ports).await;
    let row = lists::view(ports.deliveries.one(caller.workspace, id, delivery))?;
    Ok((id, row.ok_or_else(missing)?))
}

/// `POST /v1/webhooks/:id/deliveries/:delivery/redeliver`: the same message, as a delivery of its own.
pub async fn redeliver(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    _: Nothing,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (id, row) = find_delivery(&ports, &caller, &path).await?;
    let seed = idempotency::seed(&ports, &caller, &request, b"").await?;
    let now = seed.first_seen().unwrap_or_else(|| ports.clock.now());
    let delivery_id = DeliveryId::new(seed.uuid(now, "delivery"));
    let (message_id, event_type) = (row.message_id, row.event_type);
    // A repetition finds the delivery that it made.
    if lists::view(ports.deliveries.one(caller.workspace, id, delivery_id))?.is_none() {
        let again = Again { delivery_id, message_id, event_type, source: row.source };
        ports.webhooks.redeliver(id, again).await.map_err(no_courier)?;
    }
    Ok(HttpResponse::Created().json(Redelivered {
        id: delivery_id.to_string(),
        webhook_id: id.to_string(),
        message_id: message_id.to_string(),
        status: Status::Pending.name().to_owned(),
    }))
}

fn delivered(webhook: WebhookId, row: &DeliveryRow) -> Delivery {
    Delivery {
        id: row.id.to_string(),
        webhook_id: webhook.to_string(),
        sequence: row.sequence,
        message_id: row.message_id.to_string(),
        event_type: row.event_type.clone(),
        status: row.status.name().to_owned(),
        created_at: row.created_at.to_string(),
        attempt_count: row.tries,
        next_attempt_at: row.next_at.map(|at| at.to_string()),
        finished_at: row.done_at.map(|at| at.to_string()),
        gave_up: row.gave_up.map(word),
        attempts: row.attempts.iter().map(attempt).collect(),
    }
}

fn attempt(tried: &TryRow) -> DeliveryAttempt {
    DeliveryAttempt {
        number: tried.number,
        at: tried.at.to_string(),
        status_code: tried.status,
        error: tried.problem.map(word),
        latency_ms: u64::from(tried.latency_ms),
    }
}
