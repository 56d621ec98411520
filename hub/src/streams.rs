//! The one way to open a stream to a tunnel's target: TCP ports, `reach`, the share edge, queries and diagnostics are
//! all users of it.

use std::fmt;

use domain::ids::{AgentId, TunnelId};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, LocalBoxFuture},
};
use schemas::frames::StreamKind;
use wire::link::LinkStream;

/// Both directions of a stream, raw bytes; a plain one is registered with the runtime of whoever opened it.
pub type Stream = wire::side::Carrier;

/// Why a stream was not opened. Nothing of the caller's bytes was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the agent is not connected")]
    AgentOffline,
    #[error("the agent cannot reach the target: {0}")]
    TargetUnreachable(String),
    #[error("the agent's owner does not allow the target: {0}")]
    TargetNotAllowed(String),
    #[error("the agent did not answer in time")]
    Timeout,
    #[error("the agent has no room for another stream")]
    Busy,
}

/// Opens streams. One implementation has the agents' sessions of this node; another will forward to other nodes.
pub trait Streams: fmt::Debug + Send + Sync + 'static {
    /// Opens a stream to a tunnel's target through its agent's session; must be awaited on the runtime that will use
    /// the stream. Bounded by the settings' `open_timeout_ms`. The caller has checked `Routes` before.
    fn open<'a>(
        &'a self,
        agent: AgentId,
        tunnel: TunnelId,
        kind: StreamKind,
        peer: &'a str,
    ) -> BoxFuture<'a, Result<Stream, OpenError>>;

    /// Whether the agent has a live session.
    fn is_connected(&self, agent: AgentId) -> bool;

    /// What opens streams for one thread, on links of that thread's own. Made and used there.
    fn of_core(&self) -> Box<dyn CoreStreams> {
        Box::new(NoLinks)
    }
}

/// Streams of one thread that share connections: many small ones leave in one write.
pub trait CoreStreams: fmt::Debug {
    /// As [`Streams::open`], on a link. `None`: there is none, or it has no room; a connection of its own may do.
    fn open<'a>(
        &'a self,
        agent: AgentId,
        tunnel: TunnelId,
        kind: StreamKind,
        peer: &'a str,
    ) -> LocalBoxFuture<'a, Option<Result<CoreStream, OpenError>>>;
}

/// A stream on a link of this thread, and its place among them.
#[derive(Debug)]
pub struct CoreStream {
    pub stream: LinkStream,
    pub place: std::rc::Rc<()>,
}

/// For who has no links: every stream has a connection of its own.
#[derive(Debug)]
pub struct NoLinks;

impl CoreStreams for NoLinks {
    fn open<'a>(
        &'a self,
        _: AgentId,
        _: TunnelId,
        _: StreamKind,
        _: &'a str,
    ) -> LocalBoxFuture<'a, Option<Result<CoreStream, OpenError>>> {
        std::future::ready(None).boxed_local()
    }
}
