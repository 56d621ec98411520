//! Frames on a data connection: exactly one is read, not a byte more, since raw bytes follow it.

use std::io;

use schemas::frames::{Frame, HEADER_BYTES, Header};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Writes one frame.
///
/// # Errors
/// The socket's.
pub(super) async fn write(socket: &mut TcpStream, frame: &Frame) -> io::Result<()> {
    let bytes = frame.encode().map_err(io::Error::other)?;
    socket.write_all(&bytes).await
}

/// Reads one frame; the caller sets the deadline.
///
/// # Errors
/// The socket's; [`io::ErrorKind::InvalidData`] for what is no frame.
pub(super) async fn read(socket: &mut TcpStream) -> io::Result<Frame> {
    let broken = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut header = [0; HEADER_BYTES];
    socket.read_exact(&mut header).await?;
    let header =
        Header::read(&header).map_err(|error| broken(error.to_string()))?.expect("a whole header was read");
    let mut body = vec![0; header.length];
    socket.read_exact(&mut body).await?;
    Frame::decode_body(header, &body)
        .map_err(|error| broken(error.to_string()))?
        .ok_or_else(|| broken("the frame is of an unknown kind".to_owned()))
}
