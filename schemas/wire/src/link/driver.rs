//! The connection's side of a link: reads frames and hands them to the streams, writes what the streams have left, and
//! keeps the pulse.

use std::{
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use schemas::frames::{
    FrameError, HEARTBEAT_MS, SILENCE_MS_MAX, StreamRefused,
    link::{BODY_BYTES_MAX, HEADER_BYTES, Header, Kind, STREAMS_MAX, open_from, refused_bytes, refused_from},
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::{
    Arrival, Inner, Link, LinkError, LinkStream, OUT_BYTES_MAX,
    stream::{Shared, Way},
};
use crate::{
    relay::with_buffer,
    side::{Carrier, Side as _},
};

/// A peer that makes us answer this much without reading any of it breaks the link (bytes).
const OUT_BYTES_END: usize = 4 * 1024 * 1024;
/// Streams that were opened by the other side and not yet taken.
const ARRIVALS_MAX: usize = STREAMS_MAX;

/// The connection's side of a link.
pub(super) struct Driver<'a> {
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

impl<'a> Driver<'a> {
    pub(super) fn new(link: &'a Link) -> Self {
        Self { link, partial: Vec::new(), written: 0, is_unflushed: false, pulse: Pulse::new() }
    }

    /// Reads, hands on and writes what can be; ready when the link is over.
    pub(super) fn poll(
        &mut self,
        carrier: &mut Carrier,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), LinkError>> {
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
                inner.count(&shared, Way::In, 0);
            }
            Kind::Refused => {
                shared.refuse(refused_from(body)?);
                inner.forget(number);
            }
            Kind::Data => {
                if !shared.receive(body) {
                    return Err(LinkError::Window(number));
                }
                inner.count(&shared, Way::In, body.len());
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Frames,
    End,
}
