//! Channels that are not open, open already, closed, or too many (AMQP 0-9-1, section 4.2.3 and class channel).

use crate::support::broker::Broker;
use crate::support::canary::{Canary, broker_is_unhurt};
use crate::support::methods::{self, EXCLUSIVE, NO_PROPERTIES, channel, connection, content_header};
use crate::support::octets::{BODY, HEADER, METHOD, Octets, Table, frame};
use crate::support::wire::{Event, Handshake, Wire};

#[track_caller]
fn check_refused(octets: &[u8], code: u16, text_part: &str) {
    let mut broker = Broker::start(&[]);
    let mut canary = Canary::new(&broker);
    let mut wire = Wire::open(&broker);
    wire.send(octets);
    wire.expect_close(code, text_part);
    canary.sing();
    broker_is_unhurt(&mut broker);
}

#[test]
fn a_method_on_an_unopened_channel_is_refused() {
    let declare = methods::queue_declare("", EXCLUSIVE, &Table::new());
    check_refused(&frame(METHOD, 2, &declare), 504, "CHANNEL_ERROR - expected 'channel.open'");
}

#[test]
fn content_on_an_unopened_channel_is_refused() {
    for octets in [frame(HEADER, 2, &content_header(1, &NO_PROPERTIES)), frame(BODY, 2, b"x")] {
        let mut broker = Broker::start(&[]);
        let mut wire = Wire::open(&broker);
        wire.send(&octets);
        // RabbitMQ says 505, since it looks at the kind of the frame first.
        let code = wire.read_to_end();
        assert!(matches!(code, Some(504 | 505)), "it was answered {code:?}");
        broker_is_unhurt(&mut broker);
    }
}

#[test]
fn a_second_channel_open_is_refused() {
    check_refused(&frame(METHOD, 1, &methods::channel_open()), 504, "CHANNEL_ERROR - second 'channel.open' seen");
}

#[test]
fn content_on_channel_zero_is_refused() {
    for octets in [frame(HEADER, 0, &content_header(1, &NO_PROPERTIES)), frame(BODY, 0, b"x")] {
        let mut broker = Broker::start(&[]);
        let mut wire = Wire::open(&broker);
        wire.send(&octets);
        let code = wire.read_to_end();
        assert!(matches!(code, Some(501 | 503 | 504 | 505)), "it was answered {code:?}");
        broker_is_unhurt(&mut broker);
    }
}

/// Methods of the class connection live on channel 0, all others on others.
#[test]
fn methods_on_the_wrong_kind_of_channel_are_refused() {
    let octets = [
        frame(METHOD, 0, &methods::channel_open()),
        frame(METHOD, 0, &methods::queue_declare("", EXCLUSIVE, &Table::new())),
        frame(METHOD, 1, &methods::connection_open("/")),
        frame(METHOD, 1, &methods::close(connection::CLOSE, 200, "on channel 1")),
    ];
    for octets in octets {
        let mut broker = Broker::start(&[]);
        let mut wire = Wire::open(&broker);
        wire.send(&octets);
        let code = wire.read_to_end();
        assert!(matches!(code, Some(501 | 503 | 504 | 505 | 540)), "{octets:?} was answered {code:?}");
        broker_is_unhurt(&mut broker);
    }
}

/// Goal: after `channel.close` from the broker, all but close and close-ok on that channel is passed over
/// (section 1.5.2.5), the other channels work on, and the number can be opened again.
#[test]
fn frames_on_a_channel_that_the_broker_closed_are_passed_over() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    wire.open_channel(2);
    let queue = wire.declare(2, "", EXCLUSIVE);
    wire.send_method(1, &methods::queue_declare(&crate::support::unique("gone"), methods::PASSIVE, &Table::new()));
    let frame = wire.read_frame();
    assert_eq!((frame.method_id(), frame.channel), (Some(channel::CLOSE), 1));
    assert_eq!(frame.arguments().u16(), 404);
    // The client has not answered yet: these are passed over.
    wire.publish(1, "", &queue, 0, b"lost");
    wire.send_method(1, &methods::qos(3, false));
    wire.send_method(1, &methods::queue_declare("", EXCLUSIVE, &Table::new()));
    wire.send_method(1, &Octets::method(channel::CLOSE_OK).0);
    wire.publish(2, "", &queue, 0, b"kept");
    assert_eq!(wire.get(2, &queue, true).expect("it arrived").text(), "kept");
    wire.open_channel(1);
    assert!(wire.get(1, &queue, true).is_none(), "the closed channel published");
    broker_is_unhurt(&mut broker);
}

#[test]
fn a_method_on_a_channel_that_the_client_closed_is_refused() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    wire.call(1, &methods::close(channel::CLOSE, 200, "done"), channel::CLOSE_OK);
    wire.send_method(1, &methods::qos(1, false));
    wire.expect_close(504, "CHANNEL_ERROR");
    broker_is_unhurt(&mut broker);
}

/// A close-ok that answers nothing.
#[test]
fn an_unasked_close_ok_hurts_nobody() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    wire.send_method(1, &Octets::method(channel::CLOSE_OK).0);
    wire.finish_sending();
    wire.read_to_end();
    let mut wire = Wire::open(&broker);
    wire.send_method(0, &Octets::method(connection::CLOSE_OK).0);
    wire.finish_sending();
    wire.read_to_end();
    broker_is_unhurt(&mut broker);
}

/// Both sides of the limit that was negotiated. RabbitMQ counts the open channels and looks at no number.
#[test]
fn a_channel_number_above_channel_max_is_refused() {
    let Some(mut broker) = Broker::own(&[]) else { return };
    let mut wire = Wire::open_with(&broker, &Handshake { channel_max: Some(10), ..Handshake::default() });
    wire.open_channel(10);
    wire.send_method(11, &methods::channel_open());
    let code = wire.read_to_end();
    assert!(matches!(code, Some(504 | 530)), "it was answered {code:?}");
    broker_is_unhurt(&mut broker);
}

/// Every channel that the broker offers can be opened and used, and one more cannot.
#[test]
fn all_channels_up_to_the_brokers_limit_can_be_open() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open_with(&broker, &Handshake::default());
    let last = wire.channel_max;
    assert_eq!(last, 2047);
    let opens: Vec<u8> = (1..=last).flat_map(|number| frame(METHOD, number, &methods::channel_open())).collect();
    wire.send(&opens);
    for number in 1..=last {
        let frame = wire.read_frame();
        assert_eq!(frame.method_id(), Some(channel::OPEN_OK), "of {number}");
    }
    let queue = wire.declare(1, "", EXCLUSIVE);
    for number in [1, 1000, last] {
        wire.publish(number, "", &queue, 0, number.to_string().as_bytes());
        wire.synchronise(number);
        assert_eq!(wire.get(number, &queue, true).expect("it arrived").text(), number.to_string());
    }
    wire.send_method(last + 1, &methods::channel_open());
    let code = wire.read_to_end();
    assert!(matches!(code, Some(504 | 530)), "it was answered {code:?}");
    broker_is_unhurt(&mut broker);
}

/// Goal: opening and closing without end neither leaks nor fails.
#[test]
fn a_channel_can_be_opened_and_closed_ten_thousand_times() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open_with(&broker, &Handshake::default());
    for _ in 0..10_000 {
        wire.open_channel(7);
        wire.call(7, &methods::close(channel::CLOSE, 200, ""), channel::CLOSE_OK);
    }
    assert!(matches!(wire.next_event(std::time::Duration::ZERO), Event::Silence));
    broker_is_unhurt(&mut broker);
}
