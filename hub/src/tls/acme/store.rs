//! What is kept of an ACME authority: the account and the certificate, each in a file that only the hub's user reads.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::super::certificates::{PairError, Shown};

/// An account is good at one directory.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedAccount {
    pub(super) directory: String,
    pub(super) credentials: AccountCredentials,
}

/// A certificate and its key, both PEM; one file, so that they always belong together. No `Debug`: it has a key.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedCertificate {
    pub(super) directory: String,
    pub(super) domains: Vec<String>,
    pub(super) chain: String,
    pub(super) key: String,
}

impl SavedCertificate {
    /// # Errors
    /// It cannot be used.
    pub(super) fn open(&self) -> Result<Shown, PairError> {
        let name = Path::new("the authority's answer");
        Shown::of_pem((name, self.chain.as_bytes()), (name, self.key.as_bytes()))
    }
}

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Store(PathBuf);

impl Store {
    /// # Errors
    /// The folder cannot be made.
    pub(super) fn at(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self(folder.to_owned()))
    }

    /// `None`: there is none, or it cannot be understood, and another will be made.
    pub(super) fn account(&self) -> Option<SavedAccount> {
        self.read("account.json")
    }
    /// As [`Self::account`].
    pub(super) fn certificate(&self) -> Option<SavedCertificate> {
        self.read("certificate.json")
    }
    /// # Errors
    /// The system's; what was there before is there still.
    pub(super) fn save_account(&self, account: &SavedAccount) -> io::Result<()> {
        self.write("account.json", account)
    }
    /// # Errors
    /// As [`Self::save_account`].
    pub(super) fn save_certificate(&self, certificate: &SavedCertificate) -> io::Result<()> {
        self.write("certificate.json", certificate)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.0.join(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "this cannot be read and is asked for anew");
                return None;
            }
        };
        let mode = fs::metadata(&path).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o077 != 0 {
            tracing::warn!("others can read what only the hub should: chmod 600 {}", path.display());
        }
        // The parser's own words may quote a key.
        let read = serde_json::from_slice(&text).ok();
        if read.is_none() {
            tracing::warn!(file = %path.display(), "this cannot be understood and is asked for anew");
        }
        read
    }

    // Temporary file, fsync, rename: a crash leaves the old file or the new one.
    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let (path, temporary) = (self.0.join(name), self.0.join(format!("{name}.new")));
        let text = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.0)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> SavedCertificate {
        let made = rcgen::generate_simple_self_signed(vec!["hub.example".to_owned()]).unwrap();
        SavedCertificate {
            directory: "https://ca.example/dir".to_owned(),
            domains: vec!["hub.example".to_owned()],
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    #[test]
    fn what_is_kept_is_for_the_hubs_user_only_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(&folder.path().join("state/acme")).unwrap();
        assert!(store.certificate().is_none());
        for _ in 0..2 {
            store.save_certificate(&certificate()).unwrap();
        }
        let kept = store.certificate().unwrap();
        assert!(kept.open().unwrap().names("hub.example"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let at = folder.path().join("state/acme");
        assert_eq!((mode(&at), mode(&at.join("certificate.json"))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&at).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn what_cannot_be_understood_is_as_good_as_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path()).unwrap();
        fs::write(folder.path().join("certificate.json"), "{").unwrap();
        fs::write(folder.path().join("account.json"), "{\"directory\":\"x\"}").unwrap();
        assert!(store.certificate().is_none() && store.account().is_none());
    }
}
