//! `Idempotency-Key`: a repeated POST gives the first one's ids and secrets, also across a crash.
//!
//! The key is claimed with the request's fingerprint; ids and secrets are derived from the claim, so that running the
//! command again finds what the first run made. Another body under the same key is 422.

use actix_web::{HttpRequest, http::StatusCode};
use domain::claim::{self, ClaimKind, ClaimTaken};
use uuid::Uuid;

use super::{Ports, caller::Caller, error::ApiError};
use crate::{
    actors::ExecuteError,
    creation::claim_stream,
    secrets::{Seed, hex, sha256},
};

/// The longest key (bytes).
const KEY_BYTES_MAX: usize = 255;

/// The seed of a command: derived when the caller named it, random otherwise.
///
/// # Errors
/// 400 for a key that is no key, 422 for a key that was used with another request.
pub async fn seed(
    ports: &Ports,
    caller: &Caller,
    request: &HttpRequest,
    body: &[u8],
) -> Result<Seed, ApiError> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(Seed::random()) };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return Err(ApiError::field("Idempotency-Key", "must be 1-255 printable ASCII characters"));
    }
    let whose = format!("{}/{:?}/{key}", caller.workspace, caller.who().actor);
    let whose = hex(&sha256(whose.as_bytes()));
    let asked = [request.method().as_str().as_bytes(), b" ", request.path().as_bytes(), b"\n", body].concat();
    let fingerprint = hex(&sha256(&asked));
    let stream = claim_stream(ClaimKind::Idempotency, &whose);
    let known = ports.routes.claim(&stream);
    let command_id =
        known.as_ref().and_then(|entry| entry.state.holder().map(|held| held.command_id)).unwrap_or_else(
            || Uuid::from_bytes(*Seed::random().bytes("command").first_chunk().expect("32 bytes")),
        );
    let claim = ClaimTaken {
        kind: ClaimKind::Idempotency,
        key: whose,
        workspace_id: caller.workspace,
        holder: fingerprint.clone(),
        command_id,
    };
    let take = claim::Command::Take { claim, now: ports.clock.now() };
    let command_id = match ports.executor.claim(stream.clone(), caller.who(), take).await {
        Ok(_) => command_id,
        // Two of the same at the same moment: the slower one goes on as the faster one's repetition.
        Err(ExecuteError::Rejected(claim::Rejection::ClaimTaken { holder, command_id, .. }))
            if holder == fingerprint =>
        {
            command_id
        }
        Err(ExecuteError::Rejected(_)) => {
            return Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "This Idempotency-Key was used with another request; take a new one.",
            ));
        }
        Err(error) => return Err(error.into()),
    };
    let first_seen = ports.routes.claim(&stream).map_or_else(|| ports.clock.now(), |entry| entry.created_at);
    let day_key = ports.keyring.secret(&format!("idempotency-{}", first_seen.day())).map_err(|error| {
        ApiError::unavailable("log_unavailable", format!("The keyring takes no writes: {error}."))
    })?;
    Ok(Seed::derived(&day_key, command_id, first_seen))
}
