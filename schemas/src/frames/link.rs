//! Frames of a link: one data connection that carries many streams. Small and flat, since every piece of a small
//! stream pays for one: `{stream u32, kind u8, flags u8, length u16, body}`, big-endian.
//!
//! A stream is opened by either side under a number of its own (the hub's are even, the agent's odd) that no running
//! stream has. The opener may send data at once. Each direction ends with `End`, or moves to a data connection of its own with
//! `Moved` as its last frame here; `Reset` ends both at once. A side that hears nothing for [`super::SILENCE_MS_MAX`] takes the link
//! for broken.

/// Stream, kind, flags and length.
pub const HEADER_BYTES: usize = 8;
/// The longest body, in bytes: one stream's piece must not hold up the others for long.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// What a stream may send before the other side has given credit, and the most credit it ever has.
pub const WINDOW_BYTES: u32 = 64 * 1024;
/// How many streams one link carries at once.
pub const STREAMS_MAX: usize = 8_192;

/// What a frame of a link says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Body: [`super::StreamOpen`].
    Open,
    /// The target was dialled. No body.
    Accepted,
    /// Body: [`super::StreamRefused`]; the stream is over.
    Refused,
    /// Bytes.
    Data,
    /// This direction has said all. No body.
    End,
    /// The stream is over in both directions, not in order. No body.
    Reset,
    /// Body: u32, that many more bytes may be sent.
    Credit,
    /// What follows in this direction goes over the data connection that began with
    /// [`super::StreamAdopt`] or [`super::LinkAdopt`]. No body.
    Moved,
    /// Of no stream (number 0): the sender is there, and had nothing else to say for [`super::HEARTBEAT_MS`].
    Ping,
}

impl Kind {
    /// The number on the wire, for ever.
    pub const fn number(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Accepted => 2,
            Self::Refused => 3,
            Self::Data => 4,
            Self::End => 5,
            Self::Reset => 6,
            Self::Credit => 7,
            Self::Moved => 8,
            Self::Ping => 9,
        }
    }

    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Open,
            2 => Self::Accepted,
            3 => Self::Refused,
            4 => Self::Data,
            5 => Self::End,
            6 => Self::Reset,
            7 => Self::Credit,
            8 => Self::Moved,
            9 => Self::Ping,
            _ => return None,
        })
    }
}

/// A frame's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub stream: u32,
    pub kind: Kind,
    pub length: usize,
}

impl Header {
    /// # Panics
    /// With a length over [`BODY_BYTES_MAX`].
    pub fn bytes(self) -> [u8; HEADER_BYTES] {
        assert!(self.length <= BODY_BYTES_MAX, "callers cut their bytes into pieces");
        let [a, b, c, d] = self.stream.to_be_bytes();
        let [high, low] = u16::try_from(self.length).expect("checked above").to_be_bytes();
        [a, b, c, d, self.kind.number(), 0, high, low]
    }

    /// Reads a header; `Ok(None)` while there are fewer than [`HEADER_BYTES`] bytes. Flags are reserved and not
    /// looked at.
    ///
    /// # Errors
    /// [`super::FrameError`]: an unknown kind, or a body over the limit.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, super::FrameError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [a, b, c, d, kind, _, high, low] = *header;
        let kind = Kind::of(kind).ok_or(super::FrameError::UnknownKind(kind.into()))?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > BODY_BYTES_MAX {
            return Err(super::FrameError::TooLarge(length));
        }
        Ok(Some(Self { stream: u32::from_be_bytes([a, b, c, d]), kind, length }))
    }
}

/// The body of [`Kind::Open`].
pub fn open_bytes(open: &super::StreamOpen) -> Vec<u8> {
    let mut bytes = Vec::new();
    super::write(&mut bytes, open).expect("plain data encodes");
    bytes
}

/// Reads the body of [`Kind::Open`].
///
/// # Errors
/// [`super::FrameError::Body`].
pub fn open_from(body: &[u8]) -> Result<super::StreamOpen, super::FrameError> {
    super::read(Kind::Open.number().into(), body)
}

/// The body of [`Kind::Refused`].
pub fn refused_bytes(refused: &super::StreamRefused) -> Vec<u8> {
    let mut bytes = Vec::new();
    super::write(&mut bytes, refused).expect("plain data encodes");
    bytes
}

/// Reads the body of [`Kind::Refused`].
///
/// # Errors
/// [`super::FrameError::Body`].
pub fn refused_from(body: &[u8]) -> Result<super::StreamRefused, super::FrameError> {
    super::read(Kind::Refused.number().into(), body)
}
