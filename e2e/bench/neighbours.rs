//! What one share's full load and its slow readers cost the share beside it: on the same agent, and on another one.
//!
//! The bar: the neighbour's p99 is at most three times its idle value, and a download beside slow readers is as fast as
//! alone. wrk and the targets share the machine's cores with hub and agents, so the same pair without a hub stands beside
//! it: directly, and behind one nginx that passes the requests on.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use e2e::{Hub, Machine, http::Connection, process::Process, targets::Nginx};
use serde_json::json;

use super::median;

/// How often the neighbour asks, and for how long.
const EVERY: Duration = Duration::from_millis(5);
const ASKED: usize = 600;
const LOAD_CONNECTIONS: &str = "64";
const SLOW_READERS: usize = 16;
const LARGE_BYTES: usize = 256 << 20;
const PASSES: usize = 3;

/// A name and where it is.
struct Place {
    host: String,
    address: SocketAddr,
}

/// Prints the tables.
pub(super) fn neighbours() {
    let small = vec![b'x'; 1_024];
    let large: Vec<u8> = (0..LARGE_BYTES).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let files: [(&str, &[u8]); 2] = [("small.bin", &small), ("large.bin", &large)];
    let targets = [(); 3].map(|()| Nginx::serving(&files));
    let hub = Hub::start();
    let machines = [(); 2].map(|()| Machine::new(&hub));
    let exposed = [
        machines[0].expose(targets[0].address, "busy"),
        machines[0].expose(targets[1].address, "beside"),
        machines[1].expose(targets[2].address, "elsewhere"),
    ];
    let [busy, beside, elsewhere] = ["busy", "beside", "elsewhere"].map(|name| {
        let tunnel = exposed.iter().find(|exposed| exposed.says["service"]["name"] == name);
        let body = json!({ "name": name, "subdomain": format!("share-{name}") });
        hub.api().create_share(&tunnel.expect("it is exposed").tunnel_id(), &body);
        Place { host: format!("share-{name}.localhost"), address: hub.edge_address }
    });
    let local = |address| Place { host: "localhost".to_owned(), address };
    let [direct_busy, direct_beside] = [0, 1].map(|n| local(targets[n].address));
    let proxy = Nginx::proxying(targets[1].address);
    let proxied = local(proxy.address);

    println!(
        "| {ASKED} requests, one each {} ms | p50 µs | p99 µs | p99 of idle |\n|---|---|---|---|",
        EVERY.as_millis()
    );
    for (name, place, loaded) in [
        ("direct, without any hub", &direct_beside, &direct_busy),
        ("behind one nginx, without any hub", &proxied, &proxied),
        ("share of the same agent", &beside, &busy),
        ("share of another agent", &elsewhere, &busy),
    ] {
        let passes: Vec<[[f64; 2]; 2]> = (0..PASSES)
            .map(|_| {
                let idle = asked(place);
                let load = load(loaded);
                let beside_load = asked(place);
                drop(load);
                [idle, beside_load]
            })
            .collect();
        for (when, what) in ["alone", "beside full load"].into_iter().enumerate() {
            let [p50, p99] = [0, 1].map(|n| median(passes.iter().map(|pass| pass[when][n]).collect()));
            let ratio = median(passes.iter().map(|pass| pass[when][1] / pass[0][1]).collect());
            println!("| {name}, {what} | {p50:.0} | {p99:.0} | {ratio:.1} |");
        }
    }

    println!(
        "\n| download of 256 MiB beside {SLOW_READERS} who do not read | MiB/s alone | beside them | of alone |\n|---|---|---|---|"
    );
    for (name, place) in [
        ("the same share", &busy),
        ("share of the same agent", &beside),
        ("share of another agent", &elsewhere),
    ] {
        let passes: Vec<[f64; 2]> = (0..PASSES)
            .map(|_| {
                let alone = downloaded(place);
                let readers: Vec<TcpStream> = (0..SLOW_READERS).map(|_| slow_reader(&busy)).collect();
                let beside = downloaded(place);
                drop(readers);
                [alone, beside]
            })
            .collect();
        let [alone, beside] = [0, 1].map(|n| median(passes.iter().map(|pass| pass[n]).collect()));
        let ratio = median(passes.iter().map(|pass| pass[1] / pass[0]).collect());
        println!("| {name} | {alone:.0} | {beside:.0} | {ratio:.2} |");
    }
}

/// p50 and p99, in microseconds.
fn asked(place: &Place) -> [f64; 2] {
    let mut connection = Connection::open(place.address).expect("the port listens");
    let mut took: Vec<f64> = (0..ASKED)
        .map(|_| {
            thread::sleep(EVERY);
            let began = Instant::now();
            let answer = connection.request("GET", "/small.bin", &[("host", &place.host)], None);
            let answer = answer.expect("an answer");
            assert_eq!((answer.status, answer.body.len()), (200, 1_024), "{}", answer.text());
            began.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    took.sort_by(f64::total_cmp);
    [took[ASKED / 2], took[ASKED * 99 / 100]]
}

/// Full load until it is dropped.
fn load(place: &Place) -> Process {
    let mut command = Command::new("wrk");
    command.args(["-t", "1", "-c", LOAD_CONNECTIONS, "-d", "60", "-H"]).arg(format!("Host: {}", place.host));
    command.arg(format!("http://{}/small.bin", place.address)).stdin(Stdio::null());
    let load = Process::spawn("wrk", &mut command);
    // It is to run at its full rate before anything is measured.
    thread::sleep(Duration::from_millis(500));
    load
}

/// Asks for the large file and reads its beginning, no more.
fn slow_reader(place: &Place) -> TcpStream {
    let mut stream = TcpStream::connect(place.address).expect("the port listens");
    let request = format!("GET /large.bin HTTP/1.1\r\nhost: {}\r\n\r\n", place.host);
    stream.write_all(request.as_bytes()).expect("the port takes a request");
    stream.read_exact(&mut [0; 1_024]).expect("the answer begins");
    stream
}

/// MiB per second.
fn downloaded(place: &Place) -> f64 {
    let mut stream = TcpStream::connect(place.address).expect("the port listens");
    let request = format!("GET /large.bin HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", place.host);
    stream.write_all(request.as_bytes()).expect("the port takes a request");
    let began = Instant::now();
    let mut buffer = vec![0; 256 * 1_024];
    let mut bytes = 0;
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        bytes += length;
    }
    assert!(bytes > LARGE_BYTES, "the download broke off after {bytes} bytes");
    (bytes >> 20) as f64 / began.elapsed().as_secs_f64()
}
