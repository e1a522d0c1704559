//! How long a message takes to find its queues, and a binding to be made, with little and with much that exists.
//!
//! `cargo bench --bench routing`. Two requirements are read off here: a match among 1,000,000 bindings costs less than twice
//! one among 1,000 (the same thousand keys in turn), and the 100,000th binding no more than twice the 100th.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lepus::definitions::{Applied, Change, ConnectionId, Definitions, Name, Registry, RouteSet, ShardIndex};
use lepus::protocol::field_table::FieldTable;
use lepus::protocol::properties::NO_PROPERTIES;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The global allocator of the broker.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEY_COUNT: usize = 1_000;
const QUEUE_COUNT: usize = 64;

fn vhost() -> Name {
    "/".into()
}

fn declare_queue(registry: &mut Registry, name: &str) {
    let change = Change::DeclareQueue {
        vhost: vhost(),
        name: name.into(),
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: FieldTable::default(),
        connection: ConnectionId::BROKER,
        home: ShardIndex(0),
    };
    assert!(matches!(registry.apply(change), Ok(Applied::Queue { created: true, .. })));
}

fn bind(exchange: &str, queue: usize, routing_key: &str) -> Change {
    Change::BindQueue {
        vhost: vhost(),
        exchange: exchange.into(),
        queue: format!("queue.{}", queue % QUEUE_COUNT).into(),
        routing_key: routing_key.as_bytes().into(),
        arguments: FieldTable::default(),
        connection: ConnectionId::BROKER,
    }
}

/// The key of one binding: `region.<r>.device.<n>.<event>`, for topic exchanges with wildcards in some.
fn key_of(exchange: &str, number: usize) -> String {
    let (region, device, event) = (number % 100, number, number % 7);
    match (exchange, number % 10) {
        ("amq.topic", 0) => format!("region.{region}.device.{device}.#"),
        ("amq.topic", 1) => format!("region.*.device.{device}.event{event}"),
        ("amq.topic", 2) => format!("region.{region}.device.{device}.*"),
        _ => format!("region.{region}.device.{device}.event{event}"),
    }
}

fn published_key(number: usize) -> String {
    let (region, event) = (number % 100, number % 7);
    format!("region.{region}.device.{number}.event{event}")
}

/// A registry with this many bindings on one exchange, of which a snapshot was given out.
fn registry_with(exchange: &str, bindings: usize) -> Registry {
    let mut registry = Registry::new();
    for queue in 0..QUEUE_COUNT {
        declare_queue(&mut registry, &format!("queue.{queue}"));
    }
    for number in 0..bindings {
        registry.apply(bind(exchange, number, &key_of(exchange, number))).expect("it is bound");
    }
    registry.snapshot();
    registry
}

fn route_all<'d>(
    definitions: &'d Definitions,
    exchange: &str,
    keys: &[String],
    next: &mut usize,
    set: &mut RouteSet<'d>,
) {
    let vhost = definitions.vhost(b"/").expect("it is there");
    let exchange = vhost.exchange(exchange.as_bytes()).expect("it is there");
    let key = keys[*next % keys.len()].as_bytes();
    *next += 1;
    definitions.route(vhost, exchange, &[black_box(key)], NO_PROPERTIES, set);
    black_box(set.queues().len());
}

fn matching(criterion: &mut Criterion) {
    for exchange in ["amq.topic", "amq.direct"] {
        let mut group = criterion.benchmark_group(format!("match/{exchange}"));
        for bindings in [1_000, 100_000, 1_000_000] {
            let definitions = registry_with(exchange, bindings).snapshot();
            let keys: Vec<_> = (0..KEY_COUNT).map(published_key).collect();
            group.bench_function(BenchmarkId::from_parameter(bindings), |bencher| {
                let (mut next, mut set) = (0, RouteSet::new());
                bencher.iter(|| route_all(&definitions, exchange, &keys, &mut next, &mut set));
            });
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("match/default");
    for queues in [100, 10_000] {
        let mut registry = Registry::new();
        (0..queues).for_each(|queue| declare_queue(&mut registry, &format!("queue.{queue}")));
        let definitions = registry.snapshot();
        let keys: Vec<_> = (0..100).map(|queue| format!("queue.{queue}")).collect();
        group.bench_function(BenchmarkId::from_parameter(queues), |bencher| {
            let (mut next, mut set) = (0, RouteSet::new());
            bencher.iter(|| route_all(&definitions, "", &keys, &mut next, &mut set));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("match/amq.fanout");
    for bindings in [5, 64] {
        let definitions = registry_with("amq.fanout", bindings).snapshot();
        group.bench_function(BenchmarkId::from_parameter(bindings), |bencher| {
            let (mut next, mut set) = (0, RouteSet::new());
            let keys = [String::new()];
            bencher.iter(|| route_all(&definitions, "amq.fanout", &keys, &mut next, &mut set));
        });
    }
    group.finish();
}

/// One more binding where there are this many. As the control plane does it: all that wait are applied, then a snapshot is given
/// out, and the next batch copies what it touches of that. With one to a batch each binding copies its whole path, the dearest
/// there is. What was added is taken out again outside of what is measured.
fn binding(criterion: &mut Criterion) {
    for batch in [64, 1] {
        for exchange in ["amq.topic", "amq.direct", "amq.fanout"] {
            let mut group = criterion.benchmark_group(format!("bind, {batch} to a snapshot/{exchange}"));
            group.throughput(Throughput::Elements(batch as u64));
            for bindings in [100, 1_000, 10_000, 100_000, 1_000_000] {
                let mut registry = registry_with(exchange, bindings - 1);
                let mut number = bindings;
                group.bench_function(BenchmarkId::from_parameter(bindings), |bencher| {
                    bencher.iter_custom(|batches| {
                        (0..batches)
                            .map(|_| {
                                number += 7919;
                                add_and_take_out(&mut registry, exchange, number, batch)
                            })
                            .sum()
                    });
                });
            }
            group.finish();
        }
    }
}

/// Binds as many keys as `batch` says, from `first` on, and gives out a snapshot; how long that took.
fn add_and_take_out(registry: &mut Registry, exchange: &str, first: usize, batch: usize) -> Duration {
    let keys: Vec<_> = (0..batch).map(|index| (first + index, key_of(exchange, first + 31 * index))).collect();
    let changes: Vec<_> = keys.iter().map(|(queue, key)| bind(exchange, *queue, key)).collect();
    let before = registry.snapshot();
    let start = Instant::now();
    for change in changes {
        registry.apply(change).expect("it is bound");
    }
    black_box(registry.snapshot());
    let spent = start.elapsed();
    drop(before);
    for (queue, key) in &keys {
        let Change::BindQueue { vhost, exchange, queue, routing_key, arguments, connection } =
            bind(exchange, *queue, key)
        else {
            unreachable!("it is what was just made")
        };
        let change = Change::UnbindQueue { vhost, exchange, queue, routing_key, arguments, connection };
        registry.apply(change).expect("it is unbound");
    }
    spent
}

/// An exclusive queue is declared and removed, among this many others.
fn queues(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("declare and remove a queue");
    for queues in [100, 100_000] {
        let mut registry = Registry::new();
        (0..queues).for_each(|queue| declare_queue(&mut registry, &format!("queue.{queue}")));
        group.bench_function(BenchmarkId::from_parameter(queues), |bencher| {
            bencher.iter_batched(
                || Change::DeclareQueue {
                    vhost: vhost(),
                    name: "".into(),
                    durable: false,
                    exclusive: true,
                    auto_delete: false,
                    arguments: FieldTable::default(),
                    connection: ConnectionId::BROKER,
                    home: ShardIndex(0),
                },
                |change| {
                    let Ok(Applied::Queue { definition, .. }) = registry.apply(change) else {
                        unreachable!("it is declared")
                    };
                    registry.snapshot();
                    registry.apply(Change::RemoveQueue { id: definition.id }).expect("it is removed");
                    registry.snapshot();
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, matching, binding, queues);
criterion_main!(benches);
