//! A target that gives and takes bodies of any length, and says what they were.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{start_on_free_port, succeeds};
use crate::{ports::loopback, process::Process};

/// The running target, and the program that makes and sums what it gives.
#[derive(Debug)]
pub struct Bodies {
    pub address: SocketAddr,
    program: PathBuf,
    _process: Process,
    _folder: TempDir,
}

impl Bodies {
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pc-bodies-").tempdir().expect("a temporary folder");
        let program = folder.path().join("bodies.py");
        std::fs::write(&program, include_str!("bodies.py")).expect("the folder is ours");
        let (process, port) = start_on_free_port("bodies.py", &|port| {
            let mut command = Command::new("python3");
            command.arg("-u").arg(&program).arg("serve").arg(port.to_string());
            command
        });
        Self { address: loopback(port), program, _process: process, _folder: folder }
    }

    /// Length and sum of the body of that length.
    #[track_caller]
    pub fn sum(&self, length: u64) -> String {
        shell(&format!("python3 {0} make {length} | python3 {0} sum", shown(&self.program)))
    }

    /// Length and sum of what `curl` with these words downloads.
    #[track_caller]
    pub fn sum_of_download(&self, curl: &str) -> String {
        shell(&format!("curl -sS --fail {curl} | python3 {} sum", shown(&self.program)))
    }

    /// What the target says of the body of that length, uploaded by `curl` with these words; nobody says its length
    /// beforehand.
    #[track_caller]
    pub fn upload(&self, length: u64, curl: &str) -> String {
        shell(&format!("python3 {} make {length} | curl -sS --fail -T - {curl}", shown(&self.program)))
    }

    /// The same of an upload whose length is said beforehand.
    #[track_caller]
    pub fn upload_of_known_length(&self, length: u64, curl: &str) -> String {
        let file = self.program.with_extension("upload");
        let (make, file) = (format!("python3 {} make {length}", shown(&self.program)), shown(&file));
        shell(&format!("{make} >{file} && curl -sS --fail -T {file} {curl}"))
    }
}

fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}

/// Runs a line whose every part must succeed.
#[track_caller]
fn shell(line: &str) -> String {
    succeeds(Command::new("bash").args(["-o", "pipefail", "-c", line])).trim().to_owned()
}
