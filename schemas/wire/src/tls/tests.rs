//! Encrypted connections as carriers: whom they believe, how they end, and that they change runtimes.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpListener,
    time::{Duration, timeout},
};

use super::{trust::Trust, *};
use crate::side::{Carrier, Side as _};

const SOON: Duration = Duration::from_secs(10);

struct Server {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// What `--ca` is given.
    authority: String,
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn of_an_authority() -> Server {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let chain = vec![params(&["hub.example", "127.0.0.1"]).signed_by(&key, &root).unwrap().der().clone()];
    Server { chain, key: key.into(), authority: root.pem() }
}

/// As `openssl req -x509` makes them.
fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> Server {
    let mut params = params(&["hub.example"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Server { chain: vec![certificate.der().clone()], key: key.into(), authority: certificate.pem() }
}

impl Server {
    fn config(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .unwrap();
        config.alpn_protocols = vec![AGENT.to_vec(), HTTP_11.to_vec()];
        config.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
        Arc::new(config)
    }
}

fn believing(authority: &str) -> Arc<ClientConfig> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority).unwrap();
    let mut config = Trust::File(file.path().to_owned()).client_config().unwrap();
    config.alpn_protocols = vec![AGENT.to_vec(), HTTP_11.to_vec()];
    Arc::new(config)
}

/// Client's and server's end.
async fn pair(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> (io::Result<Encrypted>, io::Result<Encrypted>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    timeout(SOON, async { tokio::join!(connect(client, name, socket), accept(server, accepted)) })
        .await
        .unwrap()
}

async fn trusted_pair() -> (Encrypted, Encrypted) {
    let server = of_an_authority();
    let (client, server) = pair(server.config(), believing(&server.authority), "hub.example").await;
    (client.unwrap(), server.unwrap())
}

#[tokio::test]
async fn a_server_is_believed_by_its_authority_or_by_its_very_certificate_and_by_its_name_only() {
    let expired = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let early = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(4000, 1, 1);
    let plain = |params: &mut CertificateParams| params.is_ca = IsCa::NoCa;
    let (authority, other) = (of_an_authority(), of_an_authority());
    let itself = self_signed(|_| {});
    let cases = [
        ("its authority", &authority, &authority.authority, "hub.example", true),
        ("its authority, by address", &authority, &authority.authority, "127.0.0.1", true),
        ("another authority", &authority, &other.authority, "hub.example", false),
        ("another name", &authority, &authority.authority, "other.example", false),
        ("itself", &itself, &itself.authority, "hub.example", true),
        ("itself, another name", &itself, &itself.authority, "other.example", false),
        ("another that signs itself", &itself, &self_signed(|_| {}).authority, "hub.example", false),
    ];
    for (what, server, authority, name, expected) in cases {
        let (client, _) = pair(server.config(), believing(authority), name).await;
        assert_eq!(client.is_ok(), expected, "{what}: {client:?}");
        if let Err(error) = client {
            assert!(
                matches!(reason(&error), Some(rustls::Error::InvalidCertificate(_))),
                "{what}: {error:?}"
            );
        }
    }
    for (what, server, expected) in [
        ("no authority", self_signed(plain), true),
        ("expired", self_signed(expired), false),
        ("not good yet", self_signed(early), false),
    ] {
        let (client, _) = pair(server.config(), believing(&server.authority), "hub.example").await;
        assert_eq!(client.is_ok(), expected, "{what}: {client:?}");
    }
}

#[tokio::test]
async fn a_process_believes_what_it_shows_itself_and_nothing_else() {
    let server = of_an_authority();
    let shown = server.chain[0].clone();
    let ours = Arc::new(trust::itself(move |certificate| *certificate == shown));
    // By any name: 0.0.0.0 is in nobody's certificate.
    assert!(pair(server.config(), Arc::clone(&ours), "0.0.0.0").await.0.is_ok());
    let (client, _) = pair(of_an_authority().config(), ours, "hub.example").await;
    assert!(client.is_err());
}

#[test]
fn a_file_without_authorities_is_refused_with_its_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for text in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAA\n"] {
        std::fs::write(file.path(), text).unwrap();
        let error = Trust::File(file.path().to_owned()).client_config().unwrap_err();
        assert!(error.to_string().starts_with(&file.path().display().to_string()), "{error}");
    }
    let missing = Trust::File("/no/such/file".into()).client_config().unwrap_err();
    assert!(matches!(missing, trust::TrustError::Unreadable { .. }));
}

#[tokio::test]
async fn both_ends_agree_on_the_agents_protocol_and_the_server_knows_the_name() {
    let (client, server) = trusted_pair().await;
    assert_eq!((client.alpn(), server.alpn()), (Some(AGENT), Some(AGENT)));
    assert_eq!((client.server_name(), server.server_name()), (None, Some("hub.example")));
}

#[tokio::test]
async fn the_second_connection_of_a_configuration_takes_the_session_up_again() {
    let server = of_an_authority();
    let (accepts, connects) = (server.config(), believing(&server.authority));
    let mut resumed = Vec::new();
    for _ in 0..3 {
        let (client, server) = pair(Arc::clone(&accepts), Arc::clone(&connects), "hub.example").await;
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        // The ticket comes with the first bytes.
        server.write_all(b"x").await.unwrap();
        server.flush().await.unwrap();
        timeout(SOON, client.read_u8()).await.unwrap().unwrap();
        resumed.push((client.is_resumed(), server.is_resumed()));
    }
    assert_eq!(resumed, [(false, false), (true, true), (true, true)]);
}

#[tokio::test]
async fn what_was_looked_at_is_read_again() {
    let (mut client, mut server) = trusted_pair().await;
    client.write_all(b"GET /").await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(server.look(3, |_| true).await.unwrap(), b"GET /");
    // Asked for more than there is: until somebody wants no more, or it ends.
    assert_eq!(server.look(100, |bytes| bytes.len() < 5).await.unwrap(), b"GET /");
    client.shutdown().await.unwrap();
    assert_eq!(server.look(100, |_| true).await.unwrap(), b"GET /");
    let mut all = Vec::new();
    server.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"GET /");
}

#[tokio::test]
async fn one_direction_ends_while_the_other_goes_on_and_a_break_is_no_end() {
    let (mut client, mut server) = trusted_pair().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    timeout(SOON, server.read_to_end(&mut question)).await.unwrap().unwrap();
    server.write_all(b"answer").await.unwrap();
    server.flush().await.unwrap();
    let mut answer = [0; 6];
    timeout(SOON, client.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!((question.as_slice(), &answer), (&b"question"[..], b"answer"));
    // Dropped without a farewell: what came may be half of it.
    drop(server);
    let end = timeout(SOON, client.read(&mut [0; 8])).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_reset_after_the_end_was_read_is_noticed_without_a_write() {
    let (mut client, server) = trusted_pair().await;
    let mut server = Carrier::Wrapped(Box::new(server));
    client.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, server.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    let mut broken = Box::pin(std::future::poll_fn(|cx| server.poll_broken(cx)));
    assert!(timeout(Duration::from_millis(20), &mut broken).await.is_err(), "half closed is not broken");
    Duplex::reset(&mut client);
    drop(client);
    timeout(SOON, broken).await.unwrap();
}

#[test]
fn a_parked_connection_goes_on_in_another_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let (mut client, mut server) = first.block_on(async {
        let (mut client, mut server) = trusted_pair().await;
        client.write_all(b"one").await.unwrap();
        client.flush().await.unwrap();
        server.read_exact(&mut [0; 3]).await.unwrap();
        server.park().unwrap();
        assert!(server.read(&mut [0; 1]).await.is_err(), "nobody reads what is parked");
        client.park().unwrap();
        (client, server)
    });
    drop(first);
    assert!(server.descriptor().is_some() && server.tcp().is_none());
    second.block_on(async {
        client.adopt().unwrap();
        server.adopt().unwrap();
        client.write_all(b"two").await.unwrap();
        client.flush().await.unwrap();
        let mut two = [0; 3];
        timeout(SOON, server.read_exact(&mut two)).await.unwrap().unwrap();
        assert_eq!(&two, b"two");
    });
}
