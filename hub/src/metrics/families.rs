//! Every metric of the hub: its name, kind, labels, and what it says. What is not here cannot be shown.
//!
//! Labels are bounded by the code that sets them: templates of URLs, classes of status, reasons, kinds. Never a name, an
//! id, a path or an address of a tenant's. docs/how-to/monitor.md has the same list, which a test compares.

/// What may be done with the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It grows, and begins anew with the process.
    Counter,
    /// It is what it is now.
    Gauge,
    Histogram,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric, whatever its labels say.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}
const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}
const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, labels, help }
}

pub static API_REQUESTS: Family = counter(
    "pconnect_api_requests_total",
    &["route", "method", "class"],
    "Requests that the Control API has answered, by the template of their URL and the class of the status",
);
pub static API_DURATION: Family = histogram(
    "pconnect_api_request_duration_seconds",
    &["route", "method"],
    "From the head of a request to the head of its answer",
);
pub static API_IN_FLIGHT: Family =
    gauge("pconnect_api_requests_in_flight", &[], "Requests that the Control API has not answered yet");
pub static RATE_LIMITED: Family = counter(
    "pconnect_rate_limited_total",
    &["scope"],
    "Requests to API and edge that a limit per minute refused, by what is limited",
);
pub static LOCKOUTS: Family = counter(
    "pconnect_lockouts_total",
    &["code"],
    "Requests that were refused because too many codes were wrong or too many machines wait, by problem code",
);
pub static RATE_LIMIT_KEYS: Family =
    gauge("pconnect_rate_limit_keys", &[], "Addresses, keys and shares that the limiter tells apart now");

pub static EDGE_REQUESTS: Family = counter(
    "pconnect_edge_requests_total",
    &["class"],
    "Requests of visitors that were answered or left, by the class of the status",
);
pub static EDGE_DURATION: Family = histogram(
    "pconnect_edge_request_duration_seconds",
    &[],
    "From the head of a request to a share to the last byte of its answer",
);
pub static EDGE_IN_FLIGHT: Family =
    gauge("pconnect_edge_requests_in_flight", &[], "Requests to shares that are not over");
pub static EDGE_REFUSED: Family = counter(
    "pconnect_edge_refused_total",
    &["reason"],
    "Requests of visitors that the edge answered itself, by the reason",
);
pub static EDGE_RECEIVED: Family = counter(
    "pconnect_edge_received_bytes_total",
    &[],
    "Bytes of request bodies, counted when a request is over",
);
pub static EDGE_SENT: Family = counter(
    "pconnect_edge_sent_bytes_total",
    &[],
    "Bytes of response bodies, counted when a request is over",
);
pub static EDGE_CONNECTIONS: Family = gauge("pconnect_edge_connections", &[], "Connections of visitors now");
pub static EDGE_CONNECTIONS_TOTAL: Family =
    counter("pconnect_edge_connections_total", &[], "Connections of visitors that were accepted");
pub static EDGE_CONNECTIONS_REFUSED: Family = counter(
    "pconnect_edge_connections_refused_total",
    &[],
    "Connections of visitors that were closed at once because there were too many",
);
pub static EDGE_HTTP2: Family =
    gauge("pconnect_edge_http2_requests", &[], "Requests of HTTP/2 visitors under way now");
pub static EDGE_UPSTREAMS_OPENED: Family =
    counter("pconnect_edge_upstreams_opened_total", &[], "Connections that were opened to targets");
pub static EDGE_UPSTREAMS_REUSED: Family =
    counter("pconnect_edge_upstreams_reused_total", &[], "Requests on a connection that was kept");
pub static EDGE_UPSTREAMS_FAILED: Family =
    counter("pconnect_edge_upstreams_failed_total", &[], "Requests that a target failed");
pub static EDGE_UPSTREAMS_RETRIED: Family = counter(
    "pconnect_edge_upstreams_retried_total",
    &[],
    "Requests that were sent again because a kept connection had just ended",
);
pub static EDGE_BANNERS: Family =
    counter("pconnect_edge_banners_total", &[], "Documents that the banner was put into");
pub static EDGE_UPGRADES: Family =
    counter("pconnect_edge_upgrades_total", &[], "Connections that became WebSockets");
pub static EDGE_STALLED: Family =
    counter("pconnect_edge_stalled_total", &[], "Visitors who were cut for making no progress");
pub static EDGE_SLOW_HEADS: Family =
    counter("pconnect_edge_slow_heads_total", &[], "Visitors who were cut for a slow request head");
pub static EDGE_FLOODS: Family =
    counter("pconnect_edge_floods_total", &[], "HTTP/2 visitors who were cut for frames that carry nothing");
pub static EDGE_AGENT_WAITS: Family =
    counter("pconnect_edge_agent_waits_total", &[], "Requests that waited for an agent that had just gone");
pub static EDGE_ACCESS_QUEUE: Family = gauge(
    "pconnect_edge_access_queue_records",
    &[],
    "Accesses that are not in the event log yet, those under way included; at 65,536 the edge refuses",
);

pub static STREAMS_OPEN: Family =
    gauge("pconnect_streams_open", &["kind"], "Streams to targets now, by what they carry");
pub static STREAM_OPENS: Family = counter(
    "pconnect_stream_opens_total",
    &["kind"],
    "Streams to targets that somebody wanted, those that failed included",
);
pub static STREAM_FAILURES: Family = counter(
    "pconnect_stream_open_failures_total",
    &["kind", "reason"],
    "Streams to targets that were not opened, by the reason",
);
pub static STREAM_OPENING: Family = histogram(
    "pconnect_stream_open_duration_seconds",
    &["kind"],
    "How long agents took to open a stream that somebody waited for: on a connection of its own, or on a link of the edge",
);
pub static STREAM_BYTES: Family = counter(
    "pconnect_stream_bytes_total",
    &["kind", "direction"],
    "Bytes that tunnel ports and reach carried, as they pass; shares are counted by the edge, datagrams not",
);
pub static UDP_SESSIONS: Family =
    counter("pconnect_udp_sessions_total", &[], "Sessions of UDP tunnels' peers");
pub static UDP_EVICTED: Family = counter(
    "pconnect_udp_evicted_total",
    &[],
    "Sessions of UDP peers that ended because their tunnel had too many",
);
pub static UDP_LOST: Family =
    counter("pconnect_udp_lost_total", &[], "Datagrams of UDP peers that found a full queue or no agent");

pub static AGENT_SESSIONS: Family = gauge("pconnect_agent_sessions", &[], "Agents with a live session");
pub static AGENT_CONNECTS: Family =
    counter("pconnect_agent_connects_total", &[], "Sessions of agents that began");
pub static AGENT_DISCONNECTS: Family = counter(
    "pconnect_agent_disconnects_total",
    &["reason"],
    "Sessions of agents that ended, by the reason that is recorded",
);

pub static LOG_WRITABLE: Family =
    gauge("pconnect_log_writable", &[], "1: the event log takes writes; 0: nothing can be changed or shared");
pub static LOG_DAMAGED: Family = gauge(
    "pconnect_log_damaged",
    &[],
    "1: the log is not what was written; telemetry and hub verify name the place",
);
pub static LOG_HEAD: Family = gauge("pconnect_log_head_position", &[], "Position of the last durable event");
pub static LOG_APPEND_DURATION: Family = histogram(
    "pconnect_log_append_duration_seconds",
    &[],
    "How long acknowledged appends took, from the queue to durable",
);
pub static LOG_APPEND_FAILURES: Family = counter(
    "pconnect_log_append_failures_total",
    &["reason"],
    "Appends that were not acknowledged; a conflict is decided again, the others are trouble",
);
pub static LOG_COMMIT_EVENTS: Family =
    histogram("pconnect_log_commit_events", &[], "Events of one group commit");
pub static LOG_EVENTS: Family = counter("pconnect_log_events_total", &[], "Events that were written");
pub static LOG_BYTES: Family =
    counter("pconnect_log_written_bytes_total", &[], "Bytes that were written to the log");
pub static LOG_SEALS: Family = counter("pconnect_log_seals_total", &[], "Signed seals of the log's head");
pub static LOG_SCRUBBED: Family = counter(
    "pconnect_log_scrubbed_bytes_total",
    &[],
    "Bytes of the log that the check in the background has read",
);
pub static DISK_AVAILABLE: Family = gauge(
    "pconnect_data_disk_available_bytes",
    &[],
    "What the file system of the data directory has left for the hub",
);
pub static DISK_SIZE: Family =
    gauge("pconnect_data_disk_size_bytes", &[], "What the file system of the data directory holds in all");

pub static VIEW_POSITION: Family =
    gauge("pconnect_view_position", &["view"], "Position of the log that a view has reached");
pub static VIEW_LAG: Family =
    gauge("pconnect_view_lag_positions", &["view"], "How many positions a view is behind the log");
pub static VIEW_LAG_SECONDS: Family = gauge(
    "pconnect_view_lag_seconds",
    &["view"],
    "How long the first event that a view does not show has been recorded; 0: it shows all",
);
pub static VIEW_FAILING: Family =
    gauge("pconnect_view_failing", &["view"], "1: a view does not follow the log; telemetry says why");
pub static VIEW_SKIPPED: Family = counter(
    "pconnect_view_skipped_events_total",
    &["view"],
    "Events that a view left out because this build does not know or cannot read them",
);

pub static WEBHOOKS: Family =
    gauge("pconnect_webhooks", &["state"], "Webhooks, by whether they are sent anything");
pub static WEBHOOK_LAG: Family = gauge(
    "pconnect_webhook_lag_positions",
    &[],
    "How many positions the active webhook that is furthest behind has not read",
);
pub static WEBHOOK_PENDING: Family = gauge(
    "pconnect_webhook_pending_messages",
    &[],
    "Messages that active webhooks have planned and not delivered",
);
pub static WEBHOOK_OLDEST: Family = gauge(
    "pconnect_webhook_oldest_waiting_seconds",
    &[],
    "How long the oldest message of an active webhook has waited to be delivered; 0: none waits",
);
pub static WEBHOOKS_DOWN: Family = gauge(
    "pconnect_webhook_endpoints_down",
    &[],
    "Active webhooks whose endpoint failed three messages in a row",
);
pub static WEBHOOK_ATTEMPTS: Family = counter(
    "pconnect_webhook_attempts_total",
    &["outcome"],
    "Attempts to deliver a message, by what came of them",
);
pub static WEBHOOK_DURATION: Family = histogram(
    "pconnect_webhook_attempt_duration_seconds",
    &[],
    "How long attempts to deliver a message took",
);
pub static WEBHOOK_DEAD: Family = counter(
    "pconnect_webhook_dead_letters_total",
    &["reason"],
    "Messages that are tried no more, by the reason",
);
pub static WEBHOOKS_DISABLED: Family = counter(
    "pconnect_webhooks_disabled_total",
    &["reason"],
    "Webhooks that the hub has disabled, by the reason",
);

pub static TLS_EXPIRY: Family = gauge(
    "pconnect_tls_certificate_expiry_timestamp_seconds",
    &["listener"],
    "When the listener's certificate ends, of several the first to end; 0: it has none yet",
);
pub static TLS_STALE: Family = gauge(
    "pconnect_tls_certificate_stale",
    &["listener"],
    "1: the changed certificate and key cannot be used, or the ACME authority gave none; the former are shown",
);
pub static TLS_FAILED: Family = counter(
    "pconnect_tls_handshakes_failed_total",
    &["listener"],
    "Connections that never became encrypted ones",
);

pub static BUILD: Family = gauge("pconnect_build_info", &["version"], "1, with the version of the hub");
pub static DRAINING: Family = gauge("pconnect_draining", &[], "1: the hub is stopping and takes nothing new");
pub static AGGREGATES: Family =
    gauge("pconnect_aggregates_awake", &[], "Aggregates whose actor is in memory");
pub static PROCESS_CPU: Family = counter(
    "process_cpu_seconds_total",
    &[],
    "Processor time that the hub has used, for itself and in the system",
);
pub static PROCESS_OPEN_FDS: Family = gauge("process_open_fds", &[], "Open file descriptors");
pub static PROCESS_MAX_FDS: Family =
    gauge("process_max_fds", &[], "File descriptors that the hub may have open at once");
pub static PROCESS_RESIDENT: Family = gauge("process_resident_memory_bytes", &[], "Resident memory");
pub static PROCESS_VIRTUAL: Family = gauge("process_virtual_memory_bytes", &[], "Virtual memory");
pub static PROCESS_THREADS: Family = gauge("process_threads", &[], "Threads");
pub static PROCESS_START: Family =
    gauge("process_start_time_seconds", &[], "When the process started, in seconds since 1970");

/// All of them, as docs/how-to/monitor.md shows them.
pub static GROUPS: [(&str, &[&Family]); 9] = [
    (
        "Control API and limits",
        &[&API_REQUESTS, &API_DURATION, &API_IN_FLIGHT, &RATE_LIMITED, &LOCKOUTS, &RATE_LIMIT_KEYS],
    ),
    (
        "Share edge",
        &[
            &EDGE_REQUESTS,
            &EDGE_DURATION,
            &EDGE_IN_FLIGHT,
            &EDGE_REFUSED,
            &EDGE_RECEIVED,
            &EDGE_SENT,
            &EDGE_CONNECTIONS,
            &EDGE_CONNECTIONS_TOTAL,
            &EDGE_CONNECTIONS_REFUSED,
            &EDGE_HTTP2,
            &EDGE_UPSTREAMS_OPENED,
            &EDGE_UPSTREAMS_REUSED,
            &EDGE_UPSTREAMS_FAILED,
            &EDGE_UPSTREAMS_RETRIED,
            &EDGE_BANNERS,
            &EDGE_UPGRADES,
            &EDGE_STALLED,
            &EDGE_SLOW_HEADS,
            &EDGE_FLOODS,
            &EDGE_AGENT_WAITS,
            &EDGE_ACCESS_QUEUE,
        ],
    ),
    (
        "Streams to targets",
        &[
            &STREAMS_OPEN,
            &STREAM_OPENS,
            &STREAM_FAILURES,
            &STREAM_OPENING,
            &STREAM_BYTES,
            &UDP_SESSIONS,
            &UDP_EVICTED,
            &UDP_LOST,
        ],
    ),
    ("Agents", &[&AGENT_SESSIONS, &AGENT_CONNECTS, &AGENT_DISCONNECTS]),
    (
        "Event log",
        &[
            &LOG_WRITABLE,
            &LOG_DAMAGED,
            &LOG_HEAD,
            &LOG_APPEND_DURATION,
            &LOG_APPEND_FAILURES,
            &LOG_COMMIT_EVENTS,
            &LOG_EVENTS,
            &LOG_BYTES,
            &LOG_SEALS,
            &LOG_SCRUBBED,
            &DISK_AVAILABLE,
            &DISK_SIZE,
        ],
    ),
    ("Views", &[&VIEW_POSITION, &VIEW_LAG, &VIEW_LAG_SECONDS, &VIEW_FAILING, &VIEW_SKIPPED]),
    (
        "Webhooks",
        &[
            &WEBHOOKS,
            &WEBHOOK_LAG,
            &WEBHOOK_PENDING,
            &WEBHOOK_OLDEST,
            &WEBHOOKS_DOWN,
            &WEBHOOK_ATTEMPTS,
            &WEBHOOK_DURATION,
            &WEBHOOK_DEAD,
            &WEBHOOKS_DISABLED,
        ],
    ),
    ("TLS, where a listener speaks it", &[&TLS_EXPIRY, &TLS_STALE, &TLS_FAILED]),
    (
        "Process",
        &[
            &BUILD,
            &DRAINING,
            &AGGREGATES,
            &PROCESS_CPU,
            &PROCESS_OPEN_FDS,
            &PROCESS_MAX_FDS,
            &PROCESS_RESIDENT,
            &PROCESS_VIRTUAL,
            &PROCESS_THREADS,
            &PROCESS_START,
        ],
    ),
];

/// The list as Markdown, one table for each group.
pub fn tables() -> String {
    let mut text = String::new();
    for (title, families) in &GROUPS {
        text.push_str(&format!("### {title}\n| metric | kind | labels | says |\n|---|---|---|---|\n"));
        for Family { name, kind, labels, help } in families.iter() {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let (labels, kind) = (labels.join(", "), kind.name());
            text.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
        }
        text.push('\n');
    }
    text
}
