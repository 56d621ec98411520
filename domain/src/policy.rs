//! Policies as pure functions: which paths, methods, slugs and ports, and until when.

pub mod addresses;
pub mod codes;
pub mod expiry;
pub mod health;
pub mod lockout;
pub mod methods;
pub mod paths;
pub mod ports;
pub mod retries;
pub mod slug;
pub mod webhook_url;
