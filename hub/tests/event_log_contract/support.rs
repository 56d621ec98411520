//! What the contract's tests are written with.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    ids::{EventId, ShareId, WorkspaceId},
    recorded::{Actor, Families, Recorded, StreamName},
    time::Timestamp,
};
use hub::{
    event_log::{
        Append, EventLog, Expected, NewEvent, SharedLog,
        segments::{OpenError, Options, Segments},
    },
    keyring::Keyring,
};
use uuid::Uuid;

pub(crate) const DAY_MS: i64 = 86_400_000;
pub(crate) const NOON: Timestamp = Timestamp::from_millis(20_000 * DAY_MS + DAY_MS / 2);

pub(crate) fn workspace(n: u128) -> WorkspaceId {
    WorkspaceId::new(Uuid::from_u128(n))
}
/// A stream of the family facts.
pub(crate) fn facts(n: u128) -> StreamName {
    StreamName::share(ShareId::new(Uuid::from_u128(n)))
}
/// A stream of the family accesses.
pub(crate) fn accesses(n: u128) -> StreamName {
    StreamName::accesses(ShareId::new(Uuid::from_u128(n)), Uuid::from_u128(77))
}

pub(crate) fn event(data: &str) -> NewEvent {
    NewEvent {
        id: EventId::new(Uuid::new_v4()),
        event_type: "share.revoked",
        version: 1,
        data: data.to_owned(),
        personal: None,
        causation: None,
    }
}

/// An append of `count` new events to workspace 1.
pub(crate) fn append(stream: &StreamName, expected: Expected, count: usize) -> Append {
    Append {
        stream: stream.clone(),
        expected,
        workspace: workspace(1),
        actor: Actor::System("test".into()),
        correlation: None,
        at: NOON,
        events: (0..count).map(|n| event(&format!("{{\"n\":{n}}}"))).collect(),
    }
}

pub(crate) fn any(stream: &StreamName) -> Append {
    append(stream, Expected::Any, 1)
}

pub(crate) fn options(data: &Path) -> Options {
    Options::new(Arc::new(Keyring::open(&data.join("keyring")).unwrap()))
}

/// Segments of some KiB and no seal before the close: a directory whose every byte a test can try.
pub(crate) fn small(data: &Path) -> Options {
    Options {
        segment_bytes_min: 2048,
        segment_bytes_max: 2048,
        seal_every: Duration::from_secs(3600),
        ..options(data)
    }
}

/// The same, taken for a large log: it starts from its checkpoint, and the rest is checked in the background.
pub(crate) fn large(data: &Path) -> Options {
    Options { read_whole_bytes_max: 0, ..small(data) }
}

pub(crate) fn open(data: &Path) -> SharedLog {
    Arc::new(Segments::open(data, options(data)).unwrap())
}

pub(crate) fn try_small(data: &Path) -> Result<Segments, OpenError> {
    Segments::open(data, small(data))
}

pub(crate) fn try_large(data: &Path) -> Result<Segments, OpenError> {
    Segments::open(data, large(data))
}

pub(crate) async fn read_everything(log: &dyn EventLog) -> Vec<Recorded> {
    let mut events: Vec<Recorded> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.position);
        let more = log.read_all(after, Families::ALL, 100).await.unwrap();
        if more.is_empty() {
            return events;
        }
        events.extend(more);
    }
}

/// What a kill leaves: the directory as it is while the log is open.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// The segments of a family, oldest first.
pub(crate) fn segments_of(data: &Path, family: &str) -> Vec<PathBuf> {
    let files = files_below(&data.join("log").join(family));
    files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect()
}

/// The bytes of a file up to its last one that is not zero.
pub(crate) fn used(path: &Path) -> usize {
    fs::read(path).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A directory where a sync costs nothing, if the system has one: for tests that open a log a thousand times.
pub(crate) fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
