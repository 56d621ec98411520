//! `connect link`: a public link to a service or to a target that is exposed for it; lists and revokes links.

use jiff::tz::TimeZone;
use schemas::rest::Share;
use serde_json::json;

use super::{
    Context, expose, identity,
    services::{self, Exposure},
    share, stay, targets,
};
use crate::{
    cli::LinkArgs,
    failure::{Exit, Failure},
    output::{Face, text},
};

pub(crate) async fn run(context: &Context<'_>, args: &LinkArgs) -> Result<Exit, Failure> {
    let target = args.target.as_deref().ok_or_else(|| {
        Failure::usage("A link needs a service or a target")
            .hint("connect link my-app, or connect link localhost:3000")
    })?;
    let rules = share::Rules {
        expires: &args.expires,
        methods: &args.methods,
        paths: &args.paths,
        rate_limit: args.rate_limit,
    };
    share::check(rules)?;
    if targets::looks_like_one(target) {
        return exposed(context, target, args, rules).await;
    }
    context.unless_stopped(made(context, target, rules)).await
}

// A service that is exposed already, by whomever: the link outlives this command.
async fn made(context: &Context<'_>, service: &str, rules: share::Rules<'_>) -> Result<Exit, Failure> {
    let service = services::find(context, service).await?;
    let link = context.api.share_service(&service.id, &share::request(&service.name, rules)).await?.share;
    let document = json!({ "service": services::json(&service), "share": share::json(&link) });
    context.output.data(&document, |face| share::text(&link, face, context.output.zone()))?;
    if service.status != "active" {
        context.output.warn(&format!(
            "{} is {} at the moment: the link works as soon as the service does",
            service.name, service.status
        ));
    }
    Ok(Exit::Success)
}

async fn exposed(
    context: &Context<'_>,
    target: &str,
    args: &LinkArgs,
    rules: share::Rules<'_>,
) -> Result<Exit, Failure> {
    let allowed = context.settings.allow_targets.iter().map(|word| targets::parse(word));
    let target = targets::parse(target)?;
    // As it was exposed before.
    let certificate = context.settings.saved.target_tls.get(&target.to_string()).cloned().unwrap_or_default();
    let exposure = Exposure {
        target,
        certificate,
        name: args.name.clone(),
        protocol: "auto".to_owned(),
        is_public: false,
        allowed: allowed.collect::<Result<_, _>>()?,
    };
    let who = context.step(identity::ensure(context, identity::Wishes::default())).await?;
    let membership = stay::join(context, &who).await;
    stay::within(context, membership, async |membership| {
        let service = services::expose(context, membership, &who, &exposure).await?;
        let link = context.api.share_service(&service.id, &share::request(&service.name, rules)).await?.share;
        expose::say(context, &service, &exposure.certificate, Some(&link))?;
        services::stay(context, membership, &service).await
    })
    .await
}

/// `connect link list`: the links that work.
pub(crate) async fn list(context: &Context<'_>) -> Result<Exit, Failure> {
    context.need_key()?;
    let mut shares = context.api.list_shares(None, None).await?;
    shares.retain(|share| share.is_active);
    let services = context.api.list_services().await?;
    let name_of = |share: &Share| {
        let service = services.iter().find(|service| service.id == share.tunnel_id);
        service.map_or_else(|| share.tunnel_id.clone(), |service| service.name.clone())
    };
    let rows: Vec<(Share, String)> = shares
        .into_iter()
        .map(|share| {
            let service = name_of(&share);
            (share, service)
        })
        .collect();
    let document: Vec<_> =
        rows.iter().map(|(share, service)| json!({ "share": share, "service": service })).collect();
    context.output.data(&document, |face| list_text(&rows, face, context.output.zone()))?;
    Ok(Exit::Success)
}

// After seed 001's list of environment shares.
fn list_text(rows: &[(Share, String)], face: Face, zone: &TimeZone) -> String {
    if rows.is_empty() {
        return "No active links\nMake one with: connect link <service or host:port>".to_owned();
    }
    let mut lines = vec![format!("{}Active Public Links", face.emoji("📋"))];
    for (share, service) in rows {
        let expires =
            share.expires_at.as_deref().map_or_else(|| "never".to_owned(), |end| text::local_date(end, zone));
        lines.push(format!("{} ({})", face.remote(&share.id), face.remote(&share.name)));
        lines.push(format!(
            "Service: {} | Requests: {} | Expires: {expires}",
            face.remote(service),
            share.access_count
        ));
    }
    lines.join("\n")
}

/// `connect link revoke`: the next request through the link is refused.
pub(crate) async fn revoke(context: &Context<'_>, wanted: &str) -> Result<Exit, Failure> {
    let share = find(context, wanted).await?;
    context.api.revoke_share(&share).await?;
    context.output.data(&json!({ "id": share, "revoked": true }), |face| {
        format!("{} Share {} revoked.", face.ok(), face.remote(wanted))
    })?;
    Ok(Exit::Success)
}

/// The id of a link, by id, subdomain or name.
pub(crate) async fn find(context: &Context<'_>, wanted: &str) -> Result<String, Failure> {
    context.need_key()?;
    if wanted.starts_with("share_") && !wanted.starts_with("share_tok_") {
        return Ok(wanted.to_owned());
    }
    let shares = context.api.list_shares(None, None).await?;
    chosen(&shares, wanted).map(|share| share.id.clone())
}

// Working links come first; two with one name are for people to tell apart.
fn chosen<'a>(shares: &'a [Share], wanted: &str) -> Result<&'a Share, Failure> {
    if let Some(share) = shares.iter().find(|share| share.subdomain == wanted) {
        return Ok(share);
    }
    let named: Vec<&Share> = shares.iter().filter(|share| share.name == wanted).collect();
    let active: Vec<&Share> = named.iter().copied().filter(|share| share.is_active).collect();
    match (active.as_slice(), named.as_slice()) {
        ([share], _) | ([], [share]) => Ok(share),
        ([], []) => {
            Err(Failure::new("share_not_found", format!("There is no link \"{wanted}\" in this workspace"))
                .hint("connect link list shows them with their ids"))
        }
        (many, all) => {
            let many = if many.is_empty() { all } else { many };
            let ids: Vec<&str> = many.iter().map(|share| share.id.as_str()).collect();
            Err(Failure::new("share_ambiguous", format!("{} links are called \"{wanted}\"", many.len()))
                .hint(format!("say which by its id: {}", ids.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests;
