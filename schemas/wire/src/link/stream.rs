//! One stream of a link, before, while and after it moves to a connection of its own.

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use schemas::frames::{
    RefusalCode, StreamRefused,
    link::{BODY_BYTES_MAX, Kind, WINDOW_BYTES, refused_bytes},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::Inner;
use crate::side::{Carrier, Side};

/// An empty inbox keeps no more room than this (bytes).
const INBOX_BYTES_KEPT: usize = 4 * 1024;
/// Whoever says less than this before the other side speaks again is in a conversation (bytes).
const WORD_BYTES_MAX: u64 = 8 * 1024;

/// Which way bytes go, as this side sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// What a stream has carried since a short word was last answered. Conversations (requests and small answers, queries and
/// rows) are cheapest on the link however long they go on; what pours one way is not, nor what waits for credit.
#[derive(Debug, Clone, Copy, Default)]
struct Poured {
    bytes: u64,
    way: Option<Way>,
    word_bytes: u64,
}

impl Poured {
    fn and(self, way: Way, bytes: u64) -> Self {
        let is_turn = self.way != Some(way) && bytes > 0;
        let was_word = is_turn && self.word_bytes < WORD_BYTES_MAX;
        Self {
            bytes: if was_word { 0 } else { self.bytes }.saturating_add(bytes),
            way: if bytes > 0 { Some(way) } else { self.way },
            word_bytes: if is_turn { 0 } else { self.word_bytes }.saturating_add(bytes),
        }
    }
}

/// What a stream and the link's connection share.
pub(super) struct Shared {
    pub(super) number: u32,
    inbox: RefCell<Inbox>,
    /// How much may be sent.
    credit: Cell<u32>,
    poured: Cell<Poured>,
    /// It waited for credit.
    was_stalled: Cell<bool>,
    was_busy: Cell<bool>,
    /// The other side opened it or has accepted it.
    is_known: Cell<bool>,
    in_end: Cell<Option<InEnd>>,
    out_end: Cell<bool>,
    broken: Cell<bool>,
    opened: RefCell<Opened>,
    /// A connection of its own that the stream has not taken yet, and whether there ever was one.
    given: RefCell<Option<Carrier>>,
    was_given: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
    watcher: RefCell<Option<Waker>>,
    opener: RefCell<Option<Waker>>,
}

#[derive(Default)]
struct Inbox {
    bytes: Vec<u8>,
    at: usize,
    /// Read since credit was last given.
    read: u32,
}

/// How the other side's direction ended on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InEnd {
    Finished,
    Moved,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Opened {
    Waiting,
    Accepted,
    Refused(StreamRefused),
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Shared {
    /// A stream that the other side already knows, or will.
    pub(super) fn new(number: u32, is_known: bool) -> Self {
        Self {
            number,
            was_busy: Cell::new(false),
            is_known: Cell::new(is_known),
            inbox: RefCell::default(),
            credit: Cell::new(WINDOW_BYTES),
            poured: Cell::default(),
            was_stalled: Cell::new(false),
            in_end: Cell::new(None),
            out_end: Cell::new(false),
            broken: Cell::new(false),
            opened: RefCell::new(Opened::Waiting),
            given: RefCell::new(None),
            was_given: Cell::new(false),
            reader: RefCell::default(),
            writer: RefCell::default(),
            watcher: RefCell::default(),
            opener: RefCell::default(),
        }
    }

    async fn opened(&self) -> Result<(), Option<StreamRefused>> {
        std::future::poll_fn(|cx| {
            match &*self.opened.borrow() {
                Opened::Accepted => return Poll::Ready(Ok(())),
                Opened::Refused(refused) => return Poll::Ready(Err(Some(refused.clone()))),
                Opened::Waiting if self.broken.get() => return Poll::Ready(Err(None)),
                Opened::Waiting => {}
            }
            wait(&self.opener, cx);
            Poll::Pending
        })
        .await
    }

    pub(super) fn accept(&self) {
        *self.opened.borrow_mut() = Opened::Accepted;
        self.is_known.set(true);
        wake(&self.opener);
    }

    pub(super) fn refuse(&self, refused: StreamRefused) {
        *self.opened.borrow_mut() = Opened::Refused(refused);
        self.break_off();
    }

    /// `false`: more than there was credit for, or after the end.
    pub(super) fn receive(&self, bytes: &[u8]) -> bool {
        let mut inbox = self.inbox.borrow_mut();
        let held = inbox.bytes.len() - inbox.at;
        if self.in_end.get().is_some() || held + bytes.len() > WINDOW_BYTES as usize {
            return false;
        }
        if inbox.at > 0 {
            let at = inbox.at;
            inbox.bytes.drain(..at);
            inbox.at = 0;
        }
        inbox.bytes.extend_from_slice(bytes);
        drop(inbox);
        wake(&self.reader);
        true
    }

    pub(super) fn end(&self) {
        self.in_end.set(Some(InEnd::Finished));
        wake(&self.reader);
    }

    pub(super) fn moved(&self) {
        self.in_end.set(Some(InEnd::Moved));
        wake(&self.reader);
    }

    pub(super) fn break_off(&self) {
        self.broken.set(true);
        for waker in [&self.reader, &self.writer, &self.watcher, &self.opener] {
            wake(waker);
        }
    }

    /// `false`: more credit than there can be.
    pub(super) fn credit(&self, more: u32) -> bool {
        let credit = self.credit.get().saturating_add(more);
        self.credit.set(credit);
        wake(&self.writer);
        credit <= WINDOW_BYTES
    }

    pub(super) fn give(&self, carrier: Carrier) -> bool {
        if self.broken.get() || self.out_end.get() && self.in_end.get() == Some(InEnd::Finished) {
            return false;
        }
        if self.was_given.replace(true) {
            return false;
        }
        *self.given.borrow_mut() = Some(carrier);
        wake(&self.reader);
        wake(&self.writer);
        true
    }

    /// Counts; whether it has just become busy. Only a stream that the other side is known to know is: a connection for
    /// it could overtake its opening.
    pub(super) fn count(&self, way: Way, bytes: usize, busy_after: u64) -> bool {
        self.poured.set(self.poured.get().and(way, bytes as u64));
        let is_much = self.was_stalled.get() || self.poured.get().bytes >= busy_after;
        let is_busy = is_much && self.is_known.get() && !self.was_busy.get();
        self.was_busy.set(self.was_busy.get() || is_busy);
        is_busy
    }

    /// Neither direction has anything more to say on the link, and no connection for the stream is awaited.
    pub(super) fn is_finished(&self) -> bool {
        self.out_end.get()
            && match self.in_end.get() {
                None => false,
                Some(InEnd::Finished) => true,
                Some(InEnd::Moved) => self.was_given.get(),
            }
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    let waker = waker.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn wait(place: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut place = place.borrow_mut();
    if !place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}

/// One end of a stream. Dropped before both directions have ended, it resets the stream.
#[derive(Debug)]
pub struct LinkStream {
    link: Rc<Inner>,
    shared: Rc<Shared>,
    /// Its own connection, once it has one.
    carrier: Option<Carrier>,
    /// What is written goes to `carrier`.
    writes_own: bool,
    /// As [`Side::guard`] says, of a connection that may come.
    is_guarded: bool,
}

impl LinkStream {
    pub(super) fn new(link: Rc<Inner>, shared: Rc<Shared>) -> Self {
        Self { link, shared, carrier: None, writes_own: false, is_guarded: false }
    }

    /// The stream's number on its link.
    pub fn number(&self) -> u32 {
        self.shared.number
    }

    /// Tells the opener that the target was dialled.
    pub fn accept(&self) {
        self.link.frame(self.shared.number, Kind::Accepted, &[]);
    }

    /// Tells the opener why there is no stream.
    pub fn refuse(self, code: RefusalCode, mut message: String) {
        message.truncate(message.floor_char_boundary(1_024));
        if !self.shared.broken.replace(true) {
            let refused = refused_bytes(&StreamRefused { code, message });
            self.link.frame(self.shared.number, Kind::Refused, &refused);
            self.link.forget(self.shared.number);
        }
    }

    /// Waits for the other side's word.
    ///
    /// # Errors
    /// `Some`: it was refused; `None`: the link or the stream broke before.
    pub async fn opened(&self) -> Result<(), Option<StreamRefused>> {
        self.shared.opened().await
    }

    /// Tells the opener of `back` when this stream, which leads on from it, was accepted.
    pub fn accepts(&self, back: &Self) -> impl Future<Output = ()> + 'static {
        let (forth, link, number) = (Rc::clone(&self.shared), Rc::clone(&back.link), back.shared.number);
        async move {
            if forth.opened().await.is_ok() {
                link.frame(number, Kind::Accepted, &[]);
            }
        }
    }

    /// Whether the link or the other side has broken it off.
    pub fn is_broken(&self) -> bool {
        self.shared.broken.get()
    }

    /// Why the other side refused it, if it did.
    pub fn refusal(&self) -> Option<StreamRefused> {
        match &*self.shared.opened.borrow() {
            Opened::Refused(refused) => Some(refused.clone()),
            Opened::Waiting | Opened::Accepted => None,
        }
    }

    /// Moves to the connection that was given, if one was.
    fn take_carrier(&mut self) {
        let Some(mut carrier) = self.shared.given.borrow_mut().take() else { return };
        if self.is_guarded {
            carrier.guard();
        }
        self.carrier = Some(carrier);
        if !self.shared.out_end.replace(true) {
            self.writes_own = true;
            self.link.frame(self.shared.number, Kind::Moved, &[]);
            self.link.forget_finished(&self.shared);
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.shared.broken.get() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    /// Hands over what came on the link, at most `room` bytes; 0: nothing is there.
    fn take(&self, room: usize, put: impl FnOnce(&[u8])) -> usize {
        let mut inbox = self.shared.inbox.borrow_mut();
        let held = &inbox.bytes[inbox.at..];
        let taken = held.len().min(room);
        put(&held[..taken]);
        inbox.at += taken;
        if inbox.at == inbox.bytes.len() {
            inbox.at = 0;
            inbox.bytes.clear();
            inbox.bytes.shrink_to(INBOX_BYTES_KEPT);
        }
        // Bounded by the window.
        inbox.read += u32::try_from(taken).expect("a window of bytes");
        if inbox.read >= WINDOW_BYTES / 2 && self.shared.in_end.get().is_none() {
            let credit = std::mem::take(&mut inbox.read).to_be_bytes();
            drop(inbox);
            self.link.frame(self.shared.number, Kind::Credit, &credit);
        }
        taken
    }

    fn is_inbox_empty(&self) -> bool {
        self.shared.inbox.borrow().bytes.is_empty()
    }
}

/// What there is to read.
enum Readable<'a> {
    /// So much was handed over; 0: the end.
    Taken(usize),
    /// What this connection has.
    Own(&'a mut Carrier),
}

impl LinkStream {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        put: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<Readable<'_>>> {
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        self.take_carrier();
        let taken = self.take(room, put);
        if taken > 0 {
            coop.made_progress();
            return Poll::Ready(Ok(Readable::Taken(taken)));
        }
        match self.shared.in_end.get() {
            Some(InEnd::Finished) => return Poll::Ready(Ok(Readable::Taken(0))),
            Some(InEnd::Moved) if self.carrier.is_some() => {
                let carrier = self.carrier.as_mut().expect("just seen");
                return Poll::Ready(Ok(Readable::Own(carrier)));
            }
            Some(InEnd::Moved) | None => {}
        }
        self.check()?;
        wait(&self.shared.reader, cx);
        Poll::Pending
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        match ready!(self.get_mut().poll_take(cx, room, |bytes| buffer.put_slice(bytes)))? {
            Readable::Taken(_) => Poll::Ready(Ok(())),
            Readable::Own(carrier) => AsyncRead::poll_read(Pin::new(carrier), cx, buffer),
        }
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Side::poll_write(self.get_mut(), cx, bytes)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Side::poll_flush(self.get_mut(), cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Side::poll_finish(self.get_mut(), cx)
    }
}

impl Side for LinkStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let room = buffer.len();
        match ready!(self.poll_take(cx, room, |bytes| buffer[..bytes.len()].copy_from_slice(bytes)))? {
            Readable::Taken(taken) => Poll::Ready(Ok(taken)),
            Readable::Own(carrier) => Side::poll_read(carrier, cx, buffer),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take_carrier();
        if self.writes_own
            && let Some(carrier) = &mut self.carrier
        {
            return Side::poll_write(carrier, cx, bytes);
        }
        self.check()?;
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        let credit = self.shared.credit.get();
        let length = bytes.len().min(credit as usize).min(BODY_BYTES_MAX);
        if length == 0 {
            self.shared.was_stalled.set(credit == 0);
            self.link.count(&self.shared, Way::Out, 0);
            wait(&self.shared.writer, cx);
            return Poll::Pending;
        }
        if !self.link.has_room() {
            // A carrier that is given meanwhile is found too.
            wait(&self.shared.writer, cx);
            self.link.wait_for_room(cx);
            return Poll::Pending;
        }
        coop.made_progress();
        self.shared.credit.set(credit - u32::try_from(length).expect("at most the credit"));
        self.link.frame(self.shared.number, Kind::Data, &bytes[..length]);
        self.link.count(&self.shared, Way::Out, length);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Some(carrier) if self.writes_own => Side::poll_flush(carrier, cx),
            Some(_) | None => Poll::Ready(Ok(())),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.take_carrier();
        if self.writes_own
            && let Some(carrier) = &mut self.carrier
        {
            return carrier.poll_finish(cx);
        }
        self.check()?;
        if !self.shared.out_end.replace(true) {
            self.link.frame(self.shared.number, Kind::End, &[]);
            self.link.forget_finished(&self.shared);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.broken.get() {
            return Poll::Ready(());
        }
        wait(&self.shared.watcher, cx);
        self.carrier.as_mut().map_or(Poll::Pending, |carrier| carrier.poll_broken(cx))
    }

    fn reads_from(&self) -> Option<&TcpStream> {
        let is_own = self.shared.in_end.get() == Some(InEnd::Moved) && self.is_inbox_empty();
        self.carrier.as_ref().filter(|_| is_own).and_then(Side::reads_from)
    }

    fn writes_to(&self) -> Option<&TcpStream> {
        self.carrier.as_ref().filter(|_| self.writes_own).and_then(Side::writes_to)
    }

    fn reset(&mut self) {
        if let Some(carrier) = &mut self.carrier {
            carrier.reset();
        }
        // Being dropped before its end resets what is on the link.
    }

    fn guard(&mut self) {
        self.is_guarded = true;
        if let Some(carrier) = &mut self.carrier {
            carrier.guard();
        }
    }

    fn release(&mut self) {
        self.is_guarded = false;
        if let Some(carrier) = &mut self.carrier {
            carrier.release();
        }
    }
}

impl Drop for LinkStream {
    fn drop(&mut self) {
        let shared = &self.shared;
        let is_known = self.link.streams.borrow().contains_key(&shared.number);
        if !shared.broken.get() && is_known && !shared.is_finished() {
            self.link.frame(shared.number, Kind::Reset, &[]);
            self.link.forget(shared.number);
        }
    }
}
