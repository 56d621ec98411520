//! A way to the server on which bytes can be lost in one direction, and which can be cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loses {
    Nothing = 0,
    /// What the hub says.
    Questions = 1,
    /// What the server says.
    Answers = 2,
    /// Nobody is connected any more.
    Everybody = 3,
}

#[derive(Debug)]
struct State {
    loses: AtomicU8,
    /// Bytes lost so far.
    lost: AtomicU64,
    cuts: watch::Sender<u64>,
}

/// A port that leads to the server.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, _) = watch::channel(0);
        let state = Arc::new(State { loses: AtomicU8::new(0), lost: AtomicU64::new(0), cuts });
        let accepting = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if accepting.loses.load(Ordering::SeqCst) != Loses::Everybody as u8 {
                    tokio::spawn(carry(client, server, Arc::clone(&accepting)));
                }
            }
        });
        Self { address, state }
    }

    /// The same database through this port.
    pub(crate) fn url(&self, url: &str) -> String {
        let (before, database) = url.rsplit_once('/').unwrap();
        let user = before.rsplit_once('@').unwrap().0;
        format!("{user}@{}/{database}", self.address)
    }

    pub(crate) fn lose(&self, what: Loses) {
        self.state.lost.store(0, Ordering::SeqCst);
        self.state.loses.store(what as u8, Ordering::SeqCst);
    }

    /// Bytes lost since it was told what to lose.
    pub(crate) fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::SeqCst)
    }

    /// Cuts every connection that there is.
    pub(crate) fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn carry(client: TcpStream, server: SocketAddr, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let mut cuts = state.cuts.subscribe();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pass(from_client, to_server, Loses::Questions, &state) => {}
        () = pass(from_server, to_client, Loses::Answers, &state) => {}
        _ = cuts.changed() => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, direction: Loses, state: &State) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if state.loses.load(Ordering::SeqCst) == direction as u8 {
            state.lost.fetch_add(read as u64, Ordering::SeqCst);
        } else if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
