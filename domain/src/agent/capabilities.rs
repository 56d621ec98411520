//! What an agent offers to others: named capabilities, by which agents are found.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::Name;

/// The most capabilities of one agent: all of them are in memory, and in every list of agents.
pub const CAPABILITIES_MAX: usize = 50;
/// The most bytes of one capability's metadata, as JSON.
pub const METADATA_BYTES_MAX: usize = 4 * 1024;

/// Something that an agent can do for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capability {
    pub name: Name,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Value>,
}

/// Why a list of capabilities is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidCapability {
    TooMany,
    /// Named twice.
    Twice(Name),
    MetadataTooLarge(Name),
}

impl fmt::Display for InvalidCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "must be at most {CAPABILITIES_MAX}"),
            Self::Twice(name) => write!(f, "must name `{name}` once"),
            Self::MetadataTooLarge(name) => {
                write!(f, "must have at most {METADATA_BYTES_MAX} bytes of metadata each, `{name}` has more")
            }
        }
    }
}

impl Capability {
    /// Checks a whole list and sorts it by name.
    ///
    /// # Errors
    /// [`InvalidCapability`].
    pub fn list(mut capabilities: Vec<Self>) -> Result<Vec<Self>, InvalidCapability> {
        if capabilities.len() > CAPABILITIES_MAX {
            return Err(InvalidCapability::TooMany);
        }
        capabilities.sort_by(|one, other| one.name.cmp(&other.name));
        if let Some(pair) = capabilities.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(InvalidCapability::Twice(pair[0].name.clone()));
        }
        let bytes = |one: &Self| serde_json::to_vec(&one.metadata).map_or(usize::MAX, |json| json.len());
        match capabilities.iter().find(|one| bytes(one) > METADATA_BYTES_MAX) {
            Some(large) => Err(InvalidCapability::MetadataTooLarge(large.name.clone())),
            None => Ok(capabilities),
        }
    }
}
