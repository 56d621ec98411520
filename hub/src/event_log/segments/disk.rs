//! The three calls by which the writer changes a segment, as a seam where tests let a disk fail.

use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// What a thread beside the writer hands to the disk at once: the writer's sync waits behind all of it.
pub(crate) const PACED_BYTES: usize = 1024 * 1024;

/// What the writer asks of a disk. [`SystemDisk`] does it; tests wrap it and fail on purpose.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Writes all of `bytes` at `offset`. A failure may leave any part of them there.
    ///
    /// # Errors
    /// As the system says.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }
    /// Makes written bytes durable. After a failure nobody can know which are.
    ///
    /// # Errors
    /// As the system says.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
    /// Cuts the file to `length` bytes.
    ///
    /// # Errors
    /// As the system says.
    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }
}

/// The disk as it is.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemDisk;

impl Disk for SystemDisk {}

/// An I/O error with the path that it happened at.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct PathError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Adds the path to an I/O result.
pub(crate) trait AtPath<T> {
    fn at(self, path: &Path) -> Result<T, PathError>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, PathError> {
        self.map_err(|source| PathError { path: path.to_owned(), source })
    }
}

/// Makes created, renamed and removed names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), PathError> {
    File::open(dir).and_then(|dir| dir.sync_all()).at(dir)
}

/// Writes a file so that it is there whole or not at all, durable when this returns.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    let beside = path.with_extension("new");
    let file = File::create(&beside).at(&beside)?;
    for (piece, offset) in bytes.chunks(PACED_BYTES).zip((0..).step_by(PACED_BYTES)) {
        file.write_all_at(piece, offset).and_then(|()| file.sync_data()).at(&beside)?;
    }
    file.sync_all().at(&beside)?;
    std::fs::rename(&beside, path).at(path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// The bytes from `offset` to `end`, or to the end of the file if that comes first.
pub(crate) fn read_between(file: &File, offset: u64, end: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len().min(end).saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
