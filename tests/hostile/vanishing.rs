//! Clients that vanish: what they left half done is undone, what they held comes back.

use std::time::Duration;

use crate::support::broker::Broker;
use crate::support::canary::broker_is_unhurt;
use crate::support::methods::{self, NO_PROPERTIES, basic, content_header, publish, queue, tx};
use crate::support::octets::{BODY, HEADER, Octets};
use crate::support::wire::Wire;
use crate::support::{unique, wait_until};

/// How long the broker may take to notice a closed socket and give back what it held.
const NOTICED_MAX: Duration = Duration::from_secs(20);

fn delete(mut wire: Wire, queue: &str) {
    wire.call(1, &methods::queue_delete(queue), queue::DELETE_OK);
}

#[test]
fn a_message_cut_off_in_the_middle_is_not_published() {
    let mut broker = Broker::start(&[]);
    let mut watcher = Wire::open(&broker);
    let name = watcher.declare(1, &unique("middle"), 0);
    let mut wire = Wire::open(&broker);
    wire.publish(1, "", &name, 0, b"first");
    wire.send_method(1, &publish("", &name, 0));
    wire.send_frame(HEADER, 1, &content_header(1_000_000, &NO_PROPERTIES));
    wire.send_frame(BODY, 1, &[b'x'; 100_000]);
    drop(wire);
    wait_until("the first message is there", NOTICED_MAX, || watcher.counts(1, &name).0 == 1);
    broker_is_unhurt(&mut broker);
    assert_eq!(watcher.get(1, &name, true).expect("it is there").text(), "first");
    assert!(watcher.get(1, &name, true).is_none());
    delete(watcher, &name);
}

/// Goal: an uncommitted transaction has published nothing and acknowledged nothing.
#[test]
fn a_transaction_cut_off_in_the_middle_is_rolled_back() {
    let mut broker = Broker::start(&[]);
    let mut watcher = Wire::open(&broker);
    let name = watcher.declare(1, &unique("transaction"), 0);
    watcher.publish(1, "", &name, 0, b"committed before");
    watcher.synchronise(1);
    let mut wire = Wire::open(&broker);
    wire.call(1, &Octets::method(tx::SELECT).0, tx::SELECT_OK);
    let held = wire.get(1, &name, false).expect("it is there");
    wire.send_method(1, &methods::ack(held.delivery_tag, false));
    for number in 0..10 {
        wire.publish(1, "", &name, 0, format!("uncommitted {number}").as_bytes());
    }
    wire.synchronise(1);
    assert_eq!(watcher.counts(1, &name).0, 0);
    drop(wire);
    wait_until("the message comes back", NOTICED_MAX, || watcher.counts(1, &name).0 == 1);
    let back = watcher.get(1, &name, true).expect("it is back");
    assert!(back.redelivered);
    assert_eq!(back.text(), "committed before");
    assert!(watcher.get(1, &name, true).is_none());
    delete(watcher, &name);
    broker_is_unhurt(&mut broker);
}

/// Goal: what a vanished consumer held comes back to its old place, marked.
/// Method: hold 100 of 200 without acknowledging, acknowledge every tenth, drop the socket, read all in order.
#[test]
fn unacknowledged_messages_come_back_in_order_and_marked() {
    let mut broker = Broker::start(&[]);
    let mut watcher = Wire::open(&broker);
    let name = watcher.declare(1, &unique("back"), 0);
    for number in 0..200 {
        watcher.publish(1, "", &name, 0, number.to_string().as_bytes());
    }
    watcher.synchronise(1);
    let mut wire = Wire::open(&broker);
    wire.call(1, &methods::qos(100, false), basic::QOS_OK);
    wire.consume(1, &name, "holder", 0);
    for number in 0..100 {
        assert_eq!(wire.expect_delivery(1).text(), number.to_string());
    }
    wire.expect_quiet();
    drop(wire);
    wait_until("all come back", NOTICED_MAX, || watcher.counts(1, &name) == (200, 0));
    for number in 0..200 {
        let delivery = watcher.get(1, &name, true).expect("it is back");
        assert_eq!((delivery.text(), delivery.redelivered), (number.to_string().as_str(), number < 100));
    }
    delete(watcher, &name);
    broker_is_unhurt(&mut broker);
}

/// Exclusive queues die with their connection, however it ends; auto-delete ones with their last consumer.
#[test]
fn exclusive_and_auto_delete_queues_vanish_with_their_client() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    let exclusive = wire.declare(1, &unique("exclusive"), methods::EXCLUSIVE);
    let auto_delete = wire.declare(1, &unique("auto-delete"), methods::AUTO_DELETE);
    wire.consume(1, &auto_delete, "c", 0);
    drop(wire);
    for name in [&exclusive, &auto_delete] {
        wait_until("the queue is gone", NOTICED_MAX, || {
            let mut watcher = Wire::open(&broker);
            let declare = methods::queue_declare(name, methods::PASSIVE, &crate::support::octets::Table::new());
            watcher.send_method(1, &declare);
            // 405 while the exclusive one is still there, 404 afterwards.
            let answer = watcher.read_frame();
            answer.method_id() == Some(methods::channel::CLOSE) && answer.arguments().u16() == 404
        });
    }
    broker_is_unhurt(&mut broker);
}

/// Goal: 100,000 unacknowledged messages on one channel are all given back, in order, and memory with them.
#[test]
fn a_hundred_thousand_unacknowledged_messages_come_back() {
    const MESSAGES: u32 = 100_000;
    let mut broker = Broker::start(&[]);
    let mut watcher = Wire::open(&broker);
    let name = watcher.declare(1, &unique("unacknowledged"), 0);
    let mut batch = Vec::new();
    for number in 0..MESSAGES {
        batch.extend(crate::support::wire::message(1, "", &name, 0, &number.to_be_bytes(), 131_072));
        if batch.len() > 60_000 {
            watcher.send(&batch);
            batch.clear();
        }
    }
    watcher.send(&batch);
    watcher.synchronise(1);
    let mut wire = Wire::open(&broker);
    wire.consume(1, &name, "holder", 0);
    for number in 0..MESSAGES {
        let delivery = wire.expect_delivery(1);
        assert_eq!(delivery.body, number.to_be_bytes());
        assert_eq!(delivery.delivery_tag, u64::from(number) + 1);
    }
    assert_eq!(watcher.counts(1, &name), (0, 1));
    drop(wire);
    wait_until("all come back", NOTICED_MAX, || watcher.counts(1, &name) == (MESSAGES, 0));
    watcher.consume(1, &name, "second", methods::NO_ACK);
    for number in 0..MESSAGES {
        let delivery = watcher.expect_delivery(1);
        assert_eq!(delivery.body, number.to_be_bytes());
        assert!(delivery.redelivered);
    }
    delete(watcher, &name);
    broker_is_unhurt(&mut broker);
}

/// Acknowledging in the worst order: every second from the end, the others are given back.
#[test]
fn acknowledgements_in_any_order_are_cheap() {
    let mut broker = Broker::start(&[]);
    // RabbitMQ takes a time that grows with the square.
    let messages: u64 = if broker.is_oracle() { 2_000 } else { 50_000 };
    let mut wire = Wire::open(&broker);
    let name = wire.declare(1, "", methods::EXCLUSIVE);
    for number in 0..messages {
        wire.publish(1, "", &name, 0, &number.to_be_bytes());
    }
    wire.consume(1, &name, "holder", 0);
    for _ in 0..messages {
        wire.expect_delivery(1);
    }
    wire.call(1, &methods::cancel("holder"), basic::CANCEL_OK);
    for tag in (1..=messages).rev().step_by(2) {
        wire.send_method(1, &methods::ack(tag, false));
    }
    wire.call(1, &methods::recover(true), basic::RECOVER_OK);
    wait_until("half come back", NOTICED_MAX, || u64::from(wire.counts(1, &name).0) == messages / 2);
    let first = wire.get(1, &name, true).expect("it is back");
    assert_eq!((first.body, first.redelivered), (0_u64.to_be_bytes().to_vec(), true));
    broker_is_unhurt(&mut broker);
}
