//! A request's body on its way to the target: counted, capped, and held back while the target is asked whether it wants
//! it.

use std::{
    cell::{Cell, RefCell},
    fmt,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};

use super::{
    body::{BodyError, VisitorBody},
    conn::ConnState,
    trailers::{self, Trailing},
};

/// How far an upload has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub bytes: Cell<u64>,
    /// Everything was handed to the upstream connection.
    pub done: Cell<bool>,
    pub failure: Cell<Option<UploadFailure>>,
    /// Closed while the target is asked whether it wants the body (`Expect: 100-continue`).
    pub gate: RefCell<Option<Arc<Gate>>>,
}

impl Progress {
    /// The target wants the body, or has been asked for long enough.
    pub(super) fn open_gate(&self) {
        if let Some(gate) = &*self.gate.borrow() {
            gate.open();
        }
    }
}

/// Lets a body pass from some time on.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_open: AtomicBool,
    waker: AtomicWaker,
}

impl Gate {
    /// From now on; any thread.
    pub(super) fn open(&self) {
        self.is_open.store(true, Relaxed);
        self.waker.wake();
    }

    fn is_open(&self, cx: &Context<'_>) -> bool {
        self.is_open.load(Relaxed) || {
            self.waker.register(cx.waker());
            self.is_open.load(Relaxed)
        }
    }
}

/// Why an upload did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadFailure {
    /// Longer than the hub allows.
    TooLarge,
    /// The visitor's chunks are none.
    Malformed,
    /// The visitor left, or was cut.
    Left,
}

/// A request's body on its way to the target.
pub(super) enum Upload {
    Empty,
    Stream(Box<Stream>),
}

pub(super) struct Stream {
    pub body: VisitorBody,
    pub progress: Rc<Progress>,
    pub conn: Arc<ConnState>,
    pub bytes_max: u64,
    pub gate: Option<Arc<Gate>>,
    /// The visitor owes the body and must not be silent for too long. Otherwise silence is part of what he says (gRPC).
    pub is_owed: bool,
    /// Where trailers go on an HTTP/1.1 connection; `None`: behind the body as they are (HTTP/2).
    pub trailing: Option<Arc<Trailing>>,
}

impl Upload {
    /// The connection that it goes to now has a place for its trailers.
    pub(super) fn lead_to(&mut self, trailing: &Arc<Trailing>) {
        if let Self::Stream(stream) = self {
            stream.trailing = Some(Arc::clone(trailing));
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Empty) { "Empty" } else { "Stream" })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.conn.await_body(false);
    }
}

/// Why an upload stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the request's body is longer than the hub allows")]
    TooLarge,
    #[error("the visitor's body did not come to its end")]
    Visitor(#[from] BodyError),
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(stream) => stream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(stream) => stream.body.size_hint(),
        }
    }
}

impl Stream {
    /// A frame as it leaves.
    fn behind(&self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let mut trailers = match frame.into_trailers() {
            Ok(trailers) => trailers,
            Err(data) => return Some(data),
        };
        trailers::clean(&mut trailers);
        let Some(trailing) = &self.trailing else { return Some(Frame::trailers(trailers)) };
        // There is no place for them but behind a last chunk.
        if self.body.size_hint().exact().is_none() {
            trailing.leave(&trailers);
        }
        None
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        // Not asked for before the target wants it: asking is what has the visitor send it.
        if let Some(gate) = &self.gate {
            if !gate.is_open(cx) {
                return Poll::Pending;
            }
            self.gate = None;
        }
        let progress = &self.progress;
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if self.is_owed {
            self.conn.await_body(polled.is_pending());
        }
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                let len = frame.data_ref().map_or(0, |data| data.len());
                let bytes = progress.bytes.get() + u64::try_from(len).unwrap_or(u64::MAX);
                progress.bytes.set(bytes);
                self.conn.carry(len);
                if self.bytes_max != 0 && bytes > self.bytes_max {
                    progress.failure.set(Some(UploadFailure::TooLarge));
                    return Poll::Ready(Some(Err(UploadError::TooLarge)));
                }
                if self.body.is_end_stream() || frame.is_trailers() {
                    progress.done.set(true);
                }
                Poll::Ready(self.behind(frame).map(Ok))
            }
            Poll::Ready(Some(Err(error))) => {
                let failure =
                    if error.is_malformed() { UploadFailure::Malformed } else { UploadFailure::Left };
                progress.failure.set(Some(failure));
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                progress.done.set(true);
                Poll::Ready(None)
            }
        }
    }
}
