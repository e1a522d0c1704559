//! All queues, put together again from what a broker has left: its journals say what lives, its queues' files hold what had
//! left the memory.
//!
//! Knows no disk: what is to be read is asked for. Costs what the journals hold; of the files only what their trailers say is
//! looked at, and extents of which a part is dead.

use super::load::Bodies;
use super::packed::{Packed, PackedRecords};
use super::relocation::Forwarded;
use super::restore::LiveExtent;
use super::{Position, Queue};
use crate::definitions::{QueueDefinition, QueueId, QueueOptions};
use crate::store::disk::ColdFileId;
use crate::store::names::SegmentName;
use crate::store::queue_segment::read_notes;
use crate::store::replay::{OnDamage, ReplayCounters, ReplayOptions};
use crate::store::{
    Damage, DamageKind, ExtentNote, History, RangeSet, ReadSegment, SegmentContents, StoreError, cold_path, take_extent,
};
use ahash::AHashMap;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

/// Reads so many octets at an offset of a segment file of a queue.
pub type ReadCold<'r> = &'r mut dyn FnMut(&ColdFileId, u64, usize) -> io::Result<Vec<u8>>;

/// What a broker has left, and how it is read.
pub struct Left<'r> {
    /// Its journals' segments, sorted, but those of retired epochs.
    pub segments: Vec<SegmentName>,
    /// The length of each, in octets.
    pub segment_octets: u64,
    /// Its durable queues' segment files, with their lengths in octets.
    pub files: Vec<(ColdFileId, u64)>,
    /// Gives a segment of a journal.
    pub read_segment: ReadSegment<'r>,
    /// Gives a part of a queue's file.
    pub read_cold: ReadCold<'r>,
}

/// All queues of all shards.
pub struct RecoveredShards {
    /// Queues, by the shard that they have their home on.
    pub queues: Vec<AHashMap<QueueId, Queue>>,
    /// Files that are not needed.
    pub needless: Vec<ColdFileId>,
    /// What the journals held.
    pub counters: ReplayCounters,
}

/// Puts all queues together again for `shard_count` shards. `definitions` are those that exist, durable or not.
///
/// # Errors
/// Something cannot be read, or is damaged.
pub fn recover_shards(
    left: Left<'_>,
    definitions: &[Arc<QueueDefinition>],
    shard_count: usize,
    unix_offset_millis: u64,
) -> Result<RecoveredShards, StoreError> {
    let Left { segments, segment_octets, files, read_segment, read_cold } = left;
    let replay = ReplayOptions { segment_octets, on_damage: OnDamage::Refuse };
    let history = History::read(segments, replay, &mut *read_segment)?;
    let durable: AHashMap<QueueId, QueueOptions> = definitions
        .iter()
        .filter(|definition| definition.durable)
        .map(|definition| (definition.id, definition.options.clone()))
        .collect();
    let found = look_at_files(&files, &history, read_cold)?;
    let mut read_extent = |file: &ColdFileId, note: &ExtentNote| {
        let octets = usize::try_from(note.octets).map_err(io::Error::other);
        octets
            .and_then(|octets| read_cold(file, note.offset, octets))
            .map_err(|error| read_error(file, Some(note.offset), error))
    };
    let recovered = recover(&history, &durable, found, unix_offset_millis, false, read_segment, &mut read_extent)?;
    let mut queues: Vec<AHashMap<QueueId, Queue>> = std::iter::repeat_with(AHashMap::new).take(shard_count).collect();
    let homes: AHashMap<QueueId, usize> =
        definitions.iter().map(|definition| (definition.id, usize::from(definition.home.0))).collect();
    for (id, queue) in recovered.queues {
        queues[homes[&id]].insert(id, queue);
    }
    Ok(RecoveredShards { queues, needless: recovered.needless, counters: history.counters() })
}

/// What the trailers of files say that the journals say were synced as a whole, and the extents of the others.
///
/// # Errors
/// A file cannot be read.
pub fn look_at_files(
    files: &[(ColdFileId, u64)],
    history: &History,
    read_cold: ReadCold<'_>,
) -> Result<Vec<FoundFile>, StoreError> {
    let look = |(id, octets): &(ColdFileId, u64)| {
        let mut read = |offset, octets| read_cold(id, offset, octets);
        let trusted =
            history.queue(id.queue).and_then(|history| history.cold_files.get(&id.file)).copied().unwrap_or(0);
        let contents =
            read_notes(&mut read, *octets, id.queue, trusted).map_err(|error| read_error(id, None, error))?;
        Ok(FoundFile { queue: id.queue, number: id.file, contents })
    };
    files.iter().map(look).collect()
}

fn read_error(file: &ColdFileId, offset: Option<u64>, error: io::Error) -> StoreError {
    StoreError::Io { file: cold_path(file), operation: "read", offset, error }
}

/// A segment file of a queue, as it was found.
#[derive(Debug)]
pub struct FoundFile {
    /// Its queue.
    pub queue: u64,
    /// Its number.
    pub number: u32,
    /// What is in it.
    pub contents: SegmentContents,
}

/// Reads an extent of a file of a queue.
pub type ReadExtent<'r> = &'r mut dyn FnMut(&ColdFileId, &ExtentNote) -> Result<Vec<u8>, StoreError>;

/// What was put together.
#[derive(Default)]
pub struct Recovered {
    /// The queues that hold messages, or have files.
    pub queues: AHashMap<QueueId, Queue>,
    /// Files that are not needed.
    pub needless: Vec<ColdFileId>,
    /// Files that are damaged or missing, where damage is passed over.
    pub damages: Vec<Damage>,
}

/// A queue that is being put together.
struct Work {
    queue: Queue,
    /// Extents with something alive, by priority and position, that have yet to be put in.
    extents: BTreeMap<u8, VecDeque<LiveExtent>>,
    /// Which positions the extents span, by priority: what the journal has of these is in the files.
    spans: BTreeMap<u8, RangeSet>,
    /// Positions that are dead in extents that are alive in part.
    dead: RangeSet,
    position_next: Position,
}

/// Puts together the queues that exist: `queues` are the durable ones. `unix_offset_millis` is what to add to the clock of this
/// process for milliseconds since 1970. `passes_damage` says whether what is damaged is left out instead of refused.
///
/// # Errors
/// Something cannot be read, or is damaged.
pub fn recover(
    history: &History,
    queues: &AHashMap<QueueId, QueueOptions>,
    found: Vec<FoundFile>,
    unix_offset_millis: u64,
    passes_damage: bool,
    read_segment: ReadSegment<'_>,
    read_extent: ReadExtent<'_>,
) -> Result<Recovered, StoreError> {
    let mut recovered = Recovered::default();
    let mut files: AHashMap<u64, Vec<FoundFile>> = AHashMap::new();
    for file in found {
        let is_gone = history.queue(file.queue).is_some_and(|history| history.cold_gone.contains(&file.number));
        if is_gone || !queues.contains_key(&QueueId(file.queue)) {
            recovered.needless.push(file_id(file.queue, file.number));
        } else {
            files.entry(file.queue).or_default().push(file);
        }
    }
    let mut works: AHashMap<u64, Work> = AHashMap::new();
    for (id, options) in queues {
        let mut own = files.remove(&id.0).unwrap_or_default();
        if own.is_empty() && history.queue(id.0).is_none() {
            continue;
        }
        own.sort_unstable_by_key(|file| file.number);
        let damages = check_files(history, id.0, &own);
        if let (Some(damage), false) = (damages.first(), passes_damage) {
            return Err(damage.clone().into());
        }
        recovered.damages.extend(damages);
        let mut extents = Extents {
            history,
            queue: id.0,
            has_priorities: options.priority_max.is_some(),
            passes_damage,
            read_extent: &mut *read_extent,
        };
        let work = extents.begin(options.clone(), &own, &mut recovered.damages)?;
        works.insert(id.0, work);
    }
    let spans: AHashMap<u64, BTreeMap<u8, RangeSet>> =
        works.iter_mut().map(|(queue, work)| (*queue, std::mem::take(&mut work.spans))).collect();
    let mut is_cold = |queue: u64, priority: u8, position: u64| {
        spans.get(&queue).is_none_or(|spans| spans.get(&priority).is_some_and(|span| span.contains(position)))
    };
    history.for_each_live(read_segment, &mut is_cold, &mut |entry, message| {
        let Some(work) = works.get_mut(&entry.queue) else { return };
        work.put_extents_before(entry.priority, entry.position);
        let expires_at = entry.expires_unix_millis.map(|at| at.saturating_sub(unix_offset_millis));
        work.queue.restore_message(&Forwarded {
            position: entry.position,
            priority: entry.priority,
            expires_at,
            redelivered: entry.delivered,
            message,
        });
    })?;
    recovered.queues = works.into_iter().map(|(queue, work)| (QueueId(queue), work.finish())).collect();
    Ok(recovered)
}

fn file_id(queue: u64, file: u32) -> ColdFileId {
    ColdFileId { queue, file, is_transient: false }
}

/// What is missing of the files that must be there.
fn check_files(history: &History, queue: u64, found: &[FoundFile]) -> Vec<Damage> {
    let Some(history) = history.queue(queue) else { return vec![] };
    let mut damages = vec![];
    for (number, octets) in &history.cold_files {
        let file = cold_path(&file_id(queue, *number));
        match found.iter().find(|file| file.number == *number) {
            None => damages.push(Damage { file, offset: 0, what: DamageKind::Missing }),
            Some(found) if found.contents.sound_octets < *octets => {
                damages.push(Damage { file, offset: found.contents.sound_octets, what: DamageKind::Extent });
            }
            Some(_) => {}
        }
    }
    damages
}

/// Looks through the extents of one queue.
struct Extents<'a, 'r> {
    history: &'a History,
    queue: u64,
    has_priorities: bool,
    passes_damage: bool,
    read_extent: ReadExtent<'r>,
}

impl Extents<'_, '_> {
    fn begin(
        &mut self,
        options: QueueOptions,
        files: &[FoundFile],
        damages: &mut Vec<Damage>,
    ) -> Result<Work, StoreError> {
        let history = self.history.queue(self.queue);
        let delivered_below = history.map_or(0, |history| history.delivered_below);
        let mut work = Work {
            queue: Queue::restored(options, delivered_below),
            extents: BTreeMap::new(),
            spans: BTreeMap::new(),
            dead: RangeSet::new(),
            position_next: history.map_or(0, |history| history.position_next),
        };
        for file in files {
            work.queue.restore_file(file.number, file.contents.sound_octets);
        }
        // Where the disk was full in the midst of writing an extent, it was written again later: that one counts.
        for file in files.iter().rev() {
            for note in file.contents.notes.iter().rev() {
                work.position_next = work.position_next.max(note.head.last_position.saturating_add(1));
                if let Some(extent) = self.look_at(file.number, note, &mut work, damages)? {
                    work.extents.entry(note.head.priority).or_default().push_back(extent);
                }
            }
        }
        for extents in work.extents.values_mut() {
            extents.make_contiguous().sort_unstable_by_key(|extent| extent.note.head.first_position);
        }
        Ok(work)
    }

    /// What of an extent is alive, if anything.
    fn look_at(
        &mut self,
        file: u32,
        note: &ExtentNote,
        work: &mut Work,
        damages: &mut Vec<Damage>,
    ) -> Result<Option<LiveExtent>, StoreError> {
        let head = &note.head;
        if head.persistent_count == 0 || head.first_position > head.last_position {
            return Ok(None);
        }
        let (first, last) = (head.first_position, head.last_position);
        let span = work.spans.entry(head.priority).or_default();
        if span.count_in(first..=last) > 0 {
            // It was written a second time.
            return Ok(None);
        }
        span.insert(first, last - first + 1);
        let settled = self
            .history
            .queue(self.queue)
            .map_or_else(RangeSet::new, |history| history.settled_within(head.priority, first, last));
        if settled.is_empty() {
            let (count, octets) = (head.persistent_count, head.persistent_octets);
            return Ok(Some(LiveExtent { file, note: *note, count, octets }));
        }
        // What the journal says of them ends with the epoch, the file does not. Among positions of one priority there are those of
        // others.
        if !self.has_priorities {
            settled.iter().for_each(|(first, count)| work.dead.insert(first, count));
            if settled.count() == last - first + 1 {
                return Ok(None);
            }
        }
        let id = file_id(self.queue, file);
        let octets = (self.read_extent)(&id, note)?;
        let Some((count, octets)) = Self::count_live(&octets, &settled, &mut work.dead) else {
            let damage = Damage { file: cold_path(&id), offset: note.offset, what: DamageKind::Extent };
            if !self.passes_damage {
                return Err(damage.into());
            }
            damages.push(damage);
            return Ok(None);
        };
        Ok((count > 0).then_some(LiveExtent { file, note: *note, count, octets }))
    }

    /// How many messages of an extent are alive, and the octets of their bodies; those that are not are added to `dead`. `None`
    /// where it is damaged.
    fn count_live(octets: &[u8], settled: &RangeSet, dead: &mut RangeSet) -> Option<(u32, u64)> {
        let extent = take_extent(octets).ok()?;
        let mut bodies = Bodies::new(extent.bodies);
        let (mut count, mut octets) = (0, 0);
        for record in PackedRecords::new(extent.image, extent.head.priority) {
            let Packed { labels, message, body_is_beside } = record.ok()?;
            let body = if body_is_beside { bodies.next()? } else { message.body.octets() };
            let Some(position) = labels.position else { continue };
            if settled.contains(position) {
                dead.insert(position, 1);
            } else if labels.persistent {
                count += 1;
                octets += body.len() as u64;
            }
        }
        Some((count, octets))
    }
}

impl Work {
    fn put_extents_before(&mut self, priority: u8, position: Position) {
        let Some(extents) = self.extents.get_mut(&priority) else { return };
        while extents.front().is_some_and(|extent| extent.note.head.first_position < position) {
            self.queue.restore_extent(&extents.pop_front().expect("there is one"));
        }
    }

    fn finish(mut self) -> Queue {
        for extent in std::mem::take(&mut self.extents).into_values().flatten() {
            self.queue.restore_extent(&extent);
        }
        self.queue.finish_restore(self.dead, self.position_next);
        self.queue
    }
}
