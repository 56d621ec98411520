//! The checks between a share that was found and its target, in the order of the contract (product.md section 3).

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use domain::{
    access::Denied,
    ids::{AgentId, ShareId},
    policy::{
        methods::{self, Asked, Decision},
        paths::{self, PathRefusal},
        ports::protected_engine,
    },
    share::ShareCreated,
    target::Protocol,
    tunnel::{Tunnel, TunnelCreated},
};
use http::{
    Method,
    header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN},
};
use projections::routes::Entry;

use super::{Found, Own, Visitor};
use crate::{
    edge::{
        banner,
        conn::Flaws,
        exchange::Exchange,
        headers,
        page::{self, Refusal},
        server::Shared,
        upstream::Lane,
    },
    limits,
};

/// An agent that left longer ago is away, and nobody waits for it.
const AGENT_LEFT_WITHIN: Duration = Duration::from_secs(10);
/// After a start of the hub, an agent whose state changed so lately left because the former hub stopped.
const AGENT_DRAINED_WITHIN_MS: i64 = 60_000;
/// How often whoever waits for an agent looks.
const AGENT_LOOK_EVERY: Duration = Duration::from_millis(25);

impl Visitor {
    /// The checks, in the order of the contract. The exchange has its lane then.
    pub(super) async fn check(
        &self,
        found: &Found,
        created: &ShareCreated,
        exchange: &Exchange,
    ) -> Result<(), Own> {
        if self.is_ambiguous() {
            return Err(Own::Refused(Denied::BadRequest, Box::new(Refusal::ambiguous_head())));
        }
        self.connected(found, created, exchange).await?;
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
        Ok(())
    }

    /// The way to the share's target, if its agent is there, or comes back soon enough.
    async fn connected(&self, found: &Found, created: &ShareCreated, exchange: &Exchange) -> Result<(), Own> {
        let streams = &self.core.shared.deps.streams;
        let lane = self.lane(found, created)?;
        let agent = lane.agent;
        exchange.take_lane(lane);
        if streams.is_connected(agent) {
            return Ok(());
        }
        if !self.agent_returns(agent, exchange).await {
            return Err(Denied::AgentOffline.into());
        }
        exchange.take_lane(self.lane(found, created)?);
        Ok(())
    }

    /// The way to a share's target, if it may be used now.
    pub(super) fn lane(&self, found: &Found, created: &ShareCreated) -> Result<Rc<Lane>, Own> {
        let deps = &self.core.shared.deps;
        // A lane that this core has holds its tokens since long before `found` was read.
        let known = self.core.lanes.borrow().get(&found.id).cloned();
        let known = known.filter(|lane| lane.is_running());
        let tunnel = deps.routes.gate(&found.share.state, deps.clock.now())?;
        let leads_to = &tunnel.state.open().ok_or(Denied::TunnelGone)?.created;
        if !serves_http(leads_to) {
            return Err(Denied::NotServed.into());
        }
        match known {
            Some(lane) if lane.leads_to(leads_to) => Ok(lane),
            Some(_) | None => self.fresh_lane(found.id, created, &tunnel),
        }
    }

    /// Waits for an agent that has just gone; whether it is back. A request that waits costs nothing but its place.
    pub(super) async fn agent_returns(&self, agent: AgentId, exchange: &Exchange) -> bool {
        let Shared { options, deps, metrics } = &*self.core.shared;
        let patience = Duration::from_millis(options.agent_wait_ms);
        if patience.is_zero() || !self.has_just_left(agent) {
            return false;
        }
        let Some(_place) = self.core.wait_for_agent() else { return false };
        metrics.agent_waits.add(1);
        let begun = Instant::now();
        let mut looks = tokio::time::interval(AGENT_LOOK_EVERY);
        while begun.elapsed() < patience {
            looks.tick().await;
            if deps.streams.is_connected(agent) {
                return true;
            }
            // What ended meanwhile is answered as what it is.
            let lane = exchange.lane();
            let may_go_on = lane.and_then(|lane| deps.routes.share(lane.share));
            let gate = may_go_on.map(|share| deps.routes.gate(&share.state, deps.clock.now()));
            if !matches!(gate, Some(Ok(_))) {
                return true;
            }
        }
        false
    }

    /// Whether an agent was there a moment ago: here, or at this hub before it was started anew.
    fn has_just_left(&self, agent: AgentId) -> bool {
        let deps = &self.core.shared.deps;
        let running = &deps.running;
        running.left_within(agent, AGENT_LEFT_WITHIN)
            || !running.has_left_for_good(agent)
                && running.started_within(AGENT_LEFT_WITHIN)
                && deps.routes.agent(agent).is_some_and(|agent| {
                    let left = agent.changed_at.plus_ms(AGENT_DRAINED_WITHIN_MS) > deps.clock.now();
                    agent.state.session.is_some() || agent.state.epoch > 0 && left
                })
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
            return if self.flaws.has(Flaws::FRAGMENT) { Err(Denied::BadRequest.into()) } else { Ok(()) };
        };
        if self.flaws.has(Flaws::FRAGMENT) {
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
    pub(super) fn is_navigation(&self) -> bool {
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
}

/// A share of a database, or of raw TCP or UDP, never gives its bytes to a visitor.
fn serves_http(tunnel: &TunnelCreated) -> bool {
    match tunnel.protocol {
        Protocol::Http | Protocol::Https => true,
        Protocol::Auto => protected_engine(tunnel.target.port).is_none(),
        Protocol::Tcp | Protocol::Udp => false,
    }
}
