//! Queues with limits of length and time.

use std::time::Duration;

use crate::support::broker::Broker;
use crate::support::methods::{self, EXCLUSIVE, NO_ACK, PASSIVE, basic, confirm, queue};
use crate::support::octets::{Octets, Table};
use crate::support::wire::Wire;
use crate::support::{unique, wait_until};

const SOON: Duration = Duration::from_secs(20);

fn declare(wire: &mut Wire, name: &str, arguments: &Table) {
    wire.call(1, &methods::queue_declare(name, EXCLUSIVE, arguments), queue::DECLARE_OK);
}

/// Goal: what would put a queue over its limit is refused before it is looked for who takes it, as in RabbitMQ.
/// Method: a limit of no message at all, with a consumer that waits for one; then one of one message, for comparison.
#[test]
fn a_full_queue_refuses_also_while_a_consumer_waits() {
    let broker = Broker::start(&["--shards", "2"]);
    for (most, answer) in [(0, basic::NACK), (1, basic::ACK)] {
        let mut wire = Wire::open(&broker);
        let name = unique("refusing");
        declare(&mut wire, &name, &Table::new().i32("x-max-length", most).text("x-overflow", "reject-publish"));
        wire.call(1, &methods::consume(&name, "c", NO_ACK), basic::CONSUME_OK);
        wire.open_channel(2);
        wire.call(2, &methods::confirm_select(), confirm::SELECT_OK);
        wire.publish(2, "", &name, 0, b"x");
        loop {
            let frame = wire.read_frame();
            if frame.channel == 2 && frame.method_id().is_some() {
                assert_eq!(frame.method_id(), Some(answer), "with a limit of {most}");
                break;
            }
        }
    }
}

/// Publishes with an expiration.
fn publish_expiring(wire: &mut Wire, queue: &str, millis: &str) {
    wire.send_method(1, &methods::publish("", queue, 0));
    wire.send_frame(2, 1, &methods::content_header(4, &Octets::new().u16(1 << 8).short(millis).0));
    wire.send_frame(3, 1, b"late");
}

/// Waits until a queue has so many messages.
#[track_caller]
fn wait_for_count(wire: &mut Wire, queue: &str, count: u32) {
    wait_until("the messages are there", SOON, || {
        let passive = methods::queue_declare(queue, PASSIVE, &Table::new());
        let mut declared = wire.call(1, &passive, queue::DECLARE_OK);
        declared.short();
        declared.u32() == count
    });
}

/// Goal: nobody gets what has expired, however much of it there is and wherever it stands, and all of it reaches the dead letter
/// exchange soon.
/// Method: very many expired messages behind one that does not expire, so that they all come to the front at once: when
/// `basic.get` takes that one, and when it is delivered to a consumer. The dead letters go to another shard and to the same.
#[test]
fn very_many_that_expire_at_once_go_to_the_dead_letter_exchange_only() {
    const MESSAGES: u32 = 20_000;
    let broker = Broker::start(&["--shards", "2"]);
    // On either shard.
    let (mut wire, mut other) = (Wire::open(&broker), Wire::open(&broker));
    for (is_got, is_far) in [(true, false), (true, true), (false, false), (false, true)] {
        let (dead, name) = (unique("dead"), unique("expiring"));
        let owner = if is_far { &mut other } else { &mut wire };
        owner.call(1, &methods::queue_declare(&dead, 0, &Table::new()), queue::DECLARE_OK);
        let arguments = Table::new().text("x-dead-letter-exchange", "").text("x-dead-letter-routing-key", &dead);
        declare(&mut wire, &name, &arguments);
        wire.publish(1, "", &name, 0, b"stays");
        for _ in 0..MESSAGES {
            publish_expiring(&mut wire, &name, "10");
        }
        wire.synchronise(1);
        std::thread::sleep(Duration::from_millis(30));
        if is_got {
            assert_eq!(wire.get(1, &name, true).expect("it does not expire").text(), "stays");
            wire.publish(1, "", &name, 0, b"behind them");
            assert_eq!(wire.get(1, &name, true).expect("it does not expire").text(), "behind them");
        } else {
            wire.call(1, &methods::consume(&name, "c", NO_ACK), basic::CONSUME_OK);
            assert_eq!(wire.expect_delivery(1).text(), "stays");
        }
        wait_for_count(&mut other, &dead, MESSAGES);
        wire.expect_quiet();
        other.call(1, &methods::queue_delete(&dead), queue::DELETE_OK);
        if !is_got {
            wire.call(1, &methods::cancel("c"), basic::CANCEL_OK);
        }
    }
}

/// Goal: a message that came back expires at its time, though nobody touches its queue any more.
/// Method: a consumer takes it at once, and leaves before its time is up.
#[test]
fn what_came_back_expires() {
    let broker = Broker::start(&["--shards", "2"]);
    let (mut wire, mut other) = (Wire::open(&broker), Wire::open(&broker));
    let (dead, name) = (unique("dead"), unique("expiring"));
    other.call(1, &methods::queue_declare(&dead, 0, &Table::new()), queue::DECLARE_OK);
    let arguments = Table::new().text("x-dead-letter-exchange", "").text("x-dead-letter-routing-key", &dead);
    other.call(1, &methods::queue_declare(&name, 0, &arguments), queue::DECLARE_OK);
    wire.call(1, &methods::consume(&name, "c", 0), basic::CONSUME_OK);
    publish_expiring(&mut other, &name, "1500");
    assert_eq!(wire.expect_delivery(1).text(), "late");
    // Some ticks find nothing that could expire.
    std::thread::sleep(Duration::from_millis(500));
    wire.close();
    wait_for_count(&mut other, &dead, 1);
    other.call(1, &methods::queue_delete(&dead), queue::DELETE_OK);
    other.call(1, &methods::queue_delete(&name), queue::DELETE_OK);
}
