//! The views: folds of recorded events. Invariants: no log, no network, no clock; a known event never fails; applying
//! an event twice changes nothing.

pub mod view;

pub mod access_log;
pub mod audit;
pub mod catalog;
pub mod deliveries;
pub mod routes;

pub mod public_event;

#[cfg(test)]
mod histories;
