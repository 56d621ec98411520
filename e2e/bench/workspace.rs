//! What a full workspace costs its API: 2,000 tunnels and 10,000 shares beside an empty hub, in one run, by turns.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use e2e::{Hub, api, http::Connection};
use serde_json::{Value, json};

const TUNNELS: usize = 2_000;
const SHARES: usize = 10_000;
const WRITERS: usize = 16;
/// How often each thing is asked on each hub.
const ASKED: usize = 300;

/// A hub and what its workspace has.
struct Place {
    hub: Hub,
    agent: String,
    tunnel: String,
    share: String,
}

/// Prints the table.
pub(super) fn workspace() {
    let empty = place(1, 1);
    let begun = Instant::now();
    let full = place(TUNNELS, SHARES);
    println!("{TUNNELS} tunnels and {SHARES} shares were made in {:.1} s", begun.elapsed().as_secs_f64());
    println!(
        "\n| one client, {ASKED} times, by turns | empty p50 ms | p99 ms | full p50 ms | p99 ms |\n|---|---|---|---|---|"
    );
    let questions: [(&str, Ask); 8] = [
        ("GET a tunnel", |place, _| Question::get(format!("/v1/tunnels/{}", place.tunnel))),
        ("GET a share", |place, _| Question::get(format!("/v1/shares/{}", place.share))),
        ("list of tunnels, 100", |_, _| Question::get("/v1/tunnels".to_owned())),
        ("list of shares, 100", |_, _| Question::get("/v1/shares".to_owned())),
        ("shares of one tunnel", |place, _| Question::get(format!("/v1/shares?tunnelId={}", place.tunnel))),
        ("create a tunnel", |place, n| {
            Question::post(
                "/v1/tunnels",
                &json!({ "target": "localhost:9", "agentId": place.agent, "name": format!("new-{n}") }),
            )
        }),
        ("create a share", |place, n| {
            Question::post(
                &format!("/v1/tunnels/{}/share", place.tunnel),
                &json!({ "name": format!("new-{n}") }),
            )
        }),
        ("rename a tunnel", |place, n| Question {
            method: "PATCH",
            ..Question::post(
                &format!("/v1/tunnels/{}", place.tunnel),
                &json!({ "name": format!("called-{n}") }),
            )
        }),
    ];
    for (what, question) in questions {
        let mut connections =
            [&empty, &full].map(|place| (place, connection(place.hub.api_address), Vec::new()));
        for n in 0..ASKED {
            for (place, connection, times) in &mut connections {
                let question = question(place, n);
                let begun = Instant::now();
                asked(connection, &question);
                times.push(begun.elapsed());
            }
        }
        let [empty, full] = connections.map(|(_, _, times)| quantiles(times));
        println!("| {what} | {:.2} | {:.2} | {:.2} | {:.2} |", empty[0], empty[1], full[0], full[1]);
    }
    println!(
        "\nresident memory: empty {} MiB, full {} MiB",
        empty.hub.resident_bytes() >> 20,
        full.hub.resident_bytes() >> 20
    );
}

/// What is asked the n-th time.
type Ask = fn(&Place, usize) -> Question;

struct Question {
    method: &'static str,
    path: String,
    body: Option<String>,
}

impl Question {
    fn get(path: String) -> Self {
        Self { method: "GET", path, body: None }
    }
    fn post(path: &str, body: &Value) -> Self {
        Self { method: "POST", path: path.to_owned(), body: Some(body.to_string()) }
    }
}

fn place(tunnels: usize, shares: usize) -> Place {
    let hub = Hub::start_with(&[("HUB_TUNNEL_PORTS", "10000-19999"), ("HUB_TUNNEL_BIND", "127.0.0.2")]);
    let (agent, _) = hub.api().register_agent("nobody");
    let api = hub.api_address;
    let tunnels = made(api, tunnels, |n| {
        Question::post(
            "/v1/tunnels",
            &json!({ "target": "localhost:9", "agentId": agent, "name": format!("t-{n}") }),
        )
    });
    let shares = made(api, shares, |n| {
        let path = format!("/v1/tunnels/{}/share", tunnels[n % tunnels.len()]);
        Question::post(&path, &json!({ "name": format!("s-{n}"), "allowedPaths": ["/api/*"] }))
    });
    let (tunnel, share) = (tunnels[tunnels.len() / 2].clone(), shares[shares.len() / 2].clone());
    Place { hub, agent, tunnel, share }
}

/// The ids of as many new things, made by several clients at once.
fn made(api: SocketAddr, count: usize, question: impl Fn(usize) -> Question + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let writer = || {
        let mut connection = connection(api);
        let mut ids = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return ids;
            }
            ids.push(api::text(&asked(&mut connection, &question(n)), "id"));
        }
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(writer)).collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer does not panic")).collect()
    })
}

fn connection(api: SocketAddr) -> Connection {
    Connection::open(api).expect("the hub listens")
}

fn asked(connection: &mut Connection, question: &Question) -> Value {
    let headers = [("x-api-key", e2e::hub::ADMIN_KEY), ("content-type", "application/json")];
    let body = question.body.as_deref().map(str::as_bytes);
    let answer = connection.request(question.method, &question.path, &headers, body).expect("an answer");
    assert!(matches!(answer.status, 200 | 201), "{} {}: {}", question.method, question.path, answer.text());
    answer.json()
}

/// p50 and p99 (milliseconds).
fn quantiles(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort_unstable();
    [0.5, 0.99].map(|share| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0)
}
