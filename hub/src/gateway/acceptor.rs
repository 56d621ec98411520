//! One port for everything: the REST API, agents' control connections (both HTTP) and agents' data connections.
//!
//! The first bytes of each connection are looked at without being taken, off the accept loop, under a deadline and
//! with a bound on how many connections may keep the hub waiting. A request line for the data path never reaches the
//! HTTP service; everything else is the HTTP service's from its first byte. With TLS the handshake comes before, under
//! the same deadline and bound, and the decrypted bytes are looked at in the same way; where API and edge share one
//! address, a client that asks for one of the edge's names is handed to the edge untouched.

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
use tokio_util::{either::Either, sync::CancellationToken};

use super::{Gateway, data};
use wire::{
    side::{Carrier, prepare, reset},
    tls::{self as wire_tls, Encrypted},
};

use crate::tls::{
    Speaker,
    acme::ACME_TLS,
    hello::{Asked, EdgeNames, HANDSHAKE, HELLO_BYTES_MAX, asked},
    plain::{self, Listener},
};

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

/// How the listener speaks.
#[derive(Clone, Default)]
pub enum Speech {
    /// In the clear.
    #[default]
    Plain,
    Tls(Arc<Speaker>),
    /// TLS, on an address that is the edge's as well: its names, and who takes its connections.
    Shared(Arc<Speaker>, EdgeNames, HandOver),
}

impl Speech {
    /// For a listener with or without TLS, on an address of its own or one that it shares with the edge.
    pub fn of(speaker: Option<&Arc<Speaker>>, shared: Option<EdgeNames>, hand_over: HandOver) -> Self {
        match (speaker.cloned(), shared) {
            (None, _) => Self::Plain,
            (Some(speaker), None) => Self::Tls(speaker),
            (Some(speaker), Some(names)) => Self::Shared(speaker, names, hand_over),
        }
    }
}

/// Takes a connection of the edge's, of which nothing was read.
pub type HandOver = Arc<dyn Fn(std::net::TcpStream) + Send + Sync>;

/// What a handler can learn of its connection, by `HttpRequest::conn_data`.
pub struct Connection {
    /// The other end of the socket (not of a proxy's own client).
    pub peer: SocketAddr,
    /// The name that the client asked for in its TLS handshake, in lower case.
    pub server_name: Option<String>,
    socket: Mutex<Option<Socket>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connection {
    /// Another handle of the connection's socket, to shut it from outside.
    pub fn second_socket(&self) -> Option<Socket> {
        self.socket.lock().as_ref().and_then(|socket| socket.try_clone().ok())
    }

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
    settings: &AcceptorSettings,
    speech: Speech,
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
    let settings = settings.clone();
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
                .on_connect_ext(|front: &Front, extensions| {
                    let (socket, server_name) = match front {
                        Either::Left(plain) => (Some(plain), None),
                        Either::Right(encrypted) => (encrypted.tcp(), encrypted.server_name()),
                    };
                    if let Some(socket) = socket
                        && let Ok(peer) = socket.peer_addr()
                    {
                        let second = Mutex::new(SockRef::from(socket).try_clone().ok());
                        let server_name = server_name.map(str::to_owned);
                        extensions.insert(Connection { peer, server_name, socket: second });
                    }
                })
                .finish(map_config(app, |()| AppConfig::default()));
            let http = Rc::new(http);
            let door = Rc::new(Door {
                speech: speech.clone(),
                silent: Arc::clone(&silent),
                wait: Duration::from_millis(settings.first_bytes_ms_max),
            });
            let gateway = gateway.clone();
            fn_factory(move || {
                let (gateway, door, http) = (gateway.clone(), Rc::clone(&door), http.new_service(()));
                async move {
                    let http = Rc::new(http.await?);
                    Ok::<_, ()>(fn_service(move |socket: TcpStream| {
                        let (http, gateway, door) = (Rc::clone(&http), gateway.clone(), Rc::clone(&door));
                        async move {
                            prepare(&socket);
                            let peer = socket.peer_addr().ok();
                            match door.open(socket).await {
                                Some(Opened::Data(carrier)) => data::serve(&gateway, carrier).await,
                                Some(Opened::Http(front)) => {
                                    // A broken connection is the client's affair.
                                    let _ = http.call((front, Protocol::Http1, peer)).await;
                                }
                                None => {}
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

/// A connection as the application sees it: plain, or encrypted.
type Front = Either<TcpStream, Box<Encrypted>>;

/// Whose a connection is.
enum Opened {
    Data(Carrier),
    Http(Front),
}

/// Finds out whose a connection is.
struct Door {
    speech: Speech,
    silent: Arc<Silent>,
    wait: Duration,
}

impl Door {
    /// `None`: it was somebody else's, or it stayed silent for too long, or longest of too many.
    async fn open(&self, socket: TcpStream) -> Option<Opened> {
        match &self.speech {
            Speech::Plain => match self.look(&socket, judge_request).await {
                Some(First::Data) => Some(Opened::Data(socket.into())),
                Some(First::Http) => Some(Opened::Http(Either::Left(socket))),
                None => {
                    reset(socket);
                    None
                }
            },
            Speech::Tls(speaker) => match self.look(&socket, judge_greeting).await {
                Some(Greeting::Tls) => self.encrypt(socket, speaker).await,
                other => self.turn_away(socket, other).await,
            },
            Speech::Shared(speaker, names, hand_over) => match self.look(&socket, judge_name).await {
                Some(Named::Tls(Some(name))) if names.is_edges(&name) => {
                    // A socket that is lost on the way was broken before.
                    if let Ok(socket) = socket.into_std() {
                        hand_over(socket);
                    }
                    None
                }
                Some(Named::Tls(_)) => self.encrypt(socket, speaker).await,
                Some(Named::Plain) => self.turn_away(socket, Some(Greeting::Plain)).await,
                None => self.turn_away(socket, None).await,
            },
        }
    }

    /// Waits for bytes that `judge` can judge; `None`: they did not come in time.
    async fn look<T>(
        &self,
        socket: &TcpStream,
        judge: impl Fn(&TcpStream, Further) -> Option<T>,
    ) -> Option<T> {
        if let Some(judged) = judge(socket, Further::MayCome) {
            return Some(judged);
        }
        let judged = self.in_time(async {
            loop {
                // An error shows up again in whoever gets the socket.
                let Ok(ready) = socket.ready(Interest::READABLE).await else {
                    return judge(socket, Further::Nothing);
                };
                let further = if ready.is_read_closed() { Further::Nothing } else { Further::MayCome };
                // With WouldBlock the runtime waits for the next bytes instead of showing it the same ones at once.
                let judged = socket.try_io(Interest::READABLE, || {
                    judge(socket, further).ok_or_else(|| io::ErrorKind::WouldBlock.into())
                });
                if let Ok(judged) = judged {
                    return Some(judged);
                }
            }
        });
        judged.await.flatten()
    }

    /// Something that a client keeps the hub waiting for.
    async fn in_time<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let place = self.silent.begin();
        tokio::select! {
            () = place.cut.cancelled() => None,
            came = timeout(self.wait, waiting) => came.ok(),
        }
    }

    async fn turn_away(&self, socket: TcpStream, greeting: Option<Greeting>) -> Option<Opened> {
        match greeting {
            // Nothing was said that could be answered.
            None => reset(socket),
            Some(_) => {
                let told = plain::turn_away(socket, Listener::Api, self.wait);
                self.in_time(told).await;
            }
        }
        None
    }

    /// Shakes hands, and looks at what is said first.
    async fn encrypt(&self, socket: TcpStream, speaker: &Speaker) -> Option<Opened> {
        let opening = self.in_time(async {
            let mut encrypted = wire_tls::accept(Arc::clone(&speaker.config), socket).await?;
            let line = data_request_line().as_bytes();
            let goes_on = |bytes: &[u8]| bytes.len() < line.len() && line.starts_with(bytes);
            let is_data = encrypted.look(line.len(), goes_on).await?.starts_with(line);
            Ok::<(Encrypted, bool), io::Error>((encrypted, is_data))
        });
        match opening.await {
            // An authority has seen what it wanted to see.
            Some(Ok((encrypted, _))) if encrypted.alpn() == Some(ACME_TLS) => None,
            Some(Ok((encrypted, true))) => Some(Opened::Data(Carrier::Wrapped(Box::new(encrypted)))),
            Some(Ok((encrypted, false))) => Some(Opened::Http(Either::Right(Box::new(encrypted)))),
            Some(Err(error)) => {
                tracing::debug!(%error, "a TLS connection was not made");
                speaker.failed();
                None
            }
            None => {
                speaker.failed();
                None
            }
        }
    }
}

/// Whether the client may say more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Further {
    MayCome,
    Nothing,
}

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Data,
    Http,
}

/// How a client begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greeting {
    Tls,
    Plain,
}

/// The same, and for whom it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Tls(Option<String>),
    Plain,
}

/// Judges a request by the bytes that are there; `None`: too few to tell, and more may come.
fn judge_request(socket: &TcpStream, further: Further) -> Option<First> {
    let line = data_request_line();
    let mut bytes = [0; 32];
    let bytes = &mut bytes[..line.len()];
    match recv(socket, &mut *bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Some(First::Http),
        Ok((_, length)) if bytes[..length] != line.as_bytes()[..length] => Some(First::Http),
        Ok((_, length)) if length == line.len() => Some(First::Data),
        Ok(_) if further == Further::Nothing => Some(First::Http),
        Ok(_) => None,
        Err(rustix::io::Errno::AGAIN) => None,
        Err(_) => Some(First::Http),
    }
}

fn judge_greeting(socket: &TcpStream, _: Further) -> Option<Greeting> {
    let mut first = [0; 1];
    match recv(socket, &mut first, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 1)) if first == [HANDSHAKE] => Some(Greeting::Tls),
        Err(rustix::io::Errno::AGAIN) => None,
        Ok(_) | Err(_) => Some(Greeting::Plain),
    }
}

fn judge_name(socket: &TcpStream, further: Further) -> Option<Named> {
    match judge_greeting(socket, further)? {
        Greeting::Plain => return Some(Named::Plain),
        Greeting::Tls => {}
    }
    let mut hello = vec![0; HELLO_BYTES_MAX];
    let length = match recv(socket, &mut hello, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, length)) => length,
        Err(_) => return Some(Named::Tls(None)),
    };
    match asked(&hello[..length]) {
        Asked::Name(name) => Some(Named::Tls(name)),
        Asked::More if further == Further::Nothing => Some(Named::Tls(None)),
        Asked::More => None,
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
