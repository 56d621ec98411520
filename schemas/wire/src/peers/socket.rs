//! A UDP socket that tells which of its addresses a datagram was sent to, and answers from that one.
//!
//! A socket on all interfaces would otherwise answer from whichever address the route suggests, and a client takes an
//! answer only from the address that it asked.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket as PlainSocket},
    os::fd::AsRawFd as _,
    task::{Context, Poll, ready},
};

use nix::{
    cmsg_space,
    libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use socket2::{Domain, Socket as Plain, Type};
use tokio::{io::Interest, net::UdpSocket};

/// What the system may keep of datagrams that were not looked at yet (bytes); it gives less where its own limit is lower.
const SYSTEM_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Binds a port for [`super::PeerPort`]; not yet known to any runtime.
///
/// # Errors
/// The system's: [`io::ErrorKind::AddrInUse`] when somebody has the port.
pub fn bind(address: SocketAddr) -> io::Result<PlainSocket> {
    // Without SO_REUSEADDR: for UDP it would let another program take the port's datagrams.
    let socket = Plain::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    let _ = socket.set_recv_buffer_size(SYSTEM_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SYSTEM_BUFFER_BYTES);
    if address.ip().is_unspecified() {
        let told = if address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)
        };
        told?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// One bound socket.
#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    address: SocketAddr,
}

/// Who sent a datagram, and to which of our addresses (`None`: there is only one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Way {
    pub(super) peer: SocketAddr,
    local: Option<IpAddr>,
}

impl Socket {
    /// Registers the socket with the current runtime.
    pub(super) fn adopt(socket: PlainSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        Ok(Self { io: UdpSocket::from_std(socket)?, address })
    }

    /// The next datagram; `buffer` has room for any.
    pub(super) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, Way)>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let received = self.io.try_io(Interest::READABLE, || self.receive(buffer));
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Way)> {
        let mut control =
            if self.address.ip().is_unspecified() { cmsg_space!(in6_pktinfo) } else { Vec::new() };
        let mut pieces = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrStorage>(
            self.io.as_raw_fd(),
            &mut pieces,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let peer = received.address.as_ref().and_then(plain).ok_or(io::ErrorKind::InvalidData)?;
        let local = if self.address.ip().is_unspecified() {
            received.cmsgs()?.find_map(|message| local_of(&message))
        } else {
            None
        };
        Ok((received.bytes, Way { peer, local }))
    }

    /// Whether a datagram claims to come from the very address that it was sent to: its answer would be the next one.
    pub(super) fn is_from_itself(&self, way: Way) -> bool {
        way.peer == SocketAddr::new(way.local.unwrap_or(self.address.ip()), self.address.port())
    }

    /// Sends an answer, or loses it.
    pub(super) fn answer(&self, way: Way, datagram: &[u8]) {
        let to = SockaddrStorage::from(way.peer);
        let (four, six);
        let from = match way.local {
            None => None,
            Some(IpAddr::V4(local)) => {
                let address = in_addr { s_addr: u32::from_ne_bytes(local.octets()) };
                four = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: in_addr { s_addr: 0 } };
                Some(ControlMessage::Ipv4PacketInfo(&four))
            }
            Some(IpAddr::V6(local)) => {
                six = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: local.octets() }, ipi6_ifindex: 0 };
                Some(ControlMessage::Ipv6PacketInfo(&six))
            }
        };
        let _ = sendmsg(
            self.io.as_raw_fd(),
            &[IoSlice::new(datagram)],
            from.as_slice(),
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            Some(&to),
        );
    }
}

fn plain(address: &SockaddrStorage) -> Option<SocketAddr> {
    let four = || address.as_sockaddr_in().map(|four| SocketAddr::V4((*four).into()));
    four().or_else(|| address.as_sockaddr_in6().map(|six| SocketAddr::V6((*six).into())))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of the system's many messages two were asked for")]
fn local_of(message: &ControlMessageOwned) -> Option<IpAddr> {
    match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    }
}
