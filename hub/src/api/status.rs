//! The caller's own workspace in numbers.

use actix_web::{HttpRequest, HttpResponse, web};
use domain::workspace::Scope;
use schemas::rest::services::{AgentNumbers, LiveNumber, TunnelNumbers, WorkspaceStatus};

use super::{Ports, caller::Caller, error::ApiError, lists};

/// `GET /v1/status`.
pub async fn status(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    lists::parameters(&request, &[])?;
    lists::see_own_writes(&ports, &caller, &request).await;
    let now = ports.clock.now();
    let numbers = lists::view(ports.catalog.numbers(caller.workspace, now))?;
    let online = ports.gateway.online().iter().filter(|it| it.workspace == caller.workspace).count();
    let living =
        ports.routes.environments_of(caller.workspace).into_iter().filter(|id| {
            ports.routes.environment(*id).is_some_and(|entry| entry.state.living(now).is_some())
        });
    let workspace = ports.routes.workspace(caller.workspace);
    let name = workspace.and_then(|it| it.state.created.as_ref().map(|created| created.name.to_string()));
    let environments = living.count();
    Ok(HttpResponse::Ok().json(WorkspaceStatus {
        workspace_id: caller.workspace.to_string(),
        workspace_name: name.unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agents: AgentNumbers { total: numbers.agents, online: count(online) },
        tunnels: TunnelNumbers {
            total: numbers.tunnels,
            active: numbers.active,
            connecting: numbers.tunnels - numbers.active - numbers.failed - numbers.paused,
            error: numbers.failed,
            paused: numbers.paused,
        },
        shares: LiveNumber { active: numbers.shares },
        environment_shares: LiveNumber { active: count(environments) },
    }))
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
