//! The hub's process: all I/O of the server. Modules in reading order; no rule about the business lives here.

pub mod clock;
pub mod event_log;
pub mod keyring;
pub mod running;
pub mod streams;
