//! Certificates from an ACME authority: asked for, shown, kept over a restart, renewed in time.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Duration};

use e2e::{Hub, eventually, ports, targets::Pebble, wait::SOON};

const NAME: &str = "hub.acme.test";
/// An order takes a few questions and answers; the machine may be busy.
const ISSUED_WITHIN: Duration = Duration::from_secs(40);

/// What a hub needs to know of an authority.
fn settings(pebble: &Pebble) -> Vec<(String, String)> {
    let ca = pebble.authority.ca().to_str().expect("our own names are UTF-8").to_owned();
    [
        ("HUB_TLS_ACME_DOMAINS", format!("{NAME},links.acme.test")),
        ("HUB_TLS_ACME_EMAIL", "ops@acme.test".to_owned()),
        ("HUB_TLS_ACME_DIRECTORY", pebble.directory()),
        ("HUB_TLS_ACME_CA", ca),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn start(pebble: &Pebble, api: u16, edge: u16) -> Hub {
    let settings = settings(pebble);
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
    Hub::start_at(&format!("127.0.0.1:{api}"), &format!("127.0.0.1:{edge}"), &settings)
}

/// The status that a client gets who believes the authority, by a name and a port.
fn status(root: &Path, name: &str, port: u16, path: &str) -> Result<String, String> {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "10", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}"]);
    command.arg("--cacert").arg(root).args(["--resolve", &format!("{name}:{port}:127.0.0.1")]);
    let output = command.arg(format!("https://{name}:{port}{path}")).output().expect("curl can be started");
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_certificate_comes_from_the_authority_is_kept_and_is_renewed_in_time() {
    // A third of it is for the renewal: Pebble has the hub wait for 5 s more than once.
    const LIFE_S: u32 = 60;
    let [api, edge] = [(); 2].map(|()| ports::free_port());
    let Some(pebble) = Pebble::start(api, LIFE_S) else { return };
    let root = pebble.root();
    let mut hub = start(&pebble, api, edge);
    let answers = |name: &str, port: u16, path: &str, expected: &str| match status(&root, name, port, path)? {
        found if found == expected => Ok(()),
        found => Err(found),
    };
    eventually("the first certificate", ISSUED_WITHIN, || answers(NAME, api, "/health", "200"));
    answers("links.acme.test", edge, "/", "404").expect("the edge shows it too");
    let folder = hub.data().join("state/acme");
    let kept = || fs::read_to_string(folder.join("certificate.json")).expect("it is kept");
    let first = kept();
    for entry in fs::read_dir(&folder).expect("the folder is there") {
        let entry = entry.expect("the folder can be read");
        let mode = entry.metadata().expect("the file is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
    assert!(folder.join("account.json").is_file());

    hub.terminate();
    hub.restart();
    eventually("the kept certificate", SOON, || answers(NAME, api, "/health", "200"));
    assert_eq!(kept(), first, "nothing was asked for again");
    let stderr = hub.stderr();
    assert!(!stderr.contains("PRIVATE KEY"), "{stderr}");

    eventually("the renewed certificate", Duration::from_secs(LIFE_S.into()) + ISSUED_WITHIN, || {
        answers(NAME, api, "/health", "200")
            .inspect_err(|error| panic!("a gap: {error}\nthe hub says: {}", hub.stderr()))?;
        if kept() == first { Err("still the first".to_owned()) } else { Ok(()) }
    });
}

#[test]
fn the_authority_may_ask_at_the_edge_as_well() {
    let [api, edge] = [(); 2].map(|()| ports::free_port());
    let Some(pebble) = Pebble::start(edge, 3_600) else { return };
    let root = pebble.root();
    let _hub = start(&pebble, api, edge);
    eventually("the certificate", ISSUED_WITHIN, || match status(&root, NAME, api, "/health")?.as_str() {
        "200" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn an_authority_that_cannot_reach_the_hub_is_said_with_its_words() {
    let [api, edge, nobody] = [(); 3].map(|()| ports::free_port());
    let Some(pebble) = Pebble::start(nobody, 3_600) else { return };
    let hub = start(&pebble, api, edge);
    eventually("the failure in the telemetry", ISSUED_WITHIN, || {
        let said = hub.stderr();
        let is_said = said.contains("no certificate for hub.acme.test") && said.contains("could not verify");
        if is_said { Ok(()) } else { Err(said) }
    });
    // Nothing is shown that nobody vouches for.
    assert!(status(&pebble.root(), NAME, api, "/health").is_err());
}
