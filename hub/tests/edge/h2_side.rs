//! HTTP/2 from both sides: a visitor that the crate h2 speaks for, one that writes its frames by hand, and a target.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, Request, Response, StatusCode};

use crate::harness::*;

/// A visitor whose frames the crate h2 writes.
#[derive(Clone)]
pub(crate) struct Visitor {
    sender: SendRequest<Bytes>,
    host: String,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Whole {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub(crate) fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).expect("a problem");
        problem["code"].as_str().unwrap().to_owned()
    }
    pub(crate) fn grpc_status(&self) -> Option<&str> {
        let trailers = self.trailers.as_ref().unwrap_or(&self.headers);
        trailers.get("grpc-status").and_then(|status| status.to_str().ok())
    }
}

impl Visitor {
    pub(crate) async fn to(rig: &Rig) -> Self {
        Self::with(rig, &h2::client::Builder::new()).await
    }

    /// Must be called on the rig's runtime, which drives the connection while it runs.
    pub(crate) async fn with(rig: &Rig, builder: &h2::client::Builder) -> Self {
        let socket = tokio::net::TcpStream::connect(rig.edge.local_addr).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (sender, connection) = builder.handshake(socket).await.unwrap();
        tokio::spawn(connection);
        Self { sender, host: rig.host() }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> Request<()> {
        let uri = format!("http://{}{path}", self.host);
        Request::builder().method(method).uri(uri).version(http::Version::HTTP_2).body(()).unwrap()
    }

    /// Sends a head; the body is the caller's.
    pub(crate) async fn open(&self, request: Request<()>) -> (Open, SendStream<Bytes>) {
        let mut sender = self.sender.clone().ready().await.unwrap();
        let (response, body) = sender.send_request(request, false).unwrap();
        (Open(response), body)
    }

    /// Sends a request without a body.
    pub(crate) async fn start(&self, request: Request<()>) -> Open {
        let mut sender = self.sender.clone().ready().await.unwrap();
        Open(sender.send_request(request, true).unwrap().0)
    }

    pub(crate) async fn get(&self, path: &str) -> Whole {
        self.start(self.request("GET", path)).await.whole().await
    }
}

/// A request that was sent.
pub(crate) struct Open(pub(crate) h2::client::ResponseFuture);

impl Open {
    pub(crate) async fn whole(self) -> Whole {
        self.try_whole().await.unwrap()
    }

    pub(crate) async fn try_whole(self) -> Result<Whole, h2::Error> {
        let (head, body) = self.0.await?.into_parts();
        let (body, trailers) = rest(body).await?;
        Ok(Whole { status: head.status, headers: head.headers, body, trailers })
    }
}

/// The rest of a body and what comes behind it.
pub(crate) async fn rest(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, body.trailers().await?))
}

/// A target that speaks HTTP/2: `answer` runs for every request, on a runtime of the target's own.
pub(crate) fn target<F>(
    answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
            tokio::spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let begin = begin.clone();
                    tokio::spawn(async move {
                        let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                        while let Some(Ok(exchange)) = connection.accept().await {
                            begin.send(exchange).unwrap();
                        }
                    });
                }
            });
            while let Some((request, respond)) = begun.recv().await {
                tokio::spawn(answer(request, respond));
            }
        });
    });
    address
}

/// Sends a call's message, as gRPC frames it.
pub(crate) fn message(text: &str) -> Bytes {
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(text.as_bytes());
    framed.into()
}

/// Trailers with a status of gRPC.
pub(crate) fn status(code: u8) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.to_string().parse().unwrap());
    trailers
}

/// The head of a call's answer.
pub(crate) fn call_head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Reasons (RFC 9113, section 7).
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame, written out.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A block of headers without any compression.
pub(crate) fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in lines {
        block.push(0);
        for text in [name, value] {
            length(text.len(), &mut block);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer of HPACK with seven bits at first.
fn length(len: usize, block: &mut Vec<u8>) {
    let Some(mut rest) = len.checked_sub(127) else { return block.push(len as u8) };
    block.push(127);
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// A frame that came.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The reason of a RST_STREAM or GOAWAY.
    pub(crate) fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A visitor who writes his frames by hand.
pub(crate) struct ByHand {
    socket: TcpStream,
    host: String,
    /// Gives signs of life when asked.
    pub(crate) answers_pings: bool,
}

impl ByHand {
    /// Connects, and sends what has to come first.
    pub(crate) fn to(rig: &Rig) -> Self {
        Self::with_settings(rig, &[])
    }

    /// The same with settings of its own: identifier and value.
    pub(crate) fn with_settings(rig: &Rig, settings: &[(u16, u32)]) -> Self {
        let socket = TcpStream::connect(rig.edge.local_addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut visitor = Self { socket, host: rig.host(), answers_pings: true };
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        visitor.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        visitor.send(frame(SETTINGS, 0, 0, &payload));
        visitor
    }

    /// Whoever floods may find that nobody listens any more.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref());
    }

    pub(crate) fn lines<'a>(&'a self, method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", &self.host)]
    }

    /// The head of a GET, whole.
    pub(crate) fn get(&mut self, stream: u32, path: &str) {
        let block = block(&self.lines("GET", path));
        self.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block));
    }

    /// The next frame; `None` when the connection has ended.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut header = [0; 9];
        self.socket.read_exact(&mut header).ok()?;
        let len = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; len as usize];
        self.socket.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes(header[5..9].try_into().unwrap());
        if self.answers_pings && header[3] == PING && header[4] == 0 {
            self.send(frame(PING, 1, 0, &payload));
        }
        Some(Frame { kind: header[3], flags: header[4], stream, payload })
    }

    /// The next frame of a kind.
    pub(crate) fn expect(&mut self, kind: u8) -> Frame {
        loop {
            let frame =
                self.next().unwrap_or_else(|| panic!("the connection ended before a frame of kind {kind}"));
            if frame.kind == kind {
                return frame;
            }
            assert_ne!(frame.kind, GOAWAY, "the connection ends with {}", frame.reason());
        }
    }

    /// The next frame of a kind, whatever else is said.
    pub(crate) fn next_of(&mut self, kind: u8) -> Frame {
        std::iter::from_fn(|| self.next()).find(|frame| frame.kind == kind).expect("such a frame")
    }

    /// Reads on until the connection ends; the reason that was given, if any.
    pub(crate) fn farewell(&mut self) -> Option<u32> {
        let mut reason = None;
        while let Some(next) = self.next() {
            if next.kind == GOAWAY {
                reason = Some(next.reason());
            }
        }
        reason
    }

    /// Whether the connection is still there: it answers a ping.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.send(frame(PING, 0, 0, b"are you?"));
        std::iter::from_fn(|| self.next()).any(|frame| frame.kind == PING && frame.payload == b"are you?")
    }
}
