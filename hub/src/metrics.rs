//! What Prometheus reads. The parts of the hub count by themselves and know nothing of this; a page is made of what they
//! have counted when somebody asks for it.
//!
//! | part | has |
//! |---|---|
//! | [`count`] | what is counted with: relaxed atomics, in cells where many cores count |
//! | [`families`] | every metric with its labels and help |
//! | [`api`] | the counts of the Control API |
//! | `page` | samples on their way to text, by the prometheus crate |
//! | `sources` | which number of which part becomes which sample |
//! | `process` | what the system says of the process |
//!
//! Invariants: counting takes no lock, allocates nothing and looks nothing up on the way of a request or a stream; a
//! label's values are known to the code.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};

use crate::api::Ports;

pub mod api;
pub mod count;
pub mod families;
mod page;
mod process;
mod sources;

use api::ApiCounts;
use page::Page;
use process::Process;

/// How long a page waits for the log to say how old an event is.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// What is counted nowhere else, and the turn of who asks for a page.
#[derive(Debug)]
pub struct Metrics {
    pub api: ApiCounts,
    /// When the process began, in seconds since 1970.
    started: Option<f64>,
    /// Pages are made one at a time: whoever may read them may ask as often as he likes.
    turn: Mutex<()>,
}

/// How far a view is behind the log.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Lag {
    view: &'static str,
    reached: u64,
    positions: u64,
    /// `None`: the log does not say.
    seconds: Option<f64>,
}

impl Metrics {
    /// `templates`: of the API's URLs, in the order of their numbers.
    pub fn new(templates: Vec<&'static str>) -> Self {
        let started = Process::read().and_then(|process| process.start_time());
        Self { api: ApiCounts::new(templates), started, turn: Mutex::default() }
    }
}

/// The text that Prometheus scrapes.
///
/// # Errors
/// A sample that cannot be written as text: a mistake in this module.
pub async fn render(ports: Arc<Ports>) -> Result<String, prometheus::Error> {
    let metrics = Arc::clone(&ports.metrics);
    let _turn = metrics.turn.lock().await;
    let lags = lags(&ports).await;
    // A file system may take its time to say how much it has left.
    let page = spawn_blocking(move || {
        let mut page = Page::default();
        sources::show(&mut page, &ports, &lags);
        page.text()
    });
    page.await.map_err(|error| prometheus::Error::Msg(error.to_string()))?
}

async fn lags(ports: &Ports) -> Vec<Lag> {
    let now = ports.clock.now();
    let mut lags = Vec::new();
    for follower in ports.views.followers() {
        let head = *ports.log.head().borrow();
        let reached = follower.reached();
        let positions = head.saturating_sub(reached);
        let seconds = if positions == 0 {
            Some(0.0)
        } else {
            // Its age and not the time since the view was level: under load a view is always a little behind.
            let next = ports.log.read_all(reached, follower.families(), 1);
            let next = timeout(LOOK_PATIENCE, next).await.ok().and_then(Result::ok);
            next.map(|next| {
                next.first().map_or(0.0, |it| (now.millis() - it.recorded_at.millis()).max(0) as f64 / 1e3)
            })
        };
        lags.push(Lag { view: follower.name(), reached, positions, seconds });
    }
    lags
}

#[cfg(test)]
mod tests;
