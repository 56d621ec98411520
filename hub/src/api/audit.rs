//! `/v1/audit`: who did what to what and when, newest first, and what that has in common.
//!
//! Of deleted things too: an audit is mostly about what is gone.

use actix_web::{HttpRequest, HttpResponse, web};
use domain::{
    ids::{AgentId, ShareId, TunnelId},
    time::Timestamp,
    workspace::Scope,
};
use projections::audit::{AuditCounts, AuditFilter};
use schemas::rest::{
    AuditLogs,
    access_logs::HourCount,
    audit::{ActorCount, AuditStats, TypeCount},
};
use uuid::Uuid;

use super::{Ports, caller::Caller, error::ApiError, events, lists};
use crate::{event_forms, feed::Wanted};

/// How many facts statistics look at, the newest: about a second of work.
const STATS_FACTS_MAX: usize = 500_000;
/// How many authors are shown.
const ACTORS_MAX: usize = 100;
/// The longest name of a type or an author.
const WORD_BYTES_MAX: usize = 64;

const FILTERS: [&str; 7] = ["type", "actor", "agentId", "tunnelId", "shareId", "since", "until"];
const OF_ONE: [&str; 6] = ["type", "actor", "since", "until", "limit", "cursor"];

/// `GET /v1/audit`.
pub async fn list(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let parameters = lists::parameters(&request, &[FILTERS.as_slice(), &["limit", "cursor"]].concat())?;
    let mut filter = filter(&parameters)?;
    filter.things = things(&ports, &caller, &parameters)?;
    page(&ports, &caller, &request, &parameters, filter).await
}

/// `GET /v1/audit/agents/:id`.
pub async fn of_agent(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    of_one(&ports, &caller, &request, agent(&ports, &caller, &id)?).await
}

/// `GET /v1/audit/tunnels/:id`.
pub async fn of_tunnel(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    of_one(&ports, &caller, &request, tunnel(&ports, &caller, &id)?).await
}

/// `GET /v1/audit/shares/:id`.
pub async fn of_share(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    of_one(&ports, &caller, &request, share(&ports, &caller, &id)?).await
}

/// `GET /v1/audit/stats`.
pub async fn stats(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let parameters = lists::parameters(&request, &FILTERS)?;
    let mut filter = filter(&parameters)?;
    filter.things = things(&ports, &caller, &parameters)?;
    events::see_all(&ports).await;
    let place = ports.readings.take(caller.workspace)?;
    let reader = ports.views.audit();
    let counts = web::block(move || {
        let _place = place;
        reader.counts(caller.workspace, &filter, STATS_FACTS_MAX)
    });
    Ok(HttpResponse::Ok().json(shown(lists::view(counts.await.map_err(ApiError::internal)?)?)))
}

async fn of_one(
    ports: &Ports,
    caller: &Caller,
    request: &HttpRequest,
    thing: Uuid,
) -> Result<HttpResponse, ApiError> {
    let parameters = lists::parameters(request, &OF_ONE)?;
    let filter = AuditFilter { things: vec![thing], ..filter(&parameters)? };
    page(ports, caller, request, &parameters, filter).await
}

async fn page(
    ports: &Ports,
    caller: &Caller,
    request: &HttpRequest,
    parameters: &[(String, String)],
    filter: AuditFilter,
) -> Result<HttpResponse, ApiError> {
    let page = lists::page(parameters)?;
    let below = page.cursor.as_deref().map(number).transpose()?;
    events::see_all(ports).await;
    let (reader, workspace) = (ports.views.audit(), caller.workspace);
    let found = web::block(move || reader.facts(workspace, &filter, below, page.limit));
    let found = lists::view(found.await.map_err(ApiError::internal)?)?;
    let feed = events::feed(ports, caller, Wanted::of(Vec::new()));
    // A stream is read forwards.
    let rows: Vec<_> = found.rows.into_iter().rev().collect();
    let recorded = feed.read(&rows).await.map_err(ApiError::internal)?;
    let logs = recorded.iter().rev().map(event_forms::entry).collect();
    let next = found.next.map(|number| number.to_string());
    Ok(lists::answer(request, &AuditLogs { logs }, next.as_deref()))
}

fn number(text: &str) -> Result<u64, ApiError> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let number = text.parse().ok().filter(|_| plain);
    number.ok_or_else(|| ApiError::field("cursor", "must be one that an earlier page gave"))
}

fn filter(parameters: &[(String, String)]) -> Result<AuditFilter, ApiError> {
    let moment = |name: &str| match lists::parameter(parameters, name) {
        None => Ok(None),
        Some(text) => text.parse::<Timestamp>().map(Some).map_err(|error| ApiError::field(name, error)),
    };
    let actor = match lists::parameter(parameters, "actor") {
        None => None,
        Some(text) if is_author(text) => Some(text.to_owned()),
        Some(_) => {
            return Err(ApiError::field(
                "actor",
                "must be the id of a key or an agent, or a part of the hub such as `operator`",
            ));
        }
    };
    let types = match lists::parameter(parameters, "type") {
        None => Vec::new(),
        Some(text) => vec![event_type("type", text)?],
    };
    Ok(AuditFilter { types, actor, things: Vec::new(), since: moment("since")?, until: moment("until")? })
}

fn is_author(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// The name of a type, by its form: another build may know others.
///
/// # Errors
/// 400 naming the parameter.
pub(super) fn event_type(parameter: &str, text: &str) -> Result<String, ApiError> {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let fits = text.len() <= WORD_BYTES_MAX
        && text.split_once('.').is_some_and(|(noun, verb)| word(noun) && word(verb));
    if fits {
        return Ok(text.to_owned());
    }
    Err(ApiError::field(parameter, "must be the type of an event, such as tunnel.created"))
}

fn things(ports: &Ports, caller: &Caller, parameters: &[(String, String)]) -> Result<Vec<Uuid>, ApiError> {
    type Find = fn(&Ports, &Caller, &str) -> Result<Uuid, ApiError>;
    let finders: [(&str, Find); 3] = [("agentId", agent), ("tunnelId", tunnel), ("shareId", share)];
    let named =
        finders.into_iter().filter_map(|(name, find)| Some((lists::parameter(parameters, name)?, find)));
    named.map(|(id, find)| find(ports, caller, id)).collect()
}

fn agent(ports: &Ports, caller: &Caller, text: &str) -> Result<Uuid, ApiError> {
    caller.require(Scope::Read)?;
    let missing = || ApiError::not_found("agent", text);
    let id: AgentId = text.parse().map_err(|_| missing())?;
    let here = lists::view(ports.catalog.agent(caller.workspace, id))?.is_some();
    if here { Ok(id.uuid()) } else { Err(missing()) }
}

fn tunnel(ports: &Ports, caller: &Caller, text: &str) -> Result<Uuid, ApiError> {
    caller.require(Scope::Read)?;
    let missing = || ApiError::not_found("tunnel", text);
    let id: TunnelId = text.parse().map_err(|_| missing())?;
    let here = lists::view(ports.catalog.tunnel(caller.workspace, id))?.is_some();
    if here { Ok(id.uuid()) } else { Err(missing()) }
}

fn share(ports: &Ports, caller: &Caller, text: &str) -> Result<Uuid, ApiError> {
    caller.require(Scope::Read)?;
    let missing = || ApiError::not_found("share", text);
    let id: ShareId = text.parse().map_err(|_| missing())?;
    let here = lists::view(ports.catalog.share(caller.workspace, id, ports.clock.now()))?.is_some();
    if here { Ok(id.uuid()) } else { Err(missing()) }
}

fn shown(counts: AuditCounts) -> AuditStats {
    let by_count = |counts: std::collections::BTreeMap<String, u64>| {
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|(one, most), (other, more)| more.cmp(most).then_with(|| one.cmp(other)));
        counts
    };
    let mut actors = by_count(counts.by_actor);
    let others = actors.split_off(actors.len().min(ACTORS_MAX));
    let hours = counts.by_hour.into_iter();
    AuditStats {
        events: counts.events,
        first_recorded_at: counts.span.map(|(first, _)| first.to_string()),
        last_recorded_at: counts.span.map(|(_, last)| last.to_string()),
        complete: counts.complete,
        by_type: by_count(counts.by_type)
            .into_iter()
            .map(|(name, count)| TypeCount { r#type: name, count })
            .collect(),
        by_actor: actors.into_iter().map(|(actor, count)| ActorCount { actor, count }).collect(),
        other_actors: others.iter().map(|(_, count)| count).sum(),
        by_hour: hours.map(|(hour, count)| HourCount { hour: hour.to_string(), count }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_two_words_and_a_dot() {
        for text in ["tunnel.created", "agent.token_issued"] {
            assert_eq!(event_type("type", text).unwrap(), text);
        }
        for text in ["", ".", "tunnel", "tunnel.", ".created", "Tunnel.created", "a.b.c", "tunnel.*", "a. b"]
        {
            assert!(event_type("type", text).is_err(), "{text}");
        }
    }
}
