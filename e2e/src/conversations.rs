//! Streams of every kind through one tunnel, watched at both ends: which of them live, and when they ended.
//!
//! Each one is named in its first line, so that the target knows which it has. Whoever speaks does so all the time.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    ports::loopback,
    wait::{SOON, eventually},
};

/// How often somebody speaks.
const EVERY: Duration = Duration::from_millis(30);
/// Something is said that long after somebody is told to listen, unless the stream is dead.
const LIVES: Duration = Duration::from_secs(3);

/// A kind of stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Server-sent events through the share.
    Events,
    /// A WebSocket through the share.
    WebSocket,
    /// A download through the share.
    Download,
    /// A download through the share by somebody who does not read: every buffer is full.
    Unread,
    /// An upload through the share.
    Upload,
    /// A connection on the tunnel port.
    Port,
    /// A connection on a port of the machine that reaches.
    Reach,
    /// Datagrams to the tunnel port of a UDP tunnel.
    Datagrams,
    /// Datagrams to a port of the machine that reaches.
    ReachDatagrams,
}

/// All that run through a share.
pub const OF_A_SHARE: [Kind; 5] = [Kind::Events, Kind::WebSocket, Kind::Download, Kind::Unread, Kind::Upload];
/// All that run through `reach`.
pub const OF_A_REACH: [Kind; 2] = [Kind::Reach, Kind::ReachDatagrams];
/// All.
pub const ALL: [Kind; 9] = [
    Kind::Events,
    Kind::WebSocket,
    Kind::Download,
    Kind::Unread,
    Kind::Upload,
    Kind::Port,
    Kind::Reach,
    Kind::Datagrams,
    Kind::ReachDatagrams,
];

impl Kind {
    fn name(self) -> String {
        format!("{self:?}").to_ascii_lowercase()
    }
    fn named(text: &str) -> Option<Self> {
        ALL.into_iter().find(|kind| kind.name() == text)
    }
}

/// One end of a stream.
#[derive(Debug, Default)]
struct End {
    heard: AtomicU64,
    ended: Mutex<Option<Instant>>,
}

impl End {
    fn hears(&self) {
        self.heard.fetch_add(1, Ordering::SeqCst);
    }
    fn ends(&self) {
        self.ended.lock().get_or_insert_with(Instant::now);
    }
}

/// Who looks: the one who began the stream, or the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Near,
    Far,
}

/// Both ends of every stream.
#[derive(Debug, Clone, Default)]
struct Ends(Arc<[[End; 2]; ALL.len()]>);

impl Ends {
    fn of(&self, kind: Kind, side: Side) -> &End {
        &self.0[kind as usize][side as usize]
    }
}

/// Two targets, and the streams to them.
#[derive(Debug)]
pub struct Conversations {
    /// Where a tunnel of TCP leads.
    pub target: SocketAddr,
    /// Where a tunnel of UDP leads.
    pub datagram_target: SocketAddr,
    ends: Ends,
}

/// Where the streams begin.
#[derive(Debug)]
pub struct Ways {
    pub edge: SocketAddr,
    /// The share's path, without a slash at its end.
    pub path: String,
    pub tunnel_port: u16,
    pub reach_port: u16,
    pub datagram_port: u16,
    pub reach_datagram_port: u16,
}

impl Conversations {
    /// The targets, without any stream.
    pub fn with_nobody() -> Self {
        let ends = Ends::default();
        let listener = TcpListener::bind(loopback(0)).expect("the loopback has free ports");
        let target = listener.local_addr().expect("a bound socket has an address");
        let known = ends.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let ends = known.clone();
                thread::spawn(move || answer(&stream, &ends));
            }
        });
        let socket = UdpSocket::bind(loopback(0)).expect("the loopback has free ports");
        let datagram_target = socket.local_addr().expect("a bound socket has an address");
        let known = ends.clone();
        thread::spawn(move || listen(&socket, &known));
        Self { target, datagram_target, ends }
    }

    /// Begins a stream of every kind, and waits until all of them live.
    #[track_caller]
    pub fn begin(&self, ways: &Ways) {
        for kind in ALL {
            let ends = self.ends.clone();
            let port = match kind {
                Kind::Events | Kind::WebSocket | Kind::Download | Kind::Unread | Kind::Upload => {
                    ways.edge.port()
                }
                Kind::Port => ways.tunnel_port,
                Kind::Reach => ways.reach_port,
                Kind::Datagrams => ways.datagram_port,
                Kind::ReachDatagrams => ways.reach_datagram_port,
            };
            if matches!(kind, Kind::Datagrams | Kind::ReachDatagrams) {
                thread::spawn(move || speak_by_datagrams(port, kind));
                continue;
            }
            let head = match kind {
                Kind::Port | Kind::Reach => format!("{}\n", kind.name()),
                Kind::Upload => request(ways, "POST", kind, "content-length: 1000000000\r\n"),
                Kind::WebSocket => {
                    request(ways, "GET", kind, "connection: Upgrade\r\nupgrade: websocket\r\n")
                }
                Kind::Events | Kind::Download | Kind::Unread | Kind::Datagrams | Kind::ReachDatagrams => {
                    request(ways, "GET", kind, "")
                }
            };
            let mut stream = TcpStream::connect(loopback(port)).expect("the port listens");
            stream.write_all(head.as_bytes()).expect("the port takes it");
            thread::spawn(move || {
                let end = ends.of(kind, Side::Near);
                match kind {
                    Kind::Unread => {
                        // Held open, and never read beyond the beginning.
                        let _head = stream.read(&mut [0; 1_024]);
                        end.hears();
                        loop {
                            thread::park();
                        }
                    }
                    Kind::WebSocket | Kind::Upload | Kind::Port | Kind::Reach => {
                        converse(&stream, &mut [0; 4_096], end, true);
                    }
                    Kind::Events | Kind::Download | Kind::Datagrams | Kind::ReachDatagrams => {
                        converse(&stream, &mut [0; 4_096], end, false);
                    }
                }
            });
        }
        for kind in ALL {
            eventually(&format!("{kind:?} to live"), SOON, || {
                self.hears_more(kind, 0).ok_or("nothing is heard")
            });
        }
        assert!(ALL.into_iter().all(|kind| self.ended(kind).is_none()), "a stream has ended already");
    }

    /// When both ends had learnt of the end, as far as they can.
    pub fn ended(&self, kind: Kind) -> Option<Instant> {
        let [near, far] = [Side::Near, Side::Far].map(|side| *self.ends.of(kind, side).ended.lock());
        match kind {
            // Nobody tells who does not read, or sends datagrams.
            Kind::Unread | Kind::Datagrams | Kind::ReachDatagrams => far,
            Kind::Events | Kind::WebSocket | Kind::Download | Kind::Upload | Kind::Port | Kind::Reach => {
                near.zip(far).map(|(near, far)| near.max(far))
            }
        }
    }

    /// How both ends see it, for messages.
    pub fn shown(&self, kind: Kind) -> String {
        let [near, far] = [Side::Near, Side::Far].map(|side| {
            let end = self.ends.of(kind, side);
            let how = if end.ended.lock().is_some() { "ended" } else { "open" };
            format!("{how}, heard {} times", end.heard.load(Ordering::SeqCst))
        });
        format!("visitor {near}; target {far}")
    }

    /// Neither end has ended, and somebody still hears something.
    #[track_caller]
    pub fn lives(&self, kind: Kind) {
        let before = self.heard(kind);
        eventually(&format!("{kind:?} to go on"), LIVES, || {
            let sides = [Side::Near, Side::Far].map(|side| *self.ends.of(kind, side).ended.lock());
            assert_eq!(sides, [None, None], "{kind:?} has ended");
            // Whoever is not read cannot be heard: his connection stays, and that is all.
            if kind == Kind::Unread {
                Ok(())
            } else {
                self.hears_more(kind, before).ok_or("nothing is heard")
            }
        });
    }

    fn hears_more(&self, kind: Kind, than: u64) -> Option<()> {
        (self.heard(kind) > than).then_some(())
    }

    /// What the one who has less to hear has heard.
    fn heard(&self, kind: Kind) -> u64 {
        let heard = |side| self.ends.of(kind, side).heard.load(Ordering::SeqCst);
        match kind {
            Kind::Events | Kind::Download | Kind::Unread => heard(Side::Near),
            Kind::Upload | Kind::Datagrams | Kind::ReachDatagrams => heard(Side::Far),
            Kind::WebSocket | Kind::Port | Kind::Reach => heard(Side::Near).min(heard(Side::Far)),
        }
    }
}

fn request(ways: &Ways, method: &str, kind: Kind, headers: &str) -> String {
    format!("{method} {}/{} HTTP/1.1\r\nhost: {}\r\n{headers}\r\n", ways.path, kind.name(), ways.edge)
}

/// Listens, and speaks if it is to, until the peer ends it.
fn converse(mut stream: &TcpStream, buffer: &mut [u8], end: &End, speaks: bool) {
    stream.set_read_timeout(Some(EVERY)).expect("a timeout can be set");
    loop {
        match stream.read(buffer) {
            Ok(0) => break,
            Ok(_) => end.hears(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        if speaks && stream.write_all(b"tick\n").is_err() {
            break;
        }
    }
    end.ends();
}

/// The target's side.
fn answer(stream: &TcpStream, ends: &Ends) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    if !matches!(reader.read_line(&mut first), Ok(1..)) {
        return;
    }
    let name = first.split([' ', '/', '\n']).find_map(Kind::named);
    let kind = name.unwrap_or_else(|| panic!("no kind of stream: {first:?}"));
    let mut line = String::new();
    while first.contains("HTTP/1.1") && line != "\r\n" {
        line.clear();
        if !matches!(reader.read_line(&mut line), Ok(1..)) {
            return;
        }
    }
    let head = match kind {
        Kind::Events => "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
        Kind::Download | Kind::Unread => "HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n",
        Kind::WebSocket => {
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
        }
        Kind::Upload | Kind::Port | Kind::Reach | Kind::Datagrams | Kind::ReachDatagrams => "",
    };
    let end = ends.of(kind, Side::Far);
    let mut writer = stream;
    if writer.write_all(head.as_bytes()).is_err() {
        return end.ends();
    }
    if kind != Kind::Unread {
        return converse(stream, &mut [0; 4_096], end, kind != Kind::Upload);
    }
    let block = [b'x'; 64 * 1_024];
    stream.set_write_timeout(Some(EVERY)).expect("a timeout can be set");
    loop {
        match writer.write(&block) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return end.ends(),
        }
    }
}

fn speak_by_datagrams(port: u16, kind: Kind) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback has free ports");
    loop {
        // Refused when the port is closed; said again all the same.
        let _refused = socket.send_to(kind.name().as_bytes(), loopback(port));
        thread::sleep(EVERY);
    }
}

/// The target of datagrams: the first session of each kind is watched.
fn listen(socket: &UdpSocket, ends: &Ends) {
    let mut known = Vec::new();
    let mut buffer = [0; 64];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let Some(kind) = std::str::from_utf8(&buffer[..length]).ok().and_then(Kind::named) else { continue };
        ends.of(kind, Side::Far).hears();
        if !known.contains(&kind) {
            known.push(kind);
            let ends = ends.clone();
            thread::spawn(move || {
                // The agent's socket of a session is its alone, for as long as the session lives.
                while UdpSocket::bind(from).is_err() {
                    thread::sleep(Duration::from_millis(10));
                }
                ends.of(kind, Side::Far).ends();
            });
        }
    }
}
