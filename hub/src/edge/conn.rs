//! What socket, requests and sweep know of a visitor's connection, and who may end it for what reason.
//!
//! No timer runs per connection or request: a sweep per core looks at every connection a few times a second. Whoever
//! ends a connection says why; the socket then fails at its next use, and everything that hangs on it is dropped.
//! Over HTTP/2 every stream has a state of its own beside that of its connection: it may end alone.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    task::Context,
};

use domain::access::EndedBy;
use futures_util::task::AtomicWaker;
use http::Response;
use parking_lot::Mutex;

use super::{metrics::Metrics, trailers::Trailing};

/// What the connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Between requests, or at the start.
    Idle,
    /// A request's head is arriving.
    Head,
    /// A request is being answered; over HTTP/2, one or more.
    Busy,
    /// Raw bytes after a 101.
    Upgraded,
    /// Closed for writing; what the visitor still sends is thrown away.
    Closing,
}

/// Why a connection, or one stream of it, was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Cut {
    /// Nothing: it goes on.
    Not,
    /// The head took too long: answered with 408.
    SlowHead,
    /// Kept open without a request for too long.
    Idle,
    /// The same among many: what he was answered and has not read is thrown away.
    Crowd,
    /// The visitor neither reads nor writes.
    Stalled,
    /// Frames that cost work and carry nothing.
    Flood,
    /// Share, tunnel or session ended.
    Revoked,
    /// The hub stops.
    Hub,
}

impl Cut {
    fn of(value: u8) -> Self {
        let all = [
            Self::Not,
            Self::SlowHead,
            Self::Idle,
            Self::Crowd,
            Self::Stalled,
            Self::Flood,
            Self::Revoked,
            Self::Hub,
        ];
        all.into_iter().find(|cut| *cut as u8 == value).unwrap_or(Self::Hub)
    }

    /// As the record says it; a visitor who was not cut has left by himself.
    pub(super) fn ended_by(self) -> EndedBy {
        match self {
            Self::Not | Self::SlowHead | Self::Idle | Self::Crowd | Self::Flood => EndedBy::Visitor,
            Self::Stalled => EndedBy::Stalled,
            Self::Revoked => EndedBy::Revoked,
            Self::Hub => EndedBy::Hub,
        }
    }
}

/// hyper's server is given no more before it has written out this much (bytes): what waits for a visitor waits at the
/// target.
const UNWRITTEN_BYTES_MAX: u32 = 16 * 1024;
/// Whoever takes and gives less than this in [`TickLimits::pace`] is slow (bytes).
const PACE_BYTES: u32 = 8 * 1024;

/// Sweeps since the core started; 0 stands for "not now".
pub(super) type Tick = u32;

/// What is wrong with a head and would go unnoticed behind hyper's parser. A set of the constants below.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flaws(pub(super) u8);

impl Flaws {
    /// The request line has a `#`, which the URI parser cuts off.
    pub(super) const FRAGMENT: Self = Self(1);
    /// The length of the body is said more than once.
    pub(super) const LENGTHS: Self = Self(2);
    /// A line ends without a carriage return.
    pub(super) const BARE_LF: Self = Self(4);
    /// It does not say for certain which host it is for.
    pub(super) const HOST: Self = Self(8);

    pub(super) fn has(self, flaw: Self) -> bool {
        self.0 & flaw.0 != 0
    }
}

/// What socket, request and sweep share. All on one thread; atomics only because hyper wants the socket `Send`.
#[derive(Debug)]
pub(super) struct ConnState {
    phase: AtomicU8,
    cut: AtomicU8,
    /// The core's clock: sweeps since its start.
    clock: Arc<AtomicU32>,
    /// When the phase began.
    since: AtomicU32,
    /// Since when the visitor takes no bytes.
    write_blocked: AtomicU32,
    /// Since when the visitor owes bytes of his request's body.
    body_awaited: AtomicU32,
    /// Since when the visitor is waited for at every sweep, and what he took and gave in that time (bytes).
    slow_since: AtomicU32,
    carried: AtomicU32,
    /// Given to hyper's server since it last wrote everything out (bytes).
    unwritten: AtomicU32,
    /// HTTP/2: since when a block of headers is incomplete.
    head_open: AtomicU32,
    /// HTTP/2: when something was heard last; 0: nobody is asked for a sign of life.
    heard: AtomicU32,
    /// HTTP/2: a sign of life is due.
    ping_due: AtomicBool,
    /// Bytes of a next head came while a request was answered.
    early_head: AtomicBool,
    flaws: AtomicU8,
    /// Informational answers on their way to the visitor, before the final one.
    interim: Mutex<VecDeque<Response<()>>>,
    has_interim: AtomicBool,
    /// HTTP/1.1: trailers on their way to the visitor.
    pub(super) trailing: Trailing,
    waker: AtomicWaker,
    /// A stream's connection.
    parent: Option<Arc<ConnState>>,
    metrics: Arc<Metrics>,
}

impl ConnState {
    pub(super) fn new(clock: Arc<AtomicU32>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self::in_phase(Phase::Idle, clock, metrics, None))
    }

    /// One stream of an HTTP/2 connection.
    pub(super) fn stream_of(parent: &Arc<Self>) -> Arc<Self> {
        let (clock, metrics) = (Arc::clone(&parent.clock), Arc::clone(&parent.metrics));
        Arc::new(Self::in_phase(Phase::Busy, clock, metrics, Some(Arc::clone(parent))))
    }

    fn in_phase(
        phase: Phase,
        clock: Arc<AtomicU32>,
        metrics: Arc<Metrics>,
        parent: Option<Arc<ConnState>>,
    ) -> Self {
        let since = AtomicU32::new(clock.load(Relaxed));
        Self {
            phase: AtomicU8::new(phase as u8),
            cut: AtomicU8::new(Cut::Not as u8),
            clock,
            since,
            write_blocked: AtomicU32::new(0),
            body_awaited: AtomicU32::new(0),
            slow_since: AtomicU32::new(0),
            carried: AtomicU32::new(0),
            unwritten: AtomicU32::new(0),
            head_open: AtomicU32::new(0),
            heard: AtomicU32::new(0),
            ping_due: AtomicBool::new(false),
            early_head: AtomicBool::new(false),
            flaws: AtomicU8::new(0),
            interim: Mutex::default(),
            has_interim: AtomicBool::new(false),
            trailing: Trailing::default(),
            waker: AtomicWaker::new(),
            parent,
            metrics,
        }
    }

    pub(super) fn is(&self, phase: Phase) -> bool {
        self.phase.load(Relaxed) == phase as u8
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.since.store(self.clock.load(Relaxed), Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }

    /// A request's head is complete. Says what was wrong with it.
    pub(super) fn begin_request(&self) -> Flaws {
        self.early_head.store(false, Relaxed);
        self.enter(Phase::Busy);
        Flaws(self.flaws.swap(0, Relaxed))
    }

    /// The answer has left, or was given up.
    pub(super) fn end_request(&self) {
        self.body_awaited.store(0, Relaxed);
        // A stream has one request and is over with it.
        if self.is(Phase::Busy) && self.parent.is_none() {
            self.enter(if self.early_head.load(Relaxed) { Phase::Head } else { Phase::Idle });
        }
    }

    pub(super) fn upgrade(&self) {
        self.enter(Phase::Upgraded);
    }

    /// The upload waits for the visitor, or no longer does.
    pub(super) fn await_body(&self, awaited: bool) {
        self.mark(&self.body_awaited, awaited);
    }

    /// What was written waits for the visitor, or no longer does.
    pub(super) fn block_write(&self, blocked: bool) {
        self.mark(&self.write_blocked, blocked);
    }

    pub(super) fn is_write_blocked(&self) -> bool {
        self.write_blocked.load(Relaxed) != 0
    }

    /// The visitor took or gave that much of a body.
    pub(super) fn carry(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.carried.store(self.carried.load(Relaxed).saturating_add(bytes), Relaxed);
    }

    /// Whether hyper's server has enough to write out before it is given more.
    pub(super) fn has_enough(&self) -> bool {
        self.unwritten.load(Relaxed) >= UNWRITTEN_BYTES_MAX
    }

    pub(super) fn give(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.unwritten.store(self.unwritten.load(Relaxed).saturating_add(bytes), Relaxed);
    }

    /// Everything that was given has been written out.
    pub(super) fn written_out(&self) {
        self.unwritten.store(0, Relaxed);
    }

    /// A block of headers has begun and is not complete, or it is.
    pub(super) fn open_head(&self, open: bool) {
        self.mark(&self.head_open, open);
    }

    fn mark(&self, place: &AtomicU32, on: bool) {
        let since = place.load(Relaxed);
        if !on {
            if since != 0 {
                place.store(0, Relaxed);
            }
        } else if since == 0 {
            place.store(self.now().max(1), Relaxed);
        }
    }

    /// Whether what is read now belongs to a request's head.
    pub(super) fn is_between(&self) -> bool {
        self.is(Phase::Idle) || self.is(Phase::Head)
    }

    pub(super) fn read_while_busy(&self) {
        if self.is(Phase::Busy) && self.body_awaited.load(Relaxed) == 0 {
            self.early_head.store(true, Relaxed);
        }
    }

    pub(super) fn note(&self, flaws: Flaws) {
        if flaws != Flaws::default() {
            self.flaws.fetch_or(flaws.0, Relaxed);
        }
    }

    /// The visitor shows that he is there.
    pub(super) fn hear(&self) {
        self.heard.store(self.now().max(1), Relaxed);
    }

    /// Whether the visitor is to be asked for a sign of life now.
    pub(super) fn take_ping_due(&self) -> bool {
        self.ping_due.load(Relaxed) && self.ping_due.swap(false, Relaxed)
    }

    /// An informational answer for the visitor; any thread.
    pub(super) fn inform(&self, answer: Response<()>) {
        self.interim.lock().push_back(answer);
        self.has_interim.store(true, Relaxed);
        self.wake();
    }

    pub(super) fn has_interim(&self) -> bool {
        self.has_interim.load(Relaxed)
    }

    /// The informational answers that have not been sent. [`Self::has_interim`] until [`Self::informed`].
    pub(super) fn take_interim(&self) -> VecDeque<Response<()>> {
        std::mem::take(&mut *self.interim.lock())
    }

    /// They have left: whoever waits with the final answer goes on.
    pub(super) fn informed(&self) {
        let is_empty = self.interim.lock().is_empty();
        self.has_interim.store(!is_empty, Relaxed);
        self.wake();
    }

    /// The next wake goes to this task.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    pub(super) fn now(&self) -> Tick {
        self.clock.load(Relaxed)
    }

    /// Why it was ended; [`Cut::Not`] while it goes on. A stream ends with its connection.
    pub(super) fn cut(&self) -> Cut {
        match (Cut::of(self.cut.load(Relaxed)), &self.parent) {
            (Cut::Not, Some(parent)) => parent.cut(),
            (cut, _) => cut,
        }
    }

    /// Ends the connection or stream. The first reason stays.
    pub(super) fn end(&self, cut: Cut) {
        if self.cut.compare_exchange(Cut::Not as u8, cut as u8, Relaxed, Relaxed).is_ok() {
            match cut {
                Cut::SlowHead => self.metrics.slow_heads.add(1),
                Cut::Stalled => self.metrics.stalled.add(1),
                Cut::Flood => self.metrics.floods.add(1),
                Cut::Not | Cut::Idle | Cut::Crowd | Cut::Revoked | Cut::Hub => {}
            }
        }
        self.wake();
    }

    /// Has the connection's task look again.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Ends the connection if it was too slow by now. Among many who are waited for, a pace is asked of everybody:
    /// neither a byte now and then nor silence keeps a place.
    pub(super) fn sweep(&self, limits: &TickLimits, is_crowded: bool) -> Seen {
        self.sweep_limits(limits, is_crowded);
        let is_waited_for = self.is_write_blocked() || self.body_awaited.load(Relaxed) != 0;
        let since = self.slow_since.load(Relaxed);
        if !is_waited_for {
            self.slow_since.store(0, Relaxed);
        } else if since == 0 || self.carried.load(Relaxed) >= PACE_BYTES {
            self.slow_since.store(self.now().max(1), Relaxed);
            self.carried.store(0, Relaxed);
        } else if is_crowded && self.now().wrapping_sub(since) >= limits.pace {
            self.end(Cut::Stalled);
        }
        if is_waited_for {
            Seen::Slow
        } else if self.is(Phase::Idle) && self.now().wrapping_sub(self.since.load(Relaxed)) >= limits.quiet {
            Seen::Quiet
        } else {
            Seen::Fine
        }
    }

    fn sweep_limits(&self, limits: &TickLimits, is_crowded: bool) {
        let now = self.now();
        let over = |from: Tick, limit: Tick| now.wrapping_sub(from) >= limit;
        let over_since = |mark: &AtomicU32, limit: Tick| {
            let from = mark.load(Relaxed);
            from != 0 && over(from, limit)
        };
        let since = self.since.load(Relaxed);
        if self.is(Phase::Idle) && over(since, limits.idle) {
            return self.end(Cut::Idle);
        }
        // Whoever does not read an answer that the system has taken whole looks idle from here.
        if self.is(Phase::Idle) && is_crowded && over(since, limits.pace) {
            return self.end(Cut::Crowd);
        }
        if self.is(Phase::Head) && over(since, limits.head) || over_since(&self.head_open, limits.head) {
            return self.end(Cut::SlowHead);
        }
        if self.is(Phase::Closing) && over(since, limits.linger) {
            return self.end(Cut::Idle);
        }
        if over_since(&self.write_blocked, limits.stall) || over_since(&self.body_awaited, limits.stall) {
            return self.end(Cut::Stalled);
        }
        if over_since(&self.heard, limits.silence) {
            if over_since(&self.heard, limits.silence.saturating_mul(2)) {
                return self.end(Cut::Stalled);
            }
            if !self.ping_due.swap(true, Relaxed) {
                self.wake();
            }
        }
    }
}

/// What a sweep saw of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Fine,
    /// The visitor is waited for.
    Slow,
    /// Nothing has been asked for a while. The visitor may not even have read his last answer.
    Quiet,
}

/// How slow everybody may be, in sweeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct TickLimits {
    pub idle: Tick,
    pub head: Tick,
    pub stall: Tick,
    /// How long a visitor among many may stay below the pace.
    pub pace: Tick,
    /// How long nothing is asked before a connection counts as quiet.
    pub quiet: Tick,
    /// How long a visitor may go on sending after our last word.
    pub linger: Tick,
    /// How long an HTTP/2 visitor may say nothing before he is asked whether he is there, and then again.
    pub silence: Tick,
    /// How long a target may take for its head.
    pub upstream: Tick,
    /// How long a document's first bytes may take.
    pub sniff: Tick,
    /// How long a target may take to say that it wants a body it was asked about.
    pub expect: Tick,
}
