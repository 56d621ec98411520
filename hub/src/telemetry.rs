//! Telemetry to stderr: what happened to the process, never what a secret is.

use std::io::{IsTerminal as _, Write as _};

use tracing_subscriber::{EnvFilter, fmt};

use crate::settings::TelemetryFormat;

/// Starts telemetry; `HUB_TELEMETRY_FILTER` chooses levels in the usual form (`info`, `hub=debug`).
pub fn start(format: TelemetryFormat) {
    let filter = EnvFilter::builder()
        .with_env_var("HUB_TELEMETRY_FILTER")
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .from_env_lossy();
    let writer = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Only an error: somebody else (a test) has started telemetry before.
    let _ = match format {
        TelemetryFormat::Text => writer.with_ansi(std::io::stderr().is_terminal()).try_init(),
        TelemetryFormat::Json => writer.json().try_init(),
    };
}

/// Says why the process ends.
pub fn fail(error: &anyhow::Error) {
    let mut err = std::io::stderr().lock();
    // A closed stderr leaves the exit code to say it.
    let _ = writeln!(err, "hub: {error:#}");
}
