//! Who came through a share: the list with its filters, what the accesses have in common, and all of them as a file.
//!
//! Every answer first waits until everything that was answered to visitors before is shown.

use std::{io, sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use bytes::Bytes;
use dashmap::DashMap;
use domain::{
    access::{METHOD_BYTES_MAX, PATH_BYTES_MAX},
    ids::{ShareId, WorkspaceId},
    time::Timestamp,
    workspace::Scope,
};
use futures_util::{Stream, stream};
use projections::access_log::{AccessFilter, AccessLogReader, AccessPage, AccessStats, Top};
use schemas::rest::{self, AccessLog, access_logs as shown};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{Ports, caller::Caller, error::ApiError, lists, present, shares};
use crate::keyring::Keyring;

mod csv;

/// How many questions about all accesses of its shares a workspace may have running: each keeps one thread busy.
pub const READINGS_MAX: usize = 4;
/// How long a short question waits for a place.
const PLACE_PATIENCE: Duration = Duration::from_secs(5);
/// How many accesses statistics count, the newest: about two seconds of work.
const STATS_ACCESSES_MAX: u64 = 500_000;
/// How many pages of the log statistics read: an odd filter makes many of them empty.
const STATS_PAGES_MAX: usize = 200;
/// How many paths and addresses are shown.
const TOP_MAX: usize = 100;
/// How many accesses are in memory at once while all are read.
const CHUNK: usize = 1_000;
/// The longest export: a client that reads slower than that begins anew with `until`.
const EXPORT_PATIENCE: Duration = Duration::from_secs(3_600);

/// Room for questions that read a share's whole log, by workspace: none can keep the others waiting.
#[derive(Debug, Default)]
pub struct Readings(DashMap<WorkspaceId, Arc<Semaphore>>);

impl Readings {
    /// A place as soon as there is one.
    pub(super) async fn wait(&self, workspace: WorkspaceId) -> Result<OwnedSemaphorePermit, ApiError> {
        let room =
            Arc::clone(&self.0.entry(workspace).or_insert_with(|| Arc::new(Semaphore::new(READINGS_MAX))));
        let place = tokio::time::timeout(PLACE_PATIENCE, room.acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or_else(too_many)
    }

    /// A place, until it is dropped.
    pub(super) fn take(&self, workspace: WorkspaceId) -> Result<OwnedSemaphorePermit, ApiError> {
        let room =
            Arc::clone(&self.0.entry(workspace).or_insert_with(|| Arc::new(Semaphore::new(READINGS_MAX))));
        room.try_acquire_owned().map_err(|_| too_many())
    }
}

fn too_many() -> ApiError {
    ApiError::unavailable(
        "too_many_readings",
        "Too many exports and statistics of this workspace at once; wait for one to end.",
    )
}

/// How long a question waits for the view when it is behind: an auditor would rather wait than miss the last accesses.
const SHOWN_PATIENCE: Duration = Duration::from_secs(10);

const FILTERS: [&str; 6] = ["since", "until", "status", "method", "ip", "path"];

/// A question to the log of one share, with what reading it takes.
#[derive(Clone)]
struct Question {
    reader: AccessLogReader,
    keyring: Arc<Keyring>,
    workspace: WorkspaceId,
    share: ShareId,
    filter: Arc<AccessFilter>,
}

impl Question {
    fn page(&self, limit: usize, cursor: Option<&str>) -> Result<AccessPage, ApiError> {
        let open =
            |workspace, share, sealed: &[u8]| self.keyring.open_personal(workspace, Some(share), sealed);
        lists::view(self.reader.accesses(self.workspace, self.share, &self.filter, limit, cursor, &open))
    }
}

async fn ask(
    ports: &Ports,
    caller: &Caller,
    share: &str,
    parameters: &[(String, String)],
) -> Result<Question, ApiError> {
    let (share, _) = shares::find(ports, caller, share)?;
    let filter = Arc::new(filter(parameters)?);
    let position = ports.recorder.flushed().await;
    ports.views.wait_for_accesses(position, SHOWN_PATIENCE).await;
    let (reader, keyring) = (ports.accesses.clone(), Arc::clone(&ports.keyring));
    Ok(Question { reader, keyring, workspace: caller.workspace, share, filter })
}

/// Waits a moment until the access view shows everything that was answered before now: for lists that only count.
pub(super) async fn see_accesses(ports: &Ports) {
    let position = ports.recorder.flushed().await;
    ports.views.wait_for_accesses(position, lists::VIEWS_PATIENCE).await;
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    web::block(work).await.map_err(ApiError::internal)?
}

/// `GET /v1/shares/:id/logs`: newest first.
pub async fn list(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let parameters = lists::parameters(&request, &[FILTERS.as_slice(), &["limit", "cursor"]].concat())?;
    let page = lists::page(&parameters)?;
    let question = ask(&ports, &caller, &id, &parameters).await?;
    let found = blocking(move || question.page(page.limit, page.cursor.as_deref())).await?;
    let logs = found.rows.iter().map(present::access).collect();
    Ok(lists::answer(&request, &AccessLog { logs }, found.next.as_deref()))
}

/// `GET /v1/shares/:id/logs/stats`.
pub async fn stats(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let parameters = lists::parameters(&request, &FILTERS)?;
    let question = ask(&ports, &caller, &id, &parameters).await?;
    let place = ports.readings.take(caller.workspace)?;
    let share = question.share;
    let (stats, complete) = blocking(move || {
        let _place = place;
        count(&question)
    })
    .await?;
    Ok(HttpResponse::Ok().json(show(share, &stats, complete)))
}

/// Counts, newest first, as far as the limits go; whether that was all.
fn count(question: &Question) -> Result<(AccessStats, bool), ApiError> {
    let (mut stats, mut rows, mut cursor) = (AccessStats::default(), 0, None);
    for _ in 0..STATS_PAGES_MAX {
        let page = question.page(CHUNK * 10, cursor.as_deref())?;
        for row in &page.rows {
            stats.add(row);
        }
        rows += u64::try_from(page.rows.len()).unwrap_or(u64::MAX);
        cursor = page.next;
        if cursor.is_none() || rows >= STATS_ACCESSES_MAX {
            break;
        }
    }
    Ok((stats, cursor.is_none()))
}

fn show(share: ShareId, stats: &AccessStats, complete: bool) -> shown::AccessStats {
    let Top { most: paths, others: other_paths } = stats.top_paths(TOP_MAX);
    let Top { most: addresses, others: other_ips } = stats.top_addresses(TOP_MAX);
    shown::AccessStats {
        share_id: share.to_string(),
        first_accessed_at: stats.span.map(|(first, _)| first.to_string()),
        last_accessed_at: stats.span.map(|(_, last)| last.to_string()),
        complete,
        accesses: stats.accesses,
        denied: stats.denied,
        erased: stats.erased,
        bytes_in: stats.bytes_in,
        bytes_out: stats.bytes_out,
        by_status: stats.by_status.iter().map(|(status, count)| (status.to_string(), *count)).collect(),
        by_path: paths.into_iter().map(|(path, count)| shown::PathCount { path, count }).collect(),
        other_paths,
        by_ip: addresses
            .into_iter()
            .map(|(ip_address, count)| shown::AddressCount { ip_address, count })
            .collect(),
        other_ips,
        by_hour: stats
            .by_hour
            .iter()
            .map(|(hour, count)| shown::HourCount { hour: hour.to_string(), count: *count })
            .collect(),
        latency_ms: shown::Percentiles {
            p50: stats.latency_ms(50),
            p95: stats.latency_ms(95),
            p99: stats.latency_ms(99),
        },
    }
}

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Ndjson,
    Csv,
}

impl Format {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }
    const fn extension(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }
    const fn head(self) -> &'static str {
        match self {
            Self::Ndjson => "",
            Self::Csv => csv::HEAD,
        }
    }
    fn line(self, entry: &rest::AccessEntry) -> String {
        match self {
            Self::Ndjson => {
                let mut line = serde_json::to_string(entry).expect("entries are plain data");
                line.push('\n');
                line
            }
            Self::Csv => csv::line(entry),
        }
    }
}

/// `GET /v1/shares/:id/logs/export?format=ndjson|csv`: all that the filters select, newest first, as it is read.
pub async fn export(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let parameters = lists::parameters(&request, &[FILTERS.as_slice(), &["format"]].concat())?;
    let format = match lists::parameter(&parameters, "format") {
        None | Some("ndjson") => Format::Ndjson,
        Some("csv") => Format::Csv,
        Some(_) => return Err(ApiError::field("format", "must be ndjson or csv")),
    };
    let question = ask(&ports, &caller, &id, &parameters).await?;
    let place = ports.readings.take(caller.workspace)?;
    let name = format!("attachment; filename=\"{}.{}\"", question.share, format.extension());
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, format.media_type()))
        .insert_header((header::CONTENT_DISPOSITION, name))
        .streaming(written(question, format, place)))
}

/// An export on its way.
struct Export {
    question: Question,
    format: Format,
    deadline: Instant,
    next: Next,
    _place: OwnedSemaphorePermit,
}

enum Next {
    First,
    After(String),
    Nothing,
}

/// Reads as fast as the client does: one chunk is in memory. An error ends the answer without its end mark, so that the
/// client sees that something is missing.
fn written(
    question: Question,
    format: Format,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = io::Result<Bytes>> {
    let deadline = Instant::now() + EXPORT_PATIENCE;
    let export = Export { question, format, deadline, next: Next::First, _place: place };
    stream::try_unfold(export, |mut export| async move {
        let (head, cursor) = match export.next {
            Next::First => (export.format.head(), None),
            Next::After(cursor) => ("", Some(cursor)),
            Next::Nothing => return Ok(None),
        };
        if Instant::now() >= export.deadline {
            return Err(io::Error::other("the export took too long"));
        }
        let question = export.question.clone();
        let page = blocking(move || question.page(CHUNK, cursor.as_deref()));
        let page = page.await.map_err(|error| io::Error::other(error.to_string()))?;
        let mut text = head.to_owned();
        for row in &page.rows {
            text.push_str(&export.format.line(&present::access(row)));
        }
        export.next = page.next.map_or(Next::Nothing, Next::After);
        Ok(Some((Bytes::from(text), export)))
    })
}

fn filter(parameters: &[(String, String)]) -> Result<AccessFilter, ApiError> {
    let moment = |name: &str| match lists::parameter(parameters, name) {
        None => Ok(None),
        Some(text) => text.parse::<Timestamp>().map(Some).map_err(|error| ApiError::field(name, error)),
    };
    let checked = |name: &str, holds: fn(&str) -> bool, rule: &str| match lists::parameter(parameters, name) {
        None => Ok(None),
        Some(text) if holds(text) => Ok(Some(text.to_owned())),
        Some(_) => Err(ApiError::field(name, rule)),
    };
    let ip = match lists::parameter(parameters, "ip") {
        None => None,
        Some(text) => {
            let ip: std::net::IpAddr =
                text.parse().map_err(|_| ApiError::field("ip", "must be an IP address"))?;
            // As the edge records it: an IPv4 address is one, however the socket shows it.
            Some(ip.to_canonical().to_string())
        }
    };
    Ok(AccessFilter {
        since: moment("since")?,
        until: moment("until")?,
        status: lists::parameter(parameters, "status").map(statuses).transpose()?,
        method: checked("method", is_method, "must be a method, such as GET")?,
        ip,
        // Characters, since that is what a description can say; more bytes than that are in no record.
        path: checked(
            "path",
            |text| (1..=PATH_BYTES_MAX).contains(&text.chars().count()),
            "must be 1-1024 characters",
        )?,
    })
}

/// `404`, or `4xx` for all of a class.
fn statuses(text: &str) -> Result<(u16, u16), ApiError> {
    let is_short = text.len() == 3;
    let class = text.strip_suffix("xx").filter(|_| is_short).and_then(|class| class.parse::<u16>().ok());
    if let Some(class) = class.filter(|class| (1..=5).contains(class)) {
        return Ok((class * 100, class * 100 + 99));
    }
    let status = text.parse::<u16>().ok().filter(|status| is_short && (100..=599).contains(status));
    let status = status.ok_or_else(|| ApiError::field("status", "must be a status code, or 1xx to 5xx"))?;
    Ok((status, status))
}

fn is_method(text: &str) -> bool {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=METHOD_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_code_or_a_class() {
        assert_eq!(statuses("404").unwrap(), (404, 404));
        assert_eq!(statuses("4xx").unwrap(), (400, 499));
        for text in ["", "x", "99", "600", "0xx", "6xx", "xx", "+4xx", "+404", "4XX"] {
            assert!(statuses(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_workspace_has_room_for_a_few_readings_and_takes_none_from_others() {
        let readings = Readings::default();
        let workspace = |n| WorkspaceId::new(uuid::Uuid::from_u128(n));
        let held: Vec<_> = (0..READINGS_MAX).map(|_| readings.take(workspace(1)).unwrap()).collect();
        assert_eq!(readings.take(workspace(1)).unwrap_err().code, "too_many_readings");
        assert!(readings.take(workspace(2)).is_ok());
        drop(held);
        assert!(readings.take(workspace(1)).is_ok());
    }
}
