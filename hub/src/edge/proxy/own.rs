//! Answers of the edge itself: refusals, and the two API paths that a visitor with nothing but the link may ask.

use std::rc::Rc;

use bytes::Bytes;
use domain::access::Denied;
use http::{HeaderValue, Response, StatusCode, header::CONNECTION};
use http_body_util::{BodyExt as _, Limited};

use super::{Own, Visitor};
use crate::{
    edge::{
        body::VisitorBody,
        exchange::{Answer, Busy, Exchange, Guard},
        grpc,
        options::{PublicPlace, PublicRequest},
        page::{self, CANNOT_LOG, Refusal},
    },
    limits,
};

/// The longest body of a request to the public API paths (bytes): a query has at most 10,000 characters.
const PUBLIC_BODY_BYTES_MAX: usize = 64 * 1024;

impl Visitor {
    /// An answer of our own about a share: recorded, then given.
    pub(super) async fn own(&self, own: Own, exchange: Rc<Exchange>) -> Response<Answer> {
        let response = match own {
            Own::Left => {
                exchange.finish(Some(exchange.conn.cut().ended_by()), None);
                return self.refuse(&Refusal::of(Denied::BadRequest), Guard::Exchange(exchange));
            }
            Own::Refused(denied, refusal) => {
                exchange.decide(refusal.status, Some(denied));
                self.page(&refusal)
            }
            Own::Answered(response) => {
                exchange.decide(response.status(), None);
                *response
            }
        };
        exchange.bytes_out.set(response.body().len() as u64);
        if !exchange.finish_head().await {
            return self.refuse(&Refusal::cannot_log(), Guard::Exchange(exchange));
        }
        response.map(|body| Answer::Own(Some(body), Guard::Exchange(exchange)))
    }

    pub(super) fn refuse(&self, refusal: &Refusal, guard: Guard) -> Response<Answer> {
        let metrics = &self.core.shared.metrics;
        match guard {
            Guard::Busy(_) => {
                metrics.answered_unrecorded(refusal.status);
                metrics.refused.add(refusal.code);
            }
            // It is counted as what its record says, and as one whose record could not be written.
            Guard::Exchange(_) if refusal.code == CANNOT_LOG => metrics.refused.add(CANNOT_LOG),
            Guard::Exchange(_) => {}
        }
        self.page(refusal).map(|body| Answer::Own(Some(body), guard))
    }

    fn page(&self, refusal: &Refusal) -> Response<Bytes> {
        if self.is_call {
            return grpc::refusal(refusal);
        }
        let mut page = page::refusal(refusal, self.accept.as_ref(), self.core.request_id());
        if self.is_ambiguous() {
            // What follows on this connection may be part of a request, or the next one: nobody knows.
            page.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        page
    }

    pub(super) fn unknown_share(&self, busy: Busy) -> Response<Answer> {
        self.core.shared.metrics.unknown_shares.add(1);
        self.refuse(&Refusal::unknown_share(), Guard::Busy(busy))
    }

    /// Counts a request with a token or slug that is not in memory; the limit that it breaks, if it breaks one.
    pub(super) fn too_many_unknown(&self) -> Option<limits::Verdict> {
        let shared = &self.core.shared;
        let address = limits::Key::address(limits::Scope::UnknownShare, self.forwarded().visitor);
        [
            (address, shared.options.limit_public_per_min),
            (limits::Key::all(limits::Scope::UnknownShare), shared.options.limit_unknown_per_min),
        ]
        .into_iter()
        .map(|(key, limit)| shared.deps.limiter.check(key, limit))
        .find(|verdict| !verdict.allowed)
    }

    /// The two API paths that a visitor with nothing but the link may ask.
    pub(super) async fn public(
        &self,
        place: PublicPlace,
        token: String,
        busy: Busy,
        body: VisitorBody,
    ) -> Response<Answer> {
        let Ok(body) = Limited::new(body, PUBLIC_BODY_BYTES_MAX).collect().await else {
            let refusal =
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too long.");
            return self.refuse(&refusal, Guard::Busy(busy));
        };
        let request = PublicRequest {
            place,
            token,
            method: self.parts.method.clone(),
            headers: self.parts.headers.clone(),
            body: body.to_bytes(),
            visitor: self.forwarded().visitor,
            request: self.core.request_id(),
        };
        let response = (self.core.shared.deps.public)(request).await;
        self.core.shared.metrics.answered_unrecorded(response.status());
        response.map(|body| Answer::Own(Some(body), Guard::Busy(busy)))
    }
}
