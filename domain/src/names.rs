//! Text that has been checked once: names, labels, descriptions.
//!
//! Limits are product.md's: names and labels 1 to 100 characters, descriptions up to 500. Control characters are
//! refused everywhere: a name is shown in terminals, HTML and logs.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// The longest name or label, in characters.
pub const NAME_CHARS_MAX: usize = 100;
/// The longest description, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 500;

/// A name or label: 1 to 100 characters, no control characters, no white space at either end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

/// Why a text is no [`Name`] or [`Description`]; the message fits after the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    #[error("must be 1-100 characters")]
    NameLength,
    #[error("must be at most 500 characters")]
    DescriptionLength,
    #[error("must not contain control characters")]
    ControlCharacter,
    #[error("must not begin or end with white space")]
    OuterWhiteSpace,
}

// Bidirectional overrides reorder what a terminal or page shows: a name must read as it is stored.
fn deceives(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

impl Name {
    /// Checks a text.
    ///
    /// # Errors
    /// [`InvalidText`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        if text.is_empty() || text.chars().count() > NAME_CHARS_MAX {
            return Err(InvalidText::NameLength);
        }
        if text.chars().any(deceives) {
            return Err(InvalidText::ControlCharacter);
        }
        if text.trim() != text {
            return Err(InvalidText::OuterWhiteSpace);
        }
        Ok(Self(text.to_owned()))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A description: up to 500 characters, line breaks allowed, other control characters not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Description(String);

impl Description {
    /// Checks a text.
    ///
    /// # Errors
    /// [`InvalidText`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        if text.chars().count() > DESCRIPTION_CHARS_MAX {
            return Err(InvalidText::DescriptionLength);
        }
        if text.chars().any(|c| c != '\n' && deceives(c)) {
            return Err(InvalidText::ControlCharacter);
        }
        Ok(Self(text.to_owned()))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl<'de> Deserialize<'de> for Description {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
