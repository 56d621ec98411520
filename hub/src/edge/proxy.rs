//! From a request's head to the head of its answer: the checks in their order, then the target.
//!
//! The order is product.md's, section 3: token known, not revoked, not expired, tunnel active, agent connected, method,
//! path, rate, proxied. Tokens of what the request runs under are taken before `Routes` is asked, so that an end that
//! comes in between is seen by one of the two.

use std::{collections::VecDeque, convert::Infallible, rc::Rc, sync::Arc, task::Poll};

use bytes::Bytes;
use domain::{
    access::{Denied, PATH_BYTES_MAX, USER_AGENT_BYTES_MAX},
    ids::{ShareId, TunnelId, WorkspaceId},
    share::{Share, ShareCreated},
};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Version,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, REFERRER_POLICY, USER_AGENT},
};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use projections::{catalog::ShareKey, routes::Entry};

use super::{
    banner,
    body::VisitorBody,
    conn::{ConnState, Cut, Flaws},
    connection::ConnCtx,
    exchange::{Answer, Busy, Exchange, Flow, Guard, Proxied, Trailers},
    grpc,
    headers::{self, ForwardedFor, Seen},
    options::PublicPlace,
    page::Refusal,
    recorder::Visit,
    route::{self, Head, Place},
    server::Core,
    upstream::{Hold, Upstream},
};
use crate::secrets::sha256;

mod checks;
mod document;
mod own;
mod relay;
mod request;
mod send;

/// Answers one request.
pub(super) async fn serve(
    core: Rc<Core>,
    ctx: Rc<ConnCtx>,
    request: Request<VisitorBody>,
) -> Result<Response<Answer>, Infallible> {
    let mut flaws = ctx.state.begin_request();
    let busy = Busy(Arc::clone(&ctx.state));
    let (parts, body) = request.into_parts();
    if headers::has_odd_coding(&parts.headers) {
        flaws = Flaws(flaws.0 | Flaws::LENGTHS.0);
    }
    let accept = parts.headers.get(ACCEPT).cloned();
    let is_call = grpc::is_call(parts.version, &parts.headers);
    let mut visitor = Visitor { core, ctx, parts, accept, is_call, flaws };
    trailers_left(&visitor.ctx.state).await;
    Ok(visitor.answer(busy, body).await)
}

/// Waits until the trailers of the answer before have left: they must not find anything behind them.
async fn trailers_left(state: &ConnState) {
    if !state.trailing.is_set() {
        return;
    }
    std::future::poll_fn(|cx| {
        state.register(cx);
        if state.trailing.is_set() && state.cut() == Cut::Not { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

/// A request's head and where it came from.
struct Visitor {
    core: Rc<Core>,
    ctx: Rc<ConnCtx>,
    parts: http::request::Parts,
    /// What answers of our own are chosen by; the other headers move on to the target.
    accept: Option<HeaderValue>,
    /// A gRPC call.
    is_call: bool,
    flaws: Flaws,
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

/// Where a request that passed the checks is on its way.
struct Way<'a> {
    found: &'a Found,
    created: &'a ShareCreated,
    exchange: &'a Rc<Exchange>,
    /// It asks for another protocol.
    switches: bool,
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
    async fn answer(&mut self, busy: Busy, body: VisitorBody) -> Response<Answer> {
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
                self.flaws = Flaws(self.flaws.0 | Flaws::HOST.0);
                return self.refuse(&refusal, Guard::Busy(busy));
            }
        };
        if self.is_ambiguous() && !matches!(routed.place, Place::Link { .. } | Place::Slug { .. }) {
            return self.refuse(&Refusal::ambiguous_head(), Guard::Busy(busy));
        }
        if self.is_misdirected(&routed.host.name) {
            let message =
                "This connection was opened for another host name. Open one of its own for this name.";
            let refusal = Refusal::new(StatusCode::MISDIRECTED_REQUEST, "misdirected_request", message);
            return self.refuse(&refusal, Guard::Busy(busy));
        }
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
                let digest = sha256(token.as_bytes());
                let found = routes.share_by_token(&digest).map(|(id, share)| {
                    let slug = share.state.created.as_ref().map_or("", |created| &created.slug);
                    let base = options.base_domain.as_deref();
                    Found {
                        id,
                        path: if rest.is_empty() { "/".to_owned() } else { rest.to_owned() },
                        prefix: format!("/shared/{token}"),
                        origin: self
                            .is_navigation()
                            .then(|| {
                                route::slug_origin(
                                    &routed.host,
                                    slug,
                                    base,
                                    &options.scheme,
                                    self.ctx.peer.is_secure,
                                )
                            })
                            .flatten(),
                        share,
                    }
                });
                found.ok_or_else(|| (ShareKey::Token(digest), rest.to_owned()))
            }
            Place::Slug { slug, path } => {
                let found = routes.share_by_slug(&slug).map(|(id, share)| Found {
                    id,
                    share,
                    path: path.to_owned(),
                    prefix: String::new(),
                    origin: None,
                });
                found.ok_or_else(|| (ShareKey::Slug(slug), path.to_owned()))
            }
        };
        match found {
            Ok(found) => self.visit(found, busy, body).await,
            Err((key, path)) => self.visit_forgotten(key, &path, busy).await,
        }
    }

    /// Whether the request names another host than the TLS handshake did: what was proven there says nothing about this
    /// one. A trusted proxy asks for what it likes.
    fn is_misdirected(&self, host: &str) -> bool {
        let asked = self.ctx.peer.server_name.as_deref();
        let differs = asked.is_some_and(|asked| asked.trim_end_matches('.') != host);
        differs && !self.core.shared.options.trusted_proxies.iter().any(|net| net.contains(&self.ctx.peer.ip))
    }

    /// Answers a request to a share that is not in memory: it never was, or it ended long ago.
    async fn visit_forgotten(&mut self, key: ShareKey, path: &str, busy: Busy) -> Response<Answer> {
        if let Some(verdict) = self.too_many_unknown() {
            self.core.shared.metrics.unknown_shares.add(1);
            return self.refuse(&Refusal::rate_limited(verdict), Guard::Busy(busy));
        }
        let Some(former) = (self.core.shared.deps.former)(key).await else { return self.unknown_share(busy) };
        let Some(slot) = self.core.shared.deps.recorder.admit() else {
            self.core.shared.metrics.cannot_log.add(1);
            return self.refuse(&Refusal::cannot_log(), Guard::Busy(busy));
        };
        let path = if path.is_empty() { "/" } else { path };
        let visit = self.visit_of(former.workspace, former.id, former.tunnel_id, path);
        let exchange = Exchange::new(Rc::clone(&self.core), busy, slot, visit);
        *self.ctx.exchange.borrow_mut() = Rc::downgrade(&exchange);
        self.own(former.denied.into(), exchange).await
    }

    /// Answers a request to a share, and has it recorded.
    async fn visit(&mut self, found: Found, busy: Busy, body: VisitorBody) -> Response<Answer> {
        let share = Arc::clone(&found.share);
        let Some(created) = &share.state.created else { return self.unknown_share(busy) };
        let Some(slot) = self.core.shared.deps.recorder.admit() else {
            self.core.shared.metrics.cannot_log.add(1);
            return self.refuse(&Refusal::cannot_log(), Guard::Busy(busy));
        };
        let visit = self.visit_of(created.workspace_id, created.share_id, created.tunnel_id, &found.path);
        let exchange = Exchange::new(Rc::clone(&self.core), busy, slot, visit);
        *self.ctx.exchange.borrow_mut() = Rc::downgrade(&exchange);
        let answered = match self.check(&found, created, &exchange).await {
            Ok(()) => self.proxy(&found, created, &exchange, body).await,
            Err(own) => Err(own),
        };
        match answered {
            Ok(response) => response,
            Err(own) => self.own(own, exchange).await,
        }
    }

    fn visit_of(&self, workspace: WorkspaceId, share: ShareId, tunnel: TunnelId, path: &str) -> Box<Visit> {
        let user_agent = self.parts.headers.get(USER_AGENT).map(|value| {
            let bytes = value.as_bytes();
            bytes[..bytes.len().min(USER_AGENT_BYTES_MAX)].into()
        });
        let end = path.floor_char_boundary(PATH_BYTES_MAX);
        Box::new(Visit {
            workspace,
            share,
            tunnel,
            accessed_at: self.core.shared.deps.clock.now(),
            method: self.parts.method.clone(),
            ip: self.forwarded().visitor,
            path: path[..end].into(),
            user_agent,
        })
    }

    fn forwarded(&self) -> Rc<ForwardedFor> {
        let peer = &self.ctx.peer;
        let mut known = peer.forwarded.borrow_mut();
        if let Some(known) = known.as_ref() {
            return Rc::clone(known);
        }
        let proxies = &self.core.shared.options.trusted_proxies;
        let scheme = if peer.is_secure { "https" } else { "http" };
        let fresh = Rc::new(ForwardedFor::new(peer.ip, scheme, &self.parts.headers, proxies));
        if fresh.is_fixed() {
            *known = Some(Rc::clone(&fresh));
        }
        fresh
    }

    /// Sends the request to the target and makes its answer the visitor's.
    async fn proxy(
        &mut self,
        found: &Found,
        created: &ShareCreated,
        exchange: &Rc<Exchange>,
        body: VisitorBody,
    ) -> Result<Response<Answer>, Own> {
        let is_websocket = headers::wants_websocket(&self.parts.headers) && body.is_end_stream();
        let upgrade = is_websocket.then(|| self.parts.extensions.remove::<OnUpgrade>()).flatten();
        let wants_document = self.core.shared.options.banner
            && banner::asks_for_document(&self.parts.method, &self.parts.headers);
        let (mut request, shown_banner) =
            self.request(found, created, exchange, body, upgrade.is_some(), wants_document)?;
        let way = Way { found, created, exchange, switches: upgrade.is_some() };
        let (response, hold) = if self.is_call {
            let (response, lease) = self.send_call(&way, request).await?;
            (response, Hold::Shared(lease))
        } else {
            self.listen_to_interim(exchange, &mut request);
            let (response, upstream) = self.send(&way, request).await?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                let Some(upgrade) = upgrade else { return Err(Denied::UpstreamFailed.into()) };
                return self.switch(exchange, response, upstream, upgrade).await;
            }
            (response, Hold::Alone(upstream))
        };
        send::interim_left(exchange).await;
        let lane = exchange.lane().ok_or(Denied::UpstreamFailed)?;
        let (mut parts, incoming) = response.into_parts();
        parts.version = Version::HTTP_11;
        headers::drop_hop_by_hop(&mut parts.headers);
        let seen = Seen { prefix: &found.prefix, target: &lane.origin };
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
            upstream: Some(hold),
            is_grpc: self.is_call,
            trailers: match self.parts.version {
                Version::HTTP_2 => Trailers::Frame,
                // There is no place for them but behind a last chunk.
                Version::HTTP_11 if !parts.headers.contains_key(CONTENT_LENGTH) => Trailers::Socket,
                _ => Trailers::Dropped,
            },
            injector: None,
            flow: Flow::Streaming,
        });
        if wants_document && let Some(coding) = banner::document_coding(parts.status, &parts.headers) {
            self.prepare_banner(coding, &mut parts.headers, &mut proxied, &lane).await?;
        }
        exchange.decide(parts.status, None);
        if proxied.incoming.is_end_stream() && proxied.ahead.is_empty() {
            if let Some(Hold::Alone(upstream)) = proxied.upstream.take()
                && exchange.upload.done.get()
            {
                self.core.keep(&lane, upstream);
            }
            if !exchange.finish_head().await {
                return Ok(self.refuse(&Refusal::cannot_log(), Guard::Exchange(Rc::clone(exchange))));
            }
            let guard = Guard::Exchange(Rc::clone(exchange));
            return Ok(Response::from_parts(parts, Answer::Own(None, guard)));
        }
        Ok(Response::from_parts(parts, Answer::Proxied(proxied)))
    }

    /// Whether somebody else could read another request in the same bytes.
    fn is_ambiguous(&self) -> bool {
        self.flaws.has(Flaws::LENGTHS) || self.flaws.has(Flaws::BARE_LF) || self.flaws.has(Flaws::HOST)
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
