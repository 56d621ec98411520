//! Rate limits under 200 connections at once, minute after minute, and with a million addresses.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use e2e::{Hub, Machine, api, http::Connection, http::split_link, targets::Nginx};
use serde_json::json;

use crate::measured::{Bars, Cost, mebibytes};

const LIMIT: usize = 1_000;
const CONNECTIONS: usize = 200;
const MINUTE: Duration = Duration::from_secs(60);
/// Each connection asks that often: together fifty times the limit.
const EVERY: Duration = Duration::from_millis(240);
const ADDRESSES: u32 = 1_000_000;
/// The limiter's own bound is 8 MB; the rest is what a process that answers a million requests keeps.
const GROWTH_MIB_MAX: f64 = 32.0;

pub(crate) fn run(bars: &mut Bars, seconds: usize) {
    let limit = LIMIT.to_string();
    let settings = [
        ("HUB_LIMIT_SHARE_PER_MIN", limit.as_str()),
        ("HUB_LIMIT_KEY_PER_MIN", limit.as_str()),
        ("HUB_LIMIT_PUBLIC_PER_MIN", limit.as_str()),
        ("HUB_TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let nginx = Nginx::answering_everything();
    let hub = Hub::start_with(&settings);
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(nginx.address, "site", &["--protocol", "http"]);
    let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "limited" }));
    let key = api::text(&hub.api().post("/v1/api-keys", &json!({ "name": "limited" })).expect(201), "key");
    let (edge, _, path) = split_link(&api::text(&share, "shareUrl"));

    let seconds = Duration::from_secs(seconds as u64);
    for (what, address, target, headers) in [
        ("a share", edge, path.as_str(), vec![]),
        ("a key", hub.api_address, "/v1/whoami", vec![("x-api-key", key.as_str())]),
        ("an address", hub.api_address, "/v1/whoami", vec![("x-api-key", "pc_nobody")]),
    ] {
        let passed = passed(address, target, &headers, seconds);
        let most = most_in_any_minute(&passed);
        bars.at_most(
            &format!(
                "{what}: most that passed in any minute of {} s, {CONNECTIONS} connections ({} in all)",
                seconds.as_secs(),
                passed.len()
            ),
            most as f64,
            LIMIT as f64,
            "requests",
        );
        bars.at_most(
            &format!("{what}: what a minute's limit was short of"),
            (LIMIT - most.min(LIMIT)) as f64,
            0.0,
            "requests",
        );
    }

    let before = Cost::of(hub.pid()).memory;
    let begun = Instant::now();
    addresses(hub.api_address);
    println!("{ADDRESSES} addresses asked in {:.0} s", begun.elapsed().as_secs_f64());
    let grown = Cost::of(hub.pid()).memory.saturating_sub(before);
    bars.at_most(
        "memory of the hub after a million addresses, grown by",
        mebibytes(grown),
        GROWTH_MIB_MAX,
        "MiB",
    );
}

/// When each request passed, sorted: by the clock at its answer, which is no earlier than it was counted.
fn passed(address: SocketAddr, target: &str, headers: &[(&str, &str)], during: Duration) -> Vec<Instant> {
    let begun = Instant::now();
    let lane = |number: usize| {
        // Spread over the interval.
        thread::sleep(EVERY * u32::try_from(number).unwrap_or(0) / u32::try_from(CONNECTIONS).unwrap_or(1));
        let mut connection = Connection::open(address).expect("the hub listens");
        let mut passed = Vec::new();
        while begun.elapsed() < during {
            let answer = connection.request("GET", target, headers, None).expect("an answer");
            match answer.status {
                // Wrong credentials are what is counted by address.
                200 | 401 => passed.push(Instant::now()),
                429 => assert!(answer.header("retry-after").is_some(), "{}", answer.text()),
                other => panic!("{other}: {}", answer.text()),
            }
            thread::sleep(EVERY);
        }
        passed
    };
    let mut passed: Vec<Instant> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..CONNECTIONS).map(|number| scope.spawn(move || lane(number))).collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("a lane does not panic")).collect()
    });
    passed.sort_unstable();
    passed
}

fn most_in_any_minute(passed: &[Instant]) -> usize {
    let mut end = 0;
    let in_minute_of = |(begin, at): (usize, &Instant)| {
        while end < passed.len() && passed[end] < *at + MINUTE {
            end += 1;
        }
        end - begin
    };
    passed.iter().enumerate().map(in_minute_of).max().unwrap_or(0)
}

/// One wrong key from each of a million addresses, as a trusted proxy tells them.
fn addresses(api: SocketAddr) {
    const LANES: u32 = 8;
    let next = AtomicU32::new(0);
    let lane = || {
        let mut connection = Connection::open(api).expect("the hub listens");
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= ADDRESSES {
                return;
            }
            let address = IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + number)).to_string();
            let headers = [("x-forwarded-for", address.as_str()), ("x-api-key", "pc_nobody")];
            let answer = connection.request("GET", "/v1/whoami", &headers, None).expect("an answer");
            assert!(matches!(answer.status, 401 | 429), "{}", answer.text());
        }
    };
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(lane);
        }
    });
}
