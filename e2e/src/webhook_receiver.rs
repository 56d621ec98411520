//! A receiver of webhooks that fails in every way a test can think of, and keeps what came.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::Value;

/// How long one connection may take for its request.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a receiver does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers this status, with no body.
    Says(u16),
    /// 429 with `Retry-After` in seconds.
    AsksFor(u32),
    /// 302 to another place.
    Redirects,
    /// Ends the connection after the request, without a word.
    Resets,
    /// Answers bytes that are no HTTP.
    Babbles,
    /// 200, and a body of many megabytes.
    TalksALot,
    /// A head that comes byte by byte and does not end before the hub loses patience.
    Drips,
}

/// A message as it came in, and what was done with it.
#[derive(Debug, Clone)]
pub struct Came {
    pub at: Instant,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The bytes that are signed.
    pub raw: String,
    pub body: Value,
    pub did: Behaviour,
}

impl Came {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }
    pub fn sequence(&self) -> u64 {
        self.body["sequence"].as_u64().unwrap_or_default()
    }
    /// Whether the hub knows that it was taken.
    pub fn was_taken(&self) -> bool {
        matches!(self.did, Behaviour::Says(200..=299) | Behaviour::TalksALot)
    }
}

type Script = Box<dyn FnMut(&str) -> Behaviour + Send>;

/// A running receiver; it ends with its value.
pub struct Receiver {
    pub address: SocketAddr,
    came: Arc<Mutex<Vec<Came>>>,
    script: Arc<Mutex<Script>>,
    stop: Arc<AtomicBool>,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Receiver {
    /// One that takes everything.
    #[track_caller]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let address = listener.local_addr().expect("it is bound");
        let receiver = Self {
            address,
            came: Arc::default(),
            script: Arc::new(Mutex::new(Box::new(|_| Behaviour::Says(200)))),
            stop: Arc::default(),
        };
        let (came, script, stop) =
            (Arc::clone(&receiver.came), Arc::clone(&receiver.script), Arc::clone(&receiver.stop));
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (came, script) = (Arc::clone(&came), Arc::clone(&script));
                // A request that breaks off says nothing about the receiver: the hub was killed.
                thread::spawn(move || receive(socket, &came, &script));
            }
        });
        receiver
    }

    /// What it does with each message from now on, by its path.
    pub fn behaves(&self, script: impl FnMut(&str) -> Behaviour + Send + 'static) {
        *self.script.lock() = Box::new(script);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What came to a path so far.
    pub fn came(&self, path: &str) -> Vec<Came> {
        self.came.lock().iter().filter(|came| came.path == path).cloned().collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for the next connection.
        let _ = TcpStream::connect(self.address);
    }
}

fn receive(mut socket: TcpStream, came: &Mutex<Vec<Came>>, script: &Mutex<Script>) -> Option<()> {
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket.set_write_timeout(Some(PATIENCE)).ok()?;
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        more(&mut socket, &mut bytes)?;
    };
    let text = String::from_utf8(bytes[..head].to_vec()).ok()?;
    let mut lines = text.split("\r\n");
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse::<usize>().ok()?;
    while bytes.len() < head + 4 + length {
        more(&mut socket, &mut bytes)?;
    }
    let raw = String::from_utf8(bytes[head + 4..].to_vec()).ok()?;
    let body = serde_json::from_str(&raw).ok()?;
    let did = (script.lock())(&path);
    came.lock().push(Came { at: Instant::now(), path, headers, raw, body, did });
    answer(&mut socket, did);
    Some(())
}

fn more(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 4096];
    let read = socket.read(&mut part).ok().filter(|read| *read > 0)?;
    bytes.extend_from_slice(&part[..read]);
    Some(())
}

fn answer(socket: &mut TcpStream, did: Behaviour) {
    // Whoever asked may have been killed.
    let mut say = |text: &str| socket.write_all(text.as_bytes()).is_ok();
    match did {
        Behaviour::Says(status) => {
            say(&format!("HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n"));
        }
        Behaviour::AsksFor(seconds) => {
            say(&format!("HTTP/1.1 429 Slow\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n"));
        }
        Behaviour::Redirects => {
            say("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
        }
        Behaviour::Resets => {
            let _ = socket2::SockRef::from(&*socket).set_linger(Some(Duration::ZERO));
        }
        Behaviour::Babbles => {
            say("220 mail.example ESMTP\r\n");
        }
        Behaviour::TalksALot => {
            say("HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n");
            let part = "a".repeat(1 << 16);
            for _ in 0..760 {
                if !say(&part) {
                    return;
                }
            }
        }
        Behaviour::Drips => {
            say("HTTP/1.1 200 OK\r\nX-Slow: ");
            let until = Instant::now() + PATIENCE;
            while Instant::now() < until && say("a") {
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}
