//! A pipe through which the kernel moves pages from one socket to another.

use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    task::{Context, Poll, ready},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

/// What a pipe is asked to hold: a few large reads. The system may give less.
const PIPE_BYTES: usize = 512 * 1024;
/// Pieces under this size are small.
const SMALL_BYTES: usize = 8 * 1024;
/// So many small pieces in a row end splicing.
const SMALL_PIECES: u8 = 8;
/// Empty pipes that a thread keeps for the next stream.
const SPARE_MAX: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) };
}

/// Why splicing paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carried {
    /// The pieces have become small; the pipe is empty.
    Small,
    /// The first socket has said all; the pipe is empty.
    End,
}

/// The pipe and what it holds.
#[derive(Debug)]
pub(super) struct Pipe {
    ends: (OwnedFd, OwnedFd),
    held: usize,
    small_pieces: u8,
}

impl Pipe {
    pub(super) fn take() -> io::Result<Self> {
        let ends = match SPARE.with_borrow_mut(Vec::pop) {
            Some(ends) => ends,
            None => {
                let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                // The default (64 KiB) does as well, only slower.
                let _ = fcntl_setpipe_size(&ends.1, PIPE_BYTES);
                ends
            }
        };
        Ok(Self { ends, held: 0, small_pieces: 0 })
    }

    /// Keeps an empty pipe for the next stream of this thread.
    pub(super) fn give_back(self) {
        if self.held == 0 {
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < SPARE_MAX {
                    spare.push(self.ends);
                }
            });
        }
    }

    /// Moves bytes until they come in small pieces or end, counting them in `moved`.
    pub(super) fn carry(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        moved: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Carried>> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        loop {
            if self.held > 0 {
                ready!(to.poll_write_ready(cx))?;
                let out = || Ok(splice(&self.ends.0, None, to, None, self.held, flags)?);
                match to.try_io(Interest::WRITABLE, out) {
                    Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Ok(written) => self.held -= written,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
                continue;
            }
            if self.small_pieces >= SMALL_PIECES {
                return Poll::Ready(Ok(Carried::Small));
            }
            ready!(from.poll_read_ready(cx))?;
            let take = || Ok(splice(from, None, &self.ends.1, None, PIPE_BYTES, flags)?);
            match from.try_io(Interest::READABLE, take) {
                Ok(0) => return Poll::Ready(Ok(Carried::End)),
                Ok(read) => {
                    *moved += read as u64;
                    self.held = read;
                    self.small_pieces = if read < SMALL_BYTES { self.small_pieces + 1 } else { 0 };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
