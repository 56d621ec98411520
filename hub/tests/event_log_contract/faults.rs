//! The embedded engine on a disk that fails, fills up or hesitates.

use std::{fs::File, io, path::Path, sync::Arc};

use domain::recorded::Families;
use futures_util::future::join_all;
use hub::event_log::{
    AppendError, EventLog, Expected,
    segments::{Disk, Options, Segments, SystemDisk},
    verify::verify,
};
use parking_lot::{Condvar, Mutex};

use crate::support::{
    accesses, any, append, copy_dir, eventually, facts, open, read_everything, segments_of, small, try_small,
    used,
};

const ENOSPC: i32 = 28;
const EFBIG: i32 = 27;
const EIO: i32 = 5;

#[derive(Debug, Default)]
struct Plan {
    /// The n-th write from now (0: the next) stores this many bytes, then fails with this error.
    write: Option<(u32, usize, i32)>,
    /// The n-th sync from now fails.
    sync: Option<u32>,
    cut_fails: bool,
    full: bool,
    /// Syncs wait while this is set.
    held: bool,
    waiting: u32,
}

/// A disk that fails as planned.
#[derive(Debug, Default)]
struct FaultyDisk {
    plan: Mutex<Plan>,
    released: Condvar,
}

fn count_down<T>(after: Option<(u32, T)>) -> (Option<(u32, T)>, Option<T>) {
    match after {
        Some((0, fault)) => (None, Some(fault)),
        Some((n, fault)) => (Some((n - 1, fault)), None),
        None => (None, None),
    }
}

impl Disk for FaultyDisk {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut plan = self.plan.lock();
        if plan.full {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        let (left, now) = count_down(plan.write.take().map(|(n, stored, error)| (n, (stored, error))));
        plan.write = left.map(|(n, (stored, error))| (n, stored, error));
        match now {
            Some((stored, error)) => {
                SystemDisk.write(file, &bytes[..stored.min(bytes.len())], offset)?;
                Err(io::Error::from_raw_os_error(error))
            }
            None => SystemDisk.write(file, bytes, offset),
        }
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        let mut plan = self.plan.lock();
        plan.waiting += 1;
        while plan.held {
            self.released.wait(&mut plan);
        }
        plan.waiting -= 1;
        let (left, now) = count_down(plan.sync.take().map(|n| (n, ())));
        plan.sync = left.map(|(n, ())| n);
        now.map_or_else(|| SystemDisk.sync(file), |()| Err(io::Error::from_raw_os_error(EIO)))
    }
    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        if self.plan.lock().cut_fails {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        SystemDisk.cut(file, length)
    }
}

impl FaultyDisk {
    fn hold(&self) {
        self.plan.lock().held = true;
    }
    fn release(&self) {
        self.plan.lock().held = false;
        self.released.notify_all();
    }
}

fn open_on(disk: &Arc<FaultyDisk>, data: &Path) -> Arc<Segments> {
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    Arc::new(Segments::open(data, Options { disk, ..small(data) }).unwrap())
}

/// Has the writer busy with one append, so that `appends` wait together; they are one commit afterwards.
async fn in_one_commit(
    log: &Arc<Segments>,
    disk: &FaultyDisk,
    appends: Vec<hub::event_log::Append>,
    plan: impl FnOnce(&mut Plan),
) -> Vec<Result<hub::event_log::Appended, AppendError>> {
    disk.hold();
    let busy = tokio::spawn({
        let log = Arc::clone(log);
        async move { log.append(any(&facts(999))).await }
    });
    eventually("the writer is at work", || disk.plan.lock().waiting > 0).await;
    let waiting: Vec<_> = appends
        .into_iter()
        .map(|append| {
            let log = Arc::clone(log);
            tokio::spawn(async move { log.append(append).await })
        })
        .collect();
    tokio::task::yield_now().await;
    plan(&mut disk.plan.lock());
    disk.release();
    busy.await.unwrap().unwrap();
    join_all(waiting).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_takes_them_again_when_there_is_room() {
    for (stored, error) in [(0, ENOSPC), (1, EFBIG), (100, ENOSPC), (400, EIO)] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(FaultyDisk::default());
        let log = open_on(&disk, dir.path());
        let stream = facts(1);
        log.append(any(&stream)).await.unwrap();
        disk.plan.lock().write = Some((0, stored, error));
        let refused = append(&stream, Expected::Revision(1), 2);
        let answer = log.append(refused.clone()).await.unwrap_err();
        assert!(matches!(answer, AppendError::Unavailable(_)), "{answer:?}");
        assert_eq!(log.read_stream(&stream, 1, 10).await.unwrap().len(), 1);
        assert_eq!(log.append(refused).await.unwrap().revision, 3);
        assert_eq!(log.writable(), Ok(()));
        log.close().await;
        let report = verify(dir.path(), None).unwrap();
        assert_eq!((report.position, report.unfinished_commit), (3, false));
        assert_eq!(read_everything(&*open(dir.path())).await.len(), 3);
    }
}

#[tokio::test]
async fn a_log_that_ran_out_of_room_says_so_and_notices_room_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let log = open_on(&disk, dir.path());
    disk.plan.lock().full = true;
    assert!(matches!(log.append(any(&facts(1))).await.unwrap_err(), AppendError::Unavailable(_)));
    assert!(log.writable().is_err());
    assert_eq!(log.read_all(0, Families::ALL, 10).await.unwrap(), []);
    disk.plan.lock().full = false;
    eventually("the log is writable again", || log.writable().is_ok()).await;
    assert_eq!(log.append(any(&facts(1))).await.unwrap().position, 1);
}

#[tokio::test]
async fn a_commit_that_fails_in_one_family_is_undone_in_all() {
    for failing in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(FaultyDisk::default());
        let log = open_on(&disk, dir.path());
        log.append(any(&facts(1))).await.unwrap();
        log.append(any(&accesses(1))).await.unwrap();
        let appends = vec![any(&facts(1)), any(&accesses(1)), any(&facts(2)), any(&accesses(2))];
        let again = appends.clone();
        let answers =
            in_one_commit(&log, &disk, appends, |plan| plan.write = Some((failing, 50, ENOSPC))).await;
        let failed =
            answers.iter().filter(|answer| matches!(answer, Err(AppendError::Unavailable(_)))).count();
        assert_eq!(failed, 4, "{answers:?}");
        for append in again {
            log.append(append).await.unwrap();
        }
        log.close().await;
        assert_eq!(verify(dir.path(), None).unwrap().position, 7);
        let log = open(dir.path());
        assert_eq!(read_everything(&*log).await.len(), 7);
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_after_a_failed_sync() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let log = open_on(&disk, dir.path());
    let stream = facts(1);
    log.append(any(&stream)).await.unwrap();
    disk.plan.lock().sync = Some(0);
    let doubtful = append(&stream, Expected::Revision(1), 1);
    assert!(matches!(log.append(doubtful.clone()).await.unwrap_err(), AppendError::InDoubt(_)));
    assert!(log.writable().unwrap_err().contains("sync"));
    for append in [any(&stream), any(&accesses(1)), doubtful.clone()] {
        assert!(matches!(log.append(append).await.unwrap_err(), AppendError::Unavailable(_)));
    }
    assert_eq!(*log.head().borrow(), 1);
    assert_eq!(log.read_stream(&stream, 1, 10).await.unwrap().len(), 1);
    log.close().await;
    assert!(log.writable().unwrap_err().contains("sync"), "a close does not hide why");
    verify(dir.path(), None).unwrap();
    // The doubt is resolved by the next start, one way or the other; the caller's retry fits both.
    let log = open(dir.path());
    assert_eq!(log.append(doubtful).await.unwrap().revision, 2);
    assert_eq!(log.read_stream(&stream, 1, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_write_that_cannot_be_undone_leaves_doubt_and_ends_writing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let log = open_on(&disk, dir.path());
    log.append(any(&facts(1))).await.unwrap();
    {
        let mut plan = disk.plan.lock();
        plan.write = Some((0, 120, EIO));
        plan.cut_fails = true;
    }
    assert!(matches!(log.append(any(&facts(1))).await.unwrap_err(), AppendError::InDoubt(_)));
    assert!(matches!(log.append(any(&facts(1))).await.unwrap_err(), AppendError::Unavailable(_)));
    log.close().await;
    assert!(verify(dir.path(), None).unwrap().unfinished_commit);
    assert_eq!(read_everything(&*open(dir.path())).await.len(), 1);
}

#[tokio::test]
async fn a_commit_that_is_whole_in_one_family_only_is_dropped_in_all() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let data = dir.path().join("data");
    let log = open_on(&disk, &data);
    log.append(any(&facts(1))).await.unwrap();
    log.append(any(&accesses(1))).await.unwrap();
    let before = used(&segments_of(&data, "accesses").pop().unwrap());
    let mixed = vec![any(&facts(2)), any(&accesses(2))];
    // Position 3 is the append that kept the writer busy.
    let answers = in_one_commit(&log, &disk, mixed, |_| ()).await;
    let positions: Vec<u64> = answers.into_iter().map(|answer| answer.unwrap().position).collect();
    assert_eq!(positions, [4, 5]);
    let after = used(&segments_of(&data, "accesses").pop().unwrap());
    for length in [before, before + 1, after - 1] {
        let image = dir.path().join(length.to_string());
        copy_dir(&data, &image);
        let segment = segments_of(&image, "accesses").pop().unwrap();
        File::options().write(true).open(&segment).unwrap().set_len(length as u64).unwrap();
        let report = verify(&image, None).unwrap();
        assert_eq!((report.unfinished_commit, report.position), (true, 3));
        let log = try_small(&image).unwrap();
        assert_eq!(read_everything(&log).await.len(), 3);
        assert_eq!(log.append(any(&accesses(3))).await.unwrap().position, 4);
        log.close().await;
        assert_eq!(verify(&image, None).unwrap().position, 4);
    }
}
