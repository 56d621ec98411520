//! HAProxy as a target: answers everything, reads HTTP/1 strictly, and writes down what it understood.

use std::{fs, net::SocketAddr, process::Command};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Logged, start_on_free_port, understood::logged};
use crate::{ports::loopback, process::Process};

/// A running HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    pub address: SocketAddr,
    process: Process,
    _folder: TempDir,
}

impl Haproxy {
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pc-haproxy-").tempdir().expect("a temporary folder");
        let config = folder.path().join("haproxy.cfg");
        let (process, port) = start_on_free_port("haproxy", &|port| {
            fs::write(&config, configuration(port)).expect("the folder is ours");
            let mut command = Command::new("/usr/sbin/haproxy");
            command.arg("-db").arg("-f").arg(&config);
            command
        });
        Self { address: loopback(port), process: process.farewell(Signal::TERM), _folder: folder }
    }

    /// What it has answered so far, in a line each.
    pub fn log(&self) -> Vec<Logged> {
        self.process
            .stdout_lines()
            .iter()
            .filter(|line| line.starts_with('{'))
            .map(|line| logged(line))
            .collect()
    }
}

fn configuration(port: u16) -> String {
    format!(
        r#"
global
    # One thread: two that write at once lose lines.
    nbthread 1
    log stdout format raw local0
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend all
    bind 127.0.0.1:{port}
    log global
    option dontlognull
    log-format '{{"path":"%[capture.req.uri]","case":"%ST %ts"}}'
    option http-buffer-request
    http-request return status 200 content-type text/plain string ok
"#
    )
}
