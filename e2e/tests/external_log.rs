//! The event log in PostgreSQL: the contract of every engine, and what this one must survive besides, with a real server
//! that is killed, cut off, taken over and meddled with.
#![expect(clippy::unwrap_used, reason = "tests, and helpers that only tests call")]

#[path = "external_log/hubs.rs"]
mod hubs;
#[path = "external_log/proxy.rs"]
mod proxy;
#[path = "../../hub/tests/event_log_contract/rules.rs"]
mod rules;
#[path = "external_log/server_goes.rs"]
mod server_goes;
#[path = "../../hub/tests/event_log_contract/suite.rs"]
mod suite;
#[path = "../../hub/tests/event_log_contract/support.rs"]
#[expect(dead_code, reason = "the embedded engine's own tests need more of it")]
mod support;
#[path = "external_log/taken.rs"]
mod taken;
#[path = "external_log/way.rs"]
mod way;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use e2e::targets;
use hub::{
    event_log::{
        SharedLog,
        postgres::{Address, OpenError, Options, Postgres},
    },
    keyring::Keyring,
};
use tempfile::TempDir;

/// As in production, but for seals in the log: tests count positions.
fn options(url: &str, folder: &Path) -> Options {
    let keyring = Arc::new(Keyring::open(&folder.join("keyring")).unwrap());
    Options {
        record_seal_every: Duration::from_secs(3_600),
        ..Options::new(Address::parse(url).unwrap(), keyring, folder.join("seals"), "test")
    }
}

async fn try_open(url: &str, folder: &Path) -> Result<Arc<Postgres>, OpenError> {
    Postgres::open(options(url, folder)).await.map(Arc::new)
}

async fn open(url: &str, folder: &Path) -> Arc<Postgres> {
    try_open(url, folder).await.unwrap()
}

/// The whole log, its chains and its seals are as they were written.
async fn verify_clean(url: &str, folder: &Path) -> hub::event_log::verify::VerifyReport {
    verify(url, folder).await.unwrap()
}

async fn verify(
    url: &str,
    folder: &Path,
) -> Result<hub::event_log::verify::VerifyReport, hub::event_log::verify::VerifyFailure> {
    let (keyring, seals) = (folder.join("keyring"), folder.join("seals"));
    hub::event_log::postgres::verify(Address::parse(url).unwrap(), &keyring, &seals, None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_postgres_engine_keeps_the_contract() {
    let server = targets::Postgres::start();
    let count = AtomicU32::new(0);
    let new = async || -> (SharedLog, TempDir) {
        let url = server.database(&format!("log_{}", count.fetch_add(1, Ordering::Relaxed)));
        let folder = tempfile::tempdir().unwrap();
        let log: SharedLog = open(&url, folder.path()).await;
        (log, folder)
    };
    suite::contract(new).await;
}
