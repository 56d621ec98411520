//! From a request's head to the head of its answer: the checks in their order, then the target.
//!
//! The order is product.md's, section 3: token known, not revoked, not expired, tunnel active, agent connected, method,
//! path, rate, proxied. Tokens of what the request runs under are taken before `Routes` is asked, so that an end that
//! comes in between is seen by one of the two.

use std::{collections::VecDeque, convert::Infallible, rc::Rc, sync::Arc, task::Poll};

use bytes::Bytes;
use domain::{
    access::{Denied, PATH_BYTES_MAX, USER_AGENT_BYTES_MAX},
    ids::ShareId,
    policy::{
        methods::{self, Asked, Decision},
        paths::{self, PathRefusal},
        ports::protected_engine,
    },
    share::{Share, ShareCreated},
    target::Protocol,
    tunnel::{Tunnel, TunnelCreated},
};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{
        ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY,
        TRANSFER_ENCODING, USER_AGENT,
    },
    uri::PathAndQuery,
};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use projections::routes::Entry;

use super::{
    banner::{self, Coding, Injector, Sniffed},
    conn::Tick,
    exchange::{Answer, Busy, Exchange, Flow, Guard, Proxied},
    headers::{self, ForwardedFor, Seen},
    page::{self, Refusal},
    recorder::Visit,
    route::{self, Head, Place},
    server::{ConnCtx, Core, PublicPlace, PublicRequest},
    upstream::{Lane, Upload, UploadFailure, Upstream},
};
use crate::{limits, secrets::sha256, streams::OpenError};

mod relay;

/// Answers one request.
pub(super) async fn serve(
    core: Rc<Core>,
    ctx: Rc<ConnCtx>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let has_fragment = ctx.state.begin_request();
    let busy = Busy(Arc::clone(&ctx.state));
    let (parts, body) = request.into_parts();
    let accept = parts.headers.get(ACCEPT).cloned();
    let mut visitor = Visitor { core, ctx, parts, accept, has_fragment };
    Ok(visitor.answer(busy, body).await)
}

/// A request's head and where it came from.
struct Visitor {
    core: Rc<Core>,
    ctx: Rc<ConnCtx>,
    parts: http::request::Parts,
    /// What answers of our own are chosen by; the other headers move on to the target.
    accept: Option<HeaderValue>,
    has_fragment: bool,
}

/// A share that a request was led to, with everything that the parse of its head gave.
struct Found {
    id: ShareId,
    share: Arc<Entry<Share>>,
    /// The path that rules are asked about and the target receives.
    path: String,
    /// `/shared/<token>` in path form, else empty.
    prefix: String,
    /// Where this request is sent: a browser's navigation in path form.
    origin: Option<String>,
}

/// Everything that was checked for a request that may go to the target.
struct Passed {
    lane: Rc<Lane>,
}

/// An answer of the edge itself about a share.
enum Own {
    Refused(Denied, Box<Refusal>),
    Answered(Box<Response<Bytes>>),
    /// The visitor left within his upload: nobody hears an answer.
    Left,
}

impl From<Denied> for Own {
    fn from(denied: Denied) -> Self {
        Self::Refused(denied, Box::new(Refusal::of(denied)))
    }
}

impl Visitor {
    async fn answer(&mut self, busy: Busy, body: Incoming) -> Response<Answer> {
        let head = Head {
            method: &self.parts.method,
            uri: &self.parts.uri,
            version: self.parts.version,
            headers: &self.parts.headers,
        };
        let options = &self.core.shared.options;
        let routed = match route::route(&head, options.base_domain.as_deref()) {
            Ok(routed) => routed,
            Err(bad) => {
                let refusal = Refusal::new(StatusCode::BAD_REQUEST, "bad_request", bad.to_string());
                return self.refuse(&refusal, Guard::Busy(busy));
            }
        };
        let routes = &self.core.shared.deps.routes;
        let found = match routed.place {
            Place::Nothing => return self.refuse(&Refusal::not_found(), Guard::Busy(busy)),
            Place::Info { token } => {
                let token = token.to_owned();
                return self.public(PublicPlace::Info, token, busy, body).await;
            }
            Place::Query { token } => {
                let token = token.to_owned();
                return self.public(PublicPlace::Query, token, busy, body).await;
            }
            Place::Link { token, rest } => {
                routes.share_by_token(&sha256(token.as_bytes())).map(|(id, share)| {
                    let slug = share.state.created.as_ref().map_or("", |created| &created.slug);
                    let base = options.base_domain.as_deref();
                    Found {
                        id,
                        path: if rest.is_empty() { "/".to_owned() } else { rest.to_owned() },
                        prefix: format!("/shared/{token}"),
                        origin: self
                            .is_navigation()
                            .then(|| route::slug_origin(&routed.host, slug, base, &options.scheme))
                            .flatten(),
                        share,
                    }
                })
            }
            Place::Slug { slug, path } => routes.share_by_slug(&slug).map(|(id, share)| Found {
                id,
                share,
                path: path.to_owned(),
                prefix: String::new(),
                origin: None,
            }),
        };
        let Some(found) = found else { return self.unknown_share(busy) };
        self.visit(found, busy, body).await
    }

    /// Answers a request to a share, and has it recorded.
    async fn visit(&mut self, found: Found, busy: Busy, body: Incoming) -> Response<Answer> {
        let share = Arc::clone(&found.share);
        let Some(created) = &share.state.created else { return self.unknown_share(busy) };
        let Some(slot) = self.core.shared.deps.recorder.admit() else {
            self.core.shared.metrics.cannot_log.add(1);
            return self.refuse(&Refusal::cannot_log(), Guard::Busy(busy));
        };
        let visit = self.visit_of(created, &found.path);
        let exchange = Exchange::new(Rc::clone(&self.core), busy, slot, visit);
        *self.ctx.exchange.borrow_mut() = Rc::downgrade(&exchange);
        let passed = match self.check(&found, created) {
            Ok(passed) => passed,
            Err(own) => return self.own(own, exchange).await,
        };
        *exchange.lane.borrow_mut() = Some(Rc::clone(&passed.lane));
        match self.proxy(&found, created, &passed.lane, &exchange, body).await {
            Ok(response) => response,
            Err(own) => self.own(own, exchange).await,
        }
    }

    fn visit_of(&self, created: &ShareCreated, path: &str) -> Box<Visit> {
        let user_agent = self.parts.headers.get(USER_AGENT).map(|value| {
            let bytes = value.as_bytes();
            bytes[..bytes.len().min(USER_AGENT_BYTES_MAX)].into()
        });
        let end = path.floor_char_boundary(PATH_BYTES_MAX);
        Box::new(Visit {
            workspace: created.workspace_id,
            share: created.share_id,
            tunnel: created.tunnel_id,
            accessed_at: self.core.shared.deps.clock.now(),
            method: self.parts.method.clone(),
            ip: self.forwarded().visitor,
            path: path[..end].into(),
            user_agent,
        })
    }

    fn forwarded(&self) -> Rc<ForwardedFor> {
        let mut known = self.ctx.forwarded.borrow_mut();
        if let Some(known) = known.as_ref() {
            return Rc::clone(known);
        }
        let proxies = &self.core.shared.options.trusted_proxies;
        let fresh = Rc::new(ForwardedFor::new(self.ctx.peer, &self.parts.headers, proxies));
        if fresh.is_fixed() {
            *known = Some(Rc::clone(&fresh));
        }
        fresh
    }

    /// The checks, in the order of the contract.
    fn check(&self, found: &Found, created: &ShareCreated) -> Result<Passed, Own> {
        let deps = &self.core.shared.deps;
        let now = deps.clock.now();
        // A lane that this core has holds its tokens since long before `found` was read.
        let known = self.core.lanes.borrow().get(&found.id).cloned();
        let known = known.filter(|lane| lane.is_running());
        let tunnel = deps.routes.gate(&found.share.state, now)?;
        let leads_to = &tunnel.state.open().ok_or(Denied::TunnelGone)?.created;
        if !serves_http(leads_to) {
            return Err(Denied::NotServed.into());
        }
        let lane = match known {
            Some(lane) if lane.leads_to(leads_to) => lane,
            Some(_) | None => self.fresh_lane(found.id, created, &tunnel)?,
        };
        if !deps.streams.is_connected(lane.agent) {
            return Err(Denied::AgentOffline.into());
        }
        self.check_method(created)?;
        self.check_path(created, &found.path)?;
        self.check_rate(created)?;
        if let Some(origin) = &found.origin {
            let query = self.parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            let to = format!("{origin}{}{query}", found.path);
            if let Some(redirect) = page::redirect(&to, self.core.request_id()) {
                return Err(Own::Answered(Box::new(redirect)));
            }
        }
        Ok(Passed { lane })
    }

    /// A lane whose tokens are taken now; the share is judged again afterwards.
    fn fresh_lane(
        &self,
        id: ShareId,
        created: &ShareCreated,
        tunnel: &Entry<Tunnel>,
    ) -> Result<Rc<Lane>, Own> {
        let deps = &self.core.shared.deps;
        let stale = self.core.lanes.borrow().get(&id).cloned();
        if let Some(stale) = stale {
            self.core.end_lane(&stale);
        }
        let lane = Lane::new(&self.core, id, created.name.as_str(), tunnel).ok_or(Denied::TunnelGone)?;
        let share = deps.routes.share(id).ok_or(Denied::TunnelGone)?;
        let tunnel = deps.routes.gate(&share.state, deps.clock.now())?;
        if !tunnel.state.open().is_some_and(|details| lane.leads_to(&details.created)) {
            // It was moved in between: the visitor may ask again.
            return Err(Denied::UpstreamFailed.into());
        }
        self.core.lanes.borrow_mut().insert(id, Rc::clone(&lane));
        Ok(lane)
    }

    fn check_method(&self, created: &ShareCreated) -> Result<(), Own> {
        let headers = &self.parts.headers;
        let is_cross_origin = headers.contains_key(ORIGIN);
        let preflight_for = headers.get(ACCESS_CONTROL_REQUEST_METHOD).and_then(|value| value.to_str().ok());
        let asked = Asked {
            preflight_for: preflight_for.filter(|_| is_cross_origin),
            ..Asked::plain(self.parts.method.as_str())
        };
        match methods::decide(created.allowed_methods.as_deref(), &asked) {
            Decision::Pass => Ok(()),
            Decision::AnswerOptions { allow } => {
                Err(Own::Answered(Box::new(page::options(&allow, self.core.request_id()))))
            }
            Decision::Refuse => Err(Denied::MethodNotAllowed.into()),
        }
    }

    fn check_path(&self, created: &ShareCreated, path: &str) -> Result<(), Own> {
        let Some(rules) = &created.allowed_paths else {
            return if self.has_fragment { Err(Denied::BadRequest.into()) } else { Ok(()) };
        };
        if self.has_fragment {
            return Err(Denied::AmbiguousPath.into());
        }
        match paths::check(rules, path.as_bytes()) {
            Ok(()) => Ok(()),
            Err(PathRefusal::Ambiguous(_)) => Err(Denied::AmbiguousPath.into()),
            Err(PathRefusal::NotAllowed) => Err(Denied::PathNotAllowed.into()),
        }
    }

    fn check_rate(&self, created: &ShareCreated) -> Result<(), Own> {
        let deps = &self.core.shared.deps;
        let id = created.share_id.uuid();
        let own_limit = u32::from(created.rate_limit_per_min.unwrap_or(0));
        for (scope, limit) in [
            (limits::Scope::ShareOwn, own_limit),
            (limits::Scope::Share, self.core.shared.options.limit_share_per_min),
        ] {
            let verdict = deps.limiter.check(limits::Key::id(scope, id), limit);
            if !verdict.allowed {
                return Err(Own::Refused(Denied::RateLimited, Box::new(Refusal::rate_limited(verdict))));
            }
        }
        Ok(())
    }

    /// Whether a browser asks for a page to show.
    fn is_navigation(&self) -> bool {
        if !matches!(self.parts.method, Method::GET | Method::HEAD)
            || headers::wants_websocket(&self.parts.headers)
        {
            return false;
        }
        match self.parts.headers.get("sec-fetch-mode") {
            Some(mode) => mode == "navigate",
            None => banner::accepts_html(&self.parts.headers),
        }
    }

    /// Sends the request to the target and makes its answer the visitor's.
    async fn proxy(
        &mut self,
        found: &Found,
        created: &ShareCreated,
        lane: &Rc<Lane>,
        exchange: &Rc<Exchange>,
        body: Incoming,
    ) -> Result<Response<Answer>, Own> {
        let is_websocket = headers::wants_websocket(&self.parts.headers) && body.is_end_stream();
        let upgrade = is_websocket.then(|| self.parts.extensions.remove::<OnUpgrade>()).flatten();
        let wants_document = self.core.shared.options.banner
            && banner::asks_for_document(&self.parts.method, &self.parts.headers);
        let (request, shown_banner) =
            self.request(found, created, lane, exchange, body, upgrade.is_some(), wants_document)?;
        let (response, upstream) = self.send(lane, exchange, request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = upgrade else { return Err(Denied::UpstreamFailed.into()) };
            return self.switch(exchange, response, upstream, upgrade).await;
        }
        let (mut parts, incoming) = response.into_parts();
        parts.version = Version::HTTP_11;
        headers::drop_hop_by_hop(&mut parts.headers);
        let seen = Seen { prefix: &found.prefix, target: &lane.target };
        seen.rewrite(&mut parts.headers);
        if !found.prefix.is_empty() {
            guard_link(&mut parts.headers);
        }
        if shown_banner && parts.status == StatusCode::NOT_MODIFIED {
            banner::suffix_etag(&mut parts.headers);
        }
        let mut proxied = Box::new(Proxied {
            exchange: Rc::clone(exchange),
            incoming,
            ahead: VecDeque::new(),
            is_complete: false,
            upstream: Some(upstream),
            injector: None,
            flow: Flow::Streaming,
        });
        if wants_document && let Some(coding) = banner::document_coding(parts.status, &parts.headers) {
            self.prepare_banner(coding, &mut parts.headers, &mut proxied, lane).await?;
        }
        exchange.decide(parts.status, None);
        if proxied.incoming.is_end_stream() && proxied.ahead.is_empty() {
            if let Some(upstream) = proxied.upstream.take()
                && exchange.upload.done.get()
            {
                self.core.keep(lane, upstream);
            }
            if !exchange.finish_head().await {
                return Ok(self.refuse(&Refusal::cannot_log(), Guard::Exchange(Rc::clone(exchange))));
            }
            let guard = Guard::Exchange(Rc::clone(exchange));
            return Ok(Response::from_parts(parts, Answer::Own(None, guard)));
        }
        Ok(Response::from_parts(parts, Answer::Proxied(proxied)))
    }

    /// The request as the target gets it, and whether the visitor holds a document with a banner.
    #[expect(clippy::too_many_arguments, reason = "one caller; a struct for it would only rename them")]
    fn request(
        &mut self,
        found: &Found,
        created: &ShareCreated,
        lane: &Lane,
        exchange: &Rc<Exchange>,
        body: Incoming,
        is_upgrade: bool,
        wants_document: bool,
    ) -> Result<(Request<Upload>, bool), Own> {
        let limit = self.core.shared.options.body_bytes_max;
        if limit != 0 && body.size_hint().lower() > limit {
            return Err(too_large());
        }
        let forwarded = self.forwarded();
        let mut headers = std::mem::take(&mut self.parts.headers);
        let is_chunked = headers.contains_key(TRANSFER_ENCODING);
        headers::drop_hop_by_hop(&mut headers);
        let host = headers.remove(HOST);
        forwarded.set(&mut headers, host.as_ref());
        headers::set_host(&mut headers, lane.host.clone());
        if created.allowed_methods.is_some() {
            headers::drop_method_overrides(&mut headers);
        }
        if is_upgrade {
            headers::set_websocket(&mut headers);
        }
        let identity = wants_document && banner::wants_identity(&headers);
        let shown_banner = wants_document && headers::ask_for_document(&mut headers, identity);
        let upload = if body.is_end_stream() {
            exchange.upload.done.set(true);
            Upload::Empty
        } else {
            if is_chunked {
                // Said in so many words: hyper would take a GET of unknown length for one without a body.
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            Upload::Stream {
                incoming: body,
                progress: Rc::clone(&exchange.upload),
                conn: Arc::clone(&exchange.conn),
                bytes_max: limit,
            }
        };
        let mut request = Request::new(upload);
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = self.uri(found)?;
        *request.headers_mut() = headers;
        Ok((request, shown_banner))
    }

    /// The visitor's own bytes after the link prefix.
    fn uri(&self, found: &Found) -> Result<Uri, Own> {
        let whole = self.parts.uri.path_and_query();
        if found.prefix.is_empty()
            && let Some(whole) = whole
        {
            return Ok(Uri::from(whole.clone()));
        }
        let text = match self.parts.uri.query() {
            Some(query) => format!("{}?{query}", found.path),
            None => found.path.clone(),
        };
        PathAndQuery::from_maybe_shared(Bytes::from(text))
            .map(Uri::from)
            .map_err(|_| Denied::BadRequest.into())
    }

    /// Sends the request on a kept connection or a fresh one. A kept one that died before it answered is replaced
    /// once, where sending the request twice cannot do twice what it asks for.
    async fn send(
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

    fn stopped(&self, stopped: Stopped, exchange: &Exchange) -> Own {
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

    /// The target agreed to a WebSocket: from here on bytes are only carried.
    async fn switch(
        &self,
        exchange: &Rc<Exchange>,
        mut response: Response<Incoming>,
        upstream: Upstream,
        visitor: OnUpgrade,
    ) -> Result<Response<Answer>, Own> {
        let target = hyper::upgrade::on(&mut response);
        let (mut parts, _) = response.into_parts();
        headers::drop_hop_by_hop(&mut parts.headers);
        headers::set_websocket(&mut parts.headers);
        exchange.decide(parts.status, None);
        if exchange.is_before_response() {
            let (ack, durable) = tokio::sync::oneshot::channel();
            exchange.tell_running(Some(ack));
            if !durable.await.unwrap_or(false) {
                return Ok(self.refuse(&Refusal::cannot_log(), Guard::Exchange(Rc::clone(exchange))));
            }
        }
        self.core.shared.metrics.upgrades.add(1);
        let ends = relay::Ends { visitor, target, upstream };
        tokio::task::spawn_local(relay::run(Rc::clone(exchange), Rc::clone(&self.ctx), ends));
        let guard = Guard::Exchange(Rc::clone(exchange));
        Ok(Response::from_parts(parts, Answer::Own(None, guard)))
    }

    /// Reads as much of a document as it takes to know whether the banner goes in, and has it go in.
    async fn prepare_banner(
        &self,
        coding: Coding,
        headers: &mut HeaderMap,
        proxied: &mut Proxied,
        lane: &Lane,
    ) -> Result<(), Own> {
        let wanted =
            if coding == Coding::Identity { banner::SNIFF_BYTES_MAX } else { banner::PACKED_BYTES_MAX };
        let exchange = Rc::clone(&proxied.exchange);
        let start = match wait(&exchange, self.core.limits.sniff, read_ahead(proxied, coding, wanted)).await {
            Ok(Ok(start)) => start,
            Ok(Err(_)) => return Err(Denied::UpstreamFailed.into()),
            // It does not come in time: it passes as it is.
            Err(Stopped::Timeout) => return Ok(()),
            Err(Stopped::Revoked) => return Err(self.stopped(Stopped::Revoked, &exchange)),
        };
        if coding == Coding::Identity {
            if banner::sniff(&start) != Sniffed::Document {
                return Ok(());
            }
            proxied.injector = Some(Box::new(Injector::new(Rc::clone(&lane.markup))));
        } else {
            let has_trailers = proxied.ahead.iter().any(Frame::is_trailers);
            if !proxied.is_complete || has_trailers {
                return Ok(());
            }
            let Some(repacked) = banner::repack(coding, &start, &lane.markup) else { return Ok(()) };
            proxied.ahead = VecDeque::from([Frame::data(Bytes::from(repacked))]);
        }
        banner::adjust_headers(headers);
        self.core.shared.metrics.banners.add(1);
        Ok(())
    }

    /// An answer of our own about a share: recorded, then given.
    async fn own(&self, own: Own, exchange: Rc<Exchange>) -> Response<Answer> {
        let response = match own {
            Own::Left => {
                exchange.finish(Some(exchange.conn.cut().ended_by()), None);
                return self.refuse(&Refusal::of(Denied::BadRequest), Guard::Exchange(exchange));
            }
            Own::Refused(denied, refusal) => {
                exchange.decide(refusal.status, Some(denied));
                page::refusal(&refusal, self.accept.as_ref(), self.core.request_id())
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

    fn refuse(&self, refusal: &Refusal, guard: Guard) -> Response<Answer> {
        page::refusal(refusal, self.accept.as_ref(), self.core.request_id())
            .map(|body| Answer::Own(Some(body), guard))
    }

    fn unknown_share(&self, busy: Busy) -> Response<Answer> {
        let shared = &self.core.shared;
        shared.metrics.unknown_shares.add(1);
        let address = limits::Key::address(limits::Scope::UnknownShare, self.forwarded().visitor);
        for (key, limit) in [
            (address, shared.options.limit_public_per_min),
            (limits::Key::all(limits::Scope::UnknownShare), shared.options.limit_unknown_per_min),
        ] {
            let verdict = shared.deps.limiter.check(key, limit);
            if !verdict.allowed {
                return self.refuse(&Refusal::rate_limited(verdict), Guard::Busy(busy));
            }
        }
        self.refuse(&Refusal::unknown_share(), Guard::Busy(busy))
    }

    /// The two API paths that a visitor with nothing but the link may ask.
    async fn public(
        &self,
        place: PublicPlace,
        token: String,
        busy: Busy,
        body: Incoming,
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
        response.map(|body| Answer::Own(Some(body), Guard::Busy(busy)))
    }
}

/// The longest body of a request to the public API paths (bytes): a query has at most 10,000 characters.
const PUBLIC_BODY_BYTES_MAX: usize = 64 * 1024;

/// A share of a database, or of raw TCP or UDP, never gives its bytes to a visitor.
fn serves_http(tunnel: &TunnelCreated) -> bool {
    match tunnel.protocol {
        Protocol::Http | Protocol::Https => true,
        Protocol::Auto => protected_engine(tunnel.target.port).is_none(),
        Protocol::Tcp | Protocol::Udp => false,
    }
}

/// A link in path form has its token in the address, and shares its origin with every other link.
fn guard_link(headers: &mut HeaderMap) {
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let is_active = headers.get(http::header::CONTENT_TYPE).is_some_and(|value| {
        let kind = value.as_bytes().to_ascii_lowercase();
        [b"html".as_slice(), b"xml", b"svg"].iter().any(|part| memchr::memmem::find(&kind, part).is_some())
    });
    if is_active {
        let sandbox = HeaderValue::from_static("sandbox allow-scripts allow-forms allow-popups");
        headers.append(CONTENT_SECURITY_POLICY, sandbox);
    }
}

fn too_large() -> Own {
    let message = "The request's body is longer than this hub allows.";
    let refusal = Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message);
    Own::Refused(Denied::BadRequest, Box::new(refusal))
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
enum Stopped {
    Timeout,
    Revoked,
}

/// Waits for `work`, at most `limit` sweeps without progress of the upload, and no longer than the share may be used.
async fn wait<F: Future>(exchange: &Exchange, limit: Tick, work: F) -> Result<F::Output, Stopped> {
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

/// Reads frames into `ahead`: until the first tag is known, or (packed) until the end, or `wanted` bytes.
async fn read_ahead(proxied: &mut Proxied, coding: Coding, wanted: usize) -> Result<Vec<u8>, hyper::Error> {
    let mut start = Vec::new();
    while start.len() < wanted {
        let is_known = coding == Coding::Identity && banner::sniff(&start) != Sniffed::Undecided;
        if is_known {
            break;
        }
        match proxied.incoming.frame().await {
            Some(frame) => {
                let frame = frame?;
                if let Some(data) = frame.data_ref() {
                    start.extend_from_slice(data);
                }
                proxied.ahead.push_back(frame);
            }
            None => {
                proxied.is_complete = true;
                break;
            }
        }
    }
    Ok(start)
}
