//! Actors: each owns one thing, decides about it, and nobody else does.
//!
//! | actor | owns | is told | tells | restarts |
//! |---|---|---|---|---|
//! | [`aggregate::AggregateActor`] | one aggregate's state, as a cache of its stream | `Execute` | the log, then `Routes` | on demand, by replay |
//! | `gateway::session::AgentSession` | one agent's control connection | frames, orders of the hub | the executor | by the agent's reconnect |
//! | [`timekeeper::Timekeeper`] | what falls due, and when | nothing: it reads the log | the executor | with the process |
//! | [`follower::Follower`] | the consequences of facts: ports, sessions, running streams, children's own events | nothing: it reads the log | the executor, ports, sessions | with the process |
//!
//! A refused command is a reply; stopping is for doubt. actix restarts nobody after a panic, so every long-lived actor
//! holds a [`FailFast`]: the process ends with exit code 70, the service manager starts it again, the log restores it.

pub mod aggregate;
pub mod arbiters;
pub mod executor;
pub mod follower;
pub mod timekeeper;

pub use executor::{Done, ExecuteError, Executor, Who};

/// The exit code of a process that met a bug (`EX_SOFTWARE`).
pub const EXIT_BUG: i32 = 70;

/// Ends the process when its holder is dropped by a panic.
#[derive(Debug)]
pub struct FailFast(pub &'static str);

impl Drop for FailFast {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(actor = self.0, "an actor panicked, the hub ends so that the log can restore it");
            std::process::exit(EXIT_BUG);
        }
    }
}
