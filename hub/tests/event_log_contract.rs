//! The contract of the event log: one set of rules for every engine, and what the embedded one must survive besides.
//! PostgreSQL keeps it in `e2e` (`external_log`), where servers are started.
#![expect(clippy::unwrap_used, reason = "tests, and helpers that only tests call")]

#[path = "event_log_contract/crashes.rs"]
mod crashes;
#[path = "event_log_contract/damage.rs"]
mod damage;
#[path = "event_log_contract/faults.rs"]
mod faults;
#[path = "event_log_contract/first_bad.rs"]
mod first_bad;
#[path = "event_log_contract/kills.rs"]
mod kills;
#[path = "event_log_contract/retirement.rs"]
mod retirement;
#[path = "event_log_contract/rules.rs"]
mod rules;
#[path = "event_log_contract/suite.rs"]
mod suite;
#[path = "event_log_contract/support.rs"]
mod support;

use std::sync::Arc;

use hub::event_log::{SharedLog, memory::Memory};

async fn memory() -> (SharedLog, ()) {
    (Arc::new(Memory::new()), ())
}

async fn segments() -> (SharedLog, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (support::open(dir.path()), dir)
}

#[tokio::test]
async fn the_memory_engine_keeps_the_contract() {
    suite::contract(memory).await;
}

#[tokio::test]
async fn the_segments_engine_keeps_the_contract() {
    suite::contract(segments).await;
}
