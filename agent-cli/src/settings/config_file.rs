//! The config file: read whole, written whole and atomically, never through a symbolic link, for its owner only.
//!
//! Invariants: credentials belong to one hub and are never sent to another; a file that cannot be understood is
//! never overwritten; two processes that save at once lose nothing of each other (a lock file beside it).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use crate::{agent::CertificateCheck, failure::Failure};

/// A config longer than this is none of ours (bytes).
const BYTES_MAX: u64 = 1024 * 1024;
const LOCK_LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What is in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The hub when neither `--hub` nor `CONNECT_HUB_URL` says another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// Targets (`host:port`) that the hub may have dialled from here, besides loopback and what is exposed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_targets: Vec<String>,
    /// By hub URL.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hubs: BTreeMap<String, SavedHub>,
}

/// What is known about one hub. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedHub {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// The PEM file with the authority of the hub's certificate; without it the system's authorities vouch for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<SavedAgent>,
    /// Targets beyond this machine that were exposed from here: `connect up` lets the hub have them dialled again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed: BTreeSet<String>,
    /// How certificates of exposed targets (`host:port`) are judged, where not by what this machine trusts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub target_tls: BTreeMap<String, CertificateCheck>,
    /// Local ports of `reach`, by service name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// The static key that others know this machine's services by: both halves, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_key: Option<String>,
    /// The fingerprints that services answered with first, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub known_services: BTreeMap<String, String>,
}

/// This machine's identity at one hub. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedAgent {
    pub id: String,
    pub token: String,
    pub expires_at: String,
    pub workspace_id: String,
    /// Said again at every registration: the hub would take silence for a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl std::fmt::Debug for SavedHub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedHub")
            .field("agent", &self.agent)
            .field("target_tls", &self.target_tls)
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}
impl std::fmt::Debug for SavedAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedAgent").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Where the config is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    path: PathBuf,
}

/// Holds the lock file; dropping it lets the next one in.
#[derive(Debug)]
pub struct Locked<'a> {
    file: &'a ConfigFile,
    _lock: File,
}

impl ConfigFile {
    /// `config.toml` in a folder; an absent file is an empty config.
    pub fn at_home(folder: &Path) -> Self {
        Self { path: folder.join("config.toml") }
    }
    /// The file that `--config` names; an absent one is made when something is saved.
    pub fn chosen(path: PathBuf) -> Self {
        Self { path }
    }
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// The folder that the file is in.
    pub fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// It is unreadable, too long or no config; the failure names file and line.
    pub fn read(&self) -> Result<Config, Failure> {
        let shown = self.path.display();
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Config::default());
            }
            Err(error) => {
                return Err(
                    Failure::new("config_unreadable", format!("{shown} cannot be read")).because(&error)
                );
            }
        };
        let mut text = String::new();
        match file.take(BYTES_MAX + 1).read_to_string(&mut text) {
            Ok(_) if text.len() as u64 > BYTES_MAX => {
                return Err(Failure::new("config_broken", format!("{shown} is too long to be a config")));
            }
            Ok(_) => {}
            Err(error) => {
                return Err(
                    Failure::new("config_unreadable", format!("{shown} cannot be read")).because(&error)
                );
            }
        }
        // The parser's own text quotes the line, which may hold a key: only its place and reason are shown.
        toml::from_str(&text).map_err(|error| {
            let line =
                error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            Failure::new("config_broken", format!("{shown}, line {line}: {}", error.message()))
                .hint("repair the line or move the file away; nothing was overwritten")
        })
    }

    /// Takes the lock for a change; waits for whoever has it.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub async fn lock(&self) -> Result<Locked<'_>, Failure> {
        let lock = self.open_lock().map_err(|error| self.not_saved(&error))?;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Locked { file: self, _lock: lock }),
                // A blocking wait would hold up everything else, Ctrl-C included.
                Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(LOCK_LOOK_AGAIN).await,
                Err(error) => return Err(self.not_saved(&error.into())),
            }
        }
    }

    /// Changes the file under its lock.
    ///
    /// # Errors
    /// As [`Self::lock`] and [`Locked::change`].
    pub async fn change(&self, change: impl FnOnce(&mut Config)) -> Result<(), Failure> {
        self.lock().await?.change(change)
    }

    fn open_lock(&self) -> io::Result<File> {
        private_folder(self.folder())?;
        fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.path.with_extension("lock"))
    }

    fn not_saved(&self, error: &io::Error) -> Failure {
        Failure::new("config_not_saved", format!("{} cannot be written", self.path.display())).because(error)
    }
}

impl Locked<'_> {
    /// The file as it is now.
    ///
    /// # Errors
    /// As [`ConfigFile::read`].
    pub fn read(&self) -> Result<Config, Failure> {
        self.file.read()
    }
    /// Reads, changes and writes.
    ///
    /// # Errors
    /// The file is broken, a symbolic link, or cannot be written; then it is as it was.
    pub fn change(&self, change: impl FnOnce(&mut Config)) -> Result<(), Failure> {
        let mut config = self.file.read()?;
        let before = config.clone();
        change(&mut config);
        if config == before {
            return Ok(());
        }
        let path = &self.file.path;
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_symlink()) {
            return Err(Failure::new(
                "config_is_link",
                format!("{} is a symbolic link, credentials are not written through it", path.display()),
            ));
        }
        let text = toml::to_string_pretty(&config).expect("our own values fit into TOML");
        self.replace(text.as_bytes()).map_err(|error| self.file.not_saved(&error))
    }

    // Temporary file, fsync, rename: another process sees the old file or the new one.
    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        // Mode 0600 from its creation on.
        let mut temporary = tempfile::NamedTempFile::new_in(self.file.folder())?;
        temporary.write_all(bytes)?;
        temporary.as_file().sync_all()?;
        temporary.persist(&self.file.path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// Makes a folder of mode 0700 where there is none; its parents as well.
///
/// # Errors
/// What the file system says.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests;
