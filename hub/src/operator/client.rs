//! The command's end: does the order itself where no hub runs, asks the hub that does.

use std::{
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{sleep, timeout},
};

use super::{Order, REPLY_BYTES_MAX, Reply, address, execute, socket_path};
use crate::{
    clock::SystemClock,
    core::Core,
    event_log::{
        place::{self, LogUrl},
        segments::{OpenError, Segments},
    },
};

/// A hub that starts or stops holds the directory and does not answer for a moment; nor does another command.
const PATIENCE: Duration = Duration::from_secs(10);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// A little more than the hub takes at most.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// Executes an order on a data directory, by the running hub if there is one; answers the lines to be shown.
///
/// # Errors
/// What stands in the order's way, in words; or the directory is in use and nobody answers.
pub async fn run(data: &Path, order: &Order) -> Result<Vec<String>> {
    run_with(data, None, order).await
}

/// The same on a data directory whose log is at an address, if there is one.
///
/// # Errors
/// As [`run`].
pub async fn run_with(data: &Path, log: Option<&LogUrl>, order: &Order) -> Result<Vec<String>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match open(data, log).await {
            Ok(core) => {
                let done = execute(&core, order).await;
                core.close().await;
                return done;
            }
            Err(error) if is_in_use(&error) => {}
            Err(error) => return Err(error),
        }
        match connect(data).await {
            Ok(stream) => return ask(stream, order).await,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
            Err(error) => {
                let socket = socket_path(data);
                return Err(error)
                    .with_context(|| format!("while asking the running hub at {}", socket.display()));
            }
        }
        if Instant::now() >= deadline {
            bail!(
                "the data directory {} is in use, but no hub answers at {}",
                data.display(),
                socket_path(data).display()
            );
        }
        sleep(ASK_AGAIN_AFTER).await;
    }
}

/// A running hub is found by its lock, before anything is said about where its log is.
async fn open(data: &Path, log: Option<&LogUrl>) -> Result<Core> {
    if place::is_external(data) {
        drop(Segments::lock(data)?);
    }
    Core::open_at(data, log, "operator", Arc::new(SystemClock)).await
}

fn is_in_use(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(OpenError::InUse(_))))
}

async fn connect(data: &Path) -> io::Result<UnixStream> {
    let (path, _dir) = address(data)?;
    let stream = UnixStream::connect(path).await?;
    // Whoever else may put a socket there must not be told or tell anything.
    let trusted = [0, rustix::process::geteuid().as_raw(), std::fs::metadata(data)?.uid()];
    if trusted.contains(&stream.peer_cred()?.uid()) {
        return Ok(stream);
    }
    Err(io::Error::new(ErrorKind::PermissionDenied, "it belongs to a stranger"))
}

async fn ask(mut stream: UnixStream, order: &Order) -> Result<Vec<String>> {
    let mut line = serde_json::to_vec(order).context("an order is text")?;
    line.push(b'\n');
    let mut reply = Vec::new();
    let limit = u64::try_from(REPLY_BYTES_MAX).context("16 MiB fit")?;
    let exchange = async {
        stream.write_all(&line).await?;
        stream.take(limit).read_to_end(&mut reply).await
    };
    let answered = timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| io::Error::from(ErrorKind::TimedOut));
    let unknown = "the hub gave no answer; look whether it is done before trying again";
    answered.and_then(|answered| answered).context(unknown)?;
    ensure!(reply.ends_with(b"\n"), unknown);
    match serde_json::from_slice(&reply)
        .context("no answer that this command knows; is the hub of another version?")?
    {
        Reply::Done(lines) => Ok(lines),
        Reply::Refused(reason) => bail!("{reason}"),
    }
}
