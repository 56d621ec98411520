//! The consequences of facts, by following the log.
