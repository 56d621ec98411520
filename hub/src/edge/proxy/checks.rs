//! The checks between a share that was found and its target, in the order of the contract (product.md section 3).

use std::rc::Rc;

use domain::{
    access::Denied,
    ids::ShareId,
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
        banner, headers,
        page::{self, Refusal},
        upstream::Lane,
    },
    limits,
};

impl Visitor {
    /// The checks, in the order of the contract.
    pub(super) fn check(&self, found: &Found, created: &ShareCreated) -> Result<Rc<Lane>, Own> {
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
        Ok(lane)
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
