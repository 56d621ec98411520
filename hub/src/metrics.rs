//! What Prometheus reads: a registry of our own, labels bounded by the code that sets them.

use prometheus::{Encoder as _, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::api::Ports;

/// The hub's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Answers of the API by status class (`2xx` … `5xx`).
    pub api_responses: IntCounterVec,
    agents_connected: IntGauge,
    aggregates_awake: IntGauge,
    log_head: IntGauge,
    views: IntGaugeVec,
    uptime: IntGauge,
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
        let uptime = gauge("uptime_seconds", "Seconds since the hub started")?;
        let views =
            IntGaugeVec::new(Opts::new("view_position", "Position that a view has reached"), &["view"])?;
        registry.register(Box::new(views.clone()))?;
        let api_responses =
            IntCounterVec::new(Opts::new("api_responses_total", "Answers of the Control API"), &["class"])?;
        registry.register(Box::new(api_responses.clone()))?;
        Ok(Self { registry, api_responses, agents_connected, aggregates_awake, log_head, views, uptime })
    }

    /// The text that Prometheus scrapes.
    ///
    /// # Errors
    /// What gathers cannot be written as text.
    pub fn render(&self, ports: &Ports) -> Result<String, prometheus::Error> {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.agents_connected.set(number(ports.gateway.online().len() as u64));
        self.aggregates_awake.set(number(ports.executor.awake() as u64));
        self.log_head.set(number(*ports.log.head().borrow()));
        self.uptime.set(number(ports.started.elapsed().as_secs()));
        for follower in ports.views.followers() {
            self.views.with_label_values(&[follower.name()]).set(number(follower.reached()));
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}
