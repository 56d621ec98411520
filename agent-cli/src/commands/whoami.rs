//! `connect whoami`: whose API key this is.

use schemas::rest::WhoAmI;
use serde_json::json;

use super::Context;
use crate::{
    failure::{Exit, Failure},
    output::{Face, text},
};

pub(crate) async fn run(context: &Context<'_>) -> Result<Exit, Failure> {
    context.need_key()?;
    let who = context.api.who_am_i().await?;
    let hub = context.settings.hub.as_str();
    let agent = context.settings.saved.agent.as_ref().filter(|agent| agent.workspace_id == who.workspace_id);
    let agent = agent.map(|agent| agent.id.as_str());
    let document = json!({ "hub": hub, "agentId": agent, "identity": who });
    context.output.data(&document, |face| whoami_text(hub, agent, &who, face))?;
    Ok(Exit::Success)
}

fn whoami_text(hub: &str, agent: Option<&str>, who: &WhoAmI, face: Face) -> String {
    let key = who.key_name.as_deref().unwrap_or("-");
    let rows = [
        ("Workspace", format!("{} ({})", who.workspace_name, who.workspace_id)),
        ("Key", format!("{key} ({})", who.scopes.join(", "))),
        ("Agent", agent.unwrap_or("not registered on this machine").to_owned()),
        ("Hub", hub.to_owned()),
    ];
    text::table(&rows.map(|(name, value)| vec![name.to_owned(), value]), face)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoami_names_workspace_key_agent_and_hub() {
        let who = WhoAmI {
            workspace_id: "ws_1".to_owned(),
            workspace_name: "def\u{1b}[31mault".to_owned(),
            key_id: Some("key_1".to_owned()),
            key_name: Some("first".to_owned()),
            agent_id: None,
            scopes: vec!["admin".to_owned(), "read".to_owned()],
        };
        assert_eq!(
            whoami_text("http://127.0.0.1:7070/", None, &who, Face::PIPE),
            "Workspace  def\u{fffd}[31mault (ws_1)\n\
             Key        first (admin, read)\n\
             Agent      not registered on this machine\n\
             Hub        http://127.0.0.1:7070/"
        );
    }
}
