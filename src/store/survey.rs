//! What a broker has left, looked at for whoever asks what is there and what of it is damaged. A start asks less.
//!
//! It knows no disk: what is to be read is given by closures. Damage is no error here but what is looked for.

use super::aligned::PAGE_OCTETS;
use super::batch;
use super::damage::{Damage, DamageKind, StoreError};
use super::disk::ColdFileId;
use super::journal::FIRST_SEQUENCE;
use super::journal_walk::{OnDamage, ReadSegment, ReplayOptions, walk};
use super::names::{SegmentName, cold_path};
use super::queue_segment::{ExtentNote, SegmentContents, read_extent, read_trailer};
use super::record::Records;
use std::collections::BTreeMap;
use std::io;

/// What is in a journal segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSurvey {
    /// Which.
    pub name: SegmentName,
    /// The length of the file, in octets.
    pub file_octets: u64,
    /// Sound batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// What they take in the file, in octets.
    pub batch_octets: u64,
    /// Where a batch begins that was being written when the broker ended. Nobody was told of what is in it.
    pub torn_at: Option<u64>,
}

/// The last sound batch of one epoch and shard: its segment, where it ends, and its number.
type Last = (SegmentName, u64, u64);

/// What is in each of the journals' segments, which are sorted. Damage is passed over: a [`History`](super::History) tells it.
///
/// # Errors
/// A segment cannot be read.
pub fn survey_journals(
    segments: &[SegmentName],
    segment_octets: u64,
    read: ReadSegment<'_>,
) -> Result<Vec<SegmentSurvey>, StoreError> {
    let mut lengths: BTreeMap<SegmentName, u64> = BTreeMap::new();
    let mut found: BTreeMap<SegmentName, SegmentSurvey> = BTreeMap::new();
    let mut last: BTreeMap<(u64, u16), Last> = BTreeMap::new();
    let options = ReplayOptions { segment_octets, on_damage: OnDamage::Salvage };
    let mut read_noting = |name: &SegmentName| {
        let octets = read(name)?;
        lengths.insert(*name, octets.len() as u64);
        Ok(octets)
    };
    walk(segments, options, &mut read_noting, &mut |place, batch| {
        let survey = found.entry(*place.segment).or_insert_with(|| empty(*place.segment));
        survey.batches += 1;
        survey.batch_octets += batch.octets as u64;
        let end = place.offset + batch.octets as u64;
        last.insert((place.segment.epoch, place.segment.shard), (*place.segment, end, batch.head.sequence));
        for record in Records::new(batch.records) {
            let unreadable = Damage { file: place.segment.path(), offset: place.offset, what: DamageKind::Record };
            record.map_err(|_| unreadable)?;
            survey.records += 1;
        }
        Ok(())
    })?;
    let mut surveys: Vec<SegmentSurvey> =
        segments.iter().map(|name| found.remove(name).unwrap_or_else(|| empty(*name))).collect();
    for survey in &mut surveys {
        survey.file_octets = lengths.get(&survey.name).copied().unwrap_or(0);
        survey.torn_at = torn_at(&survey.name, last.get(&(survey.name.epoch, survey.name.shard)), read)?;
    }
    Ok(surveys)
}

fn empty(name: SegmentName) -> SegmentSurvey {
    SegmentSurvey { name, file_octets: 0, batches: 0, records: 0, batch_octets: 0, torn_at: None }
}

/// Where in a segment the batch behind the last sound one begins, if any of it got there: in the same segment, or where that
/// had no room, at the front of the next.
fn torn_at(name: &SegmentName, last: Option<&Last>, read: ReadSegment<'_>) -> Result<Option<u64>, StoreError> {
    let (offset, sequence) = match last {
        None => (0, FIRST_SEQUENCE),
        Some((segment, end, sequence)) if segment == name => (*end, sequence + 1),
        Some((segment, _, sequence)) if segment.segment + 1 == name.segment => (0, sequence + 1),
        Some(_) => return Ok(None),
    };
    let octets =
        read(name).map_err(|error| StoreError::Io { file: name.path(), operation: "read", offset: None, error })?;
    let rest = usize::try_from(offset).ok().and_then(|offset| octets.get(offset..)).unwrap_or_default();
    let head = batch::peek(rest).filter(|(begins, _)| *begins).map(|(_, head)| head);
    let is_torn = head.is_some_and(|head| {
        (head.epoch, head.shard, head.segment, head.sequence) == (name.epoch, name.shard, name.segment, sequence)
    });
    Ok(is_torn.then_some(offset))
}

/// A part of a queue segment file that is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsoundPart {
    /// Where it begins.
    pub offset: u64,
    /// Where what is sound goes on, or the file ends.
    pub end: u64,
    /// How many persistent messages were written there, dead ones counted, if the file's trailer says so.
    pub messages: Option<u64>,
}

/// What is in a queue segment file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSurvey {
    /// Each sound extent, by rising offset.
    pub extents: Vec<ExtentNote>,
    /// What is not sound of what must be.
    pub unsound: Vec<UnsoundPart>,
    /// Whether what must be there is longer than the file: how long it must be, in octets.
    pub truncated: Option<u64>,
}

impl FileSurvey {
    /// Whether nothing of it is damaged.
    pub fn is_sound(&self) -> bool {
        self.unsound.is_empty() && self.truncated.is_none()
    }

    /// As it is given to those who put queues together: all that is sound, wherever it lies.
    pub fn contents(&self, file_octets: u64) -> SegmentContents {
        SegmentContents { notes: self.extents.clone(), is_complete: false, sound_octets: file_octets }
    }

    /// What is wrong with it.
    pub fn damages(&self, file: &ColdFileId, file_octets: u64) -> Vec<Damage> {
        let damage = |offset, what| Damage { file: cold_path(file), offset, what };
        let truncated = self.truncated.map(|octets| damage(file_octets, DamageKind::Truncated { octets }));
        let unsound = self.unsound.iter().map(|part| damage(part.offset, DamageKind::Extent));
        unsound.chain(truncated).collect()
    }
}

/// Reads and proves a whole file of `file_octets` that belongs to `queue`. Extents before `known_octets` must be sound; what lies
/// behind was not synced, and its messages are in a journal: it counts as far as it is sound. `read` gives so many octets from
/// an offset.
///
/// # Errors
/// Those of `read`.
pub fn survey_file(
    read: &mut dyn FnMut(u64, usize) -> io::Result<Vec<u8>>,
    file_octets: u64,
    queue: u64,
    known_octets: u64,
) -> io::Result<FileSurvey> {
    // It may be there without the extents that it lists, but what it says of those that were there is right.
    let trailer = read_trailer(read, file_octets, queue)?;
    let end = trailer.iter().flatten().last().map_or(file_octets, |last| last.offset + u64::from(last.octets));
    let mut survey =
        FileSurvey { truncated: (known_octets > file_octets).then_some(known_octets), ..FileSurvey::default() };
    let mut offset = 0;
    while offset < end {
        if let Some(note) = read_extent(read, offset, end, queue)? {
            offset += u64::from(note.octets);
            survey.extents.push(note);
            continue;
        }
        if offset >= known_octets {
            break;
        }
        let next = match &trailer {
            Some(notes) => notes.iter().map(|note| note.offset).find(|next| *next > offset).unwrap_or(end),
            None => next_extent(read, offset, end, queue)?,
        };
        let messages = trailer.as_ref().map(|notes| {
            let here = notes.iter().filter(|note| (offset..next).contains(&note.offset));
            here.map(|note| u64::from(note.head.persistent_count)).sum()
        });
        survey.unsound.push(UnsoundPart { offset, end: next, messages });
        offset = next;
    }
    Ok(survey)
}

/// Where the next sound extent behind `offset` begins; `end` where there is none.
fn next_extent(
    read: &mut dyn FnMut(u64, usize) -> io::Result<Vec<u8>>,
    offset: u64,
    end: u64,
    queue: u64,
) -> io::Result<u64> {
    let mut next = offset + PAGE_OCTETS as u64;
    while next < end {
        if read_extent(read, next, end, queue)?.is_some() {
            return Ok(next);
        }
        next += PAGE_OCTETS as u64;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::aligned::AlignedBuffer;
    use crate::store::extent::ExtentHead;
    use crate::store::fixture::put_extent;
    use crate::store::fixture::{Bench, SEGMENT_OCTETS, entry, read_file, with_message};
    use crate::store::queue_segment::put_trailer;

    const QUEUE: u64 = 9;

    /// Three extents of two messages each, two pages long, and perhaps a trailer.
    fn file(is_complete: bool) -> Vec<u8> {
        let mut out = AlignedBuffer::new();
        let mut notes = vec![];
        for number in 0..3 {
            let head = ExtentHead {
                queue: QUEUE,
                count: 2,
                persistent_count: 2,
                first_position: 2 * number,
                last_position: 2 * number + 1,
                image_octets: 5_000,
                ..ExtentHead::default()
            };
            notes.push(ExtentNote { offset: out.len() as u64, octets: 8192, head });
            put_extent(&mut out, &head, &[7; 5_000], &[]);
        }
        if is_complete {
            put_trailer(&mut out, &notes);
        }
        out.as_slice().to_vec()
    }

    fn survey(file: &[u8], known_octets: u64) -> FileSurvey {
        let mut read = |offset: u64, octets: usize| {
            let offset = usize::try_from(offset).expect("short");
            file.get(offset..offset + octets).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        survey_file(&mut read, file.len() as u64, QUEUE, known_octets).expect("memory does not fail")
    }

    fn check(file: &[u8], known_octets: u64, extents: &[u64], unsound: &[(u64, u64, Option<u64>)]) {
        let survey = survey(file, known_octets);
        let found: Vec<u64> = survey.extents.iter().map(|note| note.offset).collect();
        let parts: Vec<_> = survey.unsound.iter().map(|part| (part.offset, part.end, part.messages)).collect();
        assert_eq!((found.as_slice(), parts.as_slice()), (extents, unsound));
        assert_eq!(survey.is_sound(), unsound.is_empty() && known_octets <= file.len() as u64);
    }

    /// Goal: what is sound in a file is found wherever it lies, and what is not is told with its place. Method: flip a bit in
    /// each part of files with a trailer and without, known to be durable or not.
    #[test]
    fn sound_extents_are_found_around_damage() {
        for is_complete in [false, true] {
            let whole = file(is_complete);
            let length = whole.len() as u64;
            check(&whole, length, &[0, 8192, 16_384], &[]);
            check(&whole, 0, &[0, 8192, 16_384], &[]);
            let messages = is_complete.then_some(2);
            // In its head, where its length is, and in its content.
            for at in [8192 + 25, 8192 + 6_000 - 1_500] {
                let mut damaged = whole.clone();
                damaged[at] ^= 4;
                check(&damaged, length, &[0, 16_384], &[(8192, 16_384, messages)]);
                check(&damaged, 8192, &[0], &[]);
            }
        }
        let mut damaged = file(true);
        damaged[3 * 8192 + 4090] ^= 1;
        check(&damaged, 7 * 4096, &[0, 8192, 16_384], &[(3 * 8192, 7 * 4096, None)]);
    }

    /// Goal: a file that is too short is told so, and keeps what is there. Method: cut one off between extents, and in one.
    #[test]
    fn truncated_files_keep_what_is_there() {
        let whole = file(false);
        check(&whole[..16_384], 24_576, &[0, 8192], &[]);
        assert_eq!(survey(&whole[..16_384], 24_576).truncated, Some(24_576));
        check(&whole[..12_288], 24_576, &[0], &[(8192, 12_288, None)]);
        check(&[], 24_576, &[], &[]);
    }

    /// Goal: each segment is told with what is in it, and a torn batch with its place. Method: two batches, the second torn.
    #[test]
    fn segments_are_surveyed() {
        let mut bench = Bench::new(3, 1);
        for position in 0..2 {
            with_message(position, 100, |message| bench.journal.put_message(&entry(QUEUE, position), message));
            bench.commit();
        }
        let name = bench.name(1);
        let names: Vec<SegmentName> = bench.files.keys().copied().collect();
        let look = |files: &BTreeMap<SegmentName, Vec<u8>>| {
            survey_journals(&names, SEGMENT_OCTETS, &mut |name| read_file(files, name)).expect("memory does not fail")
        };
        let sound = look(&bench.files);
        assert_eq!(sound.len(), 2);
        let first = sound[0];
        assert_eq!((first.name, first.batches, first.batch_octets, first.torn_at), (name, 2, 8192, None));
        assert_eq!((first.file_octets, sound[1].batches), (SEGMENT_OCTETS, 0));
        let mut torn = bench.files.clone();
        torn.get_mut(&name).expect("it is there")[4096 + 100] ^= 1;
        let torn = look(&torn);
        assert_eq!((torn[0].batches, torn[0].torn_at), (1, Some(4096)));
        assert_eq!(torn[1].torn_at, None);
    }
}
