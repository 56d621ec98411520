//! `/v1/events`: what was recorded in the workspace, in the order of the log, from any position on: page by page, as one
//! file, or as it happens ([`streaming`]).

use std::{io, sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, http::header, web};
use bytes::Bytes;
use domain::{recorded::Recorded, time::Timestamp, workspace::Scope};
use futures_util::{Stream, stream};
use schemas::rest::audit::EventPage;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{Ports, audit::event_type, caller::Caller, error::ApiError, lists};
use crate::{
    event_forms,
    feed::{Elsewhere, Feed, FeedError, Place, Wanted},
};

pub mod streaming;

/// How many types one question may name.
const TYPES_MAX: usize = 50;
/// How many events of an export are in memory at once.
const CHUNK: usize = 500;
/// The longest export: a client that reads slower than that goes on from the last position that it has.
const EXPORT_PATIENCE: Duration = Duration::from_secs(3_600);

/// Waits a moment until the audit shows everything that was recorded before now.
pub(super) async fn see_all(ports: &Ports) {
    let head = *ports.log.head().borrow();
    ports.views.wait_for_audit(head, lists::VIEWS_PATIENCE).await;
}

/// The events of the caller's workspace.
pub(super) fn feed(ports: &Ports, caller: &Caller, wanted: Wanted) -> Feed {
    Feed {
        audit: ports.views.audit(),
        log: ports.log.clone(),
        keyring: Arc::clone(&ports.keyring),
        workspace: caller.workspace,
        wanted: Arc::new(wanted),
    }
}

impl From<FeedError> for ApiError {
    fn from(error: FeedError) -> Self {
        Self::internal(error)
    }
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Ndjson,
    CloudEvents,
}

impl Format {
    /// What the question says, or else what its `Accept` names first.
    fn of(request: &HttpRequest, parameters: &[(String, String)]) -> Result<Self, ApiError> {
        match lists::parameter(parameters, "format") {
            Some("json") => Ok(Self::Json),
            Some("ndjson") => Ok(Self::Ndjson),
            Some("cloudevents") => Ok(Self::CloudEvents),
            Some(_) => Err(ApiError::field("format", "must be json, ndjson or cloudevents")),
            None => {
                let accept = request.headers().get(header::ACCEPT);
                let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
                let named = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
                let known = named.filter_map(|name| match name {
                    "application/json" => Some(Self::Json),
                    "application/x-ndjson" => Some(Self::Ndjson),
                    "application/cloudevents-batch+json" => Some(Self::CloudEvents),
                    _ => None,
                });
                Ok(known.into_iter().next().unwrap_or(Self::Json))
            }
        }
    }

    /// A line of an export.
    fn line(self, recorded: &Recorded) -> String {
        let mut line = match self {
            Self::Json | Self::Ndjson => serde_json::to_string(&event_forms::event(recorded)),
            Self::CloudEvents => serde_json::to_string(&event_forms::cloud_event(recorded)),
        }
        .expect("events are plain data");
        line.push('\n');
        line
    }
}

/// Which events a question is about.
///
/// # Errors
/// 400 for what is no list of types.
fn wanted(parameters: &[(String, String)]) -> Result<Wanted, ApiError> {
    let Some(text) = lists::parameter(parameters, "types") else { return Ok(Wanted::of(Vec::new())) };
    let types = text.split(',').map(|name| event_type("types", name)).collect::<Result<Vec<_>, _>>()?;
    if types.len() > TYPES_MAX {
        return Err(ApiError::field("types", format_args!("must be at most {TYPES_MAX}")));
    }
    Ok(Wanted::of(types))
}

/// Checks that one can read on from a place that a caller named.
///
/// # Errors
/// 410 where history was retired, 400 where nothing can be yet.
async fn readable(feed: &Feed, place: &Place, field: &str) -> Result<(), ApiError> {
    match feed.look_at(place).await? {
        None => Ok(()),
        Some(Elsewhere::Retired { first }) => Err(retired(first)),
        Some(Elsewhere::Beyond { last }) => {
            let words = format_args!("lies beyond the last event, which has the position {last}");
            Err(ApiError::field(field, words))
        }
    }
}

pub(super) fn retired(first: u64) -> ApiError {
    let words =
        format!("What was recorded there was retired; the first event still there has the position {first}.");
    ApiError::new(StatusCode::GONE, "history_retired", words)
}

fn no_place(field: &str, wanted: &Wanted) -> ApiError {
    match wanted.families() {
        [_] => ApiError::field(field, "must be a number from 1"),
        _ => ApiError::field(
            field,
            "must be two numbers with a hyphen, of facts and of accesses, as an earlier answer gave them",
        ),
    }
}

/// Where a question begins: at the position that it names, or at the first event there is.
async fn from_position(feed: &Feed, parameters: &[(String, String)]) -> Result<Place, ApiError> {
    let Some(text) = lists::parameter(parameters, "fromPosition") else { return Ok(feed.first().await?) };
    let place = Place::before(text, &feed.wanted).ok_or_else(|| no_place("fromPosition", &feed.wanted))?;
    readable(feed, &place, "fromPosition").await?;
    Ok(place)
}

/// `GET /v1/events?fromPosition&types&limit&format`.
pub async fn page(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let parameters = lists::parameters(&request, &["fromPosition", "types", "limit", "format"])?;
    let format = Format::of(&request, &parameters)?;
    let limit = lists::page(&parameters)?.limit;
    let feed = feed(&ports, &caller, wanted(&parameters)?);
    see_all(&ports).await;
    let mut place = from_position(&feed, &parameters).await?;
    let batch = feed.next(&mut place, limit).await?;
    let mut response = HttpResponse::Ok();
    if batch.more {
        let kept = request.query_string().split('&');
        let kept = kept.filter(|pair| !pair.is_empty() && !pair.starts_with("fromPosition="));
        let query: Vec<String> =
            kept.map(str::to_owned).chain([format!("fromPosition={}", place.next())]).collect();
        let link = format!("<{}?{}>; rel=\"next\"", request.path(), query.join("&"));
        response.insert_header((header::LINK, link));
    }
    let events = batch.events.iter().map(|(recorded, _)| recorded);
    Ok(match format {
        Format::Json => {
            let events = events.map(event_forms::event).collect();
            response.json(EventPage { events, next_position: place.next() })
        }
        Format::Ndjson => {
            let lines: String = events.map(|recorded| format.line(recorded)).collect();
            response.content_type("application/x-ndjson").body(lines)
        }
        Format::CloudEvents => {
            let events: Vec<_> = events.map(event_forms::cloud_event).collect();
            let text = serde_json::to_string(&events).expect("events are plain data");
            response.content_type("application/cloudevents-batch+json").body(text)
        }
    })
}

/// `GET /v1/events/export?format&types&since&until`: all of them, as they are read.
pub async fn export(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let parameters = lists::parameters(&request, &["fromPosition", "types", "format", "since", "until"])?;
    let format = match lists::parameter(&parameters, "format") {
        None | Some("ndjson") => Format::Ndjson,
        Some("cloudevents") => Format::CloudEvents,
        Some(_) => return Err(ApiError::field("format", "must be ndjson or cloudevents")),
    };
    let moment = |name: &str| match lists::parameter(&parameters, name) {
        None => Ok(None),
        Some(text) => text.parse::<Timestamp>().map(Some).map_err(|error| ApiError::field(name, error)),
    };
    let (since, until) = (moment("since")?, moment("until")?);
    let feed = feed(&ports, &caller, wanted(&parameters)?);
    see_all(&ports).await;
    let mut place = from_position(&feed, &parameters).await?;
    if let Some(since) = since {
        place.skip_to(&feed.before(since).await?);
    }
    let reading = ports.readings.take(caller.workspace)?;
    let name = format!("attachment; filename=\"{}.{}.ndjson\"", caller.workspace, "events");
    let export = Export {
        // What comes while it is read is not waited for.
        end: feed.end().await?,
        feed,
        format,
        until,
        place,
        deadline: Instant::now() + EXPORT_PATIENCE,
        is_done: false,
        _reading: reading,
    };
    Ok(HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .insert_header((header::CONTENT_DISPOSITION, name))
        .streaming(export.written()))
}

/// An export on its way.
struct Export {
    feed: Feed,
    format: Format,
    until: Option<Timestamp>,
    place: Place,
    end: Place,
    deadline: Instant,
    is_done: bool,
    _reading: OwnedSemaphorePermit,
}

impl Export {
    /// Reads as fast as the client does: one chunk is in memory. An error ends the answer without its end mark, so that
    /// the client sees that something is missing.
    fn written(self) -> impl Stream<Item = io::Result<Bytes>> {
        stream::try_unfold(self, |mut export| async move {
            if export.is_done {
                return Ok(None);
            }
            if Instant::now() >= export.deadline {
                return Err(io::Error::other("the export took too long"));
            }
            let text = export.chunk().await.map_err(|error| io::Error::other(error.to_string()))?;
            Ok(Some((Bytes::from(text), export)))
        })
    }

    async fn chunk(&mut self) -> Result<String, FeedError> {
        let batch = self.feed.next(&mut self.place, CHUNK).await?;
        self.is_done = !batch.more;
        let mut text = String::new();
        for (recorded, behind) in &batch.events {
            let is_late = self.until.is_some_and(|until| recorded.recorded_at > until);
            if is_late || behind.is_beyond(&self.end) {
                self.is_done = true;
                break;
            }
            text.push_str(&self.format.line(recorded));
        }
        Ok(text)
    }
}
