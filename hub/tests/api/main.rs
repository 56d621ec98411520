//! The Control API against a whole hub in the test's process: status, body and what became of it in the log.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its hub has nothing to say")]

mod access_logs;
mod agent_commands;
mod agent_messages;
mod agent_upkeep;
mod agents;
mod device;
mod docs;
mod environments;
mod every_route;
mod examples;
mod health;
mod if_match;
mod keys;
mod long_ended;
mod machines;
mod matrix;
mod methods;
mod services;
mod shapes;
mod support;
mod tunnels;
mod webhooks;
mod world;
