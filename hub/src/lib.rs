//! The hub's process: all I/O of the server. Modules in reading order; no rule about the business lives here.

pub mod actors;
pub mod clock;
pub mod edge;
pub mod event_log;
pub mod keyring;
pub mod limits;
pub mod running;
pub mod secrets;
pub mod settings;
pub mod streams;
