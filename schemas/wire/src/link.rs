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
};

use schemas::frames::{
    FrameError, StreamOpen,
    link::{Header, Kind, STREAMS_MAX, open_bytes},
};

use crate::side::Carrier;

mod driver;
mod stream;

use driver::Driver;
pub use stream::LinkStream;
use stream::{Shared, Way};

/// Streams stop writing when that much waits for the connection, and go on when half of it has left (bytes).
const OUT_BYTES_MAX: usize = 256 * 1024;

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
    /// directions together since a short word was answered, or that have waited for credit, are named by [`Link::busy`]
    /// once; `u64::MAX`: none.
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

    /// Ends the link at once, as if its connection had broken.
    pub fn end(&self) {
        drop(Over(&self.0));
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
        let mut driver = Driver::new(self);
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

impl Inner {
    fn count(&self, shared: &Shared, way: Way, bytes: usize) {
        if self.busy_after < u64::MAX && shared.count(way, bytes, self.busy_after) {
            self.note_busy(shared.number);
        }
    }

    fn forget_finished(&self, shared: &Shared) {
        if shared.is_finished() {
            self.forget(shared.number);
        }
    }
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
