//! What the journals say, put together: of each queue, which messages live.
//!
//! Two passes. The first, [`History::read`], goes through all segments and keeps what was settled, of each queue; the second,
//! [`History::for_each_live`], goes through them again and hands out the messages that live. Nothing of a message is kept in
//! between, so that a start costs memory for what is scattered, not for what there is. One segment is in memory at a time.
//!
//! It knows no disk: segments are given by a closure.

use super::damage::{Damage, DamageKind, StoreError};
use super::journal::FIRST_SEGMENT;
pub use super::journal_walk::{OnDamage, ReadSegment, ReplayOptions};
use super::journal_walk::{Place, walk};
use super::names::SegmentName;
use super::range_set::RangeSet;
use super::record::{Checkpoint, Entry, Record, Records};
use crate::message::{Message, MessageView};
use ahash::AHashMap;
use std::collections::{BTreeMap, BTreeSet};

/// What the journals say of one queue.
#[derive(Clone, Debug, Default)]
pub struct QueueHistory {
    /// The first position that may be given out: behind all that anything was said about.
    pub position_next: u64,
    /// Messages below this position may have been delivered.
    pub delivered_below: u64,
    /// Queue segment files that must be there, and up to which offset they have sound extents.
    pub cold_files: BTreeMap<u32, u64>,
    /// Queue segment files that are to be removed where they are there.
    pub cold_gone: BTreeSet<u32>,
    /// Positions that were settled.
    settled: RangeSet,
    /// What checkpoints say is dead stays dead. One whose fronts lie behind those of another says all that the other says; a
    /// queue that was put together again begins with fronts that lie before those that it had.
    checkpoints: Vec<AppliedCheckpoint>,
    /// The parts, so far, of a checkpoint that has several.
    parts: Option<Checkpoint>,
    /// Positions whose own records say that they were delivered.
    delivered: RangeSet,
    /// Positions that stand in records behind those of later messages.
    copied: RangeSet,
    highest: Highest,
}

#[derive(Clone, Debug)]
struct AppliedCheckpoint {
    position_next: u64,
    fronts: Vec<(u8, u64)>,
    kept: RangeSet,
}

/// The highest position so far, by which a record that is out of order is recognised.
#[derive(Clone, Copy, Debug, Default)]
struct Highest(Option<u64>);

impl Highest {
    /// Whether a record is not a copy, but follows those before it. It counts as passed then.
    fn pass(&mut self, entry: &Entry) -> bool {
        let is_in_order = !entry.forwarded && self.0.is_none_or(|highest| entry.position > highest);
        if is_in_order {
            self.0 = Some(entry.position);
        }
        is_in_order
    }
}

impl QueueHistory {
    /// Whether the message at a position is gone. Holds for those in queue segment files too, whose records are not in the
    /// journal any more.
    pub fn is_settled(&self, priority: u8, position: u64) -> bool {
        self.settled.contains(position)
            || self
                .checkpoints
                .iter()
                .any(|checkpoint| position < checkpoint.front(priority) && !checkpoint.kept.contains(position))
    }

    /// Which positions from `first` to `last` are gone, as messages of one priority.
    pub fn settled_within(&self, priority: u8, first: u64, last: u64) -> RangeSet {
        let mut settled = RangeSet::new();
        for checkpoint in &self.checkpoints {
            let end = checkpoint.front(priority).min(last.saturating_add(1));
            let mut dead = RangeSet::new();
            dead.insert(first, end.saturating_sub(first));
            checkpoint.kept.iter_in(first..=last).for_each(|(first, count)| dead.remove(first, count));
            dead.iter().for_each(|(first, count)| settled.insert(first, count));
        }
        self.settled.iter_in(first..=last).for_each(|(first, count)| settled.insert(first, count));
        settled
    }

    /// Whether the message at a position may have been delivered, as far as anything was said of it.
    pub fn is_delivered(&self, position: u64) -> bool {
        position < self.delivered_below || self.delivered.contains(position)
    }

    fn apply(&mut self, record: &Record<'_>) {
        match record {
            Record::Message { entry, .. } => {
                self.position_next = self.position_next.max(entry.position + 1);
                if entry.delivered {
                    self.delivered.insert(entry.position, 1);
                }
                if !self.highest.pass(entry) {
                    self.copied.insert(entry.position, 1);
                }
            }
            Record::Settled { first, count, .. } => {
                self.position_next = self.position_next.max(first + count);
                self.settled.insert(*first, *count);
            }
            Record::Delivering { below, .. } => {
                self.position_next = self.position_next.max(*below);
                self.delivered_below = self.delivered_below.max(*below);
            }
            Record::Checkpoint { checkpoint, is_continued } => self.apply_checkpoint(checkpoint, *is_continued),
            Record::ColdFile { file, octets, .. } => {
                let known = self.cold_files.entry(*file).or_default();
                *known = (*known).max(*octets);
                self.cold_gone.remove(file);
            }
            Record::ColdGone { file, .. } => {
                self.cold_files.remove(file);
                self.cold_gone.insert(*file);
            }
            Record::Mark | Record::Oldest { .. } => {}
        }
    }

    fn apply_checkpoint(&mut self, part: &Checkpoint, is_continued: bool) {
        let mut whole = self.parts.take().unwrap_or_default();
        whole.ranges.extend_from_slice(&part.ranges);
        if is_continued {
            self.parts = Some(whole);
            return;
        }
        self.position_next = self.position_next.max(part.position_next);
        // It may be lower than before: a broker that ends in order says exactly what it has delivered.
        self.delivered_below = part.delivered_below;
        let mut kept = RangeSet::new();
        whole.ranges.iter().for_each(|(first, count)| kept.insert(*first, *count));
        let fronts = part.levels.clone();
        // What is gone never comes back. A queue that was put together at start knows nothing of messages that were gone before,
        // behind its fronts or of priorities that it has no message of, whose records may be there still.
        let applied = AppliedCheckpoint { position_next: part.position_next, fronts, kept };
        self.checkpoints.retain(|before| !applied.says_all_of(before));
        self.checkpoints.push(applied);
    }
}

impl AppliedCheckpoint {
    /// Whether nothing lives for this one that is dead for one before it.
    fn says_all_of(&self, before: &AppliedCheckpoint) -> bool {
        before.fronts.iter().all(|(level, _)| self.front(*level) >= before.front(*level))
    }

    /// From where on all messages of a priority live. Nothing that came after the checkpoint is before it.
    fn front(&self, priority: u8) -> u64 {
        let front = self.fronts.iter().find(|(level, _)| *level == priority).map_or(0, |(_, front)| *front);
        front.min(self.position_next)
    }
}

/// Messages by queue and position.
type LateMessages = BTreeMap<(u64, u64), (Entry, Message)>;

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCounters {
    /// Sound batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
}

/// What the journals say.
#[derive(Debug)]
pub struct History {
    segments: Vec<SegmentName>,
    options: ReplayOptions,
    queues: AHashMap<u64, QueueHistory>,
    damages: Vec<Damage>,
    counters: ReplayCounters,
}

impl History {
    /// The first pass. `segments` are all that are not retired, sorted.
    ///
    /// # Errors
    /// A segment cannot be read, or, unless damage is to be passed over, is damaged.
    pub fn read(
        segments: Vec<SegmentName>,
        options: ReplayOptions,
        read: ReadSegment<'_>,
    ) -> Result<History, StoreError> {
        let mut queues: AHashMap<u64, QueueHistory> = AHashMap::new();
        let mut counters = ReplayCounters::default();
        let mut oldest: AHashMap<(u64, u16), u64> = AHashMap::new();
        let mut damages = walk(&segments, options, read, &mut |place, batch| {
            counters.batches += 1;
            if place.is_behind_damage {
                queues.values_mut().for_each(|history| history.parts = None);
            }
            for record in Records::new(batch.records) {
                let record = record.map_err(|_| unreadable(place))?;
                counters.records += 1;
                if let Record::Oldest { segment } = record {
                    oldest.insert((place.segment.epoch, place.segment.shard), segment);
                }
                if let Some(queue) = queue_of(&record) {
                    queues.entry(queue).or_default().apply(&record);
                }
            }
            Ok(())
        })?;
        let missing = missing_fronts(&segments, &oldest);
        if let (Some(first), OnDamage::Refuse) = (missing.first(), options.on_damage) {
            return Err(first.clone().into());
        }
        // What says how far a journal's front was retired may be in the part of it that is damaged.
        let is_damaged = |front: &Damage, damages: &[Damage]| {
            let journal =
                |file: &str| SegmentName::parse(file.rsplit('/').next()?).map(|name| (name.epoch, name.shard));
            damages.iter().any(|damage| journal(&damage.file) == journal(&front.file))
        };
        damages.extend(missing.into_iter().filter(|front| !is_damaged(front, &damages)).collect::<Vec<_>>());
        Ok(History { segments, options, queues, damages, counters })
    }

    /// What they say of a queue, if anything.
    pub fn queue(&self, queue: u64) -> Option<&QueueHistory> {
        self.queues.get(&queue)
    }

    /// All queues that they say anything of, in no order. Some may not exist any more.
    pub fn queues(&self) -> impl Iterator<Item = (u64, &QueueHistory)> {
        self.queues.iter().map(|(queue, history)| (*queue, history))
    }

    /// Whether a message lives that stands in the journal.
    pub fn is_live(&self, queue: u64, priority: u8, position: u64) -> bool {
        !self.is_settled_cold(queue, priority, position)
    }

    /// Whether a message is gone that stands in a queue segment file.
    pub fn is_settled_cold(&self, queue: u64, priority: u8, position: u64) -> bool {
        self.queue(queue).is_some_and(|history| history.is_settled(priority, position))
    }

    /// The segments that were read.
    pub fn segments(&self) -> &[SegmentName] {
        &self.segments
    }

    /// The damage that was passed over.
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// What was read.
    pub fn counters(&self) -> ReplayCounters {
        self.counters
    }

    /// The second pass: gives each live message to `sink`, once, those of one queue in rising positions. Left out are those
    /// that `is_cold` (queue, priority, position) knows to be in a queue segment file. The entry says of a message whether it
    /// may have been delivered whichever record said so.
    ///
    /// Messages that are in the journal only as copies are kept in memory until their turn comes. Without any there is one
    /// pass over the segments, else two.
    ///
    /// # Errors
    /// A segment cannot be read, or is not what it was.
    pub fn for_each_live(
        &self,
        read: ReadSegment<'_>,
        is_cold: &mut dyn FnMut(u64, u8, u64) -> bool,
        sink: &mut dyn FnMut(&Entry, MessageView<'_>),
    ) -> Result<(), StoreError> {
        let mut late = self.collect_late(read, is_cold)?;
        let mut highest: AHashMap<u64, Highest> = AHashMap::new();
        self.for_each_message(read, &mut |history, entry, message| {
            if !highest.entry(entry.queue).or_default().pass(entry) {
                return;
            }
            while let Some((&place, _)) = late.range((entry.queue, 0)..(entry.queue, entry.position)).next() {
                let (entry, message) = late.remove(&place).expect("it was found there");
                sink(&entry, message.view());
            }
            if !history.is_settled(entry.priority, entry.position)
                && !is_cold(entry.queue, entry.priority, entry.position)
            {
                let delivered = history.is_delivered(entry.position);
                sink(&Entry { delivered, ..*entry }, message);
            }
        })?;
        for (entry, message) in late.values() {
            sink(entry, message.view());
        }
        Ok(())
    }

    /// The live messages, by queue and position, whose records are all copies.
    fn collect_late(
        &self,
        read: ReadSegment<'_>,
        is_cold: &mut dyn FnMut(u64, u8, u64) -> bool,
    ) -> Result<LateMessages, StoreError> {
        let mut late = BTreeMap::new();
        if self.queues.values().all(|history| history.copied.is_empty()) {
            return Ok(late);
        }
        let mut highest: AHashMap<u64, Highest> = AHashMap::new();
        // An original comes before its copies; but what an epoch has only as copies is original in the next one.
        let mut originals: AHashMap<u64, RangeSet> = AHashMap::new();
        self.for_each_message(read, &mut |history, entry, message| {
            let is_in_order = highest.entry(entry.queue).or_default().pass(entry);
            if !history.copied.contains(entry.position) {
                return;
            }
            if is_in_order {
                originals.entry(entry.queue).or_default().insert(entry.position, 1);
                late.remove(&(entry.queue, entry.position));
            } else if !originals.get(&entry.queue).is_some_and(|originals| originals.contains(entry.position))
                && !history.is_settled(entry.priority, entry.position)
                && !is_cold(entry.queue, entry.priority, entry.position)
            {
                let entry = Entry { delivered: history.is_delivered(entry.position), ..*entry };
                late.entry((entry.queue, entry.position)).or_insert_with(|| (entry, message.to_message()));
            }
        })?;
        Ok(late)
    }

    fn for_each_message(
        &self,
        read: ReadSegment<'_>,
        sink: &mut dyn FnMut(&QueueHistory, &Entry, MessageView<'_>),
    ) -> Result<(), StoreError> {
        walk(&self.segments, self.options, read, &mut |place, batch| {
            for record in Records::new(batch.records) {
                if let Record::Message { entry, message } = record.map_err(|_| unreadable(place))?
                    && let Some(history) = self.queue(entry.queue)
                {
                    sink(history, &entry, message);
                }
            }
            Ok(())
        })
        .map(drop)
    }
}

/// Segments that are missing before all others of their journals, where `oldest` does not say that they may be.
fn missing_fronts(segments: &[SegmentName], oldest: &AHashMap<(u64, u16), u64>) -> Vec<Damage> {
    let journals = segments.chunk_by(|one, next| (one.epoch, one.shard) == (next.epoch, next.shard));
    let missing = journals.filter_map(|journal| {
        let first = journal.first().expect("a chunk is not empty");
        let needed = oldest.get(&(first.epoch, first.shard)).copied().unwrap_or(FIRST_SEGMENT);
        (first.segment > needed).then(|| SegmentName { segment: first.segment - 1, ..*first })
    });
    missing.map(|name| Damage { file: name.path(), offset: 0, what: DamageKind::Missing }).collect()
}

fn unreadable(place: &Place<'_>) -> Damage {
    Damage { file: place.segment.path(), offset: place.offset, what: DamageKind::Record }
}

fn queue_of(record: &Record<'_>) -> Option<u64> {
    match record {
        Record::Message { entry, .. } => Some(entry.queue),
        Record::Settled { queue, .. }
        | Record::Delivering { queue, .. }
        | Record::ColdFile { queue, .. }
        | Record::ColdGone { queue, .. } => Some(*queue),
        Record::Checkpoint { checkpoint, .. } => Some(checkpoint.queue),
        Record::Mark | Record::Oldest { .. } => None,
    }
}
