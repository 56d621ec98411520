//! Makes the next segments ready ahead of the writer, in a thread of its own.
//!
//! A spare is a whole segment file, zero-filled and synced, so that the writer only renames it. It is a file of its own
//! (not the tail of the one in use), so that filling never makes the writer's sync wait. When the disk has no room
//! the spare is given back and the writer goes on without: slower, never wrong.

use std::{
    fs::{self, File},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use domain::recorded::Family;
use parking_lot::Mutex;

use super::files::{make_segment, spare_path};

/// How long a disk without room is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A segment in waiting.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
    /// The bytes that are zero-filled, header included.
    pub(crate) capacity: u64,
}

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Empty,
    Wanted,
    Ready(Spare),
    /// There was no room then.
    Failed(Instant),
}

enum Job {
    Prepare {
        family: Family,
        capacity: u64,
    },
    /// Gives back what a finished segment did not use.
    Trim {
        file: Arc<File>,
        length: u64,
    },
}

/// The writer's end of the filler.
#[derive(Debug)]
pub(crate) struct Filler {
    jobs: mpsc::Sender<Job>,
    slots: Arc<Mutex<[Slot; 3]>>,
    thread: JoinHandle<()>,
}

impl Filler {
    pub(crate) fn start(data: PathBuf, log_id: uuid::Uuid) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let slots = Arc::new(Mutex::new(<[Slot; 3]>::default()));
        let filled = Arc::clone(&slots);
        let thread = std::thread::Builder::new().name("log-filler".into()).spawn(move || {
            for job in queue {
                match job {
                    Job::Prepare { family, capacity } => {
                        let path = spare_path(&data, family);
                        let slot = match make_segment(&path, log_id, family, capacity) {
                            Ok(file) => Slot::Ready(Spare { path, file, capacity }),
                            Err(error) => {
                                tracing::warn!(%error, "no segment made ready ahead");
                                drop(fs::remove_file(&path));
                                Slot::Failed(Instant::now())
                            }
                        };
                        filled.lock()[family as usize] = slot;
                    }
                    // A segment that stays longer than it need be costs room, nothing else.
                    Job::Trim { file, length } => drop(file.set_len(length)),
                }
            }
        })?;
        Ok(Self { jobs, slots, thread })
    }

    /// Asks for a spare, unless there is one or one is being made.
    pub(crate) fn prepare(&self, family: Family, capacity: u64) {
        let slot = &mut self.slots.lock()[family as usize];
        let free = match slot {
            Slot::Empty => true,
            Slot::Failed(when) => when.elapsed() >= RETRY_AFTER,
            Slot::Wanted | Slot::Ready(_) => false,
        };
        if free && self.jobs.send(Job::Prepare { family, capacity }).is_ok() {
            *slot = Slot::Wanted;
        }
    }

    pub(crate) fn is_ready(&self, family: Family) -> bool {
        matches!(self.slots.lock()[family as usize], Slot::Ready(_))
    }

    pub(crate) fn take(&self, family: Family) -> Option<Spare> {
        let slot = &mut self.slots.lock()[family as usize];
        match std::mem::take(slot) {
            Slot::Ready(spare) => Some(spare),
            other @ (Slot::Empty | Slot::Wanted | Slot::Failed(_)) => {
                *slot = other;
                None
            }
        }
    }

    pub(crate) fn trim(&self, file: Arc<File>, length: u64) {
        // It is the writer's own thread that ends the filler: the queue is open.
        drop(self.jobs.send(Job::Trim { file, length }));
    }

    /// Ends the thread; spares are removed.
    pub(crate) fn stop(self) {
        drop(self.jobs);
        if self.thread.join().is_err() {
            tracing::error!("the log's filler panicked");
        }
        for slot in std::mem::take(&mut *self.slots.lock()) {
            if let Slot::Ready(spare) = slot {
                drop(fs::remove_file(spare.path));
            }
        }
    }
}
