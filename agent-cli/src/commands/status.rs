//! `connect status`: the hub, this machine's agent, and the workspace's services.

use std::collections::BTreeMap;

use domain::target::Protocol;
use schemas::rest::{Agent, Health, Tunnel, WhoAmI};
use serde_json::json;

use super::{Context, services};
use crate::{
    agent::CertificateCheck,
    failure::{Exit, Failure},
    holder::known,
    output::{Face, text},
};

/// Everything that is shown.
struct Found {
    hub: String,
    health: Health,
    who: WhoAmI,
    agent: Option<Agent>,
    /// Of this machine's key at the hub.
    fingerprint: Option<String>,
    services: Vec<Tunnel>,
    /// How this machine judges the certificates of its targets.
    checks: BTreeMap<String, CertificateCheck>,
}

pub(crate) async fn run(context: &Context<'_>) -> Result<Exit, Failure> {
    // First: whether the hub is there at all is worth knowing without a key.
    let health = context.api.get_health().await?;
    context.need_key()?;
    let who = context.api.who_am_i().await?;
    let saved = context.settings.saved.agent.as_ref().filter(|agent| agent.workspace_id == who.workspace_id);
    let agent = match saved {
        None => None,
        Some(saved) => match context.api.get_agent(&saved.id).await {
            Ok(agent) => Some(agent),
            Err(error) if error.status() == Some(404) => None,
            Err(error) => return Err(error.into()),
        },
    };
    let services = context.api.list_services().await?;
    let checks = context.settings.saved.target_tls.clone();
    let fingerprint = context.settings.saved.seal_key.as_deref().and_then(known::read_key);
    let fingerprint = fingerprint.map(|key| key.public().fingerprint());
    let hub = context.settings.hub.to_string();
    let found = Found { hub, health, who, agent, fingerprint, services, checks };
    let document = json!({
        "hub": { "url": found.hub, "status": found.health.status, "version": found.health.version },
        "workspace": { "id": found.who.workspace_id, "name": found.who.workspace_name },
        "agent": found.agent,
        "fingerprint": found.fingerprint,
        "services": found.services.iter().map(|one| services::own_json(one, &found.check(one))).collect::<Vec<_>>(),
    });
    context.output.data(&document, |face| found.text(face))?;
    Ok(Exit::Success)
}

impl Found {
    /// How the certificate of a service's target is judged, as far as this machine decides that.
    fn check(&self, service: &Tunnel) -> CertificateCheck {
        let is_own = self.agent.as_ref().is_some_and(|agent| agent.id == service.agent_id);
        let speaks_tls = matches!(services::protocol_of(service), Protocol::Auto | Protocol::Https);
        let decided = self.checks.get(&services::target_of(service).to_string());
        decided.filter(|_| is_own && speaks_tls).cloned().unwrap_or_default()
    }

    fn text(&self, face: Face) -> String {
        let agent = match &self.agent {
            Some(agent) => format!("{} ({})", agent.name, agent.status),
            None => "not registered on this machine".to_owned(),
        };
        let head = [
            ("Hub", format!("{} ({}, version {})", self.hub, self.health.status, self.health.version)),
            ("Workspace", self.who.workspace_name.clone()),
            ("Agent", agent),
        ];
        let mut head = head.map(|(name, value)| vec![name.to_owned(), value]).to_vec();
        if let Some(fingerprint) = &self.fingerprint {
            head.push(vec!["Key".to_owned(), fingerprint.clone()]);
        }
        let head = text::table(&head, face);
        if self.services.is_empty() {
            return format!("{head}\n\nNo services yet\nExpose one with: connect expose localhost:3000");
        }
        let mut rows =
            vec![["SERVICE", "TARGET", "PROTOCOL", "STATUS", "PUBLIC URL"].map(str::to_owned).to_vec()];
        rows.extend(self.services.iter().map(|service| {
            vec![
                service.name.clone(),
                services::target_of(service).to_string(),
                match self.check(service) {
                    CertificateCheck::System => service.protocol.clone(),
                    CertificateCheck::Issuers(_) => format!("{} (own issuers)", service.protocol),
                    CertificateCheck::Unchecked => format!("{} (certificate not checked)", service.protocol),
                },
                match &service.status_reason {
                    Some(reason) => format!("{} ({reason})", service.status),
                    None => service.status.clone(),
                },
                service.public_url.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        }));
        format!("{head}\n\n{}", text::table(&rows, face))
    }
}

#[cfg(test)]
mod tests;
