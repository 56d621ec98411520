//! Every rule for one engine. Compiled here for those that need nothing but Rust, and in `e2e` for PostgreSQL.

use hub::event_log::SharedLog;

use crate::rules;

/// Every rule for one engine; `new` makes a log and what it lives in.
pub(crate) async fn contract<D>(new: impl AsyncFn() -> (SharedLog, D)) {
    let (log, _dir) = new().await;
    rules::events_are_found_where_they_were_expected(log).await;
    let (log, _dir) = new().await;
    rules::every_field_comes_back(log).await;
    let (log, _dir) = new().await;
    rules::a_writer_with_another_view_gets_a_conflict(log).await;
    let (log, _dir) = new().await;
    rules::a_repeated_append_answers_like_the_first_time(log).await;
    let (log, _dir) = new().await;
    rules::an_id_is_recorded_once(log).await;
    let (log, _dir) = new().await;
    rules::one_append_sent_many_times_at_once_is_recorded_once(log).await;
    let (log, _dir) = new().await;
    rules::writers_of_different_streams_lose_and_double_nothing(log).await;
    let (log, _dir) = new().await;
    rules::writers_of_one_stream_lose_and_double_nothing(log).await;
    let (log, _dir) = new().await;
    rules::of_writers_with_one_expectation_one_wins(log).await;
    let (log, _dir) = new().await;
    rules::readers_see_every_position_in_order_while_writers_write(log).await;
    let (log, _dir) = new().await;
    rules::many_small_commits_are_read_from_wherever_one_begins(log).await;
    let (log, _dir) = new().await;
    rules::a_reader_of_some_families_gets_only_those(log).await;
    let (log, _dir) = new().await;
    rules::seq_is_gapless_in_each_workspace_and_family(log).await;
    let (log, _dir) = new().await;
    rules::recorded_time_never_runs_backwards(log).await;
    let (log, _dir) = new().await;
    rules::the_head_wakes_its_watchers_and_is_readable(log).await;
    let (log, _dir) = new().await;
    rules::an_append_beyond_the_limits_is_refused(log).await;
    let (log, _dir) = new().await;
    rules::a_closed_log_takes_no_appends(log).await;
}
