//! The recorded events of one workspace, from a number on: what the event pages, the event stream and exports read.
//!
//! Where events stand comes from the audit view, what they say from the log. Facts come unless types are named; the
//! hub's many records of accesses only when they are. Two families have numbers of their own, so a place in both is a
//! pair of them; events come in the order of the log all the same.

use std::{fmt, sync::Arc};

use domain::{
    ids::{ShareId, WorkspaceId},
    recorded::{Family, Personal, Recorded},
    time::Timestamp,
};
use projections::{
    audit::{AuditReader, AuditRow, Following, Retained},
    view::ViewError,
};

use crate::{
    event_log::{ReadError, SharedLog},
    keyring::Keyring,
};

/// The most bytes of events in memory at once for one reader, beyond the first event.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most events that are read at once of one stream: packed accesses have 16 KiB each.
const RUN_MAX: usize = 64;
/// The types that stand in the family of accesses.
pub const ACCESS_TYPES: [&str; 2] = ["share.accessed", "usage.recorded"];

/// Why events could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error("the view was not asked: {0}")]
    Stopped(String),
}

/// Which events: their types, and the families that have those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub types: Vec<String>,
    families: Vec<Family>,
}

impl Wanted {
    /// Without types, all facts.
    pub fn of(types: Vec<String>) -> Self {
        let is_access = |name: &String| ACCESS_TYPES.contains(&name.as_str());
        let mut families = Vec::new();
        if types.is_empty() || !types.iter().all(is_access) {
            families.push(Family::Facts);
        }
        if types.iter().any(is_access) {
            families.push(Family::Accesses);
        }
        Self { types, families }
    }

    pub fn families(&self) -> &[Family] {
        &self.families
    }
}

/// A place between events: behind the last number that was seen of each family that is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place(Vec<(Family, u64)>);

impl Place {
    /// Before the first event.
    pub fn start(wanted: &Wanted) -> Self {
        Self(wanted.families.iter().map(|family| (*family, 0)).collect())
    }

    /// Behind these numbers, as [`Place::last_seen`] shows them; `None` when they are none for what is wanted.
    pub fn behind(text: &str, wanted: &Wanted) -> Option<Self> {
        let numbers = text.split('-').map(|part| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            part.parse::<u64>().ok().filter(|_| plain)
        });
        let numbers = numbers.collect::<Option<Vec<u64>>>()?;
        let fits = numbers.len() == wanted.families.len();
        fits.then(|| Self(wanted.families.iter().copied().zip(numbers).collect()))
    }

    /// Before these numbers, as [`Place::next`] shows them.
    pub fn before(text: &str, wanted: &Wanted) -> Option<Self> {
        let mut place = Self::behind(text, wanted)?;
        for (_, number) in &mut place.0 {
            *number = number.checked_sub(1)?;
        }
        Some(place)
    }

    /// The last number seen of each family.
    pub fn last_seen(&self) -> String {
        self.text(0)
    }

    /// The first number not yet seen of each family.
    pub fn next(&self) -> String {
        self.text(1)
    }

    fn text(&self, plus: u64) -> String {
        let numbers = self.0.iter().map(|(_, number)| (number + plus).to_string());
        numbers.collect::<Vec<_>>().join("-")
    }

    /// Goes on to another place, where that lies further.
    pub fn skip_to(&mut self, other: &Self) {
        for (family, number) in &other.0 {
            self.reach(*family, *number);
        }
    }

    /// Whether it lies behind another in some family.
    pub fn is_beyond(&self, other: &Self) -> bool {
        self.0.iter().any(|(family, number)| *number > other.of(*family))
    }

    fn of(&self, family: Family) -> u64 {
        self.0.iter().find(|(of, _)| *of == family).map_or(0, |(_, number)| *number)
    }

    fn reach(&mut self, family: Family, number: u64) {
        for (of, reached) in &mut self.0 {
            if *of == family {
                *reached = number.max(*reached);
            }
        }
    }
}

/// Where a place lies, when it is none to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    /// Before what is still there.
    Retired { first: u64 },
    /// Behind what will come next.
    Beyond { last: u64 },
}

/// Some events, and whether there are more behind them.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Each with the place behind it.
    pub events: Vec<(Recorded, Place)>,
    pub more: bool,
}

/// Reads the events of one workspace.
#[derive(Clone)]
pub struct Feed {
    pub audit: AuditReader,
    pub log: SharedLog,
    pub keyring: Arc<Keyring>,
    pub workspace: WorkspaceId,
    pub wanted: Arc<Wanted>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("workspace", &self.workspace).field("wanted", &self.wanted).finish()
    }
}

impl Feed {
    /// Behind the last event there is.
    ///
    /// # Errors
    /// See [`FeedError`]; so for every question below.
    pub async fn end(&self) -> Result<Place, FeedError> {
        let retained = self.retained().await?;
        Ok(Place(retained.into_iter().map(|(family, it)| (family, it.map_or(0, |it| it.last))).collect()))
    }

    /// Before the first event that is still there.
    pub async fn first(&self) -> Result<Place, FeedError> {
        let retained = self.retained().await?;
        let before = |it: Option<Retained>| it.map_or(0, |it| it.first - 1);
        Ok(Place(retained.into_iter().map(|(family, it)| (family, before(it))).collect()))
    }

    /// Before the first event that was recorded at a moment or later.
    pub async fn before(&self, at: Timestamp) -> Result<Place, FeedError> {
        let feed = self.clone();
        blocking(move || {
            let families = feed.wanted.families.iter();
            let earlier = at.plus_ms(-1);
            let of = |family: &Family| Ok((*family, feed.audit.number_at(feed.workspace, *family, earlier)?));
            families.map(of).collect::<Result<Vec<_>, FeedError>>().map(Place)
        })
        .await
    }

    /// Whether one can read on from a place; if not, where it lies.
    pub async fn look_at(&self, place: &Place) -> Result<Option<Elsewhere>, FeedError> {
        for (family, retained) in self.retained().await? {
            let (first, last) = retained.map_or((1, 0), |it| (it.first, it.last));
            let number = place.of(family);
            if number + 1 < first {
                return Ok(Some(Elsewhere::Retired { first }));
            }
            if number > last {
                return Ok(Some(Elsewhere::Beyond { last }));
            }
        }
        Ok(None)
    }

    async fn retained(&self) -> Result<Vec<(Family, Option<Retained>)>, FeedError> {
        let feed = self.clone();
        blocking(move || {
            let families = feed.wanted.families.iter();
            let of = |family: &Family| Ok((*family, feed.audit.retained(feed.workspace, *family)?));
            families.map(of).collect()
        })
        .await
    }

    /// Events behind a place, in the order of the log, at most `limit` and not many megabytes. Moves the place behind
    /// what was looked at. A batch may be empty and yet have more behind it: its work was done.
    pub async fn next(&self, place: &mut Place, limit: usize) -> Result<Batch, FeedError> {
        let (feed, from) = (self.clone(), place.clone());
        let (rows, mut reached, mut more) = blocking(move || feed.rows(&from, limit)).await?;
        let mut events = Vec::with_capacity(rows.len());
        let (mut bytes, mut behind) = (0, place.clone());
        for run in runs(&rows) {
            if bytes > BATCH_BYTES_MAX {
                // The rest comes next time.
                (reached, more) = (behind.clone(), true);
                break;
            }
            let read = self.run(run).await?;
            for recorded in read {
                bytes += recorded.data.len();
                behind.reach(recorded.family(), recorded.seq);
                events.push((self.opened(recorded), behind.clone()));
            }
        }
        *place = reached;
        Ok(Batch { events, more })
    }

    /// The places of the next events, the place behind everything that was looked at, and whether there is more.
    fn rows(&self, from: &Place, limit: usize) -> Result<(Vec<AuditRow>, Place, bool), FeedError> {
        let mut found = Vec::new();
        for family in &self.wanted.families {
            let after = from.of(*family);
            found.push((
                *family,
                self.audit.following(self.workspace, *family, &self.wanted.types, after, limit)?,
            ));
        }
        Ok(merge(found, from, limit))
    }

    /// Events by where they stand, in the order of these rows. What was retired in between is left out.
    pub async fn read(&self, rows: &[AuditRow]) -> Result<Vec<Recorded>, FeedError> {
        let mut events = Vec::with_capacity(rows.len());
        for run in runs(rows) {
            let read = self.run(run).await?;
            events.extend(read.into_iter().map(|recorded| self.opened(recorded)));
        }
        Ok(events)
    }

    /// The events of one run, as far as they were not retired since the view was asked.
    async fn run(&self, run: &[AuditRow]) -> Result<Vec<Recorded>, FeedError> {
        let Some((first, last)) = run.first().zip(run.last()) else { return Ok(Vec::new()) };
        let mut read = self.log.read_stream(&first.stream, first.revision, run.len()).await?;
        read.retain(|recorded| recorded.revision <= last.revision);
        Ok(read)
    }

    /// With the personal part open, or known to be erased.
    fn opened(&self, recorded: Recorded) -> Recorded {
        let personal =
            opened(&recorded, &|scope, sealed| self.keyring.open_personal(recorded.workspace, scope, sealed));
        Recorded { personal, ..recorded }
    }
}

/// Opens what was sealed for a share, or for nobody in particular; `None` when its key was destroyed.
pub type Opener<'a> = &'a dyn Fn(Option<ShareId>, &[u8]) -> Option<String>;

/// A recorded event's personal part, opened with the keys that there are.
pub fn opened(recorded: &Recorded, open: Opener<'_>) -> Personal {
    match &recorded.personal {
        Personal::Sealed(bytes) => {
            // What visitors of a share say of themselves is sealed for that share, all else for the workspace.
            let text = open(share_of(recorded), bytes).or_else(|| open(None, bytes));
            text.map_or(Personal::Erased, |text| Personal::Open(text.into()))
        }
        other @ (Personal::None | Personal::Open(_) | Personal::Erased) => other.clone(),
    }
}

fn share_of(recorded: &Recorded) -> Option<ShareId> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct OfShare {
        share_id: ShareId,
    }
    serde_json::from_str::<OfShare>(&recorded.data).ok().map(|of| of.share_id)
}

/// Rows that one read of a stream answers: a few neighbours with one revision after the other.
fn runs(rows: &[AuditRow]) -> impl Iterator<Item = &[AuditRow]> {
    rows.chunk_by(|one, next| one.stream == next.stream && next.revision == one.revision + 1)
        .flat_map(|run| run.chunks(RUN_MAX))
}

/// Puts families together in the order of the log: nothing of one is told before what another has not looked at yet.
fn merge(found: Vec<(Family, Following)>, from: &Place, limit: usize) -> (Vec<AuditRow>, Place, bool) {
    let frontier = found
        .iter()
        .filter(|(_, following)| following.more)
        .filter_map(|(_, following)| following.reached.map(|(_, position)| position))
        .min()
        .unwrap_or(u64::MAX);
    let mut more = found.iter().any(|(_, following)| following.more);
    let (mut rows, mut place) = (Vec::new(), from.clone());
    for (family, following) in found {
        if let Some((number, position)) = following.reached {
            let seen = following.rows.iter().rev().find(|row| row.position <= frontier);
            let reached = if position <= frontier { Some(number) } else { seen.map(|row| row.seq) };
            place.reach(family, reached.unwrap_or(0));
        }
        rows.extend(following.rows.into_iter().filter(|row| row.position <= frontier));
    }
    rows.sort_by_key(|row| row.position);
    if rows.len() > limit {
        // What is cut off is looked at again.
        for row in rows.drain(limit..).rev() {
            if let Some(reached) = place.0.iter_mut().find(|(family, _)| *family == row.family) {
                reached.1 = row.seq - 1;
            }
        }
        more = true;
    }
    (rows, place, more)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FeedError> + Send + 'static,
) -> Result<T, FeedError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(FeedError::Stopped(error.to_string())))
}

#[cfg(test)]
mod tests;
