//! Visitor, target and access log agree to the last request.

use std::{collections::BTreeMap, process::Command};

use e2e::{
    Hub, Machine, api, eventually, http,
    targets::{Nginx, succeeds},
    wait::SOON,
};
use serde_json::json;

const REQUESTS_VARIABLE: &str = "E2E_REQUESTS";
const REQUESTS: usize = 2_000;

#[test]
fn visitor_target_and_access_log_count_the_same() {
    counts_the_same(&["--h1", "-c", "16"]);
}

#[test]
fn visitor_target_and_access_log_count_the_same_over_http_2() {
    counts_the_same(&["-c", "4", "-m", "32"]);
}

#[track_caller]
fn counts_the_same(load: &[&str]) {
    let requests =
        std::env::var(REQUESTS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(REQUESTS);
    let file = vec![7_u8; 1_024];
    let nginx = Nginx::serving(&[("file.bin", &file)]);
    let mut hub = Hub::start();
    let machine = Machine::new(&hub);
    // Said, and not found out by looking: a look would be a request more in the log.
    let exposed = machine.expose_with(nginx.address, "files", &["--protocol", "http"]);
    let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "counted" }));
    let link = format!("{}/file.bin", api::text(&share, "shareUrl").trim_end_matches('/'));

    let report = succeeds(Command::new("h2load").args(["-n", &requests.to_string()]).args(load).arg(&link));
    assert!(report.contains(&format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout")), "{report}");
    assert!(report.contains(&format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx")), "{report}");

    eventually("nginx's log to be complete", SOON, || match nginx.log().len() {
        logged if logged == requests => Ok(()),
        logged => Err(format!("{logged} lines for {requests} requests")),
    });
    let share_id = api::text(&share, "id");
    let accesses = hub.api().accesses(&share_id);
    let mut kinds = BTreeMap::new();
    for access in &accesses {
        *kinds
            .entry(format!("{} {} {}", access["method"], access["path"], access["statusCode"]))
            .or_insert(0) += 1;
    }
    assert_eq!(kinds, BTreeMap::from([("\"GET\" \"/file.bin\" 200".to_owned(), requests)]));
    assert!(accesses.iter().all(|access| access["bytesOut"] == 1_024), "a body has another length");
    let mut ids: Vec<_> = accesses.iter().map(|access| access["id"].as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), requests, "an access is listed twice");
    let shares = hub.api().shares(&exposed.tunnel_id());
    assert_eq!(shares[0]["accessCount"], requests, "{shares:?}");

    assert!(hub.terminate().success());
    hub.verify_clean();
    hub.views_equal_rebuilt_ones();
}

#[test]
fn every_refusal_is_one_access() {
    let nginx = Nginx::answering_everything();
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose(nginx.address, "site");
    let rules = json!({ "name": "narrow", "allowedPaths": ["/open/*"], "allowedMethods": ["GET"] });
    let share = hub.api().create_share(&exposed.tunnel_id(), &rules);
    let (edge, _, prefix) = http::split_link(&api::text(&share, "shareUrl"));
    let prefix = prefix.trim_end_matches('/');
    let mut statuses = Vec::new();
    for (method, path) in
        [("GET", "/open/x"), ("GET", "/closed"), ("POST", "/open/x"), ("GET", "/open/%2e%2e/x")]
    {
        let answer = http::request(edge, method, &format!("{prefix}{path}"), &[], None).expect("an answer");
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [200, 403, 403, 400]);
    let accesses = hub.api().accesses(&api::text(&share, "id"));
    let mut recorded: Vec<_> = accesses.iter().filter_map(|access| access["statusCode"].as_u64()).collect();
    recorded.reverse();
    assert_eq!(recorded, [200, 403, 403, 400], "{accesses:?}");
    assert!(accesses.iter().all(|access| access["denied"].is_string() == (access["statusCode"] != 200)));
}
