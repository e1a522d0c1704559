//! Content in the wrong order, of the wrong length, or too large (AMQP 0-9-1, section 4.2.6).

use crate::support::broker::Broker;
use crate::support::canary::{Canary, broker_is_unhurt};
use crate::support::methods::{self, EXCLUSIVE, NO_PROPERTIES, basic, content_header, publish};
use crate::support::octets::{BODY, HEADER, METHOD, Octets, frame};
use crate::support::wire::Wire;

/// Sends the frames on channel 1 after declaring a queue whose name `frames` gets.
#[track_caller]
fn check_refused(frames: impl Fn(&str) -> Vec<Vec<u8>>, code: u16, text_part: &str) {
    let mut broker = Broker::start(&[]);
    let mut canary = Canary::new(&broker);
    let mut wire = Wire::open(&broker);
    let queue = wire.declare(1, "", EXCLUSIVE);
    wire.send(&frames(&queue).concat());
    wire.expect_close(code, text_part);
    canary.sing();
    broker_is_unhurt(&mut broker);
}

#[test]
fn a_header_without_a_method_is_unexpected() {
    check_refused(|_| vec![frame(HEADER, 1, &content_header(3, &NO_PROPERTIES))], 505, "UNEXPECTED_FRAME");
}

#[test]
fn a_body_without_a_method_is_unexpected() {
    check_refused(|_| vec![frame(BODY, 1, b"abc")], 505, "UNEXPECTED_FRAME");
}

#[test]
fn a_body_without_a_header_is_unexpected() {
    let frames = |queue: &str| vec![frame(METHOD, 1, &publish("", queue, 0)), frame(BODY, 1, b"abc")];
    check_refused(frames, 505, "UNEXPECTED_FRAME");
}

#[test]
fn a_second_header_is_unexpected() {
    let header = frame(HEADER, 1, &content_header(3, &NO_PROPERTIES));
    let frames = |queue: &str| vec![frame(METHOD, 1, &publish("", queue, 0)), header.clone(), header.clone()];
    check_refused(frames, 505, "UNEXPECTED_FRAME");
}

#[test]
fn a_method_in_place_of_a_header_is_unexpected() {
    let frames =
        |queue: &str| vec![frame(METHOD, 1, &publish("", queue, 0)), frame(METHOD, 1, &methods::qos(0, false))];
    check_refused(frames, 505, "UNEXPECTED_FRAME");
}

#[test]
fn a_method_inside_a_body_is_unexpected() {
    let frames = |queue: &str| {
        vec![
            frame(METHOD, 1, &publish("", queue, 0)),
            frame(HEADER, 1, &content_header(10, &NO_PROPERTIES)),
            frame(BODY, 1, b"12345"),
            frame(METHOD, 1, &methods::qos(0, false)),
        ]
    };
    check_refused(frames, 505, "UNEXPECTED_FRAME");
}

/// RabbitMQ goes on collecting body frames then, for ever; that is nothing to follow.
#[test]
fn a_body_longer_than_declared_is_refused() {
    let Some(mut broker) = Broker::own(&[]) else { return };
    let mut canary = Canary::new(&broker);
    let mut wire = Wire::open(&broker);
    let queue = wire.declare(1, "", EXCLUSIVE);
    wire.send_method(1, &publish("", &queue, 0));
    wire.send_frame(HEADER, 1, &content_header(4, &NO_PROPERTIES));
    wire.send_frame(BODY, 1, b"12345");
    let code = wire.read_to_end();
    assert!(matches!(code, Some(501 | 505 | 541)), "it was answered {code:?}");
    canary.sing();
    broker_is_unhurt(&mut broker);
}

/// After a body of length zero there is no body frame; one that comes anyhow is out of order.
#[test]
fn a_body_frame_after_a_body_of_length_zero_is_unexpected() {
    let frames = |queue: &str| {
        vec![
            frame(METHOD, 1, &publish("", queue, 0)),
            frame(HEADER, 1, &content_header(0, &NO_PROPERTIES)),
            frame(BODY, 1, b"x"),
        ]
    };
    check_refused(frames, 505, "UNEXPECTED_FRAME");
}

/// Empty body frames within a body are harmless, however many.
#[test]
fn empty_body_frames_are_passed_over() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    let queue = wire.declare(1, "", EXCLUSIVE);
    let mut octets = frame(METHOD, 1, &publish("", &queue, 0));
    octets.extend(frame(HEADER, 1, &content_header(2, &NO_PROPERTIES)));
    octets.extend(frame(BODY, 1, b"a"));
    for _ in 0..10_000 {
        octets.extend(frame(BODY, 1, b""));
    }
    octets.extend(frame(BODY, 1, b"b"));
    wire.send(&octets);
    assert_eq!(wire.get(1, &queue, true).expect("it arrived").text(), "ab");
    broker_is_unhurt(&mut broker);
}

/// The header must be of the class of its method.
#[test]
fn a_header_of_another_class_is_refused() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    let queue = wire.declare(1, "", EXCLUSIVE);
    wire.send_method(1, &publish("", &queue, 0));
    wire.send_frame(HEADER, 1, &Octets::new().u16(50).u16(0).u64(1).raw(&NO_PROPERTIES).0);
    let code = wire.read_to_end();
    assert!(matches!(code, Some(501 | 502 | 505 | 541)), "it was answered {code:?}");
    broker_is_unhurt(&mut broker);
}

/// Malformed headers: cut short, flags without their values, octets left over, endless flag words.
#[test]
fn malformed_headers_are_refused() {
    let start = Octets::new().u16(60).u16(0).u64(1);
    let payloads = [
        Vec::new(),
        start.0[..11].to_vec(),
        start.clone().0,
        start.clone().u8(0).0,
        start.clone().u16(1 << 15).0,
        start.clone().u16(1 << 15).u8(200).raw(b"short").0,
        start.clone().u16(1 << 13).u32(100).0,
        start.clone().u16(1 << 6).u32(1).0,
        start.raw(&[0xFF; 400]).0,
    ];
    for payload in payloads {
        let mut broker = Broker::start(&[]);
        let mut wire = Wire::open(&broker);
        let queue = wire.declare(1, "", EXCLUSIVE);
        wire.send_method(1, &publish("", &queue, 0));
        wire.send_frame(HEADER, 1, &payload);
        wire.send_frame(BODY, 1, b"x");
        // RabbitMQ answers some of these with its catch-all 541.
        let code = wire.read_to_end();
        assert!(matches!(code, Some(501 | 502 | 505 | 541)), "{payload:?} was answered {code:?}");
        broker_is_unhurt(&mut broker);
    }
}

/// Goal: a declared length reserves no memory, and the length itself is refused.
/// Method: declare 2^63 octets (and others above the limit), send none, watch resident memory.
#[test]
fn a_body_declared_too_large_is_refused_and_reserves_nothing() {
    let mut broker = Broker::start(&[]);
    broker_is_unhurt(&mut broker);
    let before = if broker.is_oracle() { 0 } else { broker.resident_octets() };
    for size in [1 << 63, u64::MAX, u64::MAX >> 1, 1 << 40, (16 << 20) + 1] {
        let mut wire = Wire::open(&broker);
        let queue = wire.declare(1, "", EXCLUSIVE);
        wire.send_method(1, &publish("", &queue, 0));
        wire.send_frame(HEADER, 1, &content_header(size, &NO_PROPERTIES));
        let text = format!("message size {size} is larger than configured max size 16777216");
        // RabbitMQ complains only when the whole body is there; a bounded broker need not wait.
        if broker.is_oracle() {
            continue;
        }
        wire.expect_channel_close(1, 406, &text);
        // The connection lives on, and so does the channel number.
        wire.open_channel(1);
        wire.synchronise(1);
    }
    if !broker.is_oracle() {
        let grown = broker.resident_octets().saturating_sub(before);
        assert!(grown < 32 << 20, "resident memory grew by {grown} octets");
    }
    broker_is_unhurt(&mut broker);
}

/// Goal: a body that was refused by its header may follow all the same; it is passed over.
#[test]
fn the_body_after_a_refused_header_is_passed_over() {
    let Some(mut broker) = Broker::own(&[]) else { return };
    let mut wire = Wire::open(&broker);
    let size = (16 << 20) + 1;
    wire.publish(1, "", "nowhere", 0, &vec![b'x'; size]);
    wire.expect_channel_close(1, 406, "is larger than configured max size");
    wire.open_channel(1);
    let queue = wire.declare(1, "", EXCLUSIVE);
    wire.publish(1, "", &queue, 0, b"after");
    assert_eq!(wire.get(1, &queue, true).expect("it arrived").text(), "after");
    broker_is_unhurt(&mut broker);
}

/// Both sides of the limit.
#[test]
fn a_body_of_exactly_the_limit_arrives() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    let queue = wire.declare(1, "", EXCLUSIVE);
    let body: Vec<u8> = (0..16_u32 << 20).map(|index| (index % 251).to_le_bytes()[0]).collect();
    wire.publish(1, "", &queue, 0, &body);
    assert!(wire.get(1, &queue, true).expect("it arrived").body == body, "the body changed on its way");
    broker_is_unhurt(&mut broker);
}

/// Goal: contents on different channels may be interleaved frame by frame (section 4.2.6).
#[test]
fn interleaved_contents_of_two_channels_arrive_whole() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    wire.open_channel(2);
    let queue = wire.declare(1, "", EXCLUSIVE);
    wire.call(1, &methods::consume(&queue, "c", methods::NO_ACK), basic::CONSUME_OK);
    let mut octets = Vec::new();
    for channel in [1, 2] {
        octets.extend(frame(METHOD, channel, &publish("", &queue, 0)));
    }
    for channel in [2, 1] {
        octets.extend(frame(HEADER, channel, &content_header(6, &NO_PROPERTIES)));
    }
    for _ in 0..3 {
        octets.extend(frame(BODY, 1, b"aa"));
        octets.extend(frame(BODY, 2, b"bb"));
    }
    wire.send(&octets);
    let mut bodies = [wire.expect_delivery(1).body, wire.expect_delivery(1).body];
    bodies.sort();
    assert_eq!(bodies, [b"aaaaaa".to_vec(), b"bbbbbb".to_vec()]);
    broker_is_unhurt(&mut broker);
}
