//! The name of a public service's own host: choose it, and ask before whether it can be had.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use domain::{
    aggregate::Aggregate as _,
    claim::{Claim, ClaimKind},
    policy::slug::{self, InvalidSlug},
    target::{Shareable, shareable},
    time::Timestamp,
    workspace::Scope,
};
use schemas::rest::services::{SetSubdomain, Subdomain, SubdomainCheck};

use super::{Ports, body::Body, caller::Caller, error::ApiError, lists, tunnels};
use crate::{
    creation::{CreateError, claim_stream, public_share},
    secrets::Seed,
};

/// Events of a claim are read in pages of this many.
const CLAIM_PAGE: usize = 1_000;

/// `PATCH /v1/services/:id/subdomain`: the former public URL ends.
pub async fn set(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<SetSubdomain>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (id, entry) = tunnels::find(&ports, &caller, &id)?;
    let wanted = body.value.subdomain;
    if let Some(subdomain) = &wanted {
        slug::check_chosen(subdomain).map_err(|error| ApiError::field("subdomain", error))?;
    }
    // A new subdomain is another share, and leaves the tunnel's stream as it is: there is no append to judge it at.
    lists::if_match(&request, entry.revision)?;
    let created = &entry.state.open().ok_or_else(|| ApiError::not_found("tunnel", id))?.created;
    if shareable(created.protocol, created.target.port) == Shareable::No {
        return Err(CreateError::NotShareable(created.protocol).into());
    }
    if !created.is_public {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "not_public",
            "Only a public service has a subdomain: register it with `isPublic: true`, or choose one for a share.",
        ));
    }
    let current = public_share(&ports.routes, id);
    let is_chosen = current.as_ref().is_some_and(|(share, _)| {
        ports
            .routes
            .share(*share)
            .is_some_and(|it| it.state.created.as_ref().is_some_and(|it| it.slug_chosen))
    });
    let stays = match (&current, &wanted) {
        (Some((_, slug)), Some(wanted)) => slug == wanted,
        (Some(_), None) => !is_chosen,
        (None, _) => false,
    };
    let mut response = HttpResponse::Ok();
    let (subdomain, chosen) = match current.filter(|_| stays) {
        Some((_, slug)) => (slug, is_chosen),
        None => {
            let chosen = wanted.is_some();
            let link = ports.creator.readdress(&caller.who(), &Seed::random(), id, wanted).await?;
            lists::written(&ports, &caller, link.done, &mut response);
            (link.slug, chosen)
        }
    };
    let notice = "A chosen subdomain can be guessed: whoever guesses it can use this service.";
    response.insert_header(("etag", lists::etag(entry.revision)));
    Ok(response.json(Subdomain {
        id: id.to_string(),
        public_url: ports.links.slug(&subdomain),
        subdomain,
        notice: chosen.then(|| notice.to_owned()),
    }))
}

/// `GET /v1/services/:id/subdomain/check?subdomain=…`.
pub async fn check(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let (id, _) = tunnels::find(&ports, &caller, &id)?;
    let parameters = lists::parameters(&request, &["subdomain"])?;
    let subdomain = lists::parameter(&parameters, "subdomain")
        .ok_or_else(|| ApiError::field("subdomain", "is required"))?
        .to_owned();
    let answer = |reason: Option<&str>, message: String, available_at: Option<Timestamp>| {
        let available = reason.is_none_or(|reason| reason == "current");
        let (subdomain, reason) = (subdomain.clone(), reason.map(str::to_owned));
        let available_at = available_at.map(|at| at.to_string());
        HttpResponse::Ok().json(SubdomainCheck { subdomain, available, reason, message, available_at })
    };
    if let Err(error) = slug::check_chosen(&subdomain) {
        let reason = match error {
            InvalidSlug::Reserved => "reserved",
            InvalidSlug::Length
            | InvalidSlug::Character
            | InvalidSlug::OuterHyphen
            | InvalidSlug::Encoded => "invalid",
        };
        return Ok(answer(Some(reason), format!("It {error}."), None));
    }
    if public_share(&ports.routes, id).is_some_and(|(_, slug)| slug == subdomain) {
        return Ok(answer(Some("current"), "This service has it already.".to_owned(), None));
    }
    let now = ports.clock.now();
    let lives = ports.routes.share_by_slug(&subdomain).is_some_and(|(_, entry)| entry.state.ended.is_none());
    Ok(match claim_of(&ports, &subdomain).await? {
        Claim::Taken(_) | Claim::Confirmed(_) => answer(Some("taken"), "It is in use.".to_owned(), None),
        Claim::Released { quarantined_until: Some(until) } if until > now => {
            let words = format!("It was in use before and is free again on {until}.");
            answer(Some("quarantined"), words, Some(until))
        }
        Claim::Free | Claim::Released { .. } if lives => {
            answer(Some("taken"), "It is in use.".to_owned(), None)
        }
        Claim::Free | Claim::Released { .. } => answer(None, "It can be had.".to_owned(), None),
    })
}

/// Where a subdomain's claim stands. Memory forgets those that were released long ago, and quarantine lasts.
async fn claim_of(ports: &Ports, subdomain: &str) -> Result<Claim, ApiError> {
    let stream = claim_stream(ClaimKind::Slug, subdomain);
    if let Some(entry) = ports.routes.claim(&stream) {
        return Ok(entry.state.clone());
    }
    let (mut claim, mut next) = (Claim::default(), 1);
    loop {
        let page = ports.log.read_stream(&stream, next, CLAIM_PAGE).await.map_err(ApiError::internal)?;
        for recorded in &page {
            if let Some(event) = recorded.event().ok().and_then(Claim::from_event) {
                claim.evolve(&event);
            }
            next = recorded.revision + 1;
        }
        if page.is_empty() {
            return Ok(claim);
        }
    }
}
