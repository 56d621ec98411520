//! Whose certificate is accepted, and what is said of the others.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};

use super::*;

/// A certificate and its key.
pub(in crate::agent) struct Identity {
    pub(in crate::agent) pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

pub(in crate::agent) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(in crate::agent) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test Authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }
    pub(in crate::agent) fn pem(&self) -> String {
        self.0.pem()
    }
    pub(in crate::agent) fn issues(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let issuer: &Issuer<'static, KeyPair> = &self.0;
        let key = KeyPair::generate().unwrap();
        let mut params = params(names);
        change(&mut params);
        let certificate = params.signed_by(&key, issuer).unwrap();
        Identity { pem: certificate.pem(), chain: vec![certificate.der().clone()], key }
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let mut params =
        CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, names[0]);
    params
}

/// As development servers have it: its own issuer, and marked as one.
pub(in crate::agent) fn self_signed(names: &[&str]) -> Identity {
    let mut params = params(names);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Identity { pem: certificate.pem(), chain: vec![certificate.der().clone()], key }
}

/// What a server does inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Manner {
    /// Sends back what it gets.
    Echo,
    /// Answers one request and hangs up without TLS's farewell.
    HttpWithoutFarewell,
}

/// A TLS server on a port of this machine.
pub(in crate::agent) async fn serve(identity: Identity, alpn: &[&str], manner: Manner) -> Target {
    let key = PrivatePkcs8KeyDer::from(identity.key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain, key.into())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust it leaves.
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                let mut buffer = [0; 1_024];
                match manner {
                    Manner::Echo => {
                        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                            if stream.write_all(&buffer[..read]).await.is_err()
                                || stream.flush().await.is_err()
                            {
                                return;
                            }
                        }
                    }
                    Manner::HttpWithoutFarewell => {
                        if let Ok(1..) = stream.read(&mut buffer).await {
                            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nto the end";
                            let _ = stream.write_all(answer).await;
                            let _ = stream.flush().await;
                        }
                    }
                }
            });
        }
    });
    Target { host: "localhost".to_owned(), port }
}

fn file(pem: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    file
}

async fn connect(tls: &TargetTls, target: &Target, inside: Inside) -> Result<TlsStream, TlsFailure> {
    let socket = TcpStream::connect(("127.0.0.1", target.port)).await.unwrap();
    tls.judge(target).connect(target, socket, inside).await
}

fn words(failed: Result<TlsStream, TlsFailure>) -> String {
    failed.map(|_| ()).unwrap_err().to_string()
}

#[tokio::test]
async fn a_certificate_that_nobody_here_trusts_is_refused_with_what_to_do() {
    let target = serve(Authority::new().issues(&["localhost"], |_| ()), &[], Manner::Echo).await;
    let refused = words(connect(&TargetTls::default(), &target, Inside::Http1).await);
    assert!(refused.contains("not trusted") && refused.contains("--target-ca"), "{refused}");
    assert!(refused.contains("--target-insecure"), "{refused}");
}

#[tokio::test]
async fn the_owners_file_of_issuers_makes_it_good_and_taking_it_back_makes_it_bad() {
    let authority = Authority::new();
    let target = serve(authority.issues(&["localhost"], |_| ()), &["http/1.1"], Manner::Echo).await;
    let (tls, issuers) = (TargetTls::default(), file(&authority.pem()));
    tls.decide(&target, &CertificateCheck::Issuers(issuers.path().to_owned())).unwrap();
    let mut stream = connect(&tls, &target, Inside::Http1).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    assert_eq!((stream.version().as_deref(), stream.alpn().as_deref()), (Some("TLSv1.3"), Some("http/1.1")));
    assert_eq!(tls.judge(&target).distrust(&target, &stream), None);
    // The decision is about this target and no other.
    let other = serve(authority.issues(&["localhost"], |_| ()), &[], Manner::Echo).await;
    connect(&tls, &other, Inside::Http1).await.unwrap_err();
    tls.decide(&target, &CertificateCheck::System).unwrap();
    connect(&tls, &target, Inside::Http1).await.unwrap_err();
}

#[tokio::test]
async fn a_development_servers_own_certificate_may_be_the_file() {
    let identity = self_signed(&["localhost"]);
    let (tls, issuers) = (TargetTls::default(), file(&identity.pem));
    let target = serve(identity, &[], Manner::Echo).await;
    tls.decide(&target, &CertificateCheck::Issuers(issuers.path().to_owned())).unwrap();
    connect(&tls, &target, Inside::Http1).await.unwrap();
    // For its names alone.
    let elsewhere = Target { host: "127.0.0.1".to_owned(), ..target };
    tls.decide(&elsewhere, &CertificateCheck::Issuers(issuers.path().to_owned())).unwrap();
    let refused = words(connect(&tls, &elsewhere, Inside::Http1).await);
    assert!(refused.contains("another name"), "{refused}");
}

#[tokio::test]
async fn a_certificate_for_another_name_or_another_time_is_refused_for_that_reason() {
    let authority = Authority::new();
    let issuers = file(&authority.pem());
    let expired = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let early = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(2400, 1, 1);
    for (identity, expected) in [
        (authority.issues(&["db.internal"], |_| ()), "another name"),
        (authority.issues(&["localhost"], expired), "expired"),
        (authority.issues(&["localhost"], early), "not valid yet"),
    ] {
        let (tls, target) = (TargetTls::default(), serve(identity, &[], Manner::Echo).await);
        tls.decide(&target, &CertificateCheck::Issuers(issuers.path().to_owned())).unwrap();
        let refused = words(connect(&tls, &target, Inside::Http1).await);
        assert!(refused.contains(expected), "{refused}");
        // Unchecked, all of them are taken, and what is wrong can still be told.
        tls.decide(&target, &CertificateCheck::Unchecked).unwrap();
        let stream = connect(&tls, &target, Inside::Http1).await.unwrap();
        assert!(tls.judge(&target).distrust(&target, &stream).is_some());
    }
}

#[tokio::test]
async fn http2_must_be_agreed_on_and_http1_need_not_be() {
    for (alpn, http1, http2) in [
        (&[][..], true, false),
        (&["http/1.1"], true, false),
        (&["h2"], false, true),
        (&["h2", "http/1.1"], true, true),
    ] {
        let (tls, target) =
            (TargetTls::default(), serve(self_signed(&["localhost"]), alpn, Manner::Echo).await);
        tls.decide(&target, &CertificateCheck::Unchecked).unwrap();
        for (inside, expected) in [(Inside::Http1, http1), (Inside::Http2, http2)] {
            let agreed = connect(&tls, &target, inside).await;
            assert_eq!(agreed.is_ok(), expected, "{alpn:?} {inside:?}: {agreed:?}");
        }
    }
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_from_who_is_not_trusted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { host: "localhost".to_owned(), port: listener.local_addr().unwrap().port() };
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 512]).await;
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let refused = connect(&TargetTls::default(), &target, Inside::Http1).await;
    assert!(matches!(refused, Err(TlsFailure::NoTls)), "{refused:?}");
}

#[tokio::test]
async fn an_end_without_a_farewell_is_an_end() {
    let (tls, target) =
        (TargetTls::default(), serve(self_signed(&["localhost"]), &[], Manner::HttpWithoutFarewell).await);
    tls.decide(&target, &CertificateCheck::Unchecked).unwrap();
    let mut stream = connect(&tls, &target, Inside::Http1).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"to the end"));
}

#[test]
fn a_file_that_holds_no_certificate_changes_nothing() {
    let (tls, target) = (TargetTls::default(), Target { host: "x".to_owned(), port: 1 });
    tls.decide(&target, &CertificateCheck::Unchecked).unwrap();
    let long = "x".repeat(2 * 1024 * 1024);
    for text in ["", "hello", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", long.as_str()] {
        let file = file(text);
        tls.decide(&target, &CertificateCheck::Issuers(file.path().to_owned())).unwrap_err();
        assert!(tls.judge(&target).is_unchecked);
    }
    tls.decide(&target, &CertificateCheck::Issuers("/no/such/file".into())).unwrap_err();
}
