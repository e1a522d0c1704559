//! Tests of replay: what lived when the last batch was written is what is found, whatever happens to the files.

use super::damage::{Damage, DamageKind, StoreError};
use super::disk::DiskRequest;
use super::fixture::{Bench, SEGMENT_OCTETS, entry, live, read, read_file, with_message};
use super::names::SegmentName;
use super::record::{Checkpoint, Entry};
use super::replay::{History, OnDamage};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Files = BTreeMap<SegmentName, Vec<u8>>;

const QUEUES: u64 = 3;

/// What must be found of a message.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    key: String,
    priority: u8,
    expires: Option<u64>,
    delivered: bool,
    /// The last segment with a record of it, or one before that, and its body's length.
    segment: u64,
    body_octets: usize,
}

/// What must be found of all queues.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    live: BTreeMap<(u64, u64), Expected>,
    /// The highest position that is gone, by queue and priority.
    dead: BTreeMap<(u64, u8), u64>,
    position_next: BTreeMap<u64, u64>,
    /// Below which position the journal says that messages may have been delivered, by queue.
    delivered_below: BTreeMap<u64, u64>,
}

impl Model {
    fn next(&self, queue: u64) -> u64 {
        self.position_next.get(&queue).copied().unwrap_or(0)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish { queue: u64, gap: u64, priority: u8, expires: Option<u64>, body_octets: usize, delivered: bool },
    FanOut { body_octets: usize },
    Settle { queue: u64, which: prop::sample::Index, count: u64 },
    Deliver { queue: u64, which: prop::sample::Index },
    Checkpoint { queue: u64, is_sparse: bool },
    Commit,
}

fn any_step() -> impl Strategy<Value = Step> {
    let queue = || 0..QUEUES;
    let body = || prop_oneof![4 => 0..300_usize, 1 => 0..12_000_usize];
    prop_oneof![
        6 => (queue(), 0..3_u64, 0..3_u8, any::<Option<u64>>(), body(), any::<bool>()).prop_map(
            |(queue, gap, priority, expires, body_octets, delivered)| Step::Publish {
                queue, gap, priority, expires, body_octets, delivered
            }
        ),
        2 => body().prop_map(|body_octets| Step::FanOut { body_octets }),
        5 => (queue(), any::<prop::sample::Index>(), 1..4_u64)
            .prop_map(|(queue, which, count)| Step::Settle { queue, which, count }),
        1 => (queue(), any::<prop::sample::Index>()).prop_map(|(queue, which)| Step::Deliver { queue, which }),
        1 => (queue(), any::<bool>()).prop_map(|(queue, is_sparse)| Step::Checkpoint { queue, is_sparse }),
        4 => Just(Step::Commit),
    ]
}

/// A shard's journal, and beside it what must be found in it.
struct World {
    bench: Bench,
    model: Model,
    /// Numbers the messages.
    next: u64,
    /// The files and what must be found in them, before the last commit.
    before: (Files, Model),
    /// What must be found when all is written that was put in.
    pending: Model,
}

impl World {
    fn new() -> World {
        let (bench, model) = (Bench::new(1, 0), Model::default());
        let before = (bench.files.clone(), model.clone());
        World { bench, model: model.clone(), next: 0, before, pending: model }
    }

    fn put(&mut self, entry: Entry, body_octets: usize, repeats: bool) {
        let model = &mut self.pending;
        if repeats && self.bench.journal.can_repeat() {
            self.bench.journal.put_same(&entry);
        } else {
            self.next += u64::from(!repeats);
            with_message(self.next, body_octets, |message| self.bench.journal.put_message(&entry, message));
        }
        let expected = Expected {
            key: format!("key.{}", self.next),
            priority: entry.priority,
            expires: entry.expires_unix_millis,
            delivered: entry.delivered,
            segment: self.bench.journal.gathering_segment(),
            body_octets,
        };
        model.live.insert((entry.queue, entry.position), expected);
        model.position_next.insert(entry.queue, entry.position + 1);
    }

    fn nth(&self, queue: u64, which: &prop::sample::Index) -> Option<u64> {
        let of_queue: Vec<u64> = self.pending.live.range((queue, 0)..(queue + 1, 0)).map(|((_, at), _)| *at).collect();
        (!of_queue.is_empty()).then(|| of_queue[which.index(of_queue.len())])
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Publish { queue, gap, priority, expires, body_octets, delivered } => {
                let position = self.pending.next(*queue) + gap;
                let (priority, delivered, expires_unix_millis) = (*priority, *delivered, *expires);
                let entry = Entry { priority, expires_unix_millis, delivered, ..entry(*queue, position) };
                self.put(entry, *body_octets, false);
            }
            Step::FanOut { body_octets } => {
                for queue in 0..QUEUES {
                    let position = self.pending.next(queue);
                    self.put(entry(queue, position), *body_octets, queue > 0);
                }
            }
            Step::Settle { queue, which, count } => {
                let Some(first) = self.nth(*queue, which) else { return };
                let count = (*count).min(self.pending.next(*queue) - first);
                self.bench.journal.put_settled(*queue, first, count);
                for position in first..first + count {
                    if let Some(gone) = self.pending.live.remove(&(*queue, position)) {
                        let dead = self.pending.dead.entry((*queue, gone.priority)).or_default();
                        *dead = (*dead).max(position);
                    }
                }
            }
            Step::Deliver { queue, which } => {
                let Some(position) = self.nth(*queue, which) else { return };
                self.bench.journal.put_delivering(*queue, position + 1);
                let below = self.pending.delivered_below.entry(*queue).or_default();
                *below = (*below).max(position + 1);
                let delivered = self.pending.live.range_mut((*queue, 0)..=(*queue, position));
                delivered.for_each(|(_, message)| message.delivered = true);
            }
            Step::Checkpoint { queue, is_sparse } => self.checkpoint(*queue, *is_sparse),
            Step::Commit => self.commit(),
        }
    }

    fn checkpoint(&mut self, queue: u64, is_sparse: bool) {
        let position_next = self.pending.next(queue);
        let front = |priority: u8| {
            let dead = self.pending.dead.get(&(queue, priority)).map_or(0, |dead| dead + 1);
            if is_sparse { position_next } else { dead }
        };
        let levels: Vec<_> = (0..3_u8).map(|priority| (priority, front(priority))).collect();
        let before_front = self.pending.live.range((queue, 0)..(queue + 1, 0));
        let before_front = before_front.filter(|((_, at), message)| *at < levels[usize::from(message.priority)].1);
        let ranges = before_front.map(|((_, at), _)| (*at, 1)).collect();
        let delivered_below = self.pending.delivered_below.get(&queue).copied().unwrap_or(0);
        let checkpoint = Checkpoint { queue, delivered_below, position_next, levels, ranges };
        self.bench.journal.put_checkpoint(&checkpoint);
    }

    fn commit(&mut self) {
        let files = self.bench.files.clone();
        let batches = self.bench.batches.len();
        self.bench.commit();
        let written = self.bench.batches.len() - batches;
        // A batch that was cut off by itself is on the disk without what came behind it: then there is no telling apart.
        if written == 1 {
            self.before = (files, self.model.clone());
        }
        self.model = self.pending.clone();
        if written > 1 {
            self.before = (self.bench.files.clone(), self.model.clone());
        }
    }

    /// Copies what lives only in the oldest segment, then retires that.
    fn recycle(&mut self) {
        self.commit();
        let Some(oldest) = self.bench.journal.wants_recycling() else { return };
        let old: Vec<_> = self.pending.live.iter().filter(|(_, message)| message.segment <= oldest).collect();
        let old: Vec<_> = old.into_iter().map(|(place, message)| (*place, message.clone())).collect();
        for ((queue, position), message) in old {
            let Expected { priority, expires: expires_unix_millis, delivered, body_octets, .. } = message;
            let entry = Entry { queue, position, priority, expires_unix_millis, delivered, forwarded: true };
            let number = message.key["key.".len()..].parse().expect("a number");
            let segment = self.bench.journal.gathering_segment();
            with_message(number, body_octets, |message| self.bench.journal.put_message(&entry, message));
            self.pending.live.get_mut(&(queue, position)).expect("it lives").segment = segment;
        }
        self.commit();
        let request = self.bench.journal.retire(oldest);
        self.commit();
        self.bench.execute(request);
        self.before = (self.bench.files.clone(), self.model.clone());
    }
}

fn check(files: &Files, model: &Model) {
    let history = read(files, OnDamage::Refuse).expect("nothing is damaged");
    let found = live(files, &history);
    let mut by_queue: BTreeMap<u64, u64> = BTreeMap::new();
    for (entry, key) in &found {
        let expected = model.live.get(&(entry.queue, entry.position));
        let expected = expected.unwrap_or_else(|| panic!("{entry:?} does not live"));
        assert_eq!((key, entry.priority, entry.delivered), (&expected.key, expected.priority, expected.delivered));
        assert_eq!(entry.expires_unix_millis, expected.expires);
        assert!(history.is_live(entry.queue, entry.priority, entry.position));
        let before = by_queue.insert(entry.queue, entry.position);
        assert!(before.is_none_or(|before| before < entry.position), "{entry:?} came behind {before:?}");
    }
    assert_eq!(found.len(), model.live.len(), "some are missing");
    for (queue, history) in history.queues() {
        assert!(history.position_next <= model.next(queue));
        let behind = model.live.range((queue, history.position_next)..(queue + 1, 0)).next();
        assert_eq!(behind, None, "a position would be given out twice");
        for priority in 0..3 {
            let settled = history.settled_within(priority, 3, 40);
            for position in 0..50 {
                let expected = (3..=40).contains(&position) && history.is_settled(priority, position);
                assert_eq!(settled.contains(position), expected, "{position}");
            }
        }
    }
}

fn run(steps: &[Step]) -> World {
    let mut world = World::new();
    for step in steps {
        world.step(step);
        world.recycle();
    }
    world.commit();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Goal: what lives is found: once, in order, as it was. Method: any history of queues, whose journal is recycled.
    #[test]
    fn what_lives_is_found(steps in prop::collection::vec(any_step(), 0..120)) {
        let world = run(&steps);
        check(&world.bench.files, &world.model);
    }

    /// Goal: a last batch that was cut off is as if it had not been. Method: of the last batch only the part before any octet
    /// reached the disk, or any part of its sectors.
    #[test]
    fn a_torn_batch_never_was(
        steps in prop::collection::vec(any_step(), 1..60),
        cut in any::<prop::sample::Index>(),
        sectors in any::<u64>(),
    ) {
        let mut world = run(&steps);
        world.step(&Step::FanOut { body_octets: 3000 });
        world.commit();
        let Some(&(segment, offset, octets)) = world.bench.batches.last() else { return Ok(()) };
        let name = world.bench.name(segment);
        let (before, model_before) = &world.before;
        let Some(old) = before.get(&name) else { return Ok(()) };
        let offset = usize::try_from(offset).expect("short");
        let new = &world.bench.files[&name];
        let mut torn = world.bench.files.clone();
        let cut = offset + cut.index(octets + 1);
        torn.get_mut(&name).expect("it is there")[cut..].copy_from_slice(&old[cut..]);
        let mut mixed = world.bench.files.clone();
        for (number, sector) in (offset..offset + octets).step_by(512).enumerate() {
            if sectors >> (number % 64) & 1 == 0 {
                let sector = sector..sector + 512;
                mixed.get_mut(&name).expect("it is there")[sector.clone()].copy_from_slice(&old[sector]);
            }
        }
        for files in [torn, mixed] {
            let history = read(&files, OnDamage::Refuse).expect("it was the last one");
            let is_whole = live(&files, &history) == live(&world.bench.files, &read(&world.bench.files, OnDamage::Refuse).expect("sound"));
            let model = if is_whole { &world.model } else { model_before };
            check(&files, model);
            prop_assert!(!is_whole || files[&name][offset..offset + 64] == new[offset..offset + 64]);
        }
    }

    /// Goal: damage to any batch but the last is found, and told with its place. Method: flip any bit of it.
    #[test]
    fn damage_is_found(
        steps in prop::collection::vec(any_step(), 1..60),
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut world = run(&steps);
        world.step(&Step::FanOut { body_octets: 10 });
        world.commit();
        world.step(&Step::FanOut { body_octets: 10 });
        world.commit();
        let oldest = world.bench.journal.segments().0;
        let batches: Vec<_> = world.bench.batches.iter().filter(|(segment, _, _)| *segment >= oldest).collect();
        let &(segment, offset, octets) = batches[which.index(batches.len() - 1)];
        let name = world.bench.name(segment);
        let mut files = world.bench.files.clone();
        let offset_octets = usize::try_from(offset).expect("short");
        let file = files.get_mut(&name).expect("it is there");
        let records = super::batch::take(&file[offset_octets..offset_octets + octets]).expect("sound").records.len();
        file[offset_octets + at.index(64 + records)] ^= 1 << bit;
        let Err(StoreError::Damage(damage)) = read(&files, OnDamage::Refuse) else { panic!("it was not found") };
        prop_assert_eq!((&damage.file, damage.offset), (&name.path(), offset));
        assert!(matches!(damage.what, DamageKind::Batch { .. }));
        let history = read(&files, OnDamage::Salvage).expect("damage is passed over");
        prop_assert_eq!(history.damages(), &[damage]);
        let found = live(&files, &history);
        let whole = read(&world.bench.files, OnDamage::Refuse).expect("nothing is damaged");
        prop_assert!(history.counters().batches + 1 == whole.counters().batches);
        prop_assert!(found.iter().all(|(entry, _)| entry.position < world.model.next(entry.queue)));
    }

    /// Goal: whatever is in the files, reading them ends. Method: garbage, and sound files with garbage written over them.
    #[test]
    fn garbage_is_read_without_harm(
        steps in prop::collection::vec(any_step(), 1..40),
        spots in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<[u8; 16]>()), 1..8),
    ) {
        let mut files = run(&steps).bench.files;
        for (which, at, garbage) in spots {
            let which = which.index(files.len());
            let file = files.values_mut().nth(which).expect("it is there");
            let at = at.index(file.len() - garbage.len());
            file[at..at + garbage.len()].copy_from_slice(&garbage);
        }
        let _ = read(&files, OnDamage::Refuse);
        let history = read(&files, OnDamage::Salvage).expect("damage is passed over");
        live(&files, &history);
    }
}

/// Somewhere in the second batch of such a journal.
const SECOND_BATCH: usize = 16 << 10;

/// A journal of one queue with so many messages, one a batch, each about a fifth of a segment.
fn journal_of(epoch: u64, messages: u64) -> Bench {
    let mut bench = Bench::new(epoch, 0);
    for position in 0..messages {
        with_message(position, 12_000, |message| bench.journal.put_message(&entry(1, position), message));
        bench.commit();
    }
    bench
}

fn damage_of(files: &Files) -> Damage {
    match read(files, OnDamage::Refuse) {
        Err(StoreError::Damage(damage)) => damage,
        other => panic!("expected damage, not {:?}", other.map(|history| history.counters())),
    }
}

fn positions(files: &Files, on_damage: OnDamage) -> Vec<u64> {
    let history = read(files, on_damage).expect("it can be read");
    live(files, &history).into_iter().map(|(entry, _)| entry.position).collect()
}

/// Goal: a file that is missing or too short is told by its name. Method: each segment in turn; only that the one ahead is
/// missing is no damage, as it is empty.
#[test]
fn missing_and_truncated_segments_are_told() {
    let bench = journal_of(1, 11);
    let (oldest, current) = bench.journal.segments();
    assert_eq!((oldest, current, bench.files.len()), (1, 3, 4));
    for segment in 1..=4 {
        let mut files = bench.files.clone();
        files.remove(&bench.name(segment));
        if segment == 4 {
            assert_eq!(positions(&files, OnDamage::Refuse).len(), 11);
        } else {
            let damage = damage_of(&files);
            assert_eq!((damage.file, damage.what), (bench.name(segment).path(), DamageKind::Missing));
            let kept = positions(&files, OnDamage::Salvage);
            assert_eq!(kept.len(), if segment == 3 { 10 } else { 6 }, "{kept:?}");
        }
        let mut files = bench.files.clone();
        files.get_mut(&bench.name(segment)).expect("it is there").truncate(20_000);
        let damage = damage_of(&files);
        assert_eq!((damage.file, damage.offset), (bench.name(segment).path(), 20_000));
        assert_eq!(damage.what, DamageKind::Truncated { octets: SEGMENT_OCTETS });
        assert!(positions(&files, OnDamage::Salvage).len() >= 6);
    }
    let mut files = bench.files.clone();
    files.get_mut(&bench.name(2)).expect("it is there").push(0);
    assert_eq!(damage_of(&files).what, DamageKind::TooLong { octets: SEGMENT_OCTETS });
    let error = History::read(vec![bench.name(1)], super::fixture::options(OnDamage::Refuse), &mut |_| {
        Err(std::io::ErrorKind::PermissionDenied.into())
    });
    assert!(error.is_err_and(|error| error.to_string().contains(&bench.name(1).path())));
}

/// Goal: damage to the batch before a mark is found, though it was the last one with a message. Method: flip a bit in it, with
/// and without the mark.
#[test]
fn a_mark_proves_what_was_before_it() {
    let mut bench = journal_of(1, 2);
    let flip = |files: &mut Files| files.get_mut(&bench.name(1)).expect("it is there")[SECOND_BATCH] ^= 1;
    let mut files = bench.files.clone();
    flip(&mut files);
    assert_eq!(positions(&files, OnDamage::Refuse), [0], "it could be a torn batch");
    let flip_at = bench.name(1);
    bench.journal.rest();
    bench.run();
    let mut files = bench.files.clone();
    files.get_mut(&flip_at).expect("it is there")[SECOND_BATCH] ^= 1;
    assert!(matches!(damage_of(&files).what, DamageKind::Batch { sequence: 2, sound: 3 }));
}

/// Goal: older epochs are read first, and what was forwarded from them is there once. Method: a queue that moves from one shard
/// to another when the broker starts, with the old segments and without.
#[test]
fn epochs_follow_each_other() {
    let mut old = journal_of(1, 6);
    old.journal.put_settled(1, 2, 1);
    old.commit();
    let mut new = Bench::new(2, 3);
    for position in [0, 1, 3, 4, 5] {
        let forwarded = Entry { delivered: position == 3, ..entry(1, position) };
        with_message(position, 100, |message| new.journal.put_message(&forwarded, message));
    }
    with_message(6, 100, |message| new.journal.put_message(&entry(1, 6), message));
    new.journal.put_settled(1, 0, 1);
    new.commit();
    let mut files = old.files;
    files.extend(new.files.clone());
    for files in [&files, &new.files] {
        let history = read(files, OnDamage::Refuse).expect("nothing is damaged");
        let found: Vec<_> = live(files, &history).iter().map(|(entry, _)| (entry.position, entry.delivered)).collect();
        assert_eq!(found, [(1, false), (3, true), (4, false), (5, false), (6, false)]);
        assert_eq!(history.queue(1).expect("it is known").position_next, 7);
    }
}

/// Goal: a message that was gone stays gone while its record is there, though a checkpoint has its position behind the front.
/// Method: a process that has ended settles one between others; the next one says how its queue stands, and ends too.
#[test]
fn what_was_gone_behind_a_front_stays_gone() {
    let mut old = journal_of(1, 4);
    old.journal.put_settled(1, 2, 1);
    old.commit();
    let mut new = Bench::new(2, 0);
    let checkpoint = Checkpoint { queue: 1, position_next: 4, levels: vec![(0, 1)], ..Checkpoint::default() };
    new.journal.put_checkpoint(&checkpoint);
    new.commit();
    let mut files = old.files;
    files.extend(new.files);
    assert_eq!(positions(&files, OnDamage::Refuse), [1, 3]);
    assert_eq!(read(&files, OnDamage::Refuse).expect("sound").queue(1).map(|queue| queue.is_settled(0, 2)), Some(true));
}

/// Goal: a checkpoint counts when all of it is there. Method: a long one whose last part is not written.
#[test]
fn half_a_checkpoint_is_none() {
    let mut bench = journal_of(1, 3);
    let mut parts = super::aligned::AlignedBuffer::new();
    let checkpoint = Checkpoint { queue: 1, position_next: 3, levels: vec![(0, 3)], ..Checkpoint::default() };
    for (ranges, is_continued) in [([(0, 1)], true), ([(2, 1)], false)] {
        super::batch::begin(&mut parts);
        super::record::put_checkpoint(&mut parts, &checkpoint, &ranges, is_continued);
        let sequence = bench.journal.durable() + 1 + u64::from(!is_continued);
        super::batch::seal(&mut parts, &super::batch::BatchHead { epoch: 1, shard: 0, segment: 1, sequence });
        let offset = bench.batches.last().map(|(_, offset, octets)| offset + *octets as u64);
        bench.write(1, offset.expect("something was written"), &parts);
        let expected: &[u64] = if is_continued { &[0, 1, 2] } else { &[0, 2] };
        assert_eq!(positions(&bench.files, OnDamage::Refuse), expected);
    }
}

/// Goal: files of queues are expected as was said last; messages in them are settled like others, and not given out.
/// Method: a file that comes and goes, one that grows, a settled position without a record.
#[test]
fn cold_files_are_expected() {
    let mut bench = journal_of(1, 3);
    bench.journal.put_cold_file(1, 0, 4096);
    bench.journal.put_cold_file(1, 1, 4096);
    bench.journal.put_cold_file(1, 1, 8192);
    bench.journal.put_cold_gone(1, 0);
    bench.journal.put_settled(1, 1_000, 5);
    bench.commit();
    let history = read(&bench.files, OnDamage::Refuse).expect("nothing is damaged");
    let queue = history.queue(1).expect("it is known");
    assert_eq!(queue.cold_files.iter().collect::<Vec<_>>(), [(&1, &8192)]);
    assert_eq!(queue.cold_gone.iter().collect::<Vec<_>>(), [&0]);
    assert_eq!(queue.position_next, 1_005, "a settled position is not given out again");
    assert!(history.is_settled_cold(1, 0, 1_004) && !history.is_settled_cold(1, 0, 1_005));
    assert!(history.is_live(2, 0, 0), "nothing is known of another queue");
    let mut found = Vec::new();
    let mut is_cold = |queue: u64, priority: u8, position: u64| (queue, priority, position) == (1, 0, 1);
    let read_again = &mut |name: &SegmentName| read_file(&bench.files, name);
    history.for_each_live(read_again, &mut is_cold, &mut |entry, _| found.push(entry.position)).expect("it is sound");
    assert_eq!(found, [0, 2]);
}

/// Goal: a torn batch in a new segment, and nothing in a prepared one, is no damage. Method: tear the first batch of a segment
/// while one ahead of it is prepared.
#[test]
fn a_torn_batch_at_the_front_of_a_segment_is_an_end() {
    let mut bench = journal_of(1, 5);
    let files = bench.files.clone();
    with_message(5, 12_000, |message| bench.journal.put_message(&entry(1, 5), message));
    bench.journal.demand();
    let Some(DiskRequest::Commit { segment: 2, offset: 0, mut octets, .. }) = bench.journal.poll_request(0) else {
        panic!("the sixth lies in the second segment")
    };
    octets.as_mut_slice()[5000] ^= 1;
    bench.write(2, 0, &octets);
    assert_eq!(positions(&bench.files, OnDamage::Refuse), [0, 1, 2, 3, 4]);
    assert_eq!(positions(&files, OnDamage::Refuse), [0, 1, 2, 3, 4]);
}
