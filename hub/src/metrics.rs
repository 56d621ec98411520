//! What Prometheus reads: a registry of our own, labels bounded by the code that sets them.

use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use prometheus::{
    Encoder as _, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use wire::peers::Counts as PeerCounts;

use crate::{api::Ports, edge::metrics::Metrics as EdgeMetrics, event_log::segments::LogStats};

/// The hub's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Answers of the API by status class (`2xx` … `5xx`).
    pub api_responses: IntCounterVec,
    agents_connected: IntGauge,
    aggregates_awake: IntGauge,
    log_head: IntGauge,
    log_damaged: IntGauge,
    views: IntGaugeVec,
    uptime: IntGauge,
    certificate_not_after: IntGaugeVec,
    certificate_stale: IntGaugeVec,
    handshakes_failed: IntCounterVec,
    edge_connections: IntGauge,
    edge_streams: IntGauge,
    edge_responses: IntCounterVec,
    /// Totals that other parts count by themselves, in the order of [`totals`].
    totals: Vec<IntCounter>,
    /// One scrape at a time: two would add the same difference twice.
    scrape: Mutex<()>,
}

/// The totals of the edge, of the UDP ports and of the log: name, help, value.
fn totals(edge: &EdgeMetrics, udp: &PeerCounts, log: &LogStats) -> [(&'static str, &'static str, u64); 22] {
    [
        ("edge_connections_total", "Connections of visitors accepted", edge.connections_accepted.get()),
        ("edge_refusals_total", "Answers that the edge made itself about a share", edge.refusals.get()),
        (
            "edge_unknown_shares_total",
            "Requests with a token or slug that nobody has",
            edge.unknown_shares.get(),
        ),
        (
            "edge_cannot_log_total",
            "Requests refused because they could not be recorded",
            edge.cannot_log.get(),
        ),
        ("edge_received_bytes_total", "Bytes of request bodies", edge.bytes_in.get()),
        ("edge_sent_bytes_total", "Bytes of response bodies", edge.bytes_out.get()),
        ("edge_upstreams_opened_total", "Streams opened to targets", edge.upstream_opened.get()),
        ("edge_upstreams_reused_total", "Requests on a stream that was kept", edge.upstream_reused.get()),
        ("edge_upstreams_failed_total", "Requests that a target failed", edge.upstream_failed.get()),
        ("edge_upgrades_total", "Connections that became WebSockets", edge.upgrades.get()),
        ("edge_stalled_total", "Visitors cut for making no progress", edge.stalled.get()),
        ("edge_slow_heads_total", "Visitors cut for a slow request head", edge.slow_heads.get()),
        ("edge_floods_total", "HTTP/2 visitors cut for frames that carry nothing", edge.floods.get()),
        (
            "edge_agent_waits_total",
            "Requests that waited for an agent that had just gone",
            edge.agent_waits.get(),
        ),
        ("udp_sessions_total", "Sessions of UDP tunnels' peers", udp.sessions.load(Relaxed)),
        (
            "udp_evicted_total",
            "Sessions of UDP peers that ended because their tunnel had too many",
            udp.evicted.load(Relaxed),
        ),
        (
            "udp_lost_total",
            "Datagrams of UDP peers that found a full queue or no agent",
            udp.lost.load(Relaxed),
        ),
        ("log_commits_total", "Group commits that became durable", log.commits.load(Relaxed)),
        ("log_events_total", "Events written", log.events.load(Relaxed)),
        ("log_written_bytes_total", "Bytes written to the log", log.bytes.load(Relaxed)),
        ("log_refused_total", "Appends that were not acknowledged", log.refused.load(Relaxed)),
        (
            "log_scrubbed_bytes_total",
            "Bytes of the log that the check in the background has read",
            log.scrubbed_bytes.load(Relaxed),
        ),
    ]
}

impl Metrics {
    /// # Errors
    /// Two metrics of one name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("pconnect".to_owned()), None)?;
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let agents_connected = gauge("agents_connected", "Agents with a live session")?;
        let aggregates_awake = gauge("aggregates_awake", "Aggregates whose actor is in memory")?;
        let log_head = gauge("log_head_position", "Position of the last durable event")?;
        let log_damaged =
            gauge("log_damaged", "1: the log is not what was written; telemetry names the place")?;
        let uptime = gauge("uptime_seconds", "Seconds since the hub started")?;
        let views =
            IntGaugeVec::new(Opts::new("view_position", "Position that a view has reached"), &["view"])?;
        registry.register(Box::new(views.clone()))?;
        let api_responses =
            IntCounterVec::new(Opts::new("api_responses_total", "Answers of the Control API"), &["class"])?;
        registry.register(Box::new(api_responses.clone()))?;
        let by_listener = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["listener"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let certificate_not_after = by_listener(
            "tls_certificate_expiry_timestamp_seconds",
            "When the listener's certificate ends; of several, the first to end",
        )?;
        let certificate_stale = by_listener(
            "tls_certificate_stale",
            "1: the changed certificate and key cannot be used, or the ACME authority gave none; the former are shown",
        )?;
        let handshakes_failed = IntCounterVec::new(
            Opts::new("tls_handshakes_failed_total", "Connections that never became encrypted ones"),
            &["listener"],
        )?;
        registry.register(Box::new(handshakes_failed.clone()))?;
        let edge_connections = gauge("edge_connections", "Connections of visitors now")?;
        let edge_streams = gauge("edge_http2_requests", "Requests of HTTP/2 visitors under way")?;
        let edge_responses =
            IntCounterVec::new(Opts::new("edge_responses_total", "Answers of the share edge"), &["class"])?;
        registry.register(Box::new(edge_responses.clone()))?;
        let totals = totals(&EdgeMetrics::default(), &PeerCounts::default(), &LogStats::default())
            .into_iter()
            .map(|(name, help, _)| {
                let counter = IntCounter::new(name, help)?;
                registry.register(Box::new(counter.clone()))?;
                Ok(counter)
            })
            .collect::<Result<_, prometheus::Error>>()?;
        Ok(Self {
            registry,
            api_responses,
            agents_connected,
            aggregates_awake,
            log_head,
            log_damaged,
            views,
            uptime,
            certificate_not_after,
            certificate_stale,
            handshakes_failed,
            edge_connections,
            edge_streams,
            edge_responses,
            totals,
            scrape: Mutex::new(()),
        })
    }

    /// The text that Prometheus scrapes.
    ///
    /// # Errors
    /// What gathers cannot be written as text.
    pub fn render(&self, ports: &Ports) -> Result<String, prometheus::Error> {
        let _alone = self.scrape.lock();
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let raise = |counter: &IntCounter, value: u64| counter.inc_by(value.saturating_sub(counter.get()));
        self.edge_connections.set(number(ports.edge.connections_open.get()));
        self.edge_streams.set(number(ports.edge.streams_open.get()));
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(&ports.edge.answers) {
            raise(&self.edge_responses.with_label_values(&[*class]), count.get());
        }
        for (counter, (_, _, value)) in
            self.totals.iter().zip(totals(&ports.edge, ports.tunnel_ports.udp().counts(), &ports.log_stats))
        {
            raise(counter, value);
        }
        for (listener, speaker) in ports.tls.speakers() {
            let of = |gauge: &IntGaugeVec| gauge.with_label_values(&[listener]);
            of(&self.certificate_not_after).set(speaker.certificates.not_after().unwrap_or(0));
            of(&self.certificate_stale).set(i64::from(speaker.certificates.needs_somebody()));
            raise(&self.handshakes_failed.with_label_values(&[listener]), speaker.failures.load(Relaxed));
        }
        self.agents_connected.set(number(ports.gateway.online().len() as u64));
        self.aggregates_awake.set(number(ports.executor.awake() as u64));
        self.log_head.set(number(*ports.log.head().borrow()));
        self.log_damaged.set(i64::from(ports.log.intact().is_err()));
        self.uptime.set(number(ports.started.elapsed().as_secs()));
        for follower in ports.views.followers() {
            self.views.with_label_values(&[follower.name()]).set(number(follower.reached()));
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}
