//! `hub backup` and `hub restore`: the log as it stood at one moment, and the keyring.
//!
//! A running hub only says where its log stands; what stands below that never changes, so this process copies it while
//! the hub goes on. The keyring comes after the log: it then has every key that the copied log needs. The manifest is
//! written last and removed first: a copy without one is none.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{NO_EXTERNAL_BACKUP, embedded, existing, say};
use crate::{
    clock::{Clock as _, SystemClock},
    event_log::{
        segments::{LogExtent, Segments, copied_seals},
        verify::{VerifyReport, verify},
    },
    keyring::destroyed_path,
    operator::{self, Order},
    settings::{Backup, Restore},
};

/// How often a copy begins anew because the hub retired what was being copied.
const TRIES: usize = 5;
const MANIFEST: &str = "backup.json";
/// Where a restored log lies until it is whole.
const RESTORING: &str = "log.restoring";

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    /// Of this file.
    format: u32,
    log_id: uuid::Uuid,
    position: u64,
    head: String,
    made_at: Timestamp,
    hub_version: String,
}

/// `hub backup`.
///
/// # Errors
/// The hub cannot say where its log stands, the disk says no, or the copy does not verify. Then it has no manifest, and
/// [`run_restore`] refuses it.
pub async fn run_backup(args: &Backup) -> Result<()> {
    embedded(&args.data, NO_EXTERNAL_BACKUP)?;
    let data = existing(&args.data)?;
    for _ in 0..TRIES {
        let lines = operator::run(data, &Order::LogExtent {}).await?;
        let extent: LogExtent = serde_json::from_str(&lines.concat())
            .context("no extent that this command knows; is the hub of another version?")?;
        match copy(data, &args.dir, &extent) {
            Ok(()) => return finish(args, &extent),
            // A segment was retired under our hands: what there is now is less.
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    bail!("the log changed under {TRIES} copies in a row; is another process at work in {}?", data.display())
}

fn is_missing(error: &anyhow::Error) -> bool {
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|it| it.kind() == io::ErrorKind::NotFound)
}

fn finish(args: &Backup, extent: &LogExtent) -> Result<()> {
    let report = checked(&args.dir)?;
    ensure!(
        report.position == extent.position && report.head == extent.head,
        "the copy is whole, but not the log that the hub has; nothing was kept of it"
    );
    let manifest = Manifest {
        format: 1,
        log_id: extent.log_id,
        position: extent.position,
        head: extent.head.clone(),
        made_at: SystemClock.now(),
        hub_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let text = serde_json::to_string_pretty(&manifest).context("a manifest is plain data")?;
    put(&args.dir.join(MANIFEST), text.as_bytes())?;
    if args.json {
        say(&json!({ "ok": true, "dir": args.dir, "events": report.events.iter().map(|it| it.1).sum::<u64>(), "head": report.head })
            .to_string());
    } else {
        let events: u64 = report.events.iter().map(|(_, count)| count).sum();
        say(&format!("[ok] {events} events and the keyring are in {}, verified", args.dir.display()));
        say(&format!("head {}", report.head));
    }
    Ok(())
}

fn checked(dir: &Path) -> Result<VerifyReport> {
    verify(dir, None).map_err(|failure| anyhow::anyhow!("{failure}"))
}

/// Brings `to` to this extent.
fn copy(data: &Path, to: &Path, extent: &LogExtent) -> Result<()> {
    prepare(to, extent.log_id)?;
    let manifest = to.join(MANIFEST);
    remove(&manifest)?;
    let mut wanted = BTreeSet::new();
    for piece in &extent.segments {
        let (from, target) = (data.join(&piece.path), to.join(&piece.path));
        wanted.insert(target.clone());
        // What is done never changes: an earlier backup has it, if it has all of it.
        let is_there = piece.done && fs::metadata(&target).is_ok_and(|it| it.len() == piece.bytes);
        if !is_there {
            copy_bytes(&from, &target, piece.bytes)?;
        }
    }
    // What the hub has retired, or an earlier backup had under another name.
    for found in files_below(&to.join("log"))? {
        if found.extension().is_some_and(|extension| extension == "seg") && !wanted.contains(&found) {
            remove(&found)?;
        }
    }
    copy_whole(data, to, "log/identity")?;
    if let Some(statement) = &extent.retired {
        let bytes = unhex(statement).context("a statement is written in hex")?;
        put(&to.join("log").join("retired"), &bytes)?;
    }
    for (path, bytes) in
        copied_seals(data, extent.log_id, extent.position).context("while reading the seals")?
    {
        let name = path.strip_prefix(data).context("seals lie in the data directory")?;
        put(&to.join(name), &bytes)?;
    }
    // Last: it has every key that was used by now. Its list of destroyed ones comes even later, and counts.
    copy_whole(data, to, "keyring")?;
    if destroyed_path(&data.join("keyring")).exists() {
        copy_whole(data, to, "keyring.destroyed")?;
    }
    Ok(())
}

/// A directory that is empty, or has an earlier backup of this very log.
fn prepare(to: &Path, log_id: uuid::Uuid) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to).with_context(|| at(to))?;
    if fs::read_dir(to).with_context(|| at(to))?.next().is_none() {
        return Ok(());
    }
    let known = fs::read(to.join("log").join("identity"))
        .ok()
        .and_then(|bytes| uuid::Uuid::from_slice(bytes.get(8..24)?).ok());
    ensure!(
        known == Some(log_id) && !to.join("lock").exists(),
        "{} holds something else than a backup of this log; name an empty directory",
        to.display()
    );
    Ok(())
}

/// `hub restore`.
///
/// # Errors
/// The backup is not whole, or the data directory has a log: then nothing was changed.
pub fn run_restore(args: &Restore) -> Result<()> {
    let (from, data) = (args.dir.as_path(), embedded(&args.data, NO_EXTERNAL_BACKUP)?);
    let text = fs::read_to_string(from.join(MANIFEST))
        .with_context(|| format!("{} is no finished backup: {MANIFEST} is missing", from.display()))?;
    let manifest: Manifest = serde_json::from_str(&text).with_context(|| at(&from.join(MANIFEST)))?;
    ensure!(manifest.format == 1, "the backup was made by a later version ({})", manifest.hub_version);
    let report = checked(from)?;
    ensure!(
        (report.log_id, report.position, report.head.as_str())
            == (manifest.log_id, manifest.position, manifest.head.as_str()),
        "the backup is not the one that its {MANIFEST} speaks of"
    );
    // From here on nobody else may use the directory.
    let _lock = Segments::lock(data)?;
    let log = data.join("log");
    ensure!(
        !log.exists(),
        "{} has a log already; move the directory away, and keep its keyring.destroyed if there is one",
        data.display()
    );
    ensure!(!data.join("keyring").exists(), "{} has a keyring already; move it away", data.display());
    let restoring = data.join(RESTORING);
    remove_dir(&restoring)?;
    for found in files_below(&from.join("log"))? {
        let name = found.strip_prefix(from.join("log")).context("it was found below it")?;
        let bytes = fs::metadata(&found).with_context(|| at(&found))?.len();
        copy_bytes(&found, &restoring.join(name), bytes)?;
    }
    // Views and positions of readers belong to a log that went on further.
    for name in ["views", "state"] {
        remove_dir(&data.join(name))?;
    }
    restore_keyring(from, data)?;
    fs::rename(&restoring, &log).with_context(|| at(&log))?;
    sync_dir(data)?;
    let report = {
        drop(_lock);
        checked(data)?
    };
    if args.json {
        say(&json!({ "ok": true, "position": report.position, "head": report.head }).to_string());
    } else {
        say(&format!("[ok] {} has the log up to {}, verified", data.display(), manifest.made_at));
        say(&format!("head {}", report.head));
    }
    Ok(())
}

/// The keyring and all that is known to be destroyed: what an older list here says counts as well.
fn restore_keyring(from: &Path, data: &Path) -> Result<()> {
    let (old, new) = (destroyed_path(&data.join("keyring")), destroyed_path(&from.join("keyring")));
    let mut destroyed = read_if_there(&old)?;
    destroyed.extend(read_if_there(&new)?);
    if !destroyed.is_empty() {
        put(&old, &destroyed)?;
    }
    copy_whole(from, data, "keyring")
}

fn read_if_there(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.with_context(|| at(path)),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn copy_whole(from: &Path, to: &Path, name: &str) -> Result<()> {
    let path = from.join(name);
    let bytes = fs::read(&path).with_context(|| at(&path))?;
    put(&to.join(name), &bytes)
}

/// Copies the first bytes of a file; the copy is there whole or not at all.
fn copy_bytes(from: &Path, to: &Path, bytes: u64) -> Result<()> {
    let source = File::open(from).with_context(|| at(from))?;
    let beside = beside(to)?;
    let mut target = new_file(&beside)?;
    let copied = io::copy(&mut source.take(bytes), &mut target).with_context(|| at(&beside))?;
    ensure!(copied == bytes, "{} ended early; is the disk in order?", from.display());
    settle(&target, &beside, to)
}

fn put(to: &Path, bytes: &[u8]) -> Result<()> {
    let beside = beside(to)?;
    let mut file = new_file(&beside)?;
    file.write_all(bytes).with_context(|| at(&beside))?;
    settle(&file, &beside, to)
}

fn settle(file: &File, beside: &Path, to: &Path) -> Result<()> {
    file.sync_all().with_context(|| at(beside))?;
    fs::rename(beside, to).with_context(|| at(to))?;
    to.parent().map_or(Ok(()), sync_dir)
}

fn beside(to: &Path) -> Result<PathBuf> {
    if let Some(parent) = to.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).with_context(|| at(parent))?;
    }
    let mut name = to.as_os_str().to_owned();
    name.push(".part");
    Ok(PathBuf::from(name))
}

fn new_file(path: &Path) -> Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.with_context(|| at(path))
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| at(dir))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(|| at(path)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(|| at(path)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Every file of a backup's log; what broke off on its way into it is no part of it.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries.with_context(|| at(dir))?,
    };
    for entry in entries {
        let path = entry.with_context(|| at(dir))?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else if path.extension().is_none_or(|extension| extension != "part") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn at(path: &Path) -> String {
    format!("at {}", path.display())
}
