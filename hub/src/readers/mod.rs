//! The readers of the log: each has a view, a runner and a checkpoint of its own, and none can hold up a writer.
//!
//! | view | shows | kept in | comes back by |
//! |---|---|---|---|
//! | [`projections::routes::Routes`] | what request paths read | memory | [`load_routes`], at every start |
//! | [`projections::catalog::Catalog`] | lists | `<data>/views/catalog/` | its checkpoint; from zero when it does not fit |
//! | [`projections::access_log::AccessLog`] | what visitors did | `<data>/views/accesses/` | the same |
//! | [`projections::audit::Audit`] | where every event stands | `<data>/views/audit/` | the same |
//! | [`projections::deliveries::Deliveries`] | what became of webhooks' messages | `<data>/views/deliveries/` | the same |
//!
//! Nothing exists only in a view. Whoever needs to see what was just written waits for its position
//! ([`Views::wait_for_catalog`]); nobody else waits for a view.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use domain::recorded::{Families, Family};
use parking_lot::Mutex;
use projections::{
    access_log::{AccessLog, AccessLogReader},
    audit::{Audit, AuditReader},
    catalog::{Catalog, CatalogReader},
    deliveries::{Deliveries, DeliveriesReader},
    routes::Routes,
    view::{Applied, KeptView, View, ViewError},
};
use tokio::sync::watch;
use uuid::Uuid;

use crate::event_log::{ReadError, SharedLog};

pub mod former;
pub mod rebuild;
pub mod runner;

use runner::{Follower, Pace, Runner};

/// Facts are small: this many at once are some hundred kilobytes, and a commit's cost is spread thin.
const FACTS: Pace = Pace { batch: 2_000, linger: Duration::ZERO };
/// A packed event of accesses takes up to 16 KiB, so a batch up to 4 MiB. A visit is in nobody's way until somebody
/// looks: waiting a little makes larger and fewer commits, and who looks does not wait.
const ACCESSES: Pace = Pace { batch: 256, linger: Duration::from_millis(150) };
/// Packed accesses are among them, of which only the place is kept. Who follows events waits a second at most; a burst
/// of visits should not be as many commits.
const EVERYTHING: Pace = Pace { batch: 1_024, linger: Duration::from_millis(25) };
/// A packed event of deliveries has up to some hundred messages.
const DELIVERIES: Pace = Pace { batch: 256, linger: Duration::from_millis(150) };
/// Facts read at once when routes are loaded.
const LOAD_BATCH: usize = 4_096;

/// Why a reader could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error("the folder of the views cannot be used: {0}")]
    Files(#[from] std::io::Error),
}

/// The folder of all views.
pub fn views_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("views")
}

/// Folds every fact into routes. Answers them with the position of the last fact, from which [`Views::start`] goes on.
///
/// # Errors
/// The log cannot be read.
pub async fn load_routes(log: &SharedLog) -> Result<(Routes, u64), ReadError> {
    let routes = Routes::default();
    let (mut position, mut skipped) = (0, 0_u64);
    loop {
        let batch = log.read_all(position, Families::only(Family::Facts), LOAD_BATCH).await?;
        let Some(last) = batch.last() else { break };
        position = last.position;
        for recorded in &batch {
            let event = recorded.event().ok();
            skipped += u64::from(event.is_none());
            routes.apply_next(recorded, event.as_ref());
        }
    }
    if skipped > 0 {
        tracing::warn!(skipped, "the log has facts that this build does not know");
    }
    Ok((routes, position))
}

/// Applies facts to routes after the start, in log order; whoever decided them has applied them already.
#[derive(Debug)]
struct RoutesReader {
    routes: Arc<Routes>,
    position: u64,
}

impl View for RoutesReader {
    const NAME: &'static str = "routes";
    const FAMILIES: Families = Families::only(Family::Facts);

    fn checkpoint(&self) -> u64 {
        self.position
    }
    fn apply(&mut self, batch: &[Applied]) -> Result<(), ViewError> {
        for (recorded, event) in batch {
            self.routes.apply_next(recorded, event.as_ref());
            self.position = recorded.position;
        }
        Ok(())
    }
}

/// The readers of a running hub.
#[derive(Debug)]
pub struct Views {
    catalog: CatalogReader,
    accesses: AccessLogReader,
    audit: AuditReader,
    deliveries: DeliveriesReader,
    follows_catalog: Follower,
    follows_accesses: Follower,
    follows_audit: Follower,
    follows_deliveries: Follower,
    follows_routes: Follower,
    runners: Mutex<Vec<Runner>>,
}

impl Views {
    /// Opens the views and lets each follow the log on a task of its own. A view of another log, or one that claims
    /// to have seen more than the log holds, begins anew. Call it on a tokio runtime.
    ///
    /// # Errors
    /// A view's folder cannot be written.
    pub fn start(
        data_dir: &Path,
        log: &SharedLog,
        routes: Arc<Routes>,
        routes_position: u64,
    ) -> Result<Self, ReaderError> {
        let folder = views_dir(data_dir);
        std::fs::create_dir_all(&folder)?;
        rebuild::tidy(&folder)?;
        let head = *log.head().borrow();
        let catalog: Catalog = open(&folder, log.log_id(), head)?;
        let accesses: AccessLog = open(&folder, log.log_id(), head)?;
        let audit: Audit = open(&folder, log.log_id(), head)?;
        let deliveries: Deliveries = open(&folder, log.log_id(), head)?;
        let routes = RoutesReader { routes, position: routes_position };
        let (catalog_reader, accesses_reader) = (catalog.reader(), accesses.reader());
        let (audit_reader, deliveries_reader) = (audit.reader(), deliveries.reader());
        let runners = [
            Runner::start(Arc::clone(log), routes, FACTS),
            Runner::start(Arc::clone(log), catalog, FACTS),
            Runner::start(Arc::clone(log), accesses, ACCESSES),
            Runner::start(Arc::clone(log), audit, EVERYTHING),
            Runner::start(Arc::clone(log), deliveries, DELIVERIES),
        ];
        let [follows_routes, follows_catalog, follows_accesses, follows_audit, follows_deliveries] =
            runners.each_ref().map(|runner| runner.follower().clone());
        Ok(Self {
            catalog: catalog_reader,
            accesses: accesses_reader,
            audit: audit_reader,
            deliveries: deliveries_reader,
            follows_catalog,
            follows_accesses,
            follows_audit,
            follows_deliveries,
            follows_routes,
            runners: Mutex::new(runners.into()),
        })
    }

    /// A handle for questions about agents, tunnels, shares and keys.
    pub fn catalog(&self) -> CatalogReader {
        self.catalog.clone()
    }
    /// A handle for questions about accesses.
    pub fn accesses(&self) -> AccessLogReader {
        self.accesses.clone()
    }
    /// A handle for questions about where events stand.
    pub fn audit(&self) -> AuditReader {
        self.audit.clone()
    }

    /// A handle for questions about webhooks' deliveries.
    pub fn deliveries(&self) -> DeliveriesReader {
        self.deliveries.clone()
    }

    /// Waits until the delivery log shows everything up to a position; `false` when it does not after `patience`.
    pub async fn wait_for_deliveries(&self, position: u64, patience: Duration) -> bool {
        self.follows_deliveries.wait_for(position, patience).await
    }
    /// Waits until lists show everything up to a position; `false` when they do not after `patience`.
    pub async fn wait_for_catalog(&self, position: u64, patience: Duration) -> bool {
        self.follows_catalog.wait_for(position, patience).await
    }
    /// Waits until the access log shows everything up to a position; `false` when it does not after `patience`.
    pub async fn wait_for_accesses(&self, position: u64, patience: Duration) -> bool {
        self.follows_accesses.wait_for(position, patience).await
    }
    /// Waits until the audit shows everything up to a position; `false` when it does not after `patience`.
    pub async fn wait_for_audit(&self, position: u64, patience: Duration) -> bool {
        self.follows_audit.wait_for(position, patience).await
    }
    /// Shows, watched, up to which position the audit has everything.
    pub fn audited(&self) -> watch::Receiver<u64> {
        self.follows_audit.watch()
    }
    /// Waits until routes have what every node wrote up to a position; `false` when they do not after `patience`.
    pub async fn wait_for_routes(&self, position: u64, patience: Duration) -> bool {
        self.follows_routes.wait_for(position, patience).await
    }

    /// How each reader follows, for metrics: name and follower.
    pub fn followers(&self) -> [&Follower; 5] {
        [
            &self.follows_routes,
            &self.follows_catalog,
            &self.follows_accesses,
            &self.follows_audit,
            &self.follows_deliveries,
        ]
    }

    /// Whether every view follows the log; if not, which does not and why (for `/readyz`).
    ///
    /// # Errors
    /// The first view in trouble and what it said.
    pub fn health(&self) -> Result<(), String> {
        for follower in self.followers() {
            if let Some(trouble) = follower.trouble() {
                return Err(format!("{}: {trouble}", follower.name()));
            }
        }
        Ok(())
    }

    /// Stops every reader after the batch that it works on, and closes the files. Idempotent.
    pub async fn stop(&self) {
        let runners = std::mem::take(&mut *self.runners.lock());
        for runner in &runners {
            runner.tell_to_stop();
        }
        for runner in runners {
            runner.stop().await;
        }
    }
}

/// Opens a view that is true to the log up to its checkpoint, whatever lay in its folder.
fn open<V: KeptView>(views: &Path, log_id: Uuid, head: u64) -> Result<V, ReaderError> {
    let folder = views.join(V::NAME);
    let view = V::open(&folder, log_id)?;
    if view.checkpoint() <= head {
        return Ok(view);
    }
    tracing::warn!(
        view = V::NAME,
        checkpoint = view.checkpoint(),
        head,
        "the view has seen more than the log holds; it is filled again"
    );
    drop(view);
    std::fs::remove_dir_all(&folder)?;
    Ok(V::open(&folder, log_id)?)
}

#[cfg(test)]
mod tests;
