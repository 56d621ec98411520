//! The handshake of two agents: Noise_XX_25519_AESGCM_SHA256, by the crate `snow`.
//!
//! XX sends both static keys under encryption, so neither side has to know the other's beforehand: whoever reaches decides
//! by what it has pinned, before anything of the client's is sent. Each side's message carries 32 random bytes; the
//! session's secret is made of both, so neither side alone chooses it, and of nothing that outlives the handshake.

use std::io;

use ring::rand::{SecureRandom as _, SystemRandom};
use snow::{Builder, HandshakeState};

use super::{PublicKey, Session, read_exact, write_all};
use crate::side::Side;

const PATTERN: &str = "Noise_XX_25519_AESGCM_SHA256";
/// Both sides must mean the same protocol.
const PROLOGUE: &[u8] = b"pconnect/1 reach";
const SECRET_BYTES: usize = 32;
/// No message of XX with our payloads is longer (bytes).
const MESSAGE_BYTES_MAX: usize = 256;

/// An agent's static key. Its `Debug` shows the public half.
#[derive(Clone)]
pub struct Identity {
    private: [u8; 32],
    public: PublicKey,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.public).finish()
    }
}

impl Identity {
    /// A new key from the system's random source.
    pub fn generate() -> Self {
        let pair = builder().generate_keypair().expect("the pattern is known and the system has randomness");
        let (private, public) = (array(&pair.private), array(&pair.public));
        Self { private, public: PublicKey(public) }
    }

    /// A key that was kept, both halves one after the other.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        Self { private: array(&bytes[..32]), public: PublicKey(array(&bytes[32..])) }
    }

    /// Both halves, to keep.
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.private);
        bytes[32..].copy_from_slice(&self.public.0);
        bytes
    }

    pub fn public(&self) -> PublicKey {
        self.public
    }
}

fn array(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().expect("an X25519 key has 32 bytes")
}

fn builder() -> Builder<'static> {
    Builder::new(PATTERN.parse().expect("the pattern is a constant"))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn refused(error: snow::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the handshake was changed on its way: {error}"))
}

fn random() -> io::Result<[u8; SECRET_BYTES]> {
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system has no randomness"))?;
    Ok(bytes)
}

/// The reaching side, after [`super::Opening::Handshake`]. `is_trusted` judges the exposing side's key before this side
/// shows its own.
///
/// # Errors
/// The stream's; [`io::ErrorKind::InvalidData`]: somebody on the way changed it; [`io::ErrorKind::PermissionDenied`]: the key is not
/// trusted.
pub async fn initiate(
    side: &mut impl Side,
    identity: &Identity,
    is_trusted: impl FnOnce(PublicKey) -> bool,
) -> io::Result<Session> {
    let mut state = builder()
        .prologue(PROLOGUE)
        .and_then(|builder| builder.local_private_key(&identity.private))
        .and_then(Builder::build_initiator)
        .map_err(refused)?;
    send(side, &mut state, &[]).await?;
    let theirs = receive(side, &mut state).await?;
    let peer = peer(&state)?;
    if !is_trusted(peer) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let own = random()?;
    send(side, &mut state, &own).await?;
    session(&state, &theirs, &own, peer)
}

/// The exposing side.
///
/// # Errors
/// As [`initiate`].
pub async fn respond(side: &mut impl Side, identity: &Identity) -> io::Result<Session> {
    let mut state = builder()
        .prologue(PROLOGUE)
        .and_then(|builder| builder.local_private_key(&identity.private))
        .and_then(Builder::build_responder)
        .map_err(refused)?;
    receive(side, &mut state).await?;
    let own = random()?;
    send(side, &mut state, &own).await?;
    let theirs = receive(side, &mut state).await?;
    let peer = peer(&state)?;
    session(&state, &own, &theirs, peer)
}

fn peer(state: &HandshakeState) -> io::Result<PublicKey> {
    let key = state.get_remote_static().ok_or(io::ErrorKind::InvalidData)?;
    Ok(PublicKey(array(key)))
}

fn session(state: &HandshakeState, exposing: &[u8], reaching: &[u8], peer: PublicKey) -> io::Result<Session> {
    if exposing.len() != SECRET_BYTES || reaching.len() != SECRET_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Session::new(state.get_handshake_hash(), &[exposing, reaching].concat(), peer))
}

async fn send(side: &mut impl Side, state: &mut HandshakeState, payload: &[u8]) -> io::Result<()> {
    let mut message = [0; 2 + MESSAGE_BYTES_MAX];
    let length = state.write_message(payload, &mut message[2..]).map_err(refused)?;
    message[..2].copy_from_slice(&u16::try_from(length).expect("a short message").to_be_bytes());
    write_all(side, &message[..2 + length]).await
}

async fn receive(side: &mut impl Side, state: &mut HandshakeState) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    read_exact(side, &mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = [0; MESSAGE_BYTES_MAX];
    read_exact(side, &mut message[..length]).await?;
    let mut payload = vec![0; MESSAGE_BYTES_MAX];
    let read = state.read_message(&message[..length], &mut payload).map_err(refused)?;
    payload.truncate(read);
    Ok(payload)
}
