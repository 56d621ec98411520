//! HTTP/2 connections to one share's target, for gRPC: few, and shared by many requests.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http2::{Builder, SendRequest},
    },
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::{conn::Tick, metrics::OpenUpstream, server::HEAD_BYTES_MAX, upload::Upload};
use crate::streams::Stream;

/// A connection takes so many requests before another one is opened, or fewer if the target says so.
const REQUESTS_EACH: usize = 100;
/// Connections of one share on one core; beyond that requests wait for each other.
const CONNECTIONS_MAX: usize = 4;
/// What a target may send ahead of the visitor's reading, per request and per connection (bytes).
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What waits in memory for the target to take it, per request (bytes).
const SEND_BYTES_MAX: usize = 64 * 1024;

/// One share's connections on one core.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: RefCell<Vec<Rc<Connection>>>,
    /// Whoever opens one: others wait and share it.
    pub(super) opening: tokio::sync::Mutex<()>,
}

impl Connections {
    /// A place on an open connection, if one has room or there may be no more.
    pub(super) fn lease(&self) -> Option<Lease> {
        let mut open = self.open.borrow_mut();
        open.retain(|connection| !connection.sender.is_closed());
        let emptiest = open.iter().min_by_key(|connection| connection.requests.get())?;
        let room = REQUESTS_EACH.min(emptiest.room.get());
        let fits = emptiest.requests.get() < room || open.len() >= CONNECTIONS_MAX;
        fits.then(|| Lease::new(emptiest))
    }

    /// Begins to speak HTTP/2 on a stream to the target.
    ///
    /// # Errors
    /// The stream is broken.
    pub(super) async fn begin(&self, stream: Stream, open: OpenUpstream) -> hyper::Result<Lease> {
        let tasks = Tasks::default();
        let (sender, connection) = Builder::new(tasks.clone())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BYTES_MAX)
            .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(stream))
            .await?;
        let room = Rc::new(Cell::new(REQUESTS_EACH));
        let told = Rc::clone(&room);
        tasks.execute(async move {
            let mut connection = std::pin::pin!(connection);
            std::future::poll_fn(|cx| {
                told.set(connection.current_max_send_streams());
                // The requests that were under way have the same error.
                connection.as_mut().poll(cx).map(|_| ())
            })
            .await;
        });
        let (requests, idle_since) = (Cell::new(0), Cell::new(None));
        let connection = Rc::new(Connection { sender, requests, room, idle_since, tasks, open });
        self.open.borrow_mut().push(Rc::clone(&connection));
        Ok(Lease::new(&connection))
    }

    /// Takes no more requests on what is open.
    pub(super) fn end(&self) {
        self.open.borrow_mut().clear();
    }

    /// Closes what was unused for too long; how many are unused.
    pub(super) fn sweep(&self, now: Tick, kept_for: Tick) -> usize {
        let mut open = self.open.borrow_mut();
        open.retain(|connection| !connection.sender.is_closed() && !connection.is_stale(now, kept_for));
        open.iter().filter(|connection| connection.requests.get() == 0).count()
    }
}

/// Closed with the last that holds it: the connections of its share, and the requests under way.
struct Connection {
    sender: SendRequest<Upload>,
    requests: Cell<usize>,
    /// What the target takes at a time, as it said when last looked at.
    room: Rc<Cell<usize>>,
    idle_since: Cell<Option<Tick>>,
    tasks: Tasks,
    #[expect(dead_code, reason = "kept for its drop")]
    open: OpenUpstream,
}

impl Connection {
    fn is_stale(&self, now: Tick, kept_for: Tick) -> bool {
        if self.requests.get() > 0 {
            self.idle_since.set(None);
            return false;
        }
        let since = self.idle_since.get().unwrap_or(now);
        self.idle_since.set(Some(since));
        now.wrapping_sub(since) >= kept_for
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.0.borrow_mut().abort_all();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("requests", &self.requests.get()).finish_non_exhaustive()
    }
}

/// A request's place on a connection.
#[derive(Debug)]
pub(super) struct Lease(Rc<Connection>);

impl Lease {
    fn new(connection: &Rc<Connection>) -> Self {
        connection.requests.set(connection.requests.get() + 1);
        Self(Rc::clone(connection))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The connection's, or the target's refusal of this one request; with the request where it was not sent.
    pub(super) async fn send(
        &self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        self.0.sender.clone().try_send_request(request).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get() - 1);
    }
}

/// What hyper runs for one connection, on this core.
#[derive(Debug, Clone, Default)]
struct Tasks(Rc<RefCell<JoinSet<()>>>);

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        let mut tasks = self.0.borrow_mut();
        // Forgets the ended ones.
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(task);
    }
}
