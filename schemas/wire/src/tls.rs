//! TLS as hub and agent speak it: one provider, the names of protocols, and an encrypted connection as a carrier.
//!
//! Invariants: the provider is passed wherever one is needed and never installed for the process; TLS 1.2 and 1.3 only;
//! an encrypted connection that breaks off without a farewell is an error and never looks like an end.

use std::{
    error::Error,
    fmt, io,
    os::fd::{AsFd as _, BorrowedFd},
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    ClientConfig, CommonState, ServerConfig, SupportedProtocolVersion, crypto::CryptoProvider,
    pki_types::ServerName,
};
use schemas::frames::preface::UPGRADE;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::side::Duplex;

pub mod trust;
pub mod validity;

/// What agents offer first: whoever stands in between can tell them from browsers before a byte of HTTP.
pub const AGENT: &[u8] = UPGRADE.as_bytes();
/// HTTP/1.1, which agents offer too: a proxy that ends TLS in front of the hub knows no other name.
pub const HTTP_11: &[u8] = b"http/1.1";
/// HTTP/2.
pub const HTTP_2: &[u8] = b"h2";

/// What is spoken; nothing older, whatever the provider could do.
pub const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

/// The one provider of this program.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// The reason of rustls somewhere below an error.
pub fn reason<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(reason) = error.downcast_ref::<rustls::Error>() {
            return Some(reason);
        }
        // An I/O error shows what lies below the one it wraps, and not that one itself.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// Shakes hands as the client; the caller sets the deadline.
///
/// # Errors
/// The network's, or the reason of rustls ([`reason`]).
pub async fn connect(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    socket: TcpStream,
) -> io::Result<Encrypted> {
    let tls = TlsConnector::from(config).connect(name, Socket::Here(socket)).await?;
    Ok(Encrypted::new(TlsStream::Client(tls)))
}

/// Shakes hands as the server; the caller sets the deadline.
///
/// # Errors
/// The network's, or the reason of rustls ([`reason`]).
pub async fn accept(config: Arc<ServerConfig>, socket: TcpStream) -> io::Result<Encrypted> {
    let tls = TlsAcceptor::from(config).accept(Socket::Here(socket)).await?;
    Ok(Encrypted::new(TlsStream::Server(tls)))
}

/// An encrypted connection.
pub struct Encrypted {
    tls: TlsStream<Socket>,
    /// Decrypted and looked at, but not read yet.
    ahead: Vec<u8>,
    broken: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encrypted").field("socket", self.tls.get_ref().0).finish_non_exhaustive()
    }
}

impl Encrypted {
    fn new(tls: TlsStream<Socket>) -> Self {
        Self { tls, ahead: Vec::new(), broken: None }
    }

    /// What both ends agreed on.
    pub fn state(&self) -> &CommonState {
        self.tls.get_ref().1
    }

    /// The protocol that both ends agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.state().alpn_protocol()
    }

    /// The name that the client asked for, in lower case.
    pub fn server_name(&self) -> Option<&str> {
        match &self.tls {
            TlsStream::Server(tls) => tls.get_ref().1.server_name(),
            TlsStream::Client(_) => None,
        }
    }

    /// Whether a session that was known already was taken up again.
    pub fn is_resumed(&self) -> bool {
        self.state().handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// The socket below, while it belongs to a runtime.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self.tls.get_ref().0 {
            Socket::Here(tcp) => Some(tcp),
            Socket::Parked(_) | Socket::Gone => None,
        }
    }

    /// Looks at what the other end says first, without taking it: `length` bytes, or fewer when it says no more or
    /// `goes_on` wants no more of what is there.
    ///
    /// # Errors
    /// The connection's.
    pub async fn look(&mut self, length: usize, goes_on: impl Fn(&[u8]) -> bool) -> io::Result<&[u8]> {
        let mut buffer = [0; 1024];
        while self.ahead.len() < length && goes_on(&self.ahead) {
            let read = self.tls.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            self.ahead.extend_from_slice(&buffer[..read]);
        }
        Ok(&self.ahead)
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.tls).poll_read(cx, buffer);
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..length]);
        self.ahead.drain(..length);
        if self.ahead.is_empty() {
            self.ahead = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

impl Duplex for Encrypted {
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.broken.is_none() {
            // A second handle, since the future outlives this call and the connection goes on meanwhile.
            let Some(second) = self.tcp().and_then(|tcp| SockRef::from(tcp).try_clone().ok()) else {
                return Poll::Pending;
            };
            let Ok(watched) = TcpStream::from_std(second.into()) else { return Poll::Pending };
            self.broken = Some(Box::pin(async move { drop(watched.ready(Interest::ERROR).await) }));
        }
        let Some(broken) = &mut self.broken else { return Poll::Pending };
        broken.as_mut().poll(cx)
    }

    fn reset(&mut self) {
        if let Some(tcp) = self.tcp() {
            let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }

    fn park(&mut self) -> io::Result<()> {
        self.broken = None;
        let socket = self.tls.get_mut().0;
        if let Socket::Here(tcp) = std::mem::replace(socket, Socket::Gone) {
            *socket = Socket::Parked(tcp.into_std()?);
        }
        Ok(())
    }

    fn adopt(&mut self) -> io::Result<()> {
        let socket = self.tls.get_mut().0;
        if let Socket::Parked(tcp) = std::mem::replace(socket, Socket::Gone) {
            *socket = Socket::Here(TcpStream::from_std(tcp)?);
        }
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self.tls.get_ref().0 {
            Socket::Here(tcp) => Some(tcp.as_fd()),
            Socket::Parked(tcp) => Some(tcp.as_fd()),
            Socket::Gone => None,
        }
    }
}

/// The socket below, which may go from one runtime to another.
#[derive(Debug)]
enum Socket {
    Here(TcpStream),
    Parked(std::net::TcpStream),
    /// It was lost on the way.
    Gone,
}

impl Socket {
    fn here(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match self {
            Self::Here(tcp) => Ok(Pin::new(tcp)),
            Self::Parked(_) | Self::Gone => Err(io::Error::other("the connection belongs to no runtime")),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.here()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.here()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.here()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
