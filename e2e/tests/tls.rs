//! Hubs with certificates: real clients that believe an authority, and what is told to those who do not.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Output},
    time::{Duration, Instant},
};

use e2e::{
    Hub, Machine, api, eventually,
    hub::{ADMIN_KEY, Quickstart, shown},
    ports,
    targets::{Nginx, Postgres, succeeds},
    tls::{Authority, Pair},
    wait::SOON,
};
use rustix::process::Signal;

/// A slow client is cut within this (reliability-and-security.md, S22).
const CUT_WITHIN: Duration = Duration::from_secs(30);

fn hub_of(authority: &Authority, more: &[(&str, &str)]) -> (Hub, Pair) {
    let pair = authority.issue("hub", &["127.0.0.1", "localhost", "links.test", "*.links.test", "hub.test"]);
    let hub = Hub::start_with(&[&pair.settings()[..], more].concat());
    (hub, pair)
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn psql_works_through_a_hub_with_a_certificate_of_its_own_authority() {
    let (authority, postgres) = (Authority::new(), Postgres::start());
    let (hub, _) = hub_of(&authority, &[]);
    assert!(hub.url().starts_with("https://"), "{}", hub.url());
    let (server, laptop) =
        (Machine::new(&hub).believing(&authority.ca()), Machine::new(&hub).believing(&authority.ca()));
    let _exposed = server.expose(postgres.address, "prod-db");
    let reached = laptop.reach("prod-db");
    let psql = |query: &str| succeeds(Postgres::client("psql", reached.local_port).args(["-Atc", query]));
    assert_eq!(psql("select 41 + 1").trim(), "42");
    assert_eq!(psql("select repeat('x', 1000) from generate_series(1, 5000)").len(), 5_000 * 1_001);
    let pgbench = |arguments: &[&str]| {
        succeeds(Postgres::client("pgbench", reached.local_port).args(arguments).arg("postgres"))
    };
    pgbench(&["-i", "-q", "-s", "1"]);
    let report = pgbench(&["-n", "-c", "8", "-j", "2", "-T", "3"]);
    assert!(report.contains("number of failed transactions: 0 (0.000%)"), "{report}");
}

#[test]
fn a_login_remembers_the_authority_and_an_agent_comes_back_after_a_restart() {
    let (authority, nginx) = (Authority::new(), Nginx::answering_everything());
    let (mut hub, _) = hub_of(&authority, &[]);
    let machine = Machine::new(&hub);
    let ca = authority.ca();
    let mut login = machine.connect(&["--json", "--api-key", ADMIN_KEY, "--ca"]);
    let login = e2e::process::Process::spawn("connect up", login.arg(&ca).arg("up"));
    login.line("that it is registered", SOON, |line| line.contains("\"registered\"").then_some(()));
    // Without `--ca` from now on.
    let exposed = machine.expose(nginx.address, "site");
    let status = machine.run(&["status"]);
    assert!(status.status.success(), "{}", shown(&status));
    hub.terminate();
    hub.restart();
    let url = format!("{}/v1/tunnels/{}", hub.url(), exposed.tunnel_id());
    let key = format!("x-api-key: {ADMIN_KEY}");
    eventually("the tunnel is active again", SOON, || {
        let (status, body) = authority.status(&["-H", &key, &url])?;
        if status == 200 && body.contains("\"active\"") { Ok(()) } else { Err(format!("{status} {body}")) }
    });
}

#[test]
fn a_hub_that_is_not_believed_gets_no_key_and_the_error_says_what_to_do() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (hub, _) = hub_of(&authority, &[]);
    let misnamed = authority.issue("misnamed", &["elsewhere.test"]);
    let misnamed = Hub::start_with(&misnamed.settings());
    let plain = Hub::start();
    let with_scheme = |scheme: &str, address: SocketAddr| format!("{scheme}://{address}");
    let believing = |machine: Machine| machine.believing(&authority.ca());
    let by = |url: &str| Machine::with(url, ADMIN_KEY);
    for (what, machine, expected) in [
        ("the system's authorities", Machine::new(&hub), "--ca FILE"),
        ("another authority", Machine::new(&hub).believing(&other.ca()), "--ca FILE"),
        ("another name", believing(Machine::new(&misnamed)), "not for 127.0.0.1 but for elsewhere.test"),
        ("no file", Machine::new(&hub).believing("/no/such/file".as_ref()), "/no/such/file"),
        (
            "TLS to a plain hub",
            believing(by(&with_scheme("https", plain.api_address))),
            "begins with http://",
        ),
        ("plain to a hub with TLS", by(&with_scheme("http", hub.api_address)), "https://"),
    ] {
        for command in [&["whoami"][..], &["expose", "127.0.0.1:1", "--name", "x"]] {
            let output = machine.run(command);
            assert!(matches!(output.status.code(), Some(1 | 2)), "{what}: {}", shown(&output));
            assert!(words(&output).contains(expected), "{what}: {}", shown(&output));
        }
    }
}

#[test]
fn a_certificate_that_openssl_signs_itself_is_believed_when_it_is_named() {
    // The command of docs/how-to/tls.md; such a certificate calls itself an authority.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [key, cert] = ["key.pem", "cert.pem"].map(|name| folder.path().join(name));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args([
        "-days",
        "365",
        "-subj",
        "/CN=hub.lan",
        "-addext",
        "subjectAltName=DNS:hub.lan,IP:127.0.0.1",
    ]);
    succeeds(openssl.arg("-keyout").arg(&key).arg("-out").arg(&cert));
    let pair = Pair { cert: cert.clone(), key };
    let hub = Hub::start_with(&pair.settings());
    let named = Machine::new(&hub).believing(&cert).run(&["whoami"]);
    assert!(named.status.success(), "{}", shown(&named));
    let other = Authority::new();
    let unnamed = Machine::new(&hub).believing(&other.ca()).run(&["whoami"]);
    assert!(words(&unnamed).contains("--ca FILE"), "{}", shown(&unnamed));
}

#[test]
fn links_are_https_in_both_forms_and_plain_http_is_sent_there() {
    let (authority, nginx) =
        (Authority::new(), Nginx::serving(&[("index.html", b"<!doctype html><p>page</p>")]));
    let edge = ports::free_port();
    let base = format!("https://links.test:{edge}");
    let pair = authority.issue("hub", &["127.0.0.1", "links.test", "*.links.test"]);
    let settings = [("HUB_BASE_DOMAIN", "links.test"), ("HUB_LINK_BASE_URL", &base)];
    let settings = [&pair.settings()[..], &settings].concat();
    let hub = Hub::start_at("127.0.0.1:0", &format!("127.0.0.1:{edge}"), &settings);
    let machine = Machine::new(&hub).believing(&authority.ca());
    let exposed = machine.expose_with(nginx.address, "site", &["--link"]);
    let share = &exposed.says["share"];
    let (link, slug) = (api::text(share, "shareUrl"), api::text(share, "subdomainUrl"));
    assert!(link.starts_with(&format!("{base}/shared/")) && slug.starts_with("https://"), "{share}");
    let host = slug.trim_start_matches("https://").split(':').next().expect("a host").to_owned();
    let resolve = [format!("links.test:{edge}:127.0.0.1"), format!("{host}:{edge}:127.0.0.1")];
    let resolving = ["--resolve", &resolve[0], "--resolve", &resolve[1]];
    let get = |more: &[&str]| authority.status(&[&resolving[..], more].concat());
    for url in [&link, &slug] {
        for version in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"]] {
            let (status, page) = get(&[version, &[url.as_str()]].concat()).expect("an answer");
            assert!(status == 200 && page.contains("<p>page</p>"), "{url}: {status} {page}");
        }
        for (asked, spoken) in [("--http2", "2"), ("--http1.1", "1.1")] {
            let said = ["-o", "/dev/null", "-w", "%{http_version}", asked, url];
            let shown = authority.curl(&[&resolving[..], &said].concat()).stdout;
            assert_eq!(String::from_utf8_lossy(&shown), spoken, "{url}");
        }
        assert!(get(&["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", url]).is_err(), "nothing older");
        let plain = url.replace("https://", "http://");
        assert_eq!(get(&[&plain]).expect("an answer").0, 308);
        let (status, page) = get(&["--location", &plain]).expect("an answer");
        assert!(status == 200 && page.contains("<p>page</p>"), "{plain}: {status} {page}");
    }
    // One name in the handshake and another in the request.
    let misdirected = get(&["-H", "Host: links.test", &slug]).expect("an answer");
    assert_eq!(misdirected.0, 421, "{}", misdirected.1);
    // Whoever asks for a name that nobody has learns no name from the certificate but the hub's own.
    let stranger = format!("unknown.links.test:{edge}:127.0.0.1");
    let asked = authority.status(&["--resolve", &stranger, &format!("https://unknown.links.test:{edge}/")]);
    assert_eq!(asked.expect("an answer").0, 404);
}

#[test]
fn the_api_tells_plain_http_to_use_tls() {
    let authority = Authority::new();
    let (hub, _) = hub_of(&authority, &[]);
    let plain = format!("http://{}/v1/whoami", hub.api_address);
    let key = format!("x-api-key: {ADMIN_KEY}");
    let (status, body) = authority.status(&["-H", &key, &plain]).expect("an answer");
    assert!(
        status == 400 && body.contains("\"tls_required\"") && !body.contains(ADMIN_KEY),
        "{status} {body}"
    );
    let (status, _) = authority.status(&["-H", "Accept: text/html", &plain]).expect("an answer");
    assert_eq!(status, 308, "a browser's address bar");
    let secure = format!("{}/v1/whoami", hub.url());
    assert_eq!(authority.status(&["-H", &key, &secure]).expect("an answer").0, 200);
    let (status, body) =
        authority.status(&["-H", &key, "-H", "Host: other.test", &secure]).expect("an answer");
    assert_eq!(status, 200, "by address no name was asked for: {body}");
    let port = hub.api_address.port();
    let resolve = format!("hub.test:{port}:127.0.0.1");
    let named = format!("https://hub.test:{port}/v1/whoami");
    let ask = |more: &[&str]| {
        authority
            .status(&[&["--resolve", &resolve, "-H", &key][..], more, &[&named]].concat())
            .expect("an answer")
    };
    assert_eq!(ask(&[]).0, 200);
    let (status, body) = ask(&["-H", "Host: other.test"]);
    assert!(status == 421 && body.contains("\"misdirected_request\""), "{status} {body}");
}

#[test]
fn a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_never() {
    let (former, later) = (Authority::new(), Authority::new());
    let (hub, pair) = hub_of(&former, &[]);
    let (health, metrics) = (format!("{}/health", hub.url()), format!("{}/metrics", hub.url()));
    let is_ok = |authority: &Authority| match authority.status(&[&health])? {
        (200, _) => Ok(()),
        (status, body) => Err(format!("{status} {body}")),
    };
    is_ok(&former).expect("the certificate it started with");
    let gauge = |authority: &Authority, name: &str| -> Result<String, String> {
        let (_, text) = authority.status(&[&metrics])?;
        let line = text.lines().find(|line| line.starts_with(name)).ok_or("no such metric")?;
        Ok(line.rsplit(' ').next().unwrap_or_default().to_owned())
    };
    let stale = "pconnect_tls_certificate_stale{listener=\"api\"}";

    std::fs::write(&pair.cert, "half a file").expect("the folder is ours");
    eventually("the broken certificate is noticed", SOON, || match gauge(&former, stale)?.as_str() {
        "1" => Ok(()),
        other => Err(other.to_owned()),
    });
    is_ok(&former).expect("the certificate it started with");
    assert!(hub.stderr().contains("cannot be used"), "{}", hub.stderr());

    pair.replace_by(&later.issue("renewed", &["127.0.0.1"]));
    eventually("the renewed certificate", SOON, || is_ok(&later));
    assert!(is_ok(&former).is_err(), "the former one is gone");
    assert_eq!(gauge(&later, stale).expect("metrics"), "0");
    let ends = gauge(&later, "pconnect_tls_certificate_expiry_timestamp_seconds{listener=\"edge\"}");
    assert!(ends.expect("metrics").parse::<f64>().expect("a number") > 1.7e9);

    // A hub that is told to look does so, and goes on.
    pair.replace_by(&former.issue("again", &["127.0.0.1"]));
    hub.signal(Signal::HUP);
    eventually("the certificate after SIGHUP", SOON, || is_ok(&former));
}

#[test]
fn a_public_address_without_tls_is_refused_with_the_ways_out() {
    let local = "127.0.0.1:0";
    for (api, edge, what) in [("0.0.0.0:0", local, "the API"), (local, "[::]:0", "the edge")] {
        let (status, words) = Hub::refused(api, edge, &[]);
        assert_eq!(status.code(), Some(1), "{words}");
        for part in [what, "--tls-cert", "--insecure-public", "127.0.0.1"] {
            assert!(words.contains(part), "no `{part}` in: {words}");
        }
    }
    let hub = Hub::start_at("0.0.0.0:0", local, &[("HUB_INSECURE_PUBLIC", "on")]);
    assert!(hub.stderr().contains("without TLS"), "{}", hub.stderr());
    let authority = Authority::new();
    let pair = authority.issue("hub", &["127.0.0.1"]);
    Hub::start_at("0.0.0.0:0", "0.0.0.0:0", &pair.settings());
    let (status, words) = Hub::refused(local, local, &pair.settings()[..1]);
    assert!(status.code() == Some(1) && words.contains("--tls-key"), "{words}");
    let broken = authority.issue("broken", &["127.0.0.1"]);
    std::fs::write(&broken.key, "no key").expect("the folder is ours");
    let (status, words) = Hub::refused(local, local, &broken.settings());
    assert!(status.code() == Some(1) && words.contains("has no private key"), "{words}");
}

#[test]
fn one_port_serves_agents_api_and_links() {
    let (authority, nginx) = (Authority::new(), Nginx::answering_everything());
    let port = ports::free_port();
    let at = format!("127.0.0.1:{port}");
    let pair = authority.issue("hub", &["127.0.0.1", "hub.links.test", "links.test", "*.links.test"]);
    let public = format!("https://hub.links.test:{port}");
    let settings = [("HUB_BASE_DOMAIN", "links.test"), ("HUB_PUBLIC_URL", &public)];
    let hub = Hub::start_at(&at, &at, &[&pair.settings()[..], &settings].concat());
    assert_eq!(hub.api_address, hub.edge_address);
    let machine = Machine::new(&hub).believing(&authority.ca());
    let exposed = machine.expose_with(nginx.address, "site", &["--link"]);
    let share = &exposed.says["share"];
    let (link, slug) = (api::text(share, "shareUrl"), api::text(share, "subdomainUrl"));
    assert!(link.starts_with(&format!("https://links.test:{port}/shared/")), "{link}");
    let host = slug.trim_start_matches("https://").split(':').next().expect("a host").to_owned();
    let hosts = ["links.test", "hub.links.test", &host];
    let resolving: Vec<String> =
        hosts.iter().flat_map(|host| ["--resolve".to_owned(), format!("{host}:{port}:127.0.0.1")]).collect();
    let get = |url: &str| {
        let mut arguments: Vec<&str> = resolving.iter().map(String::as_str).collect();
        arguments.push(url);
        authority.status(&arguments).expect("an answer")
    };
    assert_eq!(get(&link), (200, "ok".to_owned()));
    assert_eq!(get(&slug), (200, "ok".to_owned()));
    assert_eq!(get(&format!("{public}/health")).0, 200);
    // The API's paths are not the edge's, nor the other way round.
    assert_eq!(get(&format!("https://links.test:{port}/health")).0, 404);
    let token = link.rsplit('/').find(|part| !part.is_empty()).expect("a token");
    assert_eq!(get(&format!("{public}/shared/{token}")).0, 404);

    let (status, words) = Hub::refused(&at, &at, &[("HUB_BASE_DOMAIN", "links.test")]);
    assert!(status.code() == Some(1) && words.contains("needs TLS"), "{words}");
}

#[test]
fn quickstart_works_with_a_certificate_that_does_not_name_its_own_address() {
    let authority = Authority::new();
    let pair = authority.issue("hub", &["hub.example.test"]);
    let quickstart = Quickstart::start_with(None, &pair.settings());
    let (api, link) = (api::text(&quickstart.says, "api"), api::text(&quickstart.says, "shareUrl"));
    assert!(api.starts_with("https://127.0.0.1:") && link.starts_with("https://127.0.0.1:"), "{api} {link}");
    // The agent in its process believes it; curl is told the name.
    let rest = link.trim_start_matches("https://127.0.0.1:");
    let (port, path) = rest.split_once('/').expect("a path");
    let resolve = format!("hub.example.test:{port}:127.0.0.1");
    let url = format!("https://hub.example.test:{port}/{path}/");
    let (status, page) = authority.status(&["--resolve", &resolve, &url]).expect("an answer");
    assert_eq!(status, 200, "{page}");
}

#[test]
fn handshakes_that_never_end_are_cut_and_keep_nobody_out() {
    const SLOW: usize = 300;
    let authority = Authority::new();
    let (hub, _) = hub_of(&authority, &[("HUB_HEAD_TIMEOUT_MS", "5000")]);
    let health = format!("{}/health", hub.url());
    let begun = Instant::now();
    let mut slow: Vec<TcpStream> = Vec::new();
    for address in [hub.api_address, hub.edge_address] {
        for n in 0..SLOW {
            let mut stream = TcpStream::connect(address).expect("the hub listens");
            // A ClientHello of 512 bytes: the beginning of one, or none of it.
            let beginning: &[u8] = if n % 2 == 0 { &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc] } else { &[] };
            stream.write_all(beginning).expect("the hub takes it");
            stream.set_nonblocking(true).expect("a socket can be non-blocking");
            slow.push(stream);
        }
    }
    let memory = hub.resident_bytes();
    eventually("all of them are cut", CUT_WITHIN, || {
        // A byte now and then buys no time.
        slow.retain_mut(|stream| {
            let _gone = stream.write(&[0]);
            let ended = stream.read(&mut [0; 64]);
            !matches!(ended, Ok(0))
                && !ended.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
        });
        let asked = Instant::now();
        assert_eq!(authority.status(&[&health]).expect("others are answered").0, 200);
        assert!(asked.elapsed() < Duration::from_secs(2), "others had to wait {:?}", asked.elapsed());
        if slow.is_empty() { Ok(()) } else { Err(format!("{} are left", slow.len())) }
    });
    assert!(begun.elapsed() < CUT_WITHIN, "{:?}", begun.elapsed());
    let grown = hub.resident_bytes().saturating_sub(memory);
    assert!(grown < 32 << 20, "the hub grew by {grown} bytes");
}
