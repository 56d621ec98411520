//! PostgreSQL as a target: a cluster of its own in a temporary folder, run by an unprivileged user.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use super::{Certificate, start_on_free_port, succeeds};
use crate::{ports::loopback, process::Process, wait::SOON, wait::eventually};

/// Who runs the server when the tests run as root, which PostgreSQL refuses: the package's own user.
const UNPRIVILEGED: &str = "postgres";

/// Everybody is believed but the role `hub`, which needs its password.
const WHO_MAY: &str =
    "local all all trust\nhost all hub 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";

/// A running PostgreSQL with a superuser `postgres` and no password.
#[derive(Debug)]
pub struct Postgres {
    pub address: SocketAddr,
    process: Process,
    settings: Vec<String>,
    folder: TempDir,
}

impl Postgres {
    /// Makes a cluster and starts it.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with TLS.
    #[track_caller]
    pub fn start_with_tls(certificate: &Certificate) -> Self {
        // The server reads its key as the user that it runs as, and refuses one that others may read.
        let folder = cluster_folder();
        let copies = [("cert.pem", &certificate.chain), ("key.pem", &certificate.key)].map(|(name, from)| {
            let to = folder.path().join(name);
            fs::copy(from, &to).expect("a file can be copied");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("the copy is ours");
            hand_over(&to);
            to.display().to_string()
        });
        let [chain, key] = copies.each_ref().map(String::as_str);
        // The second address is none of the certificate's.
        let everywhere = ("listen_addresses", "127.0.0.1,127.0.0.2");
        Self::start_in(folder, &[("ssl", "on"), ("ssl_cert_file", chain), ("ssl_key_file", key), everywhere])
    }

    /// The same with settings of the server.
    #[track_caller]
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_in(cluster_folder(), settings)
    }

    #[track_caller]
    fn start_in(folder: TempDir, settings: &[(&str, &str)]) -> Self {
        let data = folder.path().join("data");
        let mut initdb = as_unprivileged(&program("initdb"), folder.path());
        initdb.args(["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        succeeds(initdb.arg("-D").arg(&data));
        fs::write(data.join("pg_hba.conf"), WHO_MAY).expect("the cluster is ours");
        let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let (process, port) = start_on_free_port("postgres", &|port| serve(folder.path(), &settings, port));
        // Immediate shutdown: SIGKILL would leave shared memory behind.
        let process = process.farewell(Signal::QUIT);
        let started = Self { address: loopback(port), process, settings, folder };
        started.is_ready();
        started
    }

    #[track_caller]
    fn is_ready(&self) {
        eventually("PostgreSQL to take connections", SOON, || {
            let ready =
                client("pg_isready", self.address.port()).output().map_err(|error| error.to_string())?;
            if ready.status.success() { Ok(()) } else { Err(crate::hub::shown(&ready)) }
        });
    }

    /// SIGKILL to the server: what runs under it ends without a word.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Stops the server's main process where it is, or lets it go on; connections that are open go on by themselves.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Starts it again after its end, at the same port.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.process.ended().is_some(), "the server is still running");
        // What a killed server leaves behind is in the way until its last child has noticed.
        let process = eventually("PostgreSQL to start again", SOON, || {
            super::started("postgres", self.address.port(), &|port| {
                serve(self.folder.path(), &self.settings, port)
            })
        });
        self.process = process.farewell(Signal::QUIT);
        self.is_ready();
    }

    /// A database of its own, empty; answers how a hub reaches it.
    #[track_caller]
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://postgres@{}/{name}", self.address)
    }

    /// Runs statements as the superuser; answers the rows, a line each.
    #[track_caller]
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let mut psql = client("psql", self.address.port());
        succeeds(psql.args(["-v", "ON_ERROR_STOP=1", "-qAtd", database, "-c", statements])).trim().to_owned()
    }

    /// The folder of the newest PostgreSQL's programs.
    pub fn programs() -> PathBuf {
        program("psql").parent().map(Path::to_owned).unwrap_or_default()
    }

    /// A client program (`psql`, `pgbench`) that connects to a port of the loopback.
    pub fn client(program: &str, port: u16) -> Command {
        client(program, port)
    }
}

#[track_caller]
fn cluster_folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("pc-postgres-").tempdir().expect("a temporary folder");
    hand_over(folder.path());
    folder
}

fn serve(folder: &Path, settings: &[String], port: u16) -> Command {
    let mut command = as_unprivileged(&program("postgres"), folder);
    command.arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-c", "fsync=off"]);
    for setting in settings {
        command.args(["-c", setting]);
    }
    command
}

fn client(name: &str, port: u16) -> Command {
    let mut command = Command::new(program(name));
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"]);
    // No settings of the caller's: they could lead elsewhere.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("PGCONNECT_TIMEOUT", "20");
    command
}

/// A program of the newest PostgreSQL that is installed: Debian keeps the server's outside PATH.
#[track_caller]
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let path = entry.path().join("bin").join(name);
            path.is_file().then_some((version, path))
        })
        .collect();
    installed.sort();
    installed.pop().map_or_else(|| PathBuf::from(name), |(_, path)| path)
}

/// A command in that folder, run by [`UNPRIVILEGED`] when we are root.
fn as_unprivileged(program: &Path, folder: &Path) -> Command {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={UNPRIVILEGED}")).arg(format!("--regid={UNPRIVILEGED}"));
        command.args(["--clear-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(folder).env("HOME", folder);
    command
}

/// Gives a file or folder to [`UNPRIVILEGED`] when we are root.
#[track_caller]
fn hand_over(folder: &Path) {
    if !geteuid().is_root() {
        return;
    }
    // Debian's package makes this directory for its user.
    let known = fs::metadata("/var/lib/postgresql").expect("the package postgresql is installed");
    chown(folder, Some(known.uid()), Some(known.gid())).expect("root may give folders away");
}
