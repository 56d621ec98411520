//! Connections to one share's target, through its agent's streams: opened, kept, and dropped with the share.
//!
//! A kept connection is used again only after the request body was drained and the response ended cleanly.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use domain::{
    ids::{AgentId, ShareId, TunnelId},
    target::{Protocol, Target},
    tunnel::{Tunnel, TunnelCreated},
};
use http::{HeaderValue, Uri, uri::PathAndQuery};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use projections::routes::Entry;
use schemas::frames::StreamKind;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{AbortHandle, JoinHandle},
};
use tokio_util::sync::CancellationToken;

use super::{
    banner,
    conn::Tick,
    headers::Origin,
    metrics::OpenUpstream,
    multiplexed::{Connections, Lease},
    server::{Core, HEAD_BYTES_MAX, IdleLimits},
    trailers::{TargetIo, Trailing},
    upload::Upload,
};
use crate::{
    running::Under,
    streams::{CoreStream, OpenError},
};

/// What is read of a target at once for one of many visitors (bytes): just less than what hyper takes as a sign that it
/// should make its buffer larger.
const CROWDED_READ_BYTES: usize = 8 * 1024 - 1;

/// The way to one share's target, on one core. Made anew when the share's tunnel changes.
#[derive(Debug)]
pub(super) struct Lane {
    pub share: ShareId,
    pub tunnel: TunnelId,
    pub agent: AgentId,
    to: Target,
    /// The target as it and its visitors name it.
    pub origin: Origin,
    /// The same as `Host`.
    pub host: HeaderValue,
    pub markup: Rc<str>,
    under: [CancellationToken; 3],
    ended: Cell<bool>,
    idle: RefCell<Vec<Idle>>,
    multiplexed: Connections,
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
        let origin = origin_of(&details.created);
        let lane = Rc::new(Self {
            share,
            tunnel,
            agent,
            to: details.created.target.clone(),
            host: HeaderValue::try_from(origin.authority()).ok()?,
            origin,
            markup: banner::markup(name).into(),
            under: [Under::Share(share), Under::Tunnel(tunnel), Under::Agent(agent)]
                .map(|under| running.token(under)),
            ended: Cell::new(false),
            idle: RefCell::default(),
            multiplexed: Connections::default(),
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
        self.tunnel == tunnel.tunnel_id
            && self.agent == tunnel.agent_id
            && self.to == tunnel.target
            && self.origin.scheme == scheme_of(tunnel.protocol)
    }

    /// A path of the target with everything that stands before it.
    pub(super) fn absolute(&self, path: PathAndQuery) -> http::Result<Uri> {
        Uri::builder().scheme(self.origin.scheme).authority(self.host.as_bytes()).path_and_query(path).build()
    }

    /// Whether nothing has ended since its tokens were taken.
    pub(super) fn is_running(&self) -> bool {
        !self.ended.get() && !self.under.iter().any(CancellationToken::is_cancelled)
    }

    /// Drops every kept connection and takes no more.
    pub(super) fn end(&self) {
        self.ended.set(true);
        self.idle.borrow_mut().clear();
        self.multiplexed.end();
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

    /// Opens a way for requests: a stream on the core's link with the agent, or else a connection of its own.
    pub(super) async fn open(&self, core: &Core, peer: &str) -> Result<Upstream, OpenError> {
        let Some(opened) = core.streams.open(self.agent, self.tunnel, StreamKind::Http, peer).await else {
            return self.open_alone(core, peer).await;
        };
        let CoreStream { stream, place } = opened?;
        let trailing = Arc::<Trailing>::default();
        let (sender, connection) = shake(core, stream, &trailing).await?;
        let carrying = async move {
            // The request that was under way has the same error.
            let _ = connection.await;
            drop(place);
        };
        Ok(Upstream::new(core, sender, &tokio::task::spawn_local(carrying), trailing))
    }

    /// Opens a connection of its own, which may come to speak another protocol.
    pub(super) async fn open_alone(&self, core: &Core, peer: &str) -> Result<Upstream, OpenError> {
        let stream = core.shared.deps.streams.open(self.agent, self.tunnel, StreamKind::Http, peer).await?;
        let trailing = Arc::<Trailing>::default();
        let (sender, connection) = shake(core, stream, &trailing).await?;
        let carrying = async move {
            let _ = connection.with_upgrades().await;
        };
        Ok(Upstream::new(core, sender, &tokio::task::spawn_local(carrying), trailing))
    }

    /// A place on an HTTP/2 connection: one that is open, or a new one. Whoever comes while one is being opened waits
    /// for it.
    pub(super) async fn lease(&self, core: &Core, peer: &str) -> Result<Lease, OpenError> {
        if let Some(lease) = self.multiplexed.lease() {
            core.shared.metrics.upstream_reused.add(1);
            return Ok(lease);
        }
        let _turn = self.multiplexed.opening.lock().await;
        if let Some(lease) = self.multiplexed.lease() {
            core.shared.metrics.upstream_reused.add(1);
            return Ok(lease);
        }
        if !self.is_running() {
            return Err(OpenError::AgentOffline);
        }
        let stream = core.shared.deps.streams.open(self.agent, self.tunnel, StreamKind::Http2, peer).await?;
        let begun = self.multiplexed.begin(stream, OpenUpstream::http2(&core.shared.metrics)).await;
        core.shared.metrics.upstream_opened.add(1);
        begun.map_err(|error| OpenError::TargetUnreachable(error.to_string()))
    }

    /// Keeps a connection whose last exchange ended cleanly.
    pub(super) fn keep(&self, upstream: Upstream, now: Tick, limits: &IdleLimits) {
        let mut idle = self.idle.borrow_mut();
        // Whoever answers before he has read everything gets no next request behind it.
        let is_drained = !upstream.sender.is_closed() && !upstream.trailing.is_set();
        if self.is_running() && is_drained && idle.len() < limits.per_share {
            idle.push(Idle { upstream, since: now });
        }
    }

    /// Drops what was kept too long or has been closed; how many stay.
    pub(super) fn sweep(&self, now: Tick, kept_for: Tick) -> usize {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|kept| now.wrapping_sub(kept.since) < kept_for && !kept.upstream.sender.is_closed());
        idle.len() + self.multiplexed.sweep(now, kept_for)
    }

    /// Drops the coldest kept connections beyond `most`.
    pub(super) fn trim(&self, most: usize) {
        let mut idle = self.idle.borrow_mut();
        let beyond = idle.len().saturating_sub(most);
        idle.drain(..beyond);
    }
}

/// Begins to speak HTTP/1.1 on a stream to the target.
async fn shake<S>(
    core: &Core,
    stream: S,
    trailing: &Arc<Trailing>,
) -> Result<(SendRequest<Upload>, Connection<TokioIo<TargetIo<S>>, Upload>), OpenError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Each of many visitors may come to wait, and what waits is to be little.
    let at_once = if core.has_many_visitors() { CROWDED_READ_BYTES } else { usize::MAX };
    let target = TargetIo::new(stream, Arc::clone(trailing), at_once);
    Builder::new()
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX * 2)
        .handshake(TokioIo::new(target))
        .await
        .map_err(|error| OpenError::TargetUnreachable(error.to_string()))
}

fn scheme_of(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Https => "https",
        Protocol::Http | Protocol::Auto | Protocol::Tcp | Protocol::Udp => "http",
    }
}

fn origin_of(tunnel: &TunnelCreated) -> Origin {
    let Target { host, port } = &tunnel.target;
    Origin { scheme: scheme_of(tunnel.protocol), host: host.clone(), port: *port }
}

/// A connection to the target; dropping it closes the stream at once.
#[derive(Debug)]
pub(super) struct Upstream {
    pub sender: SendRequest<Upload>,
    #[expect(dead_code, reason = "kept for its drop")]
    task: Task,
    pub reused: bool,
    /// A request's trailers on their way.
    pub trailing: Arc<Trailing>,
    #[expect(dead_code, reason = "kept for its drop")]
    open: OpenUpstream,
}

impl Upstream {
    fn new(core: &Core, sender: SendRequest<Upload>, task: &JoinHandle<()>, trailing: Arc<Trailing>) -> Self {
        core.shared.metrics.upstream_opened.add(1);
        let open = OpenUpstream::http1(&core.shared.metrics);
        Self { sender, task: Task(task.abort_handle()), reused: false, trailing, open }
    }
}

#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a request holds of its way to the target until it is over.
#[derive(Debug)]
pub(super) enum Hold {
    Alone(Upstream),
    Shared(#[expect(dead_code, reason = "kept for its drop")] Lease),
}
