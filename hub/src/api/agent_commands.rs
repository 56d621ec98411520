//! Commands to agents: sent, looked at, listed. What the agent does with them is said over its session.

use actix_web::{HttpRequest, HttpResponse, web};
use domain::{
    agent_command::{Command, CommandQueued, Order, Outcome, PENDING_MAX, Progress, TTL_MS, TTL_SECONDS},
    ids::{CommandId, TunnelId},
    names::Name,
    target::{Protocol, Target},
    time::Timestamp,
    workspace::Scope,
};
use projections::catalog::CommandRow;
use schemas::rest::{self, ExposeParams, NoParams, ReachParams, SendCommand};
use serde_json::Value;

use super::{
    Ports, agents,
    body::{self, Body},
    caller::Caller,
    error::ApiError,
    idempotency, lists, tunnels,
};

/// `POST /v1/agents/:id/command`: at once where the agent is connected, else when it comes, if that is in time.
pub async fn send(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    agent: web::Path<String>,
    body: Body<SendCommand>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (agent_id, _) = agents::find(&ports, &caller, &agent)?;
    let order = order(&ports, &caller, &body.value)?;
    let ttl_ms = match body.value.ttl_seconds {
        None => TTL_MS,
        Some(seconds) if u64::try_from(seconds).is_ok_and(|seconds| TTL_SECONDS.contains(&seconds)) => {
            seconds * 1_000
        }
        Some(_) => return Err(ApiError::field("ttlSeconds", "must be from 10 to 86400")),
    };
    let seed = idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let first_seen = seed.first_seen().unwrap_or_else(|| ports.clock.now());
    let id = CommandId::new(seed.uuid(first_seen, "command"));
    let command = CommandQueued {
        command_id: id,
        workspace_id: caller.workspace,
        agent_id,
        order,
        expires_at: first_seen.plus_ms(ttl_ms),
    };
    let expires_at = command.expires_at;
    let action = command.order.action();
    let desk = ports.desk.of(agent_id).await;
    if ports.routes.command(id).is_none() && ports.routes.pending_commands(agent_id).len() >= PENDING_MAX {
        return Err(ApiError::new(
            actix_web::http::StatusCode::CONFLICT,
            "commands_full",
            format!(
                "{PENDING_MAX} commands wait for this agent; wait until it has done some, or they expire."
            ),
        ));
    }
    let command = Command::Queue { command, now: first_seen };
    let done = ports.executor.command(id, caller.who(), command).await?;
    drop(desk);
    let agent_online = ports.gateway.is_connected(agent_id);
    let message = if agent_online {
        format!("The agent is told to {action}; ask for the command to see what became of it.")
    } else {
        format!("The agent is offline: it is told to {action} when it comes, until {expires_at}.")
    };
    let mut response = HttpResponse::Created();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(rest::CommandQueued {
        success: true,
        command_id: id.to_string(),
        message,
        agent_online,
    }))
}

fn order(ports: &Ports, caller: &Caller, asked: &SendCommand) -> Result<Order, ApiError> {
    let params = Value::from_iter(asked.params.clone().unwrap_or_default());
    let plain = |order: Order| body::part(params.clone(), "params").map(|NoParams {}| order);
    match asked.action.as_str() {
        "restart" => plain(Order::Restart),
        "stop" => plain(Order::Stop),
        "status" => plain(Order::Status),
        "expose" => expose(&body::part(params, "params")?),
        "reach" => reach(ports, caller, &body::part(params, "params")?),
        _ => Err(ApiError::field("action", "must be one of restart, stop, expose, reach, status")),
    }
}

fn expose(params: &ExposeParams) -> Result<Order, ApiError> {
    let target = Target::parse(&params.target).map_err(|error| ApiError::field("params.target", error))?;
    let name = params.name.as_deref().map(Name::parse).transpose();
    let name = name.map_err(|error| ApiError::field("params.name", error))?;
    let protocol = params.protocol.as_deref().map_or(Ok(Protocol::Auto), str::parse);
    let protocol = protocol.map_err(|error| ApiError::field("params.protocol", error))?;
    Ok(Order::Expose { target, name, protocol })
}

/// The service is looked up now: what it is called later is another matter.
fn reach(ports: &Ports, caller: &Caller, params: &ReachParams) -> Result<Order, ApiError> {
    let asked = params.service.as_str();
    let port = params.port.map(u16::try_from).transpose();
    let port = port.map_err(|_| ApiError::field("params.port", "must be a number from 0 to 65535"))?;
    let id = match asked.parse::<TunnelId>() {
        Ok(id) => Some(id),
        Err(_) => ports.routes.tunnel_named(caller.workspace, asked),
    };
    let missing = || ApiError::not_found("tunnel", asked);
    let (tunnel_id, entry) = tunnels::find(ports, caller, &id.ok_or_else(missing)?.to_string())?;
    let details = entry.state.open().ok_or_else(missing)?;
    Ok(Order::Reach {
        tunnel_id,
        service: details.created.name.clone(),
        protocol: match details.created.protocol {
            Protocol::Udp => Protocol::Udp,
            Protocol::Auto | Protocol::Tcp | Protocol::Http | Protocol::Https => Protocol::Tcp,
        },
        port: port.unwrap_or(details.created.target.port),
    })
}

/// `GET /v1/agents/:id/commands/:commandId`.
pub async fn get(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (agent, asked) = path.into_inner();
    let (agent_id, _) = agents::look_at(&ports, &caller, &agent)?;
    let missing = || ApiError::not_found("command", &asked);
    let id: CommandId = asked.parse().map_err(|_| missing())?;
    let now = ports.clock.now();
    let (shown, revision) = match ports.routes.command(id) {
        Some(entry) => {
            let queued = entry
                .state
                .queued
                .as_ref()
                .filter(|queued| queued.agent_id == agent_id && queued.workspace_id == caller.workspace);
            let queued = queued.ok_or_else(missing)?;
            let (status, outcome) = match &entry.state.progress {
                Progress::Queued => ("queued", None),
                Progress::Delivered => ("delivered", None),
                Progress::Finished(outcome @ Outcome::Done { .. }) => ("done", Some(outcome.clone())),
                Progress::Finished(outcome @ Outcome::Failed { .. }) => ("failed", Some(outcome.clone())),
                Progress::Expired => ("expired", None),
            };
            let row = CommandRow {
                id,
                agent_id,
                order: queued.order.clone(),
                status: status.to_owned(),
                outcome,
                expires_at: queued.expires_at,
                created_at: entry.created_at,
                updated_at: entry.changed_at,
                revision: entry.revision,
            };
            (shown(row, now), entry.revision)
        }
        // One that ended long ago.
        None => {
            lists::see_own_writes(&ports, &caller, &request).await;
            let row = lists::view(ports.catalog.command(caller.workspace, id))?;
            let row = row.filter(|row| row.agent_id == agent_id).ok_or_else(missing)?;
            let revision = row.revision;
            (shown(row, now), revision)
        }
    };
    Ok(HttpResponse::Ok().insert_header(("etag", lists::etag(revision))).json(shown))
}

/// `GET /v1/agents/:id/commands`: newest first.
pub async fn list(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    agent: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (agent_id, _) = agents::look_at(&ports, &caller, &agent)?;
    let page = lists::page(&lists::parameters(&request, &["limit", "cursor"])?)?;
    lists::see_own_writes(&ports, &caller, &request).await;
    let found = lists::view(ports.catalog.commands(caller.workspace, agent_id, page.of_view()))?;
    let now = ports.clock.now();
    let commands = found.rows.into_iter().map(|row| shown(row, now)).collect();
    Ok(lists::answer(&request, &rest::AgentCommands { commands }, found.next.as_deref()))
}

fn shown(row: CommandRow, now: Timestamp) -> rest::AgentCommand {
    let CommandRow { id, agent_id, order, status, outcome, expires_at, created_at, updated_at, .. } = row;
    // By the clock, whether it was recorded yet or not.
    let is_late = status == "queued" && expires_at <= now;
    let (result, error) = match outcome {
        None => (None, None),
        Some(Outcome::Done { result }) => (Some(result), None),
        Some(Outcome::Failed { code, message }) => (None, Some(rest::CommandOutcome { code, message })),
    };
    rest::AgentCommand {
        id: id.to_string(),
        agent_id: agent_id.to_string(),
        action: order.action().to_owned(),
        params: params(&order),
        status: if is_late { "expired".to_owned() } else { status },
        result,
        error,
        created_at: created_at.to_string(),
        updated_at: updated_at.to_string(),
        expires_at: expires_at.to_string(),
    }
}

/// As they were sent.
fn params(order: &Order) -> Value {
    match order {
        Order::Restart | Order::Stop | Order::Status => serde_json::json!({}),
        Order::Expose { target, name, protocol } => {
            let mut params = serde_json::json!({ "target": target.to_string(), "protocol": protocol });
            if let Some(name) = name {
                params["name"] = name.as_str().into();
            }
            params
        }
        Order::Reach { tunnel_id, port, .. } => {
            serde_json::json!({ "service": tunnel_id.to_string(), "port": port })
        }
    }
}
