//! A request on its way: on a kept connection or a fresh one, and no longer than it may wait.

use std::{rc::Rc, task::Poll};

use domain::access::Denied;
use http::{Request, Response};
use hyper::body::Incoming;

use super::{Own, Visitor, too_large};
use crate::{
    edge::{
        conn::Tick,
        exchange::Exchange,
        upstream::{Lane, Upload, UploadFailure, Upstream},
    },
    streams::OpenError,
};

impl Visitor {
    /// Sends the request on a kept connection or a fresh one. A kept one that died before it answered is replaced
    /// once, where sending the request twice cannot do twice what it asks for.
    pub(super) async fn send(
        &self,
        lane: &Rc<Lane>,
        exchange: &Rc<Exchange>,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Upstream), Own> {
        let mut kept = lane.checkout();
        loop {
            let mut upstream = match kept.take() {
                Some(upstream) => {
                    self.core.shared.metrics.upstream_reused.add(1);
                    upstream
                }
                None => self.open(lane, exchange).await?,
            };
            let again = (upstream.reused && is_repeatable(&request)).then(|| copy(&request));
            let sent = wait(exchange, self.core.limits.upstream, upstream.sender.try_send_request(request));
            let error = match sent.await {
                Ok(Ok(response)) => return Ok((response, upstream)),
                Ok(Err(error)) => error,
                Err(stopped) => return Err(self.stopped(stopped, exchange)),
            };
            match exchange.upload.failure.get() {
                Some(UploadFailure::TooLarge) => return Err(too_large()),
                Some(UploadFailure::Malformed) => return Err(Denied::BadRequest.into()),
                Some(UploadFailure::Left) => return Err(Own::Left),
                None => {}
            }
            let mut error = error;
            let untouched = error.take_message();
            if upstream.reused
                && let Some(next) = untouched.or(again)
            {
                self.core.shared.metrics.upstream_retried.add(1);
                request = next;
                continue;
            }
            self.core.shared.metrics.upstream_failed.add(1);
            return Err(Denied::UpstreamFailed.into());
        }
    }

    async fn open(&self, lane: &Rc<Lane>, exchange: &Rc<Exchange>) -> Result<Upstream, Own> {
        let opened = lane.open(&self.core, &self.ctx.peer_text);
        let error = match wait(exchange, self.core.limits.upstream, opened).await {
            Ok(Ok(upstream)) => return Ok(upstream),
            Ok(Err(error)) => error,
            Err(stopped) => return Err(self.stopped(stopped, exchange)),
        };
        self.core.shared.metrics.upstream_failed.add(1);
        Err(match error {
            OpenError::AgentOffline => Denied::AgentOffline.into(),
            OpenError::Timeout => Denied::UpstreamTimeout.into(),
            OpenError::TargetUnreachable(_) | OpenError::TargetNotAllowed(_) | OpenError::Busy => {
                Denied::UpstreamFailed.into()
            }
        })
    }

    pub(super) fn stopped(&self, stopped: Stopped, exchange: &Exchange) -> Own {
        if stopped == Stopped::Timeout {
            self.core.shared.metrics.upstream_failed.add(1);
            return Denied::UpstreamTimeout.into();
        }
        let deps = &self.core.shared.deps;
        let lane = exchange.lane.borrow().clone();
        let share = lane.as_ref().and_then(|lane| deps.routes.share(lane.share));
        match share.map(|share| deps.routes.gate(&share.state, deps.clock.now())) {
            Some(Err(denied)) => denied.into(),
            Some(Ok(_)) if lane.is_some_and(|lane| !deps.streams.is_connected(lane.agent)) => {
                Denied::AgentOffline.into()
            }
            Some(Ok(_)) | None => Denied::UpstreamFailed.into(),
        }
    }
}

/// Whether sending the request twice does no more than sending it once.
fn is_repeatable(request: &Request<Upload>) -> bool {
    request.method().is_idempotent() && matches!(request.body(), Upload::Empty)
}

fn copy(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Why a wait ended without its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    Timeout,
    Revoked,
}

/// Waits for `work`, at most `limit` sweeps without progress of the upload, and no longer than the share may be used.
pub(super) async fn wait<F: Future>(exchange: &Exchange, limit: Tick, work: F) -> Result<F::Output, Stopped> {
    let mut work = std::pin::pin!(work);
    let mut seen = exchange.upload.bytes.get();
    exchange.wait_at_most(limit);
    let done = std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if exchange.revoked.get() {
            return Poll::Ready(Err(Stopped::Revoked));
        }
        if exchange.is_late(exchange.conn.now()) {
            let bytes = exchange.upload.bytes.get();
            if bytes == seen {
                return Poll::Ready(Err(Stopped::Timeout));
            }
            seen = bytes;
            exchange.wait_at_most(limit);
        }
        exchange.conn.register(cx);
        Poll::Pending
    });
    let done = done.await;
    exchange.wait_at_most(0);
    done
}
