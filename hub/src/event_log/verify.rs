//! Checks a log offline: every byte of every segment, the order, the chains, the seals. Changes nothing.
//!
//! It reads the segments and never the index. A commit that was never acknowledged and broke off at the very end (the
//! hub was killed) is no damage; the report says that it is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use domain::{
    recorded::Family,
    time::{Day, Timestamp},
};

use super::segments::{
    Chains, Damage, Extent, FROM_THE_START, Found, IdentityError, Lock, LockError, SEAL_BYTES, Seal, Step,
    Walk, all_segments, heads_hash, is_zero, list_seals, log_dir, read_identity, read_retired,
    seal_looks_torn, statement_hash, stream_of,
};
use crate::keyring::seal_public_keys;

/// A clean log, in figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    pub log_id: uuid::Uuid,
    /// The position of the last event.
    pub position: u64,
    /// Events per family, in the order of [`Family::ALL`].
    pub events: [(Family, u64); 3],
    /// Workspaces with at least one event, the hub's own included.
    pub workspaces: usize,
    /// One hash over the heads of all chains, in hex: note it elsewhere and give it to a later check.
    pub head: String,
    /// The position at which the log had the head that was asked for.
    pub expected_head_at: Option<u64>,
    pub seals: u64,
    pub last_seal: Option<LastSeal>,
    /// What was retired and is therefore not in the figures.
    pub retired: Option<RetiredHistory>,
    /// A commit that was never acknowledged stands broken off at the end; the next start drops it.
    pub unfinished_commit: bool,
}

/// What is gone by intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetiredHistory {
    /// Accesses recorded on days before this one.
    pub before: Day,
    /// Up to this position.
    pub position: u64,
}

/// The newest signed statement about the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastSeal {
    pub position: u64,
    pub recorded_at: Timestamp,
}

/// Why a log did not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyFailure {
    /// The log is not what was written: the first bad place (exit code 1).
    #[error("the event log is bad: {0}")]
    Bad(Damage),
    /// The same of a log in a database.
    #[error("the event log is bad: {0}")]
    BadRow(BadRow),
    /// It is whole, but it never had the head that was expected (exit code 1).
    #[error("the event log never had the head {expected}; its head at position {position} is {head}")]
    OtherHead { expected: String, head: String, position: u64 },
    /// There is nothing to judge, or not now: missing, in use, unreadable (exit code 2).
    #[error("cannot judge: {0}")]
    CannotJudge(String),
}

/// The first bad place of a log in a database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{log}, position {position}: {reason}{}{}", said("event", event.as_ref()), said("stream", stream.as_ref()))]
pub struct BadRow {
    /// The server and the database.
    pub log: String,
    pub position: u64,
    pub stream: Option<String>,
    pub event: Option<domain::ids::EventId>,
    pub reason: String,
}

fn said(what: &str, value: Option<&impl std::fmt::Display>) -> String {
    value.map_or_else(String::new, |value| format!("; {what} {value}"))
}

impl VerifyFailure {
    /// What `hub verify` exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bad(_) | Self::BadRow(_) | Self::OtherHead { .. } => 1,
            Self::CannotJudge(_) => 2,
        }
    }
}

impl From<Damage> for VerifyFailure {
    fn from(damage: Damage) -> Self {
        if damage.unreadable { Self::CannotJudge(damage.to_string()) } else { Self::Bad(damage) }
    }
}

pub(super) fn cannot(error: impl std::fmt::Display) -> VerifyFailure {
    VerifyFailure::CannotJudge(error.to_string())
}

/// Checks the log in a data directory that no hub uses. `expected_head` is a head noted at any earlier time.
///
/// # Errors
/// [`VerifyFailure`], naming the first bad event.
pub fn verify(data: &Path, expected_head: Option<&str>) -> Result<VerifyReport, VerifyFailure> {
    if !log_dir(data).is_dir() {
        return Err(VerifyFailure::CannotJudge(format!("there is no event log in {}", data.display())));
    }
    let _lock = Lock::take_if_there(data).map_err(|error| match error {
        LockError::InUse => VerifyFailure::CannotJudge(format!(
            "the data directory {} is in use; stop the hub or check a backup",
            data.display()
        )),
        LockError::Io(error) => cannot(error),
    })?;
    let log_id = read_identity(data).map_err(|error| match error {
        IdentityError::Missing => cannot("the log's identity is missing"),
        IdentityError::Io(error) => cannot(error),
        IdentityError::Later(later) => cannot(later),
        IdentityError::Damaged => {
            VerifyFailure::Bad(plain(log_dir(data).join("identity"), 0, "it is damaged"))
        }
    })?;
    let retired = read_retired(data, log_id)?;
    let boundary = retired.as_ref().map(|(it, _)| it.boundary).unwrap_or_default();
    let segments = all_segments(data, retired.as_ref().map(|(it, _)| it)).map_err(cannot)?;
    let keys = seal_public_keys(&data.join("keyring")).map_err(cannot)?;
    if let Some((retired, _)) = &retired
        && !keys.contains(&retired.public_key)
    {
        let reason = "what was retired is signed with a key that is not in the keyring";
        return Err(plain(log_dir(data).join("retired"), 0, reason).into());
    }
    let seals = read_seals(&list_seals(data).map_err(cannot)?, log_id, &keys)?;
    let sealed = seals.last().map_or(0, |seal| seal.seal.position);

    let mut check = Check {
        chains: Chains::after(retired.as_ref().map(|(it, _)| it)),
        revisions: Default::default(),
        events: [0; 3],
        is_retired: retired.is_some(),
        statement: retired.as_ref().map(|(_, bytes)| statement_hash(bytes)),
    };
    let mut walk = Walk::new(&segments, log_id, Extent::File, FROM_THE_START, boundary)?;
    // What was sealed before the end of what was retired is no longer there to be compared; what comes later covers it.
    let mut waiting = seals.iter().skip_while(|seal| seal.seal.position <= boundary.position).peekable();
    let mut expected_head_at = None;
    let unfinished_commit = loop {
        let mut visit =
            |found: Found<'_>| check.event(found).map_err(|reason| found.damage(&segments, reason));
        match walk.step(sealed, &mut visit)? {
            Step::End(cuts) => break !cuts.is_empty(),
            Step::Commit => {}
        }
        let head = || heads_hash(&check.chains.heads);
        while let Some(seal) = waiting.next_if(|seal| seal.seal.position <= walk.position) {
            if seal.seal.position < walk.position {
                return Err(seal.bad("the seal covers a position inside a commit").into());
            }
            if seal.seal.heads != head() {
                return Err(seal.bad("the log up to here is not the one that was sealed").into());
            }
        }
        if expected_head_at.is_none() && expected_head.is_some_and(|expected| hex(&head()) == expected) {
            expected_head_at = Some(walk.position);
        }
    };
    if check.statement.is_some() {
        let reason = "the log does not know that anything was retired";
        return Err(plain(log_dir(data).join("retired"), 0, reason).into());
    }
    let head = hex(&heads_hash(&check.chains.heads));
    if let Some(expected) = expected_head
        && expected_head_at.is_none()
    {
        let position = walk.position;
        if let Some((retired, _)) = &retired {
            let before = Day::new(retired.before_day);
            return Err(VerifyFailure::CannotJudge(format!(
                "the log never had the head {expected} since accesses before {before} were retired; whether it had it \
                 earlier can no longer be told"
            )));
        }
        return Err(VerifyFailure::OtherHead { expected: expected.to_owned(), head, position });
    }
    let workspaces: std::collections::BTreeSet<_> =
        check.chains.heads.keys().map(|(workspace, _)| *workspace).collect();
    Ok(VerifyReport {
        log_id,
        position: walk.position,
        events: Family::ALL.map(|family| (family, check.events[family as usize])),
        workspaces: workspaces.len(),
        head,
        expected_head_at,
        seals: seals.len() as u64,
        last_seal: seals
            .last()
            .map(|seal| LastSeal { position: seal.seal.position, recorded_at: seal.seal.recorded_at }),
        retired: retired.map(|(it, _)| RetiredHistory {
            before: Day::new(it.before_day),
            position: it.boundary.position,
        }),
        unfinished_commit,
    })
}

struct Check {
    chains: Chains,
    revisions: std::collections::HashMap<domain::recorded::StreamName, u64>,
    events: [u64; 3],
    is_retired: bool,
    /// The hash of the statement of what was retired, until the log says it.
    statement: Option<String>,
}

impl Check {
    fn event(&mut self, found: Found<'_>) -> Result<(), &'static str> {
        self.chains.follow(found.family, found.event)?;
        let revision = self.revisions.entry(stream_of(found)?).or_default();
        if *revision == 0 && self.is_retired && found.family == Family::Accesses {
            *revision = found.event.revision().saturating_sub(1);
        }
        *revision += 1;
        if found.event.revision() != *revision {
            return Err("its revision does not follow the one before");
        }
        let recorded = found.event.decode().ok_or("it does not have the form of an event")?;
        if let Some(statement) = &self.statement
            && &*recorded.event_type == "history.retired"
            && recorded.data.contains(statement.as_str())
        {
            self.statement = None;
        }
        self.events[found.family as usize] += 1;
        Ok(())
    }
}

/// A seal in a file.
pub(super) struct FoundSeal {
    pub(super) seal: Seal,
    file: PathBuf,
    offset: u64,
}

impl FoundSeal {
    pub(super) fn bad(&self, reason: &str) -> Damage {
        Damage { position: Some(self.seal.position), ..plain(self.file.clone(), self.offset, reason) }
    }
}

/// The seals of these files in order, each with a right signature under a key of the keyring.
pub(super) fn read_seals(
    files: &[PathBuf],
    log_id: uuid::Uuid,
    keys: &[[u8; 32]],
) -> Result<Vec<FoundSeal>, VerifyFailure> {
    let mut seals: Vec<FoundSeal> = Vec::new();
    for file in files.iter().cloned() {
        let bytes = fs::read(&file).map_err(|error| cannot(format!("{}: {error}", file.display())))?;
        // What is left over at the end, or broke off in one of its sectors, never said anything.
        for (number, chunk) in bytes.chunks_exact(SEAL_BYTES).enumerate() {
            let offset = (number * SEAL_BYTES) as u64;
            let chunk = chunk.first_chunk().expect("a chunk of this size");
            let is_last = bytes.len() - number * SEAL_BYTES < 2 * SEAL_BYTES;
            let seal = match Seal::read(chunk, log_id) {
                Ok(seal) => seal,
                Err(_) if is_zero(chunk) || (is_last && seal_looks_torn(chunk, offset)) => continue,
                Err(reason) => return Err(plain(file, offset, reason).into()),
            };
            let found = FoundSeal { seal, file: file.clone(), offset };
            if !keys.contains(&seal.public_key) {
                return Err(found.bad("the seal is signed with a key that is not in the keyring").into());
            }
            if seals.last().is_some_and(|last| seal.position <= last.seal.position) {
                return Err(found.bad("the seal does not follow the one before").into());
            }
            seals.push(found);
        }
    }
    Ok(seals)
}

fn plain(file: PathBuf, offset: u64, reason: &str) -> Damage {
    Damage {
        file,
        offset,
        position: None,
        stream: None,
        event: None,
        reason: reason.to_owned(),
        unreadable: false,
    }
}

/// In lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}
