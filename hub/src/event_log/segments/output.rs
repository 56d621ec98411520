//! The segments that are written to: rolling, writing, syncing, and putting them back when that fails.

use std::{
    fs::{self, File},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::recorded::Family;

use super::{
    disk::{AtPath, Disk, PathError, sync_dir},
    files::{SEGMENT_HEADER_BYTES, Segment, family_dir, log_dir, make_segment, segment_path},
    filler::Filler,
};

/// How large segments are (bytes, zero-filled ahead).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

/// A segment that fills faster than this is followed by one twice as large.
const FILLS_FAST: Duration = Duration::from_secs(60);
/// How much room must be there before a log that was full is called writable.
const PROBE_BYTES: usize = 256 * 1024;

/// Why a commit did not become durable.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// It was undone: nothing of it is in the log.
    NotWritten(String),
    /// It may be there, now or after a restart.
    Unknown(String),
}

/// One family's part, written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) family: Family,
    pub(crate) segment: Arc<Segment>,
    pub(crate) new_segment: bool,
    pub(crate) start: u64,
    pub(crate) end: u64,
    file: Arc<File>,
    /// What was in use before, if this part began a segment.
    before: Option<Active>,
}

#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    file: Arc<File>,
    /// The end of what is committed.
    end: u64,
    /// Zero-filled up to here.
    capacity: u64,
    day: i64,
    since: Instant,
}

/// Writes parts of commits.
#[derive(Debug)]
pub(crate) struct Output {
    data: PathBuf,
    log_id: uuid::Uuid,
    disk: Arc<dyn Disk>,
    sizes: Sizes,
    filler: Option<Filler>,
    active: [Option<Active>; 3],
    written: Vec<Written>,
    /// What went wrong with the commit in the making.
    failure: Option<PathError>,
}

impl Output {
    pub(crate) fn new(
        data: PathBuf,
        log_id: uuid::Uuid,
        disk: Arc<dyn Disk>,
        sizes: Sizes,
        filler: Filler,
    ) -> Self {
        Self {
            data,
            log_id,
            disk,
            sizes,
            filler: Some(filler),
            active: [None, None, None],
            written: Vec::new(),
            failure: None,
        }
    }

    /// Goes on in a segment that was there at the start, up to `end`.
    pub(crate) fn resume(
        &mut self,
        family: Family,
        segment: &Arc<Segment>,
        end: u64,
    ) -> Result<(), PathError> {
        let file = segment.hold()?;
        let capacity = file.metadata().at(&segment.path)?.len().max(end);
        let day = segment.day().unwrap_or(i64::MIN);
        let segment = Arc::clone(segment);
        self.active[family as usize] =
            Some(Active { segment, file, end, capacity, day, since: Instant::now() });
        Ok(())
    }

    /// Writes one family's part; [`Output::finish`] tells how it went. After a failure it does nothing.
    pub(crate) fn write(&mut self, family: Family, part: &[u8], first_position: u64, day: i64) {
        if self.failure.is_some() {
            return;
        }
        if let Err(error) = self.try_write(family, part, first_position, day) {
            self.failure = Some(error);
        }
    }

    fn try_write(
        &mut self,
        family: Family,
        part: &[u8],
        first_position: u64,
        day: i64,
    ) -> Result<(), PathError> {
        let length = part.len() as u64;
        let roll = match &self.active[family as usize] {
            None => true,
            Some(active) => active.day != day || self.is_full(family, active, length),
        };
        let before = if roll { self.roll(family, length, first_position, day)? } else { None };
        let active = self.active[family as usize].as_ref().expect("there is one by now");
        let (start, end) = (active.end, active.end + length);
        // Noted before it happens: whatever a failing write leaves is undone.
        self.written.push(Written {
            family,
            segment: Arc::clone(&active.segment),
            new_segment: roll,
            start,
            end,
            file: Arc::clone(&active.file),
            before,
        });
        self.disk.write(&active.file, part, start).at(&active.segment.path)
    }

    /// A part that fits nowhere ahead of it goes to the next segment if one is ready; else this one grows, slowly, up to
    /// the largest size.
    fn is_full(&self, family: Family, active: &Active, length: u64) -> bool {
        let end = active.end + length;
        let ready = self.filler.as_ref().is_some_and(|filler| filler.is_ready(family));
        active.end > SEGMENT_HEADER_BYTES && end > active.capacity && (ready || end > self.sizes.max)
    }

    fn roll(
        &mut self,
        family: Family,
        length: u64,
        first_position: u64,
        day: i64,
    ) -> Result<Option<Active>, PathError> {
        let path = segment_path(&self.data, family, first_position, day);
        let spare = self.filler.as_ref().and_then(|filler| filler.take(family));
        let (file, capacity) = match spare {
            Some(spare) => {
                fs::rename(&spare.path, &path).at(&path)?;
                (spare.file, spare.capacity)
            }
            None => {
                let wanted = self.sizes.min.max(length.next_multiple_of(4096));
                // On a disk without room, only as much as this very commit needs.
                let made = make_segment(&path, self.log_id, family, wanted).map(|file| (file, wanted));
                made.or_else(|_| make_segment(&path, self.log_id, family, 0).map(|file| (file, 0)))
                    .inspect_err(|_| drop(fs::remove_file(&path)))?
            }
        };
        let synced = sync_dir(&family_dir(&self.data, family));
        if let Err(error) = synced {
            drop(fs::remove_file(&path));
            return Err(error);
        }
        let segment = Segment::new(path, first_position, SEGMENT_HEADER_BYTES, Some(Arc::clone(&file)));
        let (segment, end) = (Arc::new(segment), SEGMENT_HEADER_BYTES);
        let new = Active { segment, file, end, capacity, day, since: Instant::now() };
        Ok(self.active[family as usize].replace(new))
    }

    /// Syncs what was written. On success it counts; otherwise everything is put back as it was.
    pub(crate) fn finish(&mut self) -> Result<(), WriteError> {
        if let Some(failure) = self.failure.take() {
            return Err(self.undo(&failure));
        }
        for written in &self.written {
            if let Err(error) = self.disk.sync(&written.file).at(&written.segment.path) {
                // What the disk holds now is anybody's guess, also after another sync that succeeds.
                return Err(WriteError::Unknown(format!("a sync failed: {error}")));
            }
        }
        for family in 0..self.written.len() {
            self.settle(family);
        }
        Ok(())
    }

    /// The part counts: the segment has grown, and the one before it, if any, is done.
    fn settle(&mut self, at: usize) {
        let written = &mut self.written[at];
        let (family, end) = (written.family, written.end);
        if let Some(before) = written.before.take() {
            before.segment.release();
            if let Some(filler) = &self.filler
                && before.capacity > before.end
            {
                filler.trim(before.file, before.end);
            }
        }
        let active = self.active[family as usize].as_mut().expect("it was written to");
        active.end = end;
        active.capacity = active.capacity.max(end);
        if active.end > active.capacity / 2 {
            let fast = active.since.elapsed() < FILLS_FAST;
            let next = if fast { active.capacity * 2 } else { active.capacity };
            let next = next.clamp(self.sizes.min, self.sizes.max);
            if let Some(filler) = &self.filler {
                filler.prepare(family, next);
            }
        }
    }

    /// What [`Output::finish`] made durable.
    pub(crate) fn take_written(&mut self) -> impl Iterator<Item = Written> {
        std::mem::take(&mut self.written).into_iter()
    }

    /// Cuts everything of the failed commit off again and makes sure of it.
    fn undo(&mut self, failure: &PathError) -> WriteError {
        for written in std::mem::take(&mut self.written) {
            let undone = if written.new_segment {
                self.active[written.family as usize] = written.before;
                fs::remove_file(&written.segment.path)
                    .at(&written.segment.path)
                    .and_then(|()| sync_dir(&family_dir(&self.data, written.family)))
            } else {
                let active = self.active[written.family as usize].as_mut().expect("it was written to");
                active.capacity = written.start;
                self.disk
                    .cut(&written.file, written.start)
                    .and_then(|()| self.disk.sync(&written.file))
                    .at(&written.segment.path)
            };
            if let Err(error) = undone {
                return WriteError::Unknown(format!(
                    "a write failed ({failure}) and could not be undone ({error})"
                ));
            }
        }
        WriteError::NotWritten(format!("a write failed: {failure}"))
    }

    /// Whether the disk takes data again.
    pub(crate) fn has_room(&self) -> bool {
        let path = log_dir(&self.data).join("probe");
        let tried = File::create(&path).and_then(|file| {
            self.disk.write(&file, &vec![0; PROBE_BYTES], 0)?;
            // Where blocks are only found at write-out, the sync tells.
            file.sync_all()
        });
        drop(fs::remove_file(&path));
        tried.is_ok()
    }

    /// Ends the filler. What is written stays as it is.
    pub(crate) fn close(mut self) {
        if let Some(filler) = self.filler.take() {
            filler.stop();
        }
    }
}
