//! Thousands of request targets that try to be read in two ways, against two backends that read differently: none
//! reaches a path outside the share's rules as that backend itself understands it.
//!
//! 2,000 cases here; `ops/path-rules` runs as many as it is told (`E2E_PATH_CASES`).

use std::{collections::BTreeMap, io, net::SocketAddr, thread};

use e2e::{
    Hub, Machine, api, eventually,
    http::{self, Connection},
    path_cases::{self, Case, Form, RULE_SETS, Verdict},
    targets::{Logged, Nginx, Understood},
    wait::SOON,
};
use serde_json::json;

const CASES_VARIABLE: &str = "E2E_PATH_CASES";
const CASES: u64 = 2_000;
const LANES: u64 = 4;

/// How a visitor names the share of one rule set.
#[derive(Debug, Clone)]
struct Link {
    edge: SocketAddr,
    prefix: String,
    slug_host: String,
}

#[test]
fn no_request_reaches_a_path_outside_the_rules_as_nginx_understands_it() {
    let nginx = Nginx::answering_everything();
    holds_against("nginx", nginx.address, || nginx.log());
}

#[test]
fn no_request_reaches_a_path_outside_the_rules_as_pythons_server_understands_it() {
    let backend = Understood::start();
    holds_against("http.server", backend.address, || backend.log());
}

#[track_caller]
fn holds_against(name: &str, backend: SocketAddr, log: impl Fn() -> Vec<Logged>) {
    let cases = std::env::var(CASES_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(backend, "backend", &["--protocol", "http"]);
    let links: Vec<Link> =
        RULE_SETS.iter().map(|set| share_with_rules(&hub, &exposed.tunnel_id(), set.rules)).collect();

    let statuses: BTreeMap<u64, Option<u16>> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let links = &links;
                scope.spawn(move || -> Vec<(u64, Option<u16>)> {
                    (lane..cases).step_by(LANES as usize).map(|number| (number, ask(links, number))).collect()
                })
            })
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("asking does not panic")).collect()
    });

    // Everything that was answered by the backend is in its log, sooner or later.
    let answered = statuses.values().filter(|status| **status == Some(200)).count();
    let logged = eventually("the backend's log to be complete", SOON, || {
        let served: Vec<Logged> = log().into_iter().filter(|line| line.status == 200).collect();
        if served.len() >= answered { Ok(served) } else { Err(format!("{} of {answered}", served.len())) }
    });
    for line in &logged {
        let number: u64 = line.case.parse().unwrap_or_else(|_| panic!("a request that is no case: {line:?}"));
        let case = path_cases::case(number);
        let rules = RULE_SETS[case.rule_set].rules;
        assert!(
            path_cases::inside(rules, &line.path),
            "case {number} escaped: {name} serves {:?} for {:?} ({:?}), but the rules are {rules:?}",
            line.path,
            String::from_utf8_lossy(&case.path),
            case.form,
        );
    }

    // The other half of the truth: plain paths pass or are refused exactly as the rules say.
    let mut plain = BTreeMap::from([("inside", 0), ("outside", 0)]);
    for (&number, &status) in &statuses {
        let case = path_cases::case(number);
        let (kind, expected) = match case.plain {
            Some(Verdict::Inside) => ("inside", 200),
            Some(Verdict::Outside) => ("outside", 403),
            None => continue,
        };
        *plain.entry(kind).or_default() += 1;
        assert_eq!(status, Some(expected), "case {number}: {:?}", String::from_utf8_lossy(&case.path));
    }
    assert!(plain.values().all(|&count| count > cases / 64), "too few plain cases: {plain:?}");
    let refused = statuses.values().filter(|status| matches!(status, Some(400 | 403))).count();
    assert!(
        refused as u64 > cases / 4,
        "only {refused} of {cases} were refused: are the tricks sent at all?"
    );
}

#[track_caller]
fn share_with_rules(hub: &Hub, tunnel_id: &str, rules: &[&str]) -> Link {
    let share = hub.api().create_share(tunnel_id, &json!({ "name": rules[0], "allowedPaths": rules }));
    let (edge, _, prefix) = http::split_link(&api::text(&share, "shareUrl"));
    let (_, slug_host, _) = http::split_link(&api::text(&share, "subdomainUrl"));
    Link { edge, prefix: prefix.trim_end_matches('/').to_owned(), slug_host }
}

/// Sends the case; `None` when the connection ended without an answer, which is a refusal, too.
fn ask(links: &[Link], number: u64) -> Option<u16> {
    let case = path_cases::case(number);
    let link = &links[case.rule_set];
    match send(link, &case, number) {
        Ok(status) => Some(status),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => panic!("case {number}: {error}"),
        Err(_) => None,
    }
}

fn send(link: &Link, case: &Case, number: u64) -> io::Result<u16> {
    let (before, host) = match case.form {
        Form::Path => (link.prefix.clone(), link.edge.to_string()),
        Form::Host => (String::new(), link.slug_host.clone()),
        Form::Absolute => (format!("http://{}", link.slug_host), link.slug_host.clone()),
        Form::ForeignAbsolute => ("http://elsewhere.example".to_owned(), link.slug_host.clone()),
    };
    let mut message = format!("{} {before}", case.method).into_bytes();
    message.extend_from_slice(&case.path);
    message.extend_from_slice(
        format!(" HTTP/1.1\r\nhost: {host}\r\nx-case: {number}\r\nconnection: close\r\n\r\n").as_bytes(),
    );
    let mut connection = Connection::open(link.edge)?;
    connection.send(&message)?;
    Ok(connection.answer(case.method)?.status)
}
