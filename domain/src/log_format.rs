//! Which shapes of events a log holds: a fact in the log, so that an older release knows at its start that it would
//! not understand.
//!
//! A release reads a version of an event before any release writes it. What is written follows the log's *format*: a
//! number that stands for all versions together ([`crate::event::UPCASTS`] says which came with which). A log that says
//! nothing is of format [`FIRST`]; a new one begins in the newest; any other is raised when the hub has been started by
//! releases that read the new format, and by no other, for [`GRACE_MS`], or when its operator says so. Until then one
//! can go back to the release before.

use serde::{Deserialize, Serialize};

use crate::{
    aggregate::Aggregate,
    event::{self, Read, json, parse},
    ids::WorkspaceId,
    time::Timestamp,
};

/// What a log has that does not say: every event in its first version.
pub const FIRST: u16 = 1;
/// The newest format that this build reads and writes.
pub const NEWEST: u16 = 2;
/// How long one can go back to the release before without a word (milliseconds): a day.
pub const GRACE_MS: i64 = 24 * 3_600_000;

/// From here on events are written in the versions of this format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogFormatRaised {
    pub format: u16,
    /// The release that raised it: it, and all after it, read the log.
    pub release: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Raised(LogFormatRaised),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            // Every release has to read this one, for ever: it has no second version.
            Self::Raised(_) => ("log.format_raised", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Raised(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("log.format_raised", 1) => parse(data, Self::Raised),
            _ => Ok(None),
        }
    }
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Write in this format from now on.
    Raise(LogFormatRaised),
}

/// What can stand in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("no release reads a format above {NEWEST} yet")]
    FormatUnknown,
}

/// The log's format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFormat {
    /// The last time that it was raised, if ever.
    pub raised: Option<LogFormatRaised>,
}

impl LogFormat {
    /// The format that events are written in.
    pub fn format(&self) -> u16 {
        self.raised.as_ref().map_or(FIRST, |raised| raised.format)
    }

    /// Whether this build reads all that may be in the log.
    ///
    /// # Errors
    /// What raised it beyond that.
    pub fn readable(&self) -> Result<(), LogFormatRaised> {
        match &self.raised {
            Some(raised) if raised.format > NEWEST => Err(raised.clone()),
            Some(_) | None => Ok(()),
        }
    }
}

impl Aggregate for LogFormat {
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    const KIND: &'static str = "log";

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Raise(raise) if raise.format > NEWEST => Err(Rejection::FormatUnknown),
            // There is no way down: what is written stays written.
            Command::Raise(raise) if raise.format <= self.format() => Ok(vec![]),
            Command::Raise(raise) => Ok(vec![Event::Raised(raise.clone())]),
        }
    }
    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Raised(raised) => self.raised = Some(raised.clone()),
        }
    }
    fn workspace(&self) -> Option<WorkspaceId> {
        None
    }

    fn from_event(event: event::Event) -> Option<Event> {
        if let event::Event::LogFormat(event) = event { Some(event) } else { None }
    }
    fn into_event(event: Event) -> event::Event {
        event::Event::LogFormat(event)
    }
}

/// A start of the hub, as far as formats go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    pub at: Timestamp,
    /// The newest format that the release read; releases that did not say read the first one.
    pub reads: u16,
}

/// From when on a log may be raised to a format by itself, by the hub's starts, oldest first: a day after the first of
/// those that no older release has interrupted since. `None`: the last start was one of a release that does not read it.
pub fn raisable_at(starts: &[Start], format: u16) -> Option<Timestamp> {
    let unbroken = starts.iter().rev().take_while(|start| start.reads >= format);
    unbroken.last().map(|first| first.at.plus_ms(GRACE_MS))
}

#[cfg(test)]
mod tests;
