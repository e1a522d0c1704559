//! What a message costs in one shard, from the octets of its publish to those of its delivery: no sockets, no executor, no
//! other shard.
//!
//! Run it with `cargo bench --bench shard`; under callgrind, with `--profile-time 1` and the name of one benchmark.

#[path = "../tests/in_memory/mod.rs"]
mod in_memory;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use in_memory::{broker::Broker, session::handshake, tape::framed};
use lepus::protocol::{
    content::put_content,
    method::{basic, channel, confirm, exchange, queue},
    properties::NO_PROPERTIES,
};

const FRAME_MAX: u32 = 131_072;
/// Messages that a turn brings, and after which one acknowledgement comes.
const TURN_MESSAGES: u64 = 100;
const TOPIC_BINDINGS: usize = 1000;

/// A producer and a consumer on channel 1 of a connection each.
struct Setting {
    broker: Broker,
    producer: usize,
    consumer: usize,
}

/// The queues `q0`, `q1` and so on, consumed from.
fn setting(queue_count: usize, no_ack: bool) -> Setting {
    let mut broker = Broker::new(1);
    let (producer, consumer) = (broker.connect(0), broker.connect(0));
    for client in [producer, consumer] {
        broker.send(client, &handshake(FRAME_MAX, true));
        broker.send(client, &framed(1, &channel::Open {}.into()));
    }
    let mut setting = Setting { broker, producer, consumer };
    setting.ask(consumer, &basic::Qos { prefetch_count: 1000, ..Default::default() }.into());
    for at in 0..queue_count {
        let name = format!("q{at}");
        setting.ask(consumer, &queue::Declare { queue: name.as_bytes(), ..Default::default() }.into());
        setting.ask(consumer, &basic::Consume { queue: name.as_bytes(), no_ack, ..Default::default() }.into());
    }
    setting
}

impl Setting {
    fn ask(&mut self, client: usize, method: &lepus::protocol::method::Method<'_>) {
        self.broker.send(client, &framed(1, method));
        self.broker.settle();
        assert!(!self.broker.is_gone(client));
        self.broker.take_output(client);
    }

    /// Declares an exchange and binds the queues to it in turn.
    fn bind(&mut self, kind: &[u8], keys: &[String], queue_count: usize) {
        let exchange = b"benchmark";
        self.ask(self.consumer, &exchange::Declare { exchange, kind, ..Default::default() }.into());
        for (at, key) in keys.iter().enumerate() {
            let (name, routing_key) = (format!("q{}", at % queue_count), key.as_bytes());
            let queue = name.as_bytes();
            self.ask(self.consumer, &queue::Bind { queue, exchange, routing_key, ..Default::default() }.into());
        }
    }

    /// One turn of the shard: what arrived is handled, and what it answers is written to sockets that take everything.
    fn turn(&mut self, client: usize, octets: &[u8]) -> usize {
        let slot = self.broker.slot(client);
        let shard = self.broker.shard(0);
        assert_eq!(shard.handle_input(slot, octets), octets.len());
        shard.finish_turn();
        let mut written = 0;
        while let Some(slot) = shard.poll_dirty() {
            let octets = shard.output(slot).map_or(0, |output| output.len());
            shard.handle_written(slot, octets, false);
            written += octets;
        }
        written
    }
}

/// The publishes of one turn.
fn publishes(exchange: &[u8], key: impl Fn(u64) -> String, body_octets: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    for at in 0..TURN_MESSAGES {
        let key = key(at);
        let publish = basic::Publish { exchange, routing_key: key.as_bytes(), ..Default::default() };
        octets.extend(framed(1, &publish.into()));
        put_content(&mut octets, 1, NO_PROPERTIES, &vec![7; body_octets], FRAME_MAX as usize);
    }
    octets
}

/// Publishes and deliveries without acknowledgements.
fn run(criterion: &mut Criterion, name: &str, mut setting: Setting, octets: &[u8], deliveries: u64) {
    let mut group = criterion.benchmark_group("shard");
    group.throughput(Throughput::Elements(TURN_MESSAGES));
    let before = setting.broker.shard(0).metrics().delivered;
    setting.turn(setting.producer, octets);
    assert_eq!(setting.broker.shard(0).metrics().delivered - before, deliveries, "{name}");
    group.bench_function(name, |bencher| bencher.iter(|| setting.turn(setting.producer, octets)));
    group.finish();
}

fn auto_ack(criterion: &mut Criterion) {
    for body_octets in [16, 1024] {
        let octets = publishes(b"", |_| "q0".into(), body_octets);
        run(criterion, &format!("auto-ack, {body_octets} octets"), setting(1, true), &octets, TURN_MESSAGES);
    }
}

fn manual_ack(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard");
    group.throughput(Throughput::Elements(TURN_MESSAGES));
    for body_octets in [16, 1024] {
        let octets = publishes(b"", |_| "q0".into(), body_octets);
        let mut setting = setting(1, false);
        setting.ask(setting.producer, &confirm::Select::default().into());
        let mut delivery_tag = 0;
        group.bench_function(format!("acks and confirms, {body_octets} octets"), |bencher| {
            bencher.iter(|| {
                let written = setting.turn(setting.producer, &octets);
                delivery_tag += TURN_MESSAGES;
                let ack = framed(1, &basic::Ack { delivery_tag, multiple: true }.into());
                written + setting.turn(setting.consumer, &ack)
            });
        });
        let metrics = setting.broker.shard(0).metrics();
        assert_eq!((metrics.delivered, metrics.acknowledged), (delivery_tag, delivery_tag));
    }
    group.finish();
}

fn fanout(criterion: &mut Criterion) {
    let mut setting = setting(5, true);
    setting.bind(b"fanout", &vec![String::new(); 5], 5);
    let octets = publishes(b"benchmark", |_| "a".into(), 16);
    run(criterion, "fanout to 5, 16 octets", setting, &octets, 5 * TURN_MESSAGES);
}

/// Half of the bindings have a `*`, half a `#`; each key meets one of them, and each publish has another key.
fn topic(criterion: &mut Criterion) {
    let mut setting = setting(10, true);
    let keys: Vec<String> = (0..TOPIC_BINDINGS)
        .map(|at| if at % 2 == 0 { format!("stock.{at}.*.price") } else { format!("stock.{at}.#") })
        .collect();
    setting.bind(b"topic", &keys, 10);
    let octets = publishes(b"benchmark", |at| format!("stock.{}.usd.price", at * 10), 16);
    run(criterion, "topic, 1000 bindings, 16 octets", setting, &octets, TURN_MESSAGES);
}

criterion_group!(benches, auto_ack, manual_ack, fanout, topic);
criterion_main!(benches);
