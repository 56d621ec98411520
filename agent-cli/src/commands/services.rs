//! Services as commands meet them: exposed, found by name, shown.

use std::time::Duration;

use domain::{
    ids::TunnelId,
    target::{Protocol, Target},
};
use schemas::rest::{RegisterService, Tunnel};
use serde::Serialize;

use super::{Context, identity, identity::Identity, naming, notices::Notices, stay};
use crate::{
    agent::CertificateCheck,
    cli::Command,
    failure::{Exit, Failure},
    holder::{Membership, session::SessionState},
};

/// How long exposing waits for the session: without it the hub cannot confirm that the target answers.
const SESSION_WAIT: Duration = Duration::from_secs(5);

/// What is to be exposed.
#[derive(Debug, Clone)]
pub(crate) struct Exposure {
    pub(crate) target: Target,
    /// `None`: a name is found.
    pub(crate) name: Option<String>,
    /// `auto`, `tcp`, `udp`, `http` or `https`.
    pub(crate) protocol: String,
    pub(crate) is_public: bool,
    /// How its certificate is judged, where it speaks TLS.
    pub(crate) certificate: CertificateCheck,
    /// More targets that the hub may have dialled.
    pub(crate) allowed: Vec<Target>,
}

impl Exposure {
    /// The name it will have when nobody else has it.
    pub(crate) fn likely_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let home = std::env::home_dir();
            naming::service_name(self.target.port, naming::project_folder(home).as_deref())
        })
    }
}

/// What programs see of a service. Stable.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceJson<'a> {
    id: &'a str,
    name: &'a str,
    agent_id: &'a str,
    target: String,
    protocol: &'a str,
    status: &'a str,
    status_reason: Option<&'a str>,
    is_public: bool,
    public_url: Option<&'a str>,
    tunnel_port: u16,
    /// Only where it is judged otherwise than by what this machine trusts: `unchecked` or `issuers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_certificate: Option<&'static str>,
}

/// A service for programs.
pub(crate) fn json(service: &Tunnel) -> ServiceJson<'_> {
    ServiceJson {
        id: &service.id,
        name: &service.name,
        agent_id: &service.agent_id,
        target: target_of(service).to_string(),
        protocol: &service.protocol,
        status: &service.status,
        status_reason: service.status_reason.as_deref(),
        is_public: service.is_public,
        public_url: service.public_url.as_deref(),
        tunnel_port: service.tunnel_port,
        target_certificate: None,
    }
}

/// The same for a service of this machine.
pub(crate) fn own_json<'a>(service: &'a Tunnel, check: &CertificateCheck) -> ServiceJson<'a> {
    let target_certificate = match check {
        CertificateCheck::System => None,
        CertificateCheck::Issuers(_) => Some("issuers"),
        CertificateCheck::Unchecked => Some("unchecked"),
    };
    ServiceJson { target_certificate, ..json(service) }
}

/// Where a service leads, with brackets where they belong.
pub(crate) fn target_of(service: &Tunnel) -> Target {
    Target { host: service.target_host.clone(), port: service.target_port }
}

/// How a service is spoken to; a protocol of a newer hub reads as one that is decided by looking.
pub(crate) fn protocol_of(service: &Tunnel) -> Protocol {
    service.protocol.parse().unwrap_or(Protocol::Auto)
}

/// The id of a service, for the session.
pub(crate) fn id_of(service: &Tunnel) -> Result<TunnelId, Failure> {
    service.id.parse().map_err(|error| {
        Failure::new("not_a_hub", "The hub gave a service an id that is none").because(&error)
    })
}

/// Stays with what this machine exposes, and says when its target stops answering or answers again.
pub(crate) async fn stay(
    context: &Context<'_>,
    membership: &Membership,
    service: &Tunnel,
) -> Result<Exit, Failure> {
    let tunnel = id_of(service)?;
    membership
        .watch(tunnel.uuid())
        .await
        .map_err(|error| Failure::new("agent_session", "The agent session has ended").because(&error))?;
    stay::stay(context, membership, Some(Notices::about(service, tunnel))).await
}

/// Exposes a target: allows it, waits for the session, makes or updates the service.
pub(crate) async fn expose(
    context: &Context<'_>,
    membership: &Membership,
    identity: &Identity,
    exposure: &Exposure,
) -> Result<Tunnel, Failure> {
    for target in exposure.allowed.iter().chain([&exposure.target]) {
        membership
            .allow(target.clone())
            .await
            .map_err(|error| Failure::new("agent_session", "The agent session has ended").because(&error))?;
    }
    membership
        .check_certificate(exposure.target.clone(), exposure.certificate.clone())
        .await
        .map_err(|error| Failure::new("target_ca", "The issuers' file cannot be used").because(&error))?;
    // Not connected in time: the service is made all the same and becomes active when the session comes.
    if let SessionState::Refused { code, message } = membership.settled(SESSION_WAIT).await {
        return Err(stay::refused(&code, &message));
    }
    let name = match &exposure.name {
        Some(name) => name.clone(),
        None => free_name(context, identity, exposure).await?,
    };
    let body = RegisterService {
        agent_id: identity.agent.id.clone(),
        name,
        target_host: exposure.target.host.clone(),
        target_port: i64::from(exposure.target.port),
        protocol: Some(exposure.protocol.clone()),
        is_public: Some(exposure.is_public),
    };
    match context.api.register_service(&body).await {
        Ok(service) => {
            if service.status == "error" {
                let reason = service.status_reason.as_deref().unwrap_or("it does not answer");
                context.output.warn(&format!("{} is exposed, but {reason}", exposure.target));
            }
            remember(context, exposure).await;
            Ok(service)
        }
        Err(error) if error.code() == Some("agent_not_found") => {
            identity::forget(context, &identity.agent.id).await;
            Err(Failure::from(error).hint("run the command again: this machine then registers anew"))
        }
        Err(error) => Err(error.into()),
    }
}

// Targets on this machine are allowed anyway.
async fn remember(context: &Context<'_>, exposure: &Exposure) {
    let target = &exposure.target;
    let word = target.to_string();
    let address = target.host.parse::<std::net::IpAddr>();
    let is_here = target.host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let Some(config) = &context.settings.config else { return };
    let known = &context.settings.saved;
    let check = (exposure.certificate != CertificateCheck::System).then(|| exposure.certificate.clone());
    if (is_here || known.exposed.contains(&word)) && known.target_tls.get(&word) == check.as_ref() {
        return;
    }
    let hub = context.settings.hub.as_str();
    let saved = config.change(|config| {
        let saved = config.hubs.entry(hub.to_owned()).or_default();
        match check {
            Some(check) => drop(saved.target_tls.insert(word.clone(), check)),
            None => drop(saved.target_tls.remove(&word)),
        }
        if !is_here {
            saved.exposed.insert(word);
        }
    });
    if let Err(failure) = saved.await {
        identity::say_not_saved(context, &failure);
    }
}

// A name that was found and not given must not turn somebody else's service, or another one of ours, to this target.
async fn free_name(
    context: &Context<'_>,
    identity: &Identity,
    exposure: &Exposure,
) -> Result<String, Failure> {
    let name = exposure.likely_name();
    let services = context.api.list_services().await?;
    let is_other =
        |service: &&Tunnel| service.agent_id != identity.agent.id || target_of(service) != exposure.target;
    let is_taken = |name: &str| services.iter().filter(is_other).any(|service| service.name == name);
    let with_port = format!("{name}-{}", exposure.target.port);
    let numbered = (2..).map(|number| format!("{with_port}-{number}"));
    let mut names = [name, with_port.clone()].into_iter().chain(numbered);
    Ok(names.find(|name| !is_taken(name)).expect("there are more numbers than services"))
}

/// Finds a service by name, or by id.
pub(crate) async fn find(context: &Context<'_>, wanted: &str) -> Result<Tunnel, Failure> {
    context.need_key()?;
    if wanted.starts_with("tun_") {
        return match context.api.get_service(wanted).await {
            Ok(service) => Ok(service),
            Err(error) => Err(error.into()),
        };
    }
    let mut services = context.api.list_services().await?;
    if let Some(index) = services.iter().position(|service| service.name == wanted) {
        return Ok(services.swap_remove(index));
    }
    let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    Err(not_found(wanted, &names))
}

fn not_found(wanted: &str, names: &[&str]) -> Failure {
    let failure =
        Failure::new("service_not_found", format!("There is no service \"{wanted}\" in this workspace"));
    let similar = |candidates: &[&str]| {
        candidates.iter().find(|candidate| distance(candidate, wanted) <= 2).map(|name| (*name).to_owned())
    };
    if let Some(name) = similar(names) {
        return failure.hint(format!("did you mean \"{name}\"?"));
    }
    if let Some(command) = similar(&Command::NAMES) {
        return failure.hint(format!("did you mean the command: connect {command}"));
    }
    failure.hint(format!(
        "connect status shows all services; connect expose host:port --name {wanted} makes one"
    ))
}

// Optimal string alignment: how many typing slips lie between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(100).collect(), b.chars().take(100).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_is_recognised() {
        for (a, b, slips) in [
            ("prod-db", "prod-db", 0),
            ("prdo-db", "prod-db", 1),
            ("statsu", "status", 1),
            ("", "ab", 2),
            ("web", "api", 3),
        ] {
            assert_eq!(distance(a, b), slips, "{a} {b}");
        }
    }

    #[test]
    fn a_missing_service_suggests_a_similar_one_or_a_command_or_how_to_make_it() {
        let hint = |wanted| not_found(wanted, &["prod-db", "staging-api"]).hint.unwrap();
        assert_eq!(hint("prod-bd"), "did you mean \"prod-db\"?");
        assert_eq!(hint("statuss"), "did you mean the command: connect status");
        assert!(hint("warehouse").contains("connect expose host:port --name warehouse"));
    }
}
