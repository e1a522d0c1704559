//! Deliveries, acknowledgements, and limits on what is unacknowledged.

use std::time::Duration;

use crate::support::broker::Broker;
use crate::support::methods::{self, EXCLUSIVE, NO_ACK, basic, queue};
use crate::support::octets::Octets;
use crate::support::wire::{Handshake, Wire};
use crate::support::{unique, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// A connection with an exclusive queue that holds messages "0", "1", ...
fn with_messages(broker: &Broker, count: usize) -> (Wire, String) {
    let mut wire = Wire::open(broker);
    let queue = wire.declare(1, "", EXCLUSIVE);
    for number in 0..count {
        wire.publish(1, "", &queue, 0, number.to_string().as_bytes());
    }
    wire.synchronise(1);
    (wire, queue)
}

fn texts(wire: &mut Wire, channel: u16, count: usize) -> Vec<String> {
    (0..count).map(|_| wire.expect_delivery(channel).text().to_owned()).collect()
}

#[test]
fn an_ack_of_zero_with_multiple_means_all() {
    let broker = Broker::start(&[]);
    let (mut wire, queue) = with_messages(&broker, 10);
    wire.call(1, &methods::qos(5, false), basic::QOS_OK);
    wire.consume(1, &queue, "c", 0);
    assert_eq!(texts(&mut wire, 1, 5), ["0", "1", "2", "3", "4"]);
    wire.expect_quiet();
    wire.send_method(1, &methods::ack(0, true));
    assert_eq!(texts(&mut wire, 1, 5), ["5", "6", "7", "8", "9"]);
    // With nothing outstanding it is no mistake either.
    wire.send_method(1, &methods::ack(0, true));
    wire.send_method(1, &methods::ack(0, true));
    wire.synchronise(1);
    assert_eq!(wire.counts(1, &queue), (0, 1));
}

#[test]
fn acks_with_multiple_settle_up_to_their_tag() {
    let broker = Broker::start(&[]);
    let (mut wire, queue) = with_messages(&broker, 10);
    wire.consume(1, &queue, "c", 0);
    texts(&mut wire, 1, 10);
    wire.send_method(1, &methods::ack(2, false));
    wire.send_method(1, &methods::ack(5, true));
    wire.send_method(1, &methods::nack(8, true));
    // 6, 7 and 8 were given back and come again with new tags, in their order.
    for (tag, text) in [(11, "5"), (12, "6"), (13, "7")] {
        let delivery = wire.expect_delivery(1);
        assert_eq!((delivery.delivery_tag, delivery.text(), delivery.redelivered), (tag, text, true));
    }
    wire.expect_quiet();
}

#[track_caller]
fn check_unknown_tag(settle: &[u8], tag: u64) {
    let broker = Broker::start(&[]);
    let (mut wire, queue) = with_messages(&broker, 2);
    wire.get(1, &queue, false).expect("it is there");
    wire.send_method(1, &methods::ack(1, false));
    wire.send_method(1, settle);
    wire.expect_channel_close(1, 406, &format!("PRECONDITION_FAILED - unknown delivery tag {tag}"));
}

#[test]
fn unknown_delivery_tags_are_refused() {
    check_unknown_tag(&methods::ack(82, false), 82);
    check_unknown_tag(&methods::ack(1, false), 1);
    check_unknown_tag(&methods::ack(82, true), 82);
    check_unknown_tag(&methods::nack(5, false), 5);
    check_unknown_tag(&methods::reject(7, true), 7);
    check_unknown_tag(&methods::ack(u64::MAX, false), u64::MAX);
}

/// Tags belong to their channel.
#[test]
fn a_tag_of_another_channel_is_unknown() {
    let broker = Broker::start(&[]);
    let (mut wire, queue) = with_messages(&broker, 1);
    wire.open_channel(2);
    wire.get(1, &queue, false).expect("it is there");
    wire.send_method(2, &methods::ack(1, false));
    wire.expect_channel_close(2, 406, "PRECONDITION_FAILED - unknown delivery tag 1");
    wire.send_method(1, &methods::ack(1, false));
    wire.synchronise(1);
}

/// Goal: every way to give a message back marks it, and it goes to its old place.
#[test]
fn messages_given_back_are_marked_and_keep_their_place() {
    let broker = Broker::start(&[]);
    let (mut wire, queue) = with_messages(&broker, 3);
    let first = |wire: &mut Wire| wire.get(1, &queue, false).expect("it is there");
    let got = first(&mut wire);
    assert!(!got.redelivered);
    assert_eq!(got.message_count, Some(2));
    wire.send_method(1, &methods::reject(got.delivery_tag, true));
    let got = first(&mut wire);
    assert_eq!((got.text(), got.redelivered), ("0", true));
    wire.send_method(1, &methods::nack(got.delivery_tag, false));
    let got = first(&mut wire);
    assert_eq!((got.text(), got.redelivered), ("0", true));
    wire.call(1, &methods::recover(true), basic::RECOVER_OK);
    let got = first(&mut wire);
    assert_eq!((got.text(), got.redelivered), ("0", true));
    wire.call(1, &methods::close(methods::channel::CLOSE, 200, ""), methods::channel::CLOSE_OK);
    wire.open_channel(1);
    wait_until("it comes back", SOON, || wire.counts(1, &queue).0 == 3);
    let got = first(&mut wire);
    assert_eq!((got.text(), got.redelivered, got.delivery_tag), ("0", true, 1));
    let second = first(&mut wire);
    assert_eq!((second.text(), second.redelivered), ("1", false));
    // Rejected for good.
    wire.send_method(1, &methods::reject(got.delivery_tag, false));
    wire.send_method(1, &methods::reject(second.delivery_tag, true));
    assert_eq!(first(&mut wire).text(), "1");
}

#[test]
fn recover_async_gives_back_without_an_answer() {
    let broker = Broker::start(&[]);
    let (mut wire, queue) = with_messages(&broker, 1);
    wire.get(1, &queue, false).expect("it is there");
    wire.send_method(1, &Octets::method((60, 100)).u8(1).0);
    assert!(wire.get(1, &queue, false).expect("it is back").redelivered);
}

/// Prefetch per consumer, two consumers of two queues on one channel; it binds those that come afterwards.
#[test]
fn prefetch_per_consumer_limits_each() {
    let broker = Broker::start(&[]);
    let (mut wire, first) = with_messages(&broker, 10);
    let second = wire.declare(1, "", EXCLUSIVE);
    for number in 10..20 {
        wire.publish(1, "", &second, 0, number.to_string().as_bytes());
    }
    wire.call(1, &methods::qos(2, false), basic::QOS_OK);
    wire.consume(1, &first, "two", 0);
    assert_eq!(texts(&mut wire, 1, 2), ["0", "1"]);
    wire.call(1, &methods::qos(3, false), basic::QOS_OK);
    wire.expect_quiet();
    wire.consume(1, &second, "three", 0);
    assert_eq!(texts(&mut wire, 1, 3), ["10", "11", "12"]);
    wire.expect_quiet();
    // Credit comes back to the consumer whose message it was.
    wire.send_method(1, &methods::ack(1, false));
    let next = wire.expect_delivery(1);
    assert_eq!((next.consumer_tag.as_str(), next.text()), ("two", "2"));
    wire.send_method(1, &methods::ack(5, false));
    let next = wire.expect_delivery(1);
    assert_eq!((next.consumer_tag.as_str(), next.text()), ("three", "13"));
    wire.expect_quiet();
}

/// Prefetch for the channel, two consumers of two queues: together no more than that.
#[test]
fn prefetch_per_channel_limits_all_consumers_together() {
    let broker = Broker::start(&["--shards", "3"]);
    let (mut wire, first) = with_messages(&broker, 10);
    let second = wire.declare(1, "", EXCLUSIVE);
    for number in 10..20 {
        wire.publish(1, "", &second, 0, number.to_string().as_bytes());
    }
    wire.call(1, &methods::qos(3, true), basic::QOS_OK);
    wire.consume(1, &first, "a", 0);
    assert_eq!(texts(&mut wire, 1, 3), ["0", "1", "2"]);
    wire.consume(1, &second, "b", 0);
    wire.expect_quiet();
    wire.send_method(1, &methods::ack(0, true));
    let mut six = texts(&mut wire, 1, 3);
    wire.expect_quiet();
    wire.send_method(1, &methods::ack(0, true));
    six.extend(texts(&mut wire, 1, 3));
    wire.expect_quiet();
    // Each queue's own order holds.
    let numbers =
        |from: usize| six.iter().filter_map(|text| text.parse().ok()).filter(move |n| (*n >= 10) == (from >= 10));
    assert!(
        numbers(0).collect::<Vec<usize>>().is_sorted() && numbers(10).collect::<Vec<usize>>().is_sorted(),
        "{six:?}"
    );
    // No limit any more: everything comes.
    wire.call(1, &methods::qos(0, true), basic::QOS_OK);
    texts(&mut wire, 1, 20 - 9);
    wire.expect_quiet();
}

#[test]
fn a_prefetch_size_is_not_implemented() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    wire.send_method(1, &Octets::method(basic::QOS).u32(1000).u16(1).u8(0).0);
    wire.expect_close(540, "NOT_IMPLEMENTED - prefetch_size!=0 (1000)");
}

/// Consumers without acknowledgements are not limited.
#[test]
fn prefetch_does_not_limit_consumers_without_acknowledgements() {
    let broker = Broker::start(&[]);
    let (mut wire, queue) = with_messages(&broker, 20);
    wire.call(1, &methods::qos(1, false), basic::QOS_OK);
    wire.consume(1, &queue, "c", NO_ACK);
    assert_eq!(texts(&mut wire, 1, 20).len(), 20);
    wire.synchronise(1);
    assert_eq!(wire.counts(1, &queue), (0, 1));
}

/// basic.get from connections on every shard, wherever the queue lives.
#[test]
fn basic_get_works_from_every_shard() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut wires: Vec<Wire> = (0..6).map(|_| Wire::open(&broker)).collect();
    let name = wires[0].declare(1, &unique("get"), 0);
    for number in 0..60 {
        wires[0].publish(1, "", &name, 0, number.to_string().as_bytes());
    }
    wires[0].synchronise(1);
    for number in 0..60 {
        let wire = &mut wires[number % 6];
        let got = wire.get(1, &name, false).expect("it is there");
        assert_eq!((got.text(), got.redelivered), (number.to_string().as_str(), false));
        assert_eq!(got.delivery_tag, number as u64 / 6 + 1);
        assert_eq!(got.message_count, Some(59 - u32::try_from(number).expect("small")));
        wire.send_method(1, &methods::ack(got.delivery_tag, false));
        wire.synchronise(1);
    }
    assert!(wires[5].get(1, &name, false).is_none());
    wires[0].call(1, &methods::queue_delete(&name), queue::DELETE_OK);
}

/// Bodies are split at the frame-max that was negotiated, and joined whatever the publisher's was.
#[test]
fn bodies_are_split_at_the_negotiated_frame_max() {
    let broker = Broker::start(&[]);
    let mut large = Wire::open(&broker);
    let mut small = Wire::open_with(&broker, &Handshake { frame_max: Some(4096), ..Handshake::default() });
    small.open_channel(1);
    let name = small.declare(1, &unique("split"), 0);
    for size in [0, 1, 4087, 4088, 4089, 8176, 8177, 131_064, 131_065, 1_000_000] {
        let body: Vec<u8> = (0_u32..size).map(|index| (index % 253).to_le_bytes()[0]).collect();
        large.publish(1, "", &name, 0, &body);
        large.synchronise(1);
        // Reading checks that no frame is longer than frame-max.
        assert!(small.get(1, &name, true).expect("it is there").body == body, "{size} octets changed");
        small.publish(1, "", &name, 0, &body);
        small.synchronise(1);
        assert!(large.get(1, &name, true).expect("it is there").body == body, "{size} octets changed");
    }
    small.call(1, &methods::queue_delete(&name), queue::DELETE_OK);
}

/// Round robin among equal consumers.
#[test]
fn equal_consumers_take_turns() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    let queue = wire.declare(1, "", EXCLUSIVE);
    for tag in ["a", "b", "c"] {
        wire.consume(1, &queue, tag, NO_ACK);
    }
    let mut tags = Vec::new();
    for _ in 0..9 {
        wire.publish(1, "", &queue, 0, b"x");
        tags.push(wire.expect_delivery(1).consumer_tag);
    }
    for chunk in tags.chunks(3) {
        let mut turn = chunk.to_vec();
        turn.sort();
        assert_eq!(turn, ["a", "b", "c"], "{tags:?}");
    }
}

/// A cancelled consumer gets nothing more after cancel-ok; what it holds can still be acknowledged.
#[test]
fn a_cancelled_consumer_keeps_what_it_holds() {
    let broker = Broker::start(&[]);
    let (mut wire, queue) = with_messages(&broker, 2);
    wire.call(1, &methods::qos(1, false), basic::QOS_OK);
    wire.consume(1, &queue, "c", 0);
    assert_eq!(wire.expect_delivery(1).text(), "0");
    assert_eq!(wire.call(1, &methods::cancel("c"), basic::CANCEL_OK).short(), "c");
    wire.send_method(1, &methods::ack(1, false));
    wire.expect_quiet();
    assert_eq!(wire.counts(1, &queue), (1, 0));
    // Cancelling what is not there succeeds.
    assert_eq!(wire.call(1, &methods::cancel("no-such"), basic::CANCEL_OK).short(), "no-such");
}

#[test]
fn a_consumer_tag_cannot_be_used_twice() {
    let broker = Broker::start(&[]);
    let (mut wire, queue) = with_messages(&broker, 0);
    wire.consume(1, &queue, "tag", 0);
    wire.send_method(1, &methods::consume(&queue, "tag", 0));
    wire.expect_close(530, "NOT_ALLOWED - attempt to reuse consumer tag 'tag'");
}

#[test]
fn an_empty_consumer_tag_is_generated() {
    let broker = Broker::start(&[]);
    let (mut wire, queue) = with_messages(&broker, 1);
    let tag = wire.consume(1, &queue, "", 0);
    assert!(tag.starts_with("amq.ctag-"), "{tag}");
    assert_eq!(wire.expect_delivery(1).consumer_tag, tag);
}
