//! Carries bytes between two sides of a stream, both ways, until both have said all they had to say.
//!
//! Half-close, back-pressure and resets pass through: an end of one side's bytes is an end of the other's, nobody reads
//! faster than the slower side writes, and a side that was reset resets the other. Small pieces are copied through a
//! buffer of the thread; where both ends are plain sockets and the pieces are large, they are spliced (the kernel moves
//! them): copying small reads beats splicing them, and splicing large ones costs half the processor time. A waiting
//! stream holds no buffer.

use std::{
    cell::Cell,
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;

use crate::side::Side;
use pipe::{Carried, Pipe};

mod pipe;

/// What one read takes at most.
const BUFFER_BYTES: usize = 64 * 1024;
/// Reads of at least this much are large.
const LARGE_BYTES: usize = 24 * 1024;
/// So many large reads in a row begin splicing.
const LARGE_READS: u8 = 3;

/// Why a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// Both sides finished in order.
    Finished,
    /// A side was reset or broke; the other was reset too.
    Reset,
    /// `ended` came; both sides were reset.
    Cancelled,
}

/// What a relay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes from the first side to the second.
    pub forth: u64,
    /// Bytes from the second side to the first.
    pub back: u64,
    pub ended_by: EndedBy,
}

/// What a relay has carried since it last said so (bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carrying {
    /// From the first side to the second.
    pub forth: u64,
    /// From the second side to the first.
    pub back: u64,
}

thread_local! {
    /// The thread's buffer, empty while it is in use or was never needed.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer.
pub(crate) fn with_buffer<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = BUFFER.take();
    if buffer.is_empty() {
        buffer = vec![0; BUFFER_BYTES];
    }
    let result = use_it(&mut buffer);
    BUFFER.set(buffer);
    result
}

/// Relays between two sides until both directions ended, a side broke, or `ended` came. Both are closed when it
/// returns, and reset unless both finished; so they are when nobody polls it to its end, or the process is killed.
pub async fn relay(first: impl Side, second: impl Side, ended: impl Future<Output = ()>) -> Relayed {
    relay_counted(first, second, ended, |_| {}).await
}

/// The same, and says on the way what it carries: a stream may live for days.
pub async fn relay_counted(
    mut first: impl Side,
    mut second: impl Side,
    ended: impl Future<Output = ()>,
    carrying: impl Fn(Carrying),
) -> Relayed {
    first.guard();
    second.guard();
    let mut ended = pin!(ended);
    let (mut forth, mut back) = (Direction::default(), Direction::default());
    let mut told = Carrying::default();
    let ended_by = std::future::poll_fn(|cx| {
        if ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(EndedBy::Cancelled);
        }
        let (up, down) = with_buffer(|buffer| {
            let up = forth.poll(&mut first, &mut second, buffer, cx);
            (up, back.poll(&mut second, &mut first, buffer, cx))
        });
        let now = Carrying { forth: forth.bytes, back: back.bytes };
        if now != told {
            carrying(Carrying { forth: now.forth - told.forth, back: now.back - told.back });
            told = now;
        }
        match (up, down) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(EndedBy::Finished),
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(EndedBy::Reset),
            // A side whose end was read already tells of a reset in this way alone.
            (Poll::Ready(Ok(())), Poll::Pending) => first.poll_broken(cx).map(|()| EndedBy::Reset),
            (Poll::Pending, Poll::Ready(Ok(()))) => second.poll_broken(cx).map(|()| EndedBy::Reset),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        }
    })
    .await;
    if ended_by == EndedBy::Finished {
        first.release();
        second.release();
    } else {
        first.reset();
        second.reset();
    }
    Relayed { forth: forth.bytes, back: back.bytes, ended_by }
}

/// Comes when one of the tokens is cancelled; never without tokens.
pub async fn any_cancelled(tokens: impl IntoIterator<Item = CancellationToken>) {
    // Looks at a token only after that one has moved: this is polled with every piece of a stream.
    let mut waits: FuturesUnordered<_> = tokens.into_iter().map(CancellationToken::cancelled_owned).collect();
    if waits.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

#[derive(Debug, Default)]
struct Direction {
    state: State,
    bytes: u64,
    /// Read and not yet written.
    rest: Vec<u8>,
    /// Something was written since the last flush.
    is_unflushed: bool,
    large_reads: u8,
    pipe: Option<Pipe>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Carrying,
    Finishing,
    Finished,
}

impl Direction {
    /// Carries what there is; ready when the end was passed on.
    fn poll(
        &mut self,
        from: &mut impl Side,
        to: &mut impl Side,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let carried = self.carry(from, to, buffer, cx);
        if carried.is_pending() && self.is_unflushed && to.poll_flush(cx)?.is_ready() {
            self.is_unflushed = false;
        }
        carried
    }

    fn carry(
        &mut self,
        from: &mut impl Side,
        to: &mut impl Side,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.state {
                State::Finished => return Poll::Ready(Ok(())),
                State::Finishing => {
                    ready!(to.poll_finish(cx))?;
                    self.state = State::Finished;
                }
                State::Carrying if !self.rest.is_empty() => {
                    let written = ready!(to.poll_write(cx, &self.rest))?;
                    self.rest.drain(..written);
                    if self.rest.is_empty() {
                        self.rest = Vec::new();
                    }
                }
                State::Carrying => {
                    if let Some(carried) = ready!(self.splice(from, to, cx))? {
                        self.large_reads = 0;
                        if carried == Carried::End {
                            self.state = State::Finishing;
                        }
                        continue;
                    }
                    let read = ready!(from.poll_read(cx, buffer))?;
                    if read == 0 {
                        self.state = State::Finishing;
                        continue;
                    }
                    self.bytes += read as u64;
                    self.is_unflushed = true;
                    self.large_reads =
                        if read < LARGE_BYTES { 0 } else { (self.large_reads + 1).min(LARGE_READS) };
                    ready!(self.write(to, &buffer[..read], cx))?;
                }
            }
        }
    }

    /// Writes all of `bytes`, or keeps what the other side does not take yet.
    fn write(&mut self, to: &mut impl Side, mut bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !bytes.is_empty() {
            match to.poll_write(cx, bytes) {
                Poll::Ready(Ok(written)) => bytes = &bytes[written..],
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.rest = bytes.to_vec();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Splices as long as it is worth it; `None`: nothing is spliced now.
    fn splice(
        &mut self,
        from: &impl Side,
        to: &impl Side,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Carried>>> {
        if self.pipe.is_none() && self.large_reads < LARGE_READS {
            return Poll::Ready(Ok(None));
        }
        let (Some(from), Some(to)) = (from.reads_from(), to.writes_to()) else {
            return Poll::Ready(Ok(None));
        };
        let pipe = match &mut self.pipe {
            Some(pipe) => pipe,
            // Without a pipe (no descriptors left, say) copying goes on.
            none => match Pipe::take() {
                Ok(pipe) => none.insert(pipe),
                Err(_) => return Poll::Ready(Ok(None)),
            },
        };
        let carried = ready!(pipe.carry(from, to, &mut self.bytes, cx))?;
        if let Some(pipe) = self.pipe.take() {
            pipe.give_back();
        }
        Poll::Ready(Ok(Some(carried)))
    }
}

#[cfg(test)]
mod tests;
