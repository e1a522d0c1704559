//! What a broker has left in the data directory, read at start. A driver.

use crate::{
    definitions::{QueueDefinition, QueueId},
    limits::JOURNAL_SEGMENT_OCTETS,
    queue::{
        Queue,
        recovery::{Left, recover_shards},
    },
    server::start_error::StartError,
    store::{
        StoreError, cold_path,
        disk::ColdFileId,
        files::{self, FilesOptions, StoreFiles},
        names::{SegmentName, queue_directory},
    },
};
use ahash::{AHashMap, AHashSet};
use std::{fs, io, path::Path, sync::Arc, time::Instant};

/// The store of a broker that starts, and what was left in it.
pub(super) struct RecoveredStore {
    pub files: Arc<StoreFiles>,
    /// Queues, by the shard that they have their home on.
    pub queues: Vec<AHashMap<QueueId, Queue>>,
}

/// Opens the store for the start number `epoch`, and puts the queues together again. `definitions` are the queues that exist.
///
/// # Errors
/// Something cannot be read, or is damaged.
pub(super) fn recover_store(
    directory: &Path,
    epoch: u64,
    shard_count: usize,
    definitions: &[Arc<QueueDefinition>],
    unix_offset_millis: u64,
) -> Result<RecoveredStore, StartError> {
    let store = |error| StartError::Store { directory: directory.to_owned(), error };
    read_store(directory, epoch, shard_count, definitions, unix_offset_millis).map_err(store)
}

fn read_store(
    directory: &Path,
    epoch: u64,
    shard_count: usize,
    definitions: &[Arc<QueueDefinition>],
    unix_offset_millis: u64,
) -> Result<RecoveredStore, StoreError> {
    let began = Instant::now();
    let shards = u16::try_from(shard_count).expect("shards are bounded");
    let options = FilesOptions { epoch, shards, segment_octets: JOURNAL_SEGMENT_OCTETS };
    let files = StoreFiles::open(directory, options)?;
    let segments = files::journal_segments(directory)?;
    let segment_count = segments.len();
    let left = Left {
        segments,
        segment_octets: JOURNAL_SEGMENT_OCTETS,
        files: list_files(directory)?,
        read_segment: &mut |name: &SegmentName| files::read_segment(directory, name),
        read_cold: &mut |file, offset, octets| files::read_cold(directory, file, offset, octets),
    };
    let recovered = recover_shards(left, definitions, shard_count, unix_offset_millis);
    let recovered = recovered.map_err(|error| below(directory, error))?;
    let durable = definitions.iter().filter(|definition| definition.durable).map(|definition| definition.id.0);
    remove_needless(directory, &recovered.needless, &durable.collect())?;
    files::sync_queue_names(directory)?;
    let messages: u64 = recovered.queues.iter().flat_map(|queues| queues.values()).map(Queue::message_count).sum();
    tracing::info!(
        segments = segment_count,
        records = recovered.counters.records,
        messages,
        milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "the store is read"
    );
    Ok(RecoveredStore { files: Arc::new(files), queues: recovered.queues })
}

/// All segment files of queues, with their lengths.
pub(super) fn list_files(directory: &Path) -> Result<Vec<(ColdFileId, u64)>, StoreError> {
    let mut found = vec![];
    for queue_files in files::queue_files(directory)? {
        let queue = queue_files.queue;
        found.extend(
            queue_files
                .files
                .iter()
                .map(|(file, octets)| (ColdFileId { queue, file: *file, is_transient: false }, *octets)),
        );
    }
    Ok(found)
}

/// Tells the data directory along with the file that could not be read.
fn below(directory: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Io { file, operation, offset, error } => {
            StoreError::Io { file: directory.join(file).display().to_string(), operation, offset, error }
        }
        damage @ StoreError::Damage(_) => damage,
    }
}

/// Removes files that nothing is needed of, and directories of queues that are not there.
fn remove_needless(directory: &Path, needless: &[ColdFileId], durable: &AHashSet<u64>) -> Result<(), StoreError> {
    let remove = |path: &Path, removed: io::Result<()>| match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::Io { file: path.display().to_string(), operation: "remove", offset: None, error })
        }
        _ => Ok(()),
    };
    let mut gone: AHashSet<u64> = AHashSet::new();
    for file in needless {
        if durable.contains(&file.queue) {
            let path = directory.join(cold_path(file));
            remove(&path, fs::remove_file(&path))?;
        } else {
            gone.insert(file.queue);
        }
    }
    for queue in gone {
        let path = directory.join(queue_directory(queue, false));
        remove(&path, fs::remove_dir_all(&path))?;
    }
    Ok(())
}
