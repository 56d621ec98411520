//! `connect reach`: looks at a service from where it is exposed, then leads a local port to it and stays.

use std::time::Duration;

use domain::{
    ids::TunnelId,
    target::{Protocol, connection_string},
};
use schemas::rest::{DiagnosticStep, Diagnostics, Tunnel};
use serde_json::json;

use super::{Context, identity, notices::Notices, ports, services, stay};
use crate::{
    agent::Carries,
    cli::ReachArgs,
    failure::{Exit, Failure},
    holder::{Membership, session::ReachError},
    output::{Face, text},
};

pub(crate) async fn run(context: &Context<'_>, args: &ReachArgs) -> Result<Exit, Failure> {
    let service = context.step(services::find(context, &args.service)).await?;
    let timeout = Duration::from_secs(args.timeout);
    if args.check {
        return context.unless_stopped(check(context, &service, timeout)).await;
    }
    let tunnel = services::id_of(&service)?;
    let who = context.step(identity::ensure(context, identity::Wishes::default())).await?;
    if let Some(fingerprint) = &args.fingerprint {
        pin(context, &service.name, fingerprint).await?;
    }
    let membership = stay::join(context, &who).await;
    stay::within(context, membership, async |membership| {
        let mut protocol = services::protocol_of(&service);
        match context.api.check_service(&service.id, timeout).await {
            Ok(found) => {
                if protocol == Protocol::Auto {
                    protocol = seen_protocol(&found);
                }
                let event =
                    json!({ "event": "checked", "service": services::json(&service), "diagnostics": found });
                context.output.data(&event, |face| diagnostics_text(&service, &found, face))?;
            }
            // The port is opened all the same: it works as soon as the other side does.
            Err(error) => {
                let failure = Failure::from(error);
                context.output.warn(&format!("The service could not be looked at: {}", failure.message));
            }
        }
        let port = open(context, membership, &service, tunnel, args.port).await?;
        say(context, &service, protocol, port)?;
        stay::stay(context, membership, Some(Notices::about(&service, tunnel))).await
    })
    .await
}

// `--check`: the diagnostics and nothing else; the exit code says whether the service answers.
async fn check(context: &Context<'_>, service: &Tunnel, timeout: Duration) -> Result<Exit, Failure> {
    let found = context.api.check_service(&service.id, timeout).await?;
    let document = json!({ "service": services::json(service), "diagnostics": found });
    context.output.data(&document, |face| diagnostics_text(service, &found, face))?;
    Ok(if found.reachable { Exit::Success } else { Exit::Failure })
}

async fn open(
    context: &Context<'_>,
    membership: &Membership,
    service: &Tunnel,
    tunnel: TunnelId,
    chosen: Option<u16>,
) -> Result<u16, Failure> {
    let saved = context.settings.saved.ports.get(&service.name).copied();
    let carries = Carries::of(services::protocol_of(service));
    let candidates = ports::candidates(chosen, saved, service.target_port, &service.name);
    let mut last = ReachError::Taken;
    for candidate in &candidates {
        match membership.reach(tunnel.uuid(), &service.name, carries, *candidate).await {
            Ok(port) => {
                if (chosen.is_some() || saved.is_none()) && saved != Some(port) {
                    save(context, &service.name, port).await;
                }
                return Ok(port);
            }
            Err(error) => {
                context
                    .output
                    .detail(|face| format!("port {candidate}: {}", face.remote(&error.to_string())));
                last = error;
            }
        }
    }
    let failure = match (chosen, last) {
        (Some(port), ReachError::Taken) => {
            Failure::new("local_port_taken", format!("Local port {port} is taken by another program"))
        }
        (Some(port), ReachError::Failed(reason)) => {
            Failure::new("local_port_failed", format!("Local port {port} cannot be opened: {reason}"))
        }
        (None, _) => {
            Failure::new("local_port_taken", format!("None of the ports {candidates:?} can be opened"))
        }
    };
    Err(failure.hint("choose another: --port, where 0 takes any free one"))
}

async fn pin(context: &Context<'_>, service: &str, fingerprint: &str) -> Result<(), Failure> {
    let Some(config) = &context.settings.config else {
        return Err(Failure::new("no_config", "A key cannot be pinned without a config file".to_owned())
            .hint("name one: --config FILE"));
    };
    let hub = context.settings.hub.as_str();
    let pinning = config.change(|config| {
        let known = &mut config.hubs.entry(hub.to_owned()).or_default().known_services;
        known.insert(service.to_owned(), fingerprint.to_owned());
    });
    context.step(pinning).await
}

async fn save(context: &Context<'_>, service: &str, port: u16) {
    let Some(config) = &context.settings.config else { return };
    let hub = context.settings.hub.as_str();
    let saved = config.change(|config| {
        config.hubs.entry(hub.to_owned()).or_default().ports.insert(service.to_owned(), port);
    });
    if let Err(failure) = saved.await {
        identity::say_not_saved(context, &failure);
    }
}

// What the exposing agent saw when it looked; without an HTTP answer the bytes stay bytes.
fn seen_protocol(found: &Diagnostics) -> Protocol {
    let is_http = found.http.as_ref().is_some_and(|step| step.ok);
    match (is_http, &found.tls) {
        // Whether the certificate is trusted where the target is says nothing about this side.
        (true, Some(_)) => Protocol::Https,
        (true, None) => Protocol::Http,
        (false, _) => Protocol::Auto,
    }
}

fn say(context: &Context<'_>, service: &Tunnel, protocol: Protocol, port: u16) -> Result<(), Failure> {
    let connection = match protocol {
        Protocol::Udp => format!("udp://localhost:{port}"),
        Protocol::Auto | Protocol::Tcp | Protocol::Http | Protocol::Https => {
            connection_string(protocol, service.target_port, port, None)
        }
    };
    let event = json!({
        "event": "reaching",
        "service": services::json(service),
        "localPort": port,
        "connectionString": connection,
    });
    context.output.data(&event, |face| {
        format!(
            "{} {} is reachable at localhost:{port}\n{}",
            face.ok(),
            face.remote(&service.name),
            face.address(&connection)
        )
    })?;
    context.output.note(|_| "Press Ctrl-C to stop".to_owned());
    Ok(())
}

fn diagnostics_text(service: &Tunnel, found: &Diagnostics, face: Face) -> String {
    let arrow = if face.ornaments { "→" } else { "->" };
    let title = format!(
        "{} {arrow} {}",
        face.remote(&service.name),
        face.remote(&services::target_of(service).to_string())
    );
    let tls =
        found.tls.as_ref().map(|tls| DiagnosticStep { ok: tls.ok, ms: tls.ms, detail: tls.detail.clone() });
    let mut steps = vec![("DNS", &found.dns)];
    match services::protocol_of(service) {
        Protocol::Udp => steps.push(("UDP", &found.udp)),
        Protocol::Auto | Protocol::Tcp | Protocol::Http | Protocol::Https => {
            steps.extend([("TCP", &found.tcp), ("TLS", &tls), ("HTTP", &found.http)]);
        }
    }
    let mut lines: Vec<String> =
        steps.into_iter().map(|(name, step)| step_text(name, step.as_ref(), face)).collect();
    let latency = found.latency_ms.map_or_else(|| "-".to_owned(), milliseconds);
    lines.push(format!("{}{latency}", text::padded("Latency", 9)));
    // Without colour: escapes have no width, but would be counted.
    text::boxed(&title, &lines, STEP_INDENT, face)
}

/// Where a step's detail begins: after name, mark and time.
const STEP_INDENT: usize = 9 + 6 + 10;

fn step_text(name: &str, step: Option<&DiagnosticStep>, face: Face) -> String {
    let name = text::padded(name, 9);
    match step {
        None => format!("{name}-"),
        Some(step) => {
            let mark = text::padded(if step.ok { "[ok]" } else { "[x]" }, 6);
            let time = text::padded(&milliseconds(step.ms), 10);
            format!("{name}{mark}{time}{}", face.remote(&step.detail)).trim_end().to_owned()
        }
    }
}

fn milliseconds(ms: f64) -> String {
    format!("{ms:.1} ms")
}

#[cfg(test)]
mod tests;
