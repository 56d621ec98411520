//! Views made anew from the log: for `hub rebuild`, for its check, and for the proof that a view is only a view.
//!
//! These work on a hub that stands still: the folder is swapped under nobody.

use std::{fs, io, path::Path};

use projections::{
    access_log::AccessLog,
    audit::Audit,
    catalog::Catalog,
    deliveries::Deliveries,
    view::{self, Applied, KeptView, View},
};
use ring::digest::{Context, SHA256};

use super::{ReaderError, views_dir};
use crate::event_log::SharedLog;

/// Events of one transaction: larger than while following, since nobody waits for the first of them.
const BATCH: usize = 4_000;
/// The most packed accesses at once (4 MiB and more).
const PACKED_BATCH: usize = 512;

/// How far the work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub view: &'static str,
    /// Events of the log that are behind it.
    pub done: u64,
    /// Events that the log held when it began.
    pub total: u64,
}

/// What a check found of one view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    pub view: &'static str,
    /// The kept view says what a rebuilt one says.
    pub equal: bool,
}

/// Builds every kept view anew, beside the old one, and puts it in its place. A crash leaves the old or the new one,
/// or in between none: then the hub fills it at its start.
///
/// # Errors
/// [`ReaderError`]: the view in question is as it was.
pub async fn rebuild(
    data_dir: &Path,
    log: &SharedLog,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), ReaderError> {
    let views = views_dir(data_dir);
    fs::create_dir_all(&views)?;
    tidy(&views)?;
    rebuild_one::<Catalog>(&views, log, BATCH, progress).await?;
    rebuild_one::<AccessLog>(&views, log, PACKED_BATCH, progress).await?;
    rebuild_one::<Audit>(&views, log, PACKED_BATCH, progress).await?;
    rebuild_one::<Deliveries>(&views, log, PACKED_BATCH, progress).await
}

/// Compares every kept view with one that is built from nothing, and changes none (the kept ones first read on to the
/// log's head, as they would at the hub's next start).
///
/// # Errors
/// [`ReaderError`]: the check could not be made.
pub async fn check(
    data_dir: &Path,
    log: &SharedLog,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Vec<Checked>, ReaderError> {
    let views = views_dir(data_dir);
    fs::create_dir_all(&views)?;
    tidy(&views)?;
    Ok(vec![
        check_one::<Catalog>(&views, log, BATCH, progress).await?,
        check_one::<AccessLog>(&views, log, PACKED_BATCH, progress).await?,
        check_one::<Audit>(&views, log, PACKED_BATCH, progress).await?,
        check_one::<Deliveries>(&views, log, PACKED_BATCH, progress).await?,
    ])
}

/// Whether two views say the same.
///
/// # Errors
/// One of them cannot be read.
pub fn compare<V: KeptView>(kept: &V, rebuilt: &V) -> Result<bool, ReaderError> {
    Ok(kept.skipped() == rebuilt.skipped() && digest(kept)? == digest(rebuilt)?)
}

fn digest<V: KeptView>(view: &V) -> Result<Vec<u8>, ReaderError> {
    let mut context = Context::new(&SHA256);
    view.dump(&mut |part| context.update(part))?;
    Ok(context.finish().as_ref().to_vec())
}

/// Removes what an interrupted rebuild left behind.
pub(super) fn tidy(views: &Path) -> io::Result<()> {
    for name in [Catalog::NAME, AccessLog::NAME, Audit::NAME, Deliveries::NAME] {
        for suffix in ["new", "old"] {
            remove(&views.join(format!("{name}.{suffix}")))?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn rebuild_one<V: KeptView>(
    views: &Path,
    log: &SharedLog,
    batch: usize,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), ReaderError> {
    let (kept, new) = (views.join(V::NAME), views.join(format!("{}.new", V::NAME)));
    let old = views.join(format!("{}.old", V::NAME));
    let mut view = V::open(&new, log.log_id())?;
    catch_up(&mut view, log, batch, progress).await?;
    drop(view);
    match fs::rename(&kept, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    fs::rename(&new, &kept)?;
    Ok(remove(&old)?)
}

async fn check_one<V: KeptView>(
    views: &Path,
    log: &SharedLog,
    batch: usize,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Checked, ReaderError> {
    let beside = views.join(format!("{}.new", V::NAME));
    let head = *log.head().borrow();
    let mut kept: V = super::open(views, log.log_id(), head)?;
    catch_up(&mut kept, log, batch, &mut |_| {}).await?;
    let mut rebuilt = V::open(&beside, log.log_id())?;
    catch_up(&mut rebuilt, log, batch, progress).await?;
    let equal = compare(&kept, &rebuilt)?;
    drop(rebuilt);
    remove(&beside)?;
    Ok(Checked { view: V::NAME, equal })
}

/// Applies what a view is missing. SQLite works on this very thread: the hub stands still.
async fn catch_up<V: View>(
    view: &mut V,
    log: &SharedLog,
    batch: usize,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), ReaderError> {
    let total = *log.head().borrow();
    loop {
        let events = log.read_all(view.checkpoint(), V::FAMILIES, batch).await?;
        if events.is_empty() {
            progress(Progress { view: V::NAME, done: total, total });
            return Ok(());
        }
        let applied: Vec<Applied> = events.into_iter().map(view::prepare::<V>).collect();
        view.apply(&applied)?;
        progress(Progress { view: V::NAME, done: view.checkpoint().min(total), total });
    }
}
