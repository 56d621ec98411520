//! `GET /v1/events/stream`: events as they happen, as server-sent events.
//!
//! A stream reads on from a position, so nothing is lost between a page and a stream, or between two streams: the id of
//! each event is where to go on. It looks when the audit has moved, and is told nothing by anybody: no reader can hold
//! up another, or the log. One batch of each stream is in memory; whoever takes none for too long is cut.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use dashmap::DashMap;
use domain::{ids::WorkspaceId, workspace::Scope};
use futures_util::stream;
use projections::routes::usable;
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use socket2::Socket;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, sleep, timeout},
};

use super::{Ports, feed, from_position, no_place, readable, see_all, wanted};
use crate::{
    api::{
        caller::{By, Caller},
        error::ApiError,
        lists,
    },
    event_forms,
    feed::{Batch, Feed, Place},
    gateway::acceptor::Connection,
};

/// How many streams a workspace may have open: a dashboard in some browsers, and some programs.
pub const STREAMS_OF_WORKSPACE_MAX: usize = 32;
/// How many streams all workspaces may have open together: each may hold a batch in memory.
pub const STREAMS_MAX: usize = 256;
/// How many events are written at once.
const BATCH: usize = 100;
/// A stream ends by itself after this, and its client comes again: also a way to look at credentials anew.
const STAY_S_MAX: u64 = 3_600;
/// A line without meaning, so that proxies and clients see that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Whoever takes nothing for so long is cut; for less, where visitors of shares may stall for less.
const STALL_MAX: Duration = Duration::from_secs(30);
/// How often a stream looks whether it may go on, when nothing happens.
const TICK: Duration = Duration::from_millis(500);
/// What comes in quick succession is written together.
const GATHER: Duration = Duration::from_millis(20);
/// When a client should come again (milliseconds).
const RETRY_MS: u32 = 2_000;

/// Room for streams: none can keep the others out.
#[derive(Debug)]
pub struct Streams {
    all: Arc<Semaphore>,
    of_workspace: DashMap<WorkspaceId, Arc<Semaphore>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(STREAMS_MAX)), of_workspace: DashMap::new() }
    }
}

type Room = [OwnedSemaphorePermit; 2];

impl Streams {
    /// How many there are now.
    pub fn open(&self) -> usize {
        STREAMS_MAX - self.all.available_permits()
    }

    /// A place, until it is dropped.
    fn take(&self, workspace: WorkspaceId) -> Result<Room, ApiError> {
        let own = Arc::clone(
            &self
                .of_workspace
                .entry(workspace)
                .or_insert_with(|| Arc::new(Semaphore::new(STREAMS_OF_WORKSPACE_MAX))),
        );
        let full = |_| {
            ApiError::unavailable(
                "too_many_streams",
                "Too many event streams at once; close one, or ask for pages of `/v1/events`.",
            )
        };
        let own = own.try_acquire_owned().map_err(full)?;
        Ok([own, Arc::clone(&self.all).try_acquire_owned().map_err(full)?])
    }
}

/// `GET /v1/events/stream?types&fromPosition&maxSeconds`, `Last-Event-ID`.
pub async fn stream(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let parameters = lists::parameters(&request, &["types", "fromPosition", "maxSeconds"])?;
    let stay_s = match lists::parameter(&parameters, "maxSeconds") {
        None => STAY_S_MAX,
        Some(text) => text
            .parse()
            .ok()
            .filter(|seconds| *seconds <= STAY_S_MAX)
            .ok_or_else(|| ApiError::field("maxSeconds", "must be a number from 0 to 3600"))?,
    };
    let feed = feed(&ports, &caller, wanted(&parameters)?);
    see_all(&ports).await;
    let last = request.headers().get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let place = match last.filter(|text| !text.is_empty()) {
        // A client that comes again: what it has seen counts, whatever its URL says.
        Some(text) => {
            let place = Place::behind(text, &feed.wanted);
            let place = place.ok_or_else(|| no_place("Last-Event-ID", &feed.wanted))?;
            readable(&feed, &place, "Last-Event-ID").await?;
            place
        }
        None if lists::parameter(&parameters, "fromPosition").is_some() => {
            from_position(&feed, &parameters).await?
        }
        None => feed.end().await?,
    };
    let room = ports.event_streams.take(caller.workspace)?;
    let (out, written) = mpsc::channel(1);
    let follow = Follow {
        audited: ports.views.audited(),
        deadline: Instant::now() + Duration::from_secs(stay_s),
        socket: request.conn_data::<Connection>().and_then(Connection::second_socket),
        ports,
        caller,
        feed,
        place,
        out,
        _room: room,
    };
    actix_rt::spawn(follow.run());
    let written = stream::unfold(written, |mut written| async move {
        let bytes: Bytes = written.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), written))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        // nginx would gather what should be sent at once.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(written))
}

/// One stream, on a task of its own.
struct Follow {
    ports: web::Data<Ports>,
    caller: Caller,
    feed: Feed,
    place: Place,
    audited: watch::Receiver<u64>,
    deadline: Instant,
    out: mpsc::Sender<Bytes>,
    /// To shut a connection whose other end reads nothing: nothing else would notice.
    socket: Option<Socket>,
    _room: Room,
}

impl Follow {
    async fn run(mut self) {
        let mut text = format!("retry: {RETRY_MS}\n\n");
        let mut told = Instant::now();
        loop {
            if told.elapsed() >= HEARTBEAT {
                text.push_str(": still here\n\n");
            }
            if !text.is_empty() {
                if !self.tell(std::mem::take(&mut text)).await {
                    return;
                }
                told = Instant::now();
            }
            if !self.may_go_on() || self.has_left() {
                return;
            }
            // Seen before it is read: what comes meanwhile wakes again.
            self.audited.borrow_and_update();
            let batch = match self.feed.next(&mut self.place, BATCH).await {
                Ok(batch) => batch,
                Err(error) => {
                    return tracing::warn!(%error, "an event stream ended: its events cannot be read");
                }
            };
            text = written(&batch);
            if batch.more || !text.is_empty() {
                continue;
            }
            if Instant::now() >= self.deadline {
                return;
            }
            tokio::select! {
                () = self.out.closed() => return,
                () = sleep(TICK) => {}
                changed = self.audited.changed() => match changed {
                    Ok(()) => sleep(GATHER).await,
                    // The views have stopped, and the hub with them.
                    Err(_) => return,
                }
            }
        }
    }

    /// Hands over what was written; `false` when nobody is there to take it.
    async fn tell(&self, text: String) -> bool {
        let stall = Duration::from_millis(self.ports.settings.visitor_stall_ms).min(STALL_MAX);
        match timeout(stall, self.out.send(Bytes::from(text))).await {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                tracing::info!(workspace = %self.caller.workspace, "an event stream that nobody reads is cut");
                if let Some(socket) = &self.socket {
                    // One that is closed already needs no closing.
                    drop(socket.shutdown(std::net::Shutdown::Both));
                }
                false
            }
        }
    }

    /// Whether the other end has closed its side: a client that wants no more. The server would notice only when it writes.
    fn has_left(&self) -> bool {
        let Some(socket) = &self.socket else { return false };
        match recv(socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, length)) => length == 0,
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => true,
        }
    }

    /// Whether the hub stays and the key is still good.
    fn may_go_on(&self) -> bool {
        if self.ports.draining.load(std::sync::atomic::Ordering::SeqCst) {
            return false;
        }
        let By::Key { id, .. } = &self.caller.by else { return false };
        let now = self.ports.clock.now();
        let workspace = self.ports.routes.workspace(self.caller.workspace);
        workspace.is_some_and(|entry| entry.state.keys.get(id).is_some_and(|key| usable(key, now)))
    }
}

/// A batch as server-sent events; the id is where to go on behind each.
fn written(batch: &Batch) -> String {
    use std::fmt::Write as _;
    batch.events.iter().fold(String::new(), |mut text, (recorded, behind)| {
        let data = serde_json::to_string(&event_forms::event(recorded)).expect("events are plain data");
        let (id, name) = (behind.last_seen(), &recorded.event_type);
        write!(text, "id: {id}\nevent: {name}\ndata: {data}\n\n").expect("writing to a string");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_has_room_for_some_streams_and_takes_none_from_others() {
        let streams = Streams::default();
        let workspace = |n| WorkspaceId::new(uuid::Uuid::from_u128(n));
        let mut held: Vec<_> =
            (0..STREAMS_OF_WORKSPACE_MAX).map(|_| streams.take(workspace(1)).unwrap()).collect();
        assert_eq!(streams.take(workspace(1)).unwrap_err().code, "too_many_streams");
        let mut number = 2;
        while let Ok(room) = streams.take(workspace(number)) {
            held.push(room);
            number += 1;
        }
        assert_eq!(held.len(), STREAMS_MAX);
        held.clear();
        assert!(streams.take(workspace(1)).is_ok());
    }
}
