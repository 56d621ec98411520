//! A hub with agents, shares and webhooks, and those who use it all the time.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use e2e::{
    Api, Hub, Machine,
    agent::{Exposed, Reached},
    api, http,
    ports::loopback,
    webhook_receiver::{Behaviour, Receiver},
};
use serde_json::json;

/// The name of a tunnel: its record is the one that is damaged.
pub(crate) const WATCHED: &str = "watched-by-nobody";

/// So many change something, each a tunnel of its own: one after the other they would wait for each other.
const WRITERS: usize = 6;
/// What webhooks are told.
const TOLD: [&str; 2] = ["tunnel.paused", "tunnel.resumed"];
/// A wrong key, of the right form.
const WRONG: &str = "pc_nobody-has-this-key-and-nobody-ever-will-00000";

/// A target that answers, or breaks off.
#[derive(Debug)]
struct Target {
    address: SocketAddr,
    broken: Arc<AtomicBool>,
}

impl Target {
    #[track_caller]
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let address = listener.local_addr().expect("it is bound");
        let broken = Arc::<AtomicBool>::default();
        let is_broken = Arc::clone(&broken);
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let is_broken = Arc::clone(&is_broken);
                thread::spawn(move || {
                    let mut connection = http::Connection::accepted(socket);
                    // A connection for each request, so that streams are opened all the time.
                    if let Ok(Some(_)) = connection.next_request()
                        && !is_broken.load(Ordering::SeqCst)
                    {
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                        let _left = connection.send(answer);
                    }
                });
            }
        });
        Self { address, broken }
    }
}

/// The hub and what belongs to it.
pub(crate) struct World {
    pub(crate) hub: Hub,
    /// Those that are killed, and the one that has the share.
    machines: [Machine; 3],
    exposed: [Exposed; 3],
    reached: Reached,
    target: Target,
    receiver: Receiver,
    guessing: Arc<AtomicBool>,
    links: [String; 2],
    edge: SocketAddr,
    /// Tunnels that nobody serves: each is paused and resumed all the time.
    switched: Vec<String>,
}

const NAMES: [&str; 3] = ["plain", "second", "shared"];

impl World {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let hub = Hub::start_with(&[
            ("HUB_WEBHOOK_ALLOW", "127.0.0.0/8"),
            ("HUB_WEBHOOK_RETRY_SCHEDULE", "300ms,300ms,300ms"),
            ("HUB_LIMIT_PUBLIC_PER_MIN", "60"),
        ]);
        let (target, receiver, api) = (Target::start(), Receiver::start(), hub.api());
        let (machines, to) = (NAMES.map(|_| Machine::new(&hub)), target.address);
        let exposed: Vec<Exposed> = thread::scope(|scope| {
            let begin = |(machine, name)| scope.spawn(move || Machine::expose(machine, to, name));
            let exposing: Vec<_> = machines.iter().zip(NAMES).map(begin).collect();
            exposing.into_iter().map(|it| it.join().expect("it is exposed")).collect()
        });
        let exposed: [Exposed; 3] = exposed.try_into().expect("one of each");
        let reached = machines[2].reach(NAMES[0]);
        let link = |body| {
            let share = api.create_share(&exposed[2].tunnel_id(), &body);
            http::split_link(&api::text(&share, "shareUrl"))
        };
        let (edge, _, open) = link(json!({ "name": "open" }));
        let (_, _, narrow) = link(json!({ "name": "narrow", "allowedPaths": ["/only/*"] }));
        let (agent, _) = api.register_agent("nobody");
        let switched = (0..WRITERS).map(|n| {
            let name = if n == 0 { WATCHED.to_owned() } else { format!("switched-{n}") };
            api::text(&api.create_tunnel(&agent, "localhost:9", &name), "id")
        });
        let switched = switched.collect();
        for path in ["/first", "/second"] {
            api.post("/v1/webhooks", &json!({ "url": receiver.url(path), "events": TOLD })).expect(201);
        }
        let (guessing, links) = (Arc::default(), [open, narrow]);
        Self { hub, machines, exposed, reached, target, receiver, guessing, links, edge, switched }
    }

    /// The target takes connections, and says nothing.
    pub(crate) fn break_target(&self) {
        self.target.broken.store(true, Ordering::SeqCst);
    }

    /// Every receiver fails, and a new one is gone for good.
    #[track_caller]
    pub(crate) fn receivers_fail(&self) {
        self.receiver.behaves(|path| Behaviour::Says(if path == "/gone" { 410 } else { 500 }));
        let gone = json!({ "url": self.receiver.url("/gone"), "events": TOLD });
        self.hub.api().post("/v1/webhooks", &gone).expect(201);
    }

    /// Somebody tries keys.
    pub(crate) fn strangers_guess(&self) {
        self.guessing.store(true, Ordering::SeqCst);
    }

    /// As a power cut does.
    pub(crate) fn two_agents_are_killed(&mut self) {
        for exposed in &mut self.exposed[..2] {
            exposed.process.kill9();
        }
    }

    /// Everything is as before.
    #[track_caller]
    pub(crate) fn mend(&mut self) {
        self.target.broken.store(false, Ordering::SeqCst);
        self.guessing.store(false, Ordering::SeqCst);
        self.receiver.behaves(|_| Behaviour::Says(200));
        let killed = self.exposed[..2].iter_mut().zip(&self.machines);
        for ((exposed, machine), name) in killed.zip(NAMES) {
            *exposed = machine.expose(self.target.address, name);
        }
    }
}

/// Those who use the hub, until they are told to end. What fails is tried again: there are faults.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn begin(world: &World) -> Self {
        let mut load = Self { stop: Arc::default(), threads: Vec::new() };
        let (edge, [open, narrow]) = (world.edge, world.links.clone());
        load.keep(10, move || {
            let _answer = http::request(edge, "GET", &open, &[], None);
        });
        load.keep(40, move || {
            let _refused = http::request(edge, "GET", &format!("{narrow}/else"), &[], None);
        });
        for port in [world.exposed[0].tunnel_port(), world.reached.local_port] {
            load.keep(20, move || {
                let _answer = talk(loopback(port));
            });
        }
        let reader = world.hub.api();
        load.keep(150, move || {
            for path in ["/v1/agents", "/v1/status", "/v1/whoami"] {
                let _answer = reader.call("GET", path, &[], None);
            }
        });
        for tunnel in &world.switched {
            let (writer, path, mut pause) = (world.hub.api(), format!("/v1/tunnels/{tunnel}"), false);
            load.keep(400, move || {
                pause = !pause;
                let body = json!({ "status": if pause { "paused" } else { "active" } });
                let _answer = writer.call("PATCH", &path, &[], Some(&body));
            });
        }
        let (stranger, guessing): (Api, _) = (world.hub.api().with_key(WRONG), Arc::clone(&world.guessing));
        load.keep(10, move || {
            if guessing.load(Ordering::SeqCst) {
                let _refused = stranger.call("GET", "/v1/whoami", &[], None);
            }
        });
        load
    }

    /// Does something over and over, with pauses of so many milliseconds.
    fn keep(&mut self, pause_ms: u64, mut work: impl FnMut() + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                work();
                thread::sleep(Duration::from_millis(pause_ms));
            }
        }));
    }

    /// Awaits them all.
    #[track_caller]
    pub(crate) fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a load does not panic");
        }
    }
}

/// One request through a tunnel.
fn talk(port: SocketAddr) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(port)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: target\r\n\r\n")?;
    let mut answer = [0; 64];
    socket.read(&mut answer).map(drop)
}
