//! Rate limits hold, also for somebody who comes by many ways at once and after a hub that was killed.

use std::{
    thread,
    time::{Duration, Instant},
};

use e2e::{Hub, Machine, api, http, targets::Nginx};
use serde_json::json;

const LIMIT: usize = 128;
const LANES: usize = 8;
/// What a killed hub may have forgotten was counted within this time before.
const FORGOTTEN: Duration = Duration::from_secs(1);
/// What the file system may take on top of it.
const LATE: Duration = Duration::from_millis(500);

/// When each request passed, by as many lanes at once.
fn passed(tries: usize, ask: impl Fn() -> u16 + Sync) -> Vec<Instant> {
    let lane = || -> Vec<Instant> {
        let asked = (0..tries / LANES).map(|_| (Instant::now(), ask()));
        asked
            .filter_map(|(at, status)| match status {
                200 => Some(at),
                429 => None,
                other => panic!("{other}"),
            })
            .collect()
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("a lane does not panic")).collect()
    })
}

#[test]
fn a_killed_hub_goes_on_counting_where_it_was() {
    let limit = LIMIT.to_string();
    let settings = [("HUB_LIMIT_SHARE_PER_MIN", limit.as_str()), ("HUB_LIMIT_KEY_PER_MIN", limit.as_str())];
    let nginx = Nginx::answering_everything();
    let mut hub = Hub::start_with(&settings);
    let machine = Machine::new(&hub);
    let exposed = machine.expose(nginx.address, "site");
    let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "counted" }));
    let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));
    let key = hub.api().post("/v1/api-keys", &json!({ "name": "counted" })).expect(201);
    let reader = hub.api().with_key(&api::text(&key, "key"));

    let by_link = |tries| passed(tries, || http::get(edge, &path).status);
    let by_key = |reader: &api::Api, tries| passed(tries, || reader.get("/v1/whoami").status);
    let mut link = by_link(LIMIT / 2);
    let mut with_key = by_key(&reader, LIMIT / 2);
    assert_eq!((link.len(), with_key.len()), (LIMIT / 2, LIMIT / 2), "below the limit everything passes");
    thread::sleep(FORGOTTEN + LATE);
    // Some of these may be forgotten, and no others.
    link.extend(by_link(LANES));
    with_key.extend(by_key(&reader, LANES));
    hub.kill9();
    hub.restart();
    let reader = hub.api().with_key(&api::text(&key, "key"));
    link.extend(by_link(LIMIT));
    with_key.extend(by_key(&reader, LIMIT));

    for (what, passed) in [("the link", link), ("the key", with_key)] {
        let first = passed.iter().min().expect("something passed");
        assert!(
            first.elapsed() < Duration::from_secs(60),
            "the test took longer than the window: it says nothing"
        );
        assert!(passed.len() <= LIMIT + LANES, "{what}: {} passed", passed.len());
        assert!(passed.len() >= LIMIT - 1, "{what}: only {} passed", passed.len());
    }
}
