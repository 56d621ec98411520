//! The preface of a data connection as the hub reads it, and the window that makes each proof good for one use.

use domain::ids::SessionId;
use schemas::frames::{
    STREAM_PATH,
    preface::{self, BYTES_MAX, COUNTER_WINDOW, Purpose},
};

/// A preface that was read and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preface {
    pub(crate) session: SessionId,
    pub(crate) counter: u64,
    pub(crate) purpose: Purpose,
    pub(crate) proof: [u8; 32],
    pub(crate) upgrade: Upgrade,
    /// How many bytes it took; what follows belongs to the stream.
    pub(crate) length: usize,
}

/// What the connection becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// Raw bytes.
    Raw,
    /// Messages of a WebSocket; what the client wants to hear back for its key.
    WebSocket { accept: String },
}

/// The bytes are no preface of a data connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a data connection's preface: {0}")]
pub(crate) struct Malformed(&'static str);

/// The most headers that a proxy on the way may bring it to.
const HEADERS_MAX: usize = 32;

/// Reads a preface. `Ok(None)`: more bytes are needed.
///
/// # Errors
/// [`Malformed`] also when there are more than [`BYTES_MAX`] bytes without an end.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Preface>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= BYTES_MAX => length,
        Ok(httparse::Status::Partial) if bytes.len() < BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Complete(_) | httparse::Status::Partial) => return Err(Malformed("too long")),
        Err(_) => return Err(Malformed("no HTTP request")),
    };
    if request.method != Some("GET") || request.path != Some(STREAM_PATH) || request.version != Some(1) {
        return Err(Malformed("another request"));
    }
    // Twice the same header could be read in two ways.
    let one = |name: &str| {
        let mut found = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        let value = std::str::from_utf8(found.next()?.value).ok()?;
        found.next().is_none().then_some(value)
    };
    let upgrade = match one("upgrade") {
        Some(name) if name.eq_ignore_ascii_case(preface::UPGRADE) => Upgrade::Raw,
        Some(name) if name.eq_ignore_ascii_case(preface::WEBSOCKET) => {
            let key = one("sec-websocket-key").ok_or(Malformed("no key of a WebSocket"))?;
            Upgrade::WebSocket { accept: wire::websocket::accept_key(key) }
        }
        Some(_) | None => return Err(Malformed("no upgrade to pconnect/1 or websocket")),
    };
    let preface = Preface {
        session: one(preface::SESSION).and_then(|text| text.parse().ok()).ok_or(Malformed("session"))?,
        counter: one(preface::COUNTER).and_then(decimal).ok_or(Malformed("counter"))?,
        purpose: match one(preface::PURPOSE) {
            Some("serve") => Purpose::Serve,
            Some("reach") => Purpose::Reach,
            Some("link") => Purpose::Link,
            Some(_) | None => return Err(Malformed("purpose")),
        },
        proof: one(preface::PROOF).and_then(projections::routes::unhex).ok_or(Malformed("proof"))?,
        upgrade,
        length,
    };
    Ok(Some(preface))
}

/// Digits only, without a sign or leading zeros: the proof covers the number's one spelling.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Which counters of a session were used: the last [`COUNTER_WINDOW`], and none below.
#[derive(Debug)]
pub(crate) struct Window {
    highest: u64,
    /// The bit of counter `n` is at `n % COUNTER_WINDOW`.
    used: [u64; WORDS],
}

const WORDS: usize = (COUNTER_WINDOW / 64) as usize;

impl Default for Window {
    fn default() -> Self {
        Self { highest: 0, used: [0; WORDS] }
    }
}

impl Window {
    /// Uses a counter up. `false`: it was used before, or is too old to know. Counters start at 1.
    pub(crate) fn take(&mut self, counter: u64) -> bool {
        if counter == 0 || self.highest.saturating_sub(counter) >= COUNTER_WINDOW {
            return false;
        }
        if counter > self.highest {
            // What slides out of the window makes room for what slides in.
            let fresh = (counter - self.highest).min(COUNTER_WINDOW);
            for step in 1..=fresh {
                let (word, bit) = Self::place(self.highest.wrapping_add(step));
                self.used[word] &= !bit;
            }
            if fresh == COUNTER_WINDOW {
                self.used = [0; WORDS];
            }
            self.highest = counter;
        }
        let (word, bit) = Self::place(counter);
        let unused = self.used[word] & bit == 0;
        self.used[word] |= bit;
        unused
    }

    fn place(counter: u64) -> (usize, u64) {
        let slot = counter % COUNTER_WINDOW;
        (usize::try_from(slot / 64).expect("under WORDS"), 1 << (slot % 64))
    }
}

#[cfg(test)]
mod tests;
