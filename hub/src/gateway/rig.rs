//! A hub's gateway in one process for tests: log in memory, real sockets, real agents, and agents that misbehave.

use std::{
    net::{SocketAddr, TcpListener as PlainListener},
    sync::Arc,
    time::Duration,
};

use actix_server::ServerHandle;
use actix_web::{App, HttpRequest, web};
use agent_cli::agent::{AgentHandle, AgentOptions, AgentStatus, TokenCell};
use domain::{
    agent::{self, AgentRegistered, Token},
    event::Event,
    ids::{AgentId, KeyId, TunnelId, WorkspaceId},
    names::Name,
    recorded::Families,
    target::{Protocol, Target},
    time::Timestamp,
    tunnel::{self, Condition, TunnelCreated},
    workspace::{self, KeyCreated, Scope, WorkspaceCreated},
};
use futures_util::{SinkExt as _, StreamExt as _};
use projections::routes::Routes;
use schemas::frames::{Frame, Hello, PROTOCOL, SESSION_PATH, SUBPROTOCOL, Welcome};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::header},
};
use uuid::Uuid;

use super::{
    Gateway, GatewaySettings, Parts,
    acceptor::{self, AcceptorSettings, Connection, Speech},
    session,
};
use crate::{
    actors::{Executor, Who, aggregate::Deps},
    clock::{SharedClock, SystemClock},
    creation::{Creator, PortPool},
    event_log::{EventLog as _, memory::Memory},
    running::Running,
    secrets::{Secret, SecretKind, Seed},
    tunnel_ports::{TunnelPortSettings, TunnelPorts},
};

/// Everything in these tests happens within this, or it does not happen.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Runs a test on an actix system with a hub.
pub(crate) fn with_hub(settings: GatewaySettings, test: impl AsyncFnOnce(&Rig)) {
    actix_rt::System::new().block_on(async {
        let rig = Rig::start(settings, AcceptorSettings { workers: 1, ..AcceptorSettings::default() }).await;
        timeout(SOON * 3, test(&rig)).await.expect("the test ends");
        rig.ports.close();
        assert!(rig.gateway.stop(SOON).await, "a task of the gateway did not end");
        rig.server.stop(false).await;
    });
}

/// Times that let a test see silence without waiting for it.
pub(crate) fn hasty() -> GatewaySettings {
    GatewaySettings {
        heartbeat_ms: 100,
        silence_ms_max: 600,
        takeover_ms_max: 300,
        goodbye_ms_max: 50,
        ..GatewaySettings::default()
    }
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("it never came: {what}"));
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("within the deadline")
}

/// The hub.
pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) ports: TunnelPorts,
    pub(crate) executor: Executor,
    pub(crate) log: Arc<Memory>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) running: Arc<Running>,
    pub(crate) api: SocketAddr,
    pub(crate) scheme: &'static str,
    /// What its agents believe.
    pub(crate) believing: rustls::ClientConfig,
    pub(crate) server: ServerHandle,
}

/// An agent that the hub knows.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) id: AgentId,
    pub(crate) workspace: WorkspaceId,
    pub(crate) token: Secret,
}

impl Rig {
    pub(crate) async fn start(settings: GatewaySettings, acceptor: AcceptorSettings) -> Self {
        Self::speaking(settings, acceptor, Speech::Plain).await
    }

    /// The same for a hub that speaks otherwise; its agents believe nobody yet.
    pub(crate) async fn speaking(
        settings: GatewaySettings,
        acceptor: AcceptorSettings,
        speech: Speech,
    ) -> Self {
        let scheme = if matches!(speech, Speech::Plain) { "http" } else { "https" };
        let log = Arc::new(Memory::new());
        let (routes, running) = (Arc::new(Routes::default()), Arc::new(Running::default()));
        let clock: SharedClock = Arc::new(SystemClock);
        let deps =
            Deps { log: Arc::clone(&log) as _, routes: Arc::clone(&routes), clock: Arc::clone(&clock) };
        let executor = Executor::new(Arc::new(deps), vec![actix_rt::Arbiter::new().handle()]);
        let tunnel_ports =
            PortPool::new(free_port()..=u16::MAX, std::net::Ipv4Addr::LOCALHOST.into(), std::iter::empty());
        let creator = Creator::new(executor.clone(), Arc::clone(&routes), Arc::clone(&clock), tunnel_ports);
        let gateway = Gateway::start(Parts {
            routes: Arc::clone(&routes),
            executor: executor.clone(),
            creator: Arc::new(creator),
            running: Arc::clone(&running),
            usage: Arc::new(crate::usage::Usage::new(clock.clone())),
            clock,
            node: "test".to_owned(),
            boot: Uuid::new_v4(),
            hub_version: "0".to_owned(),
            runtime: tokio::runtime::Handle::current(),
            settings,
        })
        .unwrap();
        let listener = PlainListener::bind("127.0.0.1:0").unwrap();
        let app = {
            let gateway = gateway.clone();
            move || {
                App::new().configure(session::configure(gateway.clone())).route("/peer", web::get().to(peer))
            }
        };
        let (api, server) = acceptor::serve(listener, gateway.clone(), &acceptor, speech, app).unwrap();
        let handle = server.handle();
        actix_rt::spawn(server);
        let ports = TunnelPorts::new(gateway.clone(), TunnelPortSettings::default());
        Self {
            gateway,
            ports,
            executor,
            log,
            routes,
            running,
            api,
            scheme,
            believing: wire::tls::trust::nobody(),
            server: handle,
        }
    }

    /// A workspace with a key.
    pub(crate) async fn workspace(&self) -> (WorkspaceId, KeyId) {
        let (workspace, key_id) = (WorkspaceId::new(Uuid::now_v7()), KeyId::new(Uuid::now_v7()));
        let who = Who::hub(workspace, "test");
        let created = WorkspaceCreated { workspace_id: workspace, name: Name::parse("w").unwrap() };
        self.executor.workspace(workspace, who.clone(), workspace::Command::Create(created)).await.unwrap();
        // The first one is there so that the other may be revoked.
        for id in [KeyId::new(Uuid::now_v7()), key_id] {
            let secret = Seed::random().secret(SecretKind::ApiKey, "key");
            let key = KeyCreated {
                key_id: id,
                name: Name::parse("k").unwrap(),
                scopes: vec![Scope::Admin],
                key_hash: secret.digest_hex(),
                prefix: secret.preview(),
                allowed_ip_ranges: vec![],
                expires_at: None,
            };
            let command = workspace::Command::CreateKey { key, now: Timestamp::from_millis(0) };
            self.executor.workspace(workspace, who.clone(), command).await.unwrap();
        }
        (workspace, key_id)
    }

    /// An agent of a workspace, not connected.
    pub(crate) async fn agent(&self, (workspace, key): (WorkspaceId, KeyId)) -> Known {
        let id = AgentId::new(Uuid::now_v7());
        let token = Seed::random().secret(SecretKind::AgentToken, "token");
        let agent = AgentRegistered {
            agent_id: id,
            workspace_id: workspace,
            label: Name::parse("label").unwrap(),
            name: Name::parse("name").unwrap(),
            client_type: None,
            ephemeral: false,
            token: Token {
                token_hash: token.digest_hex(),
                expires_at: Timestamp::from_millis(4_102_444_800_000),
                key_id: Some(key),
            },
        };
        let takeover = agent::Takeover::Any;
        let command = agent::Command::Register { agent, now: Timestamp::from_millis(0), takeover };
        self.executor.agent(id, Who::hub(workspace, "test"), command).await.unwrap();
        Known { id, workspace, token }
    }

    /// An agent of a workspace of its own.
    pub(crate) async fn lone_agent(&self) -> Known {
        let workspace = self.workspace().await;
        self.agent(workspace).await
    }

    /// Another agent of the same workspace.
    pub(crate) async fn agent_beside(&self, agent: &Known) -> Known {
        let workspace = self.routes.workspace(agent.workspace).unwrap();
        let key = workspace.state.keys.keys().next().copied().unwrap();
        self.agent((agent.workspace, key)).await
    }

    /// Runs the real agent, up to its first session.
    pub(crate) async fn run(&self, known: &Known) -> AgentHandle {
        let handle = agent_cli::agent::start(self.options(known));
        connected(&handle).await;
        handle
    }

    pub(crate) fn options(&self, known: &Known) -> AgentOptions {
        AgentOptions {
            hub_url: format!("{}://{}", self.scheme, self.api),
            believing: self.believing.clone(),
            agent_id: known.id.to_string(),
            token: TokenCell::new(known.token.reveal()),
            host_name: "a-machine".to_owned(),
            instance: Uuid::new_v4(),
            agent_version: "1.2.3".to_owned(),
            allow_loopback: true,
            udp_idle_ms: agent_cli::agent::UDP_IDLE_MS,
            identity: wire::sealed::handshake::Identity::generate(),
            known: Arc::new(agent_cli::agent::trust::InMemory::default()),
            remembers: None,
        }
    }

    /// A tunnel to a port of this machine, told to its agent; its port on the hub is `hub_port`.
    pub(crate) async fn tunnel(&self, agent: &Known, to: SocketAddr) -> Opened {
        self.tunnel_of(agent, Protocol::Tcp, to.ip().to_string(), to.port()).await
    }

    /// The same for any protocol and host.
    pub(crate) async fn tunnel_of(
        &self,
        agent: &Known,
        protocol: Protocol,
        host: String,
        to_port: u16,
    ) -> Opened {
        let id = TunnelId::new(Uuid::now_v7());
        let port = free_port();
        let tunnel = TunnelCreated {
            tunnel_id: id,
            workspace_id: agent.workspace,
            agent_id: agent.id,
            name: Name::parse("service").unwrap(),
            target: Target { host, port: to_port },
            protocol,
            is_public: false,
            tunnel_port: port,
            expires_at: None,
        };
        self.tell(agent, id, tunnel::Command::Create { tunnel, now: Timestamp::from_millis(0) }).await;
        self.gateway.assign(id);
        Opened { id, at: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// A tunnel that works.
    pub(crate) async fn working_tunnel(&self, agent: &Known, to: SocketAddr) -> Opened {
        let opened = self.tunnel(agent, to).await;
        self.working(opened).await
    }

    /// Waits until a tunnel works.
    pub(crate) async fn working(&self, opened: Opened) -> Opened {
        let condition = self.gateway.wait_state(opened.id, SOON).await;
        assert!(matches!(condition, Some(Condition::Connected(_))), "{condition:?}");
        self.ports.try_sync(opened.id).unwrap();
        opened
    }

    pub(crate) async fn tell(&self, agent: &Known, tunnel: TunnelId, command: tunnel::Command) {
        self.executor.tunnel(tunnel, Who::hub(agent.workspace, "test"), command).await.unwrap();
    }

    /// The types of all events of a tunnel or agent, oldest first.
    pub(crate) async fn facts_of(&self, id: impl ToString) -> Vec<String> {
        let id = id.to_string();
        let events = self.log.read_all(0, Families::ALL, 10_000).await.unwrap();
        let events = events.iter().filter(|event| event.stream.as_str().ends_with(&id));
        events.map(|event| event.event_type.to_string()).collect()
    }

    /// The last event of an agent.
    pub(crate) async fn last_of(&self, agent: AgentId) -> Event {
        let events = self.log.read_all(0, Families::ALL, 10_000).await.unwrap();
        let last = events.iter().rfind(|event| event.stream.as_str().ends_with(&agent.to_string()));
        last.unwrap().event().unwrap()
    }
}

/// A tunnel and its port on the hub.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) id: TunnelId,
    pub(crate) at: SocketAddr,
}

/// A port that nobody has at this moment; the gateway binds it by number, as tunnels' ports are kept.
fn free_port() -> u16 {
    PlainListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What the example application answers: where the connection comes from.
async fn peer(request: HttpRequest) -> String {
    request.conn_data::<Connection>().map(|connection| connection.peer.to_string()).unwrap_or_default()
}

pub(crate) async fn connected(handle: &AgentHandle) -> u64 {
    let mut status = handle.status();
    let status =
        soon(status.wait_for(|status| matches!(status, AgentStatus::Connected { .. }))).await.unwrap();
    if let AgentStatus::Connected { epoch } = *status { epoch } else { unreachable!() }
}

pub(crate) async fn refused(handle: &AgentHandle) -> (String, String) {
    let mut status = handle.status();
    let status = soon(status.wait_for(|status| matches!(status, AgentStatus::Refused { .. }))).await.unwrap();
    if let AgentStatus::Refused { code, message } = status.clone() { (code, message) } else { unreachable!() }
}

/// A TCP server that sends back what it gets, half-close included.
pub(crate) async fn echo() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                    let _ = write.shutdown().await;
                }
            });
        }
    });
    (at, serving)
}

/// Sends a byte and gets it back.
pub(crate) async fn echoes(socket: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) -> bool {
    let exchange = async {
        socket.write_all(b"x").await?;
        socket.read_u8().await
    };
    soon(exchange).await.is_ok_and(|byte| byte == b'x')
}

/// A control connection in the hands of a test.
pub(crate) struct Raw {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Raw {
    /// Up to the 101.
    pub(crate) async fn open(rig: &Rig, agent: &Known) -> Self {
        let socket = TcpStream::connect(rig.api).await.unwrap();
        let mut request = format!("ws://{}{SESSION_PATH}", rig.api).into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, format!("Bearer {}", agent.token.reveal()).parse().unwrap());
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL.parse().unwrap());
        Self { socket: soon(client_async(request, socket)).await.unwrap().0 }
    }

    /// A session that has shaken hands, as a new process.
    pub(crate) async fn session(rig: &Rig, agent: &Known) -> (Self, Welcome) {
        let mut raw = Self::open(rig, agent).await;
        raw.send(&Frame::Hello(hello(agent))).await;
        let Some(Frame::Welcome(welcome)) = raw.next().await else { panic!("no welcome") };
        (raw, welcome)
    }

    pub(crate) async fn send(&mut self, frame: &Frame) {
        self.socket.send(Message::binary(frame.encode().unwrap())).await.unwrap();
    }

    /// The next frame; `None`: the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Binary(bytes))) => return Frame::decode(&bytes).unwrap(),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next frame that is no ping.
    pub(crate) async fn next_but_pings(&mut self) -> Option<Frame> {
        loop {
            match self.next().await {
                Some(Frame::Ping(_)) => {}
                frame => return frame,
            }
        }
    }
}

pub(crate) fn hello(agent: &Known) -> Hello {
    Hello {
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
        agent_id: agent.id.to_string(),
        instance: Uuid::new_v4().to_string(),
        host_name: "another-machine".to_owned(),
        agent_version: "1".to_owned(),
    }
}
