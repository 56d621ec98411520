//! Path rules of a share: which paths a visitor may ask for (product.md section 3).
//!
//! The hub never rewrites a path, so the rule must judge what the target will understand. Targets disagree about
//! many spellings, therefore a path that two servers could read differently is refused before any rule is asked.
//! What is left is decoded once and matched:
//! - `*` matches any characters, also none, within one segment;
//! - a trailing `/*` matches everything below: every path that begins with what stands before the `*`, slash
//!   included. `/api/*` allows `/api/x`, `/api/x/y` and the folder's own index `/api/`, but neither `/api` nor
//!   `/apix`; `/*` allows everything;
//! - anything else must match the full path exactly, case included.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// The longest rule, in characters.
pub const RULE_CHARS_MAX: usize = 500;

/// One rule, checked when it was parsed. It is written as people read it, without percent-encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PathRule(String);

/// Why a text is no [`PathRule`]; the message fits after the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    #[error("must start with /")]
    NotRooted,
    #[error("must be at most {RULE_CHARS_MAX} characters")]
    TooLong,
    #[error("must not contain control characters")]
    ControlCharacter,
    #[error("must not contain `?` or `#`: only the path is matched")]
    QueryOrFragment,
    #[error("must be written without percent-encoding: a space is a space, not %20")]
    Encoded,
    #[error("must not contain `**`: `*` stays within one segment, a trailing `/*` matches everything below")]
    DoubleStar,
    /// A path of this form is refused before any rule is asked, so the rule could never allow anything.
    #[error("can never match: {0}")]
    NeverMatches(AmbiguousPath),
}

impl PathRule {
    /// Checks a text.
    ///
    /// # Errors
    /// [`InvalidRule`]: also for a rule that could never match, since whoever wrote it meant something else.
    pub fn parse(text: &str) -> Result<Self, InvalidRule> {
        if !text.starts_with('/') {
            return Err(InvalidRule::NotRooted);
        }
        if text.chars().count() > RULE_CHARS_MAX {
            return Err(InvalidRule::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidRule::ControlCharacter);
        }
        if text.contains(['?', '#']) {
            return Err(InvalidRule::QueryOrFragment);
        }
        if text.contains('%') {
            return Err(InvalidRule::Encoded);
        }
        if text.contains("**") {
            return Err(InvalidRule::DoubleStar);
        }
        if text.contains('\\') {
            return Err(InvalidRule::NeverMatches(AmbiguousPath::Backslash));
        }
        if text.contains(';') {
            return Err(InvalidRule::NeverMatches(AmbiguousPath::Semicolon));
        }
        unequivocal(text).map_err(InvalidRule::NeverMatches)?;
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the rule allows a path. Linear in the length of both, allocates nothing.
    pub fn matches(&self, path: &CanonicalPath<'_>) -> bool {
        let everything_below = self.0.strip_suffix("/*");
        let mut segments = path.0.split('/');
        for pattern in everything_below.unwrap_or(&self.0).split('/') {
            let Some(segment) = segments.next() else { return false };
            if !segment_matches(pattern, segment) {
                return false;
            }
        }
        segments.next().is_some() == everything_below.is_some()
    }
}

impl fmt::Display for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for PathRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

// Pieces between stars are searched from left to right and never searched again: taking the first occurrence leaves
// the most room for the rest, so no backtracking is needed and hostile rules cost no more than kind ones.
fn segment_matches(pattern: &str, segment: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == segment };
    let Some(mut left) = segment.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        let Some(at) = left.find(piece) else { return false };
        left = &left[at + piece.len()..];
    }
    left.ends_with(last)
}

/// A path that every server reads the same way, decoded once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalPath<'a>(Cow<'a, str>);

impl CanonicalPath<'_> {
    /// The decoded path; begins with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What makes a path readable in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmbiguousPath {
    /// Absolute form, `*`, or nothing at all.
    #[error("the path does not begin with /")]
    NotRooted,
    /// nginx and Go merge `//`, node and Python do not.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// Resolved by some, looked up as a file name by others.
    #[error("the path has a `.` or `..` segment")]
    DotSegment,
    /// Windows drops dots and spaces at the end of a name.
    #[error("a segment of the path ends with a dot or white space")]
    TrailingDotOrSpace,
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// A directory separator on Windows, and in browsers.
    #[error("the path has a backslash, plain or encoded")]
    Backslash,
    /// Whoever decodes twice reads something else.
    #[error("the path has an encoded percent sign")]
    EncodedPercent,
    #[error("the path has an encoded dot")]
    EncodedDot,
    /// C code ends at NUL; line ends end a header.
    #[error("the path has a control character, plain or encoded")]
    ControlCharacter,
    /// Tomcat, Jetty and Spring cut path parameters off.
    #[error("the path has a semicolon, plain or encoded")]
    Semicolon,
    /// Where the path ends depends on when one decodes.
    #[error("the path has a `?` or `#`, plain or encoded")]
    QueryOrFragment,
    /// `%` without two hexadecimal digits, as in IIS's `%u002e`.
    #[error("the path has a `%` that encodes nothing")]
    BrokenEncoding,
    /// Overlong forms are invalid too: a lenient decoder reads `%c0%af` as a slash.
    #[error("the path is not UTF-8")]
    NotUtf8,
    /// No legal URI has them. Node reads such bytes as Latin-1, and Python's `http.server` ends the path at a byte
    /// A0 or 85, which `à` and `Å` contain.
    #[error("the path has a space or a byte outside ASCII that is not percent-encoded")]
    NotEncoded,
    /// Best-fit conversion and Unicode normalization turn `．` into a dot and `／` into a slash; macOS ignores
    /// zero-width characters in file names.
    #[error("the path has a character that some systems read as punctuation or not at all")]
    Lookalike,
}

/// Why a share with rules refuses a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathRefusal {
    /// 400 `ambiguous_path`.
    #[error(transparent)]
    Ambiguous(#[from] AmbiguousPath),
    /// 403 `path_not_allowed`.
    #[error("no rule of this share allows the path")]
    NotAllowed,
}

/// Judges a path, without its query string, by a share's rules. No rules allow nothing: a share without a list of
/// rules does not ask.
///
/// # Errors
/// See [`PathRefusal`].
pub fn check(rules: &[PathRule], raw_path: &[u8]) -> Result<(), PathRefusal> {
    let path = canonical(raw_path)?;
    if rules.iter().any(|rule| rule.matches(&path)) { Ok(()) } else { Err(PathRefusal::NotAllowed) }
}

/// The one reading of a path, as it stands in the request line without its query string. Allocates only for a path
/// with `%`.
///
/// # Errors
/// [`AmbiguousPath`]: there is more than one reading.
pub fn canonical(raw_path: &[u8]) -> Result<CanonicalPath<'_>, AmbiguousPath> {
    if raw_path.first() != Some(&b'/') {
        return Err(AmbiguousPath::NotRooted);
    }
    let mut encoded = false;
    for byte in raw_path {
        match byte {
            b'%' => encoded = true,
            b' ' | 0x80.. => return Err(AmbiguousPath::NotEncoded),
            _ => no_separator(*byte)?,
        }
    }
    let path = if encoded {
        Cow::Owned(decode(raw_path)?)
    } else {
        Cow::Borrowed(std::str::from_utf8(raw_path).map_err(|_| AmbiguousPath::NotUtf8)?)
    };
    unequivocal(&path)?;
    Ok(CanonicalPath(path))
}

// Bytes that divide a path for some server, plain as well as encoded.
fn no_separator(byte: u8) -> Result<(), AmbiguousPath> {
    match byte {
        0..=0x1f | 0x7f => Err(AmbiguousPath::ControlCharacter),
        b'\\' => Err(AmbiguousPath::Backslash),
        b';' => Err(AmbiguousPath::Semicolon),
        b'?' | b'#' => Err(AmbiguousPath::QueryOrFragment),
        _ => Ok(()),
    }
}

fn decode(raw_path: &[u8]) -> Result<String, AmbiguousPath> {
    let mut decoded = Vec::with_capacity(raw_path.len());
    let mut bytes = raw_path.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = bytes.next().and_then(|digit| char::from(*digit).to_digit(16));
            digit.and_then(|digit| u8::try_from(digit).ok()).ok_or(AmbiguousPath::BrokenEncoding)
        };
        let byte = digit()? << 4 | digit()?;
        match byte {
            b'/' => return Err(AmbiguousPath::EncodedSlash),
            b'%' => return Err(AmbiguousPath::EncodedPercent),
            b'.' => return Err(AmbiguousPath::EncodedDot),
            _ => no_separator(byte)?,
        }
        decoded.push(byte);
    }
    String::from_utf8(decoded).map_err(|_| AmbiguousPath::NotUtf8)
}

// What only the decoded whole can tell: its segments and its characters outside ASCII.
fn unequivocal(path: &str) -> Result<(), AmbiguousPath> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            // The last segment is empty in every path that ends with a slash, `/` itself among them.
            "" if segments.peek().is_some() => return Err(AmbiguousPath::EmptySegment),
            "." | ".." => return Err(AmbiguousPath::DotSegment),
            _ if segment.ends_with('.') || segment.ends_with(char::is_whitespace) => {
                return Err(AmbiguousPath::TrailingDotOrSpace);
            }
            _ => {}
        }
    }
    if path.is_ascii() { Ok(()) } else { path.chars().try_for_each(plain) }
}

fn plain(c: char) -> Result<(), AmbiguousPath> {
    match c {
        '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => Err(AmbiguousPath::ControlCharacter),
        // Read as one of . / \ % ; ? # by NFKC or by Windows' best-fit tables. The yen and won signs stand where
        // Japanese and Korean code pages have the backslash. `į` (whose low byte is a slash) and its like are not
        // here: refusing every letter that careless truncation can hurt would refuse one in thirty.
        '\u{a5}' | '\u{20a9}' | '\u{37e}' | '\u{2024}'..='\u{2026}' | '\u{2044}' | '\u{2047}'..='\u{2049}'
        | '\u{2100}' | '\u{2101}' | '\u{2105}' | '\u{2106}' | '\u{2215}' | '\u{2216}'
        | '\u{2488}'..='\u{249b}' | '\u{29f5}' | '\u{29f8}' | '\u{29f9}' | '\u{33c2}' | '\u{33c7}'
        | '\u{33d8}' | '\u{fe10}'..='\u{fe19}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ffef}'
        | '\u{1f100}'
        // Ignored by normalizations and file systems: `.<zero width>.` is `..` to HFS+.
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{fff0}'..='\u{ffff}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => Err(AmbiguousPath::Lookalike),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
