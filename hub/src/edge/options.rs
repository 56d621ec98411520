//! How the edge behaves, and what it needs of the rest of the hub.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use domain::ids::RequestId;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Response};
use ipnet::IpNet;
use projections::{
    catalog::{FormerShare, ShareKey},
    routes::Routes,
};

use super::{conn::Tick, recorder::Recorder};
use crate::{
    clock::SharedClock, limits::Limiter, running::Running, settings::AccessLogMode, streams::Streams,
    tls::Speaker,
};

/// The sweep is at least this frequent: a share that expires ends its streams within a second.
const SWEEP_MAX: Duration = Duration::from_millis(250);

/// Where the edge's connections come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Entrance {
    /// A listener of its own for each core.
    #[default]
    Own,
    /// Another listener on the same address, which knows the edge's by the name that they ask for:
    /// [`super::Edge::hand_over`].
    Shared,
}

/// How the edge behaves.
#[derive(Debug, Clone)]
pub struct EdgeOptions {
    pub listen: SocketAddr,
    pub entrance: Entrance,
    /// `None`: visitors are answered in the clear.
    pub tls: Option<Arc<Speaker>>,
    /// 0: as many as there are cores.
    pub threads: usize,
    /// More connections are closed at once.
    pub connections_max: u64,
    pub head_timeout_ms: u64,
    /// How long a connection is kept without a request.
    pub keep_alive_ms: u64,
    pub visitor_stall_ms: u64,
    /// How long an HTTP/2 visitor is silent before he is asked whether he is there; after twice that he is gone.
    pub silence_ms: u64,
    pub upstream_timeout_ms: u64,
    /// How long a request waits for an agent that was just lost; 0: not at all.
    pub agent_wait_ms: u64,
    /// How long a connection to a target is kept without a request.
    pub upstream_idle_ms: u64,
    /// Kept connections to one share's target, and to all, per core.
    pub upstream_idle_per_share: usize,
    pub upstream_idle_max: usize,
    /// The longest request body; 0 is any size.
    pub body_bytes_max: u64,
    /// Requests running longer get a record before they end.
    pub running_after_ms: u64,
    /// Lower case, without dots at its ends.
    pub base_domain: Option<String>,
    /// What visitors use for names below the base domain: `http` or `https`.
    pub scheme: String,
    pub trusted_proxies: Vec<IpNet>,
    pub banner: bool,
    pub access_log: AccessLogMode,
    pub limit_share_per_min: u32,
    /// Unknown tokens and slugs from one address.
    pub limit_public_per_min: u32,
    /// Unknown tokens and slugs from everybody together.
    pub limit_unknown_per_min: u32,
}

impl Default for EdgeOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            entrance: Entrance::Own,
            tls: None,
            threads: 0,
            connections_max: 20_000,
            head_timeout_ms: 15_000,
            keep_alive_ms: 75_000,
            visitor_stall_ms: 120_000,
            silence_ms: 30_000,
            upstream_timeout_ms: 60_000,
            agent_wait_ms: 2_000,
            upstream_idle_ms: 30_000,
            upstream_idle_per_share: 256,
            upstream_idle_max: 1_024,
            body_bytes_max: 0,
            running_after_ms: 5_000,
            base_domain: None,
            scheme: "http".to_owned(),
            trusted_proxies: Vec::new(),
            banner: true,
            access_log: AccessLogMode::Batched,
            limit_share_per_min: 5_000,
            limit_public_per_min: 100,
            limit_unknown_per_min: 3_000,
        }
    }
}

impl EdgeOptions {
    pub(super) fn sweep_every(&self) -> Duration {
        let shortest = self
            .head_timeout_ms
            .min(self.keep_alive_ms)
            .min(self.visitor_stall_ms)
            .min(self.silence_ms)
            .min(self.upstream_timeout_ms);
        Duration::from_millis(shortest.min(self.running_after_ms) / 4)
            .clamp(Duration::from_millis(10), SWEEP_MAX)
    }

    /// Whole sweeps that take at least so long.
    pub(super) fn ticks(&self, ms: u64) -> Tick {
        let every = u64::try_from(self.sweep_every().as_millis()).unwrap_or(1).max(1);
        Tick::try_from(ms.div_ceil(every)).unwrap_or(Tick::MAX).max(1)
    }
}

/// The two API paths that are answered on the bare host for visitors who have only the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicPlace {
    /// `/v1/shared/<token>/info`
    Info,
    /// `/api/shared/<token>/query`
    Query,
}

/// A request to one of them. Method, limits and errors are the answerer's business.
#[derive(Debug)]
pub struct PublicRequest {
    pub place: PublicPlace,
    /// As it stands in the path; secret.
    pub token: String,
    pub method: Method,
    pub headers: HeaderMap,
    /// At most 64 KiB.
    pub body: Bytes,
    /// The visitor's address, behind trusted proxies too.
    pub visitor: IpAddr,
    pub request: RequestId,
}

/// Answers them.
pub type PublicEndpoints = Arc<dyn Fn(PublicRequest) -> BoxFuture<'static, Response<Bytes>> + Send + Sync>;

/// Finds shares that ended so long ago that `Routes` has forgotten them. Asked about unknown tokens and slugs, behind
/// the limits on those.
pub type FormerShares = Arc<dyn Fn(ShareKey) -> BoxFuture<'static, Option<FormerShare>> + Send + Sync>;

/// What the edge needs of the rest of the hub.
#[derive(Clone)]
pub struct EdgeDeps {
    pub routes: Arc<Routes>,
    pub streams: Arc<dyn Streams>,
    pub running: Arc<Running>,
    pub recorder: Recorder,
    pub limiter: Arc<Limiter>,
    pub clock: SharedClock,
    pub former: FormerShares,
    pub public: PublicEndpoints,
}

impl fmt::Debug for EdgeDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeDeps").finish_non_exhaustive()
    }
}
