//! Other tunnels on the same target, as far as they are installed: each a server and a client of its own on this machine.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use e2e::{
    ports::free_port,
    process::Process,
    wait::{SOON, eventually},
};
use tempfile::TempDir;

/// A tunnel of somebody else's.
pub(super) struct Peer {
    pub name: &'static str,
    pub address: SocketAddr,
    processes: [Process; 2],
    _folder: TempDir,
}

impl Peer {
    /// Server and client.
    pub(super) fn pids(&self) -> [u32; 2] {
        self.processes.each_ref().map(Process::pid)
    }
}

/// Whether rathole and its keys are encrypted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Plain,
    Noise,
}

/// Those whose programs are in `PATH` (`cargo install rathole bore-cli`), leading to `target`.
pub(super) fn installed(target: SocketAddr) -> Vec<Peer> {
    let mut peers = Vec::new();
    if has("rathole") {
        peers.push(rathole("rathole", target, Transport::Plain));
        peers.push(rathole("rathole, Noise", target, Transport::Noise));
    }
    if has("bore") {
        peers.push(bore(target));
    }
    peers
}

fn has(program: &str) -> bool {
    let help = Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
    help.is_ok()
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("pc-peer-").tempdir().expect("a temporary folder")
}

fn started(name: &'static str, command: &mut Command, port: u16) -> Process {
    let process = Process::spawn(name, command.env("RUST_LOG", "error").stdin(Stdio::null()));
    eventually(name, SOON, || std::net::TcpStream::connect(("127.0.0.1", port)).map(drop));
    process
}

fn rathole(name: &'static str, target: SocketAddr, transport: Transport) -> Peer {
    let folder = folder();
    let (control, port) = (free_port(), free_port());
    let keys = (transport == Transport::Noise).then(noise_keys);
    let section = |side: &str, key: Option<String>| {
        key.map_or_else(String::new, |key| {
            format!("[{side}.transport]\ntype = \"noise\"\n[{side}.transport.noise]\n{key}\n")
        })
    };
    let private = keys.as_ref().map(|(private, _)| format!("local_private_key = \"{private}\""));
    let public = keys.as_ref().map(|(_, public)| format!("remote_public_key = \"{public}\""));
    let server = format!(
        "[server]\nbind_addr = \"127.0.0.1:{control}\"\ndefault_token = \"bench\"\n{}[server.services.bench]\nbind_addr = \"127.0.0.1:{port}\"\n",
        section("server", private)
    );
    let client = format!(
        "[client]\nremote_addr = \"127.0.0.1:{control}\"\ndefault_token = \"bench\"\n{}[client.services.bench]\nlocal_addr = \"{target}\"\n",
        section("client", public)
    );
    let run = |flag: &str, file: &Path, config: &str, port: u16| {
        fs::write(file, config).expect("the folder is ours");
        started(name, Command::new("rathole").arg(flag).arg(file), port)
    };
    let server = run("-s", &folder.path().join("server.toml"), &server, control);
    let client = run("-c", &folder.path().join("client.toml"), &client, port);
    Peer {
        name,
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        processes: [server, client],
        _folder: folder,
    }
}

/// A private key and its public one.
fn noise_keys() -> (String, String) {
    let output = Command::new("rathole").arg("--genkey").output().expect("rathole can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |heading: &str| {
        let mut lines = text.lines().skip_while(|line| !line.contains(heading));
        lines.nth(1).expect("rathole prints each key below its heading").trim().to_owned()
    };
    (after("Private"), after("Public"))
}

fn bore(target: SocketAddr) -> Peer {
    /// It knows no other.
    const CONTROL: u16 = 7_835;
    let port = free_port();
    let mut server = Command::new("bore");
    server.args(["server", "--bind-addr", "127.0.0.1", "--bind-tunnels", "127.0.0.1"]);
    server.args(["--min-port", &port.to_string(), "--max-port", &port.to_string()]);
    let server = started("bore", &mut server, CONTROL);
    let mut client = Command::new("bore");
    client.args(["local", &target.port().to_string(), "--local-host", "127.0.0.1"]);
    let client = started("bore", client.args(["--to", "127.0.0.1", "--port", &port.to_string()]), port);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Peer { name: "bore", address, processes: [server, client], _folder: folder() }
}
