//! The hub's process: all I/O of the server. Modules in reading order; no rule about the business lives here.

pub mod actors;
pub mod clock;
pub mod event_log;
pub mod readers;
pub mod running;
pub mod secrets;
pub mod settings;
pub mod streams;
