//! A certificate authority for tests, and files as an operator has them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ClientConfig;
use tempfile::TempDir;
use wire::tls::trust::Trust;

use super::{
    Speaker,
    certificates::{Certificates, PairFiles},
};

/// An authority and a folder for what it issues.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// Writes a pair under a file name, over whatever is there.
    pub(crate) fn issue(&self, file: &str, names: &[&str]) -> PairFiles {
        self.issue_with(file, names, |_| {})
    }

    pub(crate) fn issue_with(
        &self,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> PairFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files =
            PairFiles { cert: self.file(&format!("{file}.pem")), key: self.file(&format!("{file}.key")) };
        fs::write(&files.cert, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Whoever believes this authority.
    pub(crate) fn believer(&self) -> ClientConfig {
        Trust::File(self.file("ca.pem")).client_config().unwrap()
    }

    /// A listener with a certificate for these names.
    pub(crate) fn speaker(&self, names: &[&str], protocols: &[&[u8]]) -> Arc<Speaker> {
        let files = self.issue("listener", names);
        Speaker::new(Certificates::open(Some(files), None).unwrap(), protocols).unwrap()
    }
}
