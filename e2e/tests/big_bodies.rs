//! Bodies far larger than any buffer pass in both directions and both protocols, equal to the last byte, while hub and
//! agent stay small.
//!
//! 48 MiB and one byte here; `ops/big-bodies` takes 2 GiB and one byte, or what it is told (`E2E_BODY_BYTES`).

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use e2e::{Hub, Machine, api, http, targets::Bodies};
use serde_json::json;

const BYTES_VARIABLE: &str = "E2E_BODY_BYTES";
const BYTES: u64 = (48 << 20) + 1;
/// What hub and agent may grow by, each.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

#[test]
fn bodies_of_any_size_pass_whole_and_in_little_memory() {
    let length = std::env::var(BYTES_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(BYTES);
    let bodies = Bodies::start();
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(bodies.address, "bodies", &["--protocol", "http"]);
    let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "bodies" }));
    let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));
    let url = format!("http://{edge}{}", path.trim_end_matches('/'));

    // Caches and buffers that every process has after a while are not what is measured.
    for small in [0, 1, 65_535, 65_536, 65_537, 1 << 20] {
        let expected = bodies.sum(small);
        for protocol in ["--http1.1", "--http2-prior-knowledge"] {
            let url = format!("{protocol} {url}/{small}");
            for how in ["", "?chunked"] {
                assert_eq!(bodies.sum_of_download(&format!("{url}{how}")), expected, "down, {url}{how}");
            }
            for said in [bodies.upload(small, &url), bodies.upload_of_known_length(small, &url)] {
                assert_eq!(said.split_once(' ').expect("two words").1, expected, "up, {url}: {said}");
            }
        }
    }
    let processes: [(&str, &(dyn Fn() -> u64 + Sync)); 2] =
        [("hub", &|| hub.resident_bytes()), ("agent", &|| exposed.process.resident_bytes())];
    let before = processes.map(|(_, resident)| resident());
    let peaks = [AtomicU64::new(0), AtomicU64::new(0)];
    let is_over = AtomicBool::new(false);
    let expected = bodies.sum(length);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                for ((_, resident), peak) in processes.iter().zip(&peaks) {
                    peak.fetch_max(resident(), Ordering::SeqCst);
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        for protocol in ["--http1.1", "--http2-prior-knowledge"] {
            for how in ["", "?chunked"] {
                let came = bodies.sum_of_download(&format!("{protocol} '{url}/{length}{how}'"));
                assert_eq!(came, expected, "down, {protocol} {how}");
            }
            let said = bodies.upload(length, &format!("{protocol} {url}/up"));
            assert_eq!(said, format!("chunked {expected}"), "up, {protocol}");
        }
        is_over.store(true, Ordering::SeqCst);
    });
    for (((name, _), before), peak) in processes.iter().zip(before).zip(peaks) {
        let grown = peak.into_inner().saturating_sub(before);
        eprintln!("{name} grew by {} KiB", grown / 1024);
        assert!(grown < GROWTH_BYTES_MAX, "{name} grew by {grown} bytes");
    }
    let accesses = hub.api().accesses(&api::text(&share, "id"));
    let whole = accesses.iter().filter(|access| access["bytesOut"] == length || access["bytesIn"] == length);
    assert_eq!(whole.count(), 6);
}
