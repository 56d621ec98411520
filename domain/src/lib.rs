//! The rules of the hub: aggregates, events and policies, as pure functions.
//!
//! Invariants: no clock, no randomness, no I/O, no async, no `HashMap` order. Whoever needs the time or a fresh
//! id passes it in with the command. Modules in reading order.

pub mod ids;
pub mod names;
pub mod time;

pub mod event;
pub mod recorded;

pub mod agent;
pub mod agent_command;
pub mod aggregate;
pub mod claim;
pub mod delivery;
pub mod environment;
pub mod log_format;
pub mod message;
pub mod node;
pub mod share;
pub mod tunnel;
pub mod webhook;
pub mod workspace;

pub mod access;
pub mod public_events;
pub mod retention;
pub mod seal;

pub mod policy;
pub mod target;

#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
