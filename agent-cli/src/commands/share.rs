//! Public links: checked before anything is asked of the hub, and shown as seed 001 shows them.

use domain::policy::{expiry::Lifetime, methods::Method, paths::PathRule, ports::protected_engine};
use jiff::tz::TimeZone;
use schemas::rest::{CreateShare, ShareCreated};
use serde::Serialize;

use crate::{
    failure::{Exit, Failure, Mark},
    output::{Face, text},
};

/// The rules of a link, as they were typed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) expires: &'a str,
    pub(crate) methods: &'a [String],
    pub(crate) paths: &'a [String],
    pub(crate) rate_limit: Option<u16>,
}

/// The request for a link to a service; its name is the service's.
pub(crate) fn request(service: &str, rules: Rules<'_>) -> CreateShare {
    let list = |texts: &[String]| (!texts.is_empty()).then(|| texts.to_vec());
    let methods: Vec<String> =
        rules.methods.iter().map(|method| method.trim().to_ascii_uppercase()).collect();
    let paths: Vec<String> = rules.paths.iter().map(|path| path.trim().to_owned()).collect();
    CreateShare {
        name: service.to_owned(),
        expires_in: Some(rules.expires.to_owned()),
        allowed_methods: list(&methods),
        allowed_paths: list(&paths),
        rate_limit_per_min: rules.rate_limit.map(i64::from),
        ..CreateShare::default()
    }
}

/// Checks what was typed, before anything is exposed: exit 2 with what would be right.
pub(crate) fn check(rules: Rules<'_>) -> Result<(), Failure> {
    Lifetime::parse(rules.expires).map_err(|error| {
        Failure::usage(format!("\"{}\" is no lifetime of a link: it {error}", rules.expires))
            .hint("1h, 24h, 7d, 30d or never")
    })?;
    for method in rules.methods {
        method.trim().to_ascii_uppercase().parse::<Method>().map_err(|error| {
            Failure::usage(format!("\"{method}\" is no method that a link can name: it {error}"))
        })?;
    }
    for path in rules.paths {
        PathRule::parse(path.trim()).map_err(|error| {
            Failure::usage(format!("\"{path}\" is no path rule: it {error}"))
                .hint("paths start with /, as /api/*")
        })?;
    }
    Ok(())
}

/// Seed 001, "Automatic Protection": databases are never published. Names the flag that was used.
pub(crate) fn refuse_database(flag: &str, port: u16, service: &str) -> Result<(), Failure> {
    if protected_engine(port).is_none() {
        return Ok(());
    }
    Err(Failure {
        exit: Exit::Usage,
        mark: Mark::Refused,
        ..Failure::new(
            "protected_port",
            format!(
                "{flag} creates a public HTTP URL, which doesn't work for database/TCP services (port {port}).\n\
                 To access this service remotely, use: connect reach {service}"
            ),
        )
    })
}

/// The address to hand out: the subdomain's where it works everywhere, else the link by path. `*.localhost` is known
/// to browsers, but not to every program on every system.
pub(crate) fn address(share: &ShareCreated) -> &str {
    match share.subdomain_url.as_deref() {
        Some(url) if !is_localhost(url) => url,
        _ => &share.share_url,
    }
}

fn is_localhost(url: &str) -> bool {
    reqwest::Url::parse(url)
        .ok()
        .and_then(|url| url.host_str().map(|host| host.ends_with(".localhost")))
        .unwrap_or(false)
}

/// What programs see of a new link. Stable.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShareJson<'a> {
    id: &'a str,
    name: &'a str,
    url: &'a str,
    share_url: &'a str,
    subdomain_url: Option<&'a str>,
    expires_at: Option<&'a str>,
}

/// A new link for programs. Its token is in the URL and nowhere else.
pub(crate) fn json(share: &ShareCreated) -> ShareJson<'_> {
    ShareJson {
        id: &share.id,
        name: &share.name,
        url: address(share),
        share_url: &share.share_url,
        subdomain_url: share.subdomain_url.as_deref(),
        expires_at: share.expires_at.as_deref(),
    }
}

/// `🔗 Public URL: …` and when it ends.
pub(crate) fn text(share: &ShareCreated, face: Face, zone: &TimeZone) -> String {
    let expires = match &share.expires_at {
        Some(moment) => text::local_date(moment, zone),
        None => "never".to_owned(),
    };
    let mut lines = vec![
        format!("{}Public URL: {}", face.emoji("🔗"), face.address(address(share))),
        format!("Expires: {expires}"),
    ];
    lines.extend(share.notice.as_ref().map(|notice| face.remote(notice)));
    lines.join("\n")
}
