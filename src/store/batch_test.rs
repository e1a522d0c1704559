//! Tests of records and batches: what is written is what is read, and nothing else is.

use super::aligned::AlignedBuffer;
use super::batch::{self, BATCH_HEAD_OCTETS, Batch, BatchFault, BatchHead};
use super::extent::{ExtentFault, ExtentHead, extent_octets, take_extent, take_head};
use super::fixture::put_extent;
use super::queue_segment::{ExtentNote, SegmentContents, put_trailer, read_notes, trailer_octets};
use super::record::{self, Checkpoint, Entry, LastMessage, Record, RecordFault, Records};
use crate::message::{BodyView, MessageView};
use proptest::prelude::*;

/// A record that owns what it says.
#[derive(Clone, Debug, PartialEq)]
enum Owned {
    Message(Entry, [Vec<u8>; 4]),
    Same(Entry),
    /// A message that differs from the one before only by its body and its position; only while records are made up.
    Following(Vec<u8>),
    Settled(u64, u64, u64),
    Delivering(u64, u64),
    Checkpoint(Checkpoint, bool),
    ColdFile(u64, u32, u64),
    ColdGone(u64, u32),
    Mark,
}

/// As the journal does.
fn put_all(out: &mut AlignedBuffer, records: &[Owned]) {
    let mut last = None;
    records.iter().for_each(|record| put(out, record, &mut last));
}

fn put(out: &mut AlignedBuffer, record: &Owned, last: &mut Option<LastMessage>) {
    match record {
        Owned::Message(entry, [exchange, routing_key, properties, body]) => {
            let message = MessageView { exchange, routing_key, properties, body: BodyView::Slice(body) };
            match last {
                Some(last) => record::put_message_behind(out, last, entry, &message),
                None => *last = Some(record::put_message(out, entry, &message)),
            }
        }
        Owned::Following(_) => unreachable!("it was made a message"),
        Owned::Same(entry) => record::put_same(out, entry),
        Owned::Settled(queue, first, count) => record::put_settled(out, *queue, *first, *count),
        Owned::Delivering(queue, below) => record::put_delivering(out, *queue, *below),
        Owned::Checkpoint(checkpoint, is_continued) => {
            record::put_checkpoint(out, checkpoint, &checkpoint.ranges, *is_continued);
        }
        Owned::ColdFile(queue, file, octets) => record::put_cold_file(out, *queue, *file, *octets),
        Owned::ColdGone(queue, file) => record::put_cold_gone(out, *queue, *file),
        Owned::Mark => record::put_mark(out),
    }
}

fn check_read(read: Record<'_>, written: &Owned, last: &mut Option<[Vec<u8>; 4]>) {
    match (read, written) {
        (Record::Message { entry, message }, Owned::Message(..) | Owned::Same(_)) => {
            let (expected, parts) = match written {
                Owned::Message(expected, parts) => (expected, parts.clone()),
                Owned::Same(expected) => (expected, last.clone().expect("a message was before")),
                _ => unreachable!("matched above"),
            };
            assert_eq!(entry, *expected);
            let read = [message.exchange, message.routing_key, message.properties, message.body.octets()];
            assert_eq!(read.map(<[u8]>::to_vec), parts);
            *last = Some(parts);
        }
        (Record::Settled { queue, first, count }, _) => assert_eq!(*written, Owned::Settled(queue, first, count)),
        (Record::Delivering { queue, below }, _) => assert_eq!(*written, Owned::Delivering(queue, below)),
        (Record::Checkpoint { checkpoint, is_continued }, _) => {
            assert_eq!(*written, Owned::Checkpoint(checkpoint, is_continued));
        }
        (Record::ColdFile { queue, file, octets }, _) => assert_eq!(*written, Owned::ColdFile(queue, file, octets)),
        (Record::ColdGone { queue, file }, _) => assert_eq!(*written, Owned::ColdGone(queue, file)),
        (Record::Mark, _) => assert_eq!(*written, Owned::Mark),
        (Record::Oldest { .. }, _) => panic!("it was not written"),
        (read, _) => panic!("{read:?} was written as {written:?}"),
    }
}

fn any_entry() -> impl Strategy<Value = Entry> {
    (any::<u64>(), 0..u64::MAX, any::<u8>(), any::<Option<u64>>(), any::<bool>(), any::<bool>()).prop_map(
        |(queue, position, priority, expires_unix_millis, delivered, forwarded)| Entry {
            queue,
            position,
            priority,
            expires_unix_millis,
            delivered,
            forwarded,
        },
    )
}

fn any_checkpoint() -> impl Strategy<Value = Checkpoint> {
    let ranges = prop::collection::vec((0..1_u64 << 40, 1..1_u64 << 40), 0..20);
    (any::<[u64; 3]>(), prop::collection::vec(any::<(u8, u64)>(), 0..20), ranges).prop_map(
        |([queue, delivered_below, position_next], levels, gaps)| {
            let mut end = 0;
            let ranges = gaps.into_iter().map(|(gap, count)| {
                let first = end + gap;
                end = first + count;
                (first, count)
            });
            Checkpoint { queue, delivered_below, position_next, levels, ranges: ranges.collect() }
        },
    )
}

fn any_record() -> impl Strategy<Value = Owned> {
    let octets = |most| prop::collection::vec(any::<u8>(), 0..=most);
    prop_oneof![
        (any_entry(), octets(255), octets(255), octets(300), octets(9000)).prop_map(
            |(entry, exchange, key, properties, body)| Owned::Message(entry, [exchange, key, properties, body])
        ),
        any_entry().prop_map(Owned::Same),
        octets(200).prop_map(Owned::Following),
        any::<(u64, u32, u32)>().prop_map(|(queue, first, count)| Owned::Settled(
            queue,
            u64::from(first),
            u64::from(count) + 1
        )),
        any::<(u64, u64)>().prop_map(|(queue, below)| Owned::Delivering(queue, below)),
        (any_checkpoint(), any::<bool>()).prop_map(|(checkpoint, more)| Owned::Checkpoint(checkpoint, more)),
        any::<(u64, u32, u64)>().prop_map(|(queue, file, octets)| Owned::ColdFile(queue, file, octets)),
        any::<(u64, u32)>().prop_map(|(queue, file)| Owned::ColdGone(queue, file)),
        Just(Owned::Mark),
    ]
}

/// Records as they may be: what needs a message before it has one.
fn possible(records: Vec<Owned>) -> Vec<Owned> {
    let mut last: Option<(Entry, [Vec<u8>; 4])> = None;
    let possible = records.into_iter().filter_map(|record| match record {
        Owned::Message(entry, parts) => {
            last = Some((entry, parts.clone()));
            Some(Owned::Message(entry, parts))
        }
        Owned::Following(body) => {
            let (entry, parts) = last.as_mut().filter(|(entry, _)| entry.position < u64::MAX - 1)?;
            entry.position += 1;
            parts[3] = body;
            Some(Owned::Message(*entry, parts.clone()))
        }
        Owned::Same(_) if last.is_none() => None,
        other => Some(other),
    });
    possible.collect()
}

const HEAD: BatchHead = BatchHead { epoch: 3, shard: 2, segment: 9, sequence: 1 << 40 };

fn sealed(records: &[Owned]) -> AlignedBuffer {
    let mut out = AlignedBuffer::new();
    batch::begin(&mut out);
    put_all(&mut out, records);
    batch::seal(&mut out, &HEAD);
    out
}

proptest! {
    /// Goal: what is put into a batch is what is read from it. Method: any records, sealed, other octets behind them.
    #[test]
    fn records_are_read_as_written(records in prop::collection::vec(any_record(), 0..20)) {
        let records = possible(records);
        let mut out = sealed(&records);
        prop_assert_eq!(out.len() % 4096, 0);
        let octets = out.len();
        out.extend_from_slice(&[0xff; 100]);
        let Batch { head, records: read, octets: taken } = batch::take(out.as_slice()).expect("it is sound");
        prop_assert_eq!((head, taken), (HEAD, octets));
        let mut last = None;
        let mut written = records.iter();
        for record in Records::new(read) {
            check_read(record.expect("it was written"), written.next().expect("no more than written"), &mut last);
        }
        prop_assert_eq!(written.next(), None);
    }

    /// Goal: no octet of a batch changes unnoticed, but those of the padding. Method: flip any bit.
    #[test]
    fn every_flipped_bit_is_found(
        records in prop::collection::vec(any_record(), 1..4),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut out = sealed(&possible(records));
        let summed = BATCH_HEAD_OCTETS + batch::take(out.as_slice()).expect("it is sound").records.len();
        out.as_mut_slice()[at.index(summed)] ^= 1 << bit;
        prop_assert!(batch::take(out.as_slice()).is_err());
    }

    /// Goal: garbage does no harm: it is a fault or some record, never a panic, and reserves nothing.
    /// Method: random octets, which seldom get far, and records of which some octets were changed, which do.
    #[test]
    fn garbage_is_no_record(
        garbage in prop::collection::vec(any::<u8>(), 0..200),
        records in prop::collection::vec(any_record(), 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut kinds = garbage.clone();
        if let Some(kind) = kinds.first_mut() {
            *kind = 1 + *kind % 10;
        }
        let mut out = AlignedBuffer::new();
        put_all(&mut out, &possible(records));
        out.push(10);
        for (at, octet) in changes {
            let at = at.index(out.len());
            out.as_mut_slice()[at] = octet;
        }
        for octets in [&garbage[..], &kinds, out.as_slice()] {
            let read = Records::new(octets).count();
            prop_assert!(read <= octets.len());
            let _ = batch::take(octets);
            let _ = take_extent(octets);
        }
    }
}

/// Goal: a record is what it says or nothing. Method: each way of being wrong by a little.
#[test]
fn what_cannot_be_is_a_fault() {
    let whole = |octets: &[u8]| Records::new(octets).all(|record| record.is_ok());
    assert!(whole(&[3, 1, 2, 3]));
    for octets in [
        &[0][..],
        &[9],
        // Settled: cut off, nothing, past the end of all positions.
        &[3, 1, 2],
        &[3, 1, 2, 0],
        &[3, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1],
        // Same, with nothing before it.
        &[2, 0, 1, 1],
        // Next, with nothing before it; behind a message that expires, or has the last position; with a body that is not there.
        &[10, 0],
        &[1, 2, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 10, 0],
        &[1, 0, 1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 10, 0],
        &[1, 0, 1, 1, 0, 0, 0, 0, 10, 1],
        // A message with a flag that there is not; with a body that is not there.
        &[1, 0x10, 1, 1, 0, 0, 0, 0],
        &[1, 0, 1, 1, 0, 0, 0, 1],
        &[1, 0, 1, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        // A checkpoint with a flag that there is not, with levels or ranges that are not there, with an empty range.
        &[5, 2, 1, 1, 1, 0, 0],
        &[5, 0, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        &[5, 0, 1, 1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        &[5, 0, 1, 1, 1, 0, 1, 1, 0],
        // A file number that is too large.
        &[7, 1, 0xff, 0xff, 0xff, 0xff, 0x7f],
    ] {
        assert!(!whole(octets), "{octets:?}");
        assert_eq!(Records::new(octets).last().map(Result::err), Some(Some(RecordFault)), "{octets:?}");
    }
}

/// Makes a message another one.
type Change<'c> = &'c dyn Fn(&mut (Entry, [Vec<u8>; 4]));

/// Goal: a message that only differs from the one before by its body takes little room, any other stands for itself.
/// Method: the same message again with each thing changed that may differ; what it takes, and what is read.
#[test]
fn a_stream_of_messages_is_short() {
    let first = (
        Entry { queue: 3, position: 300, ..Entry::default() },
        [b"x".to_vec(), b"key".to_vec(), vec![16, 0, 2], vec![]],
    );
    let check = |is_short: bool, before: Option<Owned>, change: Change<'_>| {
        let mut next = first.clone();
        next.0.position += 1;
        next.1[3] = b"body".to_vec();
        change(&mut next);
        let first = Owned::Message(first.0, first.1.clone());
        let mut records: Vec<Owned> = [first].into_iter().chain(before).collect();
        let mut out = AlignedBuffer::new();
        put_all(&mut out, &records);
        let octets_before = out.len();
        records.push(Owned::Message(next.0, next.1));
        out.clear();
        put_all(&mut out, &records);
        assert_eq!(out.len() - octets_before == 2 + 4, is_short, "{records:?}");
        let mut last = None;
        for (read, written) in Records::new(out.as_slice()).zip(&records) {
            check_read(read.expect("it was written"), written, &mut last);
        }
    };
    check(true, None, &|_| {});
    check(true, Some(Owned::Same(Entry::default())), &|_| {});
    check(true, Some(Owned::Settled(3, 1, 1)), &|_| {});
    check(false, None, &|(entry, _)| entry.position += 1);
    check(false, None, &|(entry, _)| entry.position -= 1);
    check(false, None, &|(entry, _)| entry.queue += 1);
    check(false, None, &|(entry, _)| entry.priority = 1);
    check(false, None, &|(entry, _)| entry.delivered = true);
    check(false, None, &|(entry, _)| entry.forwarded = true);
    check(false, None, &|(entry, _)| entry.expires_unix_millis = Some(7));
    check(false, None, &|(_, parts)| parts[0] = b"y".to_vec());
    check(false, None, &|(_, parts)| parts[1] = b"kez".to_vec());
    check(false, None, &|(_, parts)| parts[2][2] = 1);
    // The same octets, otherwise divided.
    check(false, None, &|(_, parts)| {
        parts[0] = b"xk".to_vec();
        parts[1] = b"ey".to_vec();
    });
    let expiring = Entry { expires_unix_millis: Some(7), ..first.0 };
    let mut out = AlignedBuffer::new();
    put_all(&mut out, &[Owned::Message(expiring, first.1.clone())]);
    let octets = out.len();
    let next = Entry { position: 301, ..expiring };
    out.clear();
    put_all(&mut out, &[Owned::Message(expiring, first.1.clone()), Owned::Message(next, first.1.clone())]);
    assert!(out.len() - octets > 16, "each has its own time to expire");
}

/// Goal: what is behind a batch that is cut off is not taken for its end. Method: cut at each octet that counts.
#[test]
fn a_cut_batch_is_none() {
    let out = sealed(&[Owned::Message(Entry::default(), [vec![], vec![1], vec![2], vec![7; 100]])]);
    let octets = batch::take(out.as_slice()).expect("it is sound").records.len() + BATCH_HEAD_OCTETS;
    for length in 0..octets {
        let expected = if length < BATCH_HEAD_OCTETS { BatchFault::Absent } else { BatchFault::Unsound };
        assert_eq!(batch::take(&out.as_slice()[..length]).err(), Some(expected), "of {length} octets");
    }
    assert!(batch::take(&out.as_slice()[..octets]).is_ok());
    assert_eq!(batch::take(&[0; 4096]).err(), Some(BatchFault::Absent));
}

fn head(number: u64) -> ExtentHead {
    ExtentHead {
        queue: 5,
        priority: 3,
        count: 4,
        persistent_count: 2,
        persistent_octets: 1 << 33,
        first_position: number * 100,
        last_position: u64::MAX - number,
        unix_offset_millis: 1 << 41,
        image_octets: 0,
        bodies_octets: 0,
        block_octets: 77,
    }
}

/// Goal: an extent is read as it was written, and no other. Method: lengths around a page, each bit of the header flipped,
/// each octet of the rest, each cut.
#[test]
fn extents_are_read_as_written() {
    for image_octets in [0, 1, 4096 - 128 - 30, 4096 - 128 - 29, 9000] {
        let image: Vec<u8> = (0..=250).cycle().take(image_octets).collect();
        let mut out = AlignedBuffer::new();
        out.resize(4096);
        put_extent(&mut out, &head(1), &image, &[&[1; 10], &[], &[2; 20]]);
        let octets = &mut out.as_mut_slice()[4096..];
        assert_eq!(octets.len(), extent_octets(image_octets, 30));
        let extent = take_extent(octets).expect("it is sound");
        let image_count = u32::try_from(image_octets).expect("short");
        assert_eq!(take_head(octets), Some(extent.head));
        assert_eq!(extent.head, ExtentHead { image_octets: image_count, bodies_octets: 30, ..head(1) });
        assert_eq!((extent.image, extent.octets), (&image[..], octets.len()));
        assert_eq!(extent.bodies, [[1; 10].as_slice(), &[2; 20]].concat());
        let bits = if image_octets == 1 { 8 } else { 1 };
        for at in 0..128 + image_octets + 30 {
            for bit in 0..bits {
                octets[at] ^= 1 << bit;
                assert!(take_extent(octets).is_err(), "flipped at {at}");
                // A start believes headers without reading the rest.
                assert!(at >= 128 || (8..12).contains(&at) || take_head(octets).is_none(), "flipped at {at}");
                octets[at] ^= 1 << bit;
            }
        }
        let whole = octets.len();
        assert_eq!(take_extent(&octets[..whole - 1]).err(), Some(ExtentFault::CutOff(whole)));
        assert_eq!(take_extent(&octets[..127]).err(), Some(ExtentFault::Absent));
    }
}

/// A file with so many extents, and its notes.
fn file_of(extents: u64) -> (AlignedBuffer, Vec<ExtentNote>) {
    let (mut out, mut notes) = (AlignedBuffer::new(), Vec::new());
    for (number, image_octets) in (0..extents).zip([0, 5000, 10_000].into_iter().cycle()) {
        let start = out.len();
        put_extent(&mut out, &head(number), &vec![7; image_octets], &[b"body"]);
        let octets = out.len() - start;
        let extent = take_extent(&out.as_slice()[start..]).expect("it is sound");
        notes.push(ExtentNote {
            offset: start as u64,
            octets: u32::try_from(octets).expect("short"),
            head: extent.head,
        });
    }
    (out, notes)
}

fn contents(file: &[u8], queue: u64) -> SegmentContents {
    contents_of(file, queue, 0)
}

fn contents_of(file: &[u8], queue: u64, trusted_octets: u64) -> SegmentContents {
    let mut read = |offset: u64, octets: usize| {
        let offset = usize::try_from(offset).expect("short");
        Ok(file.get(offset..offset + octets).expect("reads are within the file").to_vec())
    };
    read_notes(&mut read, file.len() as u64, queue, trusted_octets).expect("reading does not fail")
}

/// Goal: a complete file is known by its trailer. Method: trailers of one page and of several; another queue's file.
#[test]
fn a_trailer_lists_the_extents() {
    for extents in [1, 56, 57, 300] {
        let (mut out, notes) = file_of(extents);
        let unfinished = out.len();
        put_trailer(&mut out, &notes);
        assert_eq!(out.len() - unfinished, trailer_octets(notes.len()));
        let found = contents_of(out.as_slice(), 5, out.len() as u64);
        assert!(found.is_complete && found.sound_octets == out.len() as u64);
        assert_eq!(found.notes, notes);
        let found = contents_of(out.as_slice(), 5, out.len() as u64 - 1);
        assert!(!found.is_complete, "it is not known to be durable as a whole");
        assert_eq!(found.notes, notes);
        assert_eq!(contents(out.as_slice(), 6), SegmentContents::default(), "another queue's");
        // Without the trailer, or with one that is damaged, the extents themselves say it.
        for at in [unfinished, out.len() - 1, out.len() - 20, out.len() - 32] {
            let mut file = out.as_slice().to_vec();
            file[at] ^= 1;
            let found = contents(&file, 5);
            assert_eq!((found.notes.len(), found.is_complete), (notes.len(), false), "flipped at {at}");
            assert_eq!(found.sound_octets, unfinished as u64);
        }
        let found = contents(&out.as_slice()[..unfinished], 5);
        assert_eq!((found.notes, found.is_complete), (notes, false));
    }
}

/// Goal: an unfinished file counts as far as it is sound. Method: cut it at all lengths around each page; damage an extent.
#[test]
fn an_unfinished_file_is_read_as_far_as_it_is_sound() {
    let (out, notes) = file_of(5);
    let file = out.as_slice();
    for length in (0..=file.len()).step_by(4096).flat_map(|page| [page.saturating_sub(1), page, page + 1]) {
        let found = contents(&file[..length.min(file.len())], 5);
        let whole = notes.iter().filter(|note| note.offset + u64::from(note.octets) <= length as u64).count();
        assert_eq!((found.notes.len(), found.is_complete), (whole, false), "of {length} octets");
    }
    let mut file = file.to_vec();
    file[usize::try_from(notes[3].offset).expect("short") + 130] ^= 1;
    let found = contents(&file, 5);
    assert_eq!((found.notes, found.sound_octets), (notes[..3].to_vec(), notes[3].offset));
    assert_eq!(contents(&[], 5), SegmentContents::default());
}
