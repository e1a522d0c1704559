//! Keeps what can be kept of a damaged data directory, so that a broker starts with it.
//!
//! 1. Damaged queue segment files: their sound extents are copied to a new file, which takes the place of the damaged one.
//! 2. All that lives in the journals is written to the journal of a new epoch, as a start of the broker would forward it.
//! 3. The new journal is read as a start reads it, and must give the same messages.
//! 4. The older epochs are retired; where they were damaged, their segments are moved aside.
//!
//! Whenever it is cut short, it can be run again: until the last step, a start finds the damage that was there.

use super::remains::{FileRemains, QueueRemains, Remains, put_together};
use super::report::{printable, table};
use crate::control::database::Database;
use crate::definitions::QueueDefinition;
use crate::limits::{JOURNAL_SEGMENT_OCTETS, JOURNAL_SEGMENTS_TARGET};
use crate::queue::LogEntry;
use crate::server::start_error::StartError;
use crate::store::disk_thread::{DiskStart, DiskThreads};
use crate::store::files::{self, FilesOptions, StoreFiles};
use crate::store::names::SegmentName;
use crate::store::replay::{OnDamage, ReplayOptions};
use crate::store::survey::FileSurvey;
use crate::store::{
    AlignedBuffer, ColdFileId, Damage, DiskReply, ExtentNote, History, Journal, JournalOptions, StoreError, cold_path,
    put_trailer,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{SystemTime, UNIX_EPOCH};

/// The one shard that the new journal is of.
const SHARD: u16 = 0;

/// Does it. Returns what was kept and what was lost, in words.
///
/// # Errors
/// Something cannot be read or written. What can be kept is still there.
pub(super) fn salvage(mut remains: Remains) -> Result<String, StartError> {
    let directory = remains.data_dir.path().to_owned();
    let store = |error| StartError::Store { directory: directory.clone(), error };
    let aside = Aside::name(&directory);
    let mut lost = lost_of_journals(&remains);
    let damaged: Vec<ColdFileId> =
        remains.files.iter().filter(|(_, file)| !file.survey.is_sound()).map(|(id, _)| *id).collect();
    for id in damaged {
        let file = remains.files.get_mut(&id).expect("it was just there");
        lost += &lost_of_file(&remains.queues, &id, file);
        rewrite(&directory, &id, file, &aside).map_err(store)?;
        if file.survey.extents.is_empty() {
            remains.files.remove(&id);
        }
    }
    let mut database = Database::open(&remains.data_dir.definitions_file())?;
    let epoch = database.begin_epoch()?;
    drop(database);
    write_new_epoch(&directory, epoch, &mut remains).map_err(store)?;
    verify_new_epoch(&directory, epoch, &remains)?;
    files::retire_epochs_below(&directory, epoch).map_err(store)?;
    if !remains.history.damages().is_empty() {
        for segment in &remains.journal {
            aside.take(&segment.name.path()).map_err(store)?;
        }
    }
    Ok(report(&remains, &lost, &aside))
}

/// Where damaged files go.
struct Aside {
    directory: PathBuf,
    place: PathBuf,
}

impl Aside {
    /// A directory that is made when something is to go there.
    fn name(directory: &Path) -> Aside {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let day = date(since / 86_400);
        let mut place = directory.join(format!("damaged-{day}"));
        let mut attempt = 1;
        while place.exists() {
            attempt += 1;
            place = directory.join(format!("damaged-{day}-{attempt}"));
        }
        Aside { directory: directory.to_owned(), place }
    }

    /// Makes the directory that a file, named below the data directory, goes to.
    fn place_for(&self, below: &str) -> Result<PathBuf, StoreError> {
        let to = self.place.join(below);
        let parent = to.parent().expect("it is below a directory");
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed(parent, "make"))?;
        Ok(to)
    }

    /// Moves a file here.
    fn take(&self, below: &str) -> Result<(), StoreError> {
        let to = self.place_for(below)?;
        let from = self.directory.join(below);
        fs::rename(&from, &to).map_err(failed(&from, "move"))
    }

    /// Makes a file be here as well.
    fn add(&self, below: &str) -> Result<(), StoreError> {
        let to = self.place_for(below)?;
        let from = self.directory.join(below);
        // Not every file system has links.
        fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).map_err(failed(&from, "copy"))?;
        File::open(&to).and_then(|file| file.sync_all()).map_err(failed(&to, "sync"))
    }
}

fn failed(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let file = path.display().to_string();
    move |error| StoreError::Io { file, operation, offset: None, error }
}

/// A day since 1970 as year, month and day.
///
/// Source: the proleptic Gregorian calendar, counted in eras of 400 years from 1 March 0.
fn date(days: u64) -> String {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carried) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + carried)
}

/// Puts a file with the sound extents of a damaged one in its place; none where there are none.
fn rewrite(directory: &Path, id: &ColdFileId, file: &mut FileRemains, aside: &Aside) -> Result<(), StoreError> {
    let below = cold_path(id);
    let path = directory.join(&below);
    let mut octets = AlignedBuffer::new();
    let mut notes = vec![];
    for note in &file.survey.extents {
        let whole = usize::try_from(note.octets).expect("an extent fits into memory");
        let extent = files::read_cold(directory, id, note.offset, whole).map_err(failed(&path, "read"))?;
        notes.push(ExtentNote { offset: octets.len() as u64, ..*note });
        octets.extend_from_slice(&extent);
    }
    if notes.is_empty() {
        return aside.take(&below);
    }
    put_trailer(&mut octets, &notes);
    aside.add(&below)?;
    let new = path.with_extension("segment.new");
    let write = || -> io::Result<()> {
        fs::write(&new, octets.as_slice())?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(path.parent().expect("it is in a directory"))?.sync_all()
    };
    write().map_err(failed(&path, "write"))?;
    let whole = octets.len() as u64;
    *file = FileRemains {
        octets: whole,
        known_octets: whole,
        survey: FileSurvey { extents: notes, ..FileSurvey::default() },
    };
    Ok(())
}

/// Writes all that lives in the journals to the journal of a new epoch, as a start would.
fn write_new_epoch(directory: &Path, epoch: u64, remains: &mut Remains) -> Result<(), StoreError> {
    let options = FilesOptions { epoch, shards: 1, segment_octets: JOURNAL_SEGMENT_OCTETS };
    let store_files = Arc::new(StoreFiles::open(directory, options)?);
    let (bell, rung) = channel();
    let notify = Box::new(move || {
        // Nobody waits any more where the writer has given up.
        let _ = bell.send(());
    });
    let disk = DiskThreads::start(DiskStart { files: store_files, shard: SHARD, core: None, notify })
        .map_err(failed(directory, "start threads for"))?;
    let mut writer = Writer {
        journal: Journal::new(JournalOptions {
            epoch,
            shard: SHARD,
            segment_octets: JOURNAL_SEGMENT_OCTETS,
            segments_target: JOURNAL_SEGMENTS_TARGET,
        }),
        disk,
        rung,
        directory: directory.to_owned(),
    };
    let exists: ahash::AHashSet<u64> = remains.queues.iter().map(|queue| queue.definition.id.0).collect();
    let mut fault = None;
    let mut read_segment = |name: &SegmentName| files::read_segment(directory, name);
    // Those in queues' files too: that does no harm, a start looks for them there first.
    remains.history.for_each_live(
        &mut read_segment,
        &mut |queue, _, _| !exists.contains(&queue),
        &mut |entry, message| {
            if fault.is_none() {
                writer.journal.put_message(&crate::store::Entry { forwarded: false, ..*entry }, &message);
                fault = writer.make_room().err();
            }
        },
    )?;
    fault.map_or(Ok(()), Err)?;
    // What was settled and delivered may have been lost with the rest.
    let marks_delivered = !remains.history.damages().is_empty();
    for queue in &mut remains.queues {
        put_standing(&mut writer.journal, queue, marks_delivered);
        writer.make_room()?;
    }
    for (id, file) in &remains.files {
        let path = directory.join(cold_path(id));
        File::open(&path).and_then(|file| file.sync_all()).map_err(failed(&path, "sync"))?;
        let is_needed = remains.queues.iter().any(|queue| {
            let files = queue.queue.iter().flat_map(crate::queue::Queue::files);
            queue.definition.id.0 == id.queue && files.into_iter().any(|(number, _)| number == id.file)
        });
        if is_needed {
            writer.journal.put_cold_file(id.queue, id.file, file.sound_octets());
        } else {
            writer.journal.put_cold_gone(id.queue, id.file);
        }
    }
    for id in remains.needless.iter().filter(|id| exists.contains(&id.queue)) {
        writer.journal.put_cold_gone(id.queue, id.file);
    }
    writer.finish()
}

/// How a queue stands, in the words in which a shard tells it.
fn put_standing(journal: &mut Journal, queue: &mut QueueRemains, marks_delivered: bool) {
    let id = queue.definition.id.0;
    let Some(queue) = &mut queue.queue else { return };
    queue.ask_checkpoint();
    queue.take_log_entries(id, &mut |entry| match entry {
        LogEntry::Checkpoint(mut checkpoint) => {
            if marks_delivered {
                checkpoint.delivered_below = checkpoint.position_next;
            }
            journal.put_checkpoint(&checkpoint);
        }
        LogEntry::Settled(first, count) => journal.put_settled(id, first, count),
    });
}

/// A journal and the disk that it is written to.
struct Writer {
    journal: Journal,
    disk: DiskThreads,
    rung: Receiver<()>,
    directory: PathBuf,
}

impl Writer {
    fn make_room(&mut self) -> Result<(), StoreError> {
        while self.journal.is_full() {
            self.step()?;
        }
        Ok(())
    }

    /// Writes all that is pending, and a mark, by which damage to it shows.
    fn finish(&mut self) -> Result<(), StoreError> {
        self.drain()?;
        self.journal.rest();
        self.drain()
    }

    fn drain(&mut self) -> Result<(), StoreError> {
        while !self.journal.is_idle() {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), StoreError> {
        self.journal.demand();
        while let Some(request) = self.journal.poll_request(0) {
            self.disk.submit(request);
        }
        // The disk's threads live as long as the disk.
        let _ = self.rung.recv();
        while let Some(reply) = self.disk.try_reply() {
            match reply {
                DiskReply::Committed { sequence, octets } => self.journal.handle_committed(sequence, octets, 0),
                DiskReply::SegmentPrepared { segment } => self.journal.handle_segment_prepared(segment),
                DiskReply::SegmentRefused { .. } => {
                    let error = io::ErrorKind::StorageFull.into();
                    return Err(failed(&self.directory, "write a new journal in")(error));
                }
                other => unreachable!("nobody has asked for {other:?}"),
            }
        }
        Ok(())
    }
}

/// Reads the new epoch alone, as a start does, and compares.
fn verify_new_epoch(directory: &Path, epoch: u64, remains: &Remains) -> Result<(), StartError> {
    let store = |error| StartError::Store { directory: directory.to_owned(), error };
    let mut segments = files::journal_segments(directory).map_err(store)?;
    segments.retain(|segment| segment.epoch == epoch);
    let replay = ReplayOptions { segment_octets: JOURNAL_SEGMENT_OCTETS, on_damage: OnDamage::Refuse };
    let history = History::read(segments, replay, &mut |name| files::read_segment(directory, name)).map_err(store)?;
    let definitions: Vec<Arc<QueueDefinition>> =
        remains.queues.iter().map(|queue| Arc::clone(&queue.definition)).collect();
    let found: BTreeMap<ColdFileId, FileRemains> = remains
        .files
        .iter()
        .map(|(id, file)| {
            let survey = FileSurvey { extents: file.survey.extents.clone(), ..FileSurvey::default() };
            (*id, FileRemains { octets: file.octets, known_octets: file.known_octets, survey })
        })
        .collect();
    let again = put_together(directory, &history, &definitions, &found, false).map_err(store)?;
    for queue in &remains.queues {
        let found = again.queues.get(&queue.definition.id).map_or(0, crate::queue::Queue::message_count);
        if found != queue.messages() {
            return Err(StartError::Salvage {
                queue: queue.definition.name.to_string(),
                expected: queue.messages(),
                found,
            });
        }
    }
    Ok(())
}

/// What is lost with damaged journals.
fn lost_of_journals(remains: &Remains) -> String {
    let mut text = String::new();
    let is_journal = |damage: &&Damage| remains.history.damages().contains(damage);
    for damage in remains.damages.iter().filter(is_journal) {
        let _ = writeln!(text, "  {damage}");
    }
    if !text.is_empty() {
        text += "    Messages that were published in there are lost, how many is not known. Messages that were acknowledged in \
                 there may be back. All that was kept says that it may have been delivered before.\n";
    }
    for damage in remains.damages.iter().filter(|damage| matches!(damage.what, crate::store::DamageKind::Missing)) {
        if !remains.history.damages().contains(damage) {
            let _ = writeln!(text, "  {damage}: the messages in it are lost, how many is not known");
        }
    }
    text
}

/// What is lost with a damaged file.
fn lost_of_file(queues: &[QueueRemains], id: &ColdFileId, file: &FileRemains) -> String {
    let queue = queues.iter().find(|queue| queue.definition.id.0 == id.queue);
    let queue = queue.map_or_else(String::new, |queue| {
        format!("queue '{}' in vhost '{}'", printable(&queue.definition.name), printable(&queue.definition.vhost))
    });
    let mut text = String::new();
    for part in &file.survey.unsound {
        let (path, offset, end) = (cold_path(id), part.offset, part.end);
        let messages = part.messages.map_or_else(
            || String::from("messages, how many is not known"),
            |messages| format!("{messages} messages, those counted that were acknowledged"),
        );
        let _ = writeln!(text, "  {path} from offset {offset} to {end}, of {queue}: {messages}");
    }
    if let Some(octets) = file.survey.truncated {
        let (path, end) = (cold_path(id), file.octets);
        let _ = writeln!(text, "  {path} from offset {end} to {octets}, of {queue}: messages, how many is not known");
    }
    text
}

fn report(remains: &Remains, lost: &str, aside: &Aside) -> String {
    let rows = remains.queues.iter().map(|queue| {
        vec![printable(&queue.definition.vhost), printable(&queue.definition.name), queue.messages().to_string()]
    });
    let kept = table(&["VHOST", "QUEUE", "MESSAGES"], &rows.collect::<Vec<_>>());
    let mut text = format!("\nKept\n{kept}\nLost, unless there was a copy elsewhere\n{lost}\n");
    if aside.place.exists() {
        let _ = writeln!(text, "Damaged files are in {}; delete them when they are not needed.", aside.place.display());
    }
    text += "The broker can be started.\n";
    text
}

#[cfg(test)]
mod tests {
    use super::date;

    /// Goal: a day has its date. Method: the first one, leap days and ends of years and centuries.
    #[test]
    fn days_have_dates() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (364, "1970-12-31"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_786, "2026-11-29"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }
}
