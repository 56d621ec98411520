//! `connect up`: logs in, by a code where there is no key, saves who this machine is, and stays connected.

use serde_json::json;

use super::{
    Context,
    identity::{self, Keep, Wishes},
    stay, targets,
};
use crate::{
    cli::UpArgs,
    failure::{Exit, Failure},
};

pub(crate) async fn run(context: &Context<'_>, args: &UpArgs) -> Result<Exit, Failure> {
    let log_in = context.logged_in(args.label.as_deref(), args.name.as_deref());
    let context = &context.step(log_in).await?;
    let settings = &context.settings;
    let words = settings.allow_targets.iter().chain(&settings.saved.exposed);
    let allowed: Vec<_> = words.map(|word| targets::parse(word)).collect::<Result<_, _>>()?;
    let checks: Vec<_> = settings
        .saved
        .target_tls
        .iter()
        .map(|(word, check)| Ok((targets::parse(word)?, check.clone())))
        .collect::<Result<_, Failure>>()?;
    let wishes = Wishes { label: args.label.as_deref(), name: args.name.as_deref(), keep: Keep::AgentAndKey };
    let who = context.step(identity::ensure(context, wishes)).await?;
    let event = json!({
        "event": "registered",
        "hub": context.settings.hub.as_str(),
        "agentId": who.agent.id,
        "workspace": who.workspace,
    });
    context.output.data(&event, |face| {
        format!(
            "{} Logged in to workspace {} as agent {}",
            face.ok(),
            face.remote(&who.workspace),
            face.remote(&who.agent.id)
        )
    })?;
    let membership = stay::join(context, &who).await;
    stay::within(context, membership, async |membership| {
        for target in allowed {
            membership.allow(target).await.map_err(|error| {
                Failure::new("agent_session", "The agent session has ended").because(&error)
            })?;
        }
        for (target, check) in checks {
            // A file that has gone leaves its target distrusted, and the rest connected.
            if let Err(error) = membership.check_certificate(target.clone(), check).await {
                context
                    .output
                    .warn(&format!("How the certificate of {target} is checked cannot be restored: {error}"));
            }
        }
        stay::stay(context, membership, None).await
    })
    .await
}
