//! This machine's identity at the hub: the saved one, or a new one that is then saved.

use jiff::{SignedDuration, Timestamp};
use schemas::rest::{RegisterAgent, RotateToken};
use wire::tls::trust::Trust;

use super::Context;
use crate::{
    api::{Api, ApiError},
    failure::Failure,
    settings::config_file::{Config, ConfigFile, Locked, SavedAgent},
};

/// A token that ends within this time is exchanged before it is used.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(24);

/// Who this process is at the hub.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) agent: SavedAgent,
    /// The workspace's name.
    pub(crate) workspace: String,
}

/// What the command line says about the identity.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wishes<'a> {
    pub(crate) label: Option<&'a str>,
    pub(crate) name: Option<&'a str>,
    pub(crate) keep: Keep,
}

/// What is saved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The agent's identity, so that a restart is the same agent.
    #[default]
    Agent,
    /// The API key as well: this is a login.
    AgentAndKey,
}

/// Finds or makes the identity. What cannot be saved is said, and nothing worse.
pub(crate) async fn ensure(context: &Context<'_>, wishes: Wishes<'_>) -> Result<Identity, Failure> {
    context.need_key()?;
    // Tells a wrong key from everything else before anything is made, and which workspace this is.
    let who = context.api.who_am_i().await?;
    let lock = lock(context).await;
    // Under the lock another process of this machine may have registered meanwhile: one machine, one agent.
    let hub = context.settings.hub.as_str();
    let saved = match &lock {
        Some(lock) => lock.read()?.hubs.remove(hub).unwrap_or_default().agent,
        None => context.settings.saved.agent.clone(),
    };
    let saved = saved.filter(|agent| agent.workspace_id == who.workspace_id);
    let is_good = saved.as_ref().is_some_and(|agent| !ends_soon(&agent.expires_at));
    let agent = match saved {
        Some(agent) if is_good && wishes.label.is_none() && wishes.name.is_none() => agent,
        known => register(&context.api, known.as_ref(), wishes).await?,
    };
    if let Some(lock) = &lock {
        save(context, lock, &agent, wishes.keep);
    }
    Ok(Identity { agent, workspace: who.workspace_name })
}

/// Exchanges the token of a saved identity and saves the new one.
pub(crate) async fn renew(
    api: &Api,
    config: Option<&ConfigFile>,
    saved: &SavedAgent,
) -> Result<SavedAgent, ApiError> {
    let fresh = answered(api, &body_for(Some(saved), Wishes::default())).await?;
    keep(api, config, &fresh).await;
    Ok(fresh)
}

/// Exchanges the token of a saved identity by itself, without a key, and saves the new one. Asked again with the same
/// token, after a crash in between, the hub answers with the same new one.
pub(crate) async fn rotate(
    api: &Api,
    config: Option<&ConfigFile>,
    saved: &SavedAgent,
) -> Result<SavedAgent, ApiError> {
    let body = RotateToken { agent_id: saved.id.clone(), current_token: saved.token.clone() };
    let digest = ring::digest::digest(&ring::digest::SHA256, saved.token.as_bytes());
    let repeatable: String = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let credentials = api.rotate_agent_token(&body, &format!("rotate-{repeatable}")).await?;
    let fresh = SavedAgent { token: credentials.token, expires_at: credentials.expires_at, ..saved.clone() };
    keep(api, config, &fresh).await;
    Ok(fresh)
}

// Not saved: the next start renews it again.
async fn keep(api: &Api, config: Option<&ConfigFile>, fresh: &SavedAgent) {
    let Some(config) = config else { return };
    let (hub, fresh) = (api.hub().to_string(), fresh.clone());
    let _ = config.change(|config| config.hubs.entry(hub).or_default().agent = Some(fresh)).await;
}

/// Forgets an identity that the hub does not know any more, so that the next start makes a new one.
pub(crate) async fn forget(context: &Context<'_>, agent_id: &str) {
    let Some(config) = &context.settings.config else { return };
    let hub = context.settings.hub.as_str();
    let forgotten = config.change(|config| {
        if let Some(saved) = config.hubs.get_mut(hub)
            && saved.agent.as_ref().is_some_and(|agent| agent.id == agent_id)
        {
            saved.agent = None;
        }
    });
    if let Err(failure) = forgotten.await {
        say_not_saved(context, &failure);
    }
}

async fn lock<'a>(context: &'a Context<'_>) -> Option<Locked<'a>> {
    let Some(config) = &context.settings.config else {
        context.output.warn("There is no home folder: nothing is saved, the next start is a new agent");
        return None;
    };
    match config.lock().await {
        Ok(lock) => Some(lock),
        Err(failure) => {
            say_not_saved(context, &failure);
            None
        }
    }
}

async fn register(api: &Api, known: Option<&SavedAgent>, wishes: Wishes<'_>) -> Result<SavedAgent, ApiError> {
    match answered(api, &body_for(known, wishes)).await {
        // Deleted at the hub: begin anew, under a new id.
        Err(error) if known.is_some() && matches!(error.status(), Some(403 | 404 | 409 | 410)) => {
            answered(api, &RegisterAgent { agent_id: None, ..body_for(known, wishes) }).await
        }
        done => done,
    }
}

fn body_for(known: Option<&SavedAgent>, wishes: Wishes<'_>) -> RegisterAgent {
    let said =
        |wish: Option<&str>, saved: Option<&String>| wish.map(str::to_owned).or_else(|| saved.cloned());
    RegisterAgent {
        agent_id: known.map(|agent| agent.id.clone()),
        label: said(wishes.label, known.and_then(|agent| agent.label.as_ref())).or_else(host_name),
        name: said(wishes.name, known.and_then(|agent| agent.name.as_ref())),
    }
}

async fn answered(api: &Api, body: &RegisterAgent) -> Result<SavedAgent, ApiError> {
    let credentials = api.register_agent(body).await?;
    Ok(SavedAgent {
        id: credentials.agent_id,
        token: credentials.token,
        expires_at: credentials.expires_at,
        workspace_id: credentials.workspace_id,
        label: body.label.clone(),
        name: body.name.clone(),
    })
}

fn save(context: &Context<'_>, lock: &Locked<'_>, agent: &SavedAgent, keep: Keep) {
    let hub = context.settings.hub.as_str();
    let key = context.settings.api_key.as_ref().filter(|_| keep == Keep::AgentAndKey);
    let saved = lock.change(|config: &mut Config| {
        if key.is_some() {
            // A login chooses the hub of later commands.
            config.hub = Some(hub.to_owned());
        }
        let saved = config.hubs.entry(hub.to_owned()).or_default();
        saved.agent = Some(agent.clone());
        if let Some(key) = key {
            saved.api_key = Some(key.reveal().to_owned());
            // Later commands may stand in another folder.
            if let Trust::File(file) = &context.settings.trust {
                saved.ca = Some(std::path::absolute(file).unwrap_or_else(|_| file.clone()));
            }
        }
    });
    if let Err(failure) = saved {
        say_not_saved(context, &failure);
    }
}

pub(crate) fn say_not_saved(context: &Context<'_>, failure: &Failure) {
    let causes: String = failure.causes.iter().map(|cause| format!(": {cause}")).collect();
    context.output.warn(&format!("Not saved: {}{causes}", failure.message));
}

// A date that cannot be read is taken for one that has passed: registering again is harmless.
fn ends_soon(expires_at: &str) -> bool {
    expires_at.parse::<Timestamp>().map_or(true, |end| end.duration_since(Timestamp::now()) < RENEW_BEFORE)
}

/// This machine's host name, cut to what a label may be.
pub(crate) fn host_name() -> Option<String> {
    let name = rustix::system::uname();
    let name: String = name.nodename().to_str().ok()?.chars().take(100).collect();
    domain::names::Name::parse(&name).ok().map(|name| name.as_str().to_owned())
}
