//! `hub events tail` and `hub events export`: recorded events from the log alone, whether a hub runs or not.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use domain::{
    event::Event,
    ids::WorkspaceId,
    recorded::{Actor, Family, Recorded},
    time::Timestamp,
    workspace,
};

use super::source::Source;
use crate::{
    event_forms,
    feed::{ACCESS_TYPES, opened},
    keyring::PersonalKeys,
    settings::{Chosen, EventsCommand, ExportFormat},
};

/// How often a log is looked at that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs the command.
///
/// # Errors
/// The log is missing or damaged, or the output cannot be written.
pub fn run(command: EventsCommand) -> Result<()> {
    match command {
        EventsCommand::Tail { lines, follow, json, chosen } => tail(lines.into(), follow, json, &chosen),
        EventsCommand::Export { format, since, until, output, chosen } => {
            let span = Span { since, until };
            match output {
                None => written(export(&chosen, format, span, &mut io::stdout().lock())),
                Some(path) => export_to(&path, &chosen, format, span),
            }
        }
    }
}

/// Whoever reads the output may have seen enough.
fn written(done: Result<()>) -> Result<()> {
    match done {
        Err(error)
            if error.downcast_ref::<io::Error>().is_some_and(|it| it.kind() == io::ErrorKind::BrokenPipe) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// Which events, as far as it can be told by looking at one after the other.
struct Choice<'a> {
    chosen: &'a Chosen,
    names: BTreeMap<WorkspaceId, String>,
    keys: Option<PersonalKeys>,
}

impl<'a> Choice<'a> {
    fn new(chosen: &'a Chosen) -> Result<Self> {
        let path = chosen.data.path.join("keyring");
        let keys = if chosen.personal {
            Some(PersonalKeys::read(&path).context("while reading the keyring")?)
        } else {
            None
        };
        Ok(Self { chosen, names: BTreeMap::new(), keys })
    }

    /// The event, opened if that is wanted; `None` when it is not chosen.
    fn take(&mut self, recorded: Recorded) -> Option<Recorded> {
        note_workspace(&mut self.names, &recorded);
        let name = &*recorded.event_type;
        let types = &self.chosen.types;
        let of_type = match recorded.family() {
            Family::Facts => types.is_empty() || types.iter().any(|wanted| wanted == name),
            Family::Accesses => ACCESS_TYPES.contains(&name) && types.iter().any(|wanted| wanted == name),
            // How webhooks were delivered is shown with the webhooks.
            Family::Deliveries => false,
        };
        let of_workspace = self.chosen.workspace.as_ref().is_none_or(|wanted| {
            recorded.workspace.to_string() == *wanted || self.names.get(&recorded.workspace) == Some(wanted)
        });
        if !of_type || !of_workspace {
            return None;
        }
        let Some(keys) = &self.keys else { return Some(recorded) };
        let personal =
            opened(&recorded, &|scope, sealed| keys.open_personal(recorded.workspace, scope, sealed));
        Some(Recorded { personal, ..recorded })
    }

    /// # Errors
    /// The workspace that was named does not exist.
    fn check(&self) -> Result<()> {
        let Some(wanted) = &self.chosen.workspace else { return Ok(()) };
        let known = self.names.iter().any(|(id, name)| name == wanted || id.to_string() == *wanted);
        anyhow::ensure!(known, "no workspace `{wanted}`");
        Ok(())
    }
}

/// Remembers the name of a workspace that begins here.
pub(super) fn note_workspace(names: &mut BTreeMap<WorkspaceId, String>, recorded: &Recorded) {
    if &*recorded.event_type == "workspace.created"
        && let Ok(Event::Workspace(workspace::Event::Created(created))) = recorded.event()
    {
        names.insert(created.workspace_id, created.name.to_string());
    }
}

fn tail(lines: usize, follow: bool, json: bool, chosen: &Chosen) -> Result<()> {
    let mut tape = Source::open(&chosen.data)?;
    let mut choice = Choice::new(chosen)?;
    let mut last: VecDeque<Recorded> = VecDeque::new();
    let _ = tape.play(&mut |recorded| {
        last.extend(choice.take(recorded));
        while last.len() > lines {
            last.pop_front();
        }
        ControlFlow::Continue(())
    })?;
    choice.check()?;
    let mut out = io::stdout().lock();
    for recorded in &last {
        if shown(&mut out, recorded, json).is_err() {
            return Ok(());
        }
    }
    if !follow {
        return Ok(());
    }
    loop {
        tape.wait(LOOK_EVERY);
        let mut left = false;
        let _ = tape.play(&mut |recorded| {
            left = left || choice.take(recorded).is_some_and(|it| shown(&mut out, &it, json).is_err());
            if left { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if left || out.flush().is_err() {
            return Ok(());
        }
    }
}

fn shown(out: &mut impl Write, recorded: &Recorded, json: bool) -> io::Result<()> {
    if json {
        return line(out, recorded, ExportFormat::Ndjson);
    }
    let author = match &recorded.actor {
        Actor::Key(id) => id.to_string(),
        Actor::Agent(id) => id.to_string(),
        Actor::System(name) => name.clone(),
    };
    let (at, workspace, seq) = (recorded.recorded_at, recorded.workspace, recorded.seq);
    let (name, stream) = (&recorded.event_type, &recorded.stream);
    writeln!(out, "{at}  {workspace}  {seq:>6}  {name:<24}  {stream}  {author}")
}

fn line(out: &mut impl Write, recorded: &Recorded, format: ExportFormat) -> io::Result<()> {
    match format {
        ExportFormat::Ndjson => serde_json::to_writer(&mut *out, &event_forms::event(recorded))?,
        ExportFormat::CloudEvents => serde_json::to_writer(&mut *out, &event_forms::cloud_event(recorded))?,
    }
    writeln!(out)
}

/// Between two moments.
#[derive(Clone, Copy)]
struct Span {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

fn export_to(path: &Path, chosen: &Chosen, format: ExportFormat, span: Span) -> Result<()> {
    let writing = || format!("while writing {}", path.display());
    // What is in it may be nobody else's business.
    let file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(writing)?;
    let mut out = BufWriter::new(file);
    export(chosen, format, span, &mut out)?;
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .with_context(writing)
}

fn export(chosen: &Chosen, format: ExportFormat, span: Span, out: &mut impl Write) -> Result<()> {
    let mut tape = Source::open(&chosen.data)?;
    let mut choice = Choice::new(chosen)?;
    let mut failed = None;
    let _ = tape.play(&mut |recorded| {
        if span.until.is_some_and(|until| recorded.recorded_at > until) {
            return ControlFlow::Break(());
        }
        let early = span.since.is_some_and(|since| recorded.recorded_at < since);
        let Some(recorded) = choice.take(recorded).filter(|_| !early) else {
            return ControlFlow::Continue(());
        };
        match line(out, &recorded, format) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    out.flush()?;
    choice.check()
}
