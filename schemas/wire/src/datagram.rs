//! Datagrams on a stream: each preceded by its length as a u16, big-endian, so that its borders survive the stream.
//!
//! [`carry`] leads one session's datagrams between a stream and an [`Endpoint`] until nothing was said for a while, a
//! side is over, or somebody ends it. What the stream does not take at once is not read from the endpoint: its queue is
//! where datagrams are lost, and nothing here grows. An idle session holds no buffer.

use std::{
    cell::Cell,
    io,
    pin::pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::{relay::with_buffer, side::Side};

/// The most that a length can say; more than any UDP datagram has (65,507 bytes over IPv4, 65,527 over IPv6).
pub const DATAGRAM_BYTES_MAX: usize = u16::MAX as usize;
/// The bytes of a length.
const LENGTH_BYTES: usize = 2;
/// Datagrams that are there together leave in one write: up to this many bytes, and one more of any size.
const GATHER_BYTES: usize = 2 * (LENGTH_BYTES + DATAGRAM_BYTES_MAX);
/// So many reads or writes in a row, and other tasks have their turn.
const TURN: usize = 32;

/// Where a session's datagrams are datagrams. Both methods are for one task.
pub trait Endpoint {
    /// Takes the next datagram into `buffer`, which has room for any; how long it is.
    ///
    /// # Errors
    /// No more will come: the session is over.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Sends one datagram, or loses it as UDP may.
    ///
    /// # Errors
    /// None will ever arrive: the session is over.
    fn poll_send(&mut self, cx: &mut Context<'_>, datagram: &[u8]) -> Poll<io::Result<()>>;
}

/// Why a session ended.
#[derive(Debug)]
pub enum SessionEnd {
    /// Nothing was said for the idle time.
    Idle,
    /// The stream ended or broke.
    Stream,
    /// The endpoint's word.
    Endpoint(io::Error),
    /// `ended` came.
    Cancelled,
}

/// What a session did.
#[derive(Debug)]
pub struct Carried {
    /// Datagrams from the endpoint to the stream.
    pub forth: u64,
    /// Datagrams from the stream to the endpoint.
    pub back: u64,
    pub ended_by: SessionEnd,
}

/// A stream's bytes as the datagrams that they are. Holds at most one read and one datagram that is not whole yet.
#[derive(Debug, Default)]
pub struct Cutter {
    held: Vec<u8>,
    at: usize,
}

impl Cutter {
    /// Takes the next bytes of the stream, cut anywhere. What is whole should have been taken before.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.held.drain(..self.at);
        self.at = 0;
        self.held.extend_from_slice(bytes);
    }

    /// The first datagram that is whole.
    pub fn first(&self) -> Option<&[u8]> {
        let (length, rest) = self.held[self.at..].split_first_chunk::<LENGTH_BYTES>()?;
        rest.get(..usize::from(u16::from_be_bytes(*length)))
    }

    /// Drops the first datagram.
    pub fn pass(&mut self) {
        let Some(length) = self.first().map(<[u8]>::len) else { return };
        self.at += LENGTH_BYTES + length;
        if self.at == self.held.len() {
            *self = Self::default();
        }
    }
}

/// Puts a datagram's length before it. `None`: it is longer than a length can say.
pub fn length_of(datagram: &[u8]) -> Option<[u8; LENGTH_BYTES]> {
    u16::try_from(datagram.len()).ok().map(u16::to_be_bytes)
}

thread_local! {
    /// The thread's buffer, empty while it is in use or was never needed.
    static GATHER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer, which is longer than a relay's.
pub(crate) fn with_gather_buffer<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = GATHER.take();
    if buffer.is_empty() {
        buffer = vec![0; GATHER_BYTES];
    }
    let result = use_it(&mut buffer);
    GATHER.set(buffer);
    result
}

/// Carries datagrams until nothing was said for `idle`, a side is over, or `ended` came. The stream is closed when it
/// returns.
pub async fn carry(
    mut stream: impl Side,
    endpoint: &mut impl Endpoint,
    idle: Duration,
    ended: impl Future<Output = ()>,
) -> Carried {
    let mut ended = pin!(ended);
    let mut quiet = pin!(sleep_until(Instant::now() + idle));
    let (mut forth, mut back) = (Forth::default(), Back::default());
    let mut said = (0, Instant::now());
    let ended_by = std::future::poll_fn(|cx| {
        if ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(SessionEnd::Cancelled);
        }
        if let Poll::Ready(end) = forth.poll(&mut stream, endpoint, cx) {
            return Poll::Ready(end);
        }
        if let Poll::Ready(end) = back.poll(&mut stream, endpoint, cx) {
            return Poll::Ready(end);
        }
        let count = forth.count + back.count;
        if count != said.0 {
            said = (count, Instant::now());
        }
        // Set again only when it has rung: most datagrams of a busy session touch no timer.
        while quiet.as_mut().poll(cx).is_ready() {
            let quiet_at = said.1 + idle;
            if quiet_at <= Instant::now() {
                return Poll::Ready(SessionEnd::Idle);
            }
            quiet.as_mut().reset(quiet_at);
        }
        Poll::Pending
    })
    .await;
    // Any other end leaves what was just written its way.
    if matches!(ended_by, SessionEnd::Cancelled) {
        stream.reset();
    }
    Carried { forth: forth.count, back: back.count, ended_by }
}

/// From the endpoint to the stream.
#[derive(Debug, Default)]
struct Forth {
    count: u64,
    /// Gathered and not yet written.
    rest: Vec<u8>,
    is_unflushed: bool,
}

impl Forth {
    fn poll(
        &mut self,
        stream: &mut impl Side,
        endpoint: &mut impl Endpoint,
        cx: &mut Context<'_>,
    ) -> Poll<SessionEnd> {
        for _ in 0..TURN {
            match self.write_rest(stream, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(SessionEnd::Stream),
                Poll::Pending => return self.flush(stream, cx),
            }
            let step = with_gather_buffer(|buffer| {
                let (length, over) = self.gather(endpoint, buffer, cx);
                if length == 0 {
                    return Ok((false, over));
                }
                self.is_unflushed = true;
                self.write(stream, &buffer[..length], cx).map(|()| (true, over))
            });
            match step {
                Err(_) => return Poll::Ready(SessionEnd::Stream),
                Ok((_, Some(error))) => return Poll::Ready(SessionEnd::Endpoint(error)),
                Ok((true, None)) => {}
                Ok((false, None)) => return self.flush(stream, cx),
            }
        }
        cx.waker().wake_by_ref();
        self.flush(stream, cx)
    }

    /// What is there, framed, at the front of `buffer`.
    fn gather(
        &mut self,
        endpoint: &mut impl Endpoint,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> (usize, Option<io::Error>) {
        let mut filled = 0;
        while buffer.len() - filled >= LENGTH_BYTES + DATAGRAM_BYTES_MAX {
            let room = &mut buffer[filled + LENGTH_BYTES..];
            match endpoint.poll_receive(cx, &mut room[..DATAGRAM_BYTES_MAX]) {
                Poll::Ready(Ok(length)) => {
                    let framed = length_of(&room[..length]).expect("the room was no longer");
                    buffer[filled..filled + LENGTH_BYTES].copy_from_slice(&framed);
                    filled += LENGTH_BYTES + length;
                    self.count += 1;
                }
                Poll::Ready(Err(error)) => return (filled, Some(error)),
                Poll::Pending => break,
            }
        }
        (filled, None)
    }

    /// Writes all of `bytes`, or keeps what the stream does not take yet.
    fn write(&mut self, stream: &mut impl Side, mut bytes: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        while !bytes.is_empty() {
            match stream.poll_write(cx, bytes)? {
                Poll::Ready(written) => bytes = &bytes[written..],
                Poll::Pending => {
                    self.rest = bytes.to_vec();
                    break;
                }
            }
        }
        Ok(())
    }

    fn write_rest(&mut self, stream: &mut impl Side, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let written = ready!(stream.poll_write(cx, &self.rest))?;
            self.rest.drain(..written);
            if self.rest.is_empty() {
                self.rest = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, stream: &mut impl Side, cx: &mut Context<'_>) -> Poll<SessionEnd> {
        if self.is_unflushed {
            match stream.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.is_unflushed = false,
                Poll::Ready(Err(_)) => return Poll::Ready(SessionEnd::Stream),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}

/// From the stream to the endpoint.
#[derive(Debug, Default)]
struct Back {
    count: u64,
    cutter: Cutter,
}

impl Back {
    fn poll(
        &mut self,
        stream: &mut impl Side,
        endpoint: &mut impl Endpoint,
        cx: &mut Context<'_>,
    ) -> Poll<SessionEnd> {
        for _ in 0..TURN {
            while let Some(datagram) = self.cutter.first() {
                match ready!(endpoint.poll_send(cx, datagram)) {
                    Ok(()) => self.count += 1,
                    Err(error) => return Poll::Ready(SessionEnd::Endpoint(error)),
                }
                self.cutter.pass();
            }
            let cutter = &mut self.cutter;
            let read = with_buffer(|buffer| {
                stream.poll_read(cx, buffer).map_ok(|read| {
                    cutter.feed(&buffer[..read]);
                    read
                })
            });
            if matches!(ready!(read), Ok(0) | Err(_)) {
                return Poll::Ready(SessionEnd::Stream);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
