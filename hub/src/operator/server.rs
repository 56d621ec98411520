//! The hub's end of the operator's socket: one line in, one line out.
//!
//! Only the hub's own user and root are heard: the socket has mode 0600 in a directory that nobody else writes to, and
//! the peer's user id is asked of the system besides. Connections are few, have deadlines, and end with the hub; one
//! order is executed at a time, so that what it looks up is still so when it decides.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixListener as StdListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Mutex,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Order, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, Reply, address, execute, socket_path};
use crate::core::Core;

/// Operators are few; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 8;
/// A command sends its order at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A disk that takes longer is not going to be quick again.
const EXECUTE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the command may take to read its answer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a system without descriptors is left alone.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The bound socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: StdListener,
    path: PathBuf,
}

impl Socket {
    /// Binds the socket in a data directory whose lock the caller holds: one that lies there is of a hub that is gone.
    ///
    /// # Errors
    /// Others may write to the directory, something else lies in the socket's place, or the file system has no sockets.
    pub fn bind(data: &Path) -> Result<Self> {
        let mode = fs::metadata(data)?.permissions().mode();
        ensure!(mode & 0o022 == 0, "others may write to {}; run: chmod go-w {0}", data.display());
        let path = socket_path(data);
        match fs::symlink_metadata(&path) {
            Ok(found) => {
                ensure!(found.file_type().is_socket(), "{} is no socket", path.display());
                fs::remove_file(&path)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let (short, _dir) = address(data)?;
        let listener = StdListener::bind(short).with_context(|| format!("{}", path.display()))?;
        let socket = Self { listener, path };
        fs::set_permissions(&socket.path, fs::Permissions::from_mode(0o600))?;
        socket.listener.set_nonblocking(true)?;
        Ok(socket)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Still under the data directory's lock, so it is our own. One that stays is replaced by the next hub.
        drop(fs::remove_file(&self.path));
    }
}

/// Answers operators until `stop`, then lets those finish whose orders are being executed.
pub async fn serve(socket: Socket, core: Arc<Core>, stop: CancellationToken) {
    let listener = socket.listener.try_clone().and_then(UnixListener::from_std);
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "the operator's socket cannot be listened on"),
    };
    let turn = Arc::new(Mutex::new(()));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "an answer to the operator failed");
                }
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(answer(stream, Arc::clone(&core), Arc::clone(&turn), stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the operator's socket accepts nothing for a moment");
                    sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    }
    drop(listener);
    drop(socket);
    while connections.join_next().await.is_some() {}
}

async fn answer(mut stream: UnixStream, core: Arc<Core>, turn: Arc<Mutex<()>>, stop: CancellationToken) {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred().map(|peer| peer.uid()) {
        Ok(uid) if uid == own || uid == 0 => {}
        Ok(uid) => return tracing::warn!(uid, "a stranger at the operator's socket was not heard"),
        Err(error) => return tracing::warn!(%error, "somebody at the operator's socket was not heard"),
    }
    let read = tokio::select! {
        () = stop.cancelled() => return,
        read = timeout(REQUEST_TIMEOUT, read_order(&mut stream)) => read,
    };
    let reply = match read {
        Ok(Ok(order)) => execute_in_turn(&core, &turn, &order).await,
        Ok(Err(error)) => Reply::Refused(error.to_string()),
        // Whoever says nothing wants nothing.
        Err(_) => return,
    };
    let mut line = serde_json::to_vec(&reply).expect("a reply is text");
    if line.len() >= REPLY_BYTES_MAX {
        let words = "the answer is too long; the API lists page by page".to_owned();
        line = serde_json::to_vec(&Reply::Refused(words)).expect("a reply is text");
    }
    line.push(b'\n');
    // An operator who left learns it by looking.
    drop(timeout(REPLY_TIMEOUT, stream.write_all(&line)).await);
}

async fn read_order(stream: &mut UnixStream) -> Result<Order> {
    let mut line = Vec::new();
    let limit = u64::try_from(REQUEST_BYTES_MAX).expect("64 KiB fit");
    BufReader::new(stream.take(limit)).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        ensure!(line.len() < REQUEST_BYTES_MAX, "an order has at most {REQUEST_BYTES_MAX} bytes");
        return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
    }
    serde_json::from_slice(&line).context("no order that this hub knows; is the command of another version?")
}

async fn execute_in_turn(core: &Core, turn: &Mutex<()>, order: &Order) -> Reply {
    let work = async {
        let _turn = turn.lock().await;
        execute(core, order).await
    };
    match timeout(EXECUTE_TIMEOUT, work).await {
        Ok(Ok(lines)) => {
            // Names only: what is made is in the log, by `operator`.
            let command = match order {
                Order::WorkspaceCreate { .. } => "workspace create",
                Order::WorkspaceList {} => "workspace list",
                Order::KeyCreate { .. } => "key create",
                Order::KeyList { .. } => "key list",
                Order::KeyRevoke { .. } => "key revoke",
                Order::Erase { .. } => "erase",
                Order::Upgrade { .. } => "upgrade",
                Order::LogExtent {} => "backup",
            };
            tracing::info!(command, "the operator's command was executed");
            Reply::Done(lines)
        }
        Ok(Err(error)) => Reply::Refused(format!("{error:#}")),
        Err(_) => {
            Reply::Refused("the hub took too long; look whether it is done before trying again".to_owned())
        }
    }
}
