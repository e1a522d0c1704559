//! The files of a data directory: finds, reads, prepares, renames and removes them, with blocking system calls.
//!
//! A driver. What is in the files is not known here, only how long they are and when their names are durable.

use super::aligned::{AlignedBuffer, PAGE_OCTETS};
use super::damage::StoreError;
use super::disk::ColdFileId;
use super::journal::FIRST_SEGMENT;
use super::names::{
    JOURNAL_DIRECTORY, QUEUES_DIRECTORY, SegmentName, TRANSIENT_DIRECTORY, UNFINISHED, cold_path, free_path,
    is_unfinished, parse_cold, parse_free, parse_queue_directory, parse_retired, queue_directory, retired_path,
};
use crate::limits::{JOURNAL_POOL_FILES_MAX, JOURNAL_RESERVE_FILES};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use std::cell::Cell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Zeros are written in pieces of so many octets, so that a commit on the same disk does not wait long.
const ZEROS_OCTETS: usize = 1 << 20;
const _: () = assert!(ZEROS_OCTETS.is_multiple_of(PAGE_OCTETS));

/// How long to wait for a free file descriptor before it is tried again.
const DESCRIPTOR_INTERVAL: Duration = Duration::from_millis(20);

/// What the store's files are opened with.
#[derive(Clone, Copy, Debug)]
pub struct FilesOptions {
    /// This start of the broker, counted. Greater than that of any file.
    pub epoch: u64,
    /// How many shards there are.
    pub shards: u16,
    /// The length of a journal segment.
    pub segment_octets: u64,
}

/// What a queue has on disk: its number, and its files' numbers and lengths in octets, rising.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFiles {
    /// The queue's number.
    pub queue: u64,
    /// Its segment files.
    pub files: Vec<(u32, u64)>,
}

/// The files of a data directory that a broker works with; shared by the disk threads of all shards.
#[derive(Debug)]
pub struct StoreFiles {
    directory: PathBuf,
    options: FilesOptions,
    /// For making names durable.
    journal_directory: File,
    pool: Mutex<Pool>,
}

/// Journal segments that wait to be used again.
#[derive(Debug, Default)]
struct Pool {
    free: Vec<u32>,
    next: u32,
    /// How many shards do not need the older epochs any more.
    shards_done: u16,
}

/// Whether there was room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It was done.
    Done,
    /// It was not done: the disk, or what one may have of it, is full.
    Full,
}

/// Makes an error of one that the operating system has given.
pub(super) fn failed(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let file = path.display().to_string();
    move |error| StoreError::Io { file, operation, offset: None, error }
}

/// Whether an error means that the disk, or what one may have of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    // A limit on the size of files is one of what one may have, too.
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// All journal segments, sorted, but those of retired epochs.
///
/// # Errors
/// The directory cannot be read. None at all is no error.
pub fn journal_segments(directory: &Path) -> Result<Vec<SegmentName>, StoreError> {
    let names = list(&directory.join(JOURNAL_DIRECTORY))?;
    let retired_below = names.iter().filter_map(|name| parse_retired(name)).max().unwrap_or(0);
    let mut segments: Vec<_> = names.iter().filter_map(|name| SegmentName::parse(name)).collect();
    segments.retain(|segment| segment.epoch >= retired_below);
    segments.sort_unstable();
    Ok(segments)
}

/// Retires all epochs below `epoch`, durably: their segments are not read any more, and are freed by the next start.
///
/// # Errors
/// The marker cannot be made.
pub fn retire_epochs_below(directory: &Path, epoch: u64) -> Result<(), StoreError> {
    let marker = directory.join(retired_path(epoch));
    File::create(&marker).map_err(failed(&marker, "create"))?;
    sync_directory(&directory.join(JOURNAL_DIRECTORY))
}

/// The octets of a journal segment, however many there are.
///
/// # Errors
/// It cannot be read; in particular it is not there.
pub fn read_segment(directory: &Path, name: &SegmentName) -> io::Result<Vec<u8>> {
    let mut file = File::open(directory.join(name.path()))?;
    // Read once, from the front; it is not to push anything out of memory.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
    let mut octets = Vec::new();
    octets.try_reserve_exact(usize::try_from(file.metadata()?.len()).map_err(io::Error::other)? + 1)?;
    file.read_to_end(&mut octets)?;
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(octets)
}

/// All queues that have durable segment files, sorted.
///
/// # Errors
/// A directory cannot be read. None at all is no error.
pub fn queue_files(directory: &Path) -> Result<Vec<QueueFiles>, StoreError> {
    let mut found = Vec::new();
    for queue in list(&directory.join(QUEUES_DIRECTORY))?.iter().filter_map(|name| parse_queue_directory(name)) {
        let path = directory.join(queue_directory(queue, false));
        let mut files = Vec::new();
        for file in list(&path)?.iter().filter_map(|name| parse_cold(name)) {
            let path = directory.join(cold_path(&ColdFileId { queue, file, is_transient: false }));
            files.push((file, fs::metadata(&path).map_err(failed(&path, "look at"))?.len()));
        }
        files.sort_unstable();
        found.push(QueueFiles { queue, files });
    }
    found.sort_unstable_by_key(|found| found.queue);
    Ok(found)
}

/// Makes it durable which files the queues have: a process that was killed may not have come to that.
///
/// # Errors
/// A directory cannot be synced.
pub fn sync_queue_names(directory: &Path) -> Result<(), StoreError> {
    let queues = directory.join(QUEUES_DIRECTORY);
    for queue in list(&queues)?.iter().filter_map(|name| parse_queue_directory(name)) {
        sync_directory(&directory.join(queue_directory(queue, false)))?;
    }
    sync_directory(&queues)
}

/// Reads `octets` at `offset` of a queue segment file.
///
/// # Errors
/// `UnexpectedEof` where it is shorter; else what the operating system says.
pub fn read_cold(directory: &Path, file: &ColdFileId, offset: u64, octets: usize) -> io::Result<Vec<u8>> {
    let file = File::open(directory.join(cold_path(file)))?;
    if file.metadata()?.len() < offset.saturating_add(octets as u64) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut read = vec![0; octets];
    file.read_exact_at(&mut read, offset)?;
    Ok(read)
}

impl StoreFiles {
    /// Makes the directories that are not there, wipes what is transient, frees what an interrupted start or end has left.
    /// `directory` exists, and nobody else works in it.
    ///
    /// # Errors
    /// Anything that the operating system refuses.
    pub fn open(directory: &Path, options: FilesOptions) -> Result<StoreFiles, StoreError> {
        let transient = directory.join(TRANSIENT_DIRECTORY);
        remove_directory(&transient)?;
        for name in [JOURNAL_DIRECTORY, QUEUES_DIRECTORY, TRANSIENT_DIRECTORY] {
            make_directory(&directory.join(name))?;
        }
        sync_directory(directory)?;
        let journal = directory.join(JOURNAL_DIRECTORY);
        let journal_directory = File::open(&journal).map_err(failed(&journal, "open"))?;
        let files = StoreFiles { directory: directory.to_owned(), options, journal_directory, pool: Mutex::default() };
        let names = list(&journal)?;
        for name in names.iter().filter(|name| is_unfinished(name)) {
            remove(&journal.join(name))?;
        }
        files.fill_pool(&names)?;
        let retired_below = names.iter().filter_map(|name| parse_retired(name)).max().unwrap_or(0);
        files.free_epochs_below(retired_below, &names)?;
        Ok(files)
    }

    /// The data directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it was opened with.
    pub fn options(&self) -> FilesOptions {
        self.options
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.join(below)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill_pool(&self, names: &[String]) -> Result<(), StoreError> {
        let mut pool = self.pool();
        for number in names.iter().filter_map(|name| parse_free(name)) {
            let path = self.path(&free_path(number));
            let octets = fs::metadata(&path).map_err(failed(&path, "look at"))?.len();
            if octets == self.options.segment_octets && pool.free.len() < self.pool_files_max() {
                pool.free.push(number);
            } else {
                remove(&path)?;
            }
            pool.next = pool.next.max(number.saturating_add(1));
        }
        Ok(())
    }

    fn pool_files_max(&self) -> usize {
        JOURNAL_POOL_FILES_MAX * usize::from(self.options.shards)
    }

    fn reserve_files(&self) -> usize {
        JOURNAL_RESERVE_FILES * usize::from(self.options.shards)
    }

    /// A file of the pool. The last ones are for the first segments of a start.
    fn take_free(&self, segment: u64) -> Option<u32> {
        let mut pool = self.pool();
        let is_left = segment == FIRST_SEGMENT || pool.free.len() > self.reserve_files();
        is_left.then(|| pool.free.pop()).flatten()
    }

    /// Makes files for the pool until it has those that the next start may need, as far as there is room.
    fn fill_reserve(&self) -> Result<(), StoreError> {
        while self.pool().free.len() < self.reserve_files() {
            let number = {
                let mut pool = self.pool();
                pool.next += 1;
                pool.next - 1
            };
            let path = self.path(&free_path(number));
            let new = path.with_extension(UNFINISHED);
            match self.write_zeros(&new) {
                Ok(()) => fs::rename(&new, &path).map_err(failed(&new, "rename"))?,
                Err(error) if is_full(&error) => return remove(&new),
                Err(error) => return Err(failed(&new, "fill")(error)),
            }
            self.pool().free.push(number);
        }
        Ok(())
    }

    /// Makes a journal segment of this epoch that is written in place: one of the pool, or a new one, filled with zeros.
    /// Its name and length are durable.
    pub(super) fn prepare_segment(&self, shard: u16, segment: u64) -> Result<Room, StoreError> {
        let path = self.segment_path(shard, segment);
        if let Some(number) = self.take_free(segment) {
            let free = self.path(&free_path(number));
            fs::rename(&free, &path).map_err(failed(&free, "rename"))?;
        } else {
            let new = path.with_extension(UNFINISHED);
            match self.write_zeros(&new) {
                Ok(()) => fs::rename(&new, &path).map_err(failed(&new, "rename"))?,
                Err(error) if is_full(&error) => return remove(&new).map(|()| Room::Full),
                Err(error) => return Err(failed(&new, "fill")(error)),
            }
        }
        self.sync_journal_directory()?;
        Ok(Room::Done)
    }

    fn write_zeros(&self, path: &Path) -> io::Result<()> {
        let file = open_direct(path, OpenOptions::new().write(true).create(true).truncate(true).mode(0o600))?;
        let octets = self.options.segment_octets;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, octets) {
            // Zeros are written anyway; it only would have kept the file in one piece.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let mut zeros = AlignedBuffer::new();
        zeros.resize(ZEROS_OCTETS);
        let mut offset = 0;
        while offset < octets {
            let piece = usize::try_from(octets - offset).map_or(ZEROS_OCTETS, |rest| rest.min(ZEROS_OCTETS));
            file.write_all_at(&zeros.as_slice()[..piece], offset)?;
            offset += piece as u64;
        }
        file.sync_all()
    }

    /// Where a journal segment of this epoch lies.
    pub(super) fn segment_path(&self, shard: u16, segment: u64) -> PathBuf {
        self.path(&SegmentName { epoch: self.options.epoch, shard, segment }.path())
    }

    /// Gives a journal segment of this epoch back.
    pub(super) fn retire_segment(&self, shard: u16, segment: u64) -> Result<(), StoreError> {
        self.free_segment(&self.segment_path(shard, segment))
    }

    /// Puts a journal segment into the pool, or removes it where the pool has enough.
    fn free_segment(&self, path: &Path) -> Result<(), StoreError> {
        let octets = fs::metadata(path).map_err(failed(path, "look at"))?.len();
        let number = {
            let mut pool = self.pool();
            let has_room = pool.free.len() < self.pool_files_max() && octets == self.options.segment_octets;
            pool.next += u32::from(has_room);
            has_room.then(|| pool.next - 1)
        };
        let Some(number) = number else { return remove(path) };
        fs::rename(path, self.path(&free_path(number))).map_err(failed(path, "rename"))?;
        self.pool().free.push(number);
        Ok(())
    }

    /// One more shard does not need the older epochs any more; with the last one their segments are freed.
    ///
    /// They go by one durable step, an empty file whose name says which they are. Were they only removed one by one, then
    /// after a failure of the power in the midst of it a part of them would be read without what had settled it.
    pub(super) fn retire_old_epochs(&self) -> Result<(), StoreError> {
        let is_last = {
            let mut pool = self.pool();
            pool.shards_done += 1;
            pool.shards_done == self.options.shards
        };
        if !is_last {
            return Ok(());
        }
        let names = list(&self.path(JOURNAL_DIRECTORY))?;
        let marker = self.path(&retired_path(self.options.epoch));
        patiently(|| File::create(&marker)).map_err(failed(&marker, "create"))?;
        self.sync_journal_directory()?;
        self.free_epochs_below(self.options.epoch, &names)?;
        remove(&marker)?;
        self.fill_reserve()
    }

    /// Frees the segments, among `names`, of all epochs below `epoch`, which the marker of that epoch has retired. Then the
    /// markers are not needed any more.
    fn free_epochs_below(&self, epoch: u64, names: &[String]) -> Result<(), StoreError> {
        let mut old: Vec<_> = names.iter().filter_map(|name| SegmentName::parse(name)).collect();
        old.retain(|segment| segment.epoch < epoch);
        for segment in &old {
            self.free_segment(&self.path(&segment.path()))?;
        }
        self.sync_journal_directory()?;
        for marker in names.iter().filter(|name| parse_retired(name).is_some()) {
            remove(&self.path(JOURNAL_DIRECTORY).join(marker))?;
        }
        Ok(())
    }

    /// Makes names of journal segments durable.
    pub(super) fn sync_journal_directory(&self) -> Result<(), StoreError> {
        self.journal_directory.sync_all().map_err(failed(&self.path(JOURNAL_DIRECTORY), "sync"))
    }
}

thread_local! {
    /// Whether this thread waits for a file descriptor.
    static IS_PATIENT: Cell<bool> = const { Cell::new(false) };
}

/// The current thread serves a running broker: it waits for file descriptors.
pub(super) fn be_patient() {
    IS_PATIENT.set(true);
}

/// Opens something; where clients of a running broker hold all file descriptors that there may be, as soon as one is free. Nothing is
/// lost meanwhile, and a broker that ended would lose all of them their connections. A start does not wait: nobody would free any.
pub(super) fn patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match open() {
            Err(error)
                if IS_PATIENT.get() && matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE)) =>
            {
                thread::sleep(DESCRIPTOR_INTERVAL);
            }
            opened => return opened,
        }
    }
}

/// Opens a file for writing past the page cache, where the file system can do that.
pub(super) fn open_direct(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flag = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    patiently(|| match options.clone().custom_flags(flag).open(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => options.open(path),
        opened => opened,
    })
}

/// The names in a directory; none if it is not there.
fn list(directory: &Path) -> Result<Vec<String>, StoreError> {
    let read = || -> io::Result<Vec<String>> {
        let names = patiently(|| fs::read_dir(directory))?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(failed(directory, "list")),
    }
}

/// Removes a file; it may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, "remove")(error)),
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it; it may be gone already.
pub(super) fn remove_directory(path: &Path) -> Result<(), StoreError> {
    match patiently(|| fs::remove_dir_all(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, "remove")(error)),
        _ => Ok(()),
    }
}

/// Makes a directory that only the broker's user may look into. Returns whether it was not there.
pub(super) fn make_directory(path: &Path) -> Result<bool, StoreError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(path, "make")(error)),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    patiently(|| File::open(path)).and_then(|directory| directory.sync_all()).map_err(failed(path, "sync"))
}
