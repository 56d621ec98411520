//! Connections to one share's target, through its agent's streams: opened, kept, and dropped with the share.
//!
//! A kept connection is used again only after the request body was drained and the response ended cleanly.

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use domain::{
    ids::{AgentId, ShareId, TunnelId},
    target::Target,
    tunnel::{Tunnel, TunnelCreated},
};
use http::HeaderValue;
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use projections::routes::Entry;
use schemas::frames::StreamKind;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::{
    banner,
    conn::{ConnState, Tick},
    server::{Core, IdleLimits},
};
use crate::{running::Under, streams::OpenError};

/// The way to one share's target, on one core. Made anew when the share's tunnel changes.
#[derive(Debug)]
pub(super) struct Lane {
    pub share: ShareId,
    pub tunnel: TunnelId,
    pub agent: AgentId,
    to: Target,
    /// The target's `host:port`.
    pub target: String,
    /// The same as `Host`.
    pub host: HeaderValue,
    pub markup: Rc<str>,
    under: [CancellationToken; 3],
    ended: Cell<bool>,
    idle: RefCell<Vec<Idle>>,
    watcher: RefCell<Option<AbortHandle>>,
}

#[derive(Debug)]
struct Idle {
    upstream: Upstream,
    since: Tick,
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
    }
}

impl Lane {
    /// Takes the tokens of everything the share runs under; the caller checks `Routes` afterwards.
    pub(super) fn new(
        core: &Rc<Core>,
        share: ShareId,
        name: &str,
        tunnel: &Entry<Tunnel>,
    ) -> Option<Rc<Self>> {
        let details = tunnel.state.open()?;
        let (tunnel, agent) = (details.created.tunnel_id, details.created.agent_id);
        let running = &core.shared.deps.running;
        let target = details.created.target.to_string();
        let lane = Rc::new(Self {
            share,
            tunnel,
            agent,
            to: details.created.target.clone(),
            host: HeaderValue::try_from(target.as_str()).ok()?,
            target,
            markup: banner::markup(name).into(),
            under: [Under::Share(share), Under::Tunnel(tunnel), Under::Agent(agent)]
                .map(|under| running.token(under)),
            ended: Cell::new(false),
            idle: RefCell::default(),
            watcher: RefCell::default(),
        });
        let [on_share, on_tunnel, on_agent] = lane.under.clone();
        let (weak_core, weak) = (Rc::downgrade(core), Rc::downgrade(&lane));
        let watcher = tokio::task::spawn_local(async move {
            tokio::select! {
                () = on_share.cancelled() => {}
                () = on_tunnel.cancelled() => {}
                () = on_agent.cancelled() => {}
            }
            if let (Some(core), Some(lane)) = (weak_core.upgrade(), weak.upgrade()) {
                core.end_lane(&lane);
            }
        });
        *lane.watcher.borrow_mut() = Some(watcher.abort_handle());
        Some(lane)
    }

    /// Whether it leads where the tunnel leads now.
    pub(super) fn leads_to(&self, tunnel: &TunnelCreated) -> bool {
        self.tunnel == tunnel.tunnel_id && self.agent == tunnel.agent_id && self.to == tunnel.target
    }

    /// Whether nothing has ended since its tokens were taken.
    pub(super) fn is_running(&self) -> bool {
        !self.ended.get() && !self.under.iter().any(CancellationToken::is_cancelled)
    }

    /// Drops every kept connection and takes no more.
    pub(super) fn end(&self) {
        self.ended.set(true);
        self.idle.borrow_mut().clear();
    }

    /// A kept connection, the warmest first.
    pub(super) fn checkout(&self) -> Option<Upstream> {
        let mut idle = self.idle.borrow_mut();
        while let Some(kept) = idle.pop() {
            if kept.upstream.sender.is_ready() {
                return Some(Upstream { reused: true, ..kept.upstream });
            }
        }
        None
    }

    /// Opens a connection.
    pub(super) async fn open(&self, core: &Core, peer: &str) -> Result<Upstream, OpenError> {
        let stream = core.shared.deps.streams.open(self.agent, self.tunnel, StreamKind::Http, peer).await?;
        let (sender, connection) = Builder::new()
            .max_header_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| OpenError::TargetUnreachable(error.to_string()))?;
        let task = tokio::task::spawn_local(async move {
            // The request that was under way has the same error.
            let _ = connection.with_upgrades().await;
        });
        core.shared.metrics.upstream_opened.add(1);
        Ok(Upstream { sender, task: Task(task.abort_handle()), reused: false })
    }

    /// Keeps a connection whose last exchange ended cleanly.
    pub(super) fn keep(&self, upstream: Upstream, now: Tick, limits: &IdleLimits) {
        let mut idle = self.idle.borrow_mut();
        if self.is_running() && !upstream.sender.is_closed() && idle.len() < limits.per_share {
            idle.push(Idle { upstream, since: now });
        }
    }

    /// Drops what was kept too long or has been closed; how many stay.
    pub(super) fn sweep(&self, now: Tick, kept_for: Tick) -> usize {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|kept| now.wrapping_sub(kept.since) < kept_for && !kept.upstream.sender.is_closed());
        idle.len()
    }

    /// Drops the coldest kept connections beyond `most`.
    pub(super) fn trim(&self, most: usize) {
        let mut idle = self.idle.borrow_mut();
        let beyond = idle.len().saturating_sub(most);
        idle.drain(..beyond);
    }
}

/// A target's response head may take this much (bytes).
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A connection to the target; dropping it closes the stream at once.
#[derive(Debug)]
pub(super) struct Upstream {
    pub sender: SendRequest<Upload>,
    #[expect(dead_code, reason = "kept for its drop")]
    task: Task,
    pub reused: bool,
}

#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How far an upload has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub bytes: Cell<u64>,
    /// Everything was handed to the upstream connection.
    pub done: Cell<bool>,
    pub failure: Cell<Option<UploadFailure>>,
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

impl UploadFailure {
    fn of(error: &hyper::Error) -> Self {
        let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
        match io.map(io::Error::kind) {
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Self::Malformed,
            Some(_) | None => Self::Left,
        }
    }
}

/// A request's body on its way to the target.
pub(super) enum Upload {
    Empty,
    Stream { incoming: Incoming, progress: Rc<Progress>, conn: Arc<ConnState>, bytes_max: u64 },
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Empty) { "Empty" } else { "Stream" })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Self::Stream { conn, .. } = self {
            conn.await_body(false);
        }
    }
}

/// Why an upload stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the request's body is longer than the hub allows")]
    TooLarge,
    #[error(transparent)]
    Visitor(#[from] hyper::Error),
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Self::Stream { incoming, progress, conn, bytes_max } = self.get_mut() else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        conn.await_body(polled.is_pending());
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                let len = frame.data_ref().map_or(0, |data| data.len());
                let bytes = progress.bytes.get() + u64::try_from(len).unwrap_or(u64::MAX);
                progress.bytes.set(bytes);
                if *bytes_max != 0 && bytes > *bytes_max {
                    progress.failure.set(Some(UploadFailure::TooLarge));
                    return Poll::Ready(Some(Err(UploadError::TooLarge)));
                }
                if incoming.is_end_stream() {
                    progress.done.set(true);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                progress.failure.set(Some(UploadFailure::of(&error)));
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                progress.done.set(true);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream { incoming, .. } => incoming.size_hint(),
        }
    }
}
