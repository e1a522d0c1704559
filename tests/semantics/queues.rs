//! Queues: whose they are, when they go, who is told.

use std::time::Duration;

use crate::support::broker::Broker;
use crate::support::methods::{
    self, AUTO_DELETE, CONSUME_EXCLUSIVE, EXCLUSIVE, NO_ACK, PASSIVE, basic, channel, queue,
};
use crate::support::octets::{Octets, Table};
use crate::support::wire::{Handshake, Wire};
use crate::support::{unique, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// Goal: nobody else does anything with an exclusive queue.
#[test]
fn exclusive_queues_are_locked_for_other_connections() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut owner = Wire::open(&broker);
    let name = owner.declare(1, &unique("exclusive"), EXCLUSIVE);
    let none = Table::new();
    let text = format!(
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' in vhost '/'. It could be originally \
         declared on another connection or the exclusive property value does not match that of the original declaration."
    );
    let attempts = [
        methods::queue_declare(&name, EXCLUSIVE, &none),
        methods::queue_declare(&name, 0, &none),
        methods::queue_declare(&name, PASSIVE, &none),
        methods::queue_bind(&name, "amq.topic", "k"),
        methods::queue_purge(&name),
        methods::queue_delete(&name),
        methods::consume(&name, "c", 0),
        methods::get(&name, true),
    ];
    // Connections on every shard.
    for _ in 0..3 {
        let mut other = Wire::open(&broker);
        for attempt in &attempts {
            other.send_method(1, attempt);
            other.expect_channel_close(1, 405, &text);
            other.open_channel(1);
        }
        // Publishing is free to all.
        other.publish(1, "", &name, 0, b"from outside");
        other.synchronise(1);
    }
    assert_eq!(owner.get(1, &name, true).expect("it arrived").text(), "from outside");
    // The owner may use it on any of its channels, and declare it again.
    owner.open_channel(2);
    owner.declare(2, &name, EXCLUSIVE);
    owner.close();
    wait_until("the name is free", SOON, || {
        let mut other = Wire::open(&broker);
        other.send_method(1, &methods::queue_declare(&name, PASSIVE, &none));
        let answer = other.read_frame();
        answer.method_id() == Some(channel::CLOSE) && answer.arguments().u16() == 404
    });
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut wire = Wire::open(&broker);
    let mut other = Wire::open(&broker);
    let name = wire.declare(1, &unique("auto-delete"), AUTO_DELETE);
    // Without ever having had a consumer it stays.
    assert_eq!(other.counts(1, &name), (0, 0));
    wire.consume(1, &name, "a", NO_ACK);
    other.consume(1, &name, "b", NO_ACK);
    wire.call(1, &methods::cancel("a"), basic::CANCEL_OK);
    assert_eq!(wire.counts(1, &name), (0, 1));
    other.call(1, &methods::cancel("b"), basic::CANCEL_OK);
    wire.send_method(1, &methods::queue_declare(&name, PASSIVE, &Table::new()));
    wire.expect_channel_close(1, 404, &format!("NOT_FOUND - no queue '{name}' in vhost '/'"));
}

/// Goal: consumers learn that their queue is gone, those that can understand it.
#[test]
fn consumers_are_told_when_their_queue_is_deleted() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut control = Wire::open(&broker);
    let name = control.declare(1, &unique("cancel"), 0);
    let mut told: Vec<Wire> = (0..4).map(|_| Wire::open(&broker)).collect();
    for (number, wire) in told.iter_mut().enumerate() {
        wire.consume(1, &name, &format!("c{number}"), 0);
    }
    let mut deaf = Wire::open_with(&broker, &Handshake { capabilities: Vec::new(), ..Handshake::default() });
    deaf.open_channel(1);
    deaf.consume(1, &name, "deaf", 0);
    control.call(1, &methods::queue_delete(&name), queue::DELETE_OK);
    for (number, wire) in told.iter_mut().enumerate() {
        assert_eq!(wire.expect_method(1, basic::CANCEL).short(), format!("c{number}"));
        // No answer is awaited (RabbitMQ even refuses cancel-ok with 503); the tag is free again.
        let again = wire.declare(1, "", EXCLUSIVE);
        wire.consume(1, &again, &format!("c{number}"), 0);
    }
    deaf.expect_quiet();
    deaf.synchronise(1);
}

#[test]
fn an_exclusive_consumer_is_alone() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut wire = Wire::open(&broker);
    let mut other = Wire::open(&broker);
    let name = wire.declare(1, &unique("alone"), 0);
    wire.consume(1, &name, "alone", CONSUME_EXCLUSIVE);
    other.send_method(1, &methods::consume(&name, "c", 0));
    let text = format!("ACCESS_REFUSED - queue '{name}' in vhost '/' in exclusive use");
    other.expect_channel_close(1, 403, &text);
    other.open_channel(1);
    wire.call(1, &methods::cancel("alone"), basic::CANCEL_OK);
    other.consume(1, &name, "c", 0);
    // And the other way round: where somebody consumes, nobody can be alone.
    wire.send_method(1, &methods::consume(&name, "alone", CONSUME_EXCLUSIVE));
    wire.expect_channel_close(1, 403, &text);
    other.call(1, &methods::queue_delete(&name), queue::DELETE_OK);
}

#[test]
fn declaring_again_with_other_arguments_is_refused() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut wire = Wire::open(&broker);
    let name = unique("again");
    let arguments = Table::new().i32("x-message-ttl", 1000);
    wire.call(1, &methods::queue_declare(&name, 0, &arguments), queue::DECLARE_OK);
    let at = format!("for queue '{name}' in vhost '/': received");
    let attempts = [
        (
            methods::queue_declare(&name, methods::DURABLE, &arguments),
            format!("inequivalent arg 'durable' {at} 'true' but current is 'false'"),
        ),
        (
            methods::queue_declare(&name, AUTO_DELETE, &arguments),
            format!("inequivalent arg 'auto_delete' {at} 'true' but current is 'false'"),
        ),
        (
            methods::queue_declare(&name, 0, &Table::new()),
            format!("inequivalent arg 'x-message-ttl' {at} none but current is the value '1000' of type 'signedint'"),
        ),
        (
            methods::queue_declare(&name, 0, &Table::new().i32("x-message-ttl", 7)),
            // RabbitMQ 3.10 goes on with `'7' but current is '1000'`.
            format!("inequivalent arg 'x-message-ttl' {at}"),
        ),
    ];
    for (attempt, text) in attempts {
        // On connections of every shard.
        let mut other = Wire::open(&broker);
        other.send_method(1, &attempt);
        other.expect_channel_close(1, 406, &format!("PRECONDITION_FAILED - {text}"));
    }
    // The same value in another width is the same.
    let in_eight_octets = Table::new().entry("x-message-ttl", b'l', &1000_i64.to_be_bytes());
    wire.call(1, &methods::queue_declare(&name, 0, &in_eight_octets), queue::DECLARE_OK);
    wire.call(1, &methods::queue_delete(&name), queue::DELETE_OK);
}

#[test]
fn deletion_asks_whether_a_queue_is_used_or_empty() {
    const IF_UNUSED: u8 = 1;
    const IF_EMPTY: u8 = 2;
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    let mut other = Wire::open(&broker);
    let name = wire.declare(1, &unique("used"), 0);
    let delete = |bits: u8| Octets::method(queue::DELETE).u16(0).short(&name).u8(bits).0;
    wire.publish(1, "", &name, 0, b"x");
    wire.synchronise(1);
    wire.send_method(1, &delete(IF_EMPTY));
    wire.expect_channel_close(1, 406, &format!("PRECONDITION_FAILED - queue '{name}' in vhost '/' not empty"));
    wire.open_channel(1);
    other.consume(1, &name, "c", NO_ACK);
    wire.send_method(1, &delete(IF_UNUSED));
    wire.expect_channel_close(1, 406, &format!("PRECONDITION_FAILED - queue '{name}' in vhost '/' in use"));
    wire.open_channel(1);
    other.expect_delivery(1);
    other.call(1, &methods::cancel("c"), basic::CANCEL_OK);
    assert_eq!(wire.call(1, &delete(IF_UNUSED | IF_EMPTY), queue::DELETE_OK).u32(), 0);
    // Deleting what is not there succeeds.
    assert_eq!(wire.call(1, &delete(0), queue::DELETE_OK).u32(), 0);
}

/// The empty name means the channel's last declared queue; there is none on a fresh channel.
#[test]
fn the_empty_name_means_the_last_declared_queue() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    wire.open_channel(2);
    let name = wire.declare(1, "", EXCLUSIVE);
    assert!(name.starts_with("amq.gen-"), "{name}");
    wire.call(1, &methods::queue_bind("", "amq.topic", &name), queue::BIND_OK);
    wire.publish(1, "amq.topic", &name, 0, b"bound");
    assert_eq!(wire.get(1, "", true).expect("it arrived").text(), "bound");
    wire.send_method(2, &methods::consume("", "c", 0));
    wire.expect_channel_close(2, 404, "NOT_FOUND - no previously declared queue");
}

#[test]
fn names_of_the_broker_are_reserved() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    wire.send_method(1, &methods::queue_declare("amq.mine", 0, &Table::new()));
    wire.expect_channel_close(1, 403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'");
    wire.open_channel(1);
    wire.send_method(1, &methods::exchange_declare("amq.mine", "direct", 0));
    wire.expect_channel_close(1, 403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'");
    wire.open_channel(1);
    wire.send_method(1, &methods::queue_bind("q", "", "k"));
    let answer = wire.read_frame();
    assert_eq!(answer.method_id(), Some(channel::CLOSE));
    assert!(matches!(answer.arguments().u16(), 403 | 404));
}

/// A purge counts what it took and leaves what is unacknowledged.
#[test]
fn a_purge_takes_only_what_is_ready() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut wire = Wire::open(&broker);
    let mut other = Wire::open(&broker);
    let name = wire.declare(1, &unique("purge"), 0);
    for number in 0..10 {
        wire.publish(1, "", &name, 0, number.to_string().as_bytes());
    }
    wire.synchronise(1);
    let held = other.get(1, &name, false).expect("it is there");
    assert_eq!(wire.call(1, &methods::queue_purge(&name), queue::PURGE_OK).u32(), 9);
    other.send_method(1, &methods::reject(held.delivery_tag, true));
    other.synchronise(1);
    wait_until("it is back", SOON, || wire.counts(1, &name).0 == 1);
    assert_eq!(wire.call(1, &methods::queue_delete(&name), queue::DELETE_OK).u32(), 1);
}

/// Goal: a cancel that crosses the deletion of its queue on another shard is answered once, and everything goes on.
/// Method: both at the same time, again and again; the consumer may be told of the deletion before, not after its cancel-ok.
#[test]
fn a_cancel_that_crosses_the_deletion_is_answered() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut consumers = [Wire::open(&broker), Wire::open(&broker), Wire::open(&broker)];
    let mut owner = Wire::open(&broker);
    for round in 0..100 {
        let name = unique("crossing");
        owner.call(1, &methods::queue_declare(&name, 0, &Table::new()), queue::DECLARE_OK);
        let consumer = &mut consumers[round % 3];
        consumer.call(1, &methods::consume(&name, "c", 0), basic::CONSUME_OK);
        owner.send_method(1, &methods::queue_delete(&name));
        consumer.send_method(1, &methods::cancel("c"));
        let mut told = 0;
        loop {
            match consumer.read_frame().method_id() {
                Some(basic::CANCEL) => told += 1,
                Some(basic::CANCEL_OK) => break,
                other => panic!("{other:?} instead of cancel or cancel-ok"),
            }
        }
        assert!(told <= 1, "told {told} times");
        owner.expect_method(1, queue::DELETE_OK);
        consumer.synchronise(1);
        // The tag is free again.
        let own = consumer.declare(1, "", EXCLUSIVE);
        consumer.call(1, &methods::consume(&own, "c", NO_ACK), basic::CONSUME_OK);
        consumer.call(1, &methods::cancel("c"), basic::CANCEL_OK);
    }
}
