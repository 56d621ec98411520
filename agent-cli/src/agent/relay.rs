//! Carries bytes between two sockets, both ways, until both have said all they had to say.
//!
//! Half-close, back-pressure and resets pass through: an end of one side's bytes is an end of the other's, nobody reads
//! faster than the slower side writes, and a side that was reset resets the other (an orderly end would make a cut-off
//! answer look complete). A waiting stream holds no buffer at all, a busy one at most [`BUFFER_BYTES_MAX`] each way.

use std::{
    io,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};
use tokio_util::sync::CancellationToken;

/// What a direction starts to read with.
const BUFFER_BYTES: usize = 8 * 1024;
/// What it grows to while reads fill it: larger ones gained nothing in bulk transfers over loopback.
const BUFFER_BYTES_MAX: usize = 128 * 1024;
/// A dead peer of an idle stream is noticed after about a minute and a half.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));

/// Why a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndedBy {
    /// Both sides finished in order.
    Finished,
    /// A side was reset or broke; the other was reset too.
    Reset,
    /// A token was cancelled; both sides were reset.
    Cancelled,
}

/// What a relay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relayed {
    /// Bytes from the first side to the second.
    pub(super) forth: u64,
    /// Bytes from the second side to the first.
    pub(super) back: u64,
    pub(super) ended_by: EndedBy,
}

/// Sets what every socket of a stream needs: no delay of small writes, and notice of a dead peer.
pub(super) fn prepare(socket: &TcpStream) {
    // A socket that refuses an option still carries bytes.
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(socket).set_tcp_keepalive(&KEEPALIVE);
}

/// Closes a socket with a reset instead of an orderly end.
pub(super) fn reset(socket: TcpStream) {
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    drop(socket);
}

/// Relays between `first` and `second` until both directions ended, a side broke, or one of `tokens` was cancelled.
/// Both sockets are closed when it returns, and reset unless both finished.
pub(super) async fn relay(
    mut first: TcpStream,
    mut second: TcpStream,
    tokens: &[CancellationToken],
) -> Relayed {
    let (forth, back) = (AtomicU64::new(0), AtomicU64::new(0));
    let ended_by = {
        let (first_read, first_write) = first.split();
        let (second_read, second_write) = second.split();
        let mut up = pin!(pump(&first_read, second_write, &forth));
        let mut down = pin!(pump(&second_read, first_write, &back));
        let mut cancelled = pin!(any_cancelled(tokens));
        let (mut up_done, mut down_done) = (false, false);
        loop {
            let step = tokio::select! {
                result = &mut up, if !up_done => { up_done = true; result }
                result = &mut down, if !down_done => { down_done = true; result }
                // A side whose end was read already tells of a reset in this way alone.
                _ = first_read.as_ref().ready(Interest::ERROR), if up_done => Err(io::ErrorKind::ConnectionReset.into()),
                _ = second_read.as_ref().ready(Interest::ERROR), if down_done => Err(io::ErrorKind::ConnectionReset.into()),
                () = &mut cancelled => break EndedBy::Cancelled,
            };
            if step.is_err() {
                break EndedBy::Reset;
            }
            if up_done && down_done {
                break EndedBy::Finished;
            }
        }
    };
    if ended_by != EndedBy::Finished {
        reset(first);
        reset(second);
    }
    Relayed { forth: forth.into_inner(), back: back.into_inner(), ended_by }
}

/// Resolves when one of the tokens is cancelled; never without tokens.
async fn any_cancelled(tokens: &[CancellationToken]) {
    if tokens.is_empty() {
        return std::future::pending().await;
    }
    futures_util::future::select_all(tokens.iter().map(|token| Box::pin(token.cancelled()))).await;
}

/// One direction, to its orderly end, which is passed on.
async fn pump(from: &ReadHalf<'_>, mut to: WriteHalf<'_>, count: &AtomicU64) -> io::Result<()> {
    let mut size = BUFFER_BYTES;
    loop {
        // The buffer is taken when there is something to read and given back when there is not.
        from.readable().await?;
        let mut buffer = BytesMut::with_capacity(size);
        loop {
            buffer.clear();
            match from.try_read_buf(&mut buffer) {
                Ok(0) => return to.shutdown().await,
                Ok(read) => {
                    to.write_all(&buffer).await?;
                    count.fetch_add(read as u64, Ordering::Relaxed);
                    if read == size && size < BUFFER_BYTES_MAX {
                        size *= 2;
                        buffer = BytesMut::with_capacity(size);
                    } else if read < size / 2 {
                        // Probably all there was: wait before reading again, without a buffer.
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if size > BUFFER_BYTES {
            size /= 2;
        }
    }
}

#[cfg(test)]
mod tests;
