//! Which HTTP methods a share lets through (product.md section 3).

use serde::{Deserialize, Serialize};

/// A method that a share's list can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}
