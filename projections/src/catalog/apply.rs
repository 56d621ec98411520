//! One event, a few rows: how the catalog remembers.

use domain::{agent, event::Event, node, recorded::Recorded, share, tunnel, workspace};
use rusqlite::{Params, Transaction, named_params};
use serde::Serialize;

use crate::{
    routes::{id_of, unhex},
    view::position,
};

/// Takes in an event. One that no list shows changes nothing.
pub(super) fn event(db: &Transaction<'_>, recorded: &Recorded, event: &Event) -> rusqlite::Result<()> {
    match event {
        Event::Workspace(event) => workspace_event(db, recorded, event),
        Event::Agent(event) => agent_event(db, recorded, event),
        Event::Tunnel(event) => tunnel_event(db, recorded, event),
        Event::Share(event) => share_event(db, recorded, event),
        Event::Node(node::Event::Started(started)) => run(
            db,
            // The sessions of an earlier boot ended with it, unseen.
            "UPDATE agents SET session = NULL WHERE node = ?1 AND session IS NOT NULL AND boot <> ?2",
            (&started.node, started.boot),
        ),
        Event::AgentCommand(event) => super::commands::event(db, recorded, event),
        Event::Claim(_)
        | Event::Access(_)
        | Event::Message(_)
        | Event::Environment(_)
        | Event::Retention(_)
        | Event::Seal(_)
        | Event::Webhook(_)
        | Event::Delivery(_)
        | Event::LogFormat(_) => Ok(()),
    }
}

pub(super) fn run(db: &Transaction<'_>, sql: &str, values: impl Params) -> rusqlite::Result<()> {
    db.prepare_cached(sql)?.execute(values).map(|_| ())
}

pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data with string keys")
}

/// The name of a plain enum on the wire.
fn word<T: Serialize>(value: T) -> String {
    json(&value).trim_matches('"').to_owned()
}

fn workspace_event(
    db: &Transaction<'_>,
    recorded: &Recorded,
    event: &workspace::Event,
) -> rusqlite::Result<()> {
    match event {
        workspace::Event::Created(_) | workspace::Event::PersonalErased(_) => Ok(()),
        workspace::Event::KeyCreated(key) => run(
            db,
            "INSERT OR REPLACE INTO keys VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL)",
            (
                recorded.workspace.uuid(),
                key.key_id.uuid(),
                key.name.as_str(),
                &key.prefix,
                json(&key.scopes),
                json(&key.allowed_ip_ranges),
                key.expires_at.map(|at| at.millis()),
                recorded.recorded_at.millis(),
            ),
        ),
        workspace::Event::KeyRevoked(revoked) => run(
            db,
            "UPDATE keys SET revoked_at = ?3 WHERE workspace = ?1 AND id = ?2 AND revoked_at IS NULL",
            (recorded.workspace.uuid(), revoked.key_id.uuid(), recorded.recorded_at.millis()),
        ),
    }
}

fn agent_event(db: &Transaction<'_>, recorded: &Recorded, event: &agent::Event) -> rusqlite::Result<()> {
    let Some(id) = id_of::<domain::ids::AgentId>(&recorded.stream, "agent-") else { return Ok(()) };
    let (workspace, id, at) = (recorded.workspace.uuid(), id.uuid(), recorded.recorded_at.millis());
    let revision = position(recorded.revision);
    match event {
        agent::Event::Registered(registered) => run(
            db,
            "INSERT OR REPLACE INTO agents (workspace, id, label, name, client_type, ephemeral, token_expires_at,
                 created_at, updated_at, revision)
             VALUES (:workspace, :id, :label, :name, :client_type, :ephemeral, :token_expires_at, :at, :at,
                 :revision)",
            named_params! {
                ":workspace": workspace, ":id": id, ":at": at, ":revision": revision,
                ":label": registered.label.as_str(),
                ":name": registered.name.as_str(),
                ":client_type": registered.client_type.map(word),
                ":ephemeral": registered.ephemeral,
                ":token_expires_at": registered.token.expires_at.millis(),
            },
        ),
        agent::Event::TokenIssued(issued) => run(
            db,
            "UPDATE agents SET label = coalesce(:label, label), name = coalesce(:name, name),
                 token_expires_at = :token_expires_at, updated_at = :at, revision = :revision
             WHERE workspace = :workspace AND id = :id",
            named_params! {
                ":workspace": workspace, ":id": id, ":at": at, ":revision": revision,
                ":label": issued.label.as_ref().map(|label| label.as_str()),
                ":name": issued.name.as_ref().map(|name| name.as_str()),
                ":token_expires_at": issued.token.expires_at.millis(),
            },
        ),
        agent::Event::Connected(connected) => run(
            db,
            "UPDATE agents SET session = :session, node = :node, boot = :boot, agent_version = :agent_version,
                 connected_at = :at, last_seen_at = :at, updated_at = :at, revision = :revision
             WHERE workspace = :workspace AND id = :id",
            named_params! {
                ":workspace": workspace, ":id": id, ":at": at, ":revision": revision,
                ":session": connected.session_id.uuid(),
                ":node": connected.node,
                ":boot": connected.boot,
                ":agent_version": connected.agent_version,
            },
        ),
        agent::Event::Disconnected(_) => run(
            db,
            "UPDATE agents SET session = NULL, last_seen_at = ?3, updated_at = ?3, revision = ?4
             WHERE workspace = ?1 AND id = ?2",
            (workspace, id, at, revision),
        ),
        agent::Event::CapabilitiesSet(_) => run(
            db,
            "UPDATE agents SET updated_at = ?3, revision = ?4 WHERE workspace = ?1 AND id = ?2",
            (workspace, id, at, revision),
        ),
        agent::Event::Deleted(_) => run(
            db,
            "UPDATE agents SET session = NULL, deleted_at = ?3, updated_at = ?3, revision = ?4
             WHERE workspace = ?1 AND id = ?2",
            (workspace, id, at, revision),
        ),
    }
}

fn tunnel_event(db: &Transaction<'_>, recorded: &Recorded, event: &tunnel::Event) -> rusqlite::Result<()> {
    let Some(id) = id_of::<domain::ids::TunnelId>(&recorded.stream, "tunnel-") else { return Ok(()) };
    let (workspace, id, at) = (recorded.workspace.uuid(), id.uuid(), recorded.recorded_at.millis());
    let revision = position(recorded.revision);
    let set = |assignment: &str| {
        let sql = format!(
            "UPDATE tunnels SET {assignment}, updated_at = ?3, revision = ?4 WHERE workspace = ?1 AND id = ?2
                 AND closed_at IS NULL"
        );
        run(db, &sql, (workspace, id, at, revision))
    };
    match event {
        tunnel::Event::Created(created) => run(
            db,
            "INSERT OR REPLACE INTO tunnels (workspace, id, agent, name, target_host, target_port, tunnel_port,
                 protocol, is_public, metadata, paused, expires_at, created_at, updated_at, revision)
             VALUES (:workspace, :id, :agent, :name, :host, :port, :tunnel_port, :protocol, :is_public, '{}', 0,
                 :expires_at, :at, :at, :revision)",
            named_params! {
                ":workspace": workspace, ":id": id, ":at": at, ":revision": revision,
                ":agent": created.agent_id.uuid(),
                ":name": created.name.as_str(),
                ":host": created.target.host,
                ":port": created.target.port,
                ":tunnel_port": created.tunnel_port,
                ":protocol": created.protocol.name(),
                ":is_public": created.is_public,
                ":expires_at": created.expires_at.map(|at| at.millis()),
            },
        ),
        tunnel::Event::Updated(updated) => run(
            db,
            // Another agent or target has yet to say that it can be dialled.
            "UPDATE tunnels SET name = coalesce(:name, name), metadata = coalesce(:metadata, metadata),
                 agent = coalesce(:agent, agent), target_host = coalesce(:host, target_host),
                 target_port = coalesce(:port, target_port), protocol = coalesce(:protocol, protocol),
                 is_public = coalesce(:is_public, is_public),
                 session = CASE WHEN :agent IS NULL AND :host IS NULL THEN session END,
                 outage = CASE WHEN :agent IS NULL AND :host IS NULL THEN outage END,
                 updated_at = :at, revision = :revision
             WHERE workspace = :workspace AND id = :id AND closed_at IS NULL",
            named_params! {
                ":workspace": workspace, ":id": id, ":at": at, ":revision": revision,
                ":name": updated.name.as_ref().map(|name| name.as_str()),
                ":metadata": updated.metadata.as_ref().map(json),
                ":agent": updated.agent_id.map(|agent| agent.uuid()),
                ":host": updated.target.as_ref().map(|target| target.host.as_str()),
                ":port": updated.target.as_ref().map(|target| target.port),
                ":protocol": updated.protocol.map(|protocol| protocol.name()),
                ":is_public": updated.is_public,
            },
        ),
        tunnel::Event::Connected(connected) => run(
            db,
            "UPDATE tunnels SET session = ?5, outage = NULL, connected_at = ?3, updated_at = ?3, revision = ?4
             WHERE workspace = ?1 AND id = ?2 AND closed_at IS NULL",
            (workspace, id, at, revision, connected.session_id.uuid()),
        ),
        tunnel::Event::Disconnected(disconnected) => {
            let outage = match &disconnected.outage {
                tunnel::Outage::AgentDisconnected => None,
                outage @ (tunnel::Outage::TargetUnreachable(_) | tunnel::Outage::TargetRefused(_)) => {
                    Some(json(outage))
                }
            };
            run(
                db,
                "UPDATE tunnels SET session = NULL, outage = ?5, updated_at = ?3, revision = ?4
                 WHERE workspace = ?1 AND id = ?2 AND closed_at IS NULL",
                (workspace, id, at, revision, outage),
            )
        }
        tunnel::Event::Paused(_) => set("paused = 1"),
        tunnel::Event::Resumed(_) => set("paused = 0"),
        tunnel::Event::Expired(_) | tunnel::Event::Deleted(_) => set("closed_at = ?3"),
        // How a service is watched is asked of `Routes`; the row says that something changed.
        tunnel::Event::HealthConfigured(_) | tunnel::Event::Healthy(_) | tunnel::Event::Unhealthy(_) => {
            set("paused = paused")
        }
    }
}

fn share_event(db: &Transaction<'_>, recorded: &Recorded, event: &share::Event) -> rusqlite::Result<()> {
    let Some(id) = id_of::<domain::ids::ShareId>(&recorded.stream, "share-") else { return Ok(()) };
    let (workspace, id, at) = (recorded.workspace.uuid(), id.uuid(), recorded.recorded_at.millis());
    let revision = position(recorded.revision);
    match event {
        share::Event::Created(created) => run(
            db,
            "INSERT OR REPLACE INTO shares (workspace, id, tunnel, name, description, allowed_paths,
                 allowed_methods, rate_limit_per_min, slug, slug_chosen, read_only, token_digest, token_preview, expires_at,
                 created_at, updated_at, revision)
             VALUES (:workspace, :id, :tunnel, :name, :description, :allowed_paths, :allowed_methods,
                 :rate_limit_per_min, :slug, :slug_chosen, :read_only, :token_digest, :token_preview, :expires_at, :at, :at,
                 :revision)",
            named_params! {
                ":workspace": workspace, ":id": id, ":at": at, ":revision": revision,
                ":tunnel": created.tunnel_id.uuid(),
                ":name": created.name.as_str(),
                ":description": created.description.as_ref().map(|text| text.as_str()),
                ":allowed_paths": created.allowed_paths.as_ref().map(json),
                ":allowed_methods": created.allowed_methods.as_ref().map(json),
                ":rate_limit_per_min": created.rate_limit_per_min,
                ":slug": created.slug,
                ":slug_chosen": created.slug_chosen,
                ":read_only": created.read_only,
                ":token_digest": unhex(&created.token_hash),
                ":token_preview": created.token_preview,
                ":expires_at": created.expires_at.map(|at| at.millis()),
            },
        ),
        share::Event::Revoked(revoked) => run(
            db,
            "UPDATE shares SET revoked_at = ?3, revoke_reason = ?5, ended_at = ?3, updated_at = ?3, revision = ?4
             WHERE workspace = ?1 AND id = ?2",
            (workspace, id, at, revision, word(revoked.reason)),
        ),
        share::Event::Expired(_) => run(
            db,
            "UPDATE shares SET ended_at = ?3, updated_at = ?3, revision = ?4 WHERE workspace = ?1 AND id = ?2",
            (workspace, id, at, revision),
        ),
    }
}
