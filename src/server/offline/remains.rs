//! What is in a data directory: definitions, journals, queues' files, and what of it is damaged.

use crate::control::{database::Database, plane::ControlPlane};
use crate::definitions::{QueueDefinition, QueueId, QueueOptions, Registry};
use crate::limits::JOURNAL_SEGMENT_OCTETS;
use crate::queue::Queue;
use crate::queue::recovery::{FoundFile, Recovered, recover};
use crate::server::data_dir::DataDir;
use crate::server::recovery::list_files;
use crate::server::start_error::StartError;
use crate::store::names::SegmentName;
use crate::store::queue_segment::read_notes;
use crate::store::replay::{OnDamage, ReplayOptions};
use crate::store::survey::{FileSurvey, SegmentSurvey, survey_file, survey_journals};
use crate::store::{ColdFileId, Damage, DamageKind, ExtentNote, History, StoreError, cold_path, files};
use ahash::AHashMap;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// What a broker reads when it starts: the journals, and of long queues' files what they say of themselves.
    AsAStart,
    /// Every octet that means something.
    Everything,
}

/// A segment file of a queue that exists.
pub(super) struct FileRemains {
    pub octets: u64,
    /// How much of it must be there, as a journal says, or may have said; 0 where none does.
    pub known_octets: u64,
    pub survey: FileSurvey,
}

impl FileRemains {
    /// Up to where it is sound, from its front on, if it is not damaged.
    pub fn sound_octets(&self) -> u64 {
        let end = self.survey.extents.last().map_or(0, |last| last.offset + u64::from(last.octets));
        if self.known_octets >= self.octets { self.octets } else { end }
    }
}

/// A queue that exists, and what is there of it.
pub(super) struct QueueRemains {
    pub definition: Arc<QueueDefinition>,
    /// Put together as at start, without what is damaged; `None` where nothing was ever in it.
    pub queue: Option<Queue>,
    pub files: usize,
    pub file_octets: u64,
}

impl QueueRemains {
    pub fn messages(&self) -> u64 {
        self.queue.as_ref().map_or(0, Queue::message_count)
    }

    pub fn body_octets(&self) -> u64 {
        self.queue.as_ref().map_or(0, Queue::ready_octets)
    }
}

/// See the module's documentation.
pub(super) struct Remains {
    pub data_dir: DataDir,
    /// The number of the last start; 0 where there was none.
    pub epoch: u64,
    pub history: History,
    pub journal: Vec<SegmentSurvey>,
    /// By virtual host and name.
    pub queues: Vec<QueueRemains>,
    pub files: BTreeMap<ColdFileId, FileRemains>,
    /// Files of which nothing is needed.
    pub needless: Vec<ColdFileId>,
    pub damages: Vec<Damage>,
}

impl Remains {
    /// Looks at a data directory, which is locked then.
    ///
    /// # Errors
    /// It cannot be looked at: that is not for damage to journals or to queues' files.
    pub fn look(path: &Path, depth: Depth) -> Result<Remains, StartError> {
        let data_dir = DataDir::open_existing(path)?;
        let (definitions, epoch) = read_definitions(&data_dir)?;
        let directory = data_dir.path().to_owned();
        let store = |error| StartError::Store { directory: directory.clone(), error };
        let found = read_store(&directory, &definitions, depth).map_err(store)?;
        let Found { history, journal, files, needless, mut queues, damages } = found;
        let mut all: Vec<QueueRemains> = definitions
            .into_iter()
            .map(|definition| {
                let own = files.iter().filter(|(file, _)| file.queue == definition.id.0);
                let (count, octets) = own.fold((0, 0), |(count, octets), (_, file)| (count + 1, octets + file.octets));
                QueueRemains { queue: queues.remove(&definition.id), definition, files: count, file_octets: octets }
            })
            .collect();
        all.sort_by(|one, other| {
            let place = |it: &QueueRemains| (it.definition.vhost.clone(), it.definition.name.clone());
            place(one).cmp(&place(other))
        });
        Ok(Remains { data_dir, epoch, history, journal, queues: all, files, needless, damages })
    }
}

/// The durable queues that exist, and the number of the last start.
fn read_definitions(data_dir: &DataDir) -> Result<(Vec<Arc<QueueDefinition>>, u64), StartError> {
    let file = data_dir.definitions_file();
    if !file.exists() {
        // A start was cut short before it was made; there is nothing that builds upon it.
        return Ok((vec![], 0));
    }
    let database = Database::open_copy(&file)?;
    let epoch = database.epoch()?;
    let Some(kept) = database.load()? else { return Ok((vec![], epoch)) };
    let registry =
        Registry::restore(kept, 1).map_err(|error| database.error(format_args!("{}: {}", error.what, error.reason)))?;
    let (_, outcome) = ControlPlane::new(registry, 1);
    Ok((outcome.created.into_iter().filter(|definition| definition.durable).collect(), epoch))
}

struct Found {
    history: History,
    journal: Vec<SegmentSurvey>,
    files: BTreeMap<ColdFileId, FileRemains>,
    needless: Vec<ColdFileId>,
    queues: AHashMap<QueueId, Queue>,
    damages: Vec<Damage>,
}

fn read_store(directory: &Path, definitions: &[Arc<QueueDefinition>], depth: Depth) -> Result<Found, StoreError> {
    let segments = files::journal_segments(directory)?;
    let mut read_segment = |name: &SegmentName| files::read_segment(directory, name);
    let journal = survey_journals(&segments, JOURNAL_SEGMENT_OCTETS, &mut read_segment)?;
    let replay = ReplayOptions { segment_octets: JOURNAL_SEGMENT_OCTETS, on_damage: OnDamage::Salvage };
    let history = History::read(segments, replay, &mut read_segment)?;
    let mut damages = history.damages().to_vec();
    let (mut found, mut needless) = (BTreeMap::new(), vec![]);
    for (id, octets) in list_files(directory)? {
        let exists = definitions.iter().any(|definition| definition.id.0 == id.queue);
        let said = history.queue(id.queue);
        if !exists || said.is_some_and(|said| said.cold_gone.contains(&id.file)) {
            needless.push(id);
            continue;
        }
        let known_octets = said.and_then(|said| said.cold_files.get(&id.file)).copied().unwrap_or(0);
        // Where a part of a journal is lost, it may have said that all of the file must be there.
        let known_octets = if history.damages().is_empty() { known_octets } else { known_octets.max(octets) };
        let survey = look_at_file(directory, &id, octets, known_octets, depth)?;
        damages.extend(survey.damages(&id, octets));
        found.insert(id, FileRemains { octets, known_octets, survey });
    }
    damages.extend(missing_files(&history, definitions, &found));
    let recovered = put_together(directory, &history, definitions, &found, true)?;
    for damage in recovered.damages {
        let is_known = damages.iter().any(|known| known.file == damage.file);
        if !is_known {
            damages.push(damage);
        }
    }
    Ok(Found { history, journal, files: found, needless, queues: recovered.queues, damages })
}

/// What is in a queue's file. What a start would find damaged is looked at closely in any case.
fn look_at_file(
    directory: &Path,
    id: &ColdFileId,
    octets: u64,
    known_octets: u64,
    depth: Depth,
) -> Result<FileSurvey, StoreError> {
    let mut read = |offset, octets| files::read_cold(directory, id, offset, octets);
    let failed = |error| StoreError::Io {
        file: directory.join(cold_path(id)).display().to_string(),
        operation: "read",
        offset: None,
        error,
    };
    if depth == Depth::AsAStart {
        let contents = read_notes(&mut read, octets, id.queue, known_octets).map_err(failed)?;
        if contents.sound_octets >= known_octets {
            return Ok(FileSurvey { extents: contents.notes, ..FileSurvey::default() });
        }
    }
    survey_file(&mut read, octets, id.queue, known_octets).map_err(failed)
}

/// Files that must be there and are not.
fn missing_files(
    history: &History,
    definitions: &[Arc<QueueDefinition>],
    found: &BTreeMap<ColdFileId, FileRemains>,
) -> Vec<Damage> {
    let queues = definitions.iter().filter_map(|definition| Some((definition.id.0, history.queue(definition.id.0)?)));
    let expected = queues.flat_map(|(queue, said)| {
        said.cold_files.keys().map(move |file| ColdFileId { queue, file: *file, is_transient: false })
    });
    let missing = expected.filter(|file| !found.contains_key(file));
    missing.map(|file| Damage { file: cold_path(&file), offset: 0, what: DamageKind::Missing }).collect()
}

/// The queues as a start puts them together from these files. `passes_damage` says whether what is damaged is left out.
pub(super) fn put_together(
    directory: &Path,
    history: &History,
    definitions: &[Arc<QueueDefinition>],
    found: &BTreeMap<ColdFileId, FileRemains>,
    passes_damage: bool,
) -> Result<Recovered, StoreError> {
    let options: AHashMap<QueueId, QueueOptions> =
        definitions.iter().map(|definition| (definition.id, definition.options.clone())).collect();
    let found = found.iter().map(|(id, file)| FoundFile {
        queue: id.queue,
        number: id.file,
        contents: file.survey.contents(file.sound_octets()),
    });
    let unix_millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let mut read_extent = |file: &ColdFileId, note: &ExtentNote| {
        let octets = usize::try_from(note.octets).map_err(io::Error::other);
        octets.and_then(|octets| files::read_cold(directory, file, note.offset, octets)).map_err(|error| {
            let file = directory.join(cold_path(file)).display().to_string();
            StoreError::Io { file, operation: "read", offset: Some(note.offset), error }
        })
    };
    recover(
        history,
        &options,
        found.collect(),
        u64::try_from(unix_millis).unwrap_or(0),
        passes_damage,
        &mut |name| files::read_segment(directory, name),
        &mut read_extent,
    )
}
