//! A disk for tests: keeps journal segments in memory, and whatever is asked of it until a test lets it be done.

use super::aligned::AlignedBuffer;
use super::disk::DiskRequest;
use super::extent::{ExtentHead, begin_extent, finish_extent};
use super::journal::{Journal, JournalOptions};
use super::names::SegmentName;
use super::record::Entry;
use super::replay::{History, OnDamage, ReplayOptions};
use crate::message::{BodyView, MessageView};
use crate::store::damage::StoreError;
use std::collections::BTreeMap;
use std::io;

/// The length of segments in tests.
pub const SEGMENT_OCTETS: u64 = 64 << 10;

/// A message whose octets all follow from `number`.
pub fn with_message<R>(number: u64, body_octets: usize, act: impl FnOnce(&MessageView<'_>) -> R) -> R {
    let key = format!("key.{number}");
    let body: Vec<u8> = number.to_le_bytes().into_iter().cycle().take(body_octets).collect();
    act(&MessageView {
        exchange: b"amq.topic",
        routing_key: key.as_bytes(),
        properties: &[0x10, 0, 2],
        body: BodyView::Slice(&body),
    })
}

/// An entry without anything special.
pub fn entry(queue: u64, position: u64) -> Entry {
    Entry { queue, position, ..Entry::default() }
}

/// Appends an extent with that image and these bodies.
pub fn put_extent(out: &mut AlignedBuffer, head: &ExtentHead, image: &[u8], bodies: &[&[u8]]) {
    let start = begin_extent(out);
    out.extend_from_slice(image);
    bodies.iter().for_each(|body| out.extend_from_slice(body));
    let bodies_octets = u32::try_from(bodies.concat().len()).expect("short");
    finish_extent(out, start, &mut ExtentHead { bodies_octets, ..*head });
}

/// A journal with a disk in memory.
pub struct Bench {
    pub journal: Journal,
    pub files: BTreeMap<SegmentName, Vec<u8>>,
    pub now_micros: u64,
    epoch: u64,
    shard: u16,
    /// Where the batches were written: segment, offset, octets.
    pub batches: Vec<(u64, u64, usize)>,
}

impl Bench {
    pub fn new(epoch: u64, shard: u16) -> Bench {
        let options = JournalOptions { epoch, shard, segment_octets: SEGMENT_OCTETS, segments_target: 3 };
        let (files, batches) = (BTreeMap::new(), Vec::new());
        let mut bench = Bench { journal: Journal::new(options), files, now_micros: 1_000_000, epoch, shard, batches };
        bench.run();
        bench
    }

    pub fn name(&self, segment: u64) -> SegmentName {
        SegmentName { epoch: self.epoch, shard: self.shard, segment }
    }

    /// Does what the journal asks for until it asks for nothing.
    pub fn run(&mut self) {
        while let Some(request) = self.journal.poll_request(self.now_micros) {
            self.execute(request);
        }
    }

    /// Has all written that is pending.
    pub fn commit(&mut self) {
        self.journal.demand();
        self.run();
        assert_eq!(self.journal.durable(), self.journal.appended(), "something was not written");
    }

    pub fn execute(&mut self, request: DiskRequest) {
        match request {
            DiskRequest::Commit { sequence, segment, offset, octets } => {
                self.write(segment, offset, &octets);
                self.journal.handle_committed(sequence, octets, self.now_micros);
            }
            DiskRequest::PrepareSegment { segment } => self.prepare(segment),
            DiskRequest::RetireSegment { segment } => {
                self.files.remove(&self.name(segment)).expect("it was prepared");
            }
            other => panic!("a journal does not ask for {other:?}"),
        }
    }

    pub fn write(&mut self, segment: u64, offset: u64, octets: &AlignedBuffer) {
        let name = self.name(segment);
        let file = self.files.get_mut(&name).expect("the segment was prepared");
        let offset_octets = usize::try_from(offset).expect("short");
        let place = file.get_mut(offset_octets..offset_octets + octets.len()).expect("it is within the segment");
        assert!(octets.len().is_multiple_of(4096) && offset.is_multiple_of(4096), "direct writes are whole pages");
        place.copy_from_slice(octets.as_slice());
        self.batches.push((segment, offset, octets.len()));
    }

    pub fn prepare(&mut self, segment: u64) {
        let mut file = vec![0; usize::try_from(SEGMENT_OCTETS).expect("short")];
        // What a file was used for before: a sound batch of another segment, again and again.
        let mut old = AlignedBuffer::new();
        super::batch::begin(&mut old);
        let head = super::batch::BatchHead { epoch: self.epoch, shard: self.shard, segment: segment + 77, sequence: 3 };
        super::batch::seal(&mut old, &head);
        file.chunks_exact_mut(old.len()).for_each(|page| page.copy_from_slice(old.as_slice()));
        assert!(self.files.insert(self.name(segment), file).is_none(), "prepared twice");
        self.journal.handle_segment_prepared(segment);
    }
}

pub fn options(on_damage: OnDamage) -> ReplayOptions {
    ReplayOptions { segment_octets: SEGMENT_OCTETS, on_damage }
}

/// Reads what is in files.
pub fn read(files: &BTreeMap<SegmentName, Vec<u8>>, on_damage: OnDamage) -> Result<History, StoreError> {
    History::read(files.keys().copied().collect(), options(on_damage), &mut |name| read_file(files, name))
}

pub fn read_file(files: &BTreeMap<SegmentName, Vec<u8>>, name: &SegmentName) -> io::Result<Vec<u8>> {
    files.get(name).cloned().ok_or(io::ErrorKind::NotFound.into())
}

/// The live messages in the order in which they are given out: entries and routing keys.
pub fn live(files: &BTreeMap<SegmentName, Vec<u8>>, history: &History) -> Vec<(Entry, String)> {
    let mut found = Vec::new();
    let live =
        history.for_each_live(&mut |name| read_file(files, name), &mut |_, _, _| false, &mut |entry, message| {
            found.push((*entry, String::from_utf8_lossy(message.routing_key).into_owned()));
        });
    live.expect("the segments were read before");
    found
}
