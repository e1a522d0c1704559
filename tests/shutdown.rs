//! How the broker stops: every client is told, and the process ends within five seconds.
#![allow(clippy::doc_markdown, reason = "RabbitMQ is a name, not code")]
#![allow(clippy::large_stack_arrays, reason = "the stacks of tests have room")]

#[path = "support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::broker::Broker;
use support::methods::{self, AUTO_DELETE, NO_ACK, connection};
use support::octets::{Octets, PROTOCOL_HEADER};
use support::unique;
use support::wire::{Event, Handshake, Wire};

const STOP_MAX: Duration = Duration::from_secs(5);

/// Reads until `connection.close` 320 and answers it; then the socket must be closed.
#[track_caller]
fn expect_told(wire: &mut Wire) {
    assert_eq!(wire.read_to_end(), Some(320));
}

/// The client gets `connection.close` 320 and the process ends with 0.
fn check_stop(signal: Signal) {
    let Some(mut broker) = Broker::own(&[]) else { return };
    let mut wire = Wire::open(&broker);
    let start = Instant::now();
    broker.signal(signal);
    wire.expect_close(320, "CONNECTION_FORCED - ");
    let status = broker.expect_exit(STOP_MAX);
    assert_eq!(status.code(), Some(0), "{status:?}");
    assert!(start.elapsed() < STOP_MAX, "it took {:?}", start.elapsed());
    assert!(!broker.stderr().contains("panicked"), "the broker panicked");
    assert!(Wire::try_connect(broker.address).is_err(), "somebody still listens");
}

#[test]
fn sigterm_stops_the_broker() {
    check_stop(Signal::TERM);
}

#[test]
fn sigint_stops_the_broker() {
    check_stop(Signal::INT);
}

#[test]
fn a_broker_without_clients_stops_at_once() {
    let Some(mut broker) = Broker::own(&[]) else { return };
    broker.signal(Signal::TERM);
    assert_eq!(broker.expect_exit(STOP_MAX).code(), Some(0));
}

/// Goal: clients that never answer, or never read, hold nothing up.
/// Method: 50 clients that answer, one whose socket is full of deliveries, one in the middle of its handshake and one
/// in the middle of a message; the time limit holds and those who listen are told.
#[test]
fn fifty_clients_and_stuck_ones_do_not_hold_the_stop_up() {
    let Some(mut broker) = Broker::own(&[]) else { return };
    let mut wires: Vec<Wire> = (0..50).map(|_| Wire::open(&broker)).collect();
    let mut stuck = Wire::open(&broker);
    let name = stuck.declare(1, &unique("stuck"), AUTO_DELETE);
    stuck.consume(1, &name, "never reads", NO_ACK);
    for _ in 0..400 {
        wires[0].publish(1, "", &name, 0, &[b'x'; 100_000]);
    }
    wires[0].synchronise(1);
    let mut shaking = Wire::connect(&broker);
    shaking.send(&PROTOCOL_HEADER);
    shaking.expect_method(0, connection::START);
    let mut publishing = Wire::open(&broker);
    publishing.send_method(1, &methods::publish("", &name, 0));
    publishing.send_frame(2, 1, &methods::content_header(1_000_000, &methods::NO_PROPERTIES));

    let start = Instant::now();
    broker.signal(Signal::TERM);
    std::thread::scope(|scope| {
        for wire in &mut wires {
            scope.spawn(move || expect_told(wire));
        }
        scope.spawn(|| expect_told(&mut publishing));
    });
    let status = broker.expect_exit(STOP_MAX.saturating_sub(start.elapsed()));
    assert_eq!(status.code(), Some(0), "{status:?}");
}

/// Goal: what was acknowledged to a client before the stop has been said; nothing is cut in the middle of a frame.
/// Method: deliveries are underway at the signal; the client reads whole frames up to the close.
#[test]
fn deliveries_underway_are_flushed_in_whole_frames() {
    let Some(mut broker) = Broker::own(&[]) else { return };
    let mut wire = Wire::open(&broker);
    let name = wire.declare(1, "", methods::EXCLUSIVE);
    wire.consume(1, &name, "c", NO_ACK);
    for _ in 0..1000 {
        wire.publish(1, "", &name, 0, &[b'x'; 1000]);
    }
    wire.expect_delivery(1);
    broker.signal(Signal::TERM);
    expect_told(&mut wire);
    assert_eq!(broker.expect_exit(STOP_MAX).code(), Some(0));
}

/// A second signal while the broker stops changes nothing for the worse.
#[test]
fn a_second_signal_does_not_hurt() {
    let Some(mut broker) = Broker::own(&[]) else { return };
    let silent = Wire::open(&broker);
    broker.signal(Signal::TERM);
    // The first close frame tells that the stop has begun; the client does not answer it.
    let mut listening = silent;
    loop {
        match listening.next_event(STOP_MAX) {
            Event::Frame(frame) if frame.method_id() == Some(connection::CLOSE) => break,
            Event::Frame(_) => {}
            other => panic!("expected connection.close, got {other:?}"),
        }
    }
    broker.signal(Signal::TERM);
    let status = broker.expect_exit(STOP_MAX);
    assert!(!broker.stderr().contains("panicked"));
    assert!(status.code().is_some(), "{status:?}");
    let _ = listening.try_send_method(0, &Octets::method(connection::CLOSE_OK).0);
}

/// Goal: while the broker stops, nobody new gets in.
#[test]
fn nobody_gets_in_while_the_broker_stops() {
    let Some(mut broker) = Broker::own(&[]) else { return };
    let mut first = Wire::open(&broker);
    broker.signal(Signal::TERM);
    let close = first.read_frame();
    assert_eq!(close.method_id(), Some(connection::CLOSE));
    if let Ok(wire) = Wire::try_connect(broker.address) {
        assert!(wire.shake_hands(&Handshake::default()).is_err(), "a connection was opened during the stop");
    }
    assert_eq!(broker.expect_exit(STOP_MAX).code(), Some(0));
}
