//! Who is cut: sessions that no longer answer, and sessions whose token, key or agent is no longer good.
//!
//! It stands outside the sessions' actors because a peer that does not read stops its actor's timers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use domain::agent::DisconnectReason;
use tokio::time::MissedTickBehavior;

use super::{
    Gateway,
    session::Order,
    sessions::{Session, goodbye},
};

/// The rights of a session are looked at this often at least: an end that nobody announced is noticed within a second.
const TICK_MS_MAX: u64 = 500;

/// Looks at every session, over and over.
pub(crate) async fn watch(gateway: Gateway) {
    let tick_ms = (gateway.settings().heartbeat_ms / 8).clamp(10, TICK_MS_MAX);
    let mut ticks = tokio::time::interval(Duration::from_millis(tick_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = gateway.stopped().cancelled() => return,
            _ = ticks.tick() => {}
        }
        for session in gateway.sessions().all() {
            look(&gateway, &session);
        }
        gateway.sessions().forget_turns();
    }
}

fn look(gateway: &Gateway, session: &Arc<Session>) {
    if let Some(reason) = no_longer_good(gateway, session) {
        return gateway.close(session, reason, Some(goodbye(reason)));
    }
    let (settings, now) = (gateway.settings(), gateway.monotonic_ms());
    let silence = now.saturating_sub(session.answered_ms.load(Ordering::Acquire));
    if silence > settings.silence_ms_max {
        tracing::info!(agent = %session.agent, silence_ms = silence, "agent session is silent and cut");
        gateway.close(session, DisconnectReason::Silent, None);
        return session.shut();
    }
    if now.saturating_sub(session.pinged_ms.load(Ordering::Relaxed)) >= settings.heartbeat_ms {
        session.pinged_ms.store(now, Ordering::Relaxed);
        session.tell(Order::Ping);
    }
}

fn no_longer_good(gateway: &Gateway, session: &Session) -> Option<DisconnectReason> {
    let parts = gateway.parts();
    let Some(agent) = parts.routes.agent(session.agent) else { return Some(DisconnectReason::Deleted) };
    if agent.state.deleted {
        return Some(DisconnectReason::Deleted);
    }
    // By its hash: a rotation brings the end of the older token forward.
    let held = session.token_hash.lock().clone();
    let Some(token) = agent.state.tokens.iter().find(|token| token.token_hash == held) else {
        return Some(DisconnectReason::TokenExpired);
    };
    let now = parts.clock.now();
    if parts.routes.token_holds(&agent.state, token, now) {
        None
    } else if token.expires_at <= now {
        Some(DisconnectReason::TokenExpired)
    } else {
        Some(DisconnectReason::KeyRevoked)
    }
}
