//! The database's file as redb uses it: errors say what was being done, and writing waits while the disk is full. A driver.
//!
//! A full disk is no reason to end: consumers drain meanwhile, and make room. A write is made again as a whole, to the same
//! place. A sync is never made again, since a second one may report as synced what the first one has lost.

use redb::{BackendError, StorageBackend, backends::FileBackend};
use std::{
    fs::OpenOptions,
    io,
    ops::Bound,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// How long a write waits for room before it is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    inner: FileBackend,
    path: PathBuf,
}

impl DatabaseFile {
    /// Opens the file, which is made for this user alone if it is not there.
    ///
    /// # Errors
    /// Those of opening a file.
    pub(super) fn open(path: &Path) -> Result<Self, redb::DatabaseError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Ok(Self { inner: FileBackend::new(file)?, path: path.to_owned() })
    }

    /// Does what needs room, again and again while there is none.
    fn with_room(&self, mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        let mut has_told = false;
        loop {
            match attempt() {
                Err(error) if is_full(&error) => {
                    if !has_told {
                        let file = self.path.display();
                        tracing::error!("{file}: {error}; declarations wait until there is room");
                        has_told = true;
                    }
                    thread::sleep(FULL_PAUSE);
                }
                done => return done,
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An error that says what was being done, and is still of its kind.
fn during(action: &str, at: u64, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{action} at {at}: {error}"))
}

impl StorageBackend for DatabaseFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let end = offset + out.len() as u64;
                io::Error::new(error.kind(), format!("it is damaged: it ends before the octet {end}"))
            }
            _ => during("reading", offset, error),
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with_room(|| self.inner.set_len(len)).map_err(|error| during("setting its end", len, error))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data().map_err(|error| io::Error::new(error.kind(), format!("syncing it: {error}")))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with_room(|| self.inner.write(offset, data)).map_err(|error| during("writing", offset, error))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a full disk is waited for, other errors are not, and they say where they happened.
    /// Method: attempts that fail twice, then go well; one that fails otherwise.
    #[test]
    fn full_disks_are_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = DatabaseFile::open(&directory.path().join("file")).unwrap();
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let mut attempts = 0;
            let done = file.with_room(|| {
                attempts += 1;
                if attempts < 3 { Err(kind.into()) } else { Ok(()) }
            });
            assert!(done.is_ok() && attempts == 3);
        }
        assert!(file.with_room(|| Err(io::ErrorKind::FileTooLarge.into())).is_err());
        let error = file.read(7, &mut [0]).unwrap_err();
        assert_eq!(error.to_string(), "it is damaged: it ends before the octet 8");
        let error = during("writing", 7, io::ErrorKind::FileTooLarge.into());
        assert!(error.to_string().starts_with("writing at 7: ") && !is_full(&error), "{error}");
    }
}
