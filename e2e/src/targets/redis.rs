//! Redis as a target: in memory, on a free port.

use std::{net::SocketAddr, process::Command};

use tempfile::TempDir;

use super::start_on_free_port;
use crate::{ports::loopback, process::Process};

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    pub address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Redis {
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pc-redis-").tempdir().expect("a temporary folder");
        let (process, port) = start_on_free_port("redis-server", &|port| {
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
            command.args(["--appendonly", "no", "--dir"]).arg(folder.path());
            command
        });
        Self { address: loopback(port), _process: process, _folder: folder }
    }

    /// A client program (`redis-cli`, `redis-benchmark`) that connects to a port of the loopback.
    pub fn client(program: &str, port: u16) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        command
    }
}
