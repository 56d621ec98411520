//! The hub's process: all I/O of the server. Modules in reading order; no rule about the business lives here.

pub mod settings;
pub mod startup;

pub mod core;
pub mod clock;
pub mod secrets;
pub mod telemetry;
pub mod metrics;

pub mod event_log;
pub mod keyring;
pub mod readers;

pub mod actors;
pub mod creation;

pub mod streams;
pub mod running;
pub mod limits;
pub mod gateway;
pub mod tunnel_ports;
pub mod edge;
pub mod links;

pub mod api;

pub mod demo;
pub mod offline;
pub mod quickstart;
