//! A queue with a log, a journal and a disk, against what must survive: tests.
//!
//! The journal is a list of what the queue has told it, by segment; the disk a map of files. After each step every persistent
//! message that is alive must lie in one of the two, and at any step the process may end and the queue be put together again.

use super::{
    Attributes, Enqueued, Forwarded, LiveExtent, Load, LogEntry, PageOut, PageOutWish, Position, Queue, Relocation,
};
use crate::definitions::QueueOptions;
use crate::limits::{QUEUE_SEGMENT_OCTETS, SHARED_BODY_OCTETS_MIN};
use crate::message::{BodyView, MessageView};
use crate::queue::packed::{Packed, PackedRecords};
use crate::store::extent::Extent;
use crate::store::{Checkpoint, ExtentNote, RangeSet, take_extent};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const QUEUE: u64 = 7;
const OFFSET: u64 = 1_700_000_000_000;

/// What the journal keeps.
enum Told {
    Message { position: Position, priority: u8, number: u64, octets: usize, delivered: bool },
    Settled(Position, u64),
    Checkpoint(Checkpoint),
    Delivering(Position),
}

/// A message that should be there.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Expected {
    number: u64,
    octets: usize,
    persistent: bool,
    priority: u8,
    delivered: bool,
}

/// What the journal holds of messages that are alive: priority, number, octets, and whether it was delivered.
type Journaled = BTreeMap<Position, (u8, u64, usize, bool)>;

struct World {
    options: QueueOptions,
    queue: Queue,
    segment: u32,
    journal: Vec<(u32, Told)>,
    files: BTreeMap<u32, Vec<u8>>,
    notes: BTreeMap<u32, Vec<ExtentNote>>,
    writes: VecDeque<PageOut>,
    reads: VecDeque<Load>,
    ready: BTreeMap<(u8, Position), Expected>,
    held: BTreeMap<Position, Expected>,
    numbers: u64,
}

fn body(number: u64, octets: usize) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(octets.max(8), number.to_le_bytes()[0]);
    body
}

fn packed_records<'a>(extent: &Extent<'a>) -> impl Iterator<Item = Packed<'a>> {
    PackedRecords::new(extent.image, extent.head.priority).map(|record| record.expect("it was packed"))
}

fn check(message: &MessageView<'_>, expected: &Expected) {
    assert_eq!(message.body.octets(), body(expected.number, expected.octets), "message {}", expected.number);
    assert_eq!(message.routing_key, format!("key.{}", expected.number).as_bytes());
}

impl World {
    fn new(options: QueueOptions) -> World {
        World {
            queue: Queue::logged(options.clone()),
            options,
            segment: 1,
            journal: vec![],
            files: BTreeMap::new(),
            notes: BTreeMap::new(),
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            ready: BTreeMap::new(),
            held: BTreeMap::new(),
            numbers: 0,
        }
    }

    /// Higher priorities come first.
    fn key(priority: u8, position: Position) -> (u8, Position) {
        (u8::MAX - priority, position)
    }

    fn enqueue(&mut self, octets: usize, persistent: bool, priority: u8, at_once: bool) {
        self.numbers += 1;
        let number = self.numbers;
        let (octets, key) = (body(number, octets), format!("key.{number}"));
        let message = MessageView {
            exchange: b"x",
            routing_key: key.as_bytes(),
            properties: &[0, 0],
            body: BodyView::Slice(&octets),
        };
        let attributes = Attributes { priority, expires_at: None, persistent };
        let priority = priority.min(self.options.priority_max.unwrap_or(0));
        let delivered = at_once && self.queue.is_empty();
        let expected = Expected { number, octets: octets.len(), persistent, priority, delivered };
        self.queue.set_segment(self.segment);
        let position = if delivered {
            let position = self.queue.hold_new(message, attributes);
            self.held.insert(position, expected);
            position
        } else {
            let Enqueued::Accepted(position) = self.queue.enqueue(message, attributes, &mut |_, _| {}) else {
                panic!("refused")
            };
            self.ready.insert(Self::key(priority, position), expected);
            position
        };
        if persistent {
            let told = Told::Message { position, priority, number, octets: octets.len(), delivered };
            self.journal.push((self.segment, told));
        }
    }

    /// The front, read back and told of if need be.
    fn bring_front(&mut self) -> Option<Position> {
        while self.queue.is_front_absent() {
            while let Some(load) = self.queue.poll_load(2, 100_000) {
                self.reads.push_back(load);
            }
            while !self.writes.is_empty() {
                self.finish_write();
            }
            assert!(!self.reads.is_empty(), "a front that is not there is on its way");
            self.finish_read();
        }
        if let Some(below) = self.queue.gate().ask_below {
            self.journal.push((self.segment, Told::Delivering(below)));
            self.queue.note_delivering(below);
        }
        assert!(self.queue.gate().is_open);
        let front = self.queue.front()?;
        let (key, expected) = self.ready.first_key_value().expect("the model has a front too");
        assert_eq!(front.position, key.1);
        check(&front.message, expected);
        assert!(front.redelivered || !expected.delivered, "a message that was delivered says so");
        Some(front.position)
    }

    fn deliver(&mut self, holds: bool) {
        let Some(position) = self.bring_front() else { return assert!(self.ready.is_empty()) };
        let (_, expected) = self.ready.pop_first().expect("the front was just compared");
        if holds {
            self.queue.hold_front();
            self.held.insert(position, Expected { delivered: true, ..expected });
        } else {
            self.queue.remove_front();
        }
    }

    fn pick(&self, pick: usize) -> Option<Position> {
        self.held.keys().nth(pick % self.held.len().max(1)).copied()
    }

    fn settle(&mut self, pick: usize, requeue: bool) {
        let Some(position) = self.pick(pick) else { return };
        let expected = self.held.remove(&position).expect("it was picked");
        if requeue {
            assert!(self.queue.requeue(position, true));
            self.ready.insert(Self::key(expected.priority, position), Expected { delivered: true, ..expected });
        } else {
            assert!(self.queue.acknowledge(position));
        }
    }

    fn page_out(&mut self, keep_front: usize, with_tail: bool) {
        let wish = PageOutWish {
            queue: QUEUE,
            unix_offset_millis: OFFSET,
            keep_front,
            with_tail,
            octets_max: 150_000,
            file_octets: QUEUE_SEGMENT_OCTETS,
        };
        self.writes.extend(self.queue.page_out(&wish, &mut None));
    }

    fn finish_write(&mut self) {
        let Some(page_out) = self.writes.pop_front() else { return };
        let file = self.files.entry(page_out.file).or_default();
        assert_eq!(file.len() as u64, page_out.offset, "files are written from their front to their end");
        let mut at = file.len();
        file.extend_from_slice(page_out.octets.as_slice());
        for _ in &page_out.extents {
            let extent = take_extent(&file[at..]).expect("it was just written");
            let octets = u32::try_from(extent.octets).expect("small");
            self.notes.entry(page_out.file).or_default().push(ExtentNote {
                offset: at as u64,
                octets,
                head: extent.head,
            });
            at += extent.octets;
        }
        self.queue.paged_out(&page_out.extents);
    }

    fn refuse_write(&mut self) {
        // As the disk does: what comes behind is refused too.
        for page_out in std::mem::take(&mut self.writes) {
            self.queue.not_paged_out(&page_out.extents);
        }
    }

    fn finish_read(&mut self) {
        let Some(load) = self.reads.pop_front() else { return };
        while !self.writes.is_empty() {
            self.finish_write();
        }
        let start = usize::try_from(load.offset).expect("small");
        let octets = &self.files[&load.file][start..start + load.octets];
        self.queue.loaded(&load.extents, octets, OFFSET).expect("what was written is read");
    }

    /// Tells the journal; files that are not needed go.
    fn tell(&mut self) {
        let Self { queue, journal, segment, .. } = self;
        queue.take_log_entries(QUEUE, &mut |entry| match entry {
            LogEntry::Settled(first, count) => journal.push((*segment, Told::Settled(first, count))),
            LogEntry::Checkpoint(checkpoint) => journal.push((*segment, Told::Checkpoint(checkpoint))),
        });
        for file in self.queue.take_gone_files() {
            // What is under way there comes first.
            while self.writes.iter().any(|write| write.file == file) {
                self.finish_write();
            }
            while self.reads.iter().any(|read| read.file == file) {
                self.finish_read();
            }
            self.files.remove(&file);
            self.notes.remove(&file);
        }
    }

    /// Leaves the segment of the journal that is written, and those before it.
    fn relocate(&mut self, file_octets_min: usize) {
        let left = self.segment;
        self.segment += 1;
        let relocation = Relocation {
            queue: QUEUE,
            unix_offset_millis: OFFSET,
            segment: left,
            segment_now: self.segment,
            file_octets_min,
            octets_max: 150_000,
            file_octets: QUEUE_SEGMENT_OCTETS,
        };
        let Self { queue, journal, segment, .. } = self;
        let page_outs =
            queue.relocate(&relocation, &mut |Forwarded { position, priority, redelivered, message, .. }| {
                let number =
                    u64::from_le_bytes(*message.body.octets().first_chunk().expect("bodies begin with their numbers"));
                let octets = message.body.len();
                journal.push((*segment, Told::Message { position, priority, number, octets, delivered: redelivered }));
            });
        self.writes.extend(page_outs);
        self.queue.ask_checkpoint();
        self.tell();
        while !self.writes.is_empty() {
            self.finish_write();
        }
        self.journal.retain(|(segment, _)| *segment > left);
    }

    /// What the journal says is alive: of all positions with their priority, and which messages it holds itself.
    fn replay(&self) -> (impl Fn(u8, Position) -> bool + use<>, Journaled, Position) {
        let mut fronts: BTreeMap<u8, Position> = BTreeMap::new();
        let (mut ranges, mut settled, mut messages, mut below) =
            (RangeSet::default(), RangeSet::default(), BTreeMap::new(), 0);
        for (_, told) in &self.journal {
            match told {
                Told::Message { position, priority, number, octets, delivered } => {
                    messages.insert(*position, (*priority, *number, *octets, *delivered));
                }
                Told::Settled(first, count) => {
                    settled.insert(*first, *count);
                    messages.retain(|position, _| !settled.contains(*position));
                }
                Told::Checkpoint(checkpoint) => {
                    fronts = checkpoint.levels.iter().copied().collect();
                    ranges = RangeSet::default();
                    checkpoint.ranges.iter().for_each(|(first, count)| ranges.insert(*first, *count));
                    settled = RangeSet::default();
                    below = checkpoint.delivered_below;
                    let (fronts, ranges) = (&fronts, &ranges);
                    messages.retain(|position, (priority, ..)| {
                        *position >= fronts.get(priority).copied().unwrap_or(0) || ranges.contains(*position)
                    });
                }
                Told::Delivering(position) => below = below.max(*position),
            }
        }
        let is_live = move |priority: u8, position: Position| {
            let is_behind = position >= fronts.get(&priority).copied().unwrap_or(0);
            (is_behind || ranges.contains(position)) && !settled.contains(position)
        };
        (is_live, messages, below)
    }

    /// The process ends, and another one puts the queue together again.
    fn restart(&mut self) {
        let (is_live, messages, below) = self.replay();
        let mut queue = Queue::restored(self.options.clone(), below);
        let files: Vec<(u32, u64)> = self.files.iter().map(|(number, octets)| (*number, octets.len() as u64)).collect();
        files.iter().for_each(|(number, octets)| queue.restore_file(*number, *octets));
        let mut items: Vec<(u8, Position, Option<LiveExtent>)> = vec![];
        let mut dead = RangeSet::default();
        let mut in_files = BTreeSet::new();
        for (file, notes) in &self.notes {
            for note in notes {
                let (start, octets) = (usize::try_from(note.offset).expect("small"), note.octets as usize);
                let extent = take_extent(&self.files[file][start..start + octets]).expect("it was written");
                let (mut count, mut live_octets) = (0, 0);
                for record in packed_records(&extent).filter(|record| record.labels.persistent) {
                    let position = record.labels.position.expect("positions are held");
                    in_files.insert(position);
                    if is_live(extent.head.priority, position) {
                        count += 1;
                        live_octets += if record.body_is_beside {
                            self.octets_at(position, record.message.routing_key)
                        } else {
                            record.message.body.len() as u64
                        };
                    } else {
                        dead.insert(position, 1);
                    }
                }
                if count > 0 {
                    let extent = LiveExtent { file: *file, note: *note, count, octets: live_octets };
                    items.push((note.head.priority, note.head.first_position, Some(extent)));
                }
            }
        }
        for (position, (priority, ..)) in &messages {
            if !in_files.contains(position) {
                items.push((*priority, *position, None));
            }
        }
        items.sort_by_key(|(priority, position, _)| (*priority, *position));
        for (priority, position, extent) in items {
            if let Some(extent) = extent {
                queue.restore_extent(&extent);
                continue;
            }
            let (_, number, octets, redelivered) = messages[&position];
            let (octets, key) = (body(number, octets), format!("key.{number}"));
            let body = BodyView::Slice(&octets);
            let message = MessageView { exchange: b"x", routing_key: key.as_bytes(), properties: &[0, 0], body };
            queue.restore_message(&Forwarded { position, priority, expires_at: None, redelivered, message });
        }
        queue.finish_restore(dead, self.position_next());
        self.queue = queue;
        (self.writes, self.reads) = Default::default();
        // All that was held is ready again; what was not persistent is gone.
        for (position, expected) in std::mem::take(&mut self.held) {
            self.ready.insert(Self::key(expected.priority, position), expected);
        }
        self.ready.retain(|_, expected| expected.persistent);
        let octets: usize = self.ready.values().map(|expected| expected.octets).sum();
        assert_eq!(self.queue.ready_count(), self.ready.len() as u64);
        assert_eq!(self.queue.ready_octets(), octets as u64);
        self.tell();
        // The journal of the process that has ended is left.
        self.journal.iter_mut().for_each(|(segment, _)| *segment = 0);
        self.segment = 0;
        self.relocate(4000);
    }

    /// Behind all positions that the journal says something of.
    fn position_next(&self) -> Position {
        let next = |told: &Told| match told {
            Told::Message { position, .. } => position + 1,
            Told::Settled(first, count) => first + count,
            Told::Checkpoint(checkpoint) => checkpoint.position_next,
            Told::Delivering(below) => *below,
        };
        self.journal.iter().map(|(_, told)| next(told)).max().unwrap_or(0)
    }

    fn octets_at(&self, position: Position, key: &[u8]) -> u64 {
        let all = self.ready.iter().map(|((_, position), expected)| (position, expected)).chain(&self.held);
        let found = all.into_iter().find(|(other, _)| **other == position);
        let (_, expected) = found.unwrap_or_else(|| panic!("{} is alive", String::from_utf8_lossy(key)));
        expected.octets as u64
    }

    /// Each persistent message that is alive is in the journal or in a file.
    fn check_survival(&self) {
        let (is_live, messages, _) = self.replay();
        let mut there: BTreeSet<Position> = messages.keys().copied().collect();
        for (file, notes) in &self.notes {
            for note in notes {
                let (start, octets) = (usize::try_from(note.offset).expect("small"), note.octets as usize);
                let extent = take_extent(&self.files[file][start..start + octets]).expect("it was written");
                let persistent = packed_records(&extent).filter(|record| record.labels.persistent);
                let positions = persistent.filter_map(|record| record.labels.position);
                there.extend(positions.filter(|position| is_live(note.head.priority, *position)));
            }
        }
        let ready = self.ready.iter().map(|((_, position), expected)| (*position, expected));
        let alive = ready.chain(self.held.iter().map(|(position, expected)| (*position, expected)));
        let alive: BTreeSet<Position> =
            alive.filter(|(_, expected)| expected.persistent).map(|(position, _)| position).collect();
        assert_eq!(there, alive, "what is on disk is what is alive");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enqueue { octets: usize, count: u8, persistent: bool, priority: u8, at_once: bool },
    Deliver { count: u8, holds: bool },
    Settle { pick: usize, count: u8, requeue: bool },
    PageOut { keep_front: usize, with_tail: bool },
    Load,
    FinishWrite,
    RefuseWrite,
    FinishRead,
    Evict,
    Relocate(usize),
    Purge,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let octets = prop_oneof![10 => 8_usize..300, 3 => 2000_usize..8000, 1 => SHARED_BODY_OCTETS_MIN..40_000];
    let priority = 0_u8..3;
    prop_oneof![
        12 => (octets, 1_u8..60, prop::bool::weighted(0.8), priority, any::<bool>()).prop_map(
            |(octets, count, persistent, priority, at_once)| Step::Enqueue { octets, count, persistent, priority, at_once }
        ),
        8 => (1_u8..80, any::<bool>()).prop_map(|(count, holds)| Step::Deliver { count, holds }),
        6 => (any::<usize>(), 1_u8..60, prop::bool::weighted(0.2))
            .prop_map(|(pick, count, requeue)| Step::Settle { pick, count, requeue }),
        6 => (0_usize..3, any::<bool>()).prop_map(|(keep_front, with_tail)| Step::PageOut { keep_front, with_tail }),
        4 => Just(Step::Load),
        4 => Just(Step::FinishWrite),
        1 => Just(Step::RefuseWrite),
        4 => Just(Step::FinishRead),
        1 => Just(Step::Evict),
        2 => prop_oneof![Just(0_usize), Just(4000), Just(usize::MAX)].prop_map(Step::Relocate),
        1 => Just(Step::Purge),
        1 => Just(Step::Restart),
    ]
}

fn apply(world: &mut World, step: Step) {
    match step {
        Step::Enqueue { octets, count, persistent, priority, at_once } => {
            for _ in 0..count {
                world.enqueue(octets, persistent, priority, at_once);
            }
        }
        Step::Deliver { count, holds } => (0..count).for_each(|_| world.deliver(holds)),
        Step::Settle { pick, count, requeue } => (0..count).for_each(|_| world.settle(pick, requeue)),
        Step::PageOut { keep_front, with_tail } => world.page_out(keep_front, with_tail),
        Step::Load => world.reads.extend(world.queue.poll_load(3, 100_000)),
        Step::FinishWrite => world.finish_write(),
        Step::RefuseWrite => world.refuse_write(),
        Step::FinishRead => world.finish_read(),
        Step::Evict => world.queue.evict(1),
        Step::Relocate(file_octets_min) => world.relocate(file_octets_min),
        Step::Purge => {
            assert_eq!(world.queue.purge(), world.ready.len() as u64);
            world.ready.clear();
        }
        Step::Restart => world.restart(),
    }
    world.tell();
    assert_eq!(world.queue.ready_count(), world.ready.len() as u64);
    assert_eq!(world.queue.unacknowledged_count(), world.held.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// Goal: whatever is moved between memory, files and journal, and whenever the process ends, each persistent message that is
    /// alive is on disk, comes out once, in order, whole, and says if it was delivered.
    /// Method: random steps against a model, the disk slow and sometimes full; after each, look at the disk.
    #[test]
    fn what_is_alive_survives(priority_max in prop_oneof![2 => Just(None), 1 => Just(Some(2))], steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new(QueueOptions { priority_max, ..QueueOptions::default() });
        for step in steps {
            apply(&mut world, step);
            world.check_survival();
        }
        world.restart();
        while !world.ready.is_empty() {
            world.deliver(false);
        }
        world.tell();
        while !world.writes.is_empty() {
            world.finish_write();
        }
        assert!(world.files.is_empty(), "nothing is left");
    }
}
