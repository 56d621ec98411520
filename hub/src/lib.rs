//! The hub's process: all I/O of the server. Modules in reading order; no rule about the business lives here.

pub mod settings;
pub mod startup;

pub mod clock;
pub mod core;
pub mod metrics;
pub mod priority;
pub mod secrets;
pub mod telemetry;
pub mod upgrade;

pub mod event_forms;
pub mod event_log;
pub mod feed;
pub mod history;
pub mod keyring;
pub mod readers;

pub mod actors;
pub mod creation;
pub mod device_login;
pub mod diagnostics;
pub mod environments;
pub mod erasure;
pub mod health_monitor;

pub mod edge;
pub mod gateway;
pub mod limits;
pub mod links;
pub mod retention;
pub mod running;
pub mod streams;
pub mod tls;
pub mod tunnel_ports;
pub mod udp_ports;
pub mod usage;
pub mod webhooks;

pub mod api;

pub mod demo;
pub mod offline;
pub mod operator;
pub mod quickstart;
