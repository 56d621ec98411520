//! `hub replay`: a workspace as facts had it at a moment of the past.

use std::{collections::BTreeMap, ops::ControlFlow};

use anyhow::{Context as _, Result};
use domain::{
    ids::{AgentId, ShareId, TunnelId, WorkspaceId},
    recorded::{Family, StreamName},
    time::Timestamp,
    tunnel::Condition,
};
use projections::routes::{Routes, usable};
use serde_json::{Value, json};

use super::{events::note_workspace, say, source::Source};
use crate::{
    settings::{Replay, When},
    upgrade,
};

/// Where the replay stopped.
#[derive(Default)]
struct Reached {
    /// The number of the workspace's last fact.
    seq: u64,
    recorded_at: Option<Timestamp>,
}

/// Runs the command.
///
/// # Errors
/// The log is missing or damaged, the workspace is unknown, or the log does not reach there.
pub fn run(args: &Replay) -> Result<()> {
    let mut tape = Source::open(&args.data)?;
    let (routes, mut names, mut reached) = (Routes::default(), BTreeMap::new(), Reached::default());
    let is_meant = |names: &BTreeMap<WorkspaceId, String>, id: WorkspaceId| {
        names.get(&id) == Some(&args.workspace) || id.to_string() == args.workspace
    };
    let _ = tape.play(&mut |recorded| {
        if recorded.family() != Family::Facts {
            return ControlFlow::Continue(());
        }
        if matches!(args.at, Some(When::Moment(at)) if recorded.recorded_at > at) {
            return ControlFlow::Break(());
        }
        note_workspace(&mut names, &recorded);
        routes.apply_next(&recorded, recorded.event().ok().as_ref());
        if is_meant(&names, recorded.workspace) {
            reached = Reached { seq: recorded.seq, recorded_at: Some(recorded.recorded_at) };
            if matches!(args.at, Some(When::Position(position)) if recorded.seq == position) {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    upgrade::readable(&routes)?;
    let known = names.iter().find(|(id, _)| is_meant(&names, **id));
    let (workspace, name) = known
        .with_context(|| format!("no workspace `{}` at that moment", args.workspace))
        .map(|(id, name)| (*id, name.clone()))?;
    if let Some(When::Position(position)) = args.at {
        anyhow::ensure!(
            reached.seq == position,
            "the workspace's last fact has the position {}",
            reached.seq
        );
    }
    // Expiry is judged at the moment that was asked for, else when the last fact was recorded.
    let at = match args.at {
        Some(When::Moment(at)) => at,
        Some(When::Position(_)) | None => reached.recorded_at.context("a workspace has a first fact")?,
    };
    let picture = Picture { routes: &routes, workspace, at };
    if args.json {
        let shown = json!({
            "at": at.to_string(),
            "position": reached.seq,
            "workspace": { "id": workspace.to_string(), "name": name },
            "agents": picture.agents(),
            "tunnels": picture.tunnels(),
            "shares": picture.shares(),
            "keys": picture.keys(),
        });
        say(&shown.to_string());
        return Ok(());
    }
    say(&format!("workspace {name} ({workspace}) at {at}, position {}", reached.seq));
    let parts = [
        ("agents", picture.agents(), ["id", "status", "name"]),
        ("tunnels", picture.tunnels(), ["id", "status", "name"]),
        ("shares", picture.shares(), ["id", "status", "name"]),
        ("keys", picture.keys(), ["id", "status", "name"]),
    ];
    for (title, items, columns) in parts {
        say(&format!("{} {title}", items.len()));
        for item in items {
            let cells = columns.map(|column| item[column].as_str().unwrap_or_default().to_owned());
            say(&format!("  {}", cells.join("  ")));
        }
    }
    Ok(())
}

/// What there was.
struct Picture<'a> {
    routes: &'a Routes,
    workspace: WorkspaceId,
    at: Timestamp,
}

impl Picture<'_> {
    fn is_connected(&self, agent: AgentId) -> bool {
        let entry = self.routes.agent(agent);
        let session = entry.as_ref().and_then(|entry| entry.state.session.as_ref());
        session.is_some_and(|session| {
            let node = self.routes.node(&StreamName::node(&session.node));
            node.is_some_and(|node| node.state.boot == Some(session.boot))
        })
    }

    fn agents(&self) -> Vec<Value> {
        let mut agents = self.routes.all_agents();
        agents.sort_by_key(|(id, _)| *id);
        let shown = agents.into_iter().filter_map(|(id, entry)| {
            let registered = entry.state.registered.as_ref()?;
            let here = registered.workspace_id == self.workspace && !entry.state.deleted;
            here.then(|| {
                json!({
                    "id": id.to_string(),
                    "status": if self.is_connected(id) { "online" } else { "offline" },
                    "name": registered.name.as_str(),
                    "label": registered.label.as_str(),
                    "createdAt": entry.created_at.to_string(),
                    "revision": entry.revision,
                })
            })
        });
        shown.collect()
    }

    fn tunnels(&self) -> Vec<Value> {
        let mut tunnels = self.routes.all_tunnels();
        tunnels.sort_by_key(|(id, _)| *id);
        let shown = tunnels.into_iter().filter_map(|(id, entry): (TunnelId, _)| {
            let details = entry.state.open()?;
            let created = &details.created;
            let status = match &details.condition {
                _ if details.paused => "paused",
                Condition::Connected(_) if self.is_connected(created.agent_id) => "active",
                Condition::Failed(_) if self.is_connected(created.agent_id) => "error",
                Condition::Connecting | Condition::Connected(_) | Condition::Failed(_) => "connecting",
            };
            (created.workspace_id == self.workspace).then(|| {
                json!({
                    "id": id.to_string(),
                    "status": status,
                    "name": created.name.as_str(),
                    "agentId": created.agent_id.to_string(),
                    "targetHost": created.target.host,
                    "targetPort": created.target.port,
                    "tunnelPort": created.tunnel_port,
                    "protocol": created.protocol.name(),
                    "isPublic": created.is_public,
                    "createdAt": entry.created_at.to_string(),
                    "expiresAt": created.expires_at.map(|at| at.to_string()),
                    "revision": entry.revision,
                })
            })
        });
        shown.collect()
    }

    fn shares(&self) -> Vec<Value> {
        let mut shares = self.routes.all_shares();
        shares.sort_by_key(|(id, _)| *id);
        let shown = shares.into_iter().filter_map(|(id, entry): (ShareId, _)| {
            let created = entry.state.created.as_ref()?;
            // What a visitor would have been told.
            let status = match self.routes.gate(&entry.state, self.at) {
                Ok(_) => "active".to_owned(),
                Err(denied) => {
                    let word = serde_json::to_value(denied).ok()?;
                    word.as_str()?.to_owned()
                }
            };
            (created.workspace_id == self.workspace).then(|| {
                json!({
                    "id": id.to_string(),
                    "status": status,
                    "name": created.name.as_str(),
                    "tunnelId": created.tunnel_id.to_string(),
                    "createdAt": entry.created_at.to_string(),
                    "expiresAt": created.expires_at.map(|at| at.to_string()),
                    "revision": entry.revision,
                })
            })
        });
        shown.collect()
    }

    fn keys(&self) -> Vec<Value> {
        let Some(entry) = self.routes.workspace(self.workspace) else { return Vec::new() };
        let shown = entry.state.keys.iter().map(|(id, key)| {
            let scopes: Vec<&str> = key.created.scopes.iter().map(|scope| scope.name()).collect();
            json!({
                "id": id.to_string(),
                "status": if usable(key, self.at) { "active" } else { "ended" },
                "name": key.created.name.as_str(),
                "prefix": key.created.prefix,
                "scopes": scopes,
                "expiresAt": key.created.expires_at.map(|at| at.to_string()),
            })
        });
        shown.collect()
    }
}
