//! Waiting: for a value, with a deadline, and with the last thing seen in the message.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// How long a thing may take that should take no time, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Tries until `attempt` succeeds and answers its value; panics with the last refusal after `limit`.
#[track_caller]
pub fn eventually<T, E: Display>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(last) if begun.elapsed() >= limit => {
                panic!("{what}: not within {:.1} s; last seen: {last}", limit.as_secs_f64())
            }
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}
