//! What agents offer, and who offers what.

use actix_web::{HttpRequest, HttpResponse, web};
use domain::{
    agent::{Capability, Command},
    names::Name,
    workspace::Scope,
};
use schemas::rest::{self, SetCapabilities};

use super::{Ports, agents, body::Body, caller::Caller, error::ApiError, idempotency, lists, present};

/// `POST /v1/agents/:id/capabilities`: all that the agent offers from now on.
pub async fn set(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<SetCapabilities>,
) -> Result<HttpResponse, ApiError> {
    let (id, _) = agents::speaks_for(&ports, &caller, &id)?;
    let read = |asked: &rest::Capability| {
        let name = Name::parse(&asked.name)
            .map_err(|error| ApiError::field("capabilities", format_args!("names {error}")))?;
        Ok::<_, ApiError>(Capability { name, metadata: asked.metadata.clone().unwrap_or_default() })
    };
    let capabilities = body.value.capabilities.iter().map(read).collect::<Result<_, _>>()?;
    let capabilities =
        Capability::list(capabilities).map_err(|error| ApiError::field("capabilities", error))?;
    idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let done = ports.executor.agent(id, caller.who(), Command::SetCapabilities { capabilities }).await?;
    let entry = ports.routes.agent(id).ok_or_else(|| ApiError::not_found("agent", id))?;
    let mut response = HttpResponse::Ok();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(present::agent(&ports, id, &entry)))
}

/// `GET /v1/agents/by-capability/:capability`: who offers it; `online=true` leaves out who is not connected.
pub async fn offering(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    capability: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    // Agents look for each other.
    caller.require(Scope::Read).or_else(|missing| caller.require(Scope::Agent).map_err(|_| missing))?;
    let parameters = lists::parameters(&request, &["limit", "cursor", "online"])?;
    let page = lists::page(&parameters)?;
    let only_online = match lists::parameter(&parameters, "online") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(ApiError::field("online", "must be true or false")),
    };
    let ids = ports.routes.agents_offering(caller.workspace, &capability);
    let found = ids.into_iter().filter(|id| !only_online || ports.gateway.is_connected(*id));
    let entries = found.filter_map(|id| Some((id, ports.routes.agent(id)?)));
    let shown = entries.filter_map(|(id, entry)| Some((id, present::agent(&ports, id, &entry)?)));
    let (shown, next) = page.cut(shown)?;
    Ok(lists::answer(&request, &shown, next.as_deref()))
}
