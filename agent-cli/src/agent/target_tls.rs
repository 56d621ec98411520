//! TLS with tunnels' targets: whose certificates are accepted, and the connection itself.
//!
//! A certificate is checked against the system's roots and the issuers that the agent's owner added for that target,
//! unless the owner exposed it unchecked. That is decided on this machine and never by the hub.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use domain::target::Target;
use parking_lot::Mutex;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, RootCertStore,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use wire::{
    side::{Carrier, Duplex},
    tls::{
        self, Encrypted,
        trust::{self, Authorities, Judge as _, judged_by},
    },
};

use super::dialer;

/// How long a target may take to agree on TLS once it was dialled.
pub(super) const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(4);
/// A file of issuers longer than this is none (bytes); all that a system trusts takes a quarter of it.
const ISSUERS_BYTES_MAX: u64 = 1024 * 1024;

/// How a target's certificate is judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateCheck {
    /// By what this machine trusts.
    #[default]
    System,
    /// By that and by the certificates in a PEM file.
    Issuers(PathBuf),
    /// Not at all.
    Unchecked,
}

/// The decisions for all targets, and what follows from them.
#[derive(Debug, Default)]
pub(super) struct TargetTls {
    decided: Mutex<BTreeMap<(String, u16), Arc<Judge>>>,
    system: OnceLock<Arc<Judge>>,
}

/// What is to be spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inside {
    Http1,
    Http2,
}

impl Inside {
    const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
    const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// Why a target does not get what was meant for it; in words for its owner.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsFailure {
    /// Its certificate is not one that is accepted.
    #[error("{0}")]
    Distrusted(String),
    /// It speaks something else.
    #[error("it does not speak TLS; expose it with --protocol http, or with --protocol tcp")]
    NoTls,
    #[error("it does not speak {}", .0.name())]
    NotSpoken(Inside),
    #[error("TLS with it failed: {0}")]
    Failed(String),
}

impl TargetTls {
    /// Decides how a target's certificate is judged from now on.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate; nothing has changed then.
    pub(super) fn decide(&self, target: &Target, check: &CertificateCheck) -> io::Result<()> {
        let key = (target.host.to_ascii_lowercase(), target.port);
        match check {
            CertificateCheck::System => drop(self.decided.lock().remove(&key)),
            CertificateCheck::Issuers(_) | CertificateCheck::Unchecked => {
                let judge = Arc::new(Judge::new(check)?);
                self.decided.lock().insert(key, judge);
            }
        }
        Ok(())
    }

    /// Who judges a target's certificate.
    pub(super) fn judge(&self, target: &Target) -> Arc<Judge> {
        let key = (target.host.to_ascii_lowercase(), target.port);
        let decided = self.decided.lock().get(&key).cloned();
        // The system's roots are read once, when they are first needed: some milliseconds.
        decided.unwrap_or_else(|| {
            Arc::clone(self.system.get_or_init(|| {
                Arc::new(
                    Judge::new(&CertificateCheck::System).expect("without a file there is nothing to fail"),
                )
            }))
        })
    }
}

/// The certificates of a PEM file.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn issuers_of(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let broken = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if std::fs::metadata(file)?.len() > ISSUERS_BYTES_MAX {
        return Err(broken("it is too long to be a file of certificates".to_owned()));
    }
    let bytes = std::fs::read(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|error| broken(format!("it is no PEM file of certificates: {error}")))?;
    if all.is_empty() {
        return Err(broken("there is no certificate in it (PEM, BEGIN CERTIFICATE)".to_owned()));
    }
    Ok(all)
}

/// Judges certificates, and connects to whom it accepts.
pub(super) struct Judge {
    authorities: Arc<Authorities>,
    pub(super) is_unchecked: bool,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("is_unchecked", &self.is_unchecked).finish_non_exhaustive()
    }
}

impl Judge {
    fn new(check: &CertificateCheck) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        // What cannot be read there is trusted by nobody.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let mut named = Vec::new();
        if let CertificateCheck::Issuers(file) = check {
            named = issuers_of(file)?;
            roots.add_parsable_certificates(named.iter().cloned());
        }
        // Without any root nothing is trusted.
        let authorities = Arc::new(Authorities::new(roots, named));
        let is_unchecked = *check == CertificateCheck::Unchecked;
        let config = |inside: Inside| match is_unchecked {
            true => config(Unchecked, inside),
            false => config(Arc::clone(&authorities), inside),
        };
        let (http1, http2) = (config(Inside::Http1), config(Inside::Http2));
        Ok(Self { authorities, is_unchecked, http1, http2 })
    }

    /// Agrees on TLS over a connection to the target, as the owner wants it.
    pub(super) async fn connect(
        &self,
        target: &Target,
        socket: TcpStream,
        inside: Inside,
    ) -> Result<TlsStream, TlsFailure> {
        let config = match inside {
            Inside::Http1 => &self.http1,
            Inside::Http2 => &self.http2,
        };
        handshake(config, target, socket, inside).await
    }

    /// As [`Judge::look`] over one connection that is led to the target: nobody is dialled.
    pub(super) async fn look_over(
        &self,
        target: &Target,
        socket: TcpStream,
    ) -> Result<TlsStream, TlsFailure> {
        handshake(&config(Unchecked, Inside::Http1), target, socket, Inside::Http1).await
    }

    /// Agrees on TLS with whoever is there, to look at it: nothing of anybody's is sent. Who speaks HTTP/1.1 is asked
    /// for that, since its answer says more.
    pub(super) async fn look(&self, target: &Target, socket: TcpStream) -> Result<TlsStream, TlsFailure> {
        match handshake(&config(Unchecked, Inside::Http1), target, socket, Inside::Http1).await {
            Err(TlsFailure::NotSpoken(_)) => {
                let again = dialer::dial(&target.host, target.port).await;
                let socket = again.map_err(|error| TlsFailure::Failed(error.to_string()))?;
                handshake(&config(Unchecked, Inside::Http2), target, socket, Inside::Http2).await
            }
            agreed => agreed,
        }
    }

    /// Why the certificate of a connection is not trusted, if it is not; also where it is not checked.
    pub(super) fn distrust(&self, target: &Target, stream: &TlsStream) -> Option<String> {
        let chain = stream.0.state().peer_certificates().unwrap_or_default();
        let Some((own, others)) = chain.split_first() else {
            return Some("it has no certificate".to_owned());
        };
        let judged = server_name(target).and_then(|name| {
            let judged = self.authorities.judge(own, others, &name, UnixTime::now());
            judged.map_err(|error| failure(error, Inside::Http1))
        });
        judged.err().map(|failure| failure.to_string())
    }
}

fn config(judge: impl trust::Judge + 'static, inside: Inside) -> Arc<ClientConfig> {
    let mut config = judged_by(judge);
    config.alpn_protocols = vec![inside.alpn().to_vec()];
    Arc::new(config)
}

/// Any certificate, of whoever has its key: what its owner wants, or a look at it.
#[derive(Debug)]
struct Unchecked;

impl trust::Judge for Unchecked {
    fn judge(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: UnixTime,
    ) -> Result<(), Error> {
        Ok(())
    }
}

fn server_name(target: &Target) -> Result<ServerName<'static>, TlsFailure> {
    ServerName::try_from(target.host.clone())
        .map_err(|_| TlsFailure::Failed(format!("a certificate cannot be for \"{}\"", target.host)))
}

async fn handshake(
    config: &Arc<ClientConfig>,
    target: &Target,
    socket: TcpStream,
    inside: Inside,
) -> Result<TlsStream, TlsFailure> {
    let connecting = tls::connect(Arc::clone(config), server_name(target)?, socket);
    match timeout(HANDSHAKE_PATIENCE, connecting).await {
        // HTTP/1.1 is what is spoken where nobody says what; HTTP/2 must be agreed on.
        Ok(Ok(stream)) if inside == Inside::Http2 && stream.alpn() != Some(inside.alpn()) => {
            Err(TlsFailure::NotSpoken(inside))
        }
        Ok(Ok(stream)) => Ok(TlsStream(stream)),
        Ok(Err(error)) => Err(match tls::reason(&error) {
            Some(reason) => failure(reason.clone(), inside),
            None => TlsFailure::Failed(error.to_string()),
        }),
        Err(_) => Err(TlsFailure::Failed("it does not answer in time".to_owned())),
    }
}

const ADVICE: &str =
    "Expose it with --target-ca FILE (the issuer's certificate, PEM) or with --target-insecure";

#[expect(clippy::wildcard_enum_match_arm, reason = "of many errors these have an advice of their own")]
fn failure(error: Error, inside: Inside) -> TlsFailure {
    use CertificateError as E;
    match error {
        Error::InvalidCertificate(error) => TlsFailure::Distrusted(match error {
            // An authority's own certificate at a server is unknown in webpki's words, and named by nobody.
            E::UnknownIssuer | E::BadSignature | E::Other(_) => {
                format!("its certificate is not trusted: nobody whom this machine trusts issued it. {ADVICE}")
            }
            E::Expired | E::ExpiredContext { .. } => {
                "its certificate has expired. Renew it, or expose the target with --target-insecure"
                    .to_owned()
            }
            E::NotValidYet | E::NotValidYetContext { .. } => {
                "its certificate is not valid yet; are the clocks right?".to_owned()
            }
            E::NotValidForName | E::NotValidForNameContext { .. } => {
                format!(
                    "its certificate is for another name. Expose the target by a name that stands in it, or with \
                     --target-insecure ({error})"
                )
            }
            other => format!("its certificate is not trusted: {other}. {ADVICE}"),
        }),
        Error::InvalidMessage(_) => TlsFailure::NoTls,
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => TlsFailure::NotSpoken(inside),
        other => TlsFailure::Failed(other.to_string()),
    }
}

/// A TLS connection to a target. An end without TLS's own farewell is an end: many servers leave so after a whole
/// answer, and taking it for a broken answer would break whole ones, as no browser does.
#[derive(Debug)]
pub(super) struct TlsStream(Encrypted);

impl TlsStream {
    /// `TLSv1.3` or `TLSv1.2`.
    pub(super) fn version(&self) -> Option<String> {
        let name = self.0.state().protocol_version()?.as_str()?;
        Some(name.replace('_', "."))
    }
    pub(super) fn alpn(&self) -> Option<String> {
        let agreed = self.0.alpn()?;
        Some(String::from_utf8_lossy(agreed).into_owned())
    }
    /// The target's own certificate.
    pub(super) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.0.state().peer_certificates()?.first()
    }
}

impl From<TlsStream> for Carrier {
    fn from(stream: TlsStream) -> Self {
        Self::Wrapped(Box::new(stream))
    }
}

impl Duplex for TlsStream {
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_broken(cx)
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.get_mut().0).poll_read(cx, buffer) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            polled @ (Poll::Ready(_) | Poll::Pending) => polled,
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(test)]
pub(super) mod tests;
