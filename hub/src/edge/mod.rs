//! The share edge: visitors' requests to links, checked, proxied through agents' streams, and recorded.
//!
//! One thread and runtime per core, each with its own listener, connections and kept upstream connections; what they
//! share is read without locks (`Routes`) or counted (`limits`, `metrics`). Modules in the order of a request's way.

pub mod options;
pub mod server;

mod conn;
mod frame_meter;
mod head_scan;
mod visitor_io;

mod connection;
mod http2;

mod body;
mod handshake;
mod intake;
mod route;

mod proxy;

mod exchange;
mod multiplexed;
mod trailers;
mod upload;
mod upstream;

mod banner;
mod grpc;
mod headers;
mod page;

pub mod metrics;
pub mod recorder;

pub use self::{
    banner::escape_html,
    options::{EdgeDeps, EdgeOptions, Entrance, FormerShares, PublicEndpoints, PublicPlace, PublicRequest},
    server::{Edge, start},
};
