//! `connect status`: what people see.

use super::*;
use crate::commands::tests::{assert_transcript, service};

#[test]
fn status_shows_hub_workspace_agent_and_services() {
    let mut private = service("prod-db", "localhost", 5432);
    private.protocol = "tcp".to_owned();
    let mut broken = service("staging-api", "::1", 8080);
    broken.protocol = "http".to_owned();
    broken.status = "error".to_owned();
    broken.status_reason = Some("cannot dial [::1]:8080".to_owned());
    broken.public_url = Some("https://abc123.share.example".to_owned());
    let mut unchecked = service("admin", "localhost", 8443);
    unchecked.protocol = "https".to_owned();
    let mut found = Found {
        fingerprint: Some("SHA256:mVPwvezndPv/ARoIadVY98vAC0g+P/5633yTC4d/wXE".to_owned()),
        hub: "http://127.0.0.1:7070/".to_owned(),
        health: Health {
            reason: None,
            status: "ok".to_owned(),
            database: "connected".to_owned(),
            version: "0.1.0".to_owned(),
            uptime: 1,
        },
        who: WhoAmI {
            workspace_id: "ws_1".to_owned(),
            workspace_name: "default".to_owned(),
            key_id: None,
            key_name: None,
            agent_id: None,
            scopes: Vec::new(),
        },
        agent: Some(Agent {
            id: "agent-1".to_owned(),
            name: "laptop".to_owned(),
            label: "laptop".to_owned(),
            status: "connected".to_owned(),
            client_type: None,
            created_at: String::new(),
            connected_at: None,
            last_seen_at: None,
            tunnel_count: 2,
            capabilities: Vec::new(),
        }),
        services: vec![private, broken, unchecked],
        checks: BTreeMap::from([("localhost:8443".to_owned(), CertificateCheck::Unchecked)]),
    };
    assert_transcript(&found.text(Face::TERMINAL), include_str!("../../../tests/transcripts/status.txt"));
    found.services.clear();
    assert!(found.text(Face::PIPE).ends_with("\nExpose one with: connect expose localhost:3000"));
}
