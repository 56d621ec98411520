//! The harness itself: the servers that everything else is measured against do start and answer, without a hub.

use e2e::{
    eventually, http,
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
