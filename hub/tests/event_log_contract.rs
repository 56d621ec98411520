//! The contract of the event log: one set of rules for every engine, and what the embedded one must survive besides.
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
#[path = "event_log_contract/support.rs"]
mod support;

use std::sync::Arc;

use hub::event_log::{SharedLog, memory::Memory};

fn memory() -> (SharedLog, ()) {
    (Arc::new(Memory::new()), ())
}

fn segments() -> (SharedLog, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (support::open(dir.path()), dir)
}

/// Every rule for one engine; `new` makes a log and what it lives in.
async fn contract<D>(new: impl Fn() -> (SharedLog, D)) {
    let (log, _dir) = new();
    rules::events_are_found_where_they_were_expected(log).await;
    let (log, _dir) = new();
    rules::every_field_comes_back(log).await;
    let (log, _dir) = new();
    rules::a_writer_with_another_view_gets_a_conflict(log).await;
    let (log, _dir) = new();
    rules::a_repeated_append_answers_like_the_first_time(log).await;
    let (log, _dir) = new();
    rules::an_id_is_recorded_once(log).await;
    let (log, _dir) = new();
    rules::one_append_sent_many_times_at_once_is_recorded_once(log).await;
    let (log, _dir) = new();
    rules::writers_of_different_streams_lose_and_double_nothing(log).await;
    let (log, _dir) = new();
    rules::writers_of_one_stream_lose_and_double_nothing(log).await;
    let (log, _dir) = new();
    rules::of_writers_with_one_expectation_one_wins(log).await;
    let (log, _dir) = new();
    rules::readers_see_every_position_in_order_while_writers_write(log).await;
    let (log, _dir) = new();
    rules::many_small_commits_are_read_from_wherever_one_begins(log).await;
    let (log, _dir) = new();
    rules::a_reader_of_some_families_gets_only_those(log).await;
    let (log, _dir) = new();
    rules::seq_is_gapless_in_each_workspace_and_family(log).await;
    let (log, _dir) = new();
    rules::recorded_time_never_runs_backwards(log).await;
    let (log, _dir) = new();
    rules::the_head_wakes_its_watchers_and_is_readable(log).await;
    let (log, _dir) = new();
    rules::an_append_beyond_the_limits_is_refused(log).await;
    let (log, _dir) = new();
    rules::a_closed_log_takes_no_appends(log).await;
}

#[tokio::test]
async fn the_memory_engine_keeps_the_contract() {
    contract(memory).await;
}

#[tokio::test]
async fn the_segments_engine_keeps_the_contract() {
    contract(segments).await;
}
