//! The agent and its command line: `connect` is a thin binary over this, the hub's quickstart uses [`agent`] alone.

pub mod agent;
