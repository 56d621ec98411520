//! A backend on Python's http.server that answers everything and says which path it would serve.

use std::{net::SocketAddr, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use super::{Logged, start_on_free_port};
use crate::{ports::loopback, process::Process};

const PROGRAM: &str = include_str!("understood.py");

/// The running backend.
#[derive(Debug)]
pub struct Understood {
    pub address: SocketAddr,
    process: Process,
    _folder: TempDir,
}

impl Understood {
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pc-python-").tempdir().expect("a temporary folder");
        let program = folder.path().join("understood.py");
        std::fs::write(&program, PROGRAM).expect("the folder is ours");
        let (process, port) = start_on_free_port("python3", &|port| {
            let mut command = Command::new("python3");
            command.arg("-u").arg(&program).arg(port.to_string());
            command
        });
        Self { address: loopback(port), process, _folder: folder }
    }

    /// What it has served so far.
    pub fn log(&self) -> Vec<Logged> {
        self.process.stdout_lines().iter().map(|line| logged(line)).collect()
    }
}

/// A line of JSON with `path` and `case`.
#[track_caller]
pub(super) fn logged(line: &str) -> Logged {
    let value: Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("a line of the backend: {error}: {line}"));
    let text = |member: &str| value[member].as_str().unwrap_or_default().to_owned();
    Logged { path: text("path"), status: 200, case: text("case") }
}
