//! The disk of one shard: two threads that do what the shard asks for, with blocking system calls.
//!
//! A driver. `journal-N` does nothing but commits, so that nothing stands in their way; `cold-N` does all else. Commits are
//! one write past the page cache and one `fdatasync` of a file whose blocks were all written before: the file system has
//! nothing to note down then. (ext4, 4 KiB, the fastest tenth on a busy machine: 195 us; blocks that were only allocated 328,
//! a growing file 377. `O_DSYNC` instead of `fdatasync` was within the noise, now faster and now slower.) A thread costs 6 to 7
//! us there and back, the ring of the bell counted.
//!
//! Where a disk fails, the process ends: what a failed sync has lost, no later one brings back.

use super::aligned::{AlignedBuffer, PAGE_OCTETS};
use super::commit_core::CommitCore;
use super::damage::{Damage, DamageKind, StoreError, remedy};
use super::disk::{ColdFileId, ColdPlace, DiskReply, DiskRequest};
use super::files::{
    Room, StoreFiles, be_patient, failed, is_full, make_directory, open_direct, patiently, remove, remove_directory,
    sync_directory,
};
use super::names::{QUEUES_DIRECTORY, cold_path, queue_directory};
use ahash::AHashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a commit waits where the file system has no room, before it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// The exit code of a process whose disk has failed (`EX_IOERR` of sysexits.h).
pub const DISK_FAILED_EXIT_CODE: i32 = 74;

/// What the threads of a shard are started with.
pub struct DiskStart {
    /// The files of all shards.
    pub files: Arc<StoreFiles>,
    /// Whose threads they are.
    pub shard: u16,
    /// The core that the shard is pinned to, if any.
    pub core: Option<usize>,
    /// Called after each reply, on the thread that made it: wakes the shard.
    pub notify: Box<dyn Fn() + Send + Sync>,
}

/// The threads of one shard. When it is dropped, what was submitted is done first.
#[derive(Debug)]
pub struct DiskThreads {
    journal: Option<Sender<DiskRequest>>,
    cold: Option<Sender<DiskRequest>>,
    replies: Receiver<DiskReply>,
    threads: Vec<JoinHandle<()>>,
    files: Arc<StoreFiles>,
    /// Whether the shard's core has time for commits.
    core_has_time: Arc<AtomicBool>,
}

impl DiskThreads {
    /// Starts them.
    ///
    /// # Errors
    /// The operating system has no thread for us.
    pub fn start(start: DiskStart) -> io::Result<DiskThreads> {
        let DiskStart { files, shard, core, notify } = start;
        let notify: Arc<dyn Fn() + Send + Sync> = Arc::from(notify);
        let (reply, replies) = channel();
        let (journal, commits) = channel();
        let (cold, requests) = channel();
        let core_has_time = Arc::new(AtomicBool::new(true));
        let mut threads = DiskThreads {
            journal: None,
            cold: None,
            replies,
            threads: Vec::new(),
            files: Arc::clone(&files),
            core_has_time: Arc::clone(&core_has_time),
        };
        let (directory, directory_cold) = (files.directory().to_owned(), files.directory().to_owned());
        let mut disk = JournalDisk { files: Arc::clone(&files), shard, core_has_time, core: None, opened: None };
        let (reply_commits, notify_commits) = (reply.clone(), Arc::clone(&notify));
        threads.threads.push(thread::Builder::new().name(format!("journal-{shard}")).spawn(move || {
            disk.core = CommitCore::new(core);
            serve(&commits, &reply_commits, &*notify_commits, &directory, |request| disk.execute(request));
        })?);
        threads.journal = Some(journal);
        let mut disk = ColdDisk::new(files, shard);
        threads.threads.push(
            thread::Builder::new()
                .name(format!("cold-{shard}"))
                .spawn(move || serve(&requests, &reply, &*notify, &directory_cold, |request| disk.execute(request)))?,
        );
        threads.cold = Some(cold);
        Ok(threads)
    }

    /// Has something done. Never waits.
    pub fn submit(&self, request: DiskRequest) {
        let is_commit = matches!(request, DiskRequest::Commit { .. });
        let row = if is_commit { &self.journal } else { &self.cold };
        let sent = row.as_ref().map(|row| row.send(request));
        assert!(matches!(sent, Some(Ok(()))), "a disk thread has ended before its shard");
    }

    /// Says whether the shard's core has time for the commits that follow.
    pub fn set_core_has_time(&self, has_time: bool) {
        self.core_has_time.store(has_time, Ordering::Relaxed);
    }

    /// The data directory.
    pub fn directory(&self) -> &Path {
        self.files.directory()
    }

    /// What was done and not yet told of, oldest first.
    pub fn try_reply(&self) -> Option<DiskReply> {
        self.replies.try_recv().ok()
    }
}

impl Drop for DiskThreads {
    fn drop(&mut self) {
        self.journal = None;
        self.cold = None;
        for thread in self.threads.drain(..) {
            // A panic has told of itself.
            let _ = thread.join();
        }
    }
}

/// Does what comes until nobody is left to send anything.
fn serve(
    requests: &Receiver<DiskRequest>,
    replies: &Sender<DiskReply>,
    notify: &dyn Fn(),
    directory: &Path,
    mut execute: impl FnMut(DiskRequest) -> Result<Option<DiskReply>, StoreError>,
) {
    be_patient();
    for request in requests {
        match execute(request) {
            Ok(None) => {}
            Ok(Some(reply)) => {
                // Nobody listens any more where the shard has gone; the work is done all the same.
                let _ = replies.send(reply);
                notify();
            }
            Err(error) => stop(&error, directory),
        }
    }
}

/// Ends the process: what its disk holds is not known any more.
fn stop(error: &StoreError, directory: &Path) -> ! {
    match error {
        StoreError::Io { .. } => eprintln!("lepus: {error}; the broker ends, as it cannot know what is on the disk."),
        StoreError::Damage(_) => eprintln!("lepus: {error}; the broker ends: {}.", remedy(directory)),
    }
    std::process::exit(DISK_FAILED_EXIT_CODE)
}

fn failed_at(path: &std::path::Path, operation: &'static str, offset: u64) -> impl FnOnce(io::Error) -> StoreError {
    let file = path.display().to_string();
    move |error| StoreError::Io { file, operation, offset: Some(offset), error }
}

/// Writes commits.
struct JournalDisk {
    files: Arc<StoreFiles>,
    shard: u16,
    core_has_time: Arc<AtomicBool>,
    core: Option<CommitCore>,
    opened: Option<(u64, PathBuf, File)>,
}

impl JournalDisk {
    fn execute(&mut self, request: DiskRequest) -> Result<Option<DiskReply>, StoreError> {
        let DiskRequest::Commit { sequence, segment, offset, octets } = request else {
            unreachable!("the journal's thread does nothing but commits")
        };
        assert!(octets.len().is_multiple_of(PAGE_OCTETS), "a batch is whole pages");
        if let Some(core) = &mut self.core {
            core.prepare(self.core_has_time.load(Ordering::Relaxed));
        }
        if self.opened.as_ref().is_none_or(|(opened, _, _)| *opened != segment) {
            let path = self.files.segment_path(self.shard, segment);
            let file = open_direct(&path, OpenOptions::new().write(true)).map_err(failed(&path, "open"))?;
            self.opened = Some((segment, path, file));
        }
        let (_, path, file) = self.opened.as_ref().expect("it was opened");
        loop {
            match file.write_all_at(octets.as_slice(), offset) {
                Ok(()) => break,
                // Its blocks were written before, but file systems that copy on write need new ones.
                Err(error) if is_full(&error) => thread::sleep(RETRY_INTERVAL),
                Err(error) => return Err(failed_at(path, "write", offset)(error)),
            }
        }
        file.sync_data().map_err(failed_at(path, "sync", offset))?;
        Ok(Some(DiskReply::Committed { sequence, octets }))
    }
}

/// Does everything else.
struct ColdDisk {
    files: Arc<StoreFiles>,
    shard: u16,
    /// Queues in whose directories files were created since the last sync, with whether their files are transient ...
    created_in: AHashSet<(u64, bool)>,
    /// ... and whether queues' directories were created.
    created_directory: bool,
    /// Queues in whose directories files were removed since the last sync.
    removed_in: AHashSet<u64>,
    /// Files that something was missing of since the disk was full: whatever was behind that would not be found again.
    cut_off: AHashSet<ColdFileId>,
    /// Whether a segment was retired since names in the journals' directory were made durable.
    has_retired: bool,
}

impl ColdDisk {
    fn new(files: Arc<StoreFiles>, shard: u16) -> ColdDisk {
        ColdDisk {
            files,
            shard,
            created_in: AHashSet::new(),
            created_directory: false,
            removed_in: AHashSet::new(),
            cut_off: AHashSet::new(),
            has_retired: false,
        }
    }

    fn execute(&mut self, request: DiskRequest) -> Result<Option<DiskReply>, StoreError> {
        Ok(match request {
            DiskRequest::Commit { .. } => unreachable!("commits have a thread of their own"),
            DiskRequest::PrepareSegment { segment } => Some(match self.files.prepare_segment(self.shard, segment)? {
                Room::Done => {
                    self.has_retired = false;
                    DiskReply::SegmentPrepared { segment }
                }
                Room::Full => DiskReply::SegmentRefused { segment },
            }),
            DiskRequest::RetireSegment { segment } => {
                self.sync_removals()?;
                // Never is a later one gone after a failure of the power and an earlier one not.
                if std::mem::replace(&mut self.has_retired, true) {
                    self.files.sync_journal_directory()?;
                }
                self.files.retire_segment(self.shard, segment)?;
                None
            }
            DiskRequest::RetireOldEpochs => {
                self.sync_removals()?;
                self.files.retire_old_epochs()?;
                None
            }
            DiskRequest::WriteExtents { place, octets, token } => {
                let is_cut_off = place.offset > 0 && self.cut_off.contains(&place.file);
                let room = if is_cut_off { Room::Full } else { self.write(&place, &octets)? };
                Some(match room {
                    Room::Done => DiskReply::Written { token, octets },
                    Room::Full => {
                        self.cut_off.insert(place.file);
                        DiskReply::WriteRefused { token, octets }
                    }
                })
            }
            DiskRequest::ReadExtents { place, octets, token } => {
                Some(DiskReply::Read { token, octets: self.read(&place, octets)? })
            }
            DiskRequest::SyncFiles { files, token } => {
                self.sync(&files)?;
                Some(DiskReply::Synced { token })
            }
            DiskRequest::RemoveFile { file } => {
                remove(&self.path(&file))?;
                self.cut_off.remove(&file);
                if !file.is_transient {
                    self.removed_in.insert(file.queue);
                }
                None
            }
            DiskRequest::RemoveQueue { queue, is_transient } => {
                remove_directory(&self.files.directory().join(queue_directory(queue, is_transient)))?;
                self.created_in.remove(&(queue, is_transient));
                self.cut_off.retain(|file| (file.queue, file.is_transient) != (queue, is_transient));
                None
            }
        })
    }

    fn path(&self, file: &ColdFileId) -> PathBuf {
        self.files.directory().join(cold_path(file))
    }

    /// Past the page cache: a long queue must not fill it with what is read again much later.
    fn write(&mut self, place: &ColdPlace, octets: &AlignedBuffer) -> Result<Room, StoreError> {
        assert!(octets.len().is_multiple_of(PAGE_OCTETS), "extents are whole pages");
        let path = self.path(&place.file);
        let mut options = OpenOptions::new();
        options.write(true);
        if place.offset == 0 {
            let ColdFileId { queue, is_transient, .. } = place.file;
            match make_directory(&self.files.directory().join(queue_directory(queue, is_transient))) {
                Ok(created) => self.created_directory |= created && !is_transient,
                Err(StoreError::Io { error, .. }) if is_full(&error) => return Ok(Room::Full),
                Err(error) => return Err(error),
            }
            self.created_in.insert((queue, is_transient));
            options.create(true).truncate(true).mode(0o600);
        }
        let file = match open_direct(&path, &mut options) {
            Err(error) if is_full(&error) => return Ok(Room::Full),
            opened => opened.map_err(failed(&path, "open"))?,
        };
        match file.write_all_at(octets.as_slice(), place.offset) {
            Ok(()) => Ok(Room::Done),
            Err(error) if is_full(&error) => Ok(Room::Full),
            Err(error) => Err(failed_at(&path, "write", place.offset)(error)),
        }
    }

    /// Through the page cache, which reads ahead.
    fn read(&self, place: &ColdPlace, octets: usize) -> Result<AlignedBuffer, StoreError> {
        let path = self.path(&place.file);
        let file = patiently(|| File::open(&path)).map_err(failed(&path, "open"))?;
        let mut buffer = AlignedBuffer::new();
        buffer.resize(octets);
        match file.read_exact_at(buffer.as_mut_slice(), place.offset) {
            Ok(()) => Ok(buffer),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let offset = file.metadata().map_err(failed(&path, "look at"))?.len();
                let what = DamageKind::Truncated { octets: place.offset + octets as u64 };
                Err(Damage { file: cold_path(&place.file), offset, what }.into())
            }
            Err(error) => Err(failed_at(&path, "read", place.offset)(error)),
        }
    }

    /// What was removed must not come back once the journal has forgotten that it is gone.
    fn sync_removals(&mut self) -> Result<(), StoreError> {
        for queue in std::mem::take(&mut self.removed_in) {
            let path = self.files.directory().join(queue_directory(queue, false));
            if path.exists() {
                sync_directory(&path)?;
            }
        }
        Ok(())
    }

    /// Transient files are not synced: they are not to outlive the process.
    fn sync(&mut self, files: &[ColdFileId]) -> Result<(), StoreError> {
        for file in files.iter().filter(|file| !file.is_transient) {
            let path = self.path(file);
            let synced = match patiently(|| File::open(&path)) {
                // There was not even room to create it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.cut_off.contains(file) => continue,
                opened => opened.and_then(|file| file.sync_data()),
            };
            synced.map_err(failed(&path, "sync"))?;
        }
        for file in files {
            if self.created_in.remove(&(file.queue, file.is_transient)) && !file.is_transient {
                sync_directory(&self.files.directory().join(queue_directory(file.queue, false)))?;
            }
        }
        if std::mem::take(&mut self.created_directory) {
            sync_directory(&self.files.directory().join(QUEUES_DIRECTORY))?;
        }
        Ok(())
    }
}
