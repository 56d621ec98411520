//! `hub quickstart`: hub, agent and one share in one process, from nothing to a link in one command.

use std::{
    io::{IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use agent_cli::agent::{AgentHandle, AgentOptions};
use anyhow::{Context as _, Result, anyhow};
use domain::{
    agent::{self, AgentRegistered, TOKEN_LIFE_MS, Token},
    ids::{AgentId, ShareId, TunnelId, WorkspaceId},
    names::Name,
    share::RevokeReason,
    target::Target,
    tunnel::TunnelUpdated,
    workspace::{self, Scope},
};
use serde::Serialize;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;
use wire::sealed::handshake::Identity;
use wire::tls::trust;

use crate::{
    actors::Who,
    core::DEFAULT_WORKSPACE,
    creation::{NewLink, NewShare, NewTunnel},
    demo, offline,
    secrets::{Secret, SecretKind, Seed},
    settings::Quickstart,
    startup::Hub,
};

/// The name of what a quickstart makes: the next one finds and replaces it.
const NAME: &str = "quickstart";
/// Key and share live a day (milliseconds).
const LIFE_MS: i64 = 86_400_000;
/// How long the agent may take to confirm the target.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(5);

/// What `--json` prints, in one line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Announcement {
    api: String,
    edge: String,
    admin_key: String,
    agent_id: String,
    tunnel_id: String,
    share_id: String,
    share_url: String,
    subdomain_url: String,
}

/// Runs until a signal.
///
/// # Errors
/// The hub cannot start, or the target is no target.
pub async fn run(args: Quickstart) -> Result<()> {
    let target = args.target.as_deref().map(parse_target).transpose()?;
    let protocol = args.protocol.parse().map_err(|error| anyhow!("--protocol {error}"))?;
    let data = args.settings.data.path.clone();
    let mut hub = Hub::start(args.settings, true).await?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let demo_site = target.is_none();
    let target = match target {
        Some(target) => target,
        None => {
            let address = demo::start(&tasks, stop.clone()).await.context("while starting the demo site")?;
            Target { host: address.ip().to_string(), port: address.port() }
        }
    };
    let made = make(&hub, &data, &target, protocol).await?;
    let said = Announcement {
        api: hub.api_url(),
        edge: hub.edge_url(),
        admin_key: made.key.reveal().to_owned(),
        agent_id: made.agent_id.to_string(),
        tunnel_id: made.tunnel_id.to_string(),
        share_id: made.share_id.to_string(),
        share_url: hub.ports.links.share(made.token.reveal()),
        subdomain_url: hub.ports.links.slug(&made.slug),
    };
    if args.json {
        offline::say(&serde_json::to_string(&said).context("an announcement is plain text")?);
    } else {
        offline::say(&for_people(&said, if demo_site { "the demo site" } else { "your target" }, &target));
    }
    hub.until_signal().await;
    made.agent.stop().await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    hub.stop().await;
    Ok(())
}

fn parse_target(text: &str) -> Result<Target> {
    let text = if text.starts_with(':') { format!("localhost{text}") } else { text.to_owned() };
    Target::parse(&text).map_err(|error| anyhow!("`{text}` is no target: {error}"))
}

struct Made {
    key: Secret,
    agent: AgentHandle,
    agent_id: AgentId,
    tunnel_id: TunnelId,
    share_id: ShareId,
    token: Secret,
    slug: String,
}

async fn make(hub: &Hub, data: &Path, target: &Target, protocol: domain::target::Protocol) -> Result<Made> {
    let core = &hub.core;
    let workspace = core.workspace_named(DEFAULT_WORKSPACE).context("made at the start")?;
    let who = Who::hub(workspace, NAME);
    // The new key comes before the old ones go: a workspace keeps at least one admin key.
    let (key_id, key) = core.create_key(workspace, NAME, vec![Scope::Admin], Some(LIFE_MS), None).await?;
    let entry = core.routes.workspace(workspace).context("made at the start")?;
    for (id, former) in &entry.state.keys {
        if former.created.name.as_str() == NAME && !former.revoked && *id != key_id {
            let command = workspace::Command::RevokeKey { key_id: *id };
            core.executor
                .workspace(workspace, who.clone(), command)
                .await
                .map_err(|error| anyhow!("{error:?}"))?;
        }
    }
    let (agent_id, agent) = start_agent(hub, data, workspace, &who).await?;
    agent.allow(&target.host, target.port);
    let tunnel_id = expose(hub, &who, agent_id, target, protocol).await?;
    for id in core.routes.shares_of(tunnel_id) {
        let former = core.routes.share(id);
        let ours = former.is_some_and(|entry| {
            entry.state.ended.is_none()
                && entry.state.created.as_ref().is_some_and(|it| it.name.as_str() == NAME)
        });
        if ours {
            let command = domain::share::Command::Revoke { reason: RevokeReason::Requested };
            core.executor.share(id, who.clone(), command).await.map_err(|error| anyhow!("{error:?}"))?;
        }
    }
    let new = NewShare {
        tunnel_id,
        name: Name::parse(NAME).map_err(|error| anyhow!("{error}"))?,
        description: None,
        expires_at: Some(core.clock.now().plus_ms(LIFE_MS)),
        allowed_paths: None,
        allowed_methods: None,
        rate_limit_per_min: None,
        subdomain: None,
        public: false,
        read_only: true,
    };
    let creator = &hub.ports.creator;
    let NewLink { id: share_id, token, slug, .. } =
        creator.share(&who, &Seed::random(), new).await.map_err(|error| anyhow!("no share: {error:?}"))?;
    Ok(Made { key, agent, agent_id, tunnel_id, share_id, token, slug })
}

async fn start_agent(
    hub: &Hub,
    data: &Path,
    workspace: WorkspaceId,
    who: &Who,
) -> Result<(AgentId, AgentHandle)> {
    let core = &hub.core;
    let former = core.routes.all_agents().into_iter().find_map(|(id, entry)| {
        let registered = entry.state.registered.as_ref().filter(|_| !entry.state.deleted)?;
        (registered.workspace_id == workspace && registered.label.as_str() == NAME).then_some(id)
    });
    let (now, seed) = (core.clock.now(), Seed::random());
    let id = former.unwrap_or_else(|| AgentId::new(seed.uuid(now, "agent")));
    let secret = seed.secret(SecretKind::AgentToken, "token");
    let name = Name::parse(NAME).map_err(|error| anyhow!("{error}"))?;
    let agent = AgentRegistered {
        agent_id: id,
        workspace_id: workspace,
        label: name.clone(),
        name,
        client_type: None,
        ephemeral: false,
        token: Token {
            token_hash: secret.digest_hex(),
            expires_at: now.plus_ms(TOKEN_LIFE_MS),
            key_id: None,
        },
    };
    let command = agent::Command::Register { agent, now, takeover: agent::Takeover::Any };
    core.executor.agent(id, who.clone(), command).await.map_err(|error| anyhow!("no agent: {error:?}"))?;
    let handle = agent_cli::agent::start(AgentOptions {
        hub_url: hub.api_url(),
        believing: itself(hub),
        agent_id: id.to_string(),
        token: agent_cli::agent::TokenCell::new(secret.reveal()),
        host_name: "this machine".to_owned(),
        instance: Uuid::new_v4(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        allow_loopback: true,
        udp_idle_ms: agent_cli::agent::UDP_IDLE_MS,
        identity: agent_key(data).context("while reading the agent's key")?,
        known: Arc::new(agent_cli::agent::trust::InMemory::default()),
        remembers: Some(data.join("agent.commands")),
    });
    Ok((id, handle))
}

/// The agent's static key, made at the first start: teammates pin it.
fn agent_key(data: &Path) -> Result<Identity> {
    let path = data.join("agent.key");
    match std::fs::read(&path) {
        Ok(bytes) => {
            let bytes = bytes.as_slice().try_into();
            let bytes = bytes.with_context(|| format!("{} is no key; move it away", path.display()))?;
            Ok(Identity::from_bytes(bytes))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = Identity::generate();
            let mut file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(&key.to_bytes())?;
            file.sync_all()?;
            Ok(key)
        }
        Err(error) => Err(error.into()),
    }
}

/// Believes the hub in this process and nobody else, by the certificate that it shows now.
fn itself(hub: &Hub) -> rustls::ClientConfig {
    let Some(speaker) = &hub.tls.api else { return trust::nobody() };
    let certificates = Arc::clone(&speaker.certificates);
    trust::itself(move |theirs| {
        certificates.shown().is_some_and(|shown| shown.key.cert.first().is_some_and(|ours| ours == theirs))
    })
}

async fn expose(
    hub: &Hub,
    who: &Who,
    agent_id: AgentId,
    target: &Target,
    protocol: domain::target::Protocol,
) -> Result<TunnelId> {
    let creator = &hub.ports.creator;
    let name = Name::parse(NAME).map_err(|error| anyhow!("{error}"))?;
    let id = match hub.core.routes.tunnel_named(who.workspace, NAME) {
        Some(id) => {
            let change = TunnelUpdated {
                agent_id: Some(agent_id),
                target: Some(target.clone()),
                protocol: Some(protocol),
                ..TunnelUpdated::default()
            };
            creator.update(who, id, change).await.map_err(|error| anyhow!("no tunnel: {error:?}"))?;
            id
        }
        None => {
            let new = NewTunnel {
                agent_id,
                name: Some(name),
                target: target.clone(),
                protocol,
                is_public: false,
                expires_at: None,
            };
            creator
                .tunnel(who, &Seed::random(), new)
                .await
                .map_err(|error| anyhow!("no tunnel: {error:?}"))?
                .0
        }
    };
    hub.ports.gateway.wait_state(id, CONFIRM_PATIENCE).await;
    Ok(id)
}

fn for_people(said: &Announcement, what: &str, target: &Target) -> String {
    let plain = !std::io::stdout().is_terminal();
    let (link, ok) = if plain { ("", "[ok]") } else { ("🔗 ", "[ok]") };
    format!(
        "{ok} Private Connect is running, and shares {what} ({target}) for 24 hours\n\
         \n\
         {link}Share link:  {share}\n\
         {link}By name:     {slug}\n\
         \n\
         Control API:  {api}\n\
         Swagger UI:   {api}/docs\n\
         Admin key:    {key}   (24 hours, shown once)\n\
         \n\
         Try it:\n\
         \x20 curl {share}/\n\
         \x20 curl -H 'x-api-key: {key}' {api}/v1/shares/{id}/logs\n\
         \n\
         Expose a service of your own:\n\
         \x20 connect --hub {api} --api-key {key} expose localhost:3000 --link\n\
         \n\
         Ctrl-C stops it; the data stays in the data directory.",
        share = said.share_url,
        slug = said.subdomain_url,
        api = said.api,
        key = said.admin_key,
        id = said.share_id,
    )
}

/// Keeps the compiler's eye on what the announcement promises to programs.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announcement_has_the_names_that_programs_read() {
        let text = || "x".to_owned();
        let said = Announcement {
            api: text(),
            edge: text(),
            admin_key: text(),
            agent_id: text(),
            tunnel_id: text(),
            share_id: text(),
            share_url: text(),
            subdomain_url: text(),
        };
        let value = serde_json::to_value(&said).unwrap();
        let names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        for name in ["api", "edge", "adminKey", "agentId", "tunnelId", "shareId", "shareUrl", "subdomainUrl"]
        {
            assert!(names.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_bare_port_means_this_machine() {
        assert_eq!(parse_target(":3000").unwrap().to_string(), "localhost:3000");
        assert!(parse_target("nonsense").is_err());
    }
}
