//! The share edge alone before a target, without agents: something for `wrk` to aim at.
//!
//! `cargo bench -p hub --bench edge -- 127.0.0.1:9000 60` serves that target for 60 seconds and prints the address, the
//! slug's host and a path in link form. Compare with a reverse proxy before the same target, in the same run.

use std::{net::SocketAddr, time::Duration};

#[expect(dead_code, reason = "the tests use more of it")]
#[expect(clippy::unwrap_used, reason = "a bench that cannot start should say so at once")]
#[path = "../tests/edge/harness.rs"]
mod harness;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stdout, reason = "the address is what it is started for")]
fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let target: SocketAddr = words.first().map_or("127.0.0.1:9000", String::as_str).parse()?;
    let seconds: u64 = words.get(1).map_or("60", String::as_str).parse()?;
    let mut setup = harness::Setup::default();
    setup.edge.threads = 0;
    setup.recorder.access_flush_ms = 20;
    let rig = harness::Rig::with(target, setup);
    println!("edge=http://{} host={} path=/shared/{}/", rig.edge.local_addr, rig.host(), harness::TOKEN);
    std::thread::sleep(Duration::from_secs(seconds));
    let metrics = &rig.edge.metrics;
    println!(
        "answers={} opened={} reused={} records={}",
        metrics.answers[1].get(),
        metrics.upstream_opened.get(),
        metrics.upstream_reused.get(),
        rig.accesses().0.len(),
    );
    Ok(())
}
