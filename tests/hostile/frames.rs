//! Frames that are not frames (AMQP 0-9-1, section 4.2.3).

use crate::support::broker::{Broker, oracle};
use crate::support::canary::{Canary, broker_is_unhurt};
use crate::support::methods::{self, queue};
use crate::support::octets::{BODY, FRAME_END, HEADER, HEARTBEAT, METHOD, Octets, frame, frame_declaring};
use crate::support::wire::{Handshake, Wire};

/// Sends `octets` on an open connection with channel 1 open; expects `connection.close` and the end.
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

/// Goal: a frame longer than frame-max is refused as soon as its header is there.
/// Method: declare a payload longer than frame-max and send the seven octets of the header only; the largest frame is
/// accepted. Payloads between frame-max less 8 and frame-max are left open: RabbitMQ forgives clients that forgot to
/// count header and frame-end.
#[test]
fn a_frame_over_frame_max_is_refused_from_its_header() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open_with(&broker, &Handshake { frame_max: Some(8192), ..Handshake::default() });
    wire.open_channel(1);
    let queue = wire.declare(1, "", methods::EXCLUSIVE);
    wire.publish(1, "", &queue, 0, &vec![7; 8192 - 8]);
    assert_eq!(wire.get(1, &queue, true).expect("it arrived").body.len(), 8192 - 8);
    wire.send_method(1, &methods::publish("", &queue, 0));
    wire.send_frame(HEADER, 1, &methods::content_header(8193, &methods::NO_PROPERTIES));
    wire.send(&frame_declaring(BODY, 1, 8193, &[])[..7]);
    wire.expect_close(501, "FRAME_ERROR");
    broker_is_unhurt(&mut broker);
}

/// Goal: a declared size of 4 GiB reserves nothing.
#[test]
fn a_frame_of_four_gibibytes_is_refused_from_its_header() {
    check_refused(&frame_declaring(BODY, 1, u32::MAX, &[])[..7], 501, "FRAME_ERROR");
}

#[test]
fn a_bad_frame_end_is_refused() {
    let mut octets = frame(METHOD, 1, &methods::qos(0, false));
    *octets.last_mut().expect("not empty") = FRAME_END - 1;
    check_refused(&octets, 501, "FRAME_ERROR");
}

#[test]
fn unknown_frame_types_are_refused() {
    for kind in [0, 4, 5, 6, 7, 9, 65, 255] {
        check_refused(&frame(kind, 1, b"anything"), 501, "FRAME_ERROR");
    }
}

/// A method payload that is too short to name its method.
#[test]
fn methods_without_a_whole_id_are_refused() {
    for payload in [&[][..], &[0], &[0, 60], &[0, 60, 0]] {
        let mut broker = Broker::start(&[]);
        let mut wire = Wire::open(&broker);
        wire.send_frame(METHOD, 1, payload);
        // RabbitMQ calls this a frame error and an internal error in turn; what counts is that it is refused.
        let code = wire.read_to_end();
        assert!(matches!(code, Some(501 | 502 | 505 | 541)), "{payload:?} was answered {code:?}");
        broker_is_unhurt(&mut broker);
    }
}

/// A heartbeat belongs to channel 0 (section 4.2.7); RabbitMQ ignores one elsewhere. Either is fine, hurt is not.
#[test]
fn a_heartbeat_on_another_channel_hurts_nobody() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    wire.send_frame(HEARTBEAT, 0, &[]);
    wire.synchronise(1);
    wire.send_frame(HEARTBEAT, 1, &[]);
    wire.finish_sending();
    wire.read_to_end();
    broker_is_unhurt(&mut broker);
}

/// Goal: a connection that ends inside a frame leaves nothing behind.
/// Method: cut a publish at every octet, each on a connection of its own, and look that its queue stays empty.
#[test]
fn a_connection_that_ends_inside_a_frame_publishes_nothing() {
    let mut broker = Broker::start(&[]);
    let mut watcher = Wire::open(&broker);
    let queue = watcher.declare(1, &crate::support::unique("cut"), methods::AUTO_DELETE);
    let whole = crate::support::wire::message(1, "", &queue, 0, b"hello", 131_072);
    let connections = whole.len().min(if broker.is_oracle() { 40 } else { usize::MAX });
    for cut in (0..whole.len()).step_by(whole.len().div_ceil(connections)) {
        let mut wire = Wire::open(&broker);
        wire.send(&whole[..cut]);
        wire.finish_sending();
        wire.read_to_end();
    }
    assert_eq!(watcher.counts(1, &queue), (0, 0));
    watcher.publish(1, "", &queue, 0, b"whole");
    assert_eq!(watcher.get(1, &queue, true).expect("it arrived").text(), "whole");
    watcher.call(1, &methods::queue_delete(&queue), queue::DELETE_OK);
    broker_is_unhurt(&mut broker);
}

#[test]
fn unknown_classes_and_methods_are_not_implemented() {
    for id in [(0, 0), (10, 99), (20, 99), (30, 99), (60, 99), (60, 130), (61, 10), (85, 12), (90, 40), (65535, 65535)]
    {
        if oracle().is_some() {
            // RabbitMQ 3.10 crashes the connection on those, without a word.
            let broker = Broker::start(&[]);
            let mut wire = Wire::open(&broker);
            wire.send(&frame(METHOD, 1, &Octets::method(id).0));
            assert!(matches!(wire.read_to_end(), None | Some(540)), "{id:?}");
        } else {
            check_refused(&frame(METHOD, 1, &Octets::method(id).0), 540, "NOT_IMPLEMENTED");
        }
    }
}

/// Methods that only the broker may send.
#[test]
fn the_brokers_own_methods_are_refused_from_a_client() {
    let deliver = Octets::method((60, 60)).short("tag").u64(1).u8(0).short("").short("").0;
    let declare_ok = Octets::method((50, 11)).short("q").u32(0).u32(0).0;
    let content = frame(HEADER, 1, &methods::content_header(0, &methods::NO_PROPERTIES));
    for octets in [[frame(METHOD, 1, &deliver), content].concat(), frame(METHOD, 1, &declare_ok)] {
        let mut broker = Broker::start(&[]);
        let mut wire = Wire::open(&broker);
        wire.send(&octets);
        let code = wire.read_to_end();
        assert!(matches!(code, Some(503 | 505 | 540)), "it was answered {code:?}");
        broker_is_unhurt(&mut broker);
    }
}

/// Arguments that end early, on a method of each shape.
#[test]
fn truncated_arguments_are_a_syntax_error() {
    let whole = [
        methods::queue_declare("q", 0, &crate::support::octets::Table::new().i32("x-max-length", 1)),
        methods::qos(1, false),
        methods::ack(1, false),
        methods::publish("exchange", "key", 0),
        methods::consume("q", "tag", 0),
    ];
    for payload in &whole {
        for length in [4, payload.len() / 2, payload.len() - 1] {
            let mut broker = Broker::start(&[]);
            let mut wire = Wire::open(&broker);
            wire.send_method(1, &payload[..length]);
            let code = wire.read_to_end();
            assert!(matches!(code, Some(501 | 502 | 541)), "{length} octets of {payload:?} were answered {code:?}");
            broker_is_unhurt(&mut broker);
        }
    }
}
