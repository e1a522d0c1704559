//! Publisher confirms and returns.

use crate::support::broker::Broker;
use crate::support::methods::{self, EXCLUSIVE, MANDATORY, basic, confirm};
use crate::support::octets::{Octets, Reading, Table};
use crate::support::wire::Wire;

fn open_with_confirms(broker: &Broker) -> Wire {
    let mut wire = Wire::open(broker);
    wire.call(1, &methods::confirm_select(), confirm::SELECT_OK);
    wire
}

/// Marks what one ack covers; whatever was covered before must not be again.
#[track_caller]
fn settle(settled: &mut [bool], mut ack: Reading) {
    let (tag, multiple) = (usize::try_from(ack.u64()).expect("small"), ack.u8() & 1 != 0);
    assert!((1..=settled.len()).contains(&tag), "a confirm for {tag}, which was never published");
    let first = if multiple { settled.iter().position(|done| !done).expect("something is open") } else { tag - 1 };
    assert!(multiple || !settled[first], "{tag} was confirmed twice");
    settled[first..tag].fill(true);
}

/// Goal: numbers start at 1 per channel, every publish is confirmed exactly once, whether coalesced or not.
#[test]
fn every_publish_is_confirmed_once_per_channel() {
    const MESSAGES: usize = 5_000;
    let broker = Broker::start(&["--shards", "3"]);
    let mut wire = open_with_confirms(&broker);
    wire.open_channel(2);
    wire.call(2, &methods::confirm_select(), confirm::SELECT_OK);
    let queue = wire.declare(1, "", EXCLUSIVE);
    let mut settled = [vec![false; MESSAGES], vec![false; MESSAGES]];
    for number in 0..MESSAGES {
        // Some reach a queue, some nothing; both are confirmed.
        let key = if number % 3 == 0 { "nowhere" } else { queue.as_str() };
        wire.publish(1, "", key, 0, b"x");
        wire.publish(2, "", key, 0, b"x");
    }
    while settled.iter().flatten().any(|done| !done) {
        let frame = wire.read_frame();
        assert_eq!(frame.method_id(), Some(basic::ACK));
        settle(&mut settled[usize::from(frame.channel) - 1], frame.arguments());
    }
    wire.expect_quiet();
}

/// Counting starts with confirm.select: what was published before has no number.
#[test]
fn numbers_start_with_confirm_select() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    let queue = wire.declare(1, "", EXCLUSIVE);
    wire.publish(1, "", &queue, 0, b"before");
    wire.call(1, &methods::confirm_select(), confirm::SELECT_OK);
    wire.publish(1, "", &queue, 0, b"after");
    assert_eq!(wire.expect_method(1, basic::ACK).u64(), 1);
    // Asking again starts no new count.
    wire.call(1, &methods::confirm_select(), confirm::SELECT_OK);
    wire.publish(1, "", &queue, 0, b"later");
    assert_eq!(wire.expect_method(1, basic::ACK).u64(), 2);
}

/// Goal: what a return says, and that it comes before the confirm.
#[test]
fn a_mandatory_message_without_a_queue_returns_before_its_confirm() {
    let broker = Broker::start(&[]);
    let mut wire = open_with_confirms(&broker);
    for (number, body) in [(1, b"".to_vec()), (2, b"short".to_vec()), (3, vec![b'x'; 300_000])] {
        wire.publish(1, "amq.direct", "no-such-key", MANDATORY, &body);
        let mut returned = wire.expect_method(1, basic::RETURN);
        assert_eq!((returned.u16(), returned.short()), (312, "NO_ROUTE".to_owned()));
        assert_eq!((returned.short(), returned.short()), ("amq.direct".to_owned(), "no-such-key".to_owned()));
        assert_eq!(wire.expect_content(1).1, body);
        let mut ack = wire.expect_method(1, basic::ACK);
        assert_eq!((ack.u64(), ack.u8() & 1), (number, 0));
    }
}

/// A routable mandatory message does not return.
#[test]
fn a_mandatory_message_with_a_queue_does_not_return() {
    let broker = Broker::start(&[]);
    let mut wire = open_with_confirms(&broker);
    let queue = wire.declare(1, "", EXCLUSIVE);
    wire.publish(1, "", &queue, MANDATORY, b"x");
    assert_eq!(wire.expect_method(1, basic::ACK).u64(), 1);
}

#[test]
fn a_publish_to_a_missing_exchange_closes_the_channel() {
    let broker = Broker::start(&[]);
    let mut wire = open_with_confirms(&broker);
    wire.publish(1, "no-such", "k", 0, b"x");
    wire.expect_channel_close(1, 404, "NOT_FOUND - no exchange 'no-such' in vhost '/'");
}

#[test]
fn immediate_is_not_implemented() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    wire.publish(1, "", "k", methods::IMMEDIATE, b"x");
    wire.expect_close(540, "NOT_IMPLEMENTED - immediate=true");
}

/// A full queue that rejects: basic.nack instead of basic.ack.
#[test]
fn a_rejected_publish_is_nacked() {
    let broker = Broker::start(&[]);
    let mut wire = open_with_confirms(&broker);
    let arguments = Table::new().i32("x-max-length", 1).text("x-overflow", "reject-publish");
    let declare = methods::queue_declare("", EXCLUSIVE, &arguments);
    let queue = wire.call(1, &declare, methods::queue::DECLARE_OK).short();
    wire.publish(1, "", &queue, 0, b"fits");
    assert_eq!(wire.expect_method(1, basic::ACK).u64(), 1);
    wire.publish(1, "", &queue, 0, b"does not");
    assert_eq!(wire.expect_method(1, basic::NACK).u64(), 2);
    assert_eq!(wire.get(1, &queue, true).expect("it is there").text(), "fits");
    assert!(wire.get(1, &queue, true).is_none());
}

/// The header of a message arrives as it was sent: every property, in the same octets.
#[test]
fn properties_arrive_as_they_were_sent() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    let queue = wire.declare(1, "", EXCLUSIVE);
    let headers = Table::new().text("k", "v");
    let properties = Octets::new().u16(0xFFF8).short("text/plain").short("gzip").table(&headers).u8(2).u8(5);
    let properties = properties.short("correlation").short("reply-to").short("60000").short("id").u64(1_700_000_000);
    let properties = properties.short("type").short("guest").short("app").0;
    wire.send_method(1, &methods::publish("", &queue, 0));
    wire.send_frame(2, 1, &methods::content_header(1, &properties));
    wire.send_frame(3, 1, b"x");
    assert_eq!(wire.get(1, &queue, true).expect("it arrived").properties, properties);
}

#[test]
fn a_user_id_of_somebody_else_is_refused() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    wire.send_method(1, &methods::publish("", "q", 0));
    wire.send_frame(2, 1, &methods::content_header(0, &Octets::new().u16(1 << 4).short("mallory").0));
    let text = "PRECONDITION_FAILED - user_id property set to 'mallory' but authenticated user was 'guest'";
    wire.expect_channel_close(1, 406, text);
}

#[test]
fn an_invalid_expiration_is_refused() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    wire.send_method(1, &methods::publish("", "q", 0));
    wire.send_frame(2, 1, &methods::content_header(0, &Octets::new().u16(1 << 8).short("soon").0));
    wire.expect_channel_close(1, 406, "PRECONDITION_FAILED - invalid expiration 'soon'");
}
