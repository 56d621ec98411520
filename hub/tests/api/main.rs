//! The Control API against a whole hub in the test's process: status, body and what became of it in the log.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its hub has nothing to say")]

mod access_logs;
mod agent_commands;
mod agent_messages;
mod agent_upkeep;
mod agents;
mod audit;
mod device;
mod docs;
mod environments;
mod events;
mod every_route;
mod examples;
mod guesses;
mod health;
mod history;
mod if_match;
mod keys;
mod long_ended;
mod machines;
mod matrix;
mod methods;
mod retention;
mod services;
mod shapes;
mod support;
mod tunnels;
mod webhooks;
mod world;
