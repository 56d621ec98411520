//! Path rules of a share (product.md section 3).

use serde::{Deserialize, Serialize};

/// The longest rule, in characters.
pub const RULE_CHARS_MAX: usize = 500;

/// One rule, checked when it was parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathRule(String);

impl PathRule {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
