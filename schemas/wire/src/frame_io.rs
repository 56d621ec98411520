//! Frames on a data connection: exactly one is read, not a byte more, since raw bytes follow it.

use std::io;

use schemas::frames::{Frame, HEADER_BYTES, Header};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Writes one frame.
///
/// # Errors
/// The connection's.
pub async fn write(connection: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let bytes = frame.encode().map_err(io::Error::other)?;
    connection.write_all(&bytes).await?;
    connection.flush().await
}

/// Reads one frame; the caller sets the deadline.
///
/// # Errors
/// The connection's; [`io::ErrorKind::InvalidData`] for what is no frame.
pub async fn read(connection: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let broken = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut header = [0; HEADER_BYTES];
    connection.read_exact(&mut header).await?;
    let header =
        Header::read(&header).map_err(|error| broken(error.to_string()))?.expect("a whole header was read");
    let mut body = vec![0; header.length];
    connection.read_exact(&mut body).await?;
    Frame::decode_body(header, &body)
        .map_err(|error| broken(error.to_string()))?
        .ok_or_else(|| broken("the frame is of an unknown kind".to_owned()))
}
