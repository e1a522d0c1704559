//! What a broker has left in the data directory, read at start. A driver.

use crate::{
    definitions::{QueueDefinition, QueueId, QueueOptions},
    limits::JOURNAL_SEGMENT_OCTETS,
    queue::{
        Queue,
        recovery::{FoundFile, recover},
    },
    server::start_error::StartError,
    store::{
        History, StoreError, cold_path,
        disk::ColdFileId,
        files::{self, FilesOptions, StoreFiles},
        names::queue_directory,
        queue_segment::read_notes,
        replay::{OnDamage, ReplayOptions},
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
    let began = Instant::now();
    let shards = u16::try_from(shard_count).expect("shards are bounded");
    let options = FilesOptions { epoch, shards, segment_octets: JOURNAL_SEGMENT_OCTETS };
    let files = StoreFiles::open(directory, options)?;
    let segments = files::journal_segments(directory)?;
    let segment_count = segments.len();
    let mut read_segment = |name: &crate::store::names::SegmentName| files::read_segment(directory, name);
    let replay = ReplayOptions { segment_octets: JOURNAL_SEGMENT_OCTETS, on_damage: OnDamage::Refuse };
    let history = History::read(segments, replay, &mut read_segment)?;
    let durable: AHashMap<QueueId, QueueOptions> = definitions
        .iter()
        .filter(|definition| definition.durable)
        .map(|definition| (definition.id, definition.options.clone()))
        .collect();
    let found = find_files(directory, &history)?;
    let mut read_extent = |file: &ColdFileId, note: &crate::store::ExtentNote| {
        let octets = usize::try_from(note.octets).map_err(io::Error::other);
        octets
            .and_then(|octets| files::read_cold(directory, file, note.offset, octets))
            .map_err(|error| read_error(directory, file, Some(note.offset), error))
    };
    let recovered = recover(&history, &durable, found, unix_offset_millis, false, &mut read_segment, &mut read_extent)?;
    remove_needless(directory, &recovered.needless, &durable)?;
    let mut queues: Vec<AHashMap<QueueId, Queue>> = std::iter::repeat_with(AHashMap::new).take(shard_count).collect();
    let homes: AHashMap<QueueId, usize> =
        definitions.iter().map(|definition| (definition.id, usize::from(definition.home.0))).collect();
    let mut messages = 0;
    for (id, queue) in recovered.queues {
        messages += queue.message_count();
        queues[homes[&id]].insert(id, queue);
    }
    tracing::info!(
        segments = segment_count,
        records = history.counters().records,
        messages,
        milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "the store is read"
    );
    Ok(RecoveredStore { files: Arc::new(files), queues })
}

/// All segment files of queues, with what their trailers or extents say.
pub(super) fn find_files(directory: &Path, history: &History) -> Result<Vec<FoundFile>, StoreError> {
    let mut found = vec![];
    for queue_files in files::queue_files(directory)? {
        let queue = queue_files.queue;
        for (number, octets) in queue_files.files {
            let id = ColdFileId { queue, file: number, is_transient: false };
            let mut read = |offset, octets| files::read_cold(directory, &id, offset, octets);
            let trusted =
                history.queue(queue).and_then(|history| history.cold_files.get(&number)).copied().unwrap_or(0);
            let contents = read_notes(&mut read, octets, queue, trusted)
                .map_err(|error| read_error(directory, &id, None, error))?;
            found.push(FoundFile { queue, number, contents });
        }
    }
    Ok(found)
}

fn read_error(directory: &Path, file: &ColdFileId, offset: Option<u64>, error: io::Error) -> StoreError {
    StoreError::Io { file: directory.join(cold_path(file)).display().to_string(), operation: "read", offset, error }
}

/// Removes files that nothing is needed of, and directories of queues that are not there.
fn remove_needless(
    directory: &Path,
    needless: &[ColdFileId],
    durable: &AHashMap<QueueId, QueueOptions>,
) -> Result<(), StoreError> {
    let remove = |path: &Path, removed: io::Result<()>| match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::Io { file: path.display().to_string(), operation: "remove", offset: None, error })
        }
        _ => Ok(()),
    };
    let mut gone: AHashSet<u64> = AHashSet::new();
    for file in needless {
        if durable.contains_key(&QueueId(file.queue)) {
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
