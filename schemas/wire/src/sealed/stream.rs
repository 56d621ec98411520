//! One end of a sealed stream: records out, records in.

use std::{
    cell::RefCell,
    io,
    ops::Range,
    task::{Context, Poll, ready},
};

use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};

use super::{UNKNOWN_SESSION, read_exact};
use crate::side::Side;

/// What one record holds at most (bytes).
const RECORD_BYTES_MAX: usize = 64 * 1024;
pub(super) const HEADER_BYTES: usize = 4;
pub(super) const TAG_BYTES: usize = 16;
/// The header's bit that says: nothing follows.
const LAST: u32 = 1 << 31;

/// What the exposing side's first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeted {
    /// It has the keys.
    Known,
    /// It does not know the session: shake hands anew.
    Unknown,
}

/// An end of a sealed stream over any other side.
pub struct Sealed<S> {
    side: S,
    own: Numbered,
    other: Numbered,
    /// Sealed and not yet written, from `out_at` on.
    out: Vec<u8>,
    out_at: usize,
    out_ended: bool,
    /// Read: of constant length while there is anything in it.
    inbox: Vec<u8>,
    /// Where the first record begins that was not opened, and where what was read ends.
    at: usize,
    filled: usize,
    /// Opened in place and not yet taken.
    plain: Range<usize>,
    in_ended: bool,
}

impl<S> std::fmt::Debug for Sealed<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").field("in_ended", &self.in_ended).finish_non_exhaustive()
    }
}

/// A key and the number of its next record.
struct Numbered {
    key: LessSafeKey,
    next: u64,
}

impl Numbered {
    fn nonce(&mut self) -> io::Result<Nonce> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or(io::ErrorKind::InvalidData)?;
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the stream was changed on its way")
}

impl<S: Side> Sealed<S> {
    pub(super) fn new(side: S, own: LessSafeKey, other: LessSafeKey) -> Self {
        Self {
            side,
            own: Numbered { key: own, next: 0 },
            other: Numbered { key: other, next: 0 },
            out: Vec::new(),
            out_at: 0,
            out_ended: false,
            inbox: Vec::new(),
            at: 0,
            filled: 0,
            plain: 0..0,
            in_ended: false,
        }
    }

    /// What carries the stream.
    pub fn into_side(self) -> S {
        self.side
    }

    /// The exposing side's first, empty record: it proves that it has the keys.
    ///
    /// # Errors
    /// The stream's.
    pub async fn greet(&mut self) -> io::Result<()> {
        self.seal(&[], 0)?;
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Waits for the exposing side's first record.
    ///
    /// # Errors
    /// The stream's; [`io::ErrorKind::InvalidData`]: somebody on the way changed it.
    pub async fn greeted(&mut self) -> io::Result<Greeted> {
        let mut header = [0; HEADER_BYTES];
        read_exact(&mut self.side, &mut header[..1]).await?;
        if header[0] == UNKNOWN_SESSION {
            return Ok(Greeted::Unknown);
        }
        read_exact(&mut self.side, &mut header[1..]).await?;
        if u32::from_be_bytes(header) as usize != TAG_BYTES {
            return Err(broken());
        }
        let mut tag = [0; TAG_BYTES];
        read_exact(&mut self.side, &mut tag).await?;
        let nonce = self.other.nonce()?;
        self.other.key.open_in_place(nonce, Aad::from(header), &mut tag).map_err(|_| broken())?;
        Ok(Greeted::Known)
    }

    /// Seals one record behind what waits to be written.
    fn seal(&mut self, bytes: &[u8], flag: u32) -> io::Result<()> {
        let length = u32::try_from(bytes.len() + TAG_BYTES).expect("a record is short");
        let header = (length | flag).to_be_bytes();
        self.out.extend_from_slice(&header);
        let at = self.out.len();
        self.out.extend_from_slice(bytes);
        let nonce = self.own.nonce()?;
        let tag = self
            .own
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(header), &mut self.out[at..])
            .map_err(|_| broken())?;
        self.out.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Writes what is sealed.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out_at < self.out.len() {
            let written = ready!(self.side.poll_write(cx, &self.out[self.out_at..]))?;
            self.out_at += written;
        }
        self.out.clear();
        self.out_at = 0;
        Poll::Ready(Ok(()))
    }

    /// The first record's header and its end in `inbox`, once the header is there.
    fn record(&self) -> io::Result<Option<([u8; HEADER_BYTES], usize)>> {
        let Some(header) = self.inbox[self.at..self.filled].first_chunk::<HEADER_BYTES>().copied() else {
            return Ok(None);
        };
        let length = (u32::from_be_bytes(header) & !LAST) as usize;
        if !(TAG_BYTES..=RECORD_BYTES_MAX + TAG_BYTES).contains(&length) {
            return Err(broken());
        }
        Ok(Some((header, self.at + HEADER_BYTES + length)))
    }

    /// Opens the first record if it is whole; whether it was.
    fn open_one(&mut self) -> io::Result<bool> {
        let Some((header, end)) = self.record()? else { return Ok(false) };
        if self.filled < end {
            return Ok(false);
        }
        let nonce = self.other.nonce()?;
        let begin = self.at + HEADER_BYTES;
        let record = &mut self.inbox[begin..end];
        let length =
            self.other.key.open_in_place(nonce, Aad::from(header), record).map_err(|_| broken())?.len();
        self.plain = begin..begin + length;
        self.at = end;
        self.in_ended = u32::from_be_bytes(header) & LAST != 0;
        if self.in_ended && self.at < self.filled {
            return Err(broken());
        }
        Ok(true)
    }

    /// Reads on: in bulk exactly to the end of the record and the next one's header, so that nothing has to be moved.
    fn poll_in(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.at == self.filled {
            (self.at, self.filled) = (0, 0);
        } else if self.at > 0 {
            self.inbox.copy_within(self.at..self.filled, 0);
            (self.at, self.filled) = (0, self.filled - self.at);
        }
        let target = match self.record()? {
            Some((_, end)) => end + HEADER_BYTES,
            None => INBOX_BYTES,
        };
        if self.inbox.is_empty() {
            self.inbox = take_inbox();
        }
        let read = ready!(self.side.poll_read(cx, &mut self.inbox[self.filled..target]))?;
        self.filled += read;
        Poll::Ready(Ok(read))
    }
}

/// A whole record and the header of the next one.
const INBOX_BYTES: usize = RECORD_BYTES_MAX + TAG_BYTES + 2 * HEADER_BYTES;
/// Inboxes that a thread keeps for the next stream.
const SPARE_MAX: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn take_inbox() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; INBOX_BYTES])
}

fn give_back(inbox: Vec<u8>) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX && !inbox.is_empty() {
            spare.push(inbox);
        }
    });
}

impl<S: Side> Side for Sealed<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if !self.plain.is_empty() {
                let taken = self.plain.len().min(buffer.len());
                let end = self.plain.start + taken;
                buffer[..taken].copy_from_slice(&self.inbox[self.plain.start..end]);
                self.plain.start = end;
                return Poll::Ready(Ok(taken));
            }
            if self.in_ended {
                return Poll::Ready(Ok(0));
            }
            if !self.inbox.is_empty() && self.open_one()? {
                continue;
            }
            match self.poll_in(cx) {
                // Without the last record it is cut off.
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.filled == 0 {
                        give_back(std::mem::take(&mut self.inbox));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        let taken = bytes.len().min(RECORD_BYTES_MAX);
        self.seal(&bytes[..taken], 0)?;
        // What the side does not take now leaves with the next write or flush.
        if let Poll::Ready(result) = self.poll_out(cx) {
            result?;
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        self.out.shrink_to(IDLE_BYTES_KEPT);
        self.side.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.out_ended {
            self.out_ended = true;
            self.seal(&[], LAST)?;
        }
        ready!(self.poll_out(cx))?;
        ready!(self.side.poll_flush(cx))?;
        self.side.poll_finish(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.side.poll_broken(cx)
    }

    fn reset(&mut self) {
        self.side.reset();
    }
}

/// A stream that waits keeps no more room than this (bytes).
const IDLE_BYTES_KEPT: usize = 512;
