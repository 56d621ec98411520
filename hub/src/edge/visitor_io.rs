//! The socket of a visitor as hyper and h2 see it: it fails once the connection is cut, and notes what its bytes say.
//!
//! Every byte passes here once in each direction. What hyper's parser mends without a word (`head_scan`) and what
//! costs work without carrying anything (`frame_meter`) is seen on the way in; informational answers, which hyper's
//! server cannot send, leave from here between two answers.

use std::{
    fmt::Write as _,
    io::{self, ErrorKind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use wire::{side::Duplex, tls::Encrypted};

use super::{
    conn::{ConnState, Cut, Phase},
    frame_meter::FrameMeter,
    head_scan::HeadScan,
    metrics::Metrics,
};

/// What an HTTP/2 visitor begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first read of a connection, and each read of what nobody wants any more.
const FIRST_READ_BYTES: usize = 4 * 1024;

/// Counts a connection from its accept to its end.
#[derive(Debug)]
pub(super) struct Open(Arc<Metrics>);

impl Open {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections_open.add(1);
        Self(Arc::clone(metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections_open.sub(1);
    }
}

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
}

#[derive(Debug)]
enum Reading {
    Http1(HeadScan),
    Http2(FrameMeter),
}

/// What carries a visitor's bytes.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Has the close throw away what the visitor has not taken.
    fn reset(&mut self);
}

impl Socket for TcpStream {
    fn reset(&mut self) {
        // One that is gone already holds nothing.
        let _ = self.set_zero_linger();
    }
}

impl Socket for Encrypted {
    fn reset(&mut self) {
        Duplex::reset(self);
    }
}

/// The socket of a visitor, plain or encrypted.
#[derive(Debug)]
pub(super) struct VisitorIo<S> {
    socket: S,
    state: Arc<ConnState>,
    reading: Reading,
    /// Read before it was known what the visitor speaks.
    ahead: Bytes,
    /// Informational answers on their way out.
    interim: BytesMut,
    _open: Open,
}

impl<S: Socket> VisitorIo<S> {
    pub(super) fn new(socket: S, state: Arc<ConnState>, open: Open) -> Self {
        let reading = Reading::Http1(HeadScan::default());
        Self { socket, state, reading, ahead: Bytes::new(), interim: BytesMut::new(), _open: open }
    }

    /// Finds out by the first bytes what the visitor speaks; `None`: he left, or was cut, before that was certain.
    /// `gives_up` is asked while nothing has come.
    pub(super) async fn listen(&mut self, gives_up: impl Fn() -> bool) -> Option<Speaks> {
        let mut seen = BytesMut::with_capacity(FIRST_READ_BYTES);
        loop {
            let is_silent = seen.is_empty();
            let read = {
                let mut reading = std::pin::pin!(self.read_buf(&mut seen));
                std::future::poll_fn(|cx| {
                    let polled = reading.as_mut().poll(cx);
                    if polled.is_pending() && is_silent && gives_up() {
                        return Poll::Ready(Ok(0));
                    }
                    polled
                })
                .await
            };
            if read.ok()? == 0 {
                return None;
            }
            let known = seen.len().min(PREFACE.len());
            if seen[..known] != PREFACE[..known] {
                self.ahead = seen.freeze();
                return Some(Speaks::Http1);
            }
            if known == PREFACE.len() {
                self.ahead = seen.freeze();
                return Some(Speaks::Http2);
            }
        }
    }

    /// From here on frames are read. What has been read already is read again.
    pub(super) fn speak_http2(&mut self) {
        self.state.hear();
        let mut meter = FrameMeter::default();
        meter.read(&self.ahead, &self.state);
        self.reading = Reading::Http2(meter);
    }

    /// What a cut connection gives to read.
    fn cut_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (self.state.cut(), &self.reading) {
            (Cut::SlowHead, Reading::Http1(_)) => {
                // Best effort: whoever is too slow to ask may be too slow to hear.
                let _ = Pin::new(&mut self.socket).poll_write(cx, REQUEST_TIMEOUT);
                let _ = Pin::new(&mut self.socket).poll_flush(cx);
                Poll::Ready(Ok(()))
            }
            (Cut::Crowd, Reading::Http1(_)) => {
                self.socket.reset();
                Poll::Ready(Err(ErrorKind::ConnectionAborted.into()))
            }
            (Cut::Not | Cut::Idle | Cut::Crowd | Cut::SlowHead, _) => Poll::Ready(Ok(())),
            (Cut::Stalled | Cut::Flood | Cut::Revoked | Cut::Hub, _) => {
                Poll::Ready(Err(ErrorKind::ConnectionAborted.into()))
            }
        }
    }

    /// Whether nothing may be written any more. Over HTTP/2 a cut still says goodbye, to whoever listens.
    fn is_mute(&self) -> bool {
        match self.state.cut() {
            Cut::Not => false,
            Cut::Stalled => true,
            Cut::SlowHead | Cut::Idle | Cut::Crowd | Cut::Flood | Cut::Revoked | Cut::Hub => {
                matches!(self.reading, Reading::Http1(_))
            }
        }
    }

    fn wrote<T>(&mut self, cx: &Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            self.state.register(cx);
        }
        let was_blocked = self.state.is_write_blocked();
        self.state.block_write(written.is_pending());
        if was_blocked && written.is_ready() {
            // Whoever holds back what comes next.
            self.state.wake();
        }
        written
    }

    fn poll_write_trailing(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.state.trailing.poll_write(&mut self.socket, cx, slices);
        if !self.state.trailing.is_set() {
            // Whoever waits to answer the next request.
            self.state.wake();
        }
        self.wrote(cx, written)
    }

    /// Sends the informational answers. hyper flushes when it has nothing left to write: between two answers.
    fn poll_inform(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for answer in self.state.take_interim() {
            let status = answer.status();
            let reason = status.canonical_reason().unwrap_or_default();
            write!(self.interim, "HTTP/1.1 {} {reason}\r\n", status.as_u16()).map_err(io::Error::other)?;
            for (name, value) in answer.headers() {
                self.interim.extend_from_slice(name.as_str().as_bytes());
                self.interim.extend_from_slice(b": ");
                self.interim.extend_from_slice(value.as_bytes());
                self.interim.extend_from_slice(b"\r\n");
            }
            self.interim.extend_from_slice(b"\r\n");
        }
        while !self.interim.is_empty() {
            let written = Pin::new(&mut self.socket).poll_write(cx, &self.interim);
            let written = ready!(self.wrote(cx, written))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.interim.advance(written);
        }
        self.state.informed();
        Poll::Ready(Ok(()))
    }
}

const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\n\
    content-length: 141\r\nconnection: close\r\n\r\n\
    {\"statusCode\":408,\"error\":\"Request Timeout\",\"code\":\"request_timeout\",\
    \"message\":\"The request head took too long. Try again.\",\"requestId\":\"-\"}\n";

impl<S: Socket> AsyncRead for VisitorIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.cut() != Cut::Not {
            return this.cut_read(cx);
        }
        if !this.ahead.is_empty() {
            let len = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.ahead.split_to(len));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        if Pin::new(&mut this.socket).poll_read(cx, buffer)?.is_pending() {
            this.state.register(cx);
            return Poll::Pending;
        }
        let bytes = &buffer.filled()[before..];
        match &mut this.reading {
            Reading::Http1(scan) if this.state.is_between() => {
                if !bytes.is_empty() {
                    if this.state.is(Phase::Idle) {
                        this.state.enter(Phase::Head);
                        *scan = scan.next();
                    }
                    this.state.note(scan.read(bytes));
                }
            }
            Reading::Http1(scan) => {
                scan.pass(bytes);
                this.state.read_while_busy();
            }
            Reading::Http2(meter) => {
                this.state.hear();
                meter.read(bytes, &this.state);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncWrite for VisitorIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_mute() {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        if this.state.trailing.is_set() {
            return this.poll_write_trailing(cx, &[io::IoSlice::new(bytes)]);
        }
        let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.count_written(&written);
        this.wrote(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_mute() {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        if this.state.trailing.is_set() {
            return this.poll_write_trailing(cx, bytes);
        }
        let written = Pin::new(&mut this.socket).poll_write_vectored(cx, bytes);
        this.count_written(&written);
        this.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.has_interim() && !this.is_mute() && matches!(this.reading, Reading::Http1(_)) {
            ready!(this.poll_inform(cx))?;
        }
        let flushed = Pin::new(&mut this.socket).poll_flush(cx);
        if flushed.is_ready() {
            this.state.written_out();
        }
        this.wrote(cx, flushed)
    }

    /// Says that no more comes, and reads on for a while: a close with unread bytes would be a reset, and that can
    /// overtake the answer that we just gave.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.state.cut() {
            Cut::Not => {}
            Cut::SlowHead | Cut::Idle => {
                // In order, as far as it goes at once: everything that was due has been said.
                let _ = Pin::new(&mut this.socket).poll_shutdown(cx);
                return Poll::Ready(Ok(()));
            }
            Cut::Crowd | Cut::Stalled | Cut::Flood | Cut::Revoked | Cut::Hub => return Poll::Ready(Ok(())),
        }
        if this.state.is(Phase::Upgraded) {
            return Pin::new(&mut this.socket).poll_shutdown(cx);
        }
        if !this.state.is(Phase::Closing) {
            ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
            this.state.enter(Phase::Closing);
        }
        let mut scratch = [0; FIRST_READ_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            if Pin::new(&mut this.socket).poll_read(cx, &mut buffer)?.is_pending() {
                this.state.register(cx);
                return Poll::Pending;
            }
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S> VisitorIo<S> {
    fn count_written(&mut self, written: &Poll<io::Result<usize>>) {
        let Poll::Ready(Ok(written)) = written else { return };
        match &mut self.reading {
            Reading::Http1(_) => self.state.carry(*written),
            Reading::Http2(meter) => meter.wrote(*written),
        }
    }
}
