//! Requests around a `kill -9` of the hub: asked again, they are answered as if nothing had happened, and what belongs
//! together is there whole or not at all.

use std::{io, thread, time::Duration};

use e2e::{Api, Hub, api, http::Response};
use serde_json::{Value, json};

/// How long after a request was sent the hub is killed (milliseconds): before its first write, between its writes, after
/// the answer. Which of these it is depends on the machine; the outcome does not.
const MOMENTS_MS: [u64; 8] = [0, 1, 2, 4, 7, 12, 20, 500];

/// Sends a request and kills the hub so long afterwards; the answer, if one came.
fn sent_and_killed(
    hub: &mut Hub,
    moment: Duration,
    send: impl FnOnce(Api) -> io::Result<Response> + Send + 'static,
) -> Option<Response> {
    let api = hub.api();
    let request = thread::spawn(move || send(api));
    thread::sleep(moment);
    hub.kill9();
    let answer = request.join().expect("a request that is cut off is an error, no panic");
    hub.verify_clean();
    hub.restart();
    answer.ok()
}

fn create(api: &Api, key: &str, body: &Value) -> io::Result<Response> {
    api.call("POST", "/v1/tunnels", &[("idempotency-key", key)], Some(body))
}

#[test]
fn a_tunnel_that_is_asked_for_again_with_its_key_after_a_kill_is_one_tunnel_with_one_answer() {
    let mut hub = Hub::start();
    let (agent, _) = hub.api().register_agent("idle");
    let mut answered = 0;
    for (round, moment) in (0_u16..).zip(MOMENTS_MS) {
        let (key, port) = (format!("round-{round}"), 9_001 + round);
        let body = json!({ "target": format!("localhost:{port}"), "agentId": agent });
        let (sent, with) = (body.clone(), key.clone());
        let moment = Duration::from_millis(moment);
        let first = sent_and_killed(&mut hub, moment, move |api| create(&api, &with, &sent));

        let again = create(&hub.api(), &key, &body).expect("the hub is back").expect(201);
        if let Some(first) = first {
            answered += 1;
            assert_eq!(first.expect(201), again, "round {round}");
        }
        let once_more = create(&hub.api(), &key, &body).expect("it is there still").expect(201);
        assert_eq!(once_more, again, "round {round}");
        let made = hub.api().tunnels().iter().filter(|tunnel| tunnel["targetPort"] == port).count();
        assert_eq!(made, 1, "round {round}, killed after {moment:?}");
    }
    assert!(answered > 0, "half a second is enough for an answer");
    assert!(hub.terminate().success());
    hub.verify_clean();
    hub.views_equal_rebuilt_ones();
}

#[test]
fn a_name_and_a_pause_that_were_asked_for_together_are_both_there_after_a_kill_or_neither() {
    let mut hub = Hub::start();
    let (agent, _) = hub.api().register_agent("idle");
    for (round, moment) in (0_u16..).zip(MOMENTS_MS) {
        let tunnel = hub.api().create_tunnel(&agent, "localhost:9", &format!("before-{round}"));
        let path = format!("/v1/tunnels/{}", api::text(&tunnel, "id"));
        let asked = path.clone();
        let body = json!({ "name": format!("after-{round}"), "status": "paused" });
        let first = sent_and_killed(&mut hub, Duration::from_millis(moment), move |api| {
            api.call("PATCH", &asked, &[], Some(&body))
        });
        let kept = hub.api().get(&path).expect(200);
        let (name, status) = (api::text(&kept, "name"), api::text(&kept, "status"));
        let is_changed = match (name.split_once('-').map_or("", |(word, _)| word), status.as_str()) {
            ("after", "paused") => true,
            ("before", "connecting") => false,
            half => panic!("round {round}, killed after {moment} ms: {half:?}"),
        };
        if let Some(first) = first {
            first.expect(200);
            assert!(is_changed, "round {round}: what was acknowledged is lost: {kept}");
        }
    }
    assert!(hub.terminate().success());
    hub.verify_clean();
}

#[test]
fn an_etag_is_as_good_after_a_kill_as_before_and_an_old_one_as_bad() {
    let mut hub = Hub::start();
    let (agent, _) = hub.api().register_agent("idle");
    let tunnel = hub.api().create_tunnel(&agent, "localhost:9", "web");
    let path = format!("/v1/tunnels/{}", api::text(&tunnel, "id"));
    let etag = |answer: &Response| answer.header("etag").expect("a tunnel has one").to_owned();
    let change = |api: &Api, if_match: &str, name: &str| {
        let body = json!({ "name": name, "status": "paused" });
        let changed = api.call("PATCH", &path, &[("if-match", if_match)], Some(&body));
        changed.expect("the hub answers")
    };
    let old = etag(&hub.api().get(&path));
    let changed = change(&hub.api(), &old, "site");
    changed.expect(200);
    let new = etag(&changed);
    hub.kill9();
    hub.restart();
    let refused = change(&hub.api(), &old, "late").expect(412);
    assert_eq!(refused["code"], "etag_mismatch");
    let kept = hub.api().get(&path);
    assert_eq!((api::text(&kept.expect(200), "name"), etag(&kept)), ("site".to_owned(), new.clone()));
    change(&hub.api(), &new, "shop").expect(200);
}
