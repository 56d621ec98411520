//! A hub under test: started on ports of its choice, killed, restarted on the same data and ports.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Api, api, binaries::binary, ports::PortWindow, process::Process, targets::succeeds, wait::SOON};

/// The key that every hub under test accepts: `pc_` and 43 characters (product.md section 1).
pub const ADMIN_KEY: &str = "pc_end-to-end-tests-use-this-key-and-no-other-0";

/// How many tunnel ports a hub gets.
const TUNNEL_PORTS: u16 = 63;

/// A hub and its data directory.
#[derive(Debug)]
pub struct Hub {
    pub api_address: SocketAddr,
    pub edge_address: SocketAddr,
    /// `http`, or `https` where its settings have a certificate.
    pub api_scheme: String,
    pub edge_scheme: String,
    process: Process,
    settings: Vec<(String, String)>,
    data: PathBuf,
    _folder: TempDir,
    _ports: PortWindow,
}

impl Hub {
    /// A hub whose limits per minute are off: the tests are busier than any caller.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further `HUB_...` variables.
    #[track_caller]
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_at("127.0.0.1:0", "127.0.0.1:0", settings)
    }

    /// The same at these addresses of API and edge.
    #[track_caller]
    pub fn start_at(api: &str, edge: &str, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("pc-hub-").tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        Self::on(data, folder, [api, edge], settings)
    }

    /// A hub on data that somebody else made; the data stays when the hub is dropped.
    #[track_caller]
    pub fn start_on(data: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("pc-hub-").tempdir().expect("a temporary folder");
        let data = data.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", data.display()));
        Self::on(data, folder, ["127.0.0.1:0"; 2], &[])
    }

    #[track_caller]
    fn on(data: PathBuf, folder: TempDir, [api, edge]: [&str; 2], settings: &[(&str, &str)]) -> Self {
        let ports = PortWindow::take(TUNNEL_PORTS);
        let mut all = vec![
            ("HUB_ADMIN_KEY".to_owned(), ADMIN_KEY.to_owned()),
            ("HUB_TUNNEL_PORTS".to_owned(), ports.setting()),
        ];
        for limit in ["PUBLIC", "KEY", "SHARE"] {
            all.push((format!("HUB_LIMIT_{limit}_PER_MIN"), "0".to_owned()));
        }
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let (process, [(api_scheme, api_address), (edge_scheme, edge_address)]) =
            serve(&data, api, edge, &all);
        Self {
            api_address,
            edge_address,
            api_scheme,
            edge_scheme,
            process,
            settings: all,
            data,
            _folder: folder,
            _ports: ports,
        }
    }

    /// Where its data is: log, views, state, keyring.
    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// As agents name it.
    pub fn url(&self) -> String {
        format!("{}://{}", self.api_scheme, self.api_address)
    }

    /// The Control API with the admin key.
    pub fn api(&self) -> Api {
        Api { address: self.api_address, key: ADMIN_KEY.to_owned() }
    }

    /// Any signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// SIGTERM, and how it ended.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait(Duration::from_secs(40))
    }

    /// Starts it again after its end, with the same data, settings and addresses.
    #[track_caller]
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same with further settings, from now on.
    #[track_caller]
    pub fn restart_with(&mut self, settings: &[(&str, &str)]) {
        assert!(self.process.ended().is_some(), "the hub is still running");
        self.settings.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let (api, edge) = (self.api_address.to_string(), self.edge_address.to_string());
        let (process, [(_, api), (_, edge)]) = serve(&self.data, &api, &edge, &self.settings);
        assert_eq!((api, edge), (self.api_address, self.edge_address), "the addresses were given");
        self.process = process;
    }

    /// `hub ARGUMENTS... --data DIR` on this data, run to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = hub_command(&self.settings);
        command.args(arguments).arg("--data").arg(self.data()).output().expect("the hub can be started")
    }

    /// `hub verify` must find nothing.
    #[track_caller]
    pub fn verify_clean(&self) {
        let verified = self.run(&["verify"]);
        assert_eq!(verified.status.code(), Some(0), "hub verify: {}", shown(&verified));
    }

    /// The views rebuilt from the log must equal the kept ones.
    #[track_caller]
    pub fn views_equal_rebuilt_ones(&self) {
        let checked = self.run(&["rebuild", "--check"]);
        assert_eq!(checked.status.code(), Some(0), "hub rebuild --check: {}", shown(&checked));
    }

    /// Puts other data in place of its own, while it is stopped.
    #[track_caller]
    pub fn replace_data(&mut self, data: &Path) {
        assert!(self.process.ended().is_some(), "the hub is still running");
        std::fs::remove_dir_all(self.data()).expect("the folder is ours");
        succeeds(Command::new("cp").arg("-a").arg(data).arg(self.data()));
    }

    /// The process, as the system numbers it.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }

    /// What it said on stderr since its last start.
    pub fn stderr(&self) -> String {
        self.process.stderr_lines().join("\n")
    }

    /// A hub that should refuse to start with these settings: how it ended, and its words.
    #[track_caller]
    pub fn refused(api: &str, edge: &str, settings: &[(&str, &str)]) -> (ExitStatus, String) {
        let folder = tempfile::Builder::new().prefix("pc-hub-").tempdir().expect("a temporary folder");
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut process =
            Process::spawn("hub", &mut serve_command(&folder.path().join("data"), api, edge, &settings));
        let status = process.wait(SOON);
        (status, process.stderr_lines().join("\n"))
    }

    /// Another hub process on the same data, which should refuse; run to its end.
    #[track_caller]
    pub fn second(&self) -> (ExitStatus, String) {
        let mut process = Process::spawn(
            "second hub",
            &mut serve_command(&self.data, "127.0.0.1:0", "127.0.0.1:0", &self.settings),
        );
        let status = process.wait(SOON);
        (status, process.stderr_lines().join("\n"))
    }
}

/// Both outputs of a finished command, for messages.
pub fn shown(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n--- stdout ---\n{out}\n--- stderr ---\n{err}", output.status)
}

/// The hub's binary without any setting of the caller's environment.
pub fn hub_command(settings: &[(String, String)]) -> Command {
    let mut command = without_settings(binary("hub"));
    command.envs(settings.iter().map(|(name, value)| (name, value))).env("NO_COLOR", "1");
    command
}

/// A program that may start hubs, the same way.
pub fn without_settings(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HUB_") {
            command.env_remove(name);
        }
    }
    command
}

fn serve_command(data: &Path, api: &str, edge: &str, settings: &[(String, String)]) -> Command {
    let mut command = hub_command(settings);
    command.arg("serve").arg("--data").arg(data);
    command.args(["--listen", api, "--edge-listen", edge]);
    command
}

#[track_caller]
fn serve(
    data: &Path,
    api: &str,
    edge: &str,
    settings: &[(String, String)],
) -> (Process, [(String, SocketAddr); 2]) {
    let process = Process::spawn("hub", &mut serve_command(data, api, edge, settings));
    let listens = process.line("`listening api=... edge=...`", SOON, listening);
    (process, listens)
}

/// Reads the one line that a hub prints when it is ready.
fn listening(line: &str) -> Option<[(String, SocketAddr); 2]> {
    let mut words = line.strip_prefix("listening ")?.split(' ');
    let mut next = |name: &str| {
        let (scheme, address) = words.next()?.strip_prefix(name)?.split_once("://")?;
        Some((scheme.to_owned(), address.parse().ok()?))
    };
    Some([next("api=")?, next("edge=")?])
}

/// `hub quickstart --json` in a folder of its own.
#[derive(Debug)]
pub struct Quickstart {
    pub process: Process,
    /// `api`, `edge`, `adminKey`, `agentId`, `tunnelId`, `shareId`, `shareUrl`, `subdomainUrl`.
    pub says: serde_json::Value,
    _folder: TempDir,
    _ports: PortWindow,
}

impl Quickstart {
    /// Starts it, with a target or with the built-in demo site.
    #[track_caller]
    pub fn start(target: Option<&str>) -> Self {
        Self::start_with(target, &[])
    }

    /// The same with further `HUB_...` variables.
    #[track_caller]
    pub fn start_with(target: Option<&str>, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("pc-quickstart-").tempdir().expect("a temporary folder");
        let ports = PortWindow::take(TUNNEL_PORTS);
        let mut all = vec![("HUB_TUNNEL_PORTS".to_owned(), ports.setting())];
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut command = hub_command(&all);
        command.current_dir(folder.path()).arg("quickstart").args(target).arg("--json");
        let process = Process::spawn("hub quickstart", &mut command);
        let says = process.line("its line of JSON", SOON, |line| serde_json::from_str(line).ok());
        Self { process, says, _folder: folder, _ports: ports }
    }

    /// The Control API with the printed key.
    #[track_caller]
    pub fn api(&self) -> Api {
        let (address, _, _) = crate::http::split_link(&api::text(&self.says, "api"));
        Api { address, key: api::text(&self.says, "adminKey") }
    }
}
