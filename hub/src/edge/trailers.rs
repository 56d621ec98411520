//! Trailers behind a chunked body of HTTP/1.1: sent as they came, whether anybody announced or asked for them.
//!
//! hyper sends trailers only where the head announced them, and to a visitor only if he said `TE: trailers`; others are
//! dropped without a word. So hyper is never given any: it ends the body with its last chunk, and the socket beneath it
//! puts the trailers in when that chunk leaves. That chunk is the end of everything hyper has to write, since nothing
//! else is begun before it has left ([`Trailing::is_set`]).

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST,
        MAX_FORWARDS, SET_COOKIE, TRAILER,
    },
};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::headers::drop_hop_by_hop;

/// The last chunk, and the end of a trailer section with nothing in it.
const LAST_CHUNK: &[u8; 5] = b"0\r\n\r\n";

/// What must not come behind a body: it would have decided how the message is read, and by whom (RFC 9110, section
/// 6.5.1).
const TOO_LATE: [HeaderName; 10] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TRAILER,
];

/// Removes from trailers what may only stand in a head, or belongs to one connection.
pub(super) fn clean(trailers: &mut HeaderMap) {
    drop_hop_by_hop(trailers);
    for name in TOO_LATE {
        trailers.remove(name);
    }
}

/// The trailers that wait for one connection's last chunk.
#[derive(Debug, Default)]
pub(super) struct Trailing {
    is_set: AtomicBool,
    /// The last chunk with the trailers behind it, as far as it has not left.
    section: Mutex<Bytes>,
}

impl Trailing {
    /// Puts trailers behind the body that ends now. Nothing may be written behind that body before they have left.
    pub(super) fn leave(&self, trailers: &HeaderMap) {
        if trailers.is_empty() {
            return;
        }
        let mut section = BytesMut::from("0\r\n");
        for (name, value) in trailers {
            section.extend_from_slice(name.as_str().as_bytes());
            section.extend_from_slice(b": ");
            section.extend_from_slice(value.as_bytes());
            section.extend_from_slice(b"\r\n");
        }
        section.extend_from_slice(b"\r\n");
        *self.section.lock() = section.freeze();
        self.is_set.store(true, Relaxed);
    }

    /// Whether some have not left yet.
    pub(super) fn is_set(&self) -> bool {
        self.is_set.load(Relaxed)
    }

    /// Writes what hyper wants written; in place of the last chunk, the one with the trailers.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &self,
        socket: &mut S,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut ends_with = LAST_CHUNK.iter().rev();
        let is_end = total >= LAST_CHUNK.len()
            && slices
                .iter()
                .rev()
                .flat_map(|slice| slice.iter().rev())
                .zip(&mut ends_with)
                .all(|(a, b)| a == b);
        if !is_end {
            return Pin::new(socket).poll_write_vectored(cx, slices);
        }
        let before = total - LAST_CHUNK.len();
        if before > 0 {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return Pin::new(socket).poll_write(cx, &first[..first.len().min(before)]);
        }
        let mut section = self.section.lock();
        while !section.is_empty() {
            let written = ready!(Pin::new(&mut *socket).poll_write(cx, &section))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            section.advance(written);
        }
        self.is_set.store(false, Relaxed);
        Poll::Ready(Ok(LAST_CHUNK.len()))
    }
}

/// A stream to a target, with a place for a request's trailers.
#[derive(Debug)]
pub(super) struct TargetIo<S> {
    stream: S,
    trailing: Arc<Trailing>,
    /// What one read gives at most (bytes).
    at_once: usize,
}

impl<S> TargetIo<S> {
    pub(super) fn new(stream: S, trailing: Arc<Trailing>, at_once: usize) -> Self {
        Self { stream, trailing, at_once }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TargetIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() <= this.at_once {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(this.at_once));
        let read = Pin::new(&mut this.stream).poll_read(cx, &mut piece);
        let length = piece.filled().len();
        buffer.advance(length);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TargetIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.trailing.is_set() {
            return this.trailing.poll_write(&mut this.stream, cx, &[IoSlice::new(bytes)]);
        }
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.trailing.is_set() {
            return this.trailing.poll_write(&mut this.stream, cx, slices);
        }
        Pin::new(&mut this.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes so many bytes at a time, and now and then none.
    struct Slow {
        taken: Vec<u8>,
        at_once: usize,
        turn: usize,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.turn += 1;
            if self.turn.is_multiple_of(3) {
                return Poll::Pending;
            }
            let len = bytes.len().min(self.at_once);
            self.taken.extend_from_slice(&bytes[..len]);
            Poll::Ready(Ok(len))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn the_last_chunk_is_replaced_however_it_is_written() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        // The body itself looks like an end.
        let wanted = b"5\r\n0\r\n\r\n\r\n0\r\n\r\n";
        let expected = b"5\r\n0\r\n\r\n\r\n0\r\nx-sum: 7\r\n\r\n";
        for at_once in 1..30 {
            for cut in 0..wanted.len() {
                let trailing = Trailing::default();
                trailing.leave(&trailers);
                let mut slow = Slow { taken: Vec::new(), at_once, turn: 0 };
                let mut cx = Context::from_waker(Waker::noop());
                let mut written = 0;
                while written < wanted.len() {
                    // What is left, as hyper holds it: in pieces.
                    let (first, second) = (&wanted[written.min(cut)..cut], &wanted[written.max(cut)..]);
                    let slices = [IoSlice::new(first), IoSlice::new(second)];
                    let polled = if trailing.is_set() {
                        trailing.poll_write(&mut slow, &mut cx, &slices)
                    } else {
                        Pin::new(&mut slow).poll_write_vectored(&mut cx, &slices)
                    };
                    if let Poll::Ready(len) = polled {
                        written += len.unwrap();
                    }
                }
                assert_eq!(slow.taken, expected, "{at_once} at once, cut at {cut}");
                assert!(!trailing.is_set());
            }
        }
    }

    #[test]
    fn what_should_have_stood_in_the_head_is_removed() {
        let mut trailers = HeaderMap::new();
        for name in [
            "content-length",
            "transfer-encoding",
            "host",
            "set-cookie",
            "connection",
            "x-sum",
            "grpc-status",
        ] {
            trailers.insert(name, "1".parse().unwrap());
        }
        clean(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "x-sum"]);
    }
}
