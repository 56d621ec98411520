//! Streams that the hub carries and cannot read: `reach`, end to end between two agents.
//!
//! Two agents shake hands once (Noise XX, [`handshake`]): each learns the other's static key and both a secret that only
//! they have. Every stream between them takes keys of its own from that secret, the tunnel's id and a counter that is
//! good once, so opening a stream costs no asymmetric work, and a hub that leads a stream to another tunnel, plays it
//! twice or changes a byte is noticed. The first record comes from the exposing side: until it is there and right,
//! nothing of the client's is sent.
//!
//! A stream begins with [`Opening`]; after it each direction is records: `{flag and length u32, AES-256-GCM sealed bytes
//! and tag}`, big-endian, the header authenticated with them, the nonce the record's number. The last record of a direction
//! says so: a cut-off stream is a broken one, never a short one.

use std::io;

use ring::{
    aead::{AES_256_GCM, LessSafeKey, UnboundKey},
    hkdf,
};

use crate::side::Side;

pub mod handshake;
mod stream;

pub use stream::{Greeted, Sealed};

/// The first byte of an answer that is no record: the session is unknown.
const UNKNOWN_SESSION: u8 = 0xff;

/// A session between two agents, as both know it.
pub struct Session {
    id: [u8; 16],
    secret: hkdf::Prk,
    /// The other side's static key.
    pub peer: PublicKey,
}

/// A static X25519 key of an agent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// As people compare it: `SHA256:` and the hash in base64, like ssh's.
    pub fn fingerprint(&self) -> String {
        use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
        let hash = ring::digest::digest(&ring::digest::SHA256, &self.0);
        format!("SHA256:{}", STANDARD_NO_PAD.encode(hash))
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Who seals with which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The agent whose client connected.
    Reaching,
    /// The agent that has the target.
    Exposing,
}

impl Session {
    /// The two sides' secret, from what the handshake carried under its encryption: `hash` binds it to that handshake.
    fn new(hash: &[u8], secrets: &[u8], peer: PublicKey) -> Self {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, hash).extract(secrets);
        let mut id = [0; 16];
        expand(&secret, &[b"pconnect session id"], &mut id);
        Self { id, secret, peer }
    }

    /// By what both sides name it.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// One end of stream `counter` to `tunnel`.
    pub fn stream<S: Side>(&self, side: S, part: Part, tunnel: u128, counter: u64) -> Sealed<S> {
        let key = |of: Part| {
            let mut key = [0; 32];
            let direction: &[u8] = match of {
                Part::Reaching => b"reaching",
                Part::Exposing => b"exposing",
            };
            let info = [
                b"pconnect stream".as_slice(),
                &self.id,
                &tunnel.to_be_bytes(),
                &counter.to_be_bytes(),
                direction,
            ];
            expand(&self.secret, &info, &mut key);
            LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("the key has the algorithm's length"))
        };
        let (own, other) = match part {
            Part::Reaching => (key(Part::Reaching), key(Part::Exposing)),
            Part::Exposing => (key(Part::Exposing), key(Part::Reaching)),
        };
        Sealed::new(side, own, other)
    }
}

fn expand(secret: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    secret
        .expand(info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("a few dozen bytes are far below HKDF's limit");
}

/// How a stream begins, from the reaching side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// A handshake follows, then the session's stream 0.
    Handshake,
    /// A stream of a session that both sides know.
    Resume { session: [u8; 16], counter: u64 },
}

impl Opening {
    /// As it is sent.
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Self::Handshake => vec![1],
            Self::Resume { session, counter } => {
                let mut bytes = vec![2];
                bytes.extend_from_slice(&session);
                bytes.extend_from_slice(&counter.to_be_bytes());
                bytes
            }
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// The stream's; [`io::ErrorKind::InvalidData`] for what is none.
    pub async fn read(side: &mut impl Side) -> io::Result<Self> {
        let mut kind = [0];
        read_exact(side, &mut kind).await?;
        match kind {
            [1] => Ok(Self::Handshake),
            [2] => {
                let (mut session, mut counter) = ([0; 16], [0; 8]);
                read_exact(side, &mut session).await?;
                read_exact(side, &mut counter).await?;
                Ok(Self::Resume { session, counter: u64::from_be_bytes(counter) })
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Tells the reaching side that its session is not known (any longer).
///
/// # Errors
/// The stream's.
pub async fn say_unknown(side: &mut impl Side) -> io::Result<()> {
    write_all(side, &[UNKNOWN_SESSION]).await?;
    std::future::poll_fn(|cx| side.poll_finish(cx)).await
}

/// Reads exactly `bytes`.
///
/// # Errors
/// The stream's; an end before.
pub async fn read_exact(side: &mut impl Side, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let read = std::future::poll_fn(|cx| side.poll_read(cx, bytes)).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[read..];
    }
    Ok(())
}

/// Writes all of `bytes` and sends them.
///
/// # Errors
/// The stream's.
pub async fn write_all(side: &mut impl Side, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::future::poll_fn(|cx| side.poll_write(cx, bytes)).await?;
        bytes = &bytes[written..];
    }
    std::future::poll_fn(|cx| side.poll_flush(cx)).await
}

/// Which counters of a session were used: each opens one stream. They may overtake each other by less than the window.
#[derive(Debug, Default)]
pub struct Used {
    highest: u64,
    /// Bit `n`: `highest - n`.
    seen: u128,
}

impl Used {
    /// Takes a counter; `false`: it was used, or is too old to know.
    pub fn take(&mut self, counter: u64) -> bool {
        if self.seen == 0 || counter > self.highest {
            let ahead = counter - if self.seen == 0 { counter } else { self.highest };
            self.seen = if ahead >= 128 { 0 } else { self.seen << ahead } | 1;
            self.highest = counter;
            return true;
        }
        let behind = self.highest - counter;
        if behind >= 128 || self.seen >> behind & 1 == 1 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests;
