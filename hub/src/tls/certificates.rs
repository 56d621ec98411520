//! Certificates from files, read again when the files change; new connections get the new one, and a pair that cannot
//! be used never takes the place of one that can.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use domain::time::Timestamp;
use parking_lot::Mutex;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use wire::tls::{provider, validity::Validity};

use super::acme::Issued;

/// How often the files are looked at: two calls of the system for each.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Files longer than this are no certificates and no keys (bytes).
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFiles {
    /// The certificate and its chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Why a certificate cannot be used. Nothing here quotes a key.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error("{} cannot be read: {error}", file.display())]
    Unreadable { file: PathBuf, error: io::Error },
    #[error("{} is too long to be a certificate or a key", .0.display())]
    TooLong(PathBuf),
    #[error("{} has no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} has no private key in PEM form, or one with a passphrase", .0.display())]
    NoKey(PathBuf),
    #[error("certificate and key do not belong together, or cannot be used: {0}")]
    Unusable(rustls::Error),
    #[error("the certificate cannot be understood")]
    Strange,
}

/// A certificate that can be shown.
#[derive(Debug)]
pub struct Shown {
    pub key: Arc<CertifiedKey>,
    pub validity: Validity,
}

impl Shown {
    /// Reads a chain and its key from PEM texts. `cert` and `key` name them in errors.
    ///
    /// # Errors
    /// See [`PairError`].
    pub fn of_pem(cert: (&Path, &[u8]), key: (&Path, &[u8])) -> Result<Self, PairError> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(cert.1).collect::<Result<_, _>>().unwrap_or_default();
        let validity = match chain.first() {
            Some(certificate) => Validity::of(certificate).ok_or(PairError::Strange)?,
            None => return Err(PairError::NoCertificate(cert.0.to_owned())),
        };
        let private = PrivateKeyDer::from_pem_slice(key.1).map_err(|_| PairError::NoKey(key.0.to_owned()))?;
        let key = CertifiedKey::from_der(chain, private, &provider()).map_err(PairError::Unusable)?;
        Ok(Self { key: Arc::new(key), validity })
    }

    /// Whether the certificate is good for a host.
    pub fn names(&self, host: &str) -> bool {
        let (Ok(name), Some(certificate)) = (ServerName::try_from(host.to_owned()), self.key.cert.first())
        else {
            return false;
        };
        ParsedCertificate::try_from(certificate)
            .and_then(|parsed| rustls::client::verify_server_name(&parsed, &name))
            .is_ok()
    }
}

/// What tells that a file is another one than before: also a link that points elsewhere, or a changed mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint([Option<[i64; 7]>; 2]);

impl Fingerprint {
    fn of(files: &PairFiles) -> Self {
        let parts = |metadata: Metadata| {
            [
                metadata.dev().cast_signed(),
                metadata.ino().cast_signed(),
                metadata.size().cast_signed(),
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            ]
        };
        Self([&files.cert, &files.key].map(|file| fs::metadata(file).ok().map(parts)))
    }
}

/// The certificates of a listener.
#[derive(Debug)]
pub struct Certificates {
    files: Option<PairFiles>,
    shown: ArcSwapOption<Shown>,
    /// The files as they were when they were read last, for better or worse.
    seen: Mutex<Option<Fingerprint>>,
    /// The files hold something newer that cannot be used.
    stale: AtomicBool,
    issued: Option<Arc<Issued>>,
}

impl Certificates {
    /// # Errors
    /// The files hold no usable pair.
    pub fn open(files: Option<PairFiles>, issued: Option<Arc<Issued>>) -> Result<Arc<Self>, PairError> {
        let certificates = Self {
            shown: ArcSwapOption::empty(),
            seen: Mutex::new(files.as_ref().map(Fingerprint::of)),
            stale: AtomicBool::new(false),
            files,
            issued,
        };
        if let Some(files) = &certificates.files {
            let shown = load(files)?;
            let until = moment(shown.validity.not_after);
            tracing::info!(file = %files.cert.display(), not_after = %until, "TLS with a certificate from a file");
            certificates.shown.store(Some(Arc::new(shown)));
        }
        Ok(Arc::new(certificates))
    }

    /// Reads the files again if they have changed, or anyway. What cannot be used is said, and changes nothing.
    pub fn refresh(&self, wish: Refresh) {
        let Some(files) = &self.files else { return };
        let now = Fingerprint::of(files);
        if wish == Refresh::IfChanged && *self.seen.lock() == Some(now) {
            return;
        }
        // As it was before it is read: what changes meanwhile is read once more.
        *self.seen.lock() = Some(now);
        match load(files) {
            Ok(shown) => {
                let until = moment(shown.validity.not_after);
                self.shown.store(Some(Arc::new(shown)));
                self.stale.store(false, Relaxed);
                tracing::info!(file = %files.cert.display(), not_after = %until, "a TLS certificate was read again");
            }
            Err(error) => {
                self.stale.store(true, Relaxed);
                tracing::error!(
                    file = %files.cert.display(),
                    %error,
                    "a TLS certificate cannot be used: the former one is still shown; mend certificate and key"
                );
            }
        }
    }

    /// What is shown to who asks for no name, or for one that nobody has.
    pub fn shown(&self) -> Option<Arc<Shown>> {
        self.shown.load_full().or_else(|| self.issued.as_ref()?.shown())
    }

    /// Whether the files hold something newer that cannot be used.
    pub fn is_stale(&self) -> bool {
        self.stale.load(Relaxed)
    }

    /// The last second of the certificate that ends first, since 1970.
    pub fn not_after(&self) -> Option<i64> {
        let issued = self.issued.as_ref().and_then(|issued| issued.shown());
        let all = [self.shown.load_full(), issued].into_iter().flatten();
        all.map(|shown| shown.validity.not_after).min()
    }

    /// Whether the certificate is not as good as the settings want it: [`Self::is_stale`], or the authority gives none.
    pub fn needs_somebody(&self) -> bool {
        self.is_stale() || self.issued.as_ref().is_some_and(|issued| issued.is_failing())
    }

    /// Whether challenges of an ACME authority are answered.
    pub fn answers_acme(&self) -> bool {
        self.issued.is_some()
    }

    /// Whether one of the certificates is good for a host.
    pub fn names(&self, host: &str) -> bool {
        let issued = self.issued.as_ref().is_some_and(|issued| issued.covers(host));
        issued || self.shown().is_some_and(|shown| shown.names(host))
    }
}

/// When files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    IfChanged,
    Anyway,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        if let Some(issued) = &self.issued {
            if super::acme::is_challenge(&hello) {
                return issued.challenge(name?);
            }
            if name.is_some_and(|name| issued.covers(name)) {
                return issued.shown().or_else(|| self.shown()).map(|shown| Arc::clone(&shown.key));
            }
        }
        self.shown().map(|shown| Arc::clone(&shown.key))
    }
}

/// A second since 1970, as people read it.
pub(crate) fn moment(second: i64) -> Timestamp {
    Timestamp::from_millis(second.saturating_mul(1_000))
}

fn load(files: &PairFiles) -> Result<Shown, PairError> {
    let cert = read(&files.cert)?;
    let key = read(&files.key)?;
    let shown = Shown::of_pem((&files.cert, &cert), (&files.key, &key))?;
    warn_if_exposed(&files.key);
    Ok(shown)
}

fn read(file: &Path) -> Result<Vec<u8>, PairError> {
    let unreadable = |error| PairError::Unreadable { file: file.to_owned(), error };
    let metadata = fs::metadata(file).map_err(unreadable)?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(PairError::TooLong(file.to_owned()));
    }
    fs::read(file).map_err(unreadable)
}

/// A warning and no refusal: secrets that an orchestrator mounts are often readable by all within their container, and
/// a renewal that was refused for its mode would let the certificate run out.
fn warn_if_exposed(key: &Path) {
    let mode = fs::metadata(key).map_or(0, |metadata| metadata.mode());
    if mode & 0o007 != 0 {
        let file = key.display();
        tracing::warn!("other users of this machine can read the private key: chmod 600 {file}");
    }
}

/// Looks at the files every [`LOOK_EVERY`], and at once on SIGHUP, until `stop`.
pub async fn keep_fresh(all: Vec<Arc<Certificates>>, stop: CancellationToken) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Without a handler the signal would end the process.
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    loop {
        let wish = tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => Refresh::IfChanged,
            _ = hangups.recv() => Refresh::Anyway,
        };
        let all = all.clone();
        // A file system that hangs holds up this task and no other.
        let refreshed = tokio::task::spawn_blocking(move || all.iter().for_each(|one| one.refresh(wish)));
        tokio::select! {
            () = stop.cancelled() => return,
            _ = refreshed => {}
        }
    }
}

#[cfg(test)]
mod tests;
