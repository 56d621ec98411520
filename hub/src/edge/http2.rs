//! A visitor's HTTP/2 connection: many requests at once, each with its own record, limits and end.
//!
//! The crate h2 is served directly, since hyper's server on top of it tells nothing of streams whose visitor takes no
//! bytes, and sends no informational answers. A stream that is cut is reset alone; a connection that is cut says
//! goodbye (GOAWAY) and takes its streams along.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason, RecvStream, SendStream,
    server::{Builder, Connection, SendResponse},
};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response,
    header::{CONNECTION, CONTENT_LENGTH, DATE},
};
use http_body::Body as _;

use super::{
    body::{Http2Body, VisitorBody},
    conn::{ConnState, Cut, Phase},
    connection::ConnCtx,
    exchange::{Answer, AnswerError},
    proxy,
    server::{Core, HEAD_BYTES_MAX},
    visitor_io::{Socket, VisitorIo},
};

/// Requests that one connection may have under way.
const STREAMS_MAX: u32 = 128;
/// Requests that are reset before anybody looked at them, and streams that break the protocol: then the connection
/// ends (h2 counts both; CVE-2023-44487, RUSTSEC-2024-0003).
const EARLY_RESETS_MAX: usize = 64;
const BROKEN_STREAMS_MAX: usize = 256;
/// What a visitor may send ahead of the target's reading, per stream and per connection (bytes).
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What waits in memory for one stream's visitor to take it (bytes).
const SEND_BYTES_MAX: usize = 64 * 1024;

/// Serves a connection to its end.
pub(super) async fn serve<S>(core: Rc<Core>, ctx: Rc<ConnCtx>, mut io: VisitorIo<S>)
where
    S: Socket,
{
    io.speak_http2();
    let handshake = Builder::new()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(EARLY_RESETS_MAX)
        .max_local_error_reset_streams(Some(BROKEN_STREAMS_MAX))
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BYTES_MAX)
        .handshake::<_, Bytes>(io);
    // What is no HTTP/2 after all, or was not complete in time, ends here.
    let Ok(connection) = handshake.await else { return };
    ctx.state.enter(Phase::Idle);
    let mut serving = Serving { pings: None, is_closing: false, connection };
    serving.pings = serving.connection.ping_pong();
    while let Some((request, respond)) =
        std::future::poll_fn(|cx| serving.poll_next(&core, &ctx.state, cx)).await
    {
        start(&core, &ctx, request, respond);
    }
}

type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

struct Serving<S> {
    connection: Connection<VisitorIo<S>, Bytes>,
    pings: Option<PingPong>,
    is_closing: bool,
}

impl<S: Socket> Serving<S> {
    /// The next request; `None` when the connection is over.
    fn poll_next(&mut self, core: &Core, state: &ConnState, cx: &mut Context<'_>) -> Poll<Option<Accepted>> {
        state.register(cx);
        match state.cut() {
            Cut::Not => {}
            Cut::Stalled => return Poll::Ready(None),
            cut @ (Cut::SlowHead | Cut::Idle | Cut::Crowd | Cut::Flood | Cut::Revoked | Cut::Hub) => {
                self.connection.abrupt_shutdown(farewell(cut));
                // As much of it as the socket takes at once.
                let _ = self.connection.poll_closed(cx);
                return Poll::Ready(None);
            }
        }
        if core.draining.get() && !self.is_closing {
            self.is_closing = true;
            self.connection.graceful_shutdown();
        }
        self.poll_pings(state, cx);
        self.connection.poll_accept(cx).map(|accepted| accepted.and_then(Result::ok))
    }

    fn poll_pings(&mut self, state: &ConnState, cx: &mut Context<'_>) {
        let Some(pings) = &mut self.pings else { return };
        if state.take_ping_due() {
            // One that is under way is as good.
            let _ = pings.send_ping(Ping::opaque());
        }
        // Whatever comes is a sign of life; a broken connection is seen at the next accept.
        let _ = pings.poll_pong(cx);
    }
}

fn farewell(cut: Cut) -> Reason {
    match cut {
        Cut::Flood | Cut::SlowHead => Reason::ENHANCE_YOUR_CALM,
        Cut::Not | Cut::Idle | Cut::Crowd | Cut::Stalled | Cut::Revoked | Cut::Hub => Reason::NO_ERROR,
    }
}

/// Answers one request, on a task of its own.
fn start(
    core: &Rc<Core>,
    connection: &Rc<ConnCtx>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    if core.is_full() {
        core.shared.metrics.connections_refused.add(1);
        respond.send_reset(Reason::REFUSED_STREAM);
        return;
    }
    let open = OpenStream::new(core, connection);
    let ctx = Rc::new(connection.stream());
    core.register(&ctx);
    let core = Rc::clone(core);
    tokio::task::spawn_local(async move {
        answer(core, ctx, request, respond).await;
        drop(open);
    });
}

/// Keeps the connection busy, and counts, from a request's head to its end.
struct OpenStream {
    core: Rc<Core>,
    connection: Rc<ConnCtx>,
}

impl OpenStream {
    fn new(core: &Rc<Core>, connection: &Rc<ConnCtx>) -> Self {
        let open = connection.streams.get();
        connection.streams.set(open + 1);
        if open == 0 {
            connection.state.enter(Phase::Busy);
        }
        core.shared.metrics.streams_open.add(1);
        Self { core: Rc::clone(core), connection: Rc::clone(connection) }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let open = self.connection.streams.get() - 1;
        self.connection.streams.set(open);
        if open == 0 && self.connection.state.is(Phase::Busy) {
            self.connection.state.enter(Phase::Idle);
        }
        self.core.shared.metrics.streams_open.sub(1);
    }
}

async fn answer(
    core: Rc<Core>,
    ctx: Rc<ConnCtx>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let state = Arc::clone(&ctx.state);
    let (head, body) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let body = VisitorBody::Http2(Http2Body::new(body, &head.headers));
    let request = Request::from_parts(head, body);
    let response = {
        let mut serving = std::pin::pin!(proxy::serve(Rc::clone(&core), Rc::clone(&ctx), request));
        std::future::poll_fn(|cx| {
            state.register(cx);
            let served = serving.as_mut().poll(cx);
            inform(&state, &mut respond);
            match served {
                Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
                Poll::Pending if state.cut() == Cut::Not && respond.poll_reset(cx).is_pending() => {
                    Poll::Pending
                }
                Poll::Pending => Poll::Ready(None),
            }
        })
        .await
    };
    let Some(response) = response else {
        respond.send_reset(Reason::CANCEL);
        return;
    };
    let (mut head, body) = response.into_parts();
    let length = body.size_hint().exact().filter(|_| !body.is_end_stream());
    let is_over = body.is_end_stream() || is_head;
    finish_headers(&core, &mut head.headers, length);
    match respond.send_response(Response::from_parts(head, ()), is_over) {
        Ok(stream) if !is_over => Download { state, stream, body: Box::pin(body) }.run().await,
        // Everything is said, or the visitor has left.
        Ok(_) | Err(_) => {}
    }
    // The sweep finds the stream by its context until here.
    drop(ctx);
}

/// Sends the informational answers that have come.
fn inform(state: &ConnState, respond: &mut SendResponse<Bytes>) {
    if !state.has_interim() {
        return;
    }
    for answer in state.take_interim() {
        // A visitor who has left hears nothing.
        let _ = respond.send_informational(answer);
    }
    state.informed();
}

/// What hyper's server does for HTTP/1.1.
fn finish_headers(core: &Core, headers: &mut HeaderMap, length: Option<u64>) {
    headers.remove(CONNECTION);
    if let Some(length) = length
        && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !headers.contains_key(DATE) {
        headers.insert(DATE, core.date());
    }
}

/// An answer's body on its way to the visitor.
struct Download {
    state: Arc<ConnState>,
    stream: SendStream<Bytes>,
    body: Pin<Box<Answer>>,
}

/// What became of a wait.
enum Next {
    Frame(Option<Result<http_body::Frame<Bytes>, AnswerError>>),
    /// The visitor reset the stream, or the connection is gone.
    Left,
}

impl Download {
    async fn run(mut self) {
        loop {
            let frame = match std::future::poll_fn(|cx| self.poll_next(cx)).await {
                Next::Left => return,
                Next::Frame(frame) => frame,
            };
            let sent = match frame {
                None => self.stream.send_data(Bytes::new(), true).is_ok(),
                Some(Err(error)) => {
                    self.stream.send_reset(reset_reason(&error));
                    return;
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.send(data).await,
                    Err(frame) => match frame.into_trailers() {
                        Ok(trailers) => {
                            // A visitor who has left needs none.
                            let _ = self.stream.send_trailers(trailers);
                            return;
                        }
                        Err(_) => true,
                    },
                },
            };
            if !sent || self.body.is_end_stream() {
                return;
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        self.state.register(cx);
        // A piece is sent before the next one is asked for.
        self.state.written_out();
        if let Poll::Ready(frame) = self.body.as_mut().poll_frame(cx) {
            return Poll::Ready(Next::Frame(frame));
        }
        self.stream.poll_reset(cx).map(|_| Next::Left)
    }

    /// Sends a piece as the visitor makes room for it; `false`: he left or was cut.
    async fn send(&mut self, mut data: Bytes) -> bool {
        loop {
            let is_last = self.body.is_end_stream();
            let room = if data.is_empty() {
                0
            } else {
                match std::future::poll_fn(|cx| self.poll_room(data.len(), cx)).await {
                    Some(room) => room,
                    None => return false,
                }
            };
            let piece = data.split_to(room.min(data.len()));
            self.state.carry(piece.len());
            let ends = is_last && data.is_empty();
            if (ends || !piece.is_empty()) && self.stream.send_data(piece, ends).is_err() {
                return false;
            }
            if data.is_empty() {
                return true;
            }
        }
    }

    fn poll_room(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        self.state.register(cx);
        self.stream.reserve_capacity(wanted);
        let room = loop {
            match self.stream.capacity() {
                0 => match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(_)) | None) => break Poll::Ready(None),
                    Poll::Pending if self.state.cut() == Cut::Not => break Poll::Pending,
                    Poll::Pending => {
                        self.stream.send_reset(Reason::CANCEL);
                        break Poll::Ready(None);
                    }
                },
                room => break Poll::Ready(Some(room)),
            }
        };
        self.state.block_write(room.is_pending());
        room
    }
}

/// How a broken answer is told to the visitor: a target that speaks HTTP/2 has said it itself.
fn reset_reason(error: &AnswerError) -> Reason {
    match error {
        AnswerError::Upstream(_) => error.targets_reason().unwrap_or(Reason::INTERNAL_ERROR),
        AnswerError::Cut => Reason::CANCEL,
        AnswerError::CannotLog => Reason::INTERNAL_ERROR,
    }
}
