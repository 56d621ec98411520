//! What people type for a target: `host:port`, `:port`, `port`, `[::1]:port`.

use domain::target::Target;

use crate::failure::Failure;

/// Whether a word means a target and no service: it has a port, or is one.
pub(crate) fn looks_like_one(word: &str) -> bool {
    word.contains(':') || (!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Reads a target; without a host it is `localhost`.
pub(crate) fn parse(word: &str) -> Result<Target, Failure> {
    let word = word.trim();
    let is_port = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let target = if is_port { Target::parse_local(&format!(":{word}")) } else { Target::parse_local(word) };
    target.map_err(|error| {
        Failure::usage(format!("\"{word}\" is no target: it {error}"))
            .hint("a target looks like localhost:3000, :3000 or [::1]:3000")
    })
}
