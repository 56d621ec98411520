//! Many agents in one process: each is what `connect up` runs, without its command line.

use std::{
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use agent_cli::agent::{
    self, AgentHandle, AgentOptions, AgentStatus, TokenCell, UDP_IDLE_MS, trust::InMemory,
};
use e2e::Hub;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    runtime::Runtime,
};
use uuid::Uuid;
use wire::{sealed::handshake::Identity, tls::trust};

/// How often a crowd is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Agents that run.
pub(crate) struct Crowd {
    agents: Vec<(String, AgentHandle)>,
    runtime: Runtime,
}

impl Crowd {
    /// Registers that many, and starts them with `hub_url` for their hub.
    #[track_caller]
    pub(crate) fn start(hub: &Hub, count: usize, hub_url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("the system has room for a runtime");
        let registered: Vec<_> =
            (0..count).map(|number| hub.api().register_agent(&format!("machine-{number}"))).collect();
        let entered = runtime.enter();
        let agents = registered
            .into_iter()
            .map(|(agent_id, token)| {
                let options = AgentOptions {
                    hub_url: hub_url.to_owned(),
                    believing: trust::nobody(),
                    agent_id: agent_id.clone(),
                    token: TokenCell::new(token),
                    host_name: "crowd".to_owned(),
                    instance: Uuid::new_v4(),
                    agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                    allow_loopback: true,
                    udp_idle_ms: UDP_IDLE_MS,
                    identity: Identity::generate(),
                    known: Arc::new(InMemory::default()),
                    remembers: None,
                };
                (agent_id, agent::start(options))
            })
            .collect();
        drop(entered);
        Self { agents, runtime }
    }

    pub(crate) fn len(&self) -> usize {
        self.agents.len()
    }

    /// The id of an agent, counting round.
    pub(crate) fn id(&self, number: usize) -> &str {
        &self.agents[number % self.agents.len()].0
    }

    fn connected(&self) -> usize {
        let is_connected =
            |agent: &AgentHandle| matches!(*agent.status().borrow(), AgentStatus::Connected { .. });
        self.agents.iter().filter(|(_, agent)| is_connected(agent)).count()
    }

    /// Waits until all are connected; how long after `since` each of them was first seen to be.
    #[track_caller]
    pub(crate) fn all_connected(&self, since: Instant, limit: Duration) -> Duration {
        loop {
            let connected = self.connected();
            if connected == self.len() {
                return since.elapsed();
            }
            assert!(since.elapsed() < limit, "{connected} of {} agents are connected", self.len());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until all have noticed that their hub is gone.
    #[track_caller]
    pub(crate) fn all_lost(&self, since: Instant, limit: Duration) {
        while self.connected() > 0 {
            assert!(since.elapsed() < limit, "{} agents still believe in their hub", self.connected());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// The epoch of each agent's session; 0: it has none.
    pub(crate) fn epochs(&self) -> Vec<u64> {
        let epoch = |agent: &AgentHandle| match *agent.status().borrow() {
            AgentStatus::Connected { epoch } => epoch,
            AgentStatus::Connecting { .. } | AgentStatus::Refused { .. } | AgentStatus::Stopped => 0,
        };
        self.agents.iter().map(|(_, agent)| epoch(agent)).collect()
    }

    /// Waits until every agent has a later session than `former`; how long after `since`.
    #[track_caller]
    pub(crate) fn all_back(&self, former: &[u64], since: Instant, limit: Duration) -> Duration {
        loop {
            let back = self.epochs().iter().zip(former).filter(|(now, former)| now > former).count();
            if back == self.len() {
                return since.elapsed();
            }
            assert!(since.elapsed() < limit, "{back} of {} agents are back", self.len());
            thread::sleep(LOOK_EVERY);
        }
    }

    pub(crate) fn stop(self) {
        self.runtime.block_on(async {
            for (_, agent) in &self.agents {
                agent.stop().await;
            }
        });
        self.runtime.shutdown_background();
    }
}

/// A target on the loopback that takes connections and answers each byte that comes with itself.
pub(crate) fn echo() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback has free ports");
    let address = listener.local_addr().expect("it is bound");
    listener.set_nonblocking(true).expect("a socket of ours");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener of ours");
            loop {
                let Ok((mut socket, _)) = listener.accept().await else {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                };
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    // A visitor who leaves is what this target is for.
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
    });
    address
}

/// An HTTP target that gives `/large` as long as it is told, gives a greeting elsewhere, and reads whatever is sent to it
/// before it answers.
pub(crate) fn patient(large_bytes: usize) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback has free ports");
    let address = listener.local_addr().expect("it is bound");
    listener.set_nonblocking(true).expect("a socket of ours");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener of ours");
            loop {
                match listener.accept().await {
                    Ok((socket, _)) => drop(tokio::spawn(serve(socket, large_bytes))),
                    Err(_) => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
        });
    });
    address
}

/// A visitor who leaves is what it is for: errors end the connection and are nobody's.
async fn serve(socket: tokio::net::TcpStream, large_bytes: usize) -> Option<()> {
    let mut socket = BufReader::new(socket);
    let piece = vec![b'x'; 64 * 1024];
    loop {
        let (mut first, mut line, mut body) = (String::new(), String::new(), 0);
        while socket.read_line(&mut line).await.ok()? > 0 && line != "\r\n" {
            if first.is_empty() {
                first.clone_from(&line);
            }
            let lower = line.to_ascii_lowercase();
            if let Some(length) = lower.strip_prefix("content-length:") {
                body = length.trim().parse().ok()?;
            }
            line.clear();
        }
        if first.is_empty() {
            return None;
        }
        tokio::io::copy(&mut (&mut socket).take(body), &mut tokio::io::sink()).await.ok()?;
        let mut left = if first.contains("/large") && first.starts_with("GET") { large_bytes } else { 5 };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {left}\r\n\r\n");
        socket.write_all(head.as_bytes()).await.ok()?;
        while left > 0 {
            let length = left.min(piece.len());
            socket.write_all(&piece[..length]).await.ok()?;
            left -= length;
        }
        socket.flush().await.ok()?;
    }
}
