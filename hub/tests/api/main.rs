//! The Control API against a whole hub in the test's process: status, body and what became of it in the log.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its hub has nothing to say")]

mod agents;
mod docs;
mod every_route;
mod examples;
mod health;
mod if_match;
mod keys;
mod long_ended;
mod matrix;
mod methods;
mod shapes;
mod support;
mod tunnels;
mod world;
