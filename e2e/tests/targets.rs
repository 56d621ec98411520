//! The harness itself: the servers that everything else is measured against do start and answer, without a hub.

use e2e::{
    eventually, http,
    path_cases::{self, Form, RULE_SETS},
    targets::{Nginx, Postgres, Redis, Understood, succeeds},
    wait::SOON,
};

#[test]
fn nginx_serves_files_and_logs_the_path_that_it_understood() {
    let nginx = Nginx::serving(&[("a.bin", b"bytes")]);
    assert_eq!(http::get(nginx.address, "/x/../%61.bin").body, b"bytes");
    let logged = eventually("a line in nginx's log", SOON, || nginx.log().pop().ok_or("nothing yet"));
    assert_eq!((logged.path.as_str(), logged.status), ("/a.bin", 200));
}

#[test]
fn the_second_backend_says_the_path_that_it_understood() {
    let backend = Understood::start();
    assert_eq!(http::get(backend.address, "/api/%2e%2e/secret?x").status, 200);
    let logged = eventually("a line of the backend", SOON, || backend.log().pop().ok_or("nothing yet"));
    assert_eq!(logged.path, "/secret");
}

#[test]
fn postgres_and_redis_answer_their_clients() {
    let postgres = Postgres::start();
    let mut psql = Postgres::client("psql", postgres.address.port());
    assert_eq!(succeeds(psql.args(["-Atc", "select 41 + 1"])).trim(), "42");
    let redis = Redis::start();
    assert_eq!(succeeds(Redis::client("redis-cli", redis.address.port()).arg("ping")).trim(), "PONG");
}

#[test]
fn the_path_cases_would_escape_a_rule_that_looks_at_the_raw_path() {
    let (nginx, python) = (Nginx::answering_everything(), Understood::start());
    for (name, address) in [("nginx", nginx.address), ("http.server", python.address)] {
        for number in 0..600 {
            let case = path_cases::case(number);
            let raw = String::from_utf8_lossy(&case.path);
            if case.form != Form::ForeignAbsolute && path_cases::inside(RULE_SETS[case.rule_set].rules, &raw)
            {
                let head = [b"GET ", &case.path[..], b" HTTP/1.1\r\nhost: x\r\nx-case: "].concat();
                let mut connection = http::Connection::open(address).expect("the backend listens");
                let rest = format!("{number}\r\nconnection: close\r\n\r\n");
                connection.send(&[head, rest.into_bytes()].concat()).expect("the backend takes it");
                let _refused_or_not = connection.answer("GET");
            }
        }
        let logged = if name == "nginx" { nginx.log() } else { python.log() };
        let escaped = logged.iter().filter(|line| line.status == 200).filter(|line| {
            let case = path_cases::case(line.case.parse().expect("every request had its number"));
            !path_cases::inside(RULE_SETS[case.rule_set].rules, &line.path)
        });
        let escaped = escaped.count();
        assert!(
            escaped > 30,
            "only {escaped} of {} would escape to {name}: the tricks are blunt",
            logged.len()
        );
    }
}
