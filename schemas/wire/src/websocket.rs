//! A carrier in a WebSocket's clothes (RFC 6455), for middleboxes that let nothing else pass.
//!
//! The carrier's bytes go in binary messages whose borders mean nothing. A WebSocket has no half-close, so an empty binary
//! message says that nothing follows in its direction; a connection that ends without one broke off. Whoever waits sends a
//! ping now and then: middleboxes close what is silent.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::side::{Carrier, Duplex, Parked, Side};

/// What goes in one message at most (bytes).
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// A middlebox may put messages together up to this (bytes).
const INCOMING_BYTES_MAX: usize = 1024 * 1024;
/// Shorter than the shortest usual patience of a middlebox with a silent connection, 30 s.
const PING_EVERY: Duration = Duration::from_secs(20);

/// What the server answers to a client's `Sec-WebSocket-Key` (RFC 6455, section 4.2.2).
pub fn accept_key(key: &str) -> String {
    derive_accept_key(key.as_bytes())
}

/// Which end of a WebSocket this is: a client's bytes are masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Client,
    Server,
}

/// A carrier whose bytes go in messages.
#[derive(Debug)]
pub struct Messages {
    socket: WebSocketStream<Below>,
    /// Of a message that was not read to its end.
    ahead: Bytes,
    has_ended: bool,
    has_finished: bool,
    /// `None` while it belongs to no runtime.
    pings: Option<Interval>,
}

impl Messages {
    /// Goes on where both ends have agreed on it; `carrier` has nothing of the other end's ahead.
    pub async fn over(carrier: Carrier, end: End) -> Carrier {
        let role = match end {
            End::Client => Role::Client,
            End::Server => Role::Server,
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(INCOMING_BYTES_MAX))
            .max_frame_size(Some(INCOMING_BYTES_MAX))
            .write_buffer_size(0);
        let socket = WebSocketStream::from_raw_socket(Below::Here(carrier), role, Some(config)).await;
        let (ahead, pings) = (Bytes::new(), Some(pings()));
        Carrier::Wrapped(Box::new(Self { socket, ahead, has_ended: false, has_finished: false, pings }))
    }

    /// Sends a ping when it is time for one; the next one wakes whoever waits here.
    fn poll_ping(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(pings) = &mut self.pings else { return Ok(()) };
        while pings.poll_tick(cx).is_ready() {
            let mut socket = Pin::new(&mut self.socket);
            // A connection that takes nothing now is not silent.
            if socket.as_mut().poll_ready(cx).map_err(io_error)?.is_ready() {
                socket.as_mut().start_send(Message::Ping(Bytes::new())).map_err(io_error)?;
            }
            let _ = socket.poll_flush(cx).map_err(io_error)?;
        }
        Ok(())
    }
}

fn pings() -> Interval {
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

fn io_error(error: Error) -> io::Error {
    if let Error::Io(error) = error { error } else { io::Error::new(io::ErrorKind::InvalidData, error) }
}

impl AsyncRead for Messages {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ahead.is_empty() {
                let length = this.ahead.len().min(buffer.remaining());
                buffer.put_slice(&this.ahead.split_to(length));
                return Poll::Ready(Ok(()));
            }
            if this.has_ended {
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut this.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(Message::Binary(bytes)))) => {
                    this.has_ended = bytes.is_empty();
                    this.ahead = bytes;
                }
                // tungstenite answers pings by itself.
                Poll::Ready(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Poll::Ready(Some(Ok(Message::Text(_) | Message::Frame(_)))) => {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                Poll::Ready(Some(Ok(Message::Close(_))) | None) => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io_error(error))),
                Poll::Pending => {
                    this.poll_ping(cx)?;
                    return Poll::Pending;
                }
            }
        }
    }
}

impl AsyncWrite for Messages {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.has_finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // An empty message has a meaning of its own.
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut socket = Pin::new(&mut this.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(io_error)?;
        let piece = &bytes[..bytes.len().min(MESSAGE_BYTES_MAX)];
        socket.start_send(Message::Binary(Bytes::copy_from_slice(piece))).map_err(io_error)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx).map_err(io_error)
    }

    /// Says that nothing follows; the other direction goes on.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut socket = Pin::new(&mut this.socket);
        if !this.has_finished {
            ready!(socket.as_mut().poll_ready(cx)).map_err(io_error)?;
            socket.as_mut().start_send(Message::Binary(Bytes::new())).map_err(io_error)?;
            this.has_finished = true;
        }
        socket.poll_flush(cx).map_err(io_error)
    }
}

/// Without a descriptor: the pings of an idle one are no sign of a broken one.
impl Duplex for Messages {
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_ping(cx).is_err() {
            return Poll::Ready(());
        }
        match self.socket.get_mut() {
            Below::Here(carrier) => carrier.poll_broken(cx),
            Below::Parked(_) | Below::Gone => Poll::Pending,
        }
    }

    fn reset(&mut self) {
        if let Below::Here(carrier) = self.socket.get_mut() {
            carrier.reset();
        }
    }

    fn park(&mut self) -> io::Result<()> {
        self.pings = None;
        let below = self.socket.get_mut();
        if let Below::Here(carrier) = std::mem::replace(below, Below::Gone) {
            *below = Below::Parked(Parked::park(carrier)?);
        }
        Ok(())
    }

    fn adopt(&mut self) -> io::Result<()> {
        let below = self.socket.get_mut();
        if let Below::Parked(parked) = std::mem::replace(below, Below::Gone) {
            *below = Below::Here(parked.adopt()?);
        }
        self.pings = Some(pings());
        Ok(())
    }
}

/// What is below, which may go from one runtime to another.
#[derive(Debug)]
enum Below {
    Here(Carrier),
    Parked(Parked),
    /// It was lost on the way.
    Gone,
}

impl Below {
    fn here(&mut self) -> io::Result<Pin<&mut Carrier>> {
        match self {
            Self::Here(carrier) => Ok(Pin::new(carrier)),
            Self::Parked(_) | Self::Gone => Err(io::Error::other("the connection belongs to no runtime")),
        }
    }
}

impl AsyncRead for Below {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(self.get_mut().here()?, cx, buffer)
    }
}

impl AsyncWrite for Below {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self.get_mut().here()?, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self.get_mut().here()?, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().here()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
