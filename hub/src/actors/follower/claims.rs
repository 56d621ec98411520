//! Claims follow their holders: confirmed once the holder is there, freed once it is gone or has another name.
//!
//! To free is to look and then to act. In between the holder may have come back (a tunnel renamed to B and at once to A
//! again), so what is freed is the very holding that was seen: the claim itself refuses any other.

use domain::{
    claim::{self, Claim, ClaimKind, ClaimTaken, UNCONFIRMED_MS_MAX},
    ids::{EnvironmentId, ShareId, TunnelId},
    recorded::StreamName,
};
use projections::routes::Routes;
use uuid::Uuid;

use super::{Caused, Consequence};
use crate::{
    actors::{ExecuteError, Executor, Who},
    clock::SharedClock,
    creation::{Creator, claim_stream, name_key},
};

/// An idempotency key is remembered for a day (milliseconds).
const IDEMPOTENCY_MS: i64 = 86_400_000;

/// The holder exists. One that has gone on already, and whose claim is free, is no trouble.
pub(super) async fn confirm(
    executor: &Executor,
    who: Who,
    kind: ClaimKind,
    key: &str,
    holder: String,
) -> Result<(), String> {
    match executor.claim(claim_stream(kind, key), who, claim::Command::Confirm { holder }).await {
        Ok(_) | Err(ExecuteError::Rejected(_)) => Ok(()),
        Err(error) => Err(format!("{error:?}")),
    }
}

/// Frees what `holder` has no more; what it has again stays.
pub(super) async fn release(
    creator: &Creator,
    who: Who,
    kind: ClaimKind,
    key: &str,
    holder: &str,
) -> Result<(), String> {
    let _kept = match holder.parse::<TunnelId>() {
        Ok(id) if kind == ClaimKind::TunnelName => Some(creator.keep_name(id).await),
        Ok(_) | Err(_) => None,
    };
    let stream = claim_stream(kind, key);
    let Some(held) = holding(&creator.routes, &stream).filter(|held| held.holder == holder) else {
        return Ok(());
    };
    if kind != ClaimKind::Idempotency && holds(&creator.routes, &held) {
        return Ok(());
    }
    free(creator, who, stream, held).await
}

/// Frees this holding and no other.
pub(super) async fn free(
    creator: &Creator,
    who: Who,
    stream: StreamName,
    held: ClaimTaken,
) -> Result<(), String> {
    let ClaimTaken { kind, key, holder, command_id, .. } = held;
    let command = claim::Command::Release { holder, command_id, now: creator.clock.now() };
    creator.executor.claim(stream, who, command).await.map_err(|error| format!("{error:?}"))?;
    give_back(creator, kind, &key);
    Ok(())
}

/// Frees what was never confirmed, unless its holder has come.
pub(super) async fn abandon(
    creator: &Creator,
    who: Who,
    kind: ClaimKind,
    key: &str,
    command_id: Uuid,
) -> Result<(), String> {
    let stream = claim_stream(kind, key);
    let Some(held) = holding(&creator.routes, &stream).filter(|held| held.command_id == command_id) else {
        return Ok(());
    };
    if holds(&creator.routes, &held) {
        return Ok(());
    }
    let command = claim::Command::Abandon { command_id };
    creator.executor.claim(stream, who, command).await.map_err(|error| format!("{error:?}"))?;
    give_back(creator, kind, key);
    Ok(())
}

fn holding(routes: &Routes, stream: &StreamName) -> Option<ClaimTaken> {
    routes.claim(stream)?.state.holder().cloned()
}

/// Whoever gets here has just freed the port: nobody can have taken it since, because the pool did not offer it.
fn give_back(creator: &Creator, kind: ClaimKind, key: &str) {
    if kind == ClaimKind::TunnelPort
        && let Ok(port) = key.parse()
    {
        creator.ports.give_back(port);
    }
}

/// Claims whose holders never came, or are gone, and those that nobody confirmed.
pub(super) fn forgotten(routes: &Routes, clock: &SharedClock) -> Vec<Caused> {
    let now = clock.now();
    let mut found = Vec::new();
    for (_, entry) in routes.all_claims() {
        let Some(held) = entry.state.holder() else { continue };
        let age_ms = now.millis() - entry.changed_at.millis();
        let confirmed = matches!(entry.state, Claim::Confirmed(_));
        let (kind, key, holder) = (held.kind, held.key.clone(), held.holder.clone());
        let consequence = if kind == ClaimKind::Idempotency {
            if age_ms <= IDEMPOTENCY_MS {
                continue;
            }
            Consequence::Release { kind, key, holder }
        } else if age_ms <= UNCONFIRMED_MS_MAX {
            continue;
        } else {
            match (holds(routes, held), confirmed) {
                (true, true) => continue,
                (true, false) => Consequence::Confirm { kind, key, holder },
                (false, true) => Consequence::Release { kind, key, holder },
                (false, false) => Consequence::Abandon { kind, key, command_id: held.command_id },
            }
        };
        found.push((held.workspace_id, None, consequence));
    }
    found
}

/// Whether the holder of a claim exists and has the claimed thing.
fn holds(routes: &Routes, claim: &ClaimTaken) -> bool {
    let tunnel = || claim.holder.parse::<TunnelId>().ok().and_then(|id| routes.tunnel(id));
    match claim.kind {
        ClaimKind::TunnelName => tunnel().is_some_and(|entry| {
            entry.state.open().is_some_and(|details| {
                name_key(details.created.workspace_id, details.created.name.as_str()) == claim.key
            })
        }),
        ClaimKind::TunnelPort => tunnel().is_some_and(|entry| {
            entry.state.open().is_some_and(|details| details.created.tunnel_port.to_string() == claim.key)
        }),
        ClaimKind::Slug => {
            let share = claim.holder.parse::<ShareId>().ok().and_then(|id| routes.share(id));
            share.is_some_and(|entry| {
                let slug = entry.state.created.as_ref().map(|created| created.slug.as_str());
                entry.state.ended.is_none() && slug == Some(claim.key.as_str())
            })
        }
        ClaimKind::EnvironmentCode => {
            let id = claim.holder.parse::<EnvironmentId>().ok();
            id.and_then(|id| routes.environment(id)).is_some_and(|entry| entry.state.ended.is_none())
        }
        ClaimKind::Idempotency => true,
    }
}

#[cfg(test)]
mod tests;
