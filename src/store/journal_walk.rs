//! Goes through journal segments batch by batch, and tells an end from damage.
//!
//! Within one epoch and shard the batches lie one behind the other, without gaps in their numbers, each at the next page or,
//! where that segment has no room, at the front of the next segment. Only one was being written at a time: so where one is
//! not sound, either nothing sound follows, and it was the last, which nobody was told of; or something does, and what is
//! missing was durable once. Whatever else lies in the files was left there by their earlier use.

use super::aligned::PAGE_OCTETS;
use super::batch::{self, Batch, BatchHead};
use super::damage::{Damage, DamageKind, StoreError};
use super::journal::{FIRST_SEGMENT, FIRST_SEQUENCE};
use super::names::SegmentName;
use std::io;

/// Gives the octets of a journal segment.
pub type ReadSegment<'r> = &'r mut dyn FnMut(&SegmentName) -> io::Result<Vec<u8>>;

/// What to do about damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// Stop and say so.
    Refuse,
    /// Note it down and go on with the next sound batch.
    Salvage,
}

/// How segments are gone through.
#[derive(Clone, Copy, Debug)]
pub struct ReplayOptions {
    /// The length of each segment.
    pub segment_octets: u64,
    /// What to do about damage.
    pub on_damage: OnDamage,
}

/// A sound batch and where it lies.
pub(super) struct Place<'a> {
    pub segment: &'a SegmentName,
    pub offset: u64,
    /// Whether batches are missing before it.
    pub is_behind_damage: bool,
}

/// Calls `sink` with every batch of `segments`, which are sorted. Returns the damage that was passed over.
///
/// # Errors
/// A segment cannot be read; or, unless damage is passed over, the first damage, be it found here or by `sink`.
pub(super) fn walk(
    segments: &[SegmentName],
    options: ReplayOptions,
    read: ReadSegment<'_>,
    sink: &mut dyn FnMut(&Place<'_>, &Batch<'_>) -> Result<(), Damage>,
) -> Result<Vec<Damage>, StoreError> {
    assert!(segments.is_sorted(), "segments are read in their order");
    let mut damages = Damages { on_damage: options.on_damage, found: Vec::new() };
    for stream in segments.chunk_by(|one, next| (one.epoch, one.shard) == (next.epoch, next.shard)) {
        let mut walk = Walk { expected: None, gap: None, is_behind_damage: false };
        let mut before: Option<&SegmentName> = None;
        for segment in stream {
            let missing = before.map(|before| before.segment + 1).filter(|missing| *missing != segment.segment);
            if let Some(missing) = missing {
                let file = SegmentName { segment: missing, ..*segment }.path();
                damages.note(Damage { file, offset: 0, what: DamageKind::Missing })?;
                walk = Walk { expected: None, gap: None, is_behind_damage: true };
            } else if before.is_none() && segment.segment == FIRST_SEGMENT {
                walk.expected = Some(FIRST_SEQUENCE);
            }
            before = Some(segment);
            let octets = read(segment).map_err(|error| StoreError::Io {
                file: segment.path(),
                operation: "read",
                offset: None,
                error,
            })?;
            check_length(segment, octets.len() as u64, options.segment_octets, &mut damages)?;
            walk.pass(segment, &octets, &mut damages, sink)?;
        }
    }
    Ok(damages.found)
}

fn check_length(segment: &SegmentName, found: u64, octets: u64, damages: &mut Damages) -> Result<(), StoreError> {
    let what = match found {
        found if found < octets => DamageKind::Truncated { octets },
        found if found > octets => DamageKind::TooLong { octets },
        _ => return Ok(()),
    };
    damages.note(Damage { file: segment.path(), offset: found, what })
}

struct Damages {
    on_damage: OnDamage,
    found: Vec<Damage>,
}

impl Damages {
    fn note(&mut self, damage: Damage) -> Result<(), StoreError> {
        match self.on_damage {
            OnDamage::Refuse => Err(damage.into()),
            OnDamage::Salvage => {
                self.found.push(damage);
                Ok(())
            }
        }
    }
}

/// Where the batch should have been that was not found.
struct Gap {
    file: String,
    offset: u64,
    /// Whether what is there looks as if it had been that batch.
    resembles: bool,
}

/// The way through one epoch's segments of one shard.
struct Walk {
    /// The number of the next batch; unknown before the first where older segments were retired.
    expected: Option<u64>,
    gap: Option<Gap>,
    /// Whether a batch is missing before the next.
    is_behind_damage: bool,
}

impl Walk {
    fn pass(
        &mut self,
        segment: &SegmentName,
        octets: &[u8],
        damages: &mut Damages,
        sink: &mut dyn FnMut(&Place<'_>, &Batch<'_>) -> Result<(), Damage>,
    ) -> Result<(), StoreError> {
        let mut offset = 0;
        // A batch that is the next one lies here.
        let mut is_next_place = true;
        while let Some(rest) = octets.get(offset..).filter(|rest| !rest.is_empty()) {
            let found = self.sound_batch(segment, rest, is_next_place);
            let Some(found) = found else {
                self.note_gap(segment, offset, rest);
                is_next_place = false;
                offset += PAGE_OCTETS;
                continue;
            };
            let sequence = found.head.sequence;
            if !is_next_place || self.expected.is_some_and(|expected| expected != sequence) {
                damages.note(self.take_damage(segment, offset, sequence))?;
            }
            self.gap = None;
            let is_behind_damage = std::mem::take(&mut self.is_behind_damage);
            self.expected = Some(sequence + 1);
            if let Err(damage) = sink(&Place { segment, offset: offset as u64, is_behind_damage }, &found) {
                damages.note(damage)?;
            }
            offset += found.octets;
            is_next_place = true;
        }
        Ok(())
    }

    /// The sound batch at the front of `octets`, if it is of this segment and does not come before what was read. The
    /// expected one counts only where it must be.
    fn sound_batch<'a>(&self, segment: &SegmentName, octets: &'a [u8], is_next_place: bool) -> Option<Batch<'a>> {
        let (_, head) = batch::peek(octets).filter(|(begins, head)| *begins && is_of(head, segment))?;
        let first = self.expected.unwrap_or(FIRST_SEQUENCE) + u64::from(!is_next_place && self.expected.is_some());
        // The largest number has no next one; no broker gets there.
        let is_possible = head.sequence >= first && head.sequence < u64::MAX;
        is_possible.then(|| batch::take(octets).ok()).flatten()
    }

    fn note_gap(&mut self, segment: &SegmentName, offset: usize, octets: &[u8]) {
        if self.gap.as_ref().is_some_and(|gap| gap.resembles || offset > 0) {
            return;
        }
        let resembles = batch::peek(octets).is_some_and(|(begins, head)| self.resembles(begins, &head, segment));
        if self.gap.is_none() || resembles {
            self.gap = Some(Gap { file: segment.path(), offset: offset as u64, resembles });
        }
    }

    /// Whether most of what is said there is what the expected batch would say.
    fn resembles(&self, begins: bool, head: &BatchHead, segment: &SegmentName) -> bool {
        let is_expected = self.expected.is_none_or(|expected| head.sequence == expected);
        let right = [
            begins,
            head.epoch == segment.epoch,
            head.shard == segment.shard,
            head.segment == segment.segment,
            is_expected,
        ];
        right.iter().filter(|right| **right).count() >= 4
    }

    /// The damage that shows because batch `sound` lies at an offset.
    fn take_damage(&mut self, segment: &SegmentName, offset: usize, sound: u64) -> Damage {
        self.is_behind_damage = true;
        let gap = self.gap.take();
        let gap = gap.unwrap_or(Gap { file: segment.path(), offset: offset as u64, resembles: false });
        let sequence = self.expected.unwrap_or(sound - 1);
        Damage { file: gap.file, offset: gap.offset, what: DamageKind::Batch { sequence, sound } }
    }
}

fn is_of(head: &BatchHead, segment: &SegmentName) -> bool {
    (head.epoch, head.shard, head.segment) == (segment.epoch, segment.shard, segment.segment)
}
