//! How long a link lives: `1h`, `24h`, `7d`, `30d`, `never`, any `<n>m|h|d` up to 365 days.
