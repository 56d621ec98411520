//! `connect expose`: makes a local service reachable, with a public URL or link where asked, and stays.

use domain::target::{Protocol, Shareable, shareable};
use jiff::tz::TimeZone;
use schemas::rest::{ShareCreated, Tunnel};
use serde_json::json;

use super::{
    Context, identity,
    services::{self, Exposure},
    share, stay, targets,
};
use crate::{
    agent::{CertificateCheck, issuers_of},
    cli::ExposeArgs,
    failure::{Exit, Failure},
    output::Face,
};

pub(crate) async fn run(context: &Context<'_>, args: &ExposeArgs) -> Result<Exit, Failure> {
    let exposure = planned(args, &context.settings.allow_targets)?;
    let rules = share::Rules { expires: &args.link_expires, methods: &[], paths: &[], rate_limit: None };
    if args.link {
        share::check(rules)?;
    }
    let who = context.step(identity::ensure(context, identity::Wishes::default())).await?;
    let membership = stay::join(context, &who).await;
    stay::within(context, membership, async |membership| {
        let service = services::expose(context, membership, &who, &exposure).await?;
        let link = match args.link {
            true => Some(
                context.api.share_service(&service.id, &share::request(&service.name, rules)).await?.share,
            ),
            false => None,
        };
        say(context, &service, &exposure.certificate, link.as_ref())?;
        services::stay(context, membership, &service).await
    })
    .await
}

/// What the flags mean, all checked: after this nothing that was typed can be wrong.
fn planned(args: &ExposeArgs, allowed: &[String]) -> Result<Exposure, Failure> {
    let target = targets::parse(&args.target)?;
    let protocol = args
        .protocol
        .parse::<Protocol>()
        .map_err(|error| Failure::usage(format!("\"{}\" is no protocol: it {error}", args.protocol)))?;
    let allowed = allowed.iter().chain(&args.allow_target).map(|word| targets::parse(word));
    let exposure = Exposure {
        name: args.name.clone(),
        protocol: args.protocol.clone(),
        is_public: args.public,
        certificate: certificate(args, protocol)?,
        allowed: allowed.collect::<Result<_, _>>()?,
        target,
    };
    for (is_used, flag) in [(args.public, "--public"), (args.link, "--link")] {
        if is_used {
            share::refuse_database(flag, exposure.target.port, &exposure.likely_name())?;
        }
    }
    if args.link && shareable(protocol, exposure.target.port) == Shareable::No {
        return Err(Failure::usage(format!(
            "--link is for HTTP: what {} carries has no web address",
            protocol.name()
        ))
        .hint(format!("teammates reach it with: connect reach {}", exposure.likely_name())));
    }
    Ok(exposure)
}

/// How the target's certificate is to be judged: what cannot be used is known before anything is exposed.
fn certificate(args: &ExposeArgs, protocol: Protocol) -> Result<CertificateCheck, Failure> {
    let (check, flag) = match &args.target_ca {
        _ if args.target_insecure => (CertificateCheck::Unchecked, "--target-insecure"),
        None => return Ok(CertificateCheck::System),
        Some(file) => {
            let shown = file.display();
            let wrong = |error: std::io::Error| {
                Failure::usage(format!("--target-ca {shown} cannot be used")).because(&error)
            };
            issuers_of(file).map_err(wrong)?;
            // Whichever process holds the session reads it.
            (CertificateCheck::Issuers(std::fs::canonicalize(file).map_err(wrong)?), "--target-ca")
        }
    };
    match protocol {
        Protocol::Https | Protocol::Auto => Ok(check),
        Protocol::Tcp | Protocol::Udp | Protocol::Http => {
            Err(Failure::usage(format!("{flag} is for targets that speak HTTPS, not {}", protocol.name()))
                .hint("expose it with --protocol https"))
        }
    }
}

/// Says that a service is exposed, with its addresses.
pub(crate) fn say(
    context: &Context<'_>,
    service: &Tunnel,
    check: &CertificateCheck,
    link: Option<&ShareCreated>,
) -> Result<(), Failure> {
    let event = json!({
        "event": "exposed",
        "service": services::own_json(service, check),
        "share": link.map(share::json),
    });
    context.output.data(&event, |face| exposed_text(service, check, link, face, context.output.zone()))?;
    if service.is_public && service.public_url.is_none() {
        match services::protocol_of(service) {
            // Raw ones are public by their port.
            Protocol::Tcp | Protocol::Udp => context.output.note(|face| {
                let host = context.settings.hub.host_str().unwrap_or_default();
                format!("{} Public at {}:{} ({})", face.ok(), host, service.tunnel_port, service.protocol)
            }),
            Protocol::Auto | Protocol::Http | Protocol::Https => {
                context.output.warn("The hub gave no public URL for this service");
            }
        }
    }
    context
        .output
        .note(|face| format!("Teammates reach it with: connect reach {}", face.remote(&service.name)));
    context.output.note(|_| "Press Ctrl-C to stop".to_owned());
    Ok(())
}

// Seed 001, "Quick Share" and "Persistent Public URLs", line by line.
fn exposed_text(
    service: &Tunnel,
    check: &CertificateCheck,
    link: Option<&ShareCreated>,
    face: Face,
    zone: &TimeZone,
) -> String {
    let name = face.remote(&service.name);
    let antenna = if face.ornaments { "📡".to_owned() } else { face.ok() };
    let accessible = format!("{antenna} Service \"{name}\" is now accessible through the hub");
    let mut lines = match service.public_url.as_deref().filter(|_| service.is_public) {
        Some(url) => vec![
            format!("{}Public URL: {}", face.emoji("🌐"), face.address(url)),
            "External services (Stripe, GitHub, etc.) can send webhooks to this URL".to_owned(),
            accessible,
            format!("Public URL: {}", face.address(url)),
            "Anyone can reach this service at the URL above".to_owned(),
        ],
        None => vec![accessible],
    };
    let target = services::target_of(service);
    match check {
        CertificateCheck::System => {}
        CertificateCheck::Issuers(file) => lines.push(format!(
            "{} The certificate of {} is also accepted by the issuers in {}",
            face.ok(),
            face.remote(&target.to_string()),
            face.remote(&file.display().to_string())
        )),
        CertificateCheck::Unchecked => lines.push(format!(
            "{} The certificate of {} is not checked (--target-insecure)",
            face.warning(),
            face.remote(&target.to_string())
        )),
    }
    lines.extend(link.map(|link| share::text(link, face, zone)));
    lines.join("\n")
}

#[cfg(test)]
mod tests;
