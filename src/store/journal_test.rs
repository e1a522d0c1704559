//! Tests of the journal: what it asks of the disk when, and that publishers share commits.

use super::disk::DiskRequest;
use super::fixture::{Bench, SEGMENT_OCTETS, entry, with_message};
use super::journal::{Journal, JournalOptions};
use super::record::{Checkpoint, Record, Records};
use super::{aligned::AlignedBuffer, batch};
use crate::limits::{CHECKPOINT_RANGES_MAX, JOURNAL_COMMIT_OCTETS, JOURNAL_PENDING_OCTETS_MAX};

fn put(journal: &mut Journal, position: u64, body_octets: usize) {
    with_message(position, body_octets, |message| journal.put_message(&entry(1, position), message));
}

/// What a commit holds, as kinds.
fn records(octets: &AlignedBuffer) -> Vec<String> {
    let found = batch::take(octets.as_slice()).expect("it is sound");
    let kind = |record: Record<'_>| match record {
        Record::Message { entry, .. } => format!("message {}", entry.position),
        Record::Settled { queue, first, count } => format!("settled {queue} {first} {count}"),
        Record::Mark => String::from("mark"),
        Record::Oldest { segment } => format!("oldest {segment}"),
        other => format!("{other:?}"),
    };
    Records::new(found.records).map(|record| kind(record.expect("it was written"))).collect()
}

fn take_commit(bench: &mut Bench) -> Option<(u64, u64, u64, AlignedBuffer)> {
    match bench.journal.poll_request(bench.now_micros)? {
        DiskRequest::Commit { sequence, segment, offset, octets } => Some((sequence, segment, offset, octets)),
        other => panic!("expected a commit, not {other:?}"),
    }
}

/// Goal: what comes while a batch is written gathers for the next; nobody waiting, nothing is written.
/// Method: demand at each of the moments.
#[test]
fn one_batch_is_in_flight_and_the_rest_gathers() {
    let mut bench = Bench::new(1, 0);
    assert_eq!((bench.journal.gathering(), bench.journal.appended(), bench.journal.durable()), (1, 0, 0));
    bench.journal.demand();
    assert!(take_commit(&mut bench).is_none(), "there is nothing");
    put(&mut bench.journal, 1, 10);
    assert_eq!((bench.journal.gathering(), bench.journal.appended()), (1, 1));
    assert!(take_commit(&mut bench).is_none(), "nobody waits");
    bench.journal.demand();
    let (sequence, segment, offset, octets) = take_commit(&mut bench).expect("somebody waits");
    assert_eq!((sequence, segment, offset, octets.len()), (1, 1, 0, 4096));
    assert_eq!((bench.journal.gathering(), bench.journal.appended()), (2, 1));
    put(&mut bench.journal, 2, 10);
    bench.journal.demand();
    put(&mut bench.journal, 3, 10);
    assert!(take_commit(&mut bench).is_none(), "one is in flight");
    bench.journal.handle_committed(1, octets, bench.now_micros);
    assert_eq!(bench.journal.durable(), 1);
    let (sequence, segment, offset, octets) = take_commit(&mut bench).expect("somebody waits");
    assert_eq!((sequence, segment, offset), (2, 1, 4096));
    assert_eq!(records(&octets), ["message 2", "message 3"]);
    bench.journal.handle_committed(2, octets, bench.now_micros);
    assert!(take_commit(&mut bench).is_none());
    let counters = bench.journal.counters();
    assert_eq!((counters.commits, counters.octets, counters.records), (2, 8192, 3));
}

/// Goal: a batch does not grow for ever, and long ones are written unasked. Method: more than an eighth of a segment.
#[test]
fn long_batches_are_cut_and_written() {
    let mut bench = Bench::new(1, 0);
    let mut position = 0;
    while bench.journal.gathering() == 1 {
        put(&mut bench.journal, position, 1000);
        position += 1;
    }
    assert_eq!(bench.journal.appended(), 1);
    assert!(!bench.journal.can_repeat(), "the message is in the batch before");
    put(&mut bench.journal, position, 1000);
    assert!(bench.journal.can_repeat());
    assert_eq!(bench.journal.appended(), 2);
    let (sequence, _, _, octets) = take_commit(&mut bench).expect("it is long");
    assert_eq!((sequence, records(&octets).len() as u64), (1, position));
    bench.journal.handle_committed(1, octets, bench.now_micros);
    assert!(take_commit(&mut bench).is_none(), "the next is short");

    let options = JournalOptions { epoch: 1, shard: 0, segment_octets: 32 << 20, segments_target: 3 };
    let mut journal = Journal::new(options);
    assert!(matches!(journal.poll_request(0), Some(DiskRequest::PrepareSegment { segment: 1 })));
    journal.handle_segment_prepared(1);
    assert!(matches!(journal.poll_request(0), Some(DiskRequest::PrepareSegment { segment: 2 })));
    put(&mut journal, 0, JOURNAL_COMMIT_OCTETS - 1000);
    assert!(journal.poll_request(0).is_none());
    put(&mut journal, 1, 1000);
    assert!(matches!(journal.poll_request(0), Some(DiskRequest::Commit { .. })));
}

/// Goal: a batch lies in one segment, and all lie one behind the other. Method: batches of all lengths, over many segments;
/// the oldest are retired when it is wished for.
#[test]
fn batches_follow_each_other_through_the_segments() {
    let mut bench = Bench::new(4, 2);
    for (number, octets) in (0..200).zip((0..20_000).step_by(997).cycle()) {
        put(&mut bench.journal, number, octets);
        bench.commit();
        if let Some(oldest) = bench.journal.wants_recycling() {
            let request = bench.journal.retire(oldest);
            bench.execute(request);
            assert_eq!(bench.journal.segments().0, oldest + 1);
        }
        let (oldest, current) = bench.journal.segments();
        assert!(current - oldest < 3, "more segments than wanted are in use");
        assert_eq!(bench.journal.gathering_segment(), current);
        assert_eq!(bench.files.len() as u64, current - oldest + 2, "one is ahead");
    }
    let mut end = (1, 0);
    for &(segment, offset, octets) in &bench.batches {
        let has_room = end.1 + octets as u64 <= SEGMENT_OCTETS;
        assert_eq!((segment, offset), if has_room { end } else { (end.0 + 1, 0) });
        end = (segment, offset + octets as u64);
    }
    assert!(end.0 > 20);
}

/// Goal: positions that follow each other are one record. Method: runs, gaps, queues in between, a new batch.
#[test]
fn settled_positions_are_gathered() {
    let mut bench = Bench::new(1, 0);
    let settled = [(1, 5, 1), (1, 6, 2), (1, 8, 1), (1, 10, 1), (2, 11, 1), (1, 11, 1), (1, 12, 1), (1, 12, 1)];
    for (queue, first, count) in settled {
        bench.journal.put_settled(queue, first, count);
    }
    bench.journal.put_delivering(9, 1);
    bench.journal.put_settled(1, 13, 1);
    bench.journal.demand();
    let (_, _, _, octets) = take_commit(&mut bench).expect("somebody waits");
    let found = records(&octets);
    let expected = ["settled 1 5 4", "settled 1 10 1", "settled 2 11 1", "settled 1 11 2", "settled 1 12 1"];
    assert_eq!((&found[..5], &found[6..]), (&expected.map(String::from)[..], &[String::from("settled 1 13 1")][..]));
    bench.journal.put_settled(1, 14, 1);
    bench.journal.handle_committed(1, octets, bench.now_micros);
    bench.journal.demand();
    let (_, _, _, octets) = take_commit(&mut bench).expect("somebody waits");
    assert_eq!(records(&octets), ["settled 1 14 1"], "the one before was in another batch");
    assert_eq!(bench.journal.counters().records, 8);
}

/// Goal: a journal that rests ends with a mark, once. Method: ticks with and without something new.
#[test]
fn a_resting_journal_is_marked() {
    let mut bench = Bench::new(1, 0);
    let tick = |bench: &mut Bench| {
        bench.journal.handle_tick();
        let commit = take_commit(bench);
        let found = commit.as_ref().map(|(_, _, _, octets)| records(octets));
        if let Some((sequence, _, _, octets)) = commit {
            bench.journal.handle_committed(sequence, octets, bench.now_micros);
        }
        found.unwrap_or_default()
    };
    assert!(tick(&mut bench).is_empty(), "an empty journal needs no mark");
    put(&mut bench.journal, 1, 10);
    assert_eq!(tick(&mut bench), ["message 1"], "what nobody waits for is written too");
    assert!(tick(&mut bench).is_empty(), "there was a commit since the last tick");
    assert_eq!(tick(&mut bench), ["mark"]);
    assert!(tick(&mut bench).is_empty() && tick(&mut bench).is_empty(), "it is marked");
    bench.journal.put_settled(1, 1, 1);
    assert_eq!(tick(&mut bench), ["settled 1 1 1"]);
    assert!(tick(&mut bench).is_empty());
    assert_eq!(tick(&mut bench), ["mark"]);
}

/// Goal: where commits come by themselves, ticks make no others. Method: messages that are waited for between ticks, and
/// acknowledgements that are not.
#[test]
fn a_busy_journal_is_left_alone() {
    let mut bench = Bench::new(1, 0);
    for position in 0..10 {
        put(&mut bench.journal, position, 10);
        bench.journal.demand();
        let (sequence, _, _, octets) = take_commit(&mut bench).expect("it was demanded");
        bench.journal.handle_committed(sequence, octets, bench.now_micros);
        bench.journal.put_settled(1, position, 1);
        bench.journal.handle_tick();
        assert!(take_commit(&mut bench).is_none(), "the next commit will take it along");
    }
    bench.journal.handle_tick();
    let (_, _, _, octets) = take_commit(&mut bench).expect("none came");
    assert_eq!(records(&octets), ["settled 1 9 1"]);
}

/// Goal: a full disk starves the journal until there is room; what is prepared can be written still.
/// Method: refuse the next segment, fill the ones that are there, then let a tick ask, then the retirement of a segment.
#[test]
fn a_full_disk_starves_the_journal() {
    let mut bench = Bench::new(1, 0);
    let mut position = 0;
    let refused = loop {
        put(&mut bench.journal, position, 4000);
        position += 1;
        bench.journal.demand();
        match bench.journal.poll_request(0) {
            Some(DiskRequest::PrepareSegment { segment }) => break segment,
            Some(commit) => bench.execute(commit),
            None => panic!("a commit is due"),
        }
        if let Some(DiskRequest::PrepareSegment { segment }) = bench.journal.poll_request(0) {
            break segment;
        }
    };
    assert_eq!(refused, 3);
    bench.journal.handle_segment_refused();
    assert!(bench.journal.is_starved());
    // The rest of the second segment can be written.
    let mut commits = 0;
    while bench.journal.durable() == bench.journal.appended() {
        commits += 1;
        bench.journal.put_settled(1, commits, 1);
        bench.journal.demand();
        bench.run();
    }
    assert!(commits >= 10, "only {commits} were possible");
    assert!(bench.journal.poll_request(0).is_none(), "it does not ask again by itself");
    bench.journal.handle_tick();
    assert!(bench.journal.is_starved(), "it does not know yet");
    assert!(matches!(bench.journal.poll_request(0), Some(DiskRequest::PrepareSegment { segment: 3 })));
    bench.journal.handle_segment_refused();
    let request = bench.journal.retire(1);
    bench.execute(request);
    bench.run();
    assert!(!bench.journal.is_starved());
    assert_eq!(bench.journal.durable(), bench.journal.appended());
    assert_eq!(bench.journal.segments(), (2, 3));
}

/// Goal: publishers stop where the disk does not keep up. Method: put until it is full, then let one batch be written.
#[test]
fn it_is_full_when_the_disk_is_slow() {
    let mut bench = Bench::new(1, 0);
    put(&mut bench.journal, 0, 9000);
    let (sequence, _, _, octets) = take_commit(&mut bench).expect("it is long");
    let mut position = 1;
    while !bench.journal.is_full() {
        assert!(bench.journal.pending_octets() < JOURNAL_PENDING_OCTETS_MAX);
        put(&mut bench.journal, position, 9000);
        position += 1;
    }
    assert!(bench.journal.octets_held() >= JOURNAL_PENDING_OCTETS_MAX as u64);
    bench.journal.handle_committed(sequence, octets, 0);
    assert!(take_commit(&mut bench).is_some());
    assert!(!bench.journal.is_full());
}

/// Goal: a checkpoint of any length is written. Method: more ranges than one record may have, and so many that the records
/// lie in several batches.
#[test]
fn a_long_checkpoint_is_several_records() {
    let options = JournalOptions { epoch: 1, shard: 0, segment_octets: 1 << 20, segments_target: 3 };
    let mut journal = Journal::new(options);
    for segment in [1, 2] {
        assert!(matches!(journal.poll_request(0), Some(DiskRequest::PrepareSegment { .. })));
        journal.handle_segment_prepared(segment);
    }
    let ranges: Vec<(u64, u64)> = (0..=2 * CHECKPOINT_RANGES_MAX as u64).map(|number| (3 * number, 1)).collect();
    let checkpoint = Checkpoint { queue: 1, levels: vec![(0, 7)], ranges, ..Checkpoint::default() };
    journal.put_checkpoint(&checkpoint);
    journal.put_checkpoint(&Checkpoint::default());
    assert_eq!((journal.appended(), journal.counters().records), (3, 4));
    let mut found = Vec::new();
    journal.demand();
    while let Some(DiskRequest::Commit { sequence, octets, .. }) = journal.poll_request(0) {
        for record in Records::new(batch::take(octets.as_slice()).expect("it is sound").records) {
            let Ok(Record::Checkpoint { checkpoint, is_continued }) = record else { panic!("not a checkpoint") };
            found.push((checkpoint.levels.len(), checkpoint.ranges, is_continued));
        }
        journal.handle_committed(sequence, octets, 0);
    }
    let lengths: Vec<_> = found.iter().map(|(levels, ranges, more)| (*levels, ranges.len(), *more)).collect();
    let most = CHECKPOINT_RANGES_MAX;
    assert_eq!(lengths, [(1, most, true), (1, most, true), (1, 1, false), (0, 0, false)]);
    assert_eq!(found.into_iter().flat_map(|(_, ranges, _)| ranges).collect::<Vec<_>>(), checkpoint.ranges);
}
