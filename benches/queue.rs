//! What one message costs in a queue: per message, in batches as a shard's turn brings them.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lepus::definitions::QueueOptions;
use lepus::message::{BodyView, MessageView};
use lepus::queue::consumers::{ConsumerSettings, Consumers};
use lepus::queue::{Attributes, Queue};
use std::collections::VecDeque;
use std::hint::black_box;

const KEY: &[u8] = b"benchmark";
const PROPERTIES: &[u8] = &[0x10, 0, 1];
const BODY: &[u8] = &[7; 16];

fn message(body: &[u8]) -> MessageView<'_> {
    MessageView { exchange: b"", routing_key: KEY, properties: PROPERTIES, body: BodyView::Slice(body) }
}

fn enqueue(queue: &mut Queue, body: &[u8], attributes: Attributes) {
    let _ = black_box(queue.enqueue(black_box(message(body)), black_box(attributes), &mut |_, _| {}));
}

/// A queue that some messages wait in: each turn 64 come, are delivered, and the 64 oldest are acknowledged.
fn turn(queue: &mut Queue, outstanding: &mut VecDeque<u64>, body: &[u8], attributes: Attributes) {
    for _ in 0..64 {
        enqueue(queue, body, attributes);
    }
    for _ in 0..64 {
        let front = queue.front().expect("64 are ready");
        outstanding.push_back(front.position);
        black_box(front.message.body.len());
        queue.hold_front();
    }
    for _ in 0..64 {
        let position = outstanding.pop_front().expect("64 are outstanding");
        assert!(queue.acknowledge(position));
    }
}

fn steady(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("enqueue, hold, acknowledge");
    group.throughput(Throughput::Elements(64));
    let cases = [
        ("16 B", 16, 0, None),
        ("16 B, 1,000 outstanding", 16, 1_000, None),
        ("16 B, 100,000 outstanding", 16, 100_000, None),
        ("1 KiB", 1024, 0, None),
        ("16 B, priorities", 16, 1_000, Some(9)),
    ];
    for (name, octets, outstanding_count, priority_max) in cases {
        group.bench_function(name, |bencher| {
            let body = vec![7; octets];
            let mut queue = Queue::new(QueueOptions { priority_max, ..QueueOptions::default() });
            let mut outstanding = VecDeque::new();
            for _ in 0..outstanding_count {
                outstanding.push_back(queue.hold_new(message(&body), Attributes::default()));
            }
            bencher.iter(|| turn(&mut queue, &mut outstanding, &body, Attributes::default()));
        });
    }
    group.finish();
}

fn other_ways(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one message");
    group.throughput(Throughput::Elements(1));
    group.bench_function("hold_new, acknowledge", |bencher| {
        let mut queue = Queue::new(QueueOptions::default());
        bencher.iter(|| {
            let position = queue.hold_new(black_box(message(BODY)), Attributes::default());
            assert!(queue.acknowledge(position));
        });
    });
    group.bench_function("enqueue, front, remove", |bencher| {
        let mut queue = Queue::new(QueueOptions::default());
        bencher.iter(|| {
            enqueue(&mut queue, BODY, Attributes::default());
            black_box(queue.front().expect("one is ready").message.body.len());
            queue.remove_front();
        });
    });
    group.bench_function("enqueue, hold, requeue, remove", |bencher| {
        let mut queue = Queue::new(QueueOptions::default());
        bencher.iter(|| {
            enqueue(&mut queue, BODY, Attributes::default());
            let position = queue.front().expect("one is ready").position;
            queue.hold_front();
            assert!(queue.requeue(position, true));
            queue.remove_front();
        });
    });
    group.finish();
}

fn backlog(criterion: &mut Criterion) {
    const MESSAGES: u64 = 1_000_000;
    let mut group = criterion.benchmark_group("backlog of 1,000,000");
    group.throughput(Throughput::Elements(MESSAGES));
    group.sample_size(10);
    let filled = || {
        let mut queue = Queue::new(QueueOptions::default());
        (0..MESSAGES).for_each(|_| enqueue(&mut queue, BODY, Attributes::default()));
        queue
    };
    group.bench_function("fill", |bencher| bencher.iter_with_large_drop(filled));
    group.bench_function("drain", |bencher| {
        bencher.iter_batched(
            filled,
            |mut queue| {
                while let Some(front) = queue.front() {
                    black_box(front.message.body.octets());
                    queue.remove_front();
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn consumers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("next consumer");
    group.throughput(Throughput::Elements(1));
    for (count, ready) in [(1, 1), (10, 10), (10_000, 10_000), (10_000, 2)] {
        group.bench_function(format!("{count} consumers, {ready} ready"), |bencher| {
            let mut consumers = Consumers::new(false);
            let settings = ConsumerSettings { priority: 0, exclusive: false, acknowledges: true, credit: Some(1) };
            for number in 0..count {
                let key = consumers.add(number, settings);
                if number >= ready {
                    consumers.suspend(key);
                }
            }
            bencher.iter(|| {
                let (key, _, _) = consumers.next().expect("one is ready");
                consumers.restore(black_box(key), 1);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, steady, other_ways, backlog, consumers);
criterion_main!(benches);
