//! Sessions of peers: whose answer is whose, and that nothing grows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, duplex},
    net::UdpSocket,
    sync::watch,
    time::timeout,
};

use super::*;
use crate::{
    datagram::{Cutter, length_of},
    side::Carrier,
};

const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("within the deadline")
}

/// What the tests' host does with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Every datagram comes back.
    Echo,
    /// Echoes until the stream ends by itself.
    EchoOnce,
    /// A stream that is not read.
    Stuck,
    Refuse,
}

#[derive(Debug, Clone)]
struct TestHost {
    manner: Manner,
    attended: watch::Sender<Vec<SocketAddr>>,
    ended: watch::Sender<Vec<SocketAddr>>,
}

impl Host for TestHost {
    fn attend(&self, peer: Peer) {
        let address = peer.address();
        self.attended.send_modify(|attended| attended.push(address));
        let host = self.clone();
        tokio::spawn(async move {
            // The stream's other end lives until the session has ended.
            let (stream, other) = duplex(16);
            let mut kept = None;
            match host.manner {
                Manner::Refuse => peer.refuse().await,
                Manner::Echo | Manner::EchoOnce | Manner::Stuck => {
                    match host.manner {
                        Manner::Echo => drop(tokio::spawn(echo(other, usize::MAX))),
                        Manner::EchoOnce => drop(tokio::spawn(echo(other, 1))),
                        Manner::Stuck | Manner::Refuse => kept = Some(other),
                    }
                    let stream = Carrier::Wrapped(Box::new(stream));
                    peer.carry(stream, std::future::pending()).await;
                }
            }
            drop(kept);
            host.ended.send_modify(|ended| ended.push(address));
        });
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin, count: usize) {
    let (mut cutter, mut buffer, mut echoed) = (Cutter::default(), vec![0; 100_000], 0);
    while echoed < count {
        match tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => cutter.feed(&buffer[..read]),
        }
        while let Some(datagram) = cutter.first() {
            let framed = [&length_of(datagram).unwrap()[..], datagram].concat();
            if stream.write_all(&framed).await.is_err() {
                return;
            }
            cutter.pass();
            echoed += 1;
        }
    }
}

struct Rig {
    port: Option<PeerPort>,
    at: SocketAddr,
    room: PeerRoom,
    host: TestHost,
}

fn rig_at(address: SocketAddr, manner: Manner, limits: PeerLimits) -> Rig {
    let socket = bind(address).unwrap();
    let at = socket.local_addr().unwrap();
    let host = TestHost { manner, attended: watch::Sender::default(), ended: watch::Sender::default() };
    let room = PeerRoom::default();
    let (port, receiving) = PeerPort::open(vec![socket], limits, &room, host.clone()).unwrap();
    receiving.into_iter().for_each(|task| drop(tokio::spawn(task)));
    Rig { port: Some(port), at, room, host }
}

fn rig(manner: Manner, limits: PeerLimits) -> Rig {
    rig_at((Ipv4Addr::LOCALHOST, 0).into(), manner, limits)
}

async fn client(to: SocketAddr) -> UdpSocket {
    let from = if to.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
    let socket = UdpSocket::bind((from, 0)).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

async fn answer(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let length = soon(socket.recv(&mut buffer)).await.unwrap();
    buffer.truncate(length);
    buffer
}

async fn asked(socket: &UdpSocket, datagram: &[u8]) -> Vec<u8> {
    socket.send(datagram).await.unwrap();
    answer(socket).await
}

#[tokio::test]
async fn borders_are_kept_from_the_smallest_datagram_to_the_largest() {
    let rig = rig(Manner::Echo, PeerLimits::default());
    let socket = client(rig.at).await;
    for size in [0, 1, 1_472, 9_000, 65_507] {
        let sent = vec![u8::try_from(size % 251).unwrap(); size];
        assert!(asked(&socket, &sent).await == sent, "{size} bytes");
    }
    assert_eq!(rig.host.attended.borrow().len(), 1, "one peer is one session");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_to_the_peer_that_asked_and_to_nobody_else() {
    for at in [(Ipv4Addr::LOCALHOST, 0).into(), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))] {
        let rig = rig_at(at, Manner::Echo, PeerLimits::default());
        let talks = (0..100_u8).map(|number| async move {
            let socket = client(rig.at).await;
            for word in 0..20 {
                assert_eq!(asked(&socket, &[number, word]).await, [number, word]);
            }
            let more = timeout(Duration::from_millis(1), socket.recv(&mut [0; 8])).await;
            assert!(more.is_err(), "somebody else's answer: {more:?}");
        });
        futures_util::future::join_all(talks).await;
        assert_eq!(rig.room.counts().sessions.load(Ordering::Relaxed), 100);
        assert_eq!(rig.room.counts().lost.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn a_port_on_all_interfaces_answers_from_the_address_that_was_asked() {
    let rig = rig_at((Ipv4Addr::UNSPECIFIED, 0).into(), Manner::Echo, PeerLimits::default());
    for host in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 9, 9, 9]] {
        // A connected socket takes answers from that address alone.
        let socket = client((Ipv4Addr::from(host), rig.at.port()).into()).await;
        assert_eq!(asked(&socket, b"x").await, b"x");
    }
    let rig = rig_at((Ipv6Addr::UNSPECIFIED, 0).into(), Manner::Echo, PeerLimits::default());
    let socket = client((Ipv6Addr::LOCALHOST, rig.at.port()).into()).await;
    assert_eq!(asked(&socket, b"x").await, b"x");
}

#[tokio::test]
async fn one_session_too_many_ends_the_one_that_was_silent_longest() {
    let rig = rig(Manner::Echo, PeerLimits { sessions_max: 3, ..PeerLimits::default() });
    let sockets = [client(rig.at).await, client(rig.at).await, client(rig.at).await, client(rig.at).await];
    let at = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
    for index in [0, 1, 2, 0] {
        assert_eq!(asked(&sockets[index], b"x").await, b"x");
    }
    assert_eq!(asked(&sockets[3], b"x").await, b"x");
    let mut ended = rig.host.ended.subscribe();
    let first = soon(ended.wait_for(|ended| !ended.is_empty())).await.unwrap().clone();
    assert_eq!(first, [at[1]]);
    assert_eq!(rig.room.counts().evicted.load(Ordering::Relaxed), 1);
    // It may come back, as a new session.
    assert_eq!(asked(&sockets[1], b"y").await, b"y");
    assert_eq!(*rig.host.attended.borrow(), [at[0], at[1], at[2], at[3], at[1]]);
}

#[tokio::test]
async fn what_a_stream_does_not_take_is_lost_and_takes_no_memory() {
    let limits = PeerLimits { session_bytes_max: 4_000, ..PeerLimits::default() };
    let rig = rig(Manner::Stuck, limits);
    let socket = client(rig.at).await;
    let all = rig.room.bytes.available_permits();
    let mut sent = 0;
    while rig.room.counts().lost.load(Ordering::Relaxed) < 10 {
        socket.send(&[7; 1_000]).await.unwrap();
        sent += 1;
        tokio::task::yield_now().await;
        assert!(sent < 1_000, "nothing is lost");
    }
    let held = all - rig.room.bytes.available_permits();
    assert!(held <= 4_000, "{held} bytes wait");
    drop(rig.port);
    let mut ended = rig.host.ended.subscribe();
    soon(ended.wait_for(|ended| !ended.is_empty())).await.unwrap();
    assert_eq!(rig.room.bytes.available_permits(), all, "the end gives it all back");
}

#[tokio::test]
async fn a_closed_port_refuses_at_once_and_may_be_bound_again() {
    let mut rig = rig(Manner::Echo, PeerLimits::default());
    for _ in 0..50 {
        let socket = client(rig.at).await;
        assert_eq!(asked(&socket, b"x").await, b"x");
        let port = rig.port.take().unwrap();
        port.close();
        let refused = async {
            // The refusal is what the system has for the next call.
            socket.send(b"y").await?;
            socket.recv(&mut [0; 1]).await
        };
        assert_eq!(soon(refused).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        rig = rig_at(rig.at, Manner::Echo, PeerLimits::default());
    }
}

#[tokio::test]
async fn a_peer_that_was_refused_is_not_tried_again_with_every_datagram() {
    let rig = rig(Manner::Refuse, PeerLimits::default());
    let socket = client(rig.at).await;
    let began = Instant::now();
    while rig.host.attended.borrow().len() < 2 {
        socket.send(b"x").await.unwrap();
        let _ = timeout(Duration::from_millis(1), socket.recv(&mut [0; 1])).await;
        assert!(began.elapsed() < SOON, "never tried again");
    }
    assert!(began.elapsed() >= REST, "tried again after {:?}", began.elapsed());
    assert!(rig.room.counts().lost.load(Ordering::Relaxed) > 1);
}

#[tokio::test]
async fn a_session_ends_when_it_was_idle_and_the_next_datagram_begins_another() {
    let rig = rig(Manner::Echo, PeerLimits { idle: Duration::from_millis(50), ..PeerLimits::default() });
    let socket = client(rig.at).await;
    for session in 1..=2 {
        assert_eq!(asked(&socket, b"x").await, b"x");
        let mut ended = rig.host.ended.subscribe();
        soon(ended.wait_for(|ended| ended.len() == session)).await.unwrap();
    }
    assert_eq!(rig.host.attended.borrow().len(), 2);
}

#[tokio::test]
async fn a_stream_that_breaks_at_once_is_not_opened_again_at_once() {
    let rig = rig(Manner::EchoOnce, PeerLimits::default());
    let socket = client(rig.at).await;
    let began = Instant::now();
    assert_eq!(asked(&socket, b"x").await, b"x");
    let mut answers = 1;
    while answers < 2 {
        socket.send(b"y").await.unwrap();
        if timeout(Duration::from_millis(5), socket.recv(&mut [0; 1])).await.is_ok() {
            answers += 1;
        }
        assert!(began.elapsed() < SOON, "never tried again");
    }
    assert!(began.elapsed() >= REST, "tried again after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_port_that_somebody_has_is_not_bound() {
    let rig = rig(Manner::Echo, PeerLimits::default());
    assert_eq!(bind(rig.at).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}
