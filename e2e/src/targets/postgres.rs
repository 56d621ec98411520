//! PostgreSQL as a target: a cluster of its own in a temporary folder, run by an unprivileged user.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use super::{start_on_free_port, succeeds};
use crate::{ports::loopback, process::Process, wait::SOON, wait::eventually};

/// Who runs the server when the tests run as root, which PostgreSQL refuses: the package's own user.
const UNPRIVILEGED: &str = "postgres";

/// A running PostgreSQL with a superuser `postgres` and no password.
#[derive(Debug)]
pub struct Postgres {
    pub address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Postgres {
    /// Makes a cluster and starts it.
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pc-postgres-").tempdir().expect("a temporary folder");
        hand_over(folder.path());
        let data = folder.path().join("data");
        let mut initdb = as_unprivileged(&program("initdb"), folder.path());
        initdb.args(["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        succeeds(initdb.arg("-D").arg(&data));
        let (process, port) = start_on_free_port("postgres", &|port| {
            let mut command = as_unprivileged(&program("postgres"), folder.path());
            command.arg("-D").arg(&data).arg("-k").arg(folder.path());
            command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-c", "fsync=off"]);
            command
        });
        let started = Self {
            address: loopback(port),
            // Immediate shutdown: SIGKILL would leave shared memory behind.
            _process: process.farewell(Signal::QUIT),
            _folder: folder,
        };
        eventually("PostgreSQL to take connections", SOON, || {
            let ready = client("pg_isready", port).output().map_err(|error| error.to_string())?;
            if ready.status.success() { Ok(()) } else { Err(crate::hub::shown(&ready)) }
        });
        started
    }

    /// A client program (`psql`, `pgbench`) that connects to a port of the loopback.
    pub fn client(program: &str, port: u16) -> Command {
        client(program, port)
    }
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

/// Gives a folder to [`UNPRIVILEGED`] when we are root.
#[track_caller]
fn hand_over(folder: &Path) {
    if !geteuid().is_root() {
        return;
    }
    // Debian's package makes this directory for its user.
    let known = fs::metadata("/var/lib/postgresql").expect("the package postgresql is installed");
    chown(folder, Some(known.uid()), Some(known.gid())).expect("root may give folders away");
}
