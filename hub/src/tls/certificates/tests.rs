//! Files that change under a running hub, for better and for worse.

use std::os::unix::fs::symlink;

use rustls::{ClientConfig, ClientConnection, ServerConnection, client::Resumption, pki_types::ServerName};

use super::{super::testing::Authority, *};
use crate::tls::{API_PROTOCOLS, Speaker, acme::AcmePlan};

/// The certificate that a client sees who asks for a name, for the first time: one that takes up a session sees none.
fn seen(speaker: &Speaker, config: &ClientConfig, name: &str) -> Option<CertificateDer<'static>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut config = config.clone();
    config.resumption = Resumption::disabled();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(&speaker.config)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut sent = Vec::new();
        client.write_tls(&mut sent).unwrap();
        server.read_tls(&mut sent.as_slice()).unwrap();
        let served = server.process_new_packets();
        let mut sent = Vec::new();
        server.write_tls(&mut sent).unwrap();
        client.read_tls(&mut sent.as_slice()).unwrap();
        client.process_new_packets().ok()?;
        served.ok()?;
    }
    client.peer_certificates().map(|chain| chain[0].clone().into_owned())
}

fn first(files: &PairFiles) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&files.cert).unwrap()
}

#[test]
fn a_changed_pair_is_shown_to_the_next_connection_and_a_broken_one_never() {
    let authority = Authority::new();
    let believer = authority.believer();
    let files = authority.issue("hub", &["hub.example"]);
    let certificates = Certificates::open(Some(files.clone()), None).unwrap();
    let speaker = Speaker::new(Arc::clone(&certificates), API_PROTOCOLS).unwrap();
    let shown = || seen(&speaker, &believer, "hub.example").unwrap();
    let original = first(&files);
    assert_eq!(shown(), original);
    certificates.refresh(Refresh::IfChanged);
    assert!(!certificates.is_stale());

    // As many tools do it: the certificate first, its key later.
    let former_key = fs::read(&files.key).unwrap();
    let renewed = authority.issue("hub", &["hub.example"]);
    let renewed_key = fs::read(&files.key).unwrap();
    fs::write(&files.key, &former_key).unwrap();
    certificates.refresh(Refresh::IfChanged);
    assert_eq!((shown(), certificates.is_stale()), (original.clone(), true));
    fs::write(&files.key, &renewed_key).unwrap();
    certificates.refresh(Refresh::IfChanged);
    assert_eq!((shown(), certificates.is_stale()), (first(&renewed), false));

    let good = (fs::read(&files.cert).unwrap(), renewed_key);
    for (cert, key) in [
        (b"".as_slice(), good.1.as_slice()),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &good.1),
        (&good.0, b"no key"),
        (&good.1, &good.1),
    ] {
        fs::write(&files.cert, cert).unwrap();
        fs::write(&files.key, key).unwrap();
        certificates.refresh(Refresh::IfChanged);
        assert_eq!((shown(), certificates.is_stale()), (first_of(&good.0), true));
    }
    fs::remove_file(&files.cert).unwrap();
    certificates.refresh(Refresh::IfChanged);
    assert_eq!((shown(), certificates.is_stale()), (first_of(&good.0), true));
    fs::write(&files.cert, &good.0).unwrap();
    fs::write(&files.key, &good.1).unwrap();
    certificates.refresh(Refresh::IfChanged);
    assert!(!certificates.is_stale());
}

fn first_of(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).unwrap()
}

#[test]
fn a_link_that_points_elsewhere_is_another_file() {
    let authority = Authority::new();
    let [one, two] = ["one", "two"].map(|file| authority.issue(file, &["hub.example"]));
    let files = PairFiles { cert: authority.file("live.pem"), key: authority.file("live.key") };
    let point_at = |pair: &PairFiles| {
        for (link, at) in [(&files.cert, &pair.cert), (&files.key, &pair.key)] {
            let _ = fs::remove_file(link);
            symlink(at, link).unwrap();
        }
    };
    point_at(&one);
    let certificates = Certificates::open(Some(files.clone()), None).unwrap();
    point_at(&two);
    certificates.refresh(Refresh::IfChanged);
    assert_eq!(certificates.shown().unwrap().key.cert[0], first(&two));
}

#[test]
fn a_start_needs_a_pair_that_can_be_used_and_names_what_is_wrong() {
    let authority = Authority::new();
    let good = authority.issue("good", &["hub.example"]);
    let other = authority.issue("other", &["hub.example"]);
    let missing = authority.file("missing");
    for (cert, key, words) in [
        (&good.cert, &other.key, "do not belong together"),
        (&missing, &good.key, "missing cannot be read"),
        (&good.cert, &missing, "missing cannot be read"),
        (&good.key, &good.key, "has no certificate in PEM form"),
        (&good.cert, &good.cert, "has no private key in PEM form"),
    ] {
        let files = PairFiles { cert: cert.clone(), key: key.clone() };
        let error = Certificates::open(Some(files), None).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn whatever_name_is_asked_for_the_same_certificate_is_shown() {
    let authority = Authority::new();
    let speaker = authority.speaker(&["hub.example", "*.link.example"], API_PROTOCOLS);
    let ours = speaker.certificates.shown().unwrap().key.cert[0].clone().into_owned();
    let ours_at = Arc::new(ours.clone());
    let anyone = wire::tls::trust::itself(move |theirs| *theirs == *ours_at);
    for name in ["hub.example", "a.link.example", "b.link.example", "stranger.example", "127.0.0.1"] {
        assert_eq!(seen(&speaker, &anyone, name), Some(ours.clone()), "{name}");
    }
    assert!(speaker.certificates.names("x.link.example") && !speaker.certificates.names("stranger.example"));
}

#[test]
fn an_authority_that_asks_sees_its_answer_and_others_never_do() {
    let authority = Authority::new();
    let plan = AcmePlan {
        domains: vec!["hub.example".to_owned()],
        email: None,
        directory: "https://ca.example/".to_owned(),
        ca: None,
    };
    let issued = Issued::new(&plan);
    let files = authority.issue("files", &["files.example"]);
    let from_files = first(&files);
    let certificates = Certificates::open(Some(files), Some(Arc::clone(&issued))).unwrap();
    let speaker = Speaker::new(certificates, API_PROTOCOLS).unwrap();
    let anyone = wire::tls::trust::itself(|_| true);
    // rustls itself takes no certificate with a proof in it, but shows it first.
    let asked = |name: &str| {
        let seen_by_authority: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
        let keep = Arc::clone(&seen_by_authority);
        let mut asking = wire::tls::trust::itself(move |theirs| {
            *keep.lock() = Some(theirs.to_vec());
            true
        });
        asking.alpn_protocols = vec![super::super::acme::ACME_TLS.to_vec()];
        let _ = seen(&speaker, &asking, name);
        seen_by_authority.lock().take()
    };
    assert_eq!(asked("hub.example"), None, "nothing is being proven");
    issued.prove("hub.example", &[7; 32]).unwrap();
    let proof = asked("hub.example").unwrap();
    assert!(proof.windows(32).any(|bytes| bytes == [7; 32]), "what the authority wants to see");
    assert_eq!(asked("other.example"), None);
    // Nothing was issued yet: what there is.
    assert_eq!(seen(&speaker, &anyone, "hub.example"), Some(from_files.clone()));

    let given = authority.issue("given", &["hub.example"]);
    issued.show(load(&given).unwrap());
    assert_eq!(seen(&speaker, &anyone, "hub.example"), Some(first(&given)));
    assert_eq!(seen(&speaker, &anyone, "files.example"), Some(from_files));
}
