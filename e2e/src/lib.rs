//! The harness of the end-to-end tests: real hubs, agents and servers, each on ports and in directories of its own.
//!
//! Invariants: every process is killed when its handle is dropped; no port is fixed; nothing waits without a deadline;
//! the HTTP client is our own few lines on a socket, so that what is sent and received is exactly what is written.
//! A panic is how the harness reports: it stands in a test.

pub mod agent;
pub mod api;
pub mod binaries;
pub mod browser;
pub mod conversations;
pub mod faketime;
pub mod http;
pub mod hub;
pub mod path_cases;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod smuggling_cases;
pub mod targets;
pub mod tls;
pub mod wait;
pub mod webhook_receiver;

pub use agent::Machine;
pub use api::Api;
pub use hub::Hub;
pub use wait::eventually;
