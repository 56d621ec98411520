//! Messages that somebody could read as another number of requests, against three backends that read HTTP/1 each in its
//! own way: no backend sees a request that is not in the access log, and what is ambiguous is refused.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use e2e::{
    Hub, Machine, api, eventually, http,
    smuggling_cases::{CASES, Case, Verdict},
    targets::{Haproxy, Logged, Nginx, Understood},
    wait::SOON,
};
use serde_json::json;

/// Cases that are tried at the same time: most of their time is spent waiting for what must not come.
const LANES: usize = 16;
/// An answer that has not come after this long does not come.
const SILENCE: Duration = Duration::from_millis(1_500);

#[test]
fn nginx_sees_no_request_that_is_not_in_the_access_log() {
    let nginx = Nginx::answering_everything();
    holds_against(nginx.address, || nginx.log());
}

#[test]
fn haproxy_sees_no_request_that_is_not_in_the_access_log() {
    let haproxy = Haproxy::start();
    holds_against(haproxy.address, || haproxy.log());
}

#[test]
fn pythons_server_sees_no_request_that_is_not_in_the_access_log() {
    let python = Understood::start();
    holds_against(python.address, || python.log());
}

/// What came back.
#[derive(Debug)]
struct Answers {
    statuses: Vec<u16>,
    /// The connection was closed, and not only silent.
    closed: bool,
}

#[track_caller]
fn holds_against(backend: SocketAddr, log: impl Fn() -> Vec<Logged>) {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(backend, "backend", &["--protocol", "http"]);
    let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "smuggling" }));
    let (edge, host, _) = http::split_link(&api::text(&share, "subdomainUrl"));

    let answers: BTreeMap<usize, Answers> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let host = host.as_str();
                scope.spawn(move || -> Vec<(usize, Answers)> {
                    let own = CASES.iter().enumerate().skip(lane).step_by(LANES);
                    own.map(|(number, case)| (number, send(edge, &case.bytes(number, host)))).collect()
                })
            })
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("sending does not panic")).collect()
    });

    // A request at the end tells that the backend's log is complete.
    assert_eq!(http::request(edge, "GET", "/last", &[("host", &host)], None).expect("an answer").status, 200);
    let seen = eventually("the backend's log to be complete", SOON, || {
        let log = log();
        let is_complete = log.iter().any(|line| line.path == "/last");
        if is_complete { Ok(count(log.into_iter().map(|line| line.path))) } else { Err("not yet") }
    });
    let accesses = hub.api().accesses(&api::text(&share, "id"));
    let recorded = count(accesses.iter().map(|access| api::text(access, "path")));
    for (path, times) in &seen {
        let known = recorded.get(path).copied().unwrap_or(0);
        assert!(*times <= known, "the backend saw {path} {times} times, the access log has it {known} times");
    }
    for (number, case) in CASES.iter().enumerate() {
        judge(case, number, &answers[&number], &seen);
    }
}

#[track_caller]
fn judge(case: &Case, number: usize, answers: &Answers, seen: &BTreeMap<String, usize>) {
    let (one, two) = case.paths(number);
    let [one, two] = [one, two].map(|path| seen.get(&path).copied().unwrap_or(0));
    let Answers { statuses, closed } = answers;
    let what = format!("{}: answers {statuses:?}, closed: {closed}, seen {one} and {two} times", case.name);
    let refused = |status: &u16| (400..500).contains(status);
    match case.verdict {
        Verdict::Refused => {
            assert_eq!((one, two), (0, 0), "{what}");
            assert!(statuses.len() <= 1 && statuses.iter().all(refused) && *closed, "{what}");
        }
        Verdict::One => {
            assert_eq!((one, two), (1, 0), "{what}");
            assert_eq!(*statuses, [200], "{what}");
        }
        Verdict::Two => {
            assert_eq!((one, two), (1, 1), "{what}");
            assert_eq!(*statuses, [200, 200], "{what}");
        }
        Verdict::FirstOnly => {
            // A backend that has seen the head may have answered before the rest was seen to be broken.
            assert!(one <= 1 && two == 0, "{what}");
            assert!(statuses.iter().filter(|status| **status == 200).count() <= 1 && *closed, "{what}");
        }
    }
}

fn count(paths: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    paths.for_each(|path| *counts.entry(path).or_insert(0) += 1);
    counts
}

/// Sends a message and takes whatever comes back, until the connection is closed or nothing more comes.
fn send(edge: SocketAddr, message: &[u8]) -> Answers {
    let mut stream = TcpStream::connect(edge).expect("the edge listens");
    stream.set_read_timeout(Some(SILENCE)).expect("a timeout can be set");
    // Whoever refuses early may close early.
    let _ = stream.write_all(message);
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    let closed = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break true,
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) => break !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let statuses = text.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)?.parse().ok());
    Answers { statuses: statuses.filter(|status| *status != 100).collect(), closed }
}
