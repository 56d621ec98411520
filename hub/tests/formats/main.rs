//! What a log holds, from release to release: golden logs of every one open, and a later one is refused in words.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its log has nothing to say")]

mod golden_logs;
mod later;
mod support;
mod upgrade;
