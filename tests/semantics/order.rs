//! First in, first out per publishing channel and queue, whatever shards are between.

use std::collections::HashMap;

use crate::support::broker::Broker;
use crate::support::methods::{self, NO_ACK, queue};
use crate::support::unique;
use crate::support::wire::{Wire, message};

/// Goal: order holds per channel and queue.
/// Method: six publishers with two channels each publish numbered messages to four queues, through the default
/// exchange and through a fanout by turns; a consumer per queue, each on its own connection, checks every number.
#[test]
fn order_holds_per_channel_and_queue_across_shards() {
    const PUBLISHERS: usize = 6;
    const MESSAGES: usize = 1_000;
    let broker = Broker::start(&["--shards", "3"]);
    let mut control = Wire::open(&broker);
    let exchange = unique("order");
    let declare = methods::exchange_declare(&exchange, "fanout", 0);
    control.call(1, &declare, methods::exchange::DECLARE_OK);
    let names: Vec<String> = (0..4).map(|_| control.declare(1, &unique("order"), 0)).collect();
    for name in &names {
        control.call(1, &methods::queue_bind(name, &exchange, ""), queue::BIND_OK);
    }
    std::thread::scope(|scope| {
        for name in &names {
            let mut wire = Wire::open(&broker);
            // Half of the consumers acknowledge.
            let acknowledges = name.ends_with(['0', '2', '4', '6', '8']);
            wire.consume(1, name, "c", if acknowledges { 0 } else { NO_ACK });
            scope.spawn(move || {
                let mut last: HashMap<String, usize> = HashMap::new();
                for _ in 0..PUBLISHERS * 2 * MESSAGES {
                    let delivery = wire.expect_delivery(1);
                    let (publisher, number) = delivery.text().split_once(' ').expect("publisher and number");
                    let number: usize = number.parse().expect("a number");
                    let expected = last.entry(publisher.to_owned()).or_insert(0);
                    assert_eq!(number, *expected, "of publisher {publisher}");
                    *expected += 1;
                    if acknowledges && delivery.delivery_tag.is_multiple_of(100) {
                        wire.send_method(1, &methods::ack(delivery.delivery_tag, true));
                    }
                }
                assert_eq!(last.len(), PUBLISHERS * 2);
            });
        }
        for publisher in 0..PUBLISHERS {
            let mut wire = Wire::open(&broker);
            wire.open_channel(2);
            let (names, exchange) = (&names, &exchange);
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    let mut octets = Vec::new();
                    for channel in [1, 2] {
                        let body = format!("{publisher}.{channel} {number}");
                        if number % 2 == 0 {
                            octets.extend(message(channel, exchange, "", 0, body.as_bytes(), 131_072));
                        } else {
                            for name in names {
                                octets.extend(message(channel, "", name, 0, body.as_bytes(), 131_072));
                            }
                        }
                    }
                    wire.send(&octets);
                }
                wire.synchronise(1);
                wire.synchronise(2);
            });
        }
    });
    for name in &names {
        control.call(1, &methods::queue_delete(name), queue::DELETE_OK);
    }
}

/// Goal: a publish after a declare-ok, on whichever connection, is routed by what was declared.
#[test]
fn what_was_declared_routes_at_once_on_every_shard() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut control = Wire::open(&broker);
    let mut publishers: Vec<Wire> = (0..6).map(|_| Wire::open(&broker)).collect();
    let name = control.declare(1, &unique("visible"), 0);
    for round in 0..200 {
        let key = format!("key-{round}");
        control.call(1, &methods::queue_bind(&name, "amq.topic", &key), queue::BIND_OK);
        let publisher = &mut publishers[round % 6];
        publisher.publish(1, "amq.topic", &key, methods::MANDATORY, key.as_bytes());
        // A return would come in front of this answer.
        publisher.synchronise(1);
        assert_eq!(control.counts(1, &name).0, 1, "round {round}");
        assert_eq!(control.get(1, &name, true).expect("it arrived").text(), key);
    }
    control.call(1, &methods::queue_delete(&name), queue::DELETE_OK);
}

/// Frames behind a declare on the same channel wait for it, also with no-wait.
#[test]
fn a_publish_behind_a_declare_without_waiting_arrives() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut wire = Wire::open(&broker);
    let none = crate::support::octets::Table::new();
    for _ in 0..100 {
        let name = unique("no-wait");
        wire.send_method(1, &methods::queue_declare(&name, methods::NO_WAIT | methods::EXCLUSIVE, &none));
        wire.publish(1, "", &name, methods::MANDATORY, b"x");
        assert_eq!(wire.get(1, &name, true).expect("it arrived").text(), "x");
    }
}

/// Goal: a rejected backlog that is requeued while others publish keeps every consumer's view in order.
#[test]
fn requeued_messages_come_before_those_behind_them() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut wire = Wire::open(&broker);
    let mut other = Wire::open(&broker);
    let name = wire.declare(1, &unique("requeue"), 0);
    for number in 0..100_u32 {
        wire.publish(1, "", &name, 0, &number.to_be_bytes());
    }
    wire.synchronise(1);
    let tags: Vec<u64> = (0..50).map(|_| other.get(1, &name, false).expect("it is there").delivery_tag).collect();
    // Given back in a wild order.
    for tag in tags.iter().step_by(2).chain(tags.iter().skip(1).step_by(2).rev()) {
        other.send_method(1, &methods::reject(*tag, true));
    }
    other.synchronise(1);
    crate::support::wait_until("all are back", std::time::Duration::from_secs(10), || wire.counts(1, &name).0 == 100);
    for number in 0..100_u32 {
        let got = wire.get(1, &name, true).expect("it is there");
        assert_eq!((got.body, got.redelivered), (number.to_be_bytes().to_vec(), number < 50));
    }
    wire.call(1, &methods::queue_delete(&name), queue::DELETE_OK);
}
