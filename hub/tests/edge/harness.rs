//! An edge on a port of its own before a target that the test plays itself, byte by byte.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use domain::{
    access::{self, Access, Completion, Visitor},
    agent::{self, AgentRegistered, Token},
    event::Event,
    ids::{AgentId, EventId, ShareId, TunnelId, WorkspaceId},
    names::Name,
    policy::{methods::Method, paths::PathRule},
    recorded::{Actor, Personal, Recorded, StreamName},
    share::{self, ShareCreated},
    target::{Protocol, Target as Address},
    tunnel::{self, TunnelCreated},
};
use futures_util::future::BoxFuture;
use hub::{
    clock::{Clock as _, SetClock},
    edge::{
        Edge, EdgeDeps, EdgeOptions, PublicRequest,
        recorder::{Recorder, RecorderDeps, RecorderOptions},
    },
    event_log::memory::Memory,
    limits::Limiter,
    running::Running,
    secrets::sha256,
    streams::{OpenError, Stream, Streams},
};
use projections::{
    catalog::{FormerShare, ShareKey},
    routes::Routes,
};
use schemas::frames::StreamKind;
use uuid::Uuid;

/// Nothing in these tests takes longer unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const TOKEN: &str = "share_tok_TheTokenOfTheShareUnderTest";
pub(crate) const SLUG: &str = "abcd2345efgh";

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never happened: {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn workspace() -> WorkspaceId {
    WorkspaceId::new(Uuid::from_u128(1))
}
pub(crate) fn agent_id() -> AgentId {
    AgentId::new(Uuid::from_u128(2))
}
pub(crate) fn tunnel_id() -> TunnelId {
    TunnelId::new(Uuid::from_u128(3))
}
pub(crate) fn share_id() -> ShareId {
    ShareId::new(Uuid::from_u128(4))
}

/// Streams that go straight to the target.
#[derive(Debug)]
pub(crate) struct Straight {
    target: SocketAddr,
    pub(crate) is_connected: AtomicBool,
    pub(crate) opened: AtomicUsize,
    /// Of these, for HTTP/2.
    pub(crate) opened_http2: AtomicUsize,
}

impl Streams for Straight {
    fn open<'a>(
        &'a self,
        _: AgentId,
        _: TunnelId,
        kind: StreamKind,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Stream, OpenError>> {
        assert!(matches!(kind, StreamKind::Http | StreamKind::Http2), "{kind:?}");
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.opened_http2.fetch_add(usize::from(kind == StreamKind::Http2), Ordering::SeqCst);
        Box::pin(async {
            tokio::net::TcpStream::connect(self.target)
                .await
                .map(|socket| {
                    wire::side::prepare(&socket);
                    Stream::from(socket)
                })
                .map_err(|error| OpenError::TargetUnreachable(error.to_string()))
        })
    }

    fn is_connected(&self, _: AgentId) -> bool {
        self.is_connected.load(Ordering::SeqCst)
    }
}

/// The target: a thread for each connection runs the test's script.
pub(crate) fn target(script: impl Fn(Conn) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    std::thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let script = Arc::clone(&script);
            std::thread::spawn(move || script(Conn::new(socket)));
        }
    });
    address
}

/// A target that answers every request on a connection with what `answer` makes of it.
pub(crate) fn answering(answer: impl Fn(&Head, Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    target(move |mut conn| {
        while let Some(head) = conn.try_head() {
            let body = conn.request_body(&head);
            conn.send(answer(&head, body));
        }
    })
}

/// The simplest answer.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// What a connection runs on.
#[derive(Debug)]
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Wire {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref(),
        }
    }
}

impl std::io::Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl std::io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// One end of a connection that speaks HTTP/1 by hand.
#[derive(Debug)]
pub(crate) struct Conn(BufReader<Wire>);

impl Conn {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self::on(Wire::Plain(socket))
    }

    pub(crate) fn on(wire: Wire) -> Self {
        wire.tcp().set_read_timeout(Some(PATIENCE)).unwrap();
        wire.tcp().set_nodelay(true).unwrap();
        Self(BufReader::new(wire))
    }

    pub(crate) fn to(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    /// A target whose visitor left may find that it cannot say everything.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.get_mut().write_all(bytes.as_ref());
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        self.0.get_ref().tcp()
    }

    pub(crate) fn finish(&self) {
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).unwrap_or(0);
        String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()
    }

    pub(crate) fn try_head(&mut self) -> Option<Head> {
        let first = self.line();
        if first.is_empty() {
            return None;
        }
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return Some(Head { first, lines });
            }
            let (name, value) = line.split_once(':').unwrap();
            lines.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    pub(crate) fn head(&mut self) -> Head {
        self.try_head().expect("a head")
    }

    pub(crate) fn exactly(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes);
        bytes
    }

    /// What still comes up to an end in order.
    pub(crate) fn rest_or_break(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).map(|_| bytes)
    }

    /// Whether the other side has ended, by a close or a reset, before any more bytes came.
    pub(crate) fn is_over(&mut self) -> bool {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(read) => read == 0,
            Err(error) => {
                !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
            }
        }
    }

    /// Whether the other side has ended without a goodbye.
    pub(crate) fn is_reset(&mut self) -> bool {
        self.0.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    }

    /// Reads on until the other side has ended.
    pub(crate) fn until_over(&mut self) {
        let mut buffer = [0; 4096];
        while matches!(self.0.read(&mut buffer), Ok(1..)) {}
    }

    /// Chunks and the trailers behind them.
    pub(crate) fn chunked(&mut self) -> (Vec<Vec<u8>>, Vec<(String, String)>) {
        let mut chunks = Vec::new();
        loop {
            let chunk = self.chunk();
            if chunk.is_empty() {
                break;
            }
            chunks.push(chunk);
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(':') else { return (chunks, trailers) };
            trailers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// One chunk; the last one is empty.
    pub(crate) fn chunk(&mut self) -> Vec<u8> {
        let len = usize::from_str_radix(&self.line(), 16).expect("a chunk's length");
        let chunk = self.exactly(len);
        if len > 0 {
            assert_eq!(self.line(), "");
        }
        chunk
    }

    pub(crate) fn request_body(&mut self, head: &Head) -> Vec<u8> {
        if head.get("transfer-encoding").is_some() {
            return self.chunked().0.concat();
        }
        let len = head.get("content-length").map_or(0, |len| len.parse().unwrap());
        self.exactly(len)
    }

    pub(crate) fn response_body(&mut self, head: &Head) -> Vec<u8> {
        if head.get("transfer-encoding").is_some() {
            return self.chunked().0.concat();
        }
        match head.get("content-length") {
            Some(len) => self.exactly(len.parse().unwrap()),
            None => self.rest(),
        }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        let head = self.head();
        let body = self.response_body(&head);
        Answer { head, body }
    }
}

/// A request line or status line, and the headers in their order.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) first: String,
    pub(crate) lines: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.lines.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.lines.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }
    pub(crate) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).unwrap().parse().unwrap()
    }
    pub(crate) fn path(&self) -> &str {
        self.first.split(' ').nth(1).unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// The code of a problem.
    pub(crate) fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).expect("a problem");
        assert_eq!(problem["statusCode"], self.status());
        assert_eq!(problem["requestId"].as_str(), self.head.get("x-request-id"));
        problem["code"].as_str().unwrap().to_owned()
    }
}

/// How a rig differs from the usual one.
pub(crate) struct Setup {
    pub(crate) edge: EdgeOptions,
    pub(crate) recorder: RecorderOptions,
    pub(crate) share: ShareCreated,
    pub(crate) protocol: Protocol,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            edge: EdgeOptions { threads: 1, limit_share_per_min: 0, ..EdgeOptions::default() },
            recorder: RecorderOptions { access_flush_ms: 1, ..RecorderOptions::default() },
            share: ShareCreated {
                share_id: share_id(),
                workspace_id: workspace(),
                tunnel_id: tunnel_id(),
                name: Name::parse("Shop <b>preview</b>").unwrap(),
                description: None,
                expires_at: None,
                allowed_paths: None,
                allowed_methods: None,
                rate_limit_per_min: None,
                slug: SLUG.to_owned(),
                slug_chosen: false,
                public: false,
                read_only: true,
                token_hash: hub::secrets::hex(&sha256(TOKEN.as_bytes())),
                token_preview: "share_tok_The".to_owned(),
            },
            protocol: Protocol::Http,
        }
    }
}

impl Setup {
    pub(crate) fn paths(mut self, rules: &[&str]) -> Self {
        self.share.allowed_paths = Some(rules.iter().map(|rule| PathRule::parse(rule).unwrap()).collect());
        self
    }
    pub(crate) fn methods(mut self, methods: &[Method]) -> Self {
        self.share.allowed_methods = Some(methods.to_vec());
        self
    }
}

/// Everything around the edge under test.
pub(crate) struct Rig {
    pub(crate) edge: Edge,
    pub(crate) log: Arc<Memory>,
    pub(crate) recorder: Recorder,
    pub(crate) routes: Arc<Routes>,
    pub(crate) running: Arc<Running>,
    pub(crate) streams: Arc<Straight>,
    pub(crate) clock: Arc<SetClock>,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    pub(crate) fn new(target: SocketAddr) -> Self {
        Self::with(target, Setup::default())
    }

    pub(crate) fn with(target: SocketAddr, setup: Setup) -> Self {
        let clock = SetClock::at("2026-03-02T10:00:00.000Z".parse().unwrap());
        let log = Arc::new(Memory::new());
        let routes = Arc::new(Routes::default());
        let running = Arc::new(Running::default());
        let is_connected = AtomicBool::new(true);
        let streams = Arc::new(Straight {
            target,
            is_connected,
            opened: AtomicUsize::new(0),
            opened_http2: AtomicUsize::new(0),
        });
        let recorder = Recorder::start(
            setup.recorder,
            RecorderDeps {
                log: Arc::clone(&log) as _,
                // Not sealed, so that a test can read it.
                sealer: Arc::new(|_, _, _, text| Ok(text.as_bytes().into())),
                clock: Arc::clone(&clock) as _,
                boot: Uuid::from_u128(9),
            },
        )
        .unwrap();
        let deps = EdgeDeps {
            routes: Arc::clone(&routes),
            streams: Arc::clone(&streams) as _,
            running: Arc::clone(&running),
            recorder: recorder.clone(),
            limiter: Arc::new(Limiter::default()),
            clock: Arc::clone(&clock) as _,
            former: Arc::new(|key| Box::pin(async move { former(&key) })),
            public: Arc::new(|request: PublicRequest| {
                Box::pin(async move {
                    let PublicRequest { place, method, token, body, .. } = request;
                    let text = format!("{place:?} {method} {token} {}", body.len());
                    http::Response::new(Bytes::from(text))
                })
            }),
        };
        let edge = hub::edge::start(setup.edge, deps).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let rig = Self { edge, log, recorder, routes, running, streams, clock, runtime };
        rig.expose(target, setup.protocol);
        rig.apply(StreamName::share(share_id()), 1, &Event::Share(share::Event::Created(setup.share)));
        rig
    }

    fn expose(&self, target: SocketAddr, protocol: Protocol) {
        let name = Name::parse("alice").unwrap();
        let token = Token {
            token_hash: "00".repeat(32),
            key_id: None,
            expires_at: self.clock.now().plus_ms(1_000_000_000),
        };
        let registered = AgentRegistered {
            agent_id: agent_id(),
            workspace_id: workspace(),
            label: name.clone(),
            name,
            client_type: None,
            ephemeral: false,
            token,
        };
        self.apply(StreamName::agent(agent_id()), 1, &Event::Agent(agent::Event::Registered(registered)));
        let created = TunnelCreated {
            tunnel_id: tunnel_id(),
            workspace_id: workspace(),
            agent_id: agent_id(),
            name: Name::parse("shop").unwrap(),
            target: Address { host: target.ip().to_string(), port: target.port() },
            protocol,
            is_public: false,
            tunnel_port: 10_000,
            expires_at: None,
        };
        self.apply(StreamName::tunnel(tunnel_id()), 1, &Event::Tunnel(tunnel::Event::Created(created)));
    }

    /// Lets `Routes` know of an event, as the executor does.
    pub(crate) fn apply(&self, stream: StreamName, revision: u64, event: &Event) {
        let encoded = event.encode();
        let recorded = Recorded {
            position: revision,
            seq: revision,
            stream,
            revision,
            id: EventId::new(Uuid::new_v4()),
            event_type: encoded.event_type.into(),
            version: encoded.version,
            recorded_at: self.clock.now(),
            workspace: workspace(),
            actor: Actor::System("test".to_owned()),
            causation: None,
            correlation: None,
            data: encoded.data.into(),
            personal: Personal::None,
        };
        self.routes.apply(&recorded, event);
    }

    pub(crate) fn apply_to_share(&self, event: share::Event) {
        self.apply(StreamName::share(share_id()), 2, &Event::Share(event));
    }

    pub(crate) fn apply_to_tunnel(&self, event: tunnel::Event) {
        self.apply(StreamName::tunnel(tunnel_id()), 2, &Event::Tunnel(event));
    }

    pub(crate) fn visitor(&self) -> Conn {
        Conn::to(self.edge.local_addr)
    }

    /// The share's own host name.
    pub(crate) fn host(&self) -> String {
        format!("{SLUG}.localhost:{}", self.edge.local_addr.port())
    }

    /// A request on the share's own host, with more header lines (each ended by CRLF) and a body.
    pub(crate) fn request(&self, line: &str, more: &str, body: &str) -> String {
        format!("{line} HTTP/1.1\r\nHost: {}\r\n{more}\r\n{body}", self.host())
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_with(path, "")
    }

    pub(crate) fn get_with(&self, path: &str, more: &str) -> Answer {
        self.visitor().ask(self.request(&format!("GET {path}"), more, ""))
    }

    /// A request on the bare host.
    pub(crate) fn bare(&self, line: &str, more: &str) -> Answer {
        self.visitor().ask(format!("{line} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", self.edge.local_addr))
    }

    pub(crate) fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await }).expect("in time")
    }

    /// Every access in the log, with its visitor, and the completions.
    pub(crate) fn accesses(&self) -> (Vec<(Access, Visitor)>, Vec<Completion>) {
        self.block_on(self.recorder.flushed());
        let (mut accesses, mut completions) = (Vec::new(), Vec::new());
        for recorded in self.log.events() {
            let Event::Access(access::Event::Accessed(accessed)) = recorded.event().unwrap() else {
                panic!()
            };
            assert_eq!(accessed.share_id, share_id());
            assert_eq!(accessed.tunnel_id, tunnel_id());
            let visitors: Vec<Visitor> = match recorded.personal {
                Personal::Sealed(text) => serde_json::from_slice(&text).unwrap(),
                Personal::None | Personal::Open(_) | Personal::Erased => Vec::new(),
            };
            assert_eq!(visitors.len(), accessed.accesses.len());
            accesses.extend(accessed.accesses.into_iter().zip(visitors));
            completions.extend(accessed.completions);
        }
        (accesses, completions)
    }

    /// Waits until there are so many accesses, and makes sure that there are no more.
    pub(crate) fn records(&self, count: usize) -> Vec<(Access, Visitor)> {
        eventually("the records are there", || self.accesses().0.len() >= count);
        let accesses = self.accesses().0;
        assert_eq!(accesses.len(), count, "{accesses:#?}");
        accesses
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.runtime.block_on(async {
            self.edge.drain(Duration::ZERO).await;
            self.recorder.close().await;
        });
    }
}

/// The catalog's part: a share that expired long ago, known by the token and by the slug `former`.
fn former(key: &ShareKey) -> Option<FormerShare> {
    let ours = [ShareKey::Token(hub::secrets::sha256(b"former")), ShareKey::Slug("former".to_owned())];
    let share = FormerShare {
        workspace: workspace(),
        id: share_id(),
        tunnel_id: tunnel_id(),
        denied: domain::access::Denied::ShareExpired,
    };
    ours.contains(key).then_some(share)
}
