//! Erasing what is personal: of the visitors of a share, or of everybody in the workspace.

use actix_web::{HttpRequest, HttpResponse, web};
use domain::{ids::ShareId, time::Day, workspace::Scope};
use schemas::rest::audit::{DataErased, EraseData};

use super::{Ports, body::Body, caller::Caller, error::ApiError, events, idempotency, lists, shares};
use crate::erasure::{Erase, EraseError};

/// `POST /v1/shares/:id/logs/erase`.
pub async fn of_share(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<EraseData>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Admin)?;
    let (share, _) = shares::find(&ports, &caller, &id)?;
    erase(&ports, &caller, &request, Some(share), &body).await
}

/// `POST /v1/audit/erase`.
pub async fn of_workspace(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    body: Body<EraseData>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Admin)?;
    erase(&ports, &caller, &request, None, &body).await
}

async fn erase(
    ports: &Ports,
    caller: &Caller,
    request: &HttpRequest,
    share: Option<ShareId>,
    body: &Body<EraseData>,
) -> Result<HttpResponse, ApiError> {
    let day = |field: &str, text: &str| text.parse::<Day>().map_err(|error| ApiError::field(field, error));
    let first_day = day("from", &body.value.from)?;
    let last_day = body.value.until.as_deref().map_or(Ok(first_day), |text| day("until", text))?;
    if last_day < first_day {
        return Err(ApiError::field("until", "must not lie before `from`"));
    }
    // The key makes the request the same one; done twice it comes to the same.
    idempotency::seed(ports, caller, request, &body.bytes).await?;
    // Accesses on their way to the log are of those days as well.
    ports.recorder.flushed().await;
    let erase = Erase { workspace: caller.workspace, share, first_day, last_day, now: ports.clock.now() };
    let (keys_destroyed, done) = erase
        .carry_out(&ports.keyring, &ports.executor, caller.who())
        .await
        .map_err(|error| match error {
            EraseError::Keyring(error) => {
                ApiError::unavailable("log_unavailable", format!("The keyring takes no writes: {error}."))
            }
            EraseError::Note(error) => error.into(),
            EraseError::Stopped(error) => ApiError::internal(error),
        })?;
    let mut response = HttpResponse::Ok();
    lists::written(ports, caller, done, &mut response);
    events::see_all(ports).await;
    let (from, until) = (first_day.to_string(), last_day.to_string());
    Ok(response.json(DataErased { success: true, from, until, keys_destroyed }))
}
