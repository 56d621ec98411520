//! Looks at somebody else's service from this machine, step by step, over the way that `reach` goes: the hub's name, a
//! sealed stream up to the target, then TLS and HTTP through it. Nothing is dialled but the hub.

use std::{rc::Rc, time::Duration};

use domain::{
    policy::ports::protected_engine,
    target::{Protocol, Target},
};
use schemas::{
    frames::{CheckReach, Depth, StreamKind},
    rest::Diagnostics,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    Agent, Carries, dialer,
    ports::{self, To},
    speech::{self, step},
    streams::Local,
    target_tls::TlsStream,
};

/// How long a target may take to answer a question in plain HTTP, where nobody said that it speaks that.
const GUESS_PATIENCE: Duration = Duration::from_secs(1);

/// Looks at a service, at most as long as was asked for.
pub(super) async fn look(agent: &Agent, local: &Rc<Local>, wanted: &CheckReach) -> Diagnostics {
    let mut found = Diagnostics::default();
    let limit = Duration::from_millis(wanted.timeout_ms.into());
    let began = Instant::now();
    let mut looking = Looking { agent, local, wanted, found: &mut found };
    if timeout(limit, looking.steps()).await.is_err() {
        let late = step(false, began, "no answer in time".to_owned());
        // The step that had begun is the one that is missing.
        if found.dns.is_none() {
            found.dns = Some(late);
        } else if found.tcp.is_none() && found.udp.is_none() {
            found.tcp = Some(late);
        } else {
            found.http = Some(late);
        }
    }
    let opened = found.tcp.as_ref().or(found.udp.as_ref()).filter(|step| step.ok);
    found.reachable = opened.is_some();
    found.latency_ms = opened.map(|step| step.ms);
    found
}

struct Looking<'a> {
    agent: &'a Agent,
    local: &'a Rc<Local>,
    wanted: &'a CheckReach,
    found: &'a mut Diagnostics,
}

impl Looking<'_> {
    async fn steps(&mut self) {
        let wanted = self.wanted;
        let Ok(protocol) = wanted.protocol.parse::<Protocol>() else {
            return self.found.tcp = Some(step(false, Instant::now(), "update this agent".to_owned()));
        };
        if !self.name().await || !self.stream(protocol).await || protocol == Protocol::Udp {
            return;
        }
        let target = Target { host: wanted.host.clone(), port: wanted.port };
        match (wanted.depth, protocol) {
            (Depth::Tcp, _) | (Depth::Full, Protocol::Tcp | Protocol::Udp) => {}
            (Depth::Tls, _) => {
                self.tls(&target).await;
            }
            (Depth::Full | Depth::Http, Protocol::Https) => self.https(&target).await,
            (Depth::Full | Depth::Http, Protocol::Http) | (Depth::Http, Protocol::Tcp | Protocol::Udp) => {
                self.http(&target).await;
            }
            (Depth::Full | Depth::Http, Protocol::Auto) => self.guess(&target).await,
        }
    }

    /// The hub's name: the only one that is looked up on this machine.
    async fn name(&mut self) -> bool {
        let began = Instant::now();
        let looked_up = match &self.agent.0.hub {
            Ok(hub) => dialer::resolve(&hub.host, hub.port).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.clone()),
        };
        let dns = match looked_up {
            Ok(addresses) => {
                let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
                step(!shown.is_empty(), began, format!("the hub: {}", shown.join(", ")))
            }
            Err(error) => step(false, began, format!("the hub: {error}")),
        };
        let is_ok = dns.ok;
        self.found.dns = Some(dns);
        is_ok
    }

    /// A sealed stream: the hub, the exposing agent, and its connection to the target.
    async fn stream(&mut self, protocol: Protocol) -> bool {
        let began = Instant::now();
        let to = To::new(self.wanted.tunnel, &self.wanted.name);
        let kind = match Carries::of(protocol) {
            Carries::Bytes => StreamKind::SealedTcp,
            Carries::Datagrams => StreamKind::SealedUdp,
        };
        let opened = ports::open_stream(self.agent, self.local, &to, kind).await;
        let told = match opened {
            Ok(_) => step(true, began, "sealed, through the hub and the exposing agent".to_owned()),
            Err(failure) => step(false, began, failure.to_string()),
        };
        let is_ok = told.ok;
        match Carries::of(protocol) {
            Carries::Bytes => self.found.tcp = Some(told),
            Carries::Datagrams => self.found.udp = Some(told),
        }
        is_ok
    }

    /// A connection to the target the way a client of this machine would have it: by a local port, for a moment.
    async fn connect(&self) -> std::io::Result<(ports::LocalPort, TcpStream)> {
        let to = To::new(self.wanted.tunnel, &self.wanted.name);
        let port = ports::open(self.agent, &to, Carries::Bytes, 0)?;
        let socket = TcpStream::connect(("127.0.0.1", port.port())).await?;
        Ok((port, socket))
    }

    async fn http(&mut self, target: &Target) {
        let began = Instant::now();
        let answer = match self.connect().await {
            Ok((_port, mut socket)) => speech::head(&mut socket, target).await,
            Err(error) => Err(error),
        };
        self.found.http = Some(match answer {
            Ok(line) => step(true, began, line),
            Err(error) => step(false, began, error.to_string()),
        });
    }

    async fn https(&mut self, target: &Target) {
        let Some((_port, mut stream)) = self.tls(target).await else { return };
        let began = Instant::now();
        self.found.http = Some(match stream.alpn().as_deref() {
            Some("h2") => step(true, began, "HTTP/2 was agreed on".to_owned()),
            _ => match speech::head(&mut stream, target).await {
                Ok(line) => step(true, began, line),
                Err(error) => step(false, began, error.to_string()),
            },
        });
    }

    /// TLS with the target; the connection where its certificate is one that this machine accepts.
    async fn tls(&mut self, target: &Target) -> Option<(ports::LocalPort, TlsStream)> {
        let judge = self.agent.0.target_tls.judge(target);
        let began = Instant::now();
        let agreed = match self.connect().await {
            Ok((port, socket)) => judge.look_over(target, socket).await.map(|stream| (port, stream)),
            Err(error) => {
                let told = step(false, began, error.to_string());
                self.found.http = Some(told);
                return None;
            }
        };
        match agreed {
            Ok((port, stream)) => {
                let (tls, _) = speech::tls_step(&judge, target, &stream, began);
                let is_ok = tls.ok;
                self.found.tls = Some(tls);
                is_ok.then_some((port, stream))
            }
            Err(failure) => {
                self.found.tls = Some(speech::failed_tls_step(&failure, began));
                None
            }
        }
    }

    /// What it speaks is nobody's decision: it is asked one question in plain HTTP, and if that has no answer, for TLS.
    /// Databases are never asked.
    async fn guess(&mut self, target: &Target) {
        if protected_engine(target.port).is_some() {
            return;
        }
        let began = Instant::now();
        let asked = async {
            let (_port, mut socket) = self.connect().await?;
            speech::head(&mut socket, target).await
        };
        if let Ok(Ok(line)) = timeout(GUESS_PATIENCE, asked).await {
            self.found.http = Some(step(true, began, line));
            self.found.protocol = Some(Protocol::Http.name().to_owned());
            return;
        }
        self.https(target).await;
        // Neither is a mistake where nobody said that it speaks them.
        if self.found.tls.as_ref().is_some_and(|tls| tls.version.is_none()) {
            self.found.tls = None;
            self.found.protocol = Some(Protocol::Tcp.name().to_owned());
        } else {
            self.found.protocol = Some(Protocol::Https.name().to_owned());
        }
    }
}
