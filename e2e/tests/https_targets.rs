//! Targets that speak HTTPS: checked certificates, the owner's decisions, raw bytes, and what is found by looking.

use std::process::Command;

use e2e::{
    Hub, Machine, api, eventually, http,
    targets::{Certificate, Nginx, succeeds},
    wait::SOON,
};
use serde_json::{Value, json};

const FILES: &[(&str, &[u8])] = &[("hello.txt", b"hello over TLS\n")];

/// What a link to the tunnel answers for the file.
#[track_caller]
fn through_a_link(hub: &Hub, tunnel_id: &str) -> http::Response {
    let share = hub.api().create_share(tunnel_id, &json!({ "name": "files" }));
    let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));
    http::get(edge, &format!("{path}/hello.txt"))
}

#[test]
fn a_certificate_that_is_not_trusted_is_refused_with_the_reason_and_raw_bytes_still_pass() {
    let certificate = Certificate::of_this_machine();
    let nginx = Nginx::serving_tls(&certificate, FILES);
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(nginx.address, "admin", &["--protocol", "https"]);
    let service = &exposed.says["service"];
    assert_eq!(service["status"], "error", "{service}");
    let reason = api::text(service, "statusReason");
    assert!(reason.contains("certificate") && reason.contains("--target-insecure"), "{reason}");
    let refused = through_a_link(&hub, &exposed.tunnel_id());
    assert_eq!(refused.status, 502, "{}", refused.text());
    let shown = machine.run(&["reach", "admin", "--check"]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("issued by") && text.contains("127.0.0.1 until"), "{text}");
    // Whoever reaches the port checks the certificate without help.
    let mut curl = Command::new("curl");
    curl.arg("--silent").arg("--fail").arg("--cacert").arg(&certificate.chain);
    let body = succeeds(curl.arg(format!("https://localhost:{}/hello.txt", exposed.tunnel_port())));
    assert_eq!(body.as_bytes(), FILES[0].1);
}

#[test]
fn the_agents_owner_decides_whose_certificates_are_good_and_takes_it_back() {
    let certificate = Certificate::of_this_machine();
    let nginx = Nginx::serving_tls(&certificate, FILES);
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let file = certificate.chain.display().to_string();
    for flags in [&["--target-ca", file.as_str()][..], &["--target-insecure"]] {
        let flags = [&["--protocol", "https"], flags].concat();
        let exposed = machine.expose_with(nginx.address, "admin", &flags);
        assert_eq!(exposed.says["service"]["status"], "active", "{}", exposed.says);
        let kind = if flags.len() == 4 { "issuers" } else { "unchecked" };
        assert_eq!(exposed.says["service"]["targetCertificate"], kind);
        let answer = through_a_link(&hub, &exposed.tunnel_id());
        assert_eq!((answer.status, answer.body.as_slice()), (200, FILES[0].1));
        let status = machine.run(&["--json", "status"]);
        let status: Value = serde_json::from_slice(&status.stdout).expect("it is JSON");
        assert_eq!(status["services"][0]["targetCertificate"], kind, "{status}");
    }
    // Exposed again without the flag it is checked again.
    let exposed = machine.expose_with(nginx.address, "admin", &["--protocol", "https"]);
    assert_eq!(exposed.says["service"]["status"], "error", "{}", exposed.says);
    assert_eq!(through_a_link(&hub, &exposed.tunnel_id()).status, 502);
}

#[test]
fn a_later_process_decides_for_the_one_that_holds_the_session() {
    let certificate = Certificate::of_this_machine();
    let (site, admin) = (Nginx::serving(FILES), Nginx::serving_tls(&certificate, FILES));
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let _holder = machine.expose_with(site.address, "site", &["--protocol", "http"]);
    let exposed = machine.expose_with(admin.address, "admin", &["--protocol", "https", "--target-insecure"]);
    assert_eq!(exposed.says["service"]["status"], "active", "{}", exposed.says);
    assert_eq!(through_a_link(&hub, &exposed.tunnel_id()).status, 200);
}

#[test]
fn connect_up_remembers_what_was_decided() {
    let certificate = Certificate::of_this_machine();
    let nginx = Nginx::serving_tls(&certificate, FILES);
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(nginx.address, "admin", &["--protocol", "https", "--target-insecure"]);
    let tunnel_id = exposed.tunnel_id();
    drop(exposed);
    let _up = machine.up();
    eventually("the tunnel to be active again", SOON, || hub.api().active_tunnel("admin"));
    assert_eq!(through_a_link(&hub, &tunnel_id).status, 200);
}

#[test]
fn what_an_auto_tunnel_leads_to_is_found_by_looking() {
    let certificate = Certificate::of_this_machine();
    let (plain, tls) = (Nginx::serving(FILES), Nginx::serving_tls(&certificate, FILES));
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let check = |id: &str| hub.api().post(&format!("/v1/services/{id}/check"), &json!({})).expect(200);

    let exposed = machine.expose_with(plain.address, "plain", &[]);
    assert_eq!(through_a_link(&hub, &exposed.tunnel_id()).status, 200);
    let found = check(&exposed.tunnel_id());
    assert_eq!((&found["protocol"], &found["http"]["ok"]), (&json!("http"), &json!(true)), "{found}");
    assert!(found.get("tls").is_none(), "{found}");

    let exposed = machine.expose_with(tls.address, "tls", &["--target-insecure"]);
    let answer = through_a_link(&hub, &exposed.tunnel_id());
    assert_eq!((answer.status, answer.body.as_slice()), (200, FILES[0].1));
    let found = check(&exposed.tunnel_id());
    assert_eq!((&found["protocol"], &found["tls"]["ok"]), (&json!("https"), &json!(true)), "{found}");
    let facts = &found["tls"]["certificate"];
    assert_eq!(facts["subjectAltNames"], json!(["localhost", "127.0.0.1"]), "{facts}");
    assert_eq!((&facts["isTrusted"], &facts["subject"]), (&json!(false), &facts["issuer"]), "{facts}");

    // Not trusted: reachable all the same, and its owner is told why links do not work.
    let exposed = machine.expose_with(tls.address, "distrusted", &[]);
    assert_eq!(exposed.says["service"]["status"], "active", "{}", exposed.says);
    assert_eq!(through_a_link(&hub, &exposed.tunnel_id()).status, 502);
    exposed.process.line("`distrusted`", SOON, |line| line.contains("\"distrusted\"").then_some(()));
    let found = check(&exposed.tunnel_id());
    assert_eq!((&found["tls"]["ok"], &found["reachable"]), (&json!(false), &json!(true)), "{found}");
}

#[test]
fn a_target_that_comes_back_speaking_tls_is_looked_at_anew() {
    let certificate = Certificate::of_this_machine();
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let plain = Nginx::serving(FILES);
    let address = plain.address;
    let exposed = machine.expose_with(address, "site", &["--target-insecure"]);
    assert_eq!(through_a_link(&hub, &exposed.tunnel_id()).status, 200);
    drop(plain);
    assert_eq!(through_a_link(&hub, &exposed.tunnel_id()).status, 502);
    let _tls = Nginx::serving_tls_at(address.port(), &certificate, FILES);
    eventually("the link to work again", SOON, || {
        let answer = through_a_link(&hub, &exposed.tunnel_id());
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    });
}
