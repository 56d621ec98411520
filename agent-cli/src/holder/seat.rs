//! Who holds the agent session: the process with the lock. It listens on a socket, the others attach there.
//!
//! A lock (`flock`) decides and not the socket file: the kernel frees it with its process, however that ended, so a
//! left-over socket is known to be stale and two processes never both remove it.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use ring::digest::{SHA256, digest};
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    process::geteuid,
};
use tokio::net::{UnixListener, UnixStream};
use uuid::Uuid;

use crate::settings::config_file::private_folder;

/// How long a process that lost the race waits for the winner's socket before it looks again.
const LOOK_AGAIN_MS: u64 = 20;

/// Where the lock and the socket of one identity are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    lock: PathBuf,
    socket: PathBuf,
}

/// What a process got.
pub(super) enum Seat {
    /// It holds the session.
    Holder(Held),
    /// Another one does.
    Attached(UnixStream),
}

/// The lock and the socket; both go when it is dropped.
pub(super) struct Held {
    pub(super) listener: UnixListener,
    socket: PathBuf,
    // Declared last: the socket file is removed while the lock is still ours.
    _lock: fs::File,
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

impl Place {
    /// The place of one agent identity of one config, in the runtime folder or, without one, beside the config.
    pub fn new(runtime_folder: Option<&Path>, config: &Path, hub: &str, agent_id: &str) -> Self {
        let beside =
            config.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // One config has one place, however its path was spelt; the file itself may not exist yet.
        let beside = fs::canonicalize(beside).unwrap_or_else(|_| beside.to_owned());
        let file = beside.join(config.file_name().unwrap_or_default());
        let folder = runtime_folder.unwrap_or(&beside);
        let identity = format!("{}\n{hub}\n{agent_id}", file.display());
        let hash = digest(&SHA256, identity.as_bytes());
        let name: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            lock: folder.join(format!("agent-{name}.lock")),
            socket: folder.join(format!("agent-{name}.sock")),
        }
    }

    #[cfg(test)]
    pub(super) fn socket_for_tests(&self) -> PathBuf {
        self.socket.clone()
    }

    /// Takes the session or finds who has it.
    ///
    /// # Errors
    /// The folder is not ours alone, cannot be written, or the path is too long for a socket (about 100 bytes).
    pub(super) async fn take(&self) -> io::Result<Seat> {
        loop {
            match self.try_hold()? {
                Some(held) => return Ok(Seat::Holder(held)),
                None => match UnixStream::connect(&self.socket).await {
                    Ok(stream) if is_ours(&stream) => return Ok(Seat::Attached(stream)),
                    Ok(_) => return Err(io::Error::new(ErrorKind::PermissionDenied, "not our own socket")),
                    // The winner has not bound yet, or has just gone.
                    Err(error)
                        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
                    Err(error) => return Err(error),
                },
            }
            tokio::time::sleep(jitter(LOOK_AGAIN_MS)).await;
        }
    }

    fn try_hold(&self) -> io::Result<Option<Held>> {
        if let Some(folder) = self.lock.parent() {
            private_folder(folder)?;
            // Whoever can write there could put a socket of their own in our place.
            let meta = fs::metadata(folder)?;
            if meta.uid() != geteuid().as_raw() || meta.mode() & 0o022 != 0 {
                let why = format!("{} can be written by others", folder.display());
                return Err(io::Error::new(ErrorKind::PermissionDenied, why));
            }
        }
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&self.lock)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // With the lock in hand, a socket file is a dead process's.
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&self.socket)?;
        fs::set_permissions(&self.socket, fs::Permissions::from_mode(0o600))?;
        Ok(Some(Held { listener, socket: self.socket.clone(), _lock: lock }))
    }
}

/// Whether the process at the other end is the same user's.
pub(super) fn is_ours(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == geteuid().as_raw())
}

/// Between one and two times `base_ms`, so that processes which lost the same holder do not run in step.
pub(super) fn jitter(base_ms: u64) -> Duration {
    let random = u64::from(Uuid::new_v4().as_bytes()[0]);
    Duration::from_millis(base_ms + base_ms * random / 255)
}
