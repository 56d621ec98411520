//! `connect logout`: forgets the API key and this machine's identity at the hub in use.

use serde_json::json;

use super::Context;
use crate::failure::{Exit, Failure};

pub(crate) async fn run(context: &Context<'_>) -> Result<Exit, Failure> {
    let hub = context.settings.hub.as_str();
    let mut forgotten = false;
    if let Some(config) = &context.settings.config
        && config.path().exists()
    {
        config
            .change(|config| {
                // Saved ports stay: they hold no secret, and people have them in their own configurations.
                if let Some(saved) = config.hubs.get_mut(hub) {
                    saved.exposed.clear();
                    forgotten = saved.api_key.take().is_some() | saved.agent.take().is_some();
                }
            })
            .await?;
    }
    context.output.data(&json!({ "hub": hub, "loggedOut": forgotten }), |face| match forgotten {
        true => format!("{} Logged out of {}", face.ok(), face.remote(hub)),
        false => format!("{} Was not logged in to {}", face.ok(), face.remote(hub)),
    })?;
    if forgotten {
        context
            .output
            .note(|_| "The key itself still works: delete it at the hub if it is not needed".to_owned());
    }
    Ok(Exit::Success)
}
