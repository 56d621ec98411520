//! A machine with `connect` on it: its own home and configuration, so that it is another agent than the next machine.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Hub, api, binaries::binary, hub::ADMIN_KEY, ports, process::Process, wait::SOON};

/// How long `connect` may take until it says that it is done: it logs in, connects and is confirmed.
const READY: Duration = Duration::from_secs(30);

/// A machine. Dropping it deletes its home; its `connect` processes have handles of their own.
#[derive(Debug)]
pub struct Machine {
    home: TempDir,
    hub_url: String,
    key: String,
    /// What `CONNECT_CA` names.
    ca: Option<PathBuf>,
}

/// A running `connect expose`.
#[derive(Debug)]
pub struct Exposed {
    pub process: Process,
    /// The `exposed` line: `service` with `id`, `name`, `tunnelPort`; with `--link` also `share` with `shareUrl`.
    pub says: Value,
}

impl Exposed {
    #[track_caller]
    pub fn tunnel_id(&self) -> String {
        api::text(&self.says["service"], "id")
    }
    #[track_caller]
    pub fn tunnel_port(&self) -> u16 {
        api::port(&self.says["service"], "tunnelPort")
    }
}

/// A running `connect reach`.
#[derive(Debug)]
pub struct Reached {
    pub process: Process,
    pub local_port: u16,
}

impl Machine {
    /// A machine that knows the hub's address and key.
    pub fn new(hub: &Hub) -> Self {
        Self::with(&hub.url(), ADMIN_KEY)
    }

    /// The same for any hub.
    pub fn with(hub_url: &str, key: &str) -> Self {
        let home = tempfile::Builder::new().prefix("pc-home-").tempdir().expect("a temporary folder");
        Self { home, hub_url: hub_url.to_owned(), key: key.to_owned(), ca: None }
    }

    /// The same machine, believing the authority in a file.
    #[must_use]
    pub fn believing(mut self, ca: &Path) -> Self {
        self.ca = Some(ca.to_owned());
        self
    }

    /// The same machine, believing what the system does.
    #[must_use]
    pub fn believing_the_system(mut self) -> Self {
        self.ca = None;
        self
    }

    /// `connect --hub URL ARGUMENTS...` on this machine.
    pub fn connect(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("connect"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if ["CONNECT_", "PRIVATECONNECT_", "XDG_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        for (variable, folder) in [
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_DATA_HOME", "share"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_RUNTIME_DIR", "run"),
        ] {
            let path = self.home.path().join(folder);
            std::fs::create_dir_all(&path).expect("the home is ours");
            command.env(variable, path);
        }
        command.env("HOME", self.home.path()).env("PRIVATECONNECT_TOKEN", &self.key).env("NO_COLOR", "1");
        if let Some(ca) = &self.ca {
            command.env("CONNECT_CA", ca);
        }
        command.current_dir(self.home.path()).args(["--hub", &self.hub_url]).args(arguments);
        command
    }

    /// Runs a command that ends.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.connect(arguments).output().expect("connect can be started")
    }

    /// Exposes a target under a name and waits for the confirmation.
    #[track_caller]
    pub fn expose(&self, target: SocketAddr, name: &str) -> Exposed {
        self.expose_with(target, name, &[])
    }

    /// The same with further flags.
    #[track_caller]
    pub fn expose_with(&self, target: SocketAddr, name: &str, flags: &[&str]) -> Exposed {
        let target = target.to_string();
        let mut arguments = vec!["--json", "expose", &target, "--name", name];
        arguments.extend_from_slice(flags);
        let process = Process::spawn("connect expose", &mut self.connect(&arguments));
        let says = process.line("`exposed`", READY, |line| event(line, "exposed"));
        Exposed { process, says }
    }

    /// Reaches a service on a free local port and waits until it listens.
    #[track_caller]
    pub fn reach(&self, name: &str) -> Reached {
        let port = ports::free_port().to_string();
        let arguments = ["--json", "reach", name, "--port", &port];
        let process = Process::spawn("connect reach", &mut self.connect(&arguments));
        let says = process.line("`reaching`", READY, |line| event(line, "reaching"));
        Reached { process, local_port: api::port(&says, "localPort") }
    }

    /// `connect up`: stays connected and restores saved tunnels.
    #[track_caller]
    pub fn up(&self) -> Process {
        let process = Process::spawn("connect up", &mut self.connect(&["--json", "up"]));
        process.line("its first line of JSON", SOON, |line| serde_json::from_str::<Value>(line).ok());
        process
    }
}

/// A line of JSON with that `event`.
fn event(line: &str, name: &str) -> Option<Value> {
    serde_json::from_str::<Value>(line).ok().filter(|value| value["event"] == name)
}
