//! gRPC as a target and as a visitor, by Debian's python3-grpcio.

use std::{net::SocketAddr, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use super::{start_on_free_port, succeeds};
use crate::{ports::loopback, process::Process};

/// Debian's own Python, which has Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

/// A running server, and the client beside it.
#[derive(Debug)]
pub struct Grpc {
    pub address: SocketAddr,
    pub process: Process,
    folder: TempDir,
}

impl Grpc {
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pc-grpc-").tempdir().expect("a temporary folder");
        for (name, program) in [
            ("grpc_server.py", include_str!("grpc_server.py")),
            ("grpc_client.py", include_str!("grpc_client.py")),
        ] {
            std::fs::write(folder.path().join(name), program).expect("the folder is ours");
        }
        let (process, port) = start_on_free_port("gRPC server", &|port| {
            let mut command = Command::new(PYTHON);
            command.arg("-u").arg(folder.path().join("grpc_server.py")).arg(port.to_string());
            command
        });
        Self { address: loopback(port), process, folder }
    }

    /// The client on its way to a share: the edge's address, the share's host, and what to do.
    pub fn client(&self, edge: SocketAddr, host: &str, words: &[&str]) -> Command {
        let mut command = Command::new(PYTHON);
        command
            .arg("-u")
            .arg(self.folder.path().join("grpc_client.py"))
            .arg(edge.to_string())
            .arg(host)
            .args(words);
        command
    }

    /// Runs the client to its end; what it saw.
    #[track_caller]
    pub fn call(&self, edge: SocketAddr, host: &str, words: &[&str]) -> Value {
        let said = succeeds(&mut self.client(edge, host, words));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}
