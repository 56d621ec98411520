//! Machines with an agent on them, in the test's process, and something on one that can be reached.

use std::{net::SocketAddr, sync::Arc};

use agent_cli::agent::{AgentHandle, AgentOptions, AgentStatus, TokenCell, UDP_IDLE_MS, trust::InMemory};
use reqwest::StatusCode;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;
use wire::sealed::handshake::Identity;

use crate::support::{Answer, Running, eventually};

/// An agent that is connected.
pub(crate) struct Machine {
    pub(crate) id: String,
    token: String,
    handle: AgentHandle,
}

impl Machine {
    /// A new agent of that name.
    pub(crate) async fn new(hub: &Running, name: &str) -> Self {
        let made = hub.post("/v1/agents/register", json!({ "label": name, "name": name })).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        Self::connected(hub, made.text("agentId"), made.text("token")).await
    }

    /// An agent that is registered already.
    pub(crate) async fn connected(hub: &Running, id: String, token: String) -> Self {
        let handle = agent_cli::agent::start(AgentOptions {
            hub_url: hub.hub.api_url(),
            believing: wire::tls::trust::nobody(),
            agent_id: id.clone(),
            token: TokenCell::new(token.as_str()),
            host_name: "a-machine".to_owned(),
            instance: Uuid::new_v4(),
            agent_version: "0.1.0".to_owned(),
            allow_loopback: true,
            udp_idle_ms: UDP_IDLE_MS,
            identity: Identity::generate(),
            known: Arc::new(InMemory::default()),
            remembers: None,
        });
        let mut status = handle.status();
        status.wait_for(|status| matches!(status, AgentStatus::Connected { .. })).await.unwrap();
        Self { id, token, handle }
    }

    /// Everything of it ends.
    pub(crate) async fn stop(&self) {
        self.handle.stop().await;
    }

    /// The same agent in a new process, that has forgotten everything but who it is.
    pub(crate) async fn again(self, hub: &Running) -> Self {
        self.handle.stop().await;
        Self::connected(hub, self.id, self.token).await
    }

    /// Exposes a target there and waits until it is active.
    pub(crate) async fn expose(
        &self,
        hub: &Running,
        target: SocketAddr,
        name: &str,
        protocol: &str,
    ) -> Answer {
        let body =
            json!({ "target": target.to_string(), "agentId": self.id, "name": name, "protocol": protocol });
        let made = hub.post("/v1/tunnels", body).await;
        assert_eq!((made.status, made.text("status").as_str()), (StatusCode::CREATED, "active"), "{made:?}");
        made
    }
}

/// A server that answers every request with 200 and `ok`, until the test ends.
pub(crate) async fn web_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4_096];
                if socket.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                    let _ = socket.write_all(answer).await;
                }
            });
        }
    });
    address
}

/// What a GET of a local port answers.
pub(crate) async fn get(port: u16) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Waits until a local port leads to the web server.
pub(crate) async fn serves(port: u16) {
    eventually("the port leads to the web server", || async {
        get(port).await.is_ok_and(|answer| answer.ends_with("ok"))
    })
    .await;
}

/// Waits until nobody listens on a local port.
pub(crate) async fn closed(port: u16) {
    eventually("the port is closed", || async {
        TcpStream::connect(("127.0.0.1", port)).await.is_err_and(|error| {
            [std::io::ErrorKind::ConnectionRefused, std::io::ErrorKind::ConnectionReset]
                .contains(&error.kind())
        })
    })
    .await;
}
