//! Which number of which part of the hub becomes which sample.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{
    Lag,
    api::CLASSES,
    count::Distribution,
    families as f,
    page::Page,
    process::{self, Process},
};
use crate::{
    api::Ports,
    edge::metrics::{LATENCY_BOUNDS_MS, Metrics as EdgeCounts},
    event_log::segments::{EVENTS_BOUNDS, LATENCY_BOUNDS_US, LogStats},
    gateway::counts::{KINDS, StreamCounts},
};

/// Fills a page.
pub(super) fn show(page: &mut Page, ports: &Ports, lags: &[Lag]) {
    ports.metrics.api.show(page);
    page.counts(&f::RATE_LIMITED, ports.limits.refused());
    page.gauge(&f::RATE_LIMIT_KEYS, &[], ports.limits.keys() as f64);
    edge(page, &ports.edge);
    page.gauge(&f::EDGE_ACCESS_QUEUE, &[], ports.recorder.queued() as f64);
    streams(page, ports);
    agents(page, ports);
    log(page, ports);
    for lag in lags {
        view(page, lag);
    }
    for follower in ports.views.followers() {
        page.gauge(&f::VIEW_FAILING, &[follower.name()], yes(follower.trouble().is_some()));
        page.count(&f::VIEW_SKIPPED, &[follower.name()], follower.skipped());
    }
    webhooks(page, ports);
    tls(page, ports);
    page.gauge(&f::BUILD, &[env!("CARGO_PKG_VERSION")], 1.0);
    page.gauge(&f::DRAINING, &[], yes(ports.draining.load(Relaxed)));
    page.gauge(&f::AGGREGATES, &[], ports.executor.awake() as f64);
    of_process(page, ports.metrics.started);
}

fn yes(so: bool) -> f64 {
    if so { 1.0 } else { 0.0 }
}

fn edge(page: &mut Page, edge: &EdgeCounts) {
    for ((class, recorded), unrecorded) in CLASSES.iter().zip(&edge.answers).zip(&edge.unrecorded) {
        page.count(&f::EDGE_REQUESTS, &[*class], recorded.get() + unrecorded.get());
    }
    let read = Distribution {
        bounds: LATENCY_BOUNDS_MS.iter().map(|bound| f64::from(*bound) / 1e3).collect(),
        counts: edge.latency.iter().map(|count| count.get()).collect(),
        sum: edge.latency_ms_sum.get() as f64 / 1e3,
    };
    page.distribution(&f::EDGE_DURATION, &[], &read);
    page.counts(&f::EDGE_REFUSED, &edge.refused);
    for (family, now) in [
        (&f::EDGE_IN_FLIGHT, &edge.in_flight),
        (&f::EDGE_CONNECTIONS, &edge.connections_open),
        (&f::EDGE_HTTP2, &edge.streams_open),
    ] {
        page.gauge(family, &[], now.now() as f64);
    }
    for (family, count) in [
        (&f::EDGE_RECEIVED, &edge.bytes_in),
        (&f::EDGE_SENT, &edge.bytes_out),
        (&f::EDGE_CONNECTIONS_TOTAL, &edge.connections_accepted),
        (&f::EDGE_CONNECTIONS_REFUSED, &edge.connections_refused),
        (&f::EDGE_UPSTREAMS_OPENED, &edge.upstream_opened),
        (&f::EDGE_UPSTREAMS_REUSED, &edge.upstream_reused),
        (&f::EDGE_UPSTREAMS_FAILED, &edge.upstream_failed),
        (&f::EDGE_UPSTREAMS_RETRIED, &edge.upstream_retried),
        (&f::EDGE_BANNERS, &edge.banners),
        (&f::EDGE_UPGRADES, &edge.upgrades),
        (&f::EDGE_STALLED, &edge.stalled),
        (&f::EDGE_SLOW_HEADS, &edge.slow_heads),
        (&f::EDGE_FLOODS, &edge.floods),
        (&f::EDGE_AGENT_WAITS, &edge.agent_waits),
    ] {
        page.count(family, &[], count.get());
    }
}

fn streams(page: &mut Page, ports: &Ports) {
    // The edge keeps its streams, so it knows how many there are.
    let kept = [("http", &ports.edge.upstreams_open), ("http2", &ports.edge.upstreams_open_http2)];
    for (kind, counts) in KINDS.into_iter().zip(&ports.gateway.counts().streams) {
        let StreamCounts { opens, open, failed, opening, to_target, from_target } = counts;
        let of_edge = kept.iter().find(|(name, _)| *name == kind);
        page.gauge(&f::STREAMS_OPEN, &[kind], of_edge.map_or(open, |(_, count)| *count).now() as f64);
        page.count(&f::STREAM_OPENS, &[kind], opens.get());
        for (reason, count) in failed.all() {
            page.count(&f::STREAM_FAILURES, &[kind, reason], count);
        }
        page.distribution(&f::STREAM_OPENING, &[kind], &opening.read());
        if of_edge.is_none() && !kind.ends_with("udp") {
            page.count(&f::STREAM_BYTES, &[kind, "to_target"], to_target.get());
            page.count(&f::STREAM_BYTES, &[kind, "from_target"], from_target.get());
        }
    }
    let udp = ports.tunnel_ports.udp().counts();
    page.count(&f::UDP_SESSIONS, &[], udp.sessions.load(Relaxed));
    page.count(&f::UDP_EVICTED, &[], udp.evicted.load(Relaxed));
    page.count(&f::UDP_LOST, &[], udp.lost.load(Relaxed));
}

fn agents(page: &mut Page, ports: &Ports) {
    page.gauge(&f::AGENT_SESSIONS, &[], ports.gateway.sessions_now() as f64);
    page.count(&f::AGENT_CONNECTS, &[], ports.gateway.counts().connects.get());
    page.counts(&f::AGENT_DISCONNECTS, &ports.gateway.counts().disconnects);
}

fn log(page: &mut Page, ports: &Ports) {
    page.gauge(&f::LOG_WRITABLE, &[], yes(ports.log.writable().is_ok()));
    page.gauge(&f::LOG_DAMAGED, &[], yes(ports.log.intact().is_err()));
    page.gauge(&f::LOG_HEAD, &[], *ports.log.head().borrow() as f64);
    let stats: &LogStats = &ports.log_stats;
    let read =
        Distribution::of_times(&LATENCY_BOUNDS_US, &stats.append_latency, &stats.append_latency_us_sum);
    page.distribution(&f::LOG_APPEND_DURATION, &[], &read);
    for (reason, count) in stats.failures() {
        page.count(&f::LOG_APPEND_FAILURES, &[reason], count);
    }
    let load = |count: &AtomicU64| count.load(Relaxed);
    let read = Distribution {
        bounds: EVENTS_BOUNDS.iter().map(|bound| *bound as f64).collect(),
        counts: stats.events_per_commit.iter().map(load).collect(),
        sum: load(&stats.events) as f64,
    };
    page.distribution(&f::LOG_COMMIT_EVENTS, &[], &read);
    for (family, count) in [
        (&f::LOG_EVENTS, &stats.events),
        (&f::LOG_BYTES, &stats.bytes),
        (&f::LOG_SEALS, &stats.seals),
        (&f::LOG_SCRUBBED, &stats.scrubbed_bytes),
    ] {
        page.count(family, &[], load(count));
    }
    if let Ok(disk) = rustix::fs::statvfs(&ports.settings.data.path) {
        let bytes = |blocks: u64| blocks as f64 * disk.f_frsize as f64;
        page.gauge(&f::DISK_AVAILABLE, &[], bytes(disk.f_bavail));
        page.gauge(&f::DISK_SIZE, &[], bytes(disk.f_blocks));
    }
}

fn view(page: &mut Page, lag: &Lag) {
    page.gauge(&f::VIEW_POSITION, &[lag.view], lag.reached as f64);
    page.gauge(&f::VIEW_LAG, &[lag.view], lag.positions as f64);
    if let Some(seconds) = lag.seconds {
        page.gauge(&f::VIEW_LAG_SECONDS, &[lag.view], seconds);
    }
}

fn webhooks(page: &mut Page, ports: &Ports) {
    let now = ports.webhooks.overview(*ports.log.head().borrow(), ports.clock.now());
    page.gauge(&f::WEBHOOKS, &["active"], now.active as f64);
    page.gauge(&f::WEBHOOKS, &["inactive"], now.inactive as f64);
    page.gauge(&f::WEBHOOK_LAG, &[], now.lag_positions as f64);
    page.gauge(&f::WEBHOOK_PENDING, &[], now.pending as f64);
    page.gauge(&f::WEBHOOK_OLDEST, &[], now.oldest_waiting_ms as f64 / 1e3);
    page.gauge(&f::WEBHOOKS_DOWN, &[], now.down as f64);
    let counts = ports.webhooks.counts();
    page.counts(&f::WEBHOOK_ATTEMPTS, &counts.attempts);
    page.distribution(&f::WEBHOOK_DURATION, &[], &counts.times.read());
    page.counts(&f::WEBHOOK_DEAD, &counts.dead_letters);
    page.counts(&f::WEBHOOKS_DISABLED, &counts.disabled);
}

fn tls(page: &mut Page, ports: &Ports) {
    for (listener, speaker) in ports.tls.speakers() {
        let ends = speaker.certificates.not_after().unwrap_or(0);
        page.gauge(&f::TLS_EXPIRY, &[listener], ends as f64);
        page.gauge(&f::TLS_STALE, &[listener], yes(speaker.certificates.needs_somebody()));
        page.count(&f::TLS_FAILED, &[listener], speaker.failures.load(Relaxed));
    }
}

fn of_process(page: &mut Page, started: Option<f64>) {
    if let Some(read) = Process::read() {
        page.grown(&f::PROCESS_CPU, &[], read.cpu_seconds);
        page.gauge(&f::PROCESS_THREADS, &[], read.threads);
        page.gauge(&f::PROCESS_VIRTUAL, &[], read.virtual_bytes);
        page.gauge(&f::PROCESS_RESIDENT, &[], read.resident_bytes);
    }
    for (family, value) in [
        (&f::PROCESS_OPEN_FDS, process::open_fds().map(|open| open as f64)),
        (&f::PROCESS_MAX_FDS, Some(process::max_fds() as f64)),
        (&f::PROCESS_START, started),
    ] {
        if let Some(value) = value {
            page.gauge(family, &[], value);
        }
    }
}
