//! A WebSocket server that sends every message back, and clients for it. Messages may have any length.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use tungstenite::{Message, WebSocket, protocol::WebSocketConfig};

use crate::{http::READ_TIMEOUT, ports::loopback};

/// The running server; it ends with the test's process.
#[derive(Debug)]
pub struct WebSockets {
    pub address: SocketAddr,
}

impl WebSockets {
    #[track_caller]
    pub fn start() -> Self {
        let listener = TcpListener::bind(loopback(0)).expect("the loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || echo(stream));
            }
        });
        Self { address }
    }

    /// A client of a WebSocket at this address and path.
    #[track_caller]
    pub fn connect(to: SocketAddr, path: &str) -> WebSocket<TcpStream> {
        let stream = TcpStream::connect_timeout(&to, READ_TIMEOUT).expect("the port listens");
        stream.set_nodelay(true).expect("an option of TCP");
        stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a timeout can be set");
        let url = format!("ws://{to}{path}");
        let (socket, _answer) = tungstenite::client::client_with_config(url, stream, Some(any_length()))
            .unwrap_or_else(|error| panic!("no WebSocket at {to}{path}: {error}"));
        socket
    }
}

fn any_length() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(None).max_frame_size(None)
}

/// Sends messages back until the client leaves or errs.
fn echo(stream: TcpStream) {
    let _slower = stream.set_nodelay(true);
    let Ok(mut socket) = tungstenite::accept_with_config(stream, Some(any_length())) else { return };
    while let Ok(message) = socket.read() {
        if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).is_err() {
            return;
        }
    }
}
