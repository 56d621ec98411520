//! Whom a client believes: the authorities of the system, those of a file, or whom a judge of its own finds good.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};

use super::{VERSIONS, provider, validity::Validity};

/// Whom a client believes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trust {
    /// The authorities that the system's administrator has installed.
    #[default]
    System,
    /// The authorities in a PEM file, and no others. A certificate in it that is no authority is believed as it is.
    File(PathBuf),
}

/// Why nobody can be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{} cannot be read: {error}", file.display())]
    Unreadable { file: PathBuf, error: io::Error },
    #[error("{} has no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} has a certificate that cannot be read: {error}", file.display())]
    Broken { file: PathBuf, error: rustls::Error },
    #[error("this machine has no list of certificate authorities (Debian: apt install ca-certificates)")]
    NoSystemAuthorities,
}

impl Trust {
    /// A client's configuration, without names of protocols. Sessions are taken up again by connections that share it.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn client_config(&self) -> Result<ClientConfig, TrustError> {
        let (roots, named) = match self {
            Self::System => (system_authorities()?, Vec::new()),
            Self::File(file) => authorities_in(file)?,
        };
        Ok(judged_by(Authorities::new(roots, named)))
    }
}

/// A configuration that believes nobody, for clients that must have one and speak plain HTTP.
pub fn nobody() -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .expect("the provider speaks both versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// A configuration that believes the server in its own process and nobody else: `is_ours` knows the certificate that it
/// shows now. Whoever has that one's key is the server, whatever names it has.
pub fn itself(is_ours: impl Fn(&CertificateDer<'_>) -> bool + Send + Sync + 'static) -> ClientConfig {
    judged_by(Itself { is_ours })
}

fn system_authorities() -> Result<RootCertStore, TrustError> {
    let mut authorities = RootCertStore::empty();
    // Some systems carry one or the other that rustls does not take; the rest are good.
    authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if authorities.is_empty() { Err(TrustError::NoSystemAuthorities) } else { Ok(authorities) }
}

fn authorities_in(file: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TrustError> {
    let unreadable = |error| TrustError::Unreadable { file: file.to_owned(), error };
    let text = std::fs::read(file).map_err(unreadable)?;
    let known: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().unwrap_or_default();
    let mut authorities = RootCertStore::empty();
    for certificate in &known {
        let broken = |error| TrustError::Broken { file: file.to_owned(), error };
        authorities.add(certificate.clone()).map_err(broken)?;
    }
    if authorities.is_empty() {
        Err(TrustError::NoCertificate(file.to_owned()))
    } else {
        Ok((authorities, known))
    }
}

/// Says whether a server's certificate is good. That the server has the certificate's key is shown by its signature, which is
/// always checked.
pub trait Judge: fmt::Debug + Send + Sync {
    /// `own` is the server's certificate, `others` what it sent with it.
    ///
    /// # Errors
    /// It is not good.
    fn judge(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error>;
}

/// A client's configuration, without names of protocols, by a judge of its own; rustls calls every such thing dangerous.
pub fn judged_by(judge: impl Judge + 'static) -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .expect("the provider speaks both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Judged(judge)))
        .with_no_client_auth()
}

impl<J: Judge + ?Sized> Judge for Arc<J> {
    fn judge(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        (**self).judge(own, others, name, now)
    }
}

#[derive(Debug)]
struct Judged<J>(J);

impl<J: Judge> ServerCertVerifier for Judged<J> {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.judge(own, others, name, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, own, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, own, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Authorities; besides, a certificate that somebody named is good for its names and its time, whoever issued it. Most
/// self-signed ones call themselves authorities (`openssl req -x509` does), and webpki refuses an authority's own certificate
/// at a server.
#[derive(Debug)]
pub struct Authorities {
    /// `None`: there are none.
    webpki: Option<Arc<WebPkiServerVerifier>>,
    named: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// `roots` may be empty, and then nobody but who is `named` is good.
    pub fn new(roots: RootCertStore, named: Vec<CertificateDer<'static>>) -> Self {
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        Self { webpki: webpki.build().ok(), named }
    }
}

impl Judge for Authorities {
    fn judge(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if self.named.iter().any(|named| named == own) {
            return judge_named(own, name, now);
        }
        match &self.webpki {
            Some(webpki) => webpki.verify_server_cert(own, others, name, &[], now).map(|_| ()),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }
}

fn judge_named(own: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    verify_server_name(&ParsedCertificate::try_from(own)?, name)?;
    let validity = Validity::of(own).ok_or(CertificateError::BadEncoding)?;
    let second = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if second < validity.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    if !validity.holds(second) {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// Believes what its own process shows.
struct Itself<F> {
    is_ours: F,
}

impl<F> fmt::Debug for Itself<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Itself").finish_non_exhaustive()
    }
}

impl<F: Fn(&CertificateDer<'_>) -> bool + Send + Sync> Judge for Itself<F> {
    fn judge(
        &self,
        own: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: UnixTime,
    ) -> Result<(), rustls::Error> {
        let is_ours = (self.is_ours)(own);
        is_ours.then_some(()).ok_or_else(|| CertificateError::ApplicationVerificationFailure.into())
    }
}
