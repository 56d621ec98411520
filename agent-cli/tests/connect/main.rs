//! The built `connect`, run as people run it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod command_line;
mod several_processes;
mod support;
