//! Policies as pure functions: which paths, methods, slugs and ports, and until when.

pub mod expiry;
pub mod methods;
pub mod paths;
pub mod ports;
pub mod slug;
