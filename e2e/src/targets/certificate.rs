//! A certificate for this machine that nobody has issued but itself, as development servers have it.

use std::{path::PathBuf, process::Command};

use tempfile::TempDir;

use super::succeeds;

/// A certificate and its key, in PEM files.
#[derive(Debug)]
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
    _folder: TempDir,
}

impl Certificate {
    /// For `localhost` and 127.0.0.1, for two days.
    #[track_caller]
    pub fn of_this_machine() -> Self {
        let folder = tempfile::Builder::new().prefix("pc-cert-").tempdir().expect("a temporary folder");
        let (chain, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-subj", "/O=Tests/CN=localhost"]);
        openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        succeeds(openssl.arg("-keyout").arg(&key).arg("-out").arg(&chain));
        Self { chain, key, _folder: folder }
    }
}
