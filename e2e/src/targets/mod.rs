//! What tunnels lead to: servers of Debian packages, started on free ports in temporary folders.

use std::{
    net::TcpStream,
    process::{Command, Output},
};

use crate::{ports, process::Process, wait::SOON, wait::eventually};

mod bodies;
mod certificate;
mod dnsmasq;
mod grpc;
mod haproxy;
mod nginx;
mod pebble;
mod postgres;
mod redis;
mod understood;
mod websockets;

pub use bodies::Bodies;
pub use certificate::Certificate;
pub use dnsmasq::Dnsmasq;
pub use grpc::Grpc;
pub use haproxy::Haproxy;
pub use nginx::{Logged, Nginx};
pub use pebble::Pebble;
pub use postgres::Postgres;
pub use redis::Redis;
pub use understood::Understood;
pub use websockets::WebSockets;

/// How often a server is started anew when somebody else took its port first.
const TRIES: u32 = 5;

/// Starts a server that must be told its port: tries others when the port was taken meanwhile.
#[track_caller]
pub(crate) fn start_on_free_port(name: &str, command: &dyn Fn(u16) -> Command) -> (Process, u16) {
    let mut last = String::new();
    for _ in 0..TRIES {
        let port = ports::free_port();
        match started(name, port, command) {
            Ok(process) => return (process, port),
            Err(said) => last = said,
        }
    }
    panic!("{name} did not start in {TRIES} tries\n{last}");
}

/// Starts a server on a port that it must have.
#[track_caller]
fn start_on(name: &str, port: u16, command: &dyn Fn(u16) -> Command) -> Process {
    started(name, port, command).unwrap_or_else(|said| panic!("{name} did not start\n{said}"))
}

/// What it said instead, when it ended.
#[track_caller]
fn started(name: &str, port: u16, command: &dyn Fn(u16) -> Command) -> Result<Process, String> {
    let mut process = Process::spawn(name, &mut command(port));
    let ready = eventually(&format!("{name} to listen"), SOON, || {
        if process.ended().is_some() {
            return Ok(false);
        }
        TcpStream::connect(ports::loopback(port)).map(|_| true)
    });
    if ready { Ok(process) } else { Err(process.output()) }
}

/// Runs a client to its end; panics with its output unless it succeeds.
#[track_caller]
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", crate::hub::shown(&output));
    text(&output)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
