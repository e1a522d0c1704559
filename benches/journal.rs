//! What durability costs besides the disk: records into batches and batches sealed, and what a start reads of it.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lepus::limits::JOURNAL_SEGMENT_OCTETS;
use lepus::message::{BodyView, MessageView};
use lepus::store::aligned::AlignedBuffer;
use lepus::store::disk::DiskRequest;
use lepus::store::extent::{ExtentHead, begin_extent, finish_extent, take_extent};
use lepus::store::journal::{Journal, JournalOptions};
use lepus::store::names::SegmentName;
use lepus::store::record::Entry;
use lepus::store::replay::{History, OnDamage, ReplayOptions};
use std::hint::black_box;

const KEY: &[u8] = b"benchmark";
const PROPERTIES: &[u8] = &[0x10, 0, 2];
/// Messages in a batch.
const BATCH: u64 = 64;

fn message(body: &[u8]) -> MessageView<'_> {
    MessageView { exchange: b"", routing_key: KEY, properties: PROPERTIES, body: BodyView::Slice(body) }
}

fn journal() -> Journal {
    let options =
        JournalOptions { epoch: 1, shard: 0, segment_octets: JOURNAL_SEGMENT_OCTETS, segments_target: usize::MAX };
    Journal::new(options)
}

/// Lets a journal have what it asks for. What is written goes to `write`: the segment, the offset, the octets.
fn serve(journal: &mut Journal, write: &mut dyn FnMut(u64, u64, &AlignedBuffer)) {
    while let Some(request) = journal.poll_request(0) {
        match request {
            DiskRequest::Commit { sequence, segment, offset, octets } => {
                write(segment, offset, &octets);
                journal.handle_committed(sequence, octets, 0);
            }
            DiskRequest::PrepareSegment { segment } => journal.handle_segment_prepared(segment),
            other => panic!("a journal does not ask for {other:?}"),
        }
    }
}

fn entry(position: u64) -> Entry {
    Entry { queue: 300, position, ..Entry::default() }
}

fn put(criterion: &mut Criterion) {
    for (name, octets) in [("16 B", 16), ("100 B", 100), ("1 KiB", 1024)] {
        let body = vec![7; octets];
        let mut group = criterion.benchmark_group(format!("journal, batches of {BATCH}, {name}"));
        group.throughput(Throughput::Elements(BATCH));
        group.bench_function("put and seal", |bencher| {
            let mut journal = journal();
            let mut position = 0;
            bencher.iter(|| {
                for _ in 0..BATCH {
                    position += 1;
                    journal.put_message(black_box(&entry(position)), &black_box(message(&body)));
                }
                journal.demand();
                serve(&mut journal, &mut |_, _, octets| {
                    black_box(octets.len());
                });
            });
        });
        group.bench_function("put, settle and seal", |bencher| {
            let mut journal = journal();
            let mut position = 0;
            bencher.iter(|| {
                for _ in 0..BATCH {
                    position += 1;
                    journal.put_message(black_box(&entry(position)), &black_box(message(&body)));
                    journal.demand_by(black_box(5));
                }
                for settled in position - BATCH..position {
                    journal.put_settled(black_box(300), black_box(settled), 1);
                }
                serve(&mut journal, &mut |_, _, octets| {
                    black_box(octets.len());
                });
            });
        });
        group.finish();
    }
}

/// A segment full of batches, of whose messages half are settled, and how many messages are in it.
fn full_segment(body: &[u8]) -> (Vec<u8>, u64) {
    let mut journal = journal();
    let mut octets = vec![0; usize::try_from(JOURNAL_SEGMENT_OCTETS).expect("it fits into memory")];
    let mut position = 0;
    let mut is_full = false;
    let mut written = 0;
    while !is_full {
        for _ in 0..BATCH {
            position += 1;
            journal.put_message(&entry(position), &message(body));
        }
        journal.put_settled(300, position - BATCH / 2, BATCH / 2);
        journal.demand();
        serve(&mut journal, &mut |segment, offset, batch| {
            is_full = segment > 1;
            if !is_full {
                let offset = usize::try_from(offset).expect("it fits into memory");
                octets[offset..offset + batch.len()].copy_from_slice(batch.as_slice());
                written = position;
            }
        });
    }
    (octets, written)
}

fn replay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replay of a segment");
    let segment = SegmentName { epoch: 1, shard: 0, segment: 1 };
    let options = ReplayOptions { segment_octets: JOURNAL_SEGMENT_OCTETS, on_damage: OnDamage::Refuse };
    for (name, octets) in [("100 B", 100), ("1 KiB", 1024)] {
        let (octets, messages) = full_segment(&vec![7; octets]);
        group.throughput(Throughput::Elements(messages));
        // The copy stands for what a disk would take.
        group.bench_function(format!("{name}, what was settled"), |bencher| {
            let history = |octets| History::read(vec![segment], options, &mut |_| Ok(Vec::clone(octets)));
            bencher.iter(|| history(black_box(&octets)).expect("nothing is damaged").counters());
        });
        let history = History::read(vec![segment], options, &mut |_| Ok(octets.clone())).expect("nothing is damaged");
        group.bench_function(format!("{name}, what lives"), |bencher| {
            bencher.iter(|| {
                let mut count = 0;
                let mut sink = |_: &Entry, message: MessageView<'_>| count += black_box(message).body.len();
                let live = history.for_each_live(&mut |_| Ok(octets.clone()), &mut |_, _, _| false, &mut sink);
                live.expect("nothing is damaged");
                count
            });
        });
    }
    group.finish();
}

fn extents(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("extent of 64 KiB");
    let image = vec![7; 64 << 10];
    let head = ExtentHead { queue: 1, count: 100, last_position: 99, ..ExtentHead::default() };
    let put = |out: &mut AlignedBuffer| {
        let start = begin_extent(out);
        out.extend_from_slice(black_box(&image));
        finish_extent(out, start, &mut black_box(head));
    };
    group.throughput(Throughput::Bytes(image.len() as u64));
    group.bench_function("put", |bencher| {
        let mut out = AlignedBuffer::new();
        bencher.iter(|| {
            out.clear();
            put(&mut out);
        });
    });
    let mut out = AlignedBuffer::new();
    put(&mut out);
    group.bench_function("take", |bencher| {
        bencher.iter(|| take_extent(black_box(out.as_slice())).expect("it is sound").head);
    });
    group.finish();
}

criterion_group!(benches, put, replay, extents);
criterion_main!(benches);
