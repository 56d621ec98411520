//! The operator's commands `hub workspace` and `hub key`: what they are, and the one function that executes them.
//!
//! While no hub has the data directory, the command opens it and does its work itself; a running hub does it for the
//! command, asked through a socket in the data directory. Both execute the same order and show the same lines.

mod client;
mod server;

use std::{
    fmt,
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use domain::{
    ids::{KeyId, ShareId},
    time::Day,
    workspace::{self, Scope},
};
use projections::routes::usable;
use serde::{Deserialize, Serialize};

use crate::{
    actors::Who,
    core::{Core, not_done},
    erasure::{Erase, EraseError},
    secrets::Secret,
    upgrade::Upgrade,
};

pub use client::{run, run_with};
pub use server::{Socket, serve};

/// An order is a name or two.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// A list of every workspace of a large hub.
const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Socket addresses of Linux hold 107 bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What an operator wants: one line of JSON on the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Order {
    WorkspaceCreate {
        name: String,
    },
    WorkspaceList {},
    KeyCreate {
        name: String,
        workspace: String,
        scopes: Vec<String>,
    },
    KeyList {
        workspace: String,
    },
    KeyRevoke {
        id: String,
        workspace: String,
    },
    Erase {
        workspace: String,
        share: Option<String>,
        from: Day,
        until: Day,
    },
    /// How the log's format stands, or raise it.
    Upgrade {
        finish: bool,
    },
    /// Where the log stands: what a backup copies.
    LogExtent {},
}

/// What comes of it: one line of JSON. May hold a new key, so it shows nothing of itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    /// The lines that the command prints.
    Done(Vec<String>),
    Refused(String),
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply(…)")
    }
}

/// Executes an order; answers the lines to be shown.
///
/// # Errors
/// In words for the operator: a name is taken or unknown, or the log takes no writes.
pub async fn execute(core: &Core, order: &Order) -> Result<Vec<String>> {
    match order {
        Order::WorkspaceCreate { name } => {
            let mut lines = Vec::new();
            let show = |secret: &Secret| {
                lines.push("workspace `default` was created too".to_owned());
                lines.push(format!("its admin key {}", secret.reveal()));
                Ok(())
            };
            core.bootstrap(None, show).await?;
            let id = core.create_workspace(name).await?;
            let (_, secret) = core.create_key(id, "admin", vec![Scope::Admin], None, None).await?;
            lines.push(format!("workspace {id}"));
            lines.push(format!("admin key {}", secret.reveal()));
            Ok(lines)
        }
        Order::WorkspaceList {} => {
            let mut known = core.routes.workspaces();
            known.sort_by_key(|(id, _)| *id);
            let line = |(id, created_at, name)| format!("{id}  {created_at}  {name}");
            let named = known.iter().filter_map(|(id, entry)| {
                Some(line((id, entry.created_at, &entry.state.created.as_ref()?.name)))
            });
            Ok(named.collect())
        }
        Order::KeyCreate { name, workspace, scopes } => {
            let id = workspace_of(core, workspace)?;
            let scopes = scopes.iter().map(|name| scope(name)).collect::<Result<_>>()?;
            let (key, secret) = core.create_key(id, name, scopes, None, None).await?;
            Ok(vec![key.to_string(), secret.reveal().to_owned()])
        }
        Order::KeyList { workspace } => {
            let id = workspace_of(core, workspace)?;
            let entry = core.routes.workspace(id).context("found above")?;
            let now = core.clock.now();
            let shown = entry.state.keys.iter().map(|(id, key)| {
                let state = if usable(key, now) { "active" } else { "ended" };
                let scopes: Vec<_> = key.created.scopes.iter().map(|scope| scope.name()).collect();
                let (prefix, name) = (&key.created.prefix, &key.created.name);
                format!("{id}  {state}  {prefix}…  {}  {name}", scopes.join(","))
            });
            Ok(shown.collect())
        }
        Order::KeyRevoke { id: key, workspace } => {
            let id = workspace_of(core, workspace)?;
            let Ok(key_id) = key.parse::<KeyId>() else { bail!("`{key}` is no key id") };
            core.executor
                .workspace(id, Who::hub(id, "operator"), workspace::Command::RevokeKey { key_id })
                .await
                .map_err(not_done("the key was not revoked"))?;
            Ok(vec![format!("[ok] {key_id} revoked")])
        }
        Order::Erase { workspace, share, from, until } => {
            let id = workspace_of(core, workspace)?;
            anyhow::ensure!(from <= until, "the last day lies before the first one");
            let share = match share {
                None => None,
                Some(text) => Some(share_of(core, id, text)?),
            };
            let erase =
                Erase { workspace: id, share, first_day: *from, last_day: *until, now: core.clock.now() };
            let erased = erase.carry_out(&core.keyring, &core.executor, Who::hub(id, "operator")).await;
            let (keys, _) = erased.map_err(|error| match error {
                EraseError::Keyring(error) => anyhow::anyhow!("nothing is sure to be erased: {error}"),
                EraseError::Note(error) => {
                    not_done::<workspace::Rejection>("it is erased, but that is not recorded")(error)
                }
                EraseError::Stopped(error) => anyhow::anyhow!("nothing is sure to be erased: {error}"),
            })?;
            Ok(vec![format!("[ok] erased from {from} to {until}: {keys} keys destroyed")])
        }
        Order::Upgrade { finish } => Upgrade::of(core).order(*finish).await,
        Order::LogExtent {} => {
            let segments = core.segments.as_ref().context(crate::offline::NO_EXTERNAL_BACKUP)?;
            let extent = segments.extent();
            Ok(vec![serde_json::to_string(&extent).context("an extent is plain data")?])
        }
    }
}

/// A share of the workspace, lately or long ended ones too: its stream says whose it is.
fn share_of(core: &Core, workspace: domain::ids::WorkspaceId, text: &str) -> Result<ShareId> {
    let unknown = || format!("no share `{text}` in this workspace");
    let id: ShareId = text.parse().ok().with_context(unknown)?;
    // Those that ended long ago are not in memory; nobody else's keys have this share's name.
    let elsewhere = core.routes.share(id).is_some_and(|entry| {
        entry.state.created.as_ref().is_none_or(|created| created.workspace_id != workspace)
    });
    anyhow::ensure!(!elsewhere, unknown());
    Ok(id)
}

fn workspace_of(core: &Core, name: &str) -> Result<domain::ids::WorkspaceId> {
    core.workspace_named(name).with_context(|| format!("no workspace `{name}`"))
}

fn scope(name: &str) -> Result<Scope> {
    let known = [Scope::Admin, Scope::Write, Scope::Read, Scope::Agent];
    let found = known.into_iter().find(|scope| scope.name() == name);
    found.with_context(|| format!("no scope `{name}`"))
}

/// Where a running hub listens for its operator.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join("operator.sock")
}

/// The socket's address, and what must stay open while it is used: a path too long for an address is reached through
/// an open descriptor of its directory.
fn address(data: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = socket_path(data);
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok((path, None));
    }
    let dir = File::open(data)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    Ok((socket_path(&short), Some(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_shows_nothing_of_itself() {
        assert_eq!(format!("{:?}", Reply::Done(vec!["pc_secret".to_owned()])), "Reply(…)");
    }
}
