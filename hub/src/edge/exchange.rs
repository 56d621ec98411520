//! One request to a share from its head to the last byte of its answer, and the one record of it.
//!
//! Whatever becomes of a request (answered, refused, left, cut), its [`Exchange`] is dropped in the end and has been
//! recorded once. The record is queued before the last byte leaves.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use domain::access::{Denied, EndedBy};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::{
    banner::Injector,
    conn::{ConnState, Cut, Tick},
    grpc,
    page::Refusal,
    recorder::{Ack, Outcome, Running, Slot, Visit},
    server::Core,
    trailers,
    upload::Progress,
    upstream::{Hold, Lane},
};
use crate::settings::AccessLogMode;

/// The record of a request whose visitor left before an answer was decided.
const CLIENT_CLOSED: u16 = 499;

/// Marks the connection as busy with a request until dropped.
#[derive(Debug)]
pub(super) struct Busy(pub Arc<ConnState>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end_request();
    }
}

#[derive(Debug)]
enum Record {
    /// Nothing is queued yet.
    Due(Slot, Box<Visit>),
    /// Queued as running; its end is still to be told.
    Told(Running),
    Done,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Exchange {
    pub core: Rc<Core>,
    pub conn: Arc<ConnState>,
    pub started: Instant,
    pub upload: Rc<Progress>,
    pub bytes_out: Cell<u64>,
    pub lane: RefCell<Option<Rc<Lane>>>,
    /// No answer is decided yet: an end is answered, not cut.
    pub waiting: Cell<bool>,
    /// Share, tunnel or session ended while it waited.
    pub revoked: Cell<bool>,
    /// The sweep at which it began.
    began: Tick,
    /// The sweep at which what it waits for takes too long; 0: no such wait.
    deadline: Cell<Tick>,
    status: Cell<u16>,
    denied: Cell<Option<Denied>>,
    record: RefCell<Record>,
    _busy: Busy,
}

impl Exchange {
    pub(super) fn new(core: Rc<Core>, busy: Busy, slot: Slot, visit: Box<Visit>) -> Rc<Self> {
        core.shared.metrics.in_flight.add(1);
        Rc::new(Self {
            core,
            began: busy.0.now(),
            conn: Arc::clone(&busy.0),
            started: Instant::now(),
            upload: Rc::default(),
            bytes_out: Cell::new(0),
            lane: RefCell::default(),
            waiting: Cell::new(true),
            revoked: Cell::new(false),
            deadline: Cell::new(0),
            status: Cell::new(CLIENT_CLOSED),
            denied: Cell::new(None),
            record: RefCell::new(Record::Due(slot, visit)),
            _busy: busy,
        })
    }

    /// The answer's status, and why the edge refused if it did.
    pub(super) fn decide(&self, status: StatusCode, denied: Option<Denied>) {
        self.status.set(status.as_u16());
        self.denied.set(denied);
        self.waiting.set(false);
    }

    /// Its lane ended. Whoever waits for an answer gets one, a running answer is cut.
    pub(super) fn revoke(&self) {
        if self.waiting.get() {
            self.revoked.set(true);
            self.conn.wake();
        } else {
            self.conn.end(Cut::Revoked);
        }
    }

    /// The way to its target, once the checks have found it.
    pub(super) fn lane(&self) -> Option<Rc<Lane>> {
        self.lane.borrow().clone()
    }

    /// Takes another way, after the first has ended.
    pub(super) fn take_lane(&self, lane: Rc<Lane>) {
        self.revoked.set(false);
        *self.lane.borrow_mut() = Some(lane);
    }

    /// Why its lane ended.
    pub(super) fn why_ended(&self) -> Denied {
        let deps = &self.core.shared.deps;
        let lane = self.lane.borrow();
        let Some(lane) = &*lane else { return Denied::UpstreamFailed };
        let share = deps.routes.share(lane.share);
        match share.map(|share| deps.routes.gate(&share.state, deps.clock.now())) {
            Some(Err(denied)) => denied,
            Some(Ok(_)) if !deps.streams.is_connected(lane.agent) => Denied::AgentOffline,
            Some(Ok(_)) | None => Denied::UpstreamFailed,
        }
    }

    fn outcome(&self, ended_by: Option<EndedBy>) -> Outcome {
        Outcome {
            status: self.status.get(),
            latency_ms: u32::try_from(self.started.elapsed().as_millis()).unwrap_or(u32::MAX),
            bytes_in: self.upload.bytes.get(),
            bytes_out: self.bytes_out.get(),
            denied: self.denied.get(),
            ended_by,
        }
    }

    /// Queues the record of a request that has ended. Later calls change nothing.
    pub(super) fn finish(&self, ended_by: Option<EndedBy>, ack: Option<Ack>) {
        let outcome = self.outcome(ended_by);
        let recorder = &self.core.shared.deps.recorder;
        match self.record.replace(Record::Done) {
            Record::Due(slot, visit) => recorder.record(slot, visit, outcome, ack),
            Record::Told(running) => recorder.complete(running, outcome, ack),
            Record::Done => return,
        }
        let metrics = &self.core.shared.metrics;
        let status = StatusCode::from_u16(outcome.status).unwrap_or(StatusCode::BAD_REQUEST);
        metrics.answered(status, outcome.latency_ms);
        metrics.bytes_in.add(outcome.bytes_in);
        metrics.bytes_out.add(outcome.bytes_out);
        if let Some(denied) = outcome.denied {
            metrics.denied(denied);
        }
    }

    /// Records a request that goes on, once.
    pub(super) fn tell_running(&self, ack: Option<Ack>) {
        let mut record = self.record.borrow_mut();
        match std::mem::replace(&mut *record, Record::Done) {
            Record::Due(slot, visit) => {
                let outcome = self.outcome(None);
                *record =
                    Record::Told(self.core.shared.deps.recorder.record_running(slot, visit, outcome, ack));
            }
            told @ (Record::Told(_) | Record::Done) => *record = told,
        }
    }

    /// Tells of a request that has been running for long, and wakes one whose wait is over.
    pub(super) fn sweep(&self, now: Tick, long: Duration) {
        // What has no answer yet has no status yet.
        if !self.waiting.get() && self.started.elapsed() >= long {
            self.tell_running(None);
        }
        if self.is_late(now) {
            self.conn.wake();
        }
        if self.upload.gate.borrow().is_some() && now.wrapping_sub(self.began) >= self.core.limits.expect {
            self.upload.open_gate();
        }
    }

    /// From now on it waits for something, at most `limit` sweeps; 0: for nothing.
    pub(super) fn wait_at_most(&self, limit: Tick) {
        let deadline = if limit == 0 { 0 } else { self.conn.now().saturating_add(limit) };
        self.deadline.set(deadline);
    }

    /// Whether what it waits for takes too long.
    pub(super) fn is_late(&self, now: Tick) -> bool {
        let deadline = self.deadline.get();
        deadline != 0 && now >= deadline
    }

    pub(super) fn is_before_response(&self) -> bool {
        self.core.shared.options.access_log == AccessLogMode::BeforeResponse
    }

    /// Queues the record of an answer without a body and, where records come first, waits until it is durable.
    /// `false`: it is not, and the answer must not be given.
    pub(super) async fn finish_head(&self) -> bool {
        if !self.is_before_response() {
            self.finish(None, None);
            return true;
        }
        let (ack, durable) = oneshot::channel();
        self.finish(None, Some(ack));
        durable.await.unwrap_or(false)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.finish(Some(self.conn.cut().ended_by()), None);
        self.core.shared.metrics.in_flight.sub(1);
    }
}

/// The body of every answer of the edge.
#[derive(Debug)]
pub(super) enum Answer {
    /// Bytes of our own. The guard keeps the connection busy until they have left.
    Own(Option<Bytes>, #[expect(dead_code, reason = "kept for its drop")] Guard),
    Proxied(Box<Proxied>),
}

/// What ends with an answer of our own.
#[derive(Debug)]
pub(super) enum Guard {
    Busy(#[expect(dead_code, reason = "kept for its drop")] Busy),
    Exchange(#[expect(dead_code, reason = "kept for its drop")] Rc<Exchange>),
}

/// A target's body on its way to the visitor.
#[derive(Debug)]
pub(super) struct Proxied {
    pub exchange: Rc<Exchange>,
    pub incoming: Incoming,
    /// What was read before the head could be decided.
    pub ahead: VecDeque<Frame<Bytes>>,
    /// Everything there is stands in `ahead`.
    pub is_complete: bool,
    pub upstream: Option<Hold>,
    /// A gRPC call: what breaks it off is told in its trailers.
    pub is_grpc: bool,
    pub trailers: Trailers,
    pub injector: Option<Box<Injector>>,
    pub flow: Flow,
}

/// How trailers reach the visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trailers {
    /// As the last frame of the body (HTTP/2).
    Frame,
    /// By the socket, behind the last chunk (HTTP/1.1).
    Socket,
    /// Not at all (HTTP/1.0).
    Dropped,
}

#[derive(Debug)]
pub(super) enum Flow {
    Streaming,
    /// The end waits until the record is durable.
    Held(Option<Frame<Bytes>>, oneshot::Receiver<bool>),
    /// The end may leave.
    Ended(Option<Frame<Bytes>>),
    Over,
}

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error(transparent)]
    Upstream(#[from] hyper::Error),
    #[error("the access could not be recorded")]
    CannotLog,
    #[error("the connection was cut")]
    Cut,
}

impl AnswerError {
    /// What a target that speaks HTTP/2 gave as the reason, if it was the target who broke off.
    pub(super) fn targets_reason(&self) -> Option<h2::Reason> {
        let Self::Upstream(error) = self else { return None };
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<h2::Error>() {
                return error.reason();
            }
            source = error.source();
        }
        None
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match self.get_mut() {
            Self::Own(bytes, _) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Proxied(proxied) => proxied.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes, _) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Proxied(proxied) => matches!(proxied.flow, Flow::Over),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Proxied(_) => SizeHint::default(),
        }
    }
}

impl Proxied {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        loop {
            if self.exchange.conn.cut() != Cut::Not && !matches!(self.flow, Flow::Over) {
                let cut = self.exchange.conn.cut();
                return Poll::Ready(Some(self.break_off(cut.ended_by(), AnswerError::Cut)));
            }
            match &mut self.flow {
                Flow::Over => return Poll::Ready(None),
                Flow::Held(frame, durable) => {
                    let durable = ready!(Pin::new(durable).poll(cx)).unwrap_or(false);
                    let frame = frame.take();
                    self.flow = Flow::Over;
                    let failed = (!durable).then_some(Err(AnswerError::CannotLog));
                    return Poll::Ready(failed.or_else(|| self.last(frame).map(Ok)));
                }
                Flow::Ended(frame) => {
                    let frame = frame.take();
                    self.flow = Flow::Over;
                    return Poll::Ready(self.last(frame).map(Ok));
                }
                Flow::Streaming => {}
            }
            let next = match self.ahead.pop_front() {
                Some(frame) => Some(Ok(frame)),
                None if self.is_complete => None,
                None if self.exchange.conn.is_write_blocked() => {
                    // The socket wakes when it has taken everything.
                    self.exchange.conn.register(cx);
                    return Poll::Pending;
                }
                None if self.exchange.conn.has_enough() => {
                    // hyper writes out what it has when there is nothing more.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                None => match Pin::new(&mut self.incoming).poll_frame(cx) {
                    Poll::Ready(next) => next,
                    Poll::Pending => {
                        // With pipelined bytes at hand hyper does not look at the socket: a cut must wake it from here.
                        self.exchange.conn.register(cx);
                        return Poll::Pending;
                    }
                },
            };
            let is_last = self.ahead.is_empty() && (self.is_complete || self.incoming.is_end_stream());
            match next {
                Some(Ok(trailers)) if trailers.is_trailers() && self.injector.is_some() => {
                    // What the injector holds back goes before them.
                    let rest = self.injector.take().map(|mut injector| injector.finish()).unwrap_or_default();
                    self.ahead = VecDeque::from([Frame::data(rest), trailers]);
                    self.is_complete = true;
                }
                Some(Ok(frame)) => {
                    let frame = self.inject(frame, is_last);
                    let len = frame.data_ref().map_or(0, Bytes::len);
                    let out = &self.exchange.bytes_out;
                    out.set(out.get() + u64::try_from(len).unwrap_or(u64::MAX));
                    self.exchange.conn.give(len);
                    if is_last || frame.is_trailers() {
                        self.end(Some(frame));
                    } else if len > 0 {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                Some(Err(error)) => {
                    let cut = self.exchange.conn.cut();
                    let by = if cut == Cut::Not { EndedBy::Upstream } else { cut.ended_by() };
                    return Poll::Ready(Some(self.break_off(by, error.into())));
                }
                None => {
                    let rest = self.injector.as_mut().map(|injector| injector.finish());
                    self.injector = None;
                    let rest = rest.filter(|rest| !rest.is_empty());
                    let out = &self.exchange.bytes_out;
                    out.set(out.get() + rest.as_ref().map_or(0, |rest| rest.len() as u64));
                    self.end(rest.map(Frame::data));
                }
            }
        }
    }

    /// Puts the banner in where it belongs; the last piece brings along what the injector held back.
    fn inject(&mut self, frame: Frame<Bytes>, is_last: bool) -> Frame<Bytes> {
        let Some(injector) = &mut self.injector else { return frame };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return trailers,
        };
        let mut out = injector.push(data);
        if is_last {
            let rest = injector.finish();
            if !rest.is_empty() {
                out = [out, rest].concat().into();
            }
            self.injector = None;
        }
        Frame::data(out)
    }

    /// The last frame as it leaves. Trailers leave as the visitor's protocol has it.
    fn last(&self, frame: Option<Frame<Bytes>>) -> Option<Frame<Bytes>> {
        let mut trailers = match frame?.into_trailers() {
            Ok(trailers) => trailers,
            Err(data) => return Some(data),
        };
        trailers::clean(&mut trailers);
        match self.trailers {
            Trailers::Frame => return Some(Frame::trailers(trailers)),
            Trailers::Socket => self.exchange.conn.trailing.leave(&trailers),
            Trailers::Dropped => {}
        }
        None
    }

    /// The answer ends before its end.
    fn break_off(&mut self, by: EndedBy, error: AnswerError) -> Result<Frame<Bytes>, AnswerError> {
        self.flow = Flow::Over;
        self.exchange.finish(Some(by), None);
        let told = match by {
            EndedBy::Revoked => Some(Refusal::of(self.exchange.why_ended())),
            EndedBy::Hub => Some(Refusal::draining()),
            // Otherwise the target has said itself why.
            EndedBy::Upstream if error.targets_reason().is_none() => {
                Some(Refusal::of(Denied::UpstreamFailed))
            }
            EndedBy::Upstream | EndedBy::Visitor | EndedBy::Stalled => None,
        };
        let told = told.filter(|_| self.is_grpc);
        told.map(|refusal| Frame::trailers(grpc::trailers(&refusal))).ok_or(error)
    }

    /// The target's answer is complete: the record first, then `last`.
    fn end(&mut self, last: Option<Frame<Bytes>>) {
        let exchange = &self.exchange;
        if let (Some(Hold::Alone(upstream)), Some(lane)) =
            (self.upstream.take(), exchange.lane.borrow().as_ref())
            && exchange.upload.done.get()
        {
            exchange.core.keep(lane, upstream);
        }
        if exchange.is_before_response() {
            let (ack, durable) = oneshot::channel();
            exchange.finish(None, Some(ack));
            self.flow = Flow::Held(last, durable);
        } else {
            exchange.finish(None, None);
            self.flow = Flow::Ended(last);
        }
    }
}
