//! One port for everything: the REST API, agents' control connections (both HTTP) and agents' data connections.
//!
//! The first bytes of each connection are looked at without being taken, off the accept loop, under a deadline and
//! with a bound on how many connections may keep the hub waiting. A request line for the data path never reaches the
//! HTTP service; everything else is the HTTP service's from its first byte.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_http::{HttpService, KeepAlive, Protocol, Request, Response, body::MessageBody};
use actix_server::Server;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, fn_factory, fn_service, map_config,
};
use actix_web::dev::AppConfig;
use parking_lot::Mutex;
use rustix::net::{RecvFlags, recv};
use schemas::frames::STREAM_PATH;
use socket2::{SockRef, Socket};
use tokio::{io::Interest, net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Gateway, data};
use wire::side::{prepare, reset};

/// The listener's limits.
#[derive(Debug, Clone)]
pub struct AcceptorSettings {
    /// Threads that serve connections.
    pub workers: usize,
    /// How long a connection may stay silent before its first bytes (milliseconds).
    pub first_bytes_ms_max: u64,
    /// How many connections may be silent at once, over all workers; then the longest silent one is reset.
    pub silent_max: usize,
    /// How long a request's head may take (milliseconds); then 408.
    pub head_timeout_ms: u64,
    /// How long an idle HTTP connection is kept (milliseconds).
    pub keep_alive_ms: u64,
    /// How long a graceful stop waits for running requests (seconds).
    pub shutdown_timeout_s: u64,
    /// How many connections one worker serves at once.
    pub connections_per_worker_max: usize,
}

impl Default for AcceptorSettings {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            first_bytes_ms_max: 10_000,
            silent_max: 4_096,
            head_timeout_ms: 15_000,
            keep_alive_ms: 75_000,
            shutdown_timeout_s: 10,
            connections_per_worker_max: 25_600,
        }
    }
}

/// What a handler can learn of its connection, by `HttpRequest::conn_data`.
pub struct Connection {
    /// The other end of the socket (not of a proxy's own client).
    pub peer: SocketAddr,
    socket: Mutex<Option<Socket>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connection {
    /// A second handle of the connection's socket, to shut it from outside; once only.
    pub fn take_socket(&self) -> Option<Socket> {
        self.socket.lock().take()
    }
}

/// Serves `app` and the gateway's data connections on `listener`. Returns the bound address and the server: a future
/// to be awaited; its `handle().stop(graceful)` ends it. Signals are the caller's.
///
/// `app` builds the application once a worker; it should contain [`super::session::configure`].
///
/// # Errors
/// The listener's.
pub fn serve<F, I, S, B>(
    listener: TcpListener,
    gateway: Gateway,
    settings: AcceptorSettings,
    app: F,
) -> io::Result<(SocketAddr, Server)>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let addr = listener.local_addr()?;
    let builder = Server::build()
        .workers(settings.workers)
        .max_concurrent_connections(settings.connections_per_worker_max)
        .shutdown_timeout(settings.shutdown_timeout_s)
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let silent = Arc::new(Silent::new(settings.silent_max));
    let server = builder
        .listen("api", listener, move || {
            let stopping = stopping.clone();
            let app = app().into_factory().map_err(|error| error.into().error_response());
            let http = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let stopping = stopping.clone();
                    async move { stopping.notified().await }
                })
                .keep_alive(KeepAlive::Timeout(Duration::from_millis(settings.keep_alive_ms)))
                .client_request_timeout(Duration::from_millis(settings.head_timeout_ms))
                .client_disconnect_timeout(Duration::from_secs(1))
                .local_addr(addr)
                .on_connect_ext(|socket: &TcpStream, extensions| {
                    if let Ok(peer) = socket.peer_addr() {
                        let second = SockRef::from(socket).try_clone().ok();
                        extensions.insert(Connection { peer, socket: Mutex::new(second) });
                    }
                })
                .finish(map_config(app, |()| AppConfig::default()));
            let http = Rc::new(http);
            let (gateway, settings, silent) = (gateway.clone(), settings.clone(), Arc::clone(&silent));
            fn_factory(move || {
                let (gateway, settings, silent) = (gateway.clone(), settings.clone(), Arc::clone(&silent));
                let http = http.new_service(());
                async move {
                    let http = Rc::new(http.await?);
                    Ok::<_, ()>(fn_service(move |socket: TcpStream| {
                        let (http, gateway, silent) =
                            (Rc::clone(&http), gateway.clone(), Arc::clone(&silent));
                        let wait = Duration::from_millis(settings.first_bytes_ms_max);
                        async move {
                            prepare(&socket);
                            match look(&socket, &silent, wait).await {
                                Some(First::Data) => data::serve(&gateway, socket.into()).await,
                                Some(First::Http) => {
                                    let peer = socket.peer_addr().ok();
                                    // A broken connection is the client's affair.
                                    let _ = http.call((socket, Protocol::Http1, peer)).await;
                                }
                                None => reset(socket),
                            }
                            Ok::<_, ()>(())
                        }
                    }))
                }
            })
        })?
        .run();
    Ok((addr, server))
}

/// Whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Data,
    Http,
}

/// Looks at a connection's first bytes; `None`: it stayed silent for too long, or longest of too many.
async fn look(socket: &TcpStream, silent: &Silent, wait: Duration) -> Option<First> {
    if let Some(first) = judge(socket, false) {
        return Some(first);
    }
    let place = silent.begin();
    let looking = timeout(wait, async {
        loop {
            // An error shows up again in whoever gets the socket.
            let Ok(ready) = socket.ready(Interest::READABLE).await else { return First::Http };
            // With WouldBlock the runtime waits for the next bytes instead of showing it the same ones at once.
            let judged = socket.try_io(Interest::READABLE, || {
                judge(socket, ready.is_read_closed()).ok_or_else(|| io::ErrorKind::WouldBlock.into())
            });
            if let Ok(first) = judged {
                return first;
            }
        }
    });
    tokio::select! {
        () = place.cut.cancelled() => None,
        looked = looking => looked.ok(),
    }
}

/// Judges by the bytes that are there; `None`: too few to tell, and more may come.
fn judge(socket: &TcpStream, complete: bool) -> Option<First> {
    let line = data_request_line();
    let mut bytes = [0; 32];
    let bytes = &mut bytes[..line.len()];
    match recv(socket, &mut *bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Some(First::Http),
        Ok((_, length)) if bytes[..length] != line.as_bytes()[..length] => Some(First::Http),
        Ok((_, length)) if length == line.len() => Some(First::Data),
        Ok(_) if complete => Some(First::Http),
        Ok(_) => None,
        Err(rustix::io::Errno::AGAIN) => None,
        Err(_) => Some(First::Http),
    }
}

/// How a data connection begins, up to the space after the path.
const fn data_request_line() -> &'static str {
    const LINE: &str = "GET /v1/agents/stream ";
    assert!(LINE.len() == "GET ".len() + STREAM_PATH.len() + 1, "the line is made of the path");
    LINE
}

/// The connections that keep the hub waiting. When there are too many, the one that waited longest is cut: strangers
/// who say nothing must not keep those out who would speak.
#[derive(Debug)]
struct Silent {
    max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    by_age: BTreeMap<u64, CancellationToken>,
}

impl Silent {
    fn new(max: usize) -> Self {
        Self { max, waiting: Mutex::default() }
    }

    fn begin(&self) -> Place<'_> {
        let mut waiting = self.waiting.lock();
        if waiting.by_age.len() >= self.max
            && let Some((_, longest)) = waiting.by_age.pop_first()
        {
            longest.cancel();
        }
        waiting.last += 1;
        let (age, cut) = (waiting.last, CancellationToken::new());
        waiting.by_age.insert(age, cut.clone());
        Place { silent: self, age, cut }
    }
}

/// Among the silent, until dropped.
struct Place<'a> {
    silent: &'a Silent,
    age: u64,
    cut: CancellationToken,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.silent.waiting.lock().by_age.remove(&self.age);
    }
}

#[cfg(test)]
mod tests;
