//! Secrets: made from the OS's random source, kept as digests, never shown twice.
//!
//! A command that carries an `Idempotency-Key` must give the same secret when it is repeated after a crash, although
//! only digests are stored. Its seed is therefore derived from a key of that day in the keyring and from the command's
//! id in the claim; destroying the day's key ends that.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use projections::routes::Digest;
use ring::{
    digest::{SHA256, digest},
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use uuid::{Builder, Uuid};

use domain::time::Timestamp;

/// Every secret has 256 bits.
pub const SECRET_BYTES: usize = 32;
/// How much of a secret a list shows, to recognise it by.
const PREVIEW_CHARS: usize = 6;

/// The kinds of secrets and how they begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    ApiKey,
    AgentToken,
    ShareToken,
}

impl SecretKind {
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => "pc_",
            Self::AgentToken => "pca_",
            Self::ShareToken => "share_tok_",
        }
    }
}

/// A secret in clear, on its one way out. Its `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// A secret that somebody brought, to be looked up or taken over.
    pub fn brought(text: &str) -> Self {
        Self(text.to_owned())
    }
    /// The secret itself: only for the answer that shows it once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
    pub fn digest(&self) -> Digest {
        sha256(self.0.as_bytes())
    }
    /// The digest as events keep it.
    pub fn digest_hex(&self) -> String {
        hex(&self.digest())
    }
    /// The first characters, for lists.
    pub fn preview(&self) -> String {
        let known = [SecretKind::ShareToken, SecretKind::AgentToken, SecretKind::ApiKey];
        let prefix =
            known.iter().find(|kind| self.0.starts_with(kind.prefix())).map_or(0, |kind| kind.prefix().len());
        self.0.chars().take(prefix + PREVIEW_CHARS).collect()
    }
}

/// What ids and secrets of one command come from.
#[derive(Clone)]
pub struct Seed {
    bytes: [u8; SECRET_BYTES],
    first_seen: Option<Timestamp>,
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(…)")
    }
}

impl Seed {
    /// Fresh, for a command that nobody will repeat.
    pub fn random() -> Self {
        Self { bytes: random_bytes(), first_seen: None }
    }
    /// The same for every repetition of one command, which the hub first saw at `first_seen`.
    pub fn derived(day_key: &[u8; SECRET_BYTES], command: Uuid, first_seen: Timestamp) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, day_key), command.as_bytes());
        let mut bytes = [0; SECRET_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        Self { bytes, first_seen: Some(first_seen) }
    }
    /// When the command was first seen, where it can be repeated: its ids carry that time.
    pub fn first_seen(&self) -> Option<Timestamp> {
        self.first_seen
    }
    /// A secret; `label` tells several of one command apart.
    pub fn secret(&self, kind: SecretKind, label: &str) -> Secret {
        Secret(format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(self.bytes(label))))
    }
    /// A UUIDv7 whose time is `at` and whose random part comes from the seed.
    pub fn uuid(&self, at: Timestamp, label: &str) -> Uuid {
        let bytes = self.bytes(label);
        let random = bytes.first_chunk::<10>().expect("a digest has 32 bytes");
        Builder::from_unix_timestamp_millis(u64::try_from(at.millis()).unwrap_or(0), random).into_uuid()
    }
    /// 32 bytes for other uses.
    pub fn bytes(&self, label: &str) -> [u8; SECRET_BYTES] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.bytes), label.as_bytes());
        let mut bytes = [0; SECRET_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }
}

/// 32 bytes of the OS's randomness.
///
/// # Panics
/// When the OS has none: nothing that follows could be trusted.
pub fn random_bytes() -> [u8; SECRET_BYTES] {
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new().fill(&mut bytes).expect("the OS gives randomness");
    bytes
}

pub fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_256_bits_and_a_preview_that_gives_none_of_them_away_but_six_characters() {
        let secret = Seed::random().secret(SecretKind::ApiKey, "key");
        assert_eq!(secret.reveal().len(), 3 + 43);
        assert_eq!(secret.preview().len(), 3 + 6);
        assert!(format!("{secret:?}").len() < 12);
        assert_ne!(secret, Seed::random().secret(SecretKind::ApiKey, "key"));
    }

    #[test]
    fn a_repeated_command_gives_the_same_ids_and_secrets() {
        let (key, command, at) = (random_bytes(), Uuid::from_u128(7), Timestamp::from_millis(1_000));
        let (one, two) = (Seed::derived(&key, command, at), Seed::derived(&key, command, at));
        assert_eq!(one.uuid(at, "share"), two.uuid(at, "share"));
        assert_eq!(one.secret(SecretKind::ShareToken, "token"), two.secret(SecretKind::ShareToken, "token"));
        assert_ne!(one.bytes("a"), one.bytes("b"));
    }
}
