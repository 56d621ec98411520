//! A certificate authority of the tests' own, the files that an operator gets from it, and curl that believes it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// An authority and the folder of its files.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("folder", &self.folder.path()).finish_non_exhaustive()
    }
}

/// A certificate and its key in files.
#[derive(Debug, Clone)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    /// The settings of a hub that shows it.
    pub fn settings(&self) -> [(&'static str, &str); 2] {
        [
            ("HUB_TLS_CERT", self.cert.to_str().expect("our own names are UTF-8")),
            ("HUB_TLS_KEY", self.key.to_str().expect("our own names are UTF-8")),
        ]
    }

    /// Puts another pair in its place, the key first, as most tools do.
    #[track_caller]
    pub fn replace_by(&self, other: &Self) {
        for (from, to) in [(&other.key, &self.key), (&other.cert, &self.cert)] {
            let temporary = to.with_extension("new");
            fs::copy(from, &temporary).expect("the folder is ours");
            fs::rename(&temporary, to).expect("the folder is ours");
        }
    }
}

impl Authority {
    /// A new one, which nobody believes yet.
    #[track_caller]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate whose issuer has its own name for one that signs itself.
        params.distinguished_name.push(DnType::CommonName, "the tests' authority");
        let key = KeyPair::generate().expect("the system has randomness");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority signs itself");
        let folder = tempfile::Builder::new().prefix("pc-ca-").tempdir().expect("a temporary folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("the folder is ours");
        Self { issuer, folder }
    }

    /// Its own certificate: what `--ca` and `curl --cacert` are given.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Issues a certificate for host names and addresses.
    #[track_caller]
    pub fn issue(&self, file: &str, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names are host names or addresses");
        let key = KeyPair::generate().expect("the system has randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("an authority signs");
        let at = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        let pair = Pair { cert: at("pem"), key: at("key") };
        fs::write(&pair.cert, certificate.pem()).expect("the folder is ours");
        fs::write(&pair.key, key.serialize_pem()).expect("the folder is ours");
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600)).expect("the folder is ours");
        pair
    }

    /// `curl ARGUMENTS...` that believes this authority, run to its end.
    #[track_caller]
    pub fn curl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--max-time", "20", "--noproxy", "*", "--cacert"])
            .arg(self.ca())
            .args(arguments);
        command.output().expect("curl can be started")
    }

    /// The same, and the status of the answer in a last line of its own.
    #[track_caller]
    pub fn status(&self, arguments: &[&str]) -> Result<(u16, String), String> {
        let output = self.curl(&[&["-w", "\n%{http_code}"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
        match status.parse() {
            Ok(status @ 1..) => Ok((status, body.to_owned())),
            Ok(0) | Err(_) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
