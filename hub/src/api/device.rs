//! Device login: codes for machines without a key, approval by whoever may make keys, and a page for people.
//!
//! Approving makes a key, so it needs what making keys needs. The machine's key may change and run agents, not make
//! further keys.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode, header},
    web,
};
use domain::{
    ids::KeyId,
    names::Name,
    recorded::Actor,
    workspace::{Command, KeyCreated, Scope},
};
use schemas::rest::{DeviceCode, DeviceDecided, DeviceDecision, DeviceToken, StartDeviceLogin};

use super::{
    Ports,
    body::Body,
    caller::{self, Caller, request_id},
    error::ApiError,
    idempotency, limit, lists,
    problems::BodyOfItsOwn,
    url,
};
use crate::{
    actors::Who,
    device_login::{Approver, Begun, Decision, Device, EXPIRES_IN_S, Full, INTERVAL_S, Told, Undecided},
    edge::escape_html,
    secrets::{SecretKind, Seed},
};

/// What the key of a machine may do.
const SCOPES: [Scope; 1] = [Scope::Write];
/// What a browser may do with the page: send the form here, and nothing else.
const CSP: &str = "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// `POST /v1/device/code`: a machine without a key begins.
pub async fn start(
    ports: web::Data<Ports>,
    request: HttpRequest,
    body: Body<StartDeviceLogin>,
) -> Result<HttpResponse, ApiError> {
    limit::count_public(&ports, &request)?;
    url::check_query(&request)?;
    let name = |field: &str, text: &Option<String>| {
        text.as_deref().map(Name::parse).transpose().map_err(|error| ApiError::field(field, error))
    };
    let device = Device {
        label: name("label", &body.value.label)?,
        agent_name: name("agentName", &body.value.agent_name)?,
    };
    let begun = ports.devices.begin(device, ports.peer_of(&request), ports.clock.now());
    let Begun { device_code, user_code } = begun.map_err(|full| {
        let words = "Too many machines wait for approval; try again in some minutes, or use an API key.";
        match full {
            Full::All => ApiError::unavailable("too_many_devices", words),
            Full::Address => {
                let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_devices", words);
                ApiError { retry_after: Some(EXPIRES_IN_S), ..error }
            }
        }
    })?;
    Ok(HttpResponse::Ok().json(DeviceCode {
        device_code,
        user_code,
        verification_url: format!("{}/device", ports.links.api),
        expires_in: EXPIRES_IN_S,
        interval: INTERVAL_S,
    }))
}

/// `GET /v1/device/token?device_code=`: the machine asks until it has its key, which is made and shown once.
pub async fn token(ports: web::Data<Ports>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    limit::count_public(&ports, &request)?;
    let parameters = lists::parameters(&request, &["device_code"])?;
    let code = lists::parameter(&parameters, "device_code")
        .ok_or_else(|| ApiError::field("device_code", "is required"))?;
    if *request.method() == Method::HEAD {
        // It shows nothing, so it takes nothing.
        return Ok(HttpResponse::Ok().content_type("application/json").finish());
    }
    let now = ports.clock.now();
    // Before the question, after which a login may be over.
    let device = ports.devices.device(code).unwrap_or_default();
    match ports.devices.ask(code, now) {
        Told::Pending => {
            Err(waiting("authorization_pending", "Nobody has approved the code yet; ask again."))
        }
        Told::SlowDown(seconds) => {
            let words = format!("Wait {seconds} s between two questions.");
            Err(ApiError { retry_after: Some(seconds), ..waiting("slow_down", words) })
        }
        Told::Denied => Err(waiting("access_denied", "The login was denied.")),
        Told::Expired => {
            Err(waiting("expired_token", "The code is unknown, over, or was used. Begin a new login."))
        }
        Told::Approved(by) => {
            let made = make_key(&ports, &request, by, &device).await;
            if made.as_ref().is_err_and(|error| error.status.is_server_error()) {
                ports.devices.put_back(code, by);
            }
            made
        }
    }
}

fn waiting(code: &'static str, words: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, code, words)
}

async fn make_key(
    ports: &Ports,
    request: &HttpRequest,
    by: Approver,
    device: &Device,
) -> Result<HttpResponse, ApiError> {
    let now = ports.clock.now();
    let workspace =
        ports.routes.workspace(by.workspace).ok_or_else(|| ApiError::not_found("workspace", ""))?;
    // The approver may have lost that right since.
    let may = workspace.state.keys.get(&by.key).is_some_and(|key| {
        projections::routes::usable(key, now)
            && key.created.scopes.iter().any(|scope| scope.grants(Scope::Admin))
    });
    if !may {
        return Err(waiting("access_denied", "The key that approved the login is no longer good."));
    }
    let called = device.label.as_ref().or(device.agent_name.as_ref()).map_or("machine", Name::as_str);
    let name: String = format!("device login: {called}").chars().take(100).collect();
    let seed = Seed::random();
    let secret = seed.secret(SecretKind::ApiKey, "key");
    let key = KeyCreated {
        key_id: KeyId::new(seed.uuid(now, "key-id")),
        name: Name::parse(name.trim_end()).map_err(ApiError::internal)?,
        scopes: SCOPES.to_vec(),
        key_hash: secret.digest_hex(),
        prefix: secret.preview(),
        allowed_ip_ranges: Vec::new(),
        expires_at: None,
    };
    let key_id = key.key_id;
    let who = Who {
        workspace: by.workspace,
        actor: Actor::Key(by.key),
        request: Some(request_id(request)),
        causation: None,
    };
    ports.executor.workspace(by.workspace, who, Command::CreateKey { key, now }).await?;
    let created = workspace.state.created.as_ref();
    Ok(HttpResponse::Ok().json(DeviceToken {
        api_key: secret.reveal().to_owned(),
        key_id: key_id.to_string(),
        workspace_id: by.workspace.to_string(),
        workspace_name: created.map(|created| created.name.to_string()).unwrap_or_default(),
        scopes: SCOPES.iter().map(|scope| scope.name().to_owned()).collect(),
    }))
}

/// `POST /v1/device/approve`.
pub async fn approve(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    body: Body<DeviceDecision>,
) -> Result<HttpResponse, ApiError> {
    let by = approver(&caller)?;
    idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    decided(&ports, &body.value.user_code, Decision::Approve(by))
}

/// `POST /v1/device/deny`.
pub async fn deny(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    body: Body<DeviceDecision>,
) -> Result<HttpResponse, ApiError> {
    let by = approver(&caller)?;
    idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    decided(&ports, &body.value.user_code, Decision::Deny(by))
}

fn approver(caller: &Caller) -> Result<Approver, ApiError> {
    caller.require_key(Scope::Admin)?;
    let key = caller.key_id().ok_or_else(|| ApiError::internal("a key was required"))?;
    Ok(Approver { workspace: caller.workspace, key })
}

fn decided(ports: &Ports, user_code: &str, decision: Decision) -> Result<HttpResponse, ApiError> {
    let Device { label, agent_name } = decide(ports, user_code, decision)?;
    Ok(HttpResponse::Ok().json(DeviceDecided {
        success: true,
        label: label.map(|label| label.to_string()),
        agent_name: agent_name.map(|name| name.to_string()),
    }))
}

fn decide(ports: &Ports, user_code: &str, decision: Decision) -> Result<Device, ApiError> {
    ports.devices.decide(user_code, decision, ports.clock.now()).map_err(|undecided| match undecided {
        Undecided::Unknown => ApiError::new(
            StatusCode::NOT_FOUND,
            "device_code_not_found",
            "No machine waits under this code. Compare it with what the machine shows.",
        ),
        Undecided::Decided => ApiError::new(
            StatusCode::CONFLICT,
            "device_decided",
            "This login was approved or denied already.",
        ),
        Undecided::LockedOut(seconds) => {
            let words = format!("Too many wrong codes in this workspace; try again in {seconds} s.");
            let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "device_locked_out", words);
            ApiError { retry_after: Some(seconds), ..error }
        }
    })
}

/// `GET /device`: where a person types what the machine shows.
pub async fn page(ports: web::Data<Ports>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    limit::count_public(&ports, &request)?;
    url::check_query(&request)?;
    Ok(html(StatusCode::OK, FORM))
}

const FORM: &str = "\
<p>A machine that runs <code>connect up</code> shows a code. Approve it only if you started that yourself.</p>\n\
<form method=\"post\" action=\"/device\" autocomplete=\"off\">\n\
<p><label>Code <input name=\"user_code\" required maxlength=\"16\" placeholder=\"XXXX-XXXX\" autofocus></label></p>\n\
<p><label>API key with the scope admin <input name=\"api_key\" type=\"password\" required maxlength=\"200\"></label></p>\n\
<p><button name=\"decision\" value=\"approve\">Approve</button> <button name=\"decision\" value=\"deny\">Deny</button></p>\n\
</form>\n";

/// `POST /device`: the same page's form. The key is in the form and nowhere else, so nobody can send it in its owner's
/// stead.
pub async fn page_decision(
    ports: web::Data<Ports>,
    request: HttpRequest,
    bytes: web::Bytes,
) -> Result<HttpResponse, ApiError> {
    let type_of_body = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_form = type_of_body.is_some_and(|text| text.starts_with("application/x-www-form-urlencoded"));
    if !is_form {
        limit::count_public(&ports, &request)?;
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "This page takes its own form; programs use POST /v1/device/approve.",
        ));
    }
    url::check_query(&request)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let fields: Vec<(String, String)> =
        web::Query::from_query(text).map(web::Query::into_inner).unwrap_or_default();
    let field = |name: &str| lists::parameter(&fields, name).unwrap_or_default().trim();
    let said = caller::by_secret(&ports, &request, field("api_key")).and_then(|caller| {
        let by = approver(&caller)?;
        match field("decision") {
            "approve" => {
                decide(&ports, field("user_code"), Decision::Approve(by)).map(|device| (device, true))
            }
            "deny" => decide(&ports, field("user_code"), Decision::Deny(by)).map(|device| (device, false)),
            _ => Err(ApiError::field("decision", "must be approve or deny")),
        }
    });
    Ok(match said {
        Ok((device, is_approved)) => {
            let called =
                device.label.as_ref().or(device.agent_name.as_ref()).map_or("The machine", Name::as_str);
            let words = if is_approved { "is let in. You can close this page." } else { "is turned away." };
            html(StatusCode::OK, &format!("<p><strong>{}</strong> {words}</p>\n", escape_html(called)))
        }
        Err(error) => {
            let words =
                format!("<p role=\"alert\"><strong>{}</strong></p>\n{FORM}", escape_html(&error.message));
            let mut response = html(error.status, &words);
            if let Some(seconds) = error.retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
    })
}

fn html(status: StatusCode, body: &str) -> HttpResponse {
    let mut response = HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, CSP))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(format!(
            "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>Let a machine in - Private Connect</title></head>\n<body>\n<h1>Let a machine in</h1>\n{body}</body>\n</html>\n"
        ));
    response.extensions_mut().insert(BodyOfItsOwn);
    response
}
