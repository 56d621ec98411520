//! A visitor's connection: the socket as hyper sees it, and who may end it for what reason.
//!
//! No timer runs per connection or request: a sweep per core looks at every connection a few times a second. Whoever
//! ends a connection says why; the socket then fails at its next use, and everything that hangs on it is dropped.

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use domain::access::EndedBy;
use futures_util::task::AtomicWaker;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::TcpStream,
};

use super::metrics::Metrics;

/// What the connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Between requests, or at the start.
    Idle,
    /// A request's head is arriving.
    Head,
    /// A request is being answered.
    Busy,
    /// Raw bytes after a 101.
    Upgraded,
    /// Closed for writing; what the visitor still sends is thrown away.
    Closing,
}

/// Why a connection was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Cut {
    /// Nothing: it goes on.
    Not,
    /// The head took too long: answered with 408.
    SlowHead,
    /// Kept open without a request for too long.
    Idle,
    /// The visitor neither reads nor writes.
    Stalled,
    /// Share, tunnel or session ended.
    Revoked,
    /// The hub stops.
    Hub,
}

impl Cut {
    fn of(value: u8) -> Self {
        [Self::Not, Self::SlowHead, Self::Idle, Self::Stalled, Self::Revoked, Self::Hub]
            .into_iter()
            .find(|cut| *cut as u8 == value)
            .unwrap_or(Self::Hub)
    }

    /// As the record says it; a visitor who was not cut has left by himself.
    pub(super) fn ended_by(self) -> EndedBy {
        match self {
            Self::Not | Self::SlowHead | Self::Idle => EndedBy::Visitor,
            Self::Stalled => EndedBy::Stalled,
            Self::Revoked => EndedBy::Revoked,
            Self::Hub => EndedBy::Hub,
        }
    }
}

/// Sweeps since the core started; 0 stands for "not now".
pub(super) type Tick = u32;

/// What socket, request and sweep share. All on one thread; atomics only because hyper wants the socket `Send`.
#[derive(Debug)]
pub(super) struct ConnState {
    phase: AtomicU8,
    cut: AtomicU8,
    /// The core's clock: sweeps since its start.
    clock: Arc<AtomicU32>,
    /// When the phase began.
    since: AtomicU32,
    /// Since when the visitor takes no bytes.
    write_blocked: AtomicU32,
    /// Since when the visitor owes bytes of his request's body.
    body_awaited: AtomicU32,
    /// Bytes of a next head came while a request was answered.
    early_head: AtomicBool,
    /// The request line is not complete yet.
    in_line: AtomicBool,
    /// The request line has a `#`, which the URI parser cuts off.
    fragment: AtomicBool,
    waker: AtomicWaker,
    metrics: Arc<Metrics>,
}

impl ConnState {
    pub(super) fn new(clock: Arc<AtomicU32>, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.connections_open.add(1);
        let since = AtomicU32::new(clock.load(Relaxed));
        Arc::new(Self {
            phase: AtomicU8::new(Phase::Idle as u8),
            cut: AtomicU8::new(Cut::Not as u8),
            clock,
            since,
            write_blocked: AtomicU32::new(0),
            body_awaited: AtomicU32::new(0),
            early_head: AtomicBool::new(false),
            in_line: AtomicBool::new(false),
            fragment: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            metrics,
        })
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Relaxed) == phase as u8
    }

    fn enter(&self, phase: Phase) {
        self.since.store(self.clock.load(Relaxed), Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }

    /// A request's head is complete. Says whether its request line had a `#`.
    pub(super) fn begin_request(&self) -> bool {
        self.early_head.store(false, Relaxed);
        self.enter(Phase::Busy);
        self.fragment.swap(false, Relaxed)
    }

    /// The answer has left, or was given up.
    pub(super) fn end_request(&self) {
        self.body_awaited.store(0, Relaxed);
        if self.is(Phase::Busy) {
            self.enter(if self.early_head.load(Relaxed) { Phase::Head } else { Phase::Idle });
        }
    }

    pub(super) fn upgrade(&self) {
        self.enter(Phase::Upgraded);
    }

    /// The upload waits for the visitor, or no longer does.
    pub(super) fn await_body(&self, awaited: bool) {
        mark(&self.body_awaited, awaited.then(|| self.now()));
    }

    /// Whether what is read now belongs to a request's head.
    fn is_between(&self) -> bool {
        self.is(Phase::Idle) || self.is(Phase::Head)
    }

    fn read_while_busy(&self) {
        if self.is(Phase::Busy) && self.body_awaited.load(Relaxed) == 0 {
            self.early_head.store(true, Relaxed);
        }
    }

    fn read_head(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.is(Phase::Idle) {
            self.enter(Phase::Head);
            self.in_line.store(true, Relaxed);
        }
        if self.in_line.load(Relaxed) {
            let end = memchr::memchr(b'\n', bytes);
            let line = end.map_or(bytes, |end| &bytes[..end]);
            if memchr::memchr(b'#', line).is_some() {
                self.fragment.store(true, Relaxed);
            }
            self.in_line.store(end.is_none(), Relaxed);
        }
    }

    /// The next wake goes to this task.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    pub(super) fn now(&self) -> Tick {
        self.clock.load(Relaxed)
    }

    /// Why it was ended; [`Cut::Not`] while it goes on.
    pub(super) fn cut(&self) -> Cut {
        Cut::of(self.cut.load(Relaxed))
    }

    /// Ends the connection. The first reason stays.
    pub(super) fn end(&self, cut: Cut) {
        if self.cut.compare_exchange(Cut::Not as u8, cut as u8, Relaxed, Relaxed).is_ok() {
            match cut {
                Cut::SlowHead => self.metrics.slow_heads.add(1),
                Cut::Stalled => self.metrics.stalled.add(1),
                Cut::Not | Cut::Idle | Cut::Revoked | Cut::Hub => {}
            }
        }
        self.wake();
    }

    /// Has the connection's task look again.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Ends the connection if it was too slow by now.
    pub(super) fn sweep(&self, limits: &TickLimits) {
        let now = self.now();
        let since = self.since.load(Relaxed);
        let over = |from: Tick, limit: Tick| now.wrapping_sub(from) >= limit;
        if self.is(Phase::Idle) && over(since, limits.idle) {
            return self.end(Cut::Idle);
        }
        if self.is(Phase::Head) && over(since, limits.head) {
            return self.end(Cut::SlowHead);
        }
        if self.is(Phase::Closing) && over(since, limits.linger) {
            return self.end(Cut::Idle);
        }
        for mark in [&self.write_blocked, &self.body_awaited] {
            let from = mark.load(Relaxed);
            if from != 0 && over(from, limits.stall) {
                return self.end(Cut::Stalled);
            }
        }
    }
}

fn mark(place: &AtomicU32, since: Option<Tick>) {
    match since {
        None => place.store(0, Relaxed),
        // Since the first time.
        Some(now) if place.load(Relaxed) == 0 => place.store(now.max(1), Relaxed),
        Some(_) => {}
    }
}

/// How slow everybody may be, in sweeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct TickLimits {
    pub idle: Tick,
    pub head: Tick,
    pub stall: Tick,
    /// How long a visitor may go on sending after our last word.
    pub linger: Tick,
    /// How long a target may take for its head.
    pub upstream: Tick,
    /// How long a document's first bytes may take.
    pub sniff: Tick,
}

/// The socket of a visitor.
#[derive(Debug)]
pub(super) struct VisitorIo {
    socket: TokioIo<TcpStream>,
    state: Arc<ConnState>,
}

impl VisitorIo {
    pub(super) fn new(socket: TcpStream, state: Arc<ConnState>) -> Self {
        Self { socket: TokioIo::new(socket), state }
    }

    fn register(&self, cx: &Context<'_>) {
        self.state.register(cx);
    }

    /// What a cut connection gives to read.
    fn cut_read(&self) -> Poll<io::Result<()>> {
        match self.state.cut() {
            Cut::SlowHead => {
                // Best effort: whoever is too slow to ask may be too slow to hear.
                let _ = self.socket.inner().try_write(REQUEST_TIMEOUT);
                Poll::Ready(Ok(()))
            }
            Cut::Not | Cut::Idle => Poll::Ready(Ok(())),
            Cut::Stalled | Cut::Revoked | Cut::Hub => Poll::Ready(Err(ErrorKind::ConnectionAborted.into())),
        }
    }
}

impl Drop for VisitorIo {
    fn drop(&mut self) {
        self.state.metrics.connections_open.sub(1);
    }
}

const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\n\
    content-length: 141\r\nconnection: close\r\n\r\n\
    {\"statusCode\":408,\"error\":\"Request Timeout\",\"code\":\"request_timeout\",\
    \"message\":\"The request head took too long. Try again.\",\"requestId\":\"-\"}\n";

impl Read for VisitorIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.state.cut() != Cut::Not {
            return self.cut_read();
        }
        if !self.state.is_between() {
            let read = Pin::new(&mut self.socket).poll_read(cx, cursor);
            if read.is_pending() {
                self.register(cx);
            } else {
                self.state.read_while_busy();
            }
            return read;
        }
        // Heads go through a buffer of our own: what hyper's has got cannot be seen without unsafe code.
        let mut scratch = [0; HEAD_READ_BYTES];
        let room = cursor.remaining().min(HEAD_READ_BYTES);
        let mut buffer = ReadBuf::new(&mut scratch[..room]);
        if Pin::new(self.socket.inner_mut()).poll_read(cx, &mut buffer)?.is_pending() {
            self.register(cx);
            return Poll::Pending;
        }
        self.state.read_head(buffer.filled());
        cursor.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

/// What one read of a head takes at most.
const HEAD_READ_BYTES: usize = 4 * 1024;

impl Write for VisitorIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.state.cut() != Cut::Not {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.state.cut() != Cut::Not {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Says that no more comes, and reads on for a while: a close with unread bytes would be a reset, and that can
    /// overtake the answer that we just gave.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state.cut() != Cut::Not {
            return Poll::Ready(Ok(()));
        }
        if self.state.is(Phase::Upgraded) {
            return Pin::new(&mut self.socket).poll_shutdown(cx);
        }
        if !self.state.is(Phase::Closing) {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            self.state.enter(Phase::Closing);
        }
        let mut scratch = [0; HEAD_READ_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            if Pin::new(self.socket.inner_mut()).poll_read(cx, &mut buffer)?.is_pending() {
                self.register(cx);
                return Poll::Pending;
            }
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl VisitorIo {
    fn wrote(&self, cx: &Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            self.register(cx);
            mark(&self.state.write_blocked, Some(self.state.now()));
        } else if self.state.write_blocked.load(Relaxed) != 0 {
            self.state.write_blocked.store(0, Relaxed);
        }
        let written = ready!(written);
        Poll::Ready(written)
    }
}
