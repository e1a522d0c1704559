//! Tests of the disk threads and the files, on a real file system.

use super::aligned::AlignedBuffer;
use super::disk::{ColdFileId, ColdPlace, DiskReply, DiskRequest};
use super::disk_thread::{DISK_FAILED_EXIT_CODE, DiskStart, DiskThreads};
use super::files::{
    self, FilesOptions, QueueFiles, StoreFiles, journal_segments, queue_files, read_cold, read_segment,
};
use super::fixture::{SEGMENT_OCTETS, entry, with_message};
use super::journal::{Journal, JournalOptions};
use super::names::SegmentName;
use super::replay::{History, OnDamage, ReplayOptions};
use crate::limits::JOURNAL_POOL_FILES_MAX;
use rustix::io::Errno;
use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use tempfile::TempDir;

/// Threads of one shard, and who is told of their replies.
struct Disk {
    threads: DiskThreads,
    rings: Receiver<()>,
}

impl Disk {
    fn start(files: &Arc<StoreFiles>, shard: u16) -> Disk {
        let (ring, rings) = channel();
        let notify = Box::new(move || {
            // The test may have ended.
            let _ = ring.send(());
        });
        let start = DiskStart { files: Arc::clone(files), shard, core: None, notify };
        Disk { threads: DiskThreads::start(start).expect("threads"), rings }
    }

    /// Waits for one reply.
    fn reply(&self) -> DiskReply {
        self.rings.recv().expect("a reply");
        self.threads.try_reply().expect("the reply is there when the bell is rung")
    }

    fn ask(&self, request: DiskRequest) -> DiskReply {
        self.threads.submit(request);
        self.reply()
    }
}

fn options(epoch: u64, shards: u16) -> FilesOptions {
    FilesOptions { epoch, shards, segment_octets: SEGMENT_OCTETS }
}

fn open(directory: &Path, epoch: u64, shards: u16) -> Arc<StoreFiles> {
    Arc::new(StoreFiles::open(directory, options(epoch, shards)).expect("the files are opened"))
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory.join("journal")).expect("it is there");
    let mut names: Vec<_> = names.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

fn pages(count: usize, octet: u8) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::new();
    buffer.resize(4096 * count);
    buffer.as_mut_slice().fill(octet);
    buffer
}

/// Lets a journal and a disk work until everything is durable.
fn settle(journal: &mut Journal, disk: &Disk) {
    journal.demand();
    let mut open = 0;
    while journal.durable() < journal.appended() || open > 0 {
        while let Some(request) = journal.poll_request(0) {
            disk.threads.submit(request);
            open += 1;
        }
        match disk.reply() {
            DiskReply::Committed { sequence, octets } => journal.handle_committed(sequence, octets, 0),
            DiskReply::SegmentPrepared { segment } => journal.handle_segment_prepared(segment),
            other => panic!("{other:?} was not asked for"),
        }
        open -= 1;
    }
}

fn live(directory: &Path) -> Vec<u64> {
    let options = ReplayOptions { segment_octets: SEGMENT_OCTETS, on_damage: OnDamage::Refuse };
    let segments = journal_segments(directory).expect("it can be listed");
    let mut read = |name: &SegmentName| read_segment(directory, name);
    let history = History::read(segments, options, &mut read).expect("nothing is damaged");
    let mut found = Vec::new();
    let live = history.for_each_live(&mut read, &mut |_, _, _| false, &mut |entry, _| found.push(entry.position));
    live.expect("nothing is damaged");
    found
}

/// Goal: what a shard was told to be durable is in the files. Method: many batches through several segments, the oldest of
/// which are used again, read back by another start.
#[test]
fn a_journal_is_found_again() {
    let directory = TempDir::new().expect("a directory");
    let files = open(directory.path(), 7, 1);
    let disk = Disk::start(&files, 0);
    let options = JournalOptions { epoch: 7, shard: 0, segment_octets: SEGMENT_OCTETS, segments_target: 2 };
    let mut journal = Journal::new(options);
    for position in 0..40 {
        with_message(position, 5000, |message| journal.put_message(&entry(1, position), message));
        settle(&mut journal, &disk);
        if let Some(oldest) = journal.wants_recycling() {
            // What is in it is not wanted any more.
            disk.threads.submit(journal.retire(oldest));
        }
    }
    let (oldest, current) = journal.segments();
    drop(disk);
    let kept = live(directory.path());
    assert_eq!(kept, ((40 - kept.len() as u64)..40).collect::<Vec<_>>());
    assert!(oldest > 1 && !kept.is_empty());
    let expected: Vec<_> = (oldest..=current + 1).map(|segment| SegmentName { epoch: 7, shard: 0, segment }).collect();
    assert_eq!(journal_segments(directory.path()).expect("it can be listed"), expected);
}

/// Goal: when it is dropped, everything that was submitted is done. Method: submit much, drop, look.
#[test]
fn dropped_threads_finish_their_work() {
    let directory = TempDir::new().expect("a directory");
    let files = open(directory.path(), 1, 1);
    let disk = Disk::start(&files, 0);
    assert!(matches!(disk.ask(DiskRequest::PrepareSegment { segment: 1 }), DiskReply::SegmentPrepared { segment: 1 }));
    for sequence in 1..=16 {
        let octets = pages(1, u8::try_from(sequence).expect("small"));
        let offset = (sequence - 1) * 4096;
        disk.threads.submit(DiskRequest::Commit { sequence, segment: 1, offset, octets });
    }
    drop(disk);
    let octets = read_segment(directory.path(), &SegmentName { epoch: 1, shard: 0, segment: 1 }).expect("it is there");
    assert_eq!(octets.len() as u64, SEGMENT_OCTETS);
    for (page, expected) in octets.chunks(4096).zip(1_u8..) {
        assert!(page.iter().all(|octet| *octet == expected));
    }
}

/// Goal: extents are written, read, synced and removed; the answers carry what was asked. Method: one of each, on durable and
/// transient files.
#[test]
fn extents_come_and_go() {
    let directory = TempDir::new().expect("a directory");
    let files = open(directory.path(), 1, 1);
    let disk = Disk::start(&files, 0);
    for is_transient in [false, true] {
        let file = ColdFileId { queue: 9, file: 3, is_transient };
        for (token, offset) in [(1, 0), (2, 8192)] {
            let place = ColdPlace { file, offset };
            let reply = disk.ask(DiskRequest::WriteExtents { place, octets: pages(2, 5), token });
            assert!(
                matches!(reply, DiskReply::Written { token: told, octets } if told == token && octets.len() == 8192)
            );
        }
        let place = ColdPlace { file, offset: 4096 };
        let reply = disk.ask(DiskRequest::ReadExtents { place, octets: 12_288, token: 3 });
        let DiskReply::Read { token: 3, octets } = reply else { panic!("{reply:?}") };
        assert_eq!(octets.as_slice(), pages(3, 5).as_slice());
        assert!(matches!(
            disk.ask(DiskRequest::SyncFiles { files: vec![file], token: 4 }),
            DiskReply::Synced { token: 4 }
        ));
    }
    let file = ColdFileId { queue: 9, file: 3, is_transient: false };
    let found = queue_files(directory.path()).expect("it can be listed");
    assert_eq!(found, [QueueFiles { queue: 9, files: vec![(3, 16_384)] }]);
    assert_eq!(read_cold(directory.path(), &file, 8192, 8192).expect("it is there"), [5; 8192]);
    let error = read_cold(directory.path(), &file, 8192, 8193).expect_err("it is shorter");
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    // A file with the number of one that an earlier start has left is a new file.
    let place = ColdPlace { file, offset: 0 };
    disk.ask(DiskRequest::WriteExtents { place, octets: pages(1, 6), token: 5 });
    assert_eq!(queue_files(directory.path()).expect("it can be listed")[0].files, [(3, 4096)]);
    for _ in 0..2 {
        // Removing what is gone is no error.
        disk.threads.submit(DiskRequest::RemoveFile { file });
        disk.threads.submit(DiskRequest::RemoveQueue { queue: 9, is_transient: true });
    }
    disk.ask(DiskRequest::SyncFiles { files: vec![], token: 6 });
    assert_eq!(queue_files(directory.path()).expect("it can be listed")[0].files, []);
    assert!(!directory.path().join("transient/0000000000000009").exists());
    disk.threads.submit(DiskRequest::RemoveQueue { queue: 9, is_transient: false });
    drop(disk);
    assert_eq!(queue_files(directory.path()).expect("it can be listed"), []);
}

/// Goal: segments are used again, and no more are kept than may be. Method: retire more than the pool takes, then prepare.
#[test]
fn retired_segments_are_used_again() {
    let directory = TempDir::new().expect("a directory");
    let files = open(directory.path(), 1, 1);
    let segments = JOURNAL_POOL_FILES_MAX as u64 + 2;
    for segment in 1..=segments {
        files.prepare_segment(0, segment).expect("there is room");
    }
    for segment in 1..=segments {
        files.retire_segment(0, segment).expect("it is there");
    }
    assert_eq!(names(directory.path()).len(), JOURNAL_POOL_FILES_MAX);
    assert!(names(directory.path()).iter().all(|name| name.starts_with("free-")));
    // Another start finds the pool, but not what is no file of it.
    fs::write(directory.path().join("journal/free-0100.journal"), "short").expect("it is written");
    fs::write(directory.path().join("journal/00000001-000-00000009.journal.new"), "half").expect("it is written");
    let files = open(directory.path(), 2, 1);
    assert_eq!(names(directory.path()).len(), JOURNAL_POOL_FILES_MAX);
    files.prepare_segment(0, 1).expect("there is room");
    files.retire_segment(0, 1).expect("it is there");
    let number = u64::from_str_radix("101", 16).expect("a number");
    assert!(names(directory.path()).contains(&format!("free-{number:04x}.journal")), "the numbers go on");
    assert_eq!(names(directory.path()).len(), JOURNAL_POOL_FILES_MAX);
}

/// Goal: older epochs go when all shards have said so, and all at once. Method: two shards say so one after the other; and the
/// power fails behind the step that counts.
#[test]
fn old_epochs_are_retired_together() {
    let directory = TempDir::new().expect("a directory");
    let old = open(directory.path(), 1, 3);
    for (shard, segment) in [(0, 1), (1, 1), (2, 1), (2, 2)] {
        old.prepare_segment(shard, segment).expect("there is room");
    }
    let new = open(directory.path(), 2, 2);
    let disks = [Disk::start(&new, 0), Disk::start(&new, 1)];
    disks[0].ask(DiskRequest::PrepareSegment { segment: 1 });
    disks[0].threads.submit(DiskRequest::RetireOldEpochs);
    disks[0].ask(DiskRequest::SyncFiles { files: vec![], token: 0 });
    assert_eq!(journal_segments(directory.path()).expect("it can be listed").len(), 5, "one shard needs them still");
    disks[1].threads.submit(DiskRequest::RetireOldEpochs);
    disks[1].ask(DiskRequest::SyncFiles { files: vec![], token: 0 });
    let newest = [SegmentName { epoch: 2, shard: 0, segment: 1 }];
    assert_eq!(journal_segments(directory.path()).expect("it can be listed"), newest);
    assert!(!names(directory.path()).iter().any(|name| name.starts_with("retired-")));
    drop(disks);

    // Had the power failed in the midst of it, some of the files would be there, and the name by which they are gone.
    for segment in ["00000001-000-00000001.journal", "00000001-002-00000002.journal"] {
        fs::write(directory.path().join("journal").join(segment), vec![0; 65_536]).expect("it is written");
    }
    fs::write(directory.path().join("journal/retired-00000002"), "").expect("it is written");
    assert_eq!(journal_segments(directory.path()).expect("it can be listed"), newest);
    open(directory.path(), 3, 2);
    let found = names(directory.path());
    assert_eq!(
        found.iter().filter(|name| !name.starts_with("free-")).collect::<Vec<_>>(),
        [&newest[0].path()["journal/".len()..]]
    );
}

/// Goal: what is transient does not outlive a start, what is not does; nobody else looks in. Method: a file of each, two starts.
#[test]
fn transient_files_are_wiped_at_start() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().expect("a directory");
    let disk = Disk::start(&open(directory.path(), 1, 1), 0);
    for is_transient in [false, true] {
        let place = ColdPlace { file: ColdFileId { queue: 1, file: 0, is_transient }, offset: 0 };
        disk.ask(DiskRequest::WriteExtents { place, octets: pages(1, 1), token: 0 });
    }
    drop(disk);
    open(directory.path(), 2, 1);
    assert_eq!(queue_files(directory.path()).expect("it can be listed").len(), 1);
    assert_eq!(fs::read_dir(directory.path().join("transient")).expect("it is there").count(), 0);
    for name in ["journal", "queues", "queues/0000000000000001", "transient"] {
        let mode = fs::metadata(directory.path().join(name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
}

/// Goal: nothing there is no error. Method: list an empty directory.
#[test]
fn an_empty_directory_has_nothing() {
    let directory = TempDir::new().expect("a directory");
    assert_eq!(journal_segments(directory.path()).expect("it can be listed"), []);
    assert_eq!(queue_files(directory.path()).expect("it can be listed"), []);
    assert!(read_segment(directory.path(), &SegmentName { epoch: 1, shard: 0, segment: 1 }).is_err());
}

/// Set in the process that runs the body of a test: what it is to ask of its disk.
const ASK: &str = "LEPUS_TEST_ASK_OF_DISK";

/// What is asked of a disk that cannot do it, and what must be said of that.
fn impossible(name: &str) -> (DiskRequest, &'static [&'static str]) {
    let file = ColdFileId { queue: 1, file: 0, is_transient: false };
    let (place, missing) = (ColdPlace { file, offset: 0 }, ColdPlace { file, offset: 4096 });
    match name {
        "commit" => (
            DiskRequest::Commit { sequence: 1, segment: 9, offset: 0, octets: pages(1, 1) },
            &["cannot open", "journal/00000001-000-00000009.journal"],
        ),
        "write" => (
            DiskRequest::WriteExtents { place: missing, octets: pages(1, 1), token: 1 },
            &["cannot open", "queues/0000000000000001/00000000.segment"],
        ),
        "read" => (
            DiskRequest::ReadExtents { place, octets: 4096, token: 1 },
            &["cannot open", "queues/0000000000000001/00000000.segment"],
        ),
        "read more" => (
            DiskRequest::ReadExtents { place, octets: 8192, token: 1 },
            &[
                "queues/0000000000000001/00000000.segment is truncated",
                "offset 4096",
                "8192 octets",
                "'lepus recover --salvage /",
            ],
        ),
        "sync" => (DiskRequest::SyncFiles { files: vec![file], token: 1 }, &["cannot sync", "00000000.segment"]),
        other => panic!("{other} is not asked for"),
    }
}

/// Goal: a disk that fails ends the process, with a sentence that names file, operation and error. Method: in a process of its
/// own, each request on a file that is not there or too short.
#[test]
fn a_failing_disk_ends_the_process() {
    if let Ok(name) = env::var(ASK) {
        let directory = TempDir::new().expect("a directory");
        let disk = Disk::start(&open(directory.path(), 1, 1), 0);
        if name == "read more" {
            let place = ColdPlace { file: ColdFileId { queue: 1, file: 0, is_transient: false }, offset: 0 };
            disk.ask(DiskRequest::WriteExtents { place, octets: pages(1, 1), token: 0 });
        }
        disk.ask(impossible(&name).0);
        return;
    }
    for name in ["commit", "write", "read", "read more", "sync"] {
        let output = Command::new(env::current_exe().expect("the test's own program"))
            .args(["--exact", "store::disk_test::a_failing_disk_ends_the_process", "--nocapture"])
            .env(ASK, name)
            .output()
            .expect("child process");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(DISK_FAILED_EXIT_CODE), "{name}: {said}");
        for part in impossible(name).1 {
            assert!(said.contains(part), "{name}: {said}");
        }
    }
}

/// Goal: where there is no file descriptor, a thread of a running broker waits for one, a start does not; other errors are told.
/// Method: errors, then a success.
#[test]
fn file_descriptors_are_waited_for() {
    assert!(files::patiently(|| Err::<(), _>(Errno::MFILE.into())).is_err(), "a start does not wait");
    files::be_patient();
    let mut errors = vec![Errno::NFILE, Errno::MFILE, Errno::MFILE];
    let opened = files::patiently(|| errors.pop().map_or(Ok(7), |error| Err(error.into())));
    assert_eq!(opened.expect("there is one"), 7);
    assert!(errors.is_empty());
    let refused = files::patiently(|| Err::<(), _>(io::Error::from(Errno::ACCESS)));
    assert_eq!(refused.expect_err("it is refused").kind(), io::ErrorKind::PermissionDenied);
}
