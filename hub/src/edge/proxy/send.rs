//! A request on its way: on a kept connection or a fresh one, and no longer than it may wait.

use std::{sync::Arc, task::Poll};

use domain::access::Denied;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::{Own, Visitor, Way, request::too_large};
use crate::{
    edge::{
        conn::{Cut, Tick},
        exchange::Exchange,
        headers,
        multiplexed::Lease,
        page::Refusal,
        server::Core,
        upload::{Upload, UploadFailure},
        upstream::{Lane, Upstream},
    },
    streams::OpenError,
};

impl Visitor {
    /// Sends the request on a kept connection or a fresh one. A kept one that died before it answered is replaced
    /// once, where sending the request twice cannot do twice what it asks for.
    pub(super) async fn send(
        &self,
        way: &Way<'_>,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Upstream), Own> {
        let exchange = way.exchange;
        // Another protocol is spoken on a connection of its own from the start.
        let lane = exchange.lane().filter(|_| !way.switches);
        let mut kept = lane.and_then(|lane| lane.checkout());
        loop {
            let mut upstream = match kept.take() {
                Some(upstream) => {
                    self.core.shared.metrics.upstream_reused.add(1);
                    upstream
                }
                None if way.switches => self.opened(way, Lane::open_alone).await?,
                None => self.opened(way, Lane::open).await?,
            };
            request.body_mut().lead_to(&upstream.trailing);
            let again = (upstream.reused && is_repeatable(&request)).then(|| copy(&request));
            let sent = wait(exchange, self.core.limits.upstream, upstream.sender.try_send_request(request));
            let mut error = match sent.await {
                Ok(Ok(response)) => return Ok((response, upstream)),
                Ok(Err(error)) => error,
                Err(stopped) => return Err(self.stopped(stopped, exchange)),
            };
            if let Some(own) = upload_failed(exchange) {
                return Err(own);
            }
            let untouched = error.take_message();
            if upstream.reused
                && let Some(next) = untouched.or(again)
            {
                self.core.shared.metrics.upstream_retried.add(1);
                request = next;
                self.listen_to_interim(exchange, &mut request);
                continue;
            }
            self.core.shared.metrics.upstream_failed.add(1);
            return Err(Denied::UpstreamFailed.into());
        }
    }

    /// Sends a call on an HTTP/2 connection. Nothing limits how long its answer may take: a stream of events may begin
    /// with the first event, and the visitor has a deadline of his own.
    pub(super) async fn send_call(
        &self,
        way: &Way<'_>,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Lease), Own> {
        let exchange = way.exchange;
        for _ in 0..CALL_TRIES {
            let lease = self.opened(way, Lane::lease).await?;
            let mut error = match wait(exchange, Tick::MAX, lease.send(request)).await {
                Ok(Ok(response)) => return Ok((response, lease)),
                Ok(Err(error)) => error,
                Err(stopped) => return Err(self.stopped(stopped, exchange)),
            };
            if let Some(own) = upload_failed(exchange) {
                return Err(own);
            }
            // It was not sent: the connection had just ended.
            let Some(untouched) = error.take_message() else { break };
            self.core.shared.metrics.upstream_retried.add(1);
            request = untouched;
        }
        self.core.shared.metrics.upstream_failed.add(1);
        Err(Denied::UpstreamFailed.into())
    }

    /// Opens a way to the target. Nothing of the request has left: an agent that goes in between is waited for, once.
    async fn opened<T>(
        &self,
        way: &Way<'_>,
        open: impl AsyncFn(&Lane, &Core, &str) -> Result<T, OpenError>,
    ) -> Result<T, Own> {
        let Way { found, created, exchange, .. } = way;
        let mut has_waited = false;
        loop {
            let lane = exchange.lane().ok_or(Denied::UpstreamFailed)?;
            let opening = open(&lane, &self.core, &self.ctx.peer.text);
            let denied = match wait(exchange, self.core.limits.upstream, opening).await {
                Ok(Ok(opened)) => return Ok(opened),
                Ok(Err(OpenError::AgentOffline)) => Denied::AgentOffline,
                Ok(Err(error)) => return Err(self.not_opened(&error)),
                Err(Stopped::Revoked) => exchange.why_ended(),
                Err(Stopped::Timeout) => return Err(self.stopped(Stopped::Timeout, exchange)),
            };
            let waits = denied == Denied::AgentOffline && !has_waited;
            if !(waits && self.agent_returns(lane.agent, exchange).await) {
                return Err(denied.into());
            }
            has_waited = true;
            exchange.take_lane(self.lane(found, created)?);
        }
    }

    fn not_opened(&self, error: &OpenError) -> Own {
        self.core.shared.metrics.upstream_failed.add(1);
        match error {
            OpenError::AgentOffline => Denied::AgentOffline.into(),
            OpenError::Timeout => Denied::UpstreamTimeout.into(),
            OpenError::TargetUnreachable(why) => {
                Own::Refused(Denied::UpstreamFailed, Box::new(Refusal::unreachable(why)))
            }
            OpenError::TargetNotAllowed(_) | OpenError::Busy => Denied::UpstreamFailed.into(),
        }
    }

    pub(super) fn stopped(&self, stopped: Stopped, exchange: &Exchange) -> Own {
        match stopped {
            Stopped::Timeout => {
                self.core.shared.metrics.upstream_failed.add(1);
                Denied::UpstreamTimeout.into()
            }
            Stopped::Revoked => exchange.why_ended().into(),
        }
    }

    /// Has what the target says before its answer passed on, and the upload begin when it wants it.
    pub(super) fn listen_to_interim(&self, exchange: &Exchange, request: &mut Request<Upload>) {
        if self.parts.version < Version::HTTP_11 {
            return;
        }
        let conn = Arc::clone(&exchange.conn);
        let gate = exchange.upload.gate.borrow().clone();
        // hyper's HTTP/1 server says 100 by itself, when the body is asked for.
        let says_continue = gate.is_some() && self.parts.version == Version::HTTP_2;
        hyper::ext::on_informational(request, move |answer| {
            let status = answer.status();
            if status == StatusCode::CONTINUE {
                if let Some(gate) = &gate {
                    gate.open();
                }
                if !says_continue {
                    return;
                }
            }
            let mut own = Response::new(());
            *own.status_mut() = status;
            *own.headers_mut() = answer.headers().clone();
            headers::drop_hop_by_hop(own.headers_mut());
            conn.inform(own);
        });
    }
}

/// A call is sent again so often when it was not sent at all.
const CALL_TRIES: u32 = 3;

/// The answer to a visitor whose body broke off.
fn upload_failed(exchange: &Exchange) -> Option<Own> {
    Some(match exchange.upload.failure.get()? {
        UploadFailure::TooLarge => too_large(),
        UploadFailure::Malformed => Denied::BadRequest.into(),
        UploadFailure::Left => Own::Left,
    })
}

/// Lets informational answers leave before the final one; a visitor who takes no bytes is cut by the sweep.
pub(super) async fn interim_left(exchange: &Exchange) {
    std::future::poll_fn(|cx| {
        if !exchange.conn.has_interim() || exchange.conn.cut() != Cut::Not {
            return Poll::Ready(());
        }
        exchange.conn.register(cx);
        Poll::Pending
    })
    .await;
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
