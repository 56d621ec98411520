//! Pebble, the ACME authority for tests, with a name server that says that every name is this machine.

use std::{fs, path::PathBuf, process::Command};

use rustix::process::Signal;
use tempfile::TempDir;

use super::succeeds;
use crate::{
    ports,
    process::Process,
    tls::Authority,
    wait::{SOON, eventually},
};

/// A running authority.
#[derive(Debug)]
pub struct Pebble {
    port: u16,
    management_port: u16,
    /// Of its own certificate.
    pub authority: Authority,
    _pebble: Process,
    _names: Process,
    folder: TempDir,
}

impl Pebble {
    /// Starts one that asks hubs at `tls_port` and issues certificates for `seconds`. `None`, said aloud: it is not
    /// installed.
    #[track_caller]
    pub fn start(tls_port: u16, seconds: u32) -> Option<Self> {
        if Command::new("pebble").arg("-help").output().is_err() {
            eprintln!(
                "SKIPPED: Pebble is not installed, so no ACME authority was asked (apt install pebble)"
            );
            return None;
        }
        let folder = tempfile::Builder::new().prefix("pc-pebble-").tempdir().expect("a temporary folder");
        let authority = Authority::new();
        let own = authority.issue("pebble", &["127.0.0.1", "localhost"]);
        let [port, management_port, names, unused] = [(); 4].map(|()| ports::free_port());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management_port}"),
            "certificate": own.cert,
            "privateKey": own.key,
            "httpPort": unused,
            "tlsPort": tls_port,
            "certificateValidityPeriod": seconds,
        } });
        let file = folder.path().join("pebble.json");
        fs::write(&file, config.to_string()).expect("the folder is ours");
        let mut command = Command::new("pebble-challtestsrv");
        command.args(["-defaultIPv6", "", "-defaultIPv4", "127.0.0.1"]);
        command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", ""]);
        command.arg("-dns01").arg(format!("127.0.0.1:{names}"));
        let name_server = Process::spawn("pebble-challtestsrv", &mut command).farewell(Signal::TERM);
        let mut command = Command::new("pebble");
        command.arg("-config").arg(&file).arg("-dnsserver").arg(format!("127.0.0.1:{names}"));
        // A nonce is refused now and then, as authorities do.
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "20");
        let pebble = Process::spawn("pebble", &mut command).farewell(Signal::TERM);
        let started = Self { port, management_port, authority, _pebble: pebble, _names: name_server, folder };
        eventually("Pebble to answer", SOON, || started.authority.status(&[&started.directory()]).map(drop));
        Some(started)
    }

    /// What a hub is given.
    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    /// A file with the authority that vouches for what it issues.
    #[track_caller]
    pub fn root(&self) -> PathBuf {
        let file = self.folder.path().join("root.pem");
        let url = format!("https://127.0.0.1:{}/roots/0", self.management_port);
        let mut command = Command::new("curl");
        succeeds(
            command
                .args(["-sS", "--fail", "--cacert"])
                .arg(self.authority.ca())
                .arg("-o")
                .arg(&file)
                .arg(url),
        );
        file
    }
}
