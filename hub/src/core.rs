//! The part of the hub that decides and remembers: log, keyring, current state, actors. The server is built around it;
//! the operator's offline commands need nothing else.

use std::{fmt, fs, os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use domain::{
    ids::{KeyId, WorkspaceId},
    names::Name,
    workspace::{self, KeyCreated, Scope, WorkspaceCreated},
};
use parking_lot::Mutex;
use projections::routes::Routes;
use uuid::Uuid;

use crate::{
    actors::{ExecuteError, Executor, Who, aggregate::Deps, arbiters::Arbiters},
    clock::{SharedClock, SystemClock},
    event_log::{
        SharedLog,
        place::{self, LogUrl, Place},
        postgres::{self, Address, Postgres},
        segments::{Lock, LogStats, Options, Segments},
    },
    keyring::Keyring,
    readers::load_routes,
    secrets::{Secret, SecretKind, Seed},
    upgrade::{self, Upgrade},
};

/// The workspace that the hub's first start creates.
pub const DEFAULT_WORKSPACE: &str = "default";
/// Log, keyring, state, actors.
#[derive(Debug)]
pub struct Core {
    pub clock: SharedClock,
    pub keyring: Arc<Keyring>,
    pub log: SharedLog,
    /// The log as the embedded engine has it; `None` where it is in a database.
    pub segments: Option<Arc<Segments>>,
    pub log_stats: Arc<LogStats>,
    pub routes: Arc<Routes>,
    /// How far `routes` had read when it was opened.
    pub routes_position: u64,
    pub executor: Executor,
    /// Until they are stopped.
    arbiters: Mutex<Option<Arbiters>>,
    /// The exclusive right to the data directory, where the log itself does not hold it.
    lock: Mutex<Option<Lock>>,
}

/// An open log.
struct Opened {
    log: SharedLog,
    segments: Option<Arc<Segments>>,
    log_stats: Arc<LogStats>,
    keyring: Arc<Keyring>,
    lock: Option<Lock>,
}

impl Core {
    /// Opens a data directory with its own log, creating it on first use, and folds the log's facts.
    ///
    /// # Errors
    /// The directory is in use by another hub, the log is damaged or of a later release, or the disk says no.
    pub async fn open(data: &Path) -> Result<Self> {
        Self::open_at(data, None, "operator", Arc::new(SystemClock)).await
    }

    /// The same with the log at an address, if there is one, for a node of this name, with a clock of the caller's.
    ///
    /// # Errors
    /// As [`Core::open`]; or the log's server cannot be reached, or another hub has it.
    pub async fn open_at(data: &Path, log: Option<&LogUrl>, node: &str, clock: SharedClock) -> Result<Self> {
        let place = place::of(data, log)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data)
            .with_context(|| format!("while creating the data directory {}", data.display()))?;
        let Opened { log, segments, log_stats, keyring, lock } = match place {
            Place::Embedded => open_embedded(data)?,
            Place::Postgres(address) => open_postgres(data, *address, node).await?,
        };
        let (routes, routes_position) = load_routes(&log).await.context("while reading the event log")?;
        upgrade::readable(&routes)?;
        let routes = Arc::new(routes);
        let arbiters = Arbiters::start();
        let deps = Deps { log: log.clone(), routes: Arc::clone(&routes), clock: clock.clone() };
        let executor = Executor::new(Arc::new(deps), arbiters.handles());
        Ok(Self {
            clock,
            keyring,
            log,
            segments,
            log_stats,
            routes,
            routes_position,
            executor,
            arbiters: Mutex::new(Some(arbiters)),
            lock: Mutex::new(lock),
        })
    }

    /// Stops the actors and closes the log: everything acknowledged is durable already.
    pub async fn close(&self) {
        let arbiters = self.arbiters.lock().take();
        if let Some(arbiters) = arbiters {
            arbiters.stop();
        }
        self.log.close().await;
        drop(self.lock.lock().take());
    }

    /// The workspace of a name or an id.
    pub fn workspace_named(&self, name: &str) -> Option<WorkspaceId> {
        let known = self.routes.workspaces();
        known.into_iter().find_map(|(id, entry)| {
            let created = entry.state.created.as_ref()?;
            (created.name.as_str() == name || id.to_string() == name).then_some(id)
        })
    }

    /// Creates a workspace.
    ///
    /// # Errors
    /// The name is taken or no name, or the log takes no writes.
    pub async fn create_workspace(&self, name: &str) -> Result<WorkspaceId> {
        anyhow::ensure!(self.workspace_named(name).is_none(), "a workspace named `{name}` exists");
        let name = Name::parse(name).map_err(|error| anyhow::anyhow!("a workspace's name {error}"))?;
        let id = WorkspaceId::new(Uuid::now_v7());
        let created = WorkspaceCreated { workspace_id: id, name };
        let who = Who::hub(id, "operator");
        self.executor
            .workspace(id, who, workspace::Command::Create(created))
            .await
            .map_err(not_done("the workspace was not created"))?;
        Ok(id)
    }

    /// Creates a key and answers its secret, which nobody sees again. `brought`: the secret to take instead of a new one.
    ///
    /// # Errors
    /// What the workspace refuses, or the log takes no writes.
    pub async fn create_key(
        &self,
        workspace: WorkspaceId,
        name: &str,
        scopes: Vec<Scope>,
        life_ms: Option<i64>,
        brought: Option<Secret>,
    ) -> Result<(KeyId, Secret)> {
        let now = self.clock.now();
        let secret = brought.unwrap_or_else(|| Seed::random().secret(SecretKind::ApiKey, "key"));
        let key = KeyCreated {
            key_id: KeyId::new(Uuid::now_v7()),
            name: Name::parse(name).map_err(|error| anyhow::anyhow!("a key's name {error}"))?,
            scopes,
            key_hash: secret.digest_hex(),
            prefix: secret.preview(),
            allowed_ip_ranges: Vec::new(),
            expires_at: life_ms.map(|span| now.plus_ms(span)),
        };
        let id = key.key_id;
        let command = workspace::Command::CreateKey { key, now };
        self.executor
            .workspace(workspace, Who::hub(workspace, "operator"), command)
            .await
            .map_err(not_done("the key was not created"))?;
        Ok((id, secret))
    }

    /// Makes sure that there is a workspace and a way in. `show` gets the admin key that is made, if one has to be,
    /// before the key is of any use: a start that ends early must not leave a key that nobody has seen.
    ///
    /// # Errors
    /// `admin_key` is no key, it cannot be shown, or the log takes no writes.
    pub async fn bootstrap(
        &self,
        admin_key: Option<&str>,
        show: impl FnOnce(&Secret) -> Result<()>,
    ) -> Result<()> {
        let brought = admin_key.map(checked_key).transpose()?;
        let known = self.workspace_named(DEFAULT_WORKSPACE);
        let workspace = match known {
            Some(id) => id,
            None => {
                // There is no release to go back to from a log that has just begun.
                let newest = Upgrade::of(self).raise("hub").await;
                newest.map_err(not_done("the log's format was not set"))?;
                self.create_workspace(DEFAULT_WORKSPACE).await?
            }
        };
        if let Some(secret) = brought {
            let now = self.clock.now();
            if self.routes.key(&secret.digest(), now).is_none() {
                self.create_key(workspace, "HUB_ADMIN_KEY", vec![Scope::Admin], None, Some(secret)).await?;
            }
            return Ok(());
        }
        // A crash between workspace and key must not lock everybody out.
        if self.routes.workspace(workspace).is_none_or(|entry| entry.state.keys.is_empty()) {
            let secret = Seed::random().secret(SecretKind::ApiKey, "key");
            show(&secret)?;
            self.create_key(workspace, "admin", vec![Scope::Admin], None, Some(secret)).await?;
        }
        Ok(())
    }
}

/// Why a command was not done, in words for the operator.
pub fn not_done<R: fmt::Display>(what: &'static str) -> impl FnOnce(ExecuteError<R>) -> anyhow::Error {
    move |error| match error {
        ExecuteError::Rejected(rejection) => anyhow::anyhow!("{what}: {rejection}"),
        ExecuteError::NotFound => anyhow::anyhow!("{what}: there is nothing of that id in this workspace"),
        ExecuteError::Changed => anyhow::anyhow!("{what}: it has changed meanwhile"),
        ExecuteError::Busy => anyhow::anyhow!("{what}: too many changes at once; try again"),
        ExecuteError::Unavailable(reason) | ExecuteError::Refused(reason) => {
            anyhow::anyhow!("{what}: {reason}")
        }
        ExecuteError::InDoubt(reason) => {
            anyhow::anyhow!("it is not known whether it was done, look before trying again: {reason}")
        }
    }
}

fn open_embedded(data: &Path) -> Result<Opened> {
    // First: opening the keyring mends its end, where a running hub may be writing.
    let lock = Segments::lock(data).context("while opening the event log")?;
    let keyring = Arc::new(Keyring::open(&data.join("keyring")).context("while opening the keyring")?);
    let segments = Segments::open_locked(lock, data, Options::new(Arc::clone(&keyring)))
        .context("while opening the event log")?;
    let segments = Arc::new(segments);
    let log_stats = segments.stats();
    Ok(Opened { log: segments.clone(), segments: Some(segments), log_stats, keyring, lock: None })
}

async fn open_postgres(data: &Path, address: Address, node: &str) -> Result<Opened> {
    let lock = Segments::lock(data).context("while opening the data directory")?;
    let keyring = Arc::new(Keyring::open(&data.join("keyring")).context("while opening the keyring")?);
    let (server, seals) = (address.to_string(), place::seals_folder(data));
    let log_id = place::bound_to(data)?;
    let options =
        postgres::Options { log_id, ..postgres::Options::new(address, Arc::clone(&keyring), seals, node) };
    let log = Arc::new(Postgres::open(options).await?);
    let shared: SharedLog = log.clone();
    if let Err(error) = place::bind(data, shared.log_id(), &server) {
        shared.close().await;
        return Err(error.into());
    }
    Ok(Opened { log_stats: log.stats(), log: shared, segments: None, keyring, lock: Some(lock) })
}

/// A key that the operator brings must be as strong as one that the hub makes.
fn checked_key(text: &str) -> Result<Secret> {
    let rest = text.strip_prefix(SecretKind::ApiKey.prefix()).unwrap_or_default();
    let plain = rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    anyhow::ensure!(
        rest.len() >= 43 && plain,
        "HUB_ADMIN_KEY must be `pc_` and 43 or more URL-safe characters (256 random bits)"
    );
    Ok(Secret::brought(text))
}
