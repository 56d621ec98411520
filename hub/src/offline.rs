//! The operator's commands on a data directory that no hub is using: verify, rebuild, workspaces, keys.

use std::{io::Write as _, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use domain::{
    ids::KeyId,
    workspace::{self, Scope},
};
use projections::routes::usable;

use crate::{
    actors::Who,
    core::Core,
    event_log::verify::{VerifyFailure, VerifyReport, verify},
    readers::rebuild::{self, Progress},
    secrets::Secret,
    settings::{KeyCommand, Rebuild, Verify, WorkspaceCommand},
    telemetry,
};

/// Prints to stdout; a reader who left early is no error.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").is_err() {
        std::process::exit(0);
    }
}

/// `hub verify`: 0 clean, 1 the first bad event is named, 2 cannot judge.
pub fn run_verify(args: &Verify) -> ExitCode {
    match verify(&args.data.path, args.head.as_deref()) {
        Ok(report) if args.json => say(&json_of(&report).to_string()),
        Ok(report) => say(&words_of(&report)),
        Err(failure @ VerifyFailure::CannotJudge(_)) => {
            telemetry::fail(&anyhow::anyhow!("{failure}"));
            return ExitCode::from(failure.exit_code());
        }
        Err(failure) => {
            say(&format!("[x] {failure}"));
            return ExitCode::from(failure.exit_code());
        }
    }
    ExitCode::SUCCESS
}

fn json_of(report: &VerifyReport) -> serde_json::Value {
    let events: serde_json::Map<_, _> =
        report.events.iter().map(|(family, count)| (family.name().to_owned(), (*count).into())).collect();
    serde_json::json!({
        "ok": true,
        "logId": report.log_id.to_string(),
        "events": events,
        "workspaces": report.workspaces,
        "head": report.head,
        "seals": report.seals,
        "lastSeal": report.last_seal.map(|seal| seal.recorded_at.to_string()),
        "unfinishedCommit": report.unfinished_commit,
    })
}

fn words_of(report: &VerifyReport) -> String {
    let counts: Vec<_> =
        report.events.iter().map(|(family, count)| format!("{count} {}", family.name())).collect();
    let seal = match report.last_seal {
        Some(seal) => format!("last seal {}", seal.recorded_at),
        None => "never sealed".to_owned(),
    };
    let torn = if report.unfinished_commit {
        "\n[!] a commit that was never acknowledged stands broken off at the end; the next start drops it"
    } else {
        ""
    };
    format!(
        "[ok] the event log is clean: {} in {} workspaces, {seal}\nhead {}{torn}",
        counts.join(", "),
        report.workspaces,
        report.head
    )
}

/// `hub rebuild`: builds every view beside the old one and swaps, or with `--check` compares and keeps.
///
/// # Errors
/// The directory is in use, the log is damaged, or the disk says no.
pub async fn run_rebuild(args: &Rebuild) -> Result<ExitCode> {
    let data = existing(&args.data.path)?;
    let core = Core::open(data).await?;
    let bar = indicatif::ProgressBar::new(0).with_style(
        indicatif::ProgressStyle::with_template(
            "{bar:40} {human_pos}/{human_len} events, {per_sec}, {eta} left",
        )
        .context("the template is a constant")?,
    );
    let mut progress = |progress: Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    };
    let code = if args.check {
        let checked = rebuild::check(data, &core.log, &mut progress).await?;
        bar.finish_and_clear();
        for view in checked.iter().filter(|view| !view.equal) {
            say(&format!("[x] the kept view `{}` differs from one rebuilt from the log", view.view));
        }
        let equal = checked.iter().all(|view| view.equal);
        if equal {
            say("[ok] the kept views equal views rebuilt from the log");
        }
        ExitCode::from(u8::from(!equal))
    } else {
        rebuild::rebuild(data, &core.log, &mut progress).await?;
        bar.finish_and_clear();
        say("[ok] the views were rebuilt from the log");
        ExitCode::SUCCESS
    };
    core.close().await;
    Ok(code)
}

/// `hub workspace …`.
///
/// # Errors
/// The directory is in use, or the name is taken.
pub async fn run_workspace(command: &WorkspaceCommand) -> Result<()> {
    match command {
        WorkspaceCommand::Create { name, data } => {
            let core = Core::open(&data.path).await?;
            let show = |secret: &Secret| {
                say(&format!("workspace `default` was created too\nits admin key {}", secret.reveal()));
                Ok(())
            };
            core.bootstrap(None, show).await?;
            let id = core.create_workspace(name).await?;
            let (_, secret) = core.create_key(id, "admin", vec![Scope::Admin], None, None).await?;
            say(&format!("workspace {id}\nadmin key {}", secret.reveal()));
            core.close().await;
        }
        WorkspaceCommand::List { data } => {
            let core = Core::open(existing(&data.path)?).await?;
            let mut known = core.routes.workspaces();
            known.sort_by_key(|(id, _)| *id);
            for (id, entry) in known {
                if let Some(created) = &entry.state.created {
                    say(&format!("{id}  {}  {}", entry.created_at, created.name));
                }
            }
            core.close().await;
        }
    }
    Ok(())
}

/// `hub key …`.
///
/// # Errors
/// The directory is in use, or the workspace or key is unknown.
pub async fn run_key(command: &KeyCommand) -> Result<()> {
    let (data, name) = match command {
        KeyCommand::Create { data, workspace, .. }
        | KeyCommand::List { data, workspace }
        | KeyCommand::Revoke { data, workspace, .. } => (&data.path, workspace),
    };
    let core = Core::open(existing(data)?).await?;
    let id = core.workspace_named(name).with_context(|| format!("no workspace `{name}`"))?;
    match command {
        KeyCommand::Create { name, scopes, .. } => {
            let scopes = scopes.iter().filter_map(|name| scope(name)).collect();
            let (key, secret) = core.create_key(id, name, scopes, None, None).await?;
            say(&format!("{key}\n{}", secret.reveal()));
        }
        KeyCommand::List { .. } => {
            let entry = core.routes.workspace(id).context("found above")?;
            for (id, key) in &entry.state.keys {
                let state = if usable(key, core.clock.now()) { "active" } else { "ended" };
                let scopes: Vec<_> = key.created.scopes.iter().map(|scope| scope.name()).collect();
                say(&format!(
                    "{id}  {state}  {}…  {}  {}",
                    key.created.prefix,
                    scopes.join(","),
                    key.created.name
                ));
            }
        }
        KeyCommand::Revoke { id: key, .. } => {
            let Ok(key_id) = key.parse::<KeyId>() else { bail!("`{key}` is no key id") };
            core.executor
                .workspace(id, Who::hub(id, "operator"), workspace::Command::RevokeKey { key_id })
                .await
                .map_err(|error| anyhow::anyhow!("the key was not revoked: {error:?}"))?;
            say(&format!("[ok] {key_id} revoked"));
        }
    }
    core.close().await;
    Ok(())
}

fn scope(name: &str) -> Option<Scope> {
    [Scope::Admin, Scope::Write, Scope::Read, Scope::Agent].into_iter().find(|scope| scope.name() == name)
}

fn existing(data: &Path) -> Result<&Path> {
    anyhow::ensure!(data.join("log").is_dir(), "no event log in {}", data.display());
    Ok(data)
}
