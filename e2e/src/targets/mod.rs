//! What tunnels lead to: servers of Debian packages, started on free ports in temporary folders.

use std::{
    net::TcpStream,
    process::{Command, Output},
};

use crate::{ports, process::Process, wait::SOON, wait::eventually};

mod bodies;
mod grpc;
mod haproxy;
mod nginx;
mod postgres;
mod redis;
mod understood;

pub use bodies::Bodies;
pub use grpc::Grpc;
pub use haproxy::Haproxy;
pub use nginx::{Logged, Nginx};
pub use postgres::Postgres;
pub use redis::Redis;
pub use understood::Understood;

/// How often a server is started anew when somebody else took its port first.
const TRIES: u32 = 5;

/// Starts a server that must be told its port: tries others when the port was taken meanwhile.
#[track_caller]
fn start_on_free_port(name: &str, command: impl Fn(u16) -> Command) -> (Process, u16) {
    let mut last = String::new();
    for _ in 0..TRIES {
        let port = ports::free_port();
        let mut process = Process::spawn(name, &mut command(port));
        let ready = eventually(&format!("{name} to listen"), SOON, || {
            if process.ended().is_some() {
                return Ok(false);
            }
            TcpStream::connect(ports::loopback(port)).map(|_| true)
        });
        if ready {
            return (process, port);
        }
        last = process.output();
    }
    panic!("{name} did not start in {TRIES} tries\n{last}");
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
