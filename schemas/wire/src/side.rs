//! One end of a stream, whatever carries it: a socket, an encrypted connection, a place on a [`crate::link`].

use std::{
    fmt, io,
    os::fd::{AsFd as _, BorrowedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::net::{RecvFlags, SendFlags};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// A dead peer of an idle stream is noticed after about a minute and a half.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));

/// Sets what every socket of a stream needs: no delay of small writes, and notice of a dead peer.
pub fn prepare(socket: &TcpStream) {
    // A socket that refuses an option still carries bytes.
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(socket).set_tcp_keepalive(&KEEPALIVE);
}

/// Closes a socket with a reset instead of an orderly end.
pub fn reset(socket: TcpStream) {
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    drop(socket);
}

/// One end of a stream, as a relay needs it. All methods are for one task.
pub trait Side {
    /// Reads at least one byte into `buffer` (never empty); 0: the other end has said all.
    ///
    /// # Errors
    /// The stream broke.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Takes some of `bytes`.
    ///
    /// # Errors
    /// The stream broke.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Sends what was taken and is still held here.
    ///
    /// # Errors
    /// The stream broke.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = cx;
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more will be written.
    ///
    /// # Errors
    /// The stream broke.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when the stream broke; only of use after an end was read, when no read tells.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The plain socket that the next bytes come from, if they come from one and nothing is held here.
    fn reads_from(&self) -> Option<&TcpStream> {
        None
    }

    /// The plain socket that the next bytes go to, if they go to one and nothing is held here.
    fn writes_to(&self) -> Option<&TcpStream> {
        None
    }

    /// Makes the end, when this is dropped next, a reset: an orderly one would make a cut-off answer look complete.
    fn reset(&mut self);

    /// Makes every end but those that are said a reset, the sudden death of this process included. What tells its ends
    /// by words of its own need not do anything.
    fn guard(&mut self) {}

    /// Takes [`Side::guard`] back: both directions have ended, and what was written may still be on its way.
    fn release(&mut self) {}
}

impl<S: Side> Side for &mut S {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        (**self).poll_read(cx, buffer)
    }
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        (**self).poll_write(cx, bytes)
    }
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_flush(cx)
    }
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_finish(cx)
    }
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_broken(cx)
    }
    fn reads_from(&self) -> Option<&TcpStream> {
        (**self).reads_from()
    }
    fn writes_to(&self) -> Option<&TcpStream> {
        (**self).writes_to()
    }
    fn reset(&mut self) {
        (**self).reset();
    }
    fn guard(&mut self) {
        (**self).guard();
    }
    fn release(&mut self) {
        (**self).release();
    }
}

/// A plain socket.
pub struct Tcp {
    socket: Arc<TcpStream>,
    broken: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tcp").field(&self.socket).finish()
    }
}

impl From<TcpStream> for Tcp {
    fn from(socket: TcpStream) -> Self {
        Self { socket: Arc::new(socket), broken: None }
    }
}

impl Side for Tcp {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            let mut read = 0;
            let result = self.socket.try_io(Interest::READABLE, || {
                read = rustix::io::read(&*self.socket, &mut *buffer)?;
                // Less than there was room for: the socket is empty now, and asking it again would say no more. Told
                // to the runtime in this way, it waits for the next event and not for a failing read.
                if read > 0 && read < buffer.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && read == 0 => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                Ok(()) | Err(_) => return Poll::Ready(Ok(read)),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            let mut written = 0;
            let result = self.socket.try_io(Interest::WRITABLE, || {
                written = rustix::net::send(&*self.socket, bytes, SendFlags::NOSIGNAL)?;
                if written < bytes.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && written == 0 => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                Ok(()) | Err(_) => return Poll::Ready(Ok(written)),
            }
        }
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Write) {
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let socket = &self.socket;
        let broken = self.broken.get_or_insert_with(|| {
            let socket = Arc::clone(socket);
            Box::pin(async move { drop(socket.ready(Interest::ERROR).await) })
        });
        broken.as_mut().poll(cx)
    }

    fn reads_from(&self) -> Option<&TcpStream> {
        Some(&self.socket)
    }

    fn writes_to(&self) -> Option<&TcpStream> {
        Some(&self.socket)
    }

    fn reset(&mut self) {
        let _ = SockRef::from(&*self.socket).set_linger(Some(Duration::ZERO));
    }

    fn guard(&mut self) {
        // Whoever is killed has his sockets closed by the system: in order, unless they were told to be reset.
        self.reset();
    }

    fn release(&mut self) {
        let _ = SockRef::from(&*self.socket).set_linger(None);
    }
}

impl Tcp {
    /// The socket, for another runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        drop(self.broken);
        Arc::into_inner(self.socket)
            .ok_or_else(|| io::Error::other("the socket is still watched"))?
            .into_std()
    }

    /// The socket, to look at.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The socket itself, unless its end is being watched.
    fn alone(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        Arc::get_mut(&mut self.socket)
            .map(Pin::new)
            .ok_or_else(|| io::Error::other("the socket is watched by a relay"))
    }
}

/// An encrypted or otherwise wrapped connection. What it does not say itself suits one without a socket.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {
    /// As [`Side::poll_broken`]. Without it a broken stream is noticed by the next write, or by the session's end.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Pending
    }

    /// As [`Side::reset`].
    fn reset(&mut self) {}

    /// Leaves its runtime: nothing may be read or written until [`Duplex::adopt`].
    ///
    /// # Errors
    /// The system's; the connection is lost.
    fn park(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Joins the current runtime.
    ///
    /// # Errors
    /// The system's; the connection is lost.
    fn adopt(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The socket below, to look at.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Duplex for tokio::io::DuplexStream {}

/// A connection between hub and agent.
#[derive(Debug)]
pub enum Carrier {
    Plain(Tcp),
    Wrapped(Box<dyn Duplex>),
}

impl From<TcpStream> for Carrier {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(socket.into())
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => tcp.alone()?.poll_read(cx, buffer),
            Self::Wrapped(duplex) => Pin::new(duplex).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => tcp.alone()?.poll_write(cx, bytes),
            Self::Wrapped(duplex) => Pin::new(duplex).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => tcp.alone()?.poll_write_vectored(cx, slices),
            Self::Wrapped(duplex) => Pin::new(duplex).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Wrapped(duplex) => duplex.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => tcp.alone()?.poll_flush(cx),
            Self::Wrapped(duplex) => Pin::new(duplex).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => tcp.alone()?.poll_shutdown(cx),
            Self::Wrapped(duplex) => Pin::new(duplex).poll_shutdown(cx),
        }
    }
}

impl Side for Carrier {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => tcp.poll_read(cx, buffer),
            Self::Wrapped(duplex) => {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(duplex).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => tcp.poll_write(cx, bytes),
            Self::Wrapped(duplex) => Pin::new(duplex).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Wrapped(duplex) => Pin::new(duplex).poll_flush(cx),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => tcp.poll_finish(cx),
            Self::Wrapped(duplex) => Pin::new(duplex).poll_shutdown(cx),
        }
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(tcp) => tcp.poll_broken(cx),
            Self::Wrapped(duplex) => duplex.poll_broken(cx),
        }
    }

    fn reads_from(&self) -> Option<&TcpStream> {
        if let Self::Plain(tcp) = self { tcp.reads_from() } else { None }
    }

    fn writes_to(&self) -> Option<&TcpStream> {
        if let Self::Plain(tcp) = self { tcp.writes_to() } else { None }
    }

    fn reset(&mut self) {
        match self {
            Self::Plain(tcp) => tcp.reset(),
            Self::Wrapped(duplex) => duplex.reset(),
        }
    }

    fn guard(&mut self) {
        // TLS and WebSockets say their ends.
        if let Self::Plain(tcp) = self {
            tcp.guard();
        }
    }

    fn release(&mut self) {
        if let Self::Plain(tcp) = self {
            tcp.release();
        }
    }
}

/// A connection of no runtime, where it can be: idle, or on its way to another thread.
#[derive(Debug)]
pub enum Parked {
    Plain(std::net::TcpStream),
    Wrapped(Box<dyn Duplex>),
}

impl Parked {
    /// Takes a connection off its runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn park(carrier: Carrier) -> io::Result<Self> {
        Ok(match carrier {
            Carrier::Plain(tcp) => Self::Plain(tcp.into_std()?),
            Carrier::Wrapped(mut duplex) => {
                duplex.park()?;
                Self::Wrapped(duplex)
            }
        })
    }

    /// Adopts it on the current runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn adopt(self) -> io::Result<Carrier> {
        Ok(match self {
            Self::Plain(socket) => TcpStream::from_std(socket)?.into(),
            Self::Wrapped(mut duplex) => {
                duplex.adopt()?;
                Carrier::Wrapped(duplex)
            }
        })
    }

    /// Whether it says nothing, as an idle one does: bytes on it break the protocol, an end or error means that it is dead.
    pub fn is_idle_and_alive(&self) -> bool {
        let socket = match self {
            Self::Plain(socket) => socket.as_fd(),
            // Whatever comes through its encryption is a byte of the socket below, too.
            Self::Wrapped(duplex) => match duplex.descriptor() {
                Some(socket) => socket,
                // Found out by whoever asks it for a stream: nothing of that one's is lost.
                None => return true,
            },
        };
        match rustix::net::recv(socket, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok(_) => false,
            Err(error) => io::Error::from(error).kind() == io::ErrorKind::WouldBlock,
        }
    }
}
