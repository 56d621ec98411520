//! When the log's format goes up, and the word to whoever comes with a release that is too old for it.
//!
//! A release reads what it will write before it writes it: for a day after an upgrade one can go back. What decides is in
//! the log ([`domain::log_format`]): the hub's starts, and the fact that the format was raised.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use domain::{
    event::Event,
    log_format::{self, Command, FIRST, LogFormatRaised, NEWEST, Start, raisable_at},
    node,
    recorded::StreamName,
    time::Timestamp,
};
use projections::routes::Routes;
use tokio_util::sync::CancellationToken;

use crate::{
    actors::{ExecuteError, Executor, Who},
    clock::SharedClock,
    core::{Core, not_done},
    event_log::{ReadError, SharedLog},
};

/// This release, as facts and messages name it.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// How often one looks whether the day is over, and tries again where the log took no writes.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Starts are read in pages of this many.
const PAGE: usize = 500;

/// Whether this release understands everything that may be in the log; asked before anything acts on facts.
///
/// # Errors
/// In words for the operator: which release to start.
pub fn readable(routes: &Routes) -> Result<()> {
    routes.log_format().readable().map_err(|raised| {
        anyhow::anyhow!(
            "the event log is of format {}, raised by release {}; this is release {RELEASE}, which reads formats up to \
             {NEWEST}: start release {} or a later one",
            raised.format,
            raised.release,
            raised.release
        )
    })
}

/// Raises a log's format when its time has come.
#[derive(Debug, Clone)]
pub struct Upgrade {
    pub log: SharedLog,
    pub routes: Arc<Routes>,
    pub executor: Executor,
    pub clock: SharedClock,
}

impl Upgrade {
    pub fn of(core: &Core) -> Self {
        Self {
            log: core.log.clone(),
            routes: Arc::clone(&core.routes),
            executor: core.executor.clone(),
            clock: core.clock.clone(),
        }
    }

    /// Works until the log has the newest format, or until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        while self.routes.log_format().format() < NEWEST {
            match self.look().await {
                Ok(true) => tracing::info!(
                    format = NEWEST,
                    release = RELEASE,
                    "the event log was raised: older releases do not read it any more"
                ),
                Ok(false) => {}
                Err(reason) => tracing::warn!(reason, "the event log's format was not raised; tried again"),
            }
            if stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
                return;
            }
        }
    }

    /// Raises the format if its time has come; whether it did.
    ///
    /// # Errors
    /// The log cannot be read or written.
    pub async fn look(&self) -> Result<bool, String> {
        let due = self.due().await.map_err(|error| error.to_string())?;
        if due.is_none_or(|due| due > self.clock.now()) {
            return Ok(false);
        }
        self.raise("hub").await.map(|()| true).map_err(|error| format!("{error:?}"))
    }

    /// From when on the log may be raised by itself; `None`: some node was last started by a release that does not read
    /// the newest format.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn due(&self) -> Result<Option<Timestamp>, ReadError> {
        let mut latest = None;
        for stream in self.routes.nodes() {
            let Some(due) = raisable_at(&self.starts(&stream).await?, NEWEST) else { return Ok(None) };
            latest = latest.max(Some(due));
        }
        Ok(latest)
    }

    async fn starts(&self, stream: &StreamName) -> Result<Vec<Start>, ReadError> {
        let (mut starts, mut revision) = (Vec::new(), 1);
        loop {
            let page = self.log.read_stream(stream, revision, PAGE).await?;
            let Some(last) = page.last() else { return Ok(starts) };
            revision = last.revision + 1;
            starts.extend(page.iter().filter_map(|recorded| match recorded.event() {
                Ok(Event::Node(node::Event::Started(started))) => {
                    Some(Start { at: recorded.recorded_at, reads: started.reads_format.unwrap_or(FIRST) })
                }
                // Not by a release that this one knows of.
                Ok(_) | Err(_) => None,
            }));
        }
    }

    /// Raises the format now.
    ///
    /// # Errors
    /// The log takes no writes.
    pub async fn raise(&self, role: &str) -> Result<(), ExecuteError<log_format::Rejection>> {
        let raised = LogFormatRaised { format: NEWEST, release: RELEASE.to_owned() };
        self.executor.log_format(Who::system(role), Command::Raise(raised)).await.map(|_| ())
    }

    /// `hub upgrade`: how the log stands, or with `finish` raises it now. Answers the lines to be shown.
    ///
    /// # Errors
    /// The log cannot be read or takes no writes.
    pub async fn order(&self, finish: bool) -> Result<Vec<String>> {
        if finish {
            self.raise("operator").await.map_err(not_done("the format was not raised"))?;
        }
        let format = self.routes.log_format().format();
        if format >= NEWEST {
            return Ok(vec![format!(
                "[ok] the event log is of format {format}, the newest of release {RELEASE}"
            )]);
        }
        let due = self.due().await.context("while reading the hub's starts")?;
        let when = match due {
            Some(due) => format!("by itself at {due}"),
            None => "by itself a day after every node runs this release".to_owned(),
        };
        Ok(vec![
            format!("the event log is of format {format}; release {RELEASE} can write format {NEWEST}"),
            format!("it is raised {when}, or now with `hub upgrade --finish`"),
            "until then one can go back to the release before".to_owned(),
        ])
    }
}
