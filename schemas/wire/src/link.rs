//! A link: one data connection that carries many streams, each of which may move to a connection of its own.
//!
//! New and small streams are cheapest here: no connection is made for them, and pieces that come together leave in one
//! write. A stream that turns out to be busy moves: the hub sends [`schemas::frames::StreamAdopt`] on an idle data
//! connection, and each side sends `Moved` on the link and everything after it on that connection. The other side reads
//! the connection only when it has seen the marker and handed on what came before it; so nothing is lost, doubled or
//! reordered, in whatever order the two connections deliver.
//!
//! A link and its streams belong to one thread. Nobody can make the other side hold more than
//! [`WINDOW_BYTES`](schemas::frames::link::WINDOW_BYTES) for a stream, and a side that does not read the link stops the streams on it, and nothing else.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    io,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use schemas::frames::{
    FrameError, HEARTBEAT_MS, SILENCE_MS_MAX, StreamOpen, StreamRefused,
    link::{
        BODY_BYTES_MAX, HEADER_BYTES, Header, Kind, STREAMS_MAX, open_bytes, open_from, refused_bytes,
        refused_from,
    },
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::{
    relay::with_buffer,
    side::{Carrier, Side as _},
};

mod stream;

pub use stream::LinkStream;
use stream::Shared;

/// Streams stop writing when that much waits for the connection, and go on when half of it has left (bytes).
const OUT_BYTES_MAX: usize = 256 * 1024;
/// A peer that makes us answer this much without reading any of it breaks the link (bytes).
const OUT_BYTES_END: usize = 4 * 1024 * 1024;
/// Streams that were opened by the other side and not yet taken.
const ARRIVALS_MAX: usize = STREAMS_MAX;

/// Which end of a link this is: each numbers the streams that it opens in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Hub,
    Agent,
}

impl End {
    const fn first(self) -> u32 {
        match self {
            Self::Hub => 2,
            Self::Agent => 1,
        }
    }
    const fn owns(self, stream: u32) -> bool {
        stream % 2 == self.first() % 2
    }
}

/// Why a link broke.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("stream {0} is opened by the wrong side or a second time")]
    Opened(u32),
    #[error("stream {0} sent more than it was given credit for")]
    Window(u32),
    #[error("the other side does not read")]
    NotRead,
    #[error("nothing was heard for too long")]
    Silent,
}

/// A stream that the other side opened.
#[derive(Debug)]
pub struct Arrival {
    pub open: StreamOpen,
    pub stream: LinkStream,
}

/// A link as its streams and their openers know it. Cheap to clone; for one thread.
#[derive(Debug, Clone)]
pub struct Link(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    end: End,
    streams: RefCell<HashMap<u32, Rc<Shared>>>,
    last: Cell<u32>,
    out: RefCell<Vec<u8>>,
    /// Who wait for room in `out`.
    blocked: RefCell<Vec<Waker>>,
    arrivals: RefCell<VecDeque<Arrival>>,
    arrived: RefCell<Option<Waker>>,
    driver: RefCell<Option<Waker>>,
    over: Cell<bool>,
    /// No stream is opened any more; the link ends with its last one.
    leaving: Cell<bool>,
    busy_after: u64,
    busy: RefCell<Vec<u32>>,
}

impl Link {
    /// A link that carries nothing before [`Link::drive`] runs. Streams that have carried `busy_after` bytes in both
    /// directions together are named by [`Link::busy`] once.
    pub fn new(end: End, busy_after: u64) -> Self {
        Self(Rc::new(Inner {
            end,
            streams: RefCell::default(),
            last: Cell::new(end.first()),
            out: RefCell::default(),
            blocked: RefCell::default(),
            arrivals: RefCell::default(),
            arrived: RefCell::default(),
            driver: RefCell::default(),
            over: Cell::new(false),
            leaving: Cell::new(false),
            busy_after,
            busy: RefCell::default(),
        }))
    }

    /// Opens a stream; bytes may be written at once. `None`: the link is over or has no room.
    pub fn open(&self, open: &StreamOpen) -> Option<LinkStream> {
        let inner = &self.0;
        if inner.over.get() || inner.leaving.get() || inner.streams.borrow().len() >= STREAMS_MAX {
            return None;
        }
        let mut streams = inner.streams.borrow_mut();
        let mut number = inner.last.get();
        // There is room, so one is free; numbers come again after two thousand million streams.
        loop {
            number = number.wrapping_add(2);
            if number != 0 && !streams.contains_key(&number) {
                break;
            }
        }
        inner.last.set(number);
        let shared = Rc::new(Shared::new(number, false));
        streams.insert(number, Rc::clone(&shared));
        drop(streams);
        inner.frame(number, Kind::Open, &open_bytes(open));
        Some(LinkStream::new(Rc::clone(inner), shared))
    }

    /// The next stream that the other side opens; `None`: the link is over.
    pub async fn arrival(&self) -> Option<Arrival> {
        std::future::poll_fn(|cx| {
            let next = self.0.arrivals.borrow_mut().pop_front();
            if next.is_some() || self.0.over.get() {
                return Poll::Ready(next);
            }
            *self.0.arrived.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Streams that have become busy since the last call, by number: worth a connection of their own.
    pub fn busy(&self) -> Vec<u32> {
        std::mem::take(&mut *self.0.busy.borrow_mut())
    }

    /// Gives a stream a connection of its own. `false`: the stream is over, or has one.
    pub fn adopt(&self, stream: u32, carrier: Carrier) -> bool {
        let Some(shared) = self.0.streams.borrow().get(&stream).map(Rc::clone) else { return false };
        let given = shared.give(carrier);
        self.0.forget_finished(&shared);
        given
    }

    /// Opens no more streams, and ends the link when the last one has ended.
    pub fn leave(&self) {
        self.0.leaving.set(true);
        self.0.wake_driver();
    }

    /// Whether the link has ended.
    pub fn is_over(&self) -> bool {
        self.0.over.get()
    }

    /// How many streams it carries.
    pub fn streams(&self) -> usize {
        self.0.streams.borrow().len()
    }

    /// Carries frames over `carrier` until the other side ends the connection, the link has left, or something breaks.
    /// Every stream that is still on the link is then reset. `on_busy` is called when [`Link::busy`] has news.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn drive(&self, mut carrier: Carrier, on_busy: impl Fn()) -> Result<(), LinkError> {
        let mut driver =
            Driver { link: self, partial: Vec::new(), written: 0, is_unflushed: false, pulse: Pulse::new() };
        let _over = Over(&self.0);
        std::future::poll_fn(|cx| {
            let polled = driver.poll(&mut carrier, cx);
            if !self.0.busy.borrow().is_empty() {
                on_busy();
            }
            polled
        })
        .await
    }
}

/// Ends the streams with the link, whyever it ends.
struct Over<'a>(&'a Inner);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.set(true);
        let streams = std::mem::take(&mut *self.0.streams.borrow_mut());
        for shared in streams.values() {
            shared.break_off();
        }
        drop(std::mem::take(&mut *self.0.arrivals.borrow_mut()));
        if let Some(waker) = self.0.arrived.borrow_mut().take() {
            waker.wake();
        }
        *self.0.out.borrow_mut() = Vec::new();
        self.0.wake_blocked();
    }
}

impl Inner {
    fn frame(&self, stream: u32, kind: Kind, body: &[u8]) {
        if self.over.get() {
            return;
        }
        {
            let mut out = self.out.borrow_mut();
            out.extend_from_slice(&Header { stream, kind, length: body.len() }.bytes());
            out.extend_from_slice(body);
        }
        self.wake_driver();
    }

    fn has_room(&self) -> bool {
        self.out.borrow().len() < OUT_BYTES_MAX
    }

    fn wait_for_room(&self, cx: &Context<'_>) {
        self.blocked.borrow_mut().push(cx.waker().clone());
    }

    fn wake_driver(&self) {
        if let Some(waker) = &*self.driver.borrow() {
            waker.wake_by_ref();
        }
    }

    fn wake_blocked(&self) {
        for waker in self.blocked.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    fn forget(&self, stream: u32) {
        self.streams.borrow_mut().remove(&stream);
        if self.leaving.get() {
            self.wake_driver();
        }
    }

    fn note_busy(&self, stream: u32) {
        self.busy.borrow_mut().push(stream);
        self.wake_driver();
    }
}

/// The connection's side of a link.
struct Driver<'a> {
    link: &'a Link,
    /// The beginning of a frame whose rest has not come yet.
    partial: Vec<u8>,
    /// How much of the link's `out` has left.
    written: usize,
    is_unflushed: bool,
    pulse: Pulse,
}

/// Tells the other side now and then that this one is there, and notices when it is not. Looked at in beats, since a look
/// at the clock for every frame would cost more than the frame.
#[derive(Debug)]
struct Pulse {
    beats: Interval,
    has_spoken: bool,
    silent_beats: u64,
}

impl Pulse {
    fn new() -> Self {
        let every = Duration::from_millis(HEARTBEAT_MS);
        let mut beats = interval_at(Instant::now() + every, every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { beats, has_spoken: false, silent_beats: 0 }
    }

    fn poll(&mut self, inner: &Inner, cx: &mut Context<'_>) -> Result<(), LinkError> {
        while self.beats.poll_tick(cx).is_ready() {
            self.silent_beats += 1;
            if self.silent_beats > SILENCE_MS_MAX / HEARTBEAT_MS {
                return Err(LinkError::Silent);
            }
            if !std::mem::take(&mut self.has_spoken) {
                inner.frame(0, Kind::Ping, &[]);
            }
        }
        Ok(())
    }
}

impl Driver<'_> {
    fn poll(&mut self, carrier: &mut Carrier, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let inner = &self.link.0;
        {
            let mut waker = inner.driver.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        self.pulse.poll(inner, cx)?;
        loop {
            let read = self.read(carrier, cx)?;
            let write = self.write(carrier, cx)?;
            if read == Poll::Ready(Heard::End) {
                return Poll::Ready(Ok(()));
            }
            if inner.leaving.get() && inner.streams.borrow().is_empty() && write.is_ready() {
                return Poll::Ready(Ok(()));
            }
            if read.is_pending() {
                if self.is_unflushed && carrier.poll_flush(cx).map_err(LinkError::Io)?.is_ready() {
                    self.is_unflushed = false;
                }
                return Poll::Pending;
            }
        }
    }

    /// Reads what there is, once.
    fn read(&mut self, carrier: &mut Carrier, cx: &mut Context<'_>) -> Result<Poll<Heard>, LinkError> {
        with_buffer(|buffer| {
            let before = self.partial.len();
            buffer[..before].copy_from_slice(&self.partial);
            let read = match carrier.poll_read(cx, &mut buffer[before..]) {
                Poll::Ready(Ok(0)) => return Ok(Poll::Ready(Heard::End)),
                Poll::Ready(Ok(read)) => read,
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => return Ok(Poll::Pending),
            };
            self.pulse.silent_beats = 0;
            let bytes = &buffer[..before + read];
            let used = self.take_frames(bytes)?;
            self.partial.clear();
            self.partial.extend_from_slice(&bytes[used..]);
            if self.partial.is_empty() {
                self.partial = Vec::new();
            }
            Ok(Poll::Ready(Heard::Frames))
        })
    }

    /// Hands on the whole frames of `bytes`; how much of it they were.
    fn take_frames(&self, bytes: &[u8]) -> Result<usize, LinkError> {
        let mut at = 0;
        while let Some(header) = Header::read(&bytes[at..])? {
            let body_at = at + HEADER_BYTES;
            let Some(body) = bytes.get(body_at..body_at + header.length) else { break };
            self.hear(header, body)?;
            at = body_at + header.length;
        }
        Ok(at)
    }

    fn hear(&self, header: Header, body: &[u8]) -> Result<(), LinkError> {
        let inner = &self.link.0;
        let number = header.stream;
        if header.kind == Kind::Open {
            return self.hear_open(number, body);
        }
        // A frame for a stream that has ended here was on its way; a ping is for none.
        let Some(shared) = inner.streams.borrow().get(&number).map(Rc::clone) else { return Ok(()) };
        match header.kind {
            Kind::Open | Kind::Ping => {}
            Kind::Accepted => {
                shared.accept();
                inner.count(&shared, 0);
            }
            Kind::Refused => {
                shared.refuse(refused_from(body)?);
                inner.forget(number);
            }
            Kind::Data => {
                if !shared.receive(body) {
                    return Err(LinkError::Window(number));
                }
                inner.count(&shared, body.len());
            }
            Kind::End => {
                shared.end();
                inner.forget_finished(&shared);
            }
            Kind::Reset => {
                shared.break_off();
                inner.forget(number);
            }
            Kind::Credit => {
                let credit = body
                    .try_into()
                    .map_err(|_| FrameError::Body { kind: 7, reason: "credit is four bytes".to_owned() })?;
                if !shared.credit(u32::from_be_bytes(credit)) {
                    return Err(LinkError::Window(number));
                }
            }
            Kind::Moved => {
                shared.moved();
                inner.forget_finished(&shared);
            }
        }
        Ok(())
    }

    fn hear_open(&self, number: u32, body: &[u8]) -> Result<(), LinkError> {
        let inner = &self.link.0;
        if inner.end.owns(number) || inner.streams.borrow().contains_key(&number) {
            return Err(LinkError::Opened(number));
        }
        let open = open_from(body)?;
        let is_full =
            inner.streams.borrow().len() >= STREAMS_MAX || inner.arrivals.borrow().len() >= ARRIVALS_MAX;
        if is_full || inner.leaving.get() {
            let refused = StreamRefused {
                code: schemas::frames::RefusalCode::Busy,
                message: "the link has no room for another stream".to_owned(),
            };
            inner.frame(number, Kind::Refused, &refused_bytes(&refused));
            return Ok(());
        }
        let shared = Rc::new(Shared::new(number, true));
        inner.streams.borrow_mut().insert(number, Rc::clone(&shared));
        let stream = LinkStream::new(Rc::clone(inner), shared);
        inner.arrivals.borrow_mut().push_back(Arrival { open, stream });
        if let Some(waker) = inner.arrived.borrow_mut().take() {
            waker.wake();
        }
        Ok(())
    }

    /// Writes what waits, as far as the connection takes it.
    fn write(&mut self, carrier: &mut Carrier, cx: &mut Context<'_>) -> Result<Poll<()>, LinkError> {
        let inner = &self.link.0;
        let mut out = inner.out.borrow_mut();
        let result = loop {
            if self.written == out.len() {
                out.clear();
                self.written = 0;
                // What a burst needed is given back.
                out.shrink_to(BODY_BYTES_MAX);
                break Poll::Ready(());
            }
            match carrier.poll_write(cx, &out[self.written..]) {
                Poll::Ready(Ok(written)) => {
                    self.written += written;
                    self.is_unflushed = true;
                    self.pulse.has_spoken = true;
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => {
                    // Moved up rarely: only when more has left than waits.
                    if self.written > out.len() / 2 {
                        out.drain(..self.written);
                        self.written = 0;
                    }
                    break Poll::Pending;
                }
            }
        };
        if out.len() > OUT_BYTES_END {
            return Err(LinkError::NotRead);
        }
        let is_low = out.len() - self.written <= OUT_BYTES_MAX / 2;
        drop(out);
        if is_low {
            inner.wake_blocked();
        }
        Ok(result)
    }
}

impl Inner {
    fn count(&self, shared: &Shared, bytes: usize) {
        if shared.count(bytes as u64, self.busy_after) {
            self.note_busy(shared.number);
        }
    }

    fn forget_finished(&self, shared: &Shared) {
        if shared.is_finished() {
            self.forget(shared.number);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Frames,
    End,
}

/// A link that others may hold without keeping it.
#[derive(Debug, Clone)]
pub struct WeakLink(Weak<Inner>);

impl Link {
    pub fn downgrade(&self) -> WeakLink {
        WeakLink(Rc::downgrade(&self.0))
    }
}

impl WeakLink {
    pub fn upgrade(&self) -> Option<Link> {
        self.0.upgrade().map(Link)
    }
}

#[cfg(test)]
mod tests;
