//! The operator's commands on a data directory: verify and rebuild, which no hub may be using; what reads the log whether
//! one does or not; what a running hub is asked to do.

use std::{io::Write as _, path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result};

pub mod copies;
pub mod events;
pub mod replay;
mod source;

use crate::{
    clock::SystemClock,
    core::Core,
    event_log::{
        place::{self, Place, PlaceError},
        postgres,
        verify::{VerifyFailure, VerifyReport, verify},
    },
    operator::{self, Order},
    readers::rebuild::{self, Progress},
    settings::{DataDir, EraseArgs, KeyCommand, Rebuild, Upgrade, Verify, WorkspaceCommand},
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
pub async fn run_verify(args: &Verify) -> ExitCode {
    match verified(args).await {
        Ok(report) if args.json => say(&json_of(&report).to_string()),
        Ok(report) => say(&words_of(&report)),
        Err(failure @ VerifyFailure::CannotJudge(_)) => {
            telemetry::fail(&anyhow::anyhow!("{failure}"));
            return ExitCode::from(failure.exit_code());
        }
        Err(failure) if args.json => {
            say(&json_of_failure(&failure).to_string());
            return ExitCode::from(failure.exit_code());
        }
        Err(failure) => {
            say(&format!("[x] {failure}"));
            return ExitCode::from(failure.exit_code());
        }
    }
    ExitCode::SUCCESS
}

async fn verified(args: &Verify) -> Result<VerifyReport, VerifyFailure> {
    let (data, head) = (args.data.path.as_path(), args.head.as_deref());
    let place = place::of(data, args.data.log.as_ref());
    match place.map_err(|error| VerifyFailure::CannotJudge(error.to_string()))? {
        Place::Embedded => verify(data, head),
        Place::Postgres(address) => {
            postgres::verify(*address, &data.join("keyring"), &place::seals_folder(data), head).await
        }
    }
}

fn json_of_failure(failure: &VerifyFailure) -> serde_json::Value {
    let place = match failure {
        VerifyFailure::Bad(damage) => Some(serde_json::json!({
            "file": damage.file,
            "offset": damage.offset,
            "position": damage.position,
            "event": damage.event.map(|id| id.to_string()),
            "stream": damage.stream,
            "reason": damage.reason,
        })),
        VerifyFailure::BadRow(bad) => Some(serde_json::json!({
            "position": bad.position,
            "event": bad.event.map(|id| id.to_string()),
            "stream": bad.stream,
            "reason": bad.reason,
        })),
        VerifyFailure::OtherHead { .. } | VerifyFailure::CannotJudge(_) => None,
    };
    serde_json::json!({ "ok": false, "message": failure.to_string(), "firstBad": place })
}

fn json_of(report: &VerifyReport) -> serde_json::Value {
    let events: serde_json::Map<_, _> =
        report.events.iter().map(|(family, count)| (family.name().to_owned(), (*count).into())).collect();
    serde_json::json!({
        "ok": true,
        "logId": report.log_id.to_string(),
        "events": events,
        "workspaces": report.workspaces,
        "position": report.position,
        "head": report.head,
        "expectedHeadAt": report.expected_head_at,
        "accessesRetiredBefore": report.retired.map(|retired| retired.before.to_string()),
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
    let retired = match report.retired {
        Some(retired) => format!("\naccesses before {} were retired, and the log says so", retired.before),
        None => String::new(),
    };
    format!(
        "[ok] the event log is clean: {} in {} workspaces, {seal}{retired}\nhead {}{torn}",
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
    let data = existing(&args.data)?;
    let core = Core::open_at(data, args.data.log.as_ref(), "operator", Arc::new(SystemClock)).await?;
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

/// `hub workspace …`, of a running hub too.
///
/// # Errors
/// The name is taken or none, or the log takes no writes.
pub async fn run_workspace(command: WorkspaceCommand) -> Result<()> {
    let (data, order) = match command {
        WorkspaceCommand::Create { name, data } => (data, Order::WorkspaceCreate { name }),
        WorkspaceCommand::List { data } => (data, Order::WorkspaceList {}),
    };
    // The first workspace makes its data directory.
    let path =
        if matches!(order, Order::WorkspaceCreate { .. }) { data.path.as_path() } else { existing(&data)? };
    show(&operator::run_with(path, data.log.as_ref(), &order).await?);
    Ok(())
}

/// `hub key …`, of a running hub too.
///
/// # Errors
/// The workspace or key is unknown, or the log takes no writes.
pub async fn run_key(command: KeyCommand) -> Result<()> {
    let (data, order) = match command {
        KeyCommand::Create { name, workspace, scopes, data } => {
            (data, Order::KeyCreate { name, workspace, scopes })
        }
        KeyCommand::List { workspace, data } => (data, Order::KeyList { workspace }),
        KeyCommand::Revoke { id, workspace, data } => (data, Order::KeyRevoke { id, workspace }),
    };
    show(&operator::run_with(existing(&data)?, data.log.as_ref(), &order).await?);
    Ok(())
}

/// `hub erase`, of a running hub too.
///
/// # Errors
/// The workspace or share is unknown, or keyring or log take no writes.
pub async fn run_erase(args: EraseArgs) -> Result<()> {
    let EraseArgs { workspace, share, from, until, data } = args;
    let order = Order::Erase { workspace, share, from, until: until.unwrap_or(from) };
    show(&operator::run_with(existing(&data)?, data.log.as_ref(), &order).await?);
    Ok(())
}

/// `hub upgrade`, of a running hub too.
///
/// # Errors
/// The log cannot be read or takes no writes.
pub async fn run_upgrade(args: Upgrade) -> Result<()> {
    let order = Order::Upgrade { finish: args.finish };
    show(&operator::run(existing(&args.data)?, &order).await?);
    Ok(())
}

fn show(lines: &[String]) {
    for line in lines {
        say(line);
    }
}

/// What a backup of a log in a database is told.
pub(crate) const NO_EXTERNAL_BACKUP: &str = "\
`hub backup` and `hub restore` copy the embedded event log; this one is in a database: back that up with its own means \
(pg_dump, base backups), and the files keyring and keyring.destroyed of the data directory after it; \
docs/how-to/external-log.md says how";

/// A directory that was used before.
fn existing(data: &DataDir) -> Result<&Path> {
    let is_there = data.path.join("log").is_dir() || place::is_external(&data.path);
    anyhow::ensure!(is_there, "no event log in {}", data.path.display());
    Ok(&data.path)
}

/// The same of a command that only the embedded log has.
fn embedded<'a>(data: &'a DataDir, why_not: &'static str) -> Result<&'a Path> {
    match place::of(&data.path, data.log.as_ref()) {
        Ok(Place::Embedded) => Ok(&data.path),
        Ok(Place::Postgres(_)) | Err(PlaceError::IsElsewhere { .. }) => anyhow::bail!(why_not),
        Err(error) => Err(error.into()),
    }
}
