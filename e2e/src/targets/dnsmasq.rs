//! dnsmasq as a target: a name server that speaks UDP, on a free port.

use std::{net::SocketAddr, process::Command};

use super::start_on_free_port;
use crate::{ports::loopback, process::Process};

/// A running dnsmasq that knows these names alone.
#[derive(Debug)]
pub struct Dnsmasq {
    pub address: SocketAddr,
    _process: Process,
}

impl Dnsmasq {
    /// Answers these names with these addresses.
    #[track_caller]
    pub fn knowing(names: &[(&str, &str)]) -> Self {
        let (process, port) = start_on_free_port("dnsmasq", &|port| {
            let mut command = Command::new("dnsmasq");
            command.args(["--keep-in-foreground", "--log-facility=-", "--no-resolv", "--no-hosts"]);
            command.args(["--conf-file=/dev/null", "--pid-file=", "--bind-interfaces"]);
            // It would become another user, which only its full package brings.
            command.args(["--user=", "--group="]);
            command.args(["--listen-address=127.0.0.1", "--except-interface=nonexistent"]);
            command.arg(format!("--port={port}"));
            command.args(names.iter().map(|(name, address)| format!("--address=/{name}/{address}")));
            command
        });
        Self { address: loopback(port), _process: process }
    }

    /// What `dig` says over UDP alone, asked at this address.
    pub fn dig(server: SocketAddr, name: &str) -> Command {
        let mut command = Command::new("dig");
        command.args([
            "+short",
            "+notcp",
            "+ignore",
            "+tries=5",
            "+time=2",
            "-p",
            &server.port().to_string(),
        ]);
        command.arg(format!("@{}", server.ip())).arg(name);
        command
    }
}
