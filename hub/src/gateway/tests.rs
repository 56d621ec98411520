//! The gateway against the real agent and against agents that misbehave, over real sockets.

mod an_agents_tunnels;
mod commands;
mod core_links;
mod counts;
mod data_connections;
mod datagrams;
mod encrypted;
mod reach;
mod sessions_of_agents;
mod streams_through_tunnels;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_cli::agent::{AgentStatus, Carries, Reason, TunnelView};
use domain::{
    agent::{self, DisconnectReason},
    event::Event,
    target::Protocol,
    tunnel::{self, Condition, DeleteReason, Outage},
    workspace,
};
use futures_util::SinkExt as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::frames::{
    BODY_BYTES_MAX, Frame, Goodbye, GoodbyeCode, Ping, Pong, PortOutcome, RefusalCode, STREAM_PATH, Servable,
    StreamKind, StreamOpen, TunnelState, Welcome,
    preface::{Purpose, proof_text},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, ToSocketAddrs},
};
use tokio_tungstenite::tungstenite::Message;

use super::{rig::*, *};
use crate::actors::Who;
use crate::streams::{OpenError, Streams as _};

fn random(bytes: usize) -> Vec<u8> {
    let mut random = vec![0; bytes];
    SystemRandom::new().fill(&mut random).unwrap();
    random
}

/// Sends everything, then the end, and reads to the end meanwhile.
async fn exchange(mut socket: TcpStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let (mut read, mut write) = socket.split();
    let sending = async {
        write.write_all(bytes).await?;
        write.shutdown().await
    };
    let mut back = Vec::new();
    let (sent, received) = tokio::join!(sending, read.read_to_end(&mut back));
    sent.and(received).map(|_| back)
}

async fn ended(socket: &mut TcpStream) -> io::Result<usize> {
    soon(socket.read(&mut [0; 16])).await
}

/// How a connection ends that is refused as soon as it is there: the reset may be seen before the connection is.
async fn ended_at(address: impl ToSocketAddrs) -> io::Result<usize> {
    match TcpStream::connect(address).await {
        Ok(mut socket) => ended(&mut socket).await,
        Err(error) => Err(error),
    }
}

fn was_reset(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

fn key_of(welcome: &Welcome) -> ring::hmac::Key {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let key = URL_SAFE_NO_PAD.decode(&welcome.data_key).unwrap();
    ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key)
}

/// A data connection with its preface sent.
async fn data_connection(hub: &Rig, welcome: &Welcome, counter: u64, purpose: Purpose) -> TcpStream {
    let session = &welcome.session_id;
    let tag = ring::hmac::sign(&key_of(welcome), proof_text(session, counter, purpose).as_bytes());
    preface_sent(hub, session, counter, purpose, &crate::secrets::hex(tag.as_ref())).await
}

async fn preface_sent(hub: &Rig, session: &str, counter: u64, purpose: Purpose, proof: &str) -> TcpStream {
    let mut socket = TcpStream::connect(hub.api).await.unwrap();
    let preface = format!(
        "GET {STREAM_PATH} HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: pconnect/1\r\n\
         pconnect-session: {session}\r\npconnect-counter: {counter}\r\npconnect-purpose: {}\r\n\
         pconnect-proof: {proof}\r\n\r\n",
        purpose.name()
    );
    // Two pieces, cut within the path: the hub waits for the rest.
    let (first, rest) = preface.split_at(12);
    socket.set_nodelay(true).unwrap();
    socket.write_all(first.as_bytes()).await.unwrap();
    tokio::task::yield_now().await;
    socket.write_all(rest.as_bytes()).await.unwrap();
    socket
}

async fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(socket.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
