//! Heartbeats both ways (AMQP 0-9-1, section 4.2.7), and the ends of connections and channels.

use std::time::{Duration, Instant};

use crate::support::broker::Broker;
use crate::support::methods::{self, channel, connection};
use crate::support::octets::{HEARTBEAT, Octets, frame};
use crate::support::wire::{Event, Handshake, Wire};

fn open_with_heartbeat(broker: &Broker, seconds: u16) -> Wire {
    let mut wire = Wire::open_with(broker, &Handshake { heartbeat_seconds: seconds, ..Handshake::default() });
    wire.open_channel(1);
    wire
}

/// Goal: the broker drops a peer that is silent for two intervals, and sends its own heartbeats until then.
#[test]
fn a_silent_peer_is_dropped_after_two_intervals() {
    let broker = Broker::start(&[]);
    let mut wire = open_with_heartbeat(&broker, 1);
    let start = Instant::now();
    let mut heartbeats = 0;
    loop {
        match wire.next_event_or_heartbeat(Duration::from_secs(10)) {
            Event::Closed => break,
            Event::Frame(frame) if frame.kind == HEARTBEAT => {
                assert_eq!((frame.channel, frame.payload.len()), (0, 0));
                heartbeats += 1;
            }
            Event::Frame(frame) if frame.method_id() == Some(connection::CLOSE) => {}
            other => panic!("expected heartbeats and the end, got {other:?}"),
        }
    }
    let taken = start.elapsed().as_secs_f64();
    assert!((1.5..4.5).contains(&taken), "it was dropped after {taken} s");
    assert!(heartbeats >= 1, "the broker sent no heartbeat of its own");
}

/// Heartbeats alone keep a connection, and so does any other traffic.
#[test]
fn a_peer_that_speaks_is_kept() {
    let broker = Broker::start(&[]);
    let mut beating = open_with_heartbeat(&broker, 1);
    let mut talking = open_with_heartbeat(&broker, 1);
    let start = Instant::now();
    let mut heartbeats = 0;
    while start.elapsed() < Duration::from_secs(5) {
        beating.send(&frame(HEARTBEAT, 0, &[]));
        talking.send(&methods_without_answer());
        if let Event::Frame(frame) = beating.next_event_or_heartbeat(Duration::from_millis(400)) {
            assert_eq!(frame.kind, HEARTBEAT);
            heartbeats += 1;
        }
    }
    assert!(heartbeats >= 3, "the broker sent {heartbeats} heartbeats in 5 s at an interval of 1 s");
    beating.synchronise(1);
    talking.synchronise(1);
}

fn methods_without_answer() -> Vec<u8> {
    crate::support::wire::message(1, "", "nowhere", 0, b"x", 131_072)
}

/// An octet now and then is traffic too, even if no frame is complete.
#[test]
fn a_slow_frame_is_traffic() {
    let broker = Broker::start(&[]);
    let mut wire = open_with_heartbeat(&broker, 1);
    let octets = methods_without_answer();
    let start = Instant::now();
    for octet in octets.iter().take(12) {
        wire.send(&[*octet]);
        while let Event::Frame(frame) = wire.next_event_or_heartbeat(Duration::from_millis(300)) {
            assert_eq!(frame.kind, HEARTBEAT);
        }
    }
    assert!(start.elapsed() > Duration::from_secs(3));
    wire.send(&octets[12..]);
    wire.synchronise(1);
}

/// With an interval of 0 nobody sends heartbeats and nobody is dropped.
#[test]
fn without_heartbeats_a_silent_peer_is_kept() {
    let broker = Broker::start(&[]);
    let mut wire = open_with_heartbeat(&broker, 0);
    assert!(matches!(wire.next_event_or_heartbeat(Duration::from_secs(5)), Event::Silence));
    wire.synchronise(1);
}

/// Frames that were sent before a close are handled before it.
#[test]
fn what_was_sent_before_a_close_is_handled() {
    let broker = Broker::start(&["--shards", "3"]);
    let mut watcher = Wire::open(&broker);
    let name = watcher.declare(1, &crate::support::unique("close"), 0);
    for round in 0..20 {
        let mut wire = Wire::open(&broker);
        for number in 0..50 {
            wire.publish(1, "", &name, 0, format!("{round} {number}").as_bytes());
        }
        if round % 2 == 0 {
            wire.call(1, &methods::close(channel::CLOSE, 200, ""), channel::CLOSE_OK);
        }
        wire.close();
        crate::support::wait_until("all arrived", Duration::from_secs(10), || watcher.counts(1, &name).0 == 50);
        watcher.call(1, &methods::queue_purge(&name), methods::queue::PURGE_OK);
    }
    watcher.call(1, &methods::queue_delete(&name), methods::queue::DELETE_OK);
}

#[test]
fn a_secret_can_be_updated() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    let update = Octets::method(connection::UPDATE_SECRET).long(b"guest").short("rotation").0;
    wire.call(0, &update, connection::UPDATE_SECRET_OK);
    wire.synchronise(1);
}

#[test]
fn channel_flow_is_answered() {
    let broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    let flow = |active: u8| Octets::method(channel::FLOW).u8(active).0;
    assert_eq!(wire.call(1, &flow(1), channel::FLOW_OK).u8(), 1);
    wire.send_method(1, &flow(0));
    wire.expect_close(540, "NOT_IMPLEMENTED - active=false");
}

/// What a client may look for in the server's properties.
#[test]
fn the_servers_properties_name_its_capabilities() {
    let broker = Broker::start(&[]);
    let wire = Wire::open(&broker);
    let properties = String::from_utf8_lossy(&wire.server_properties).into_owned();
    for name in ["product", "version", "platform", "capabilities"] {
        assert!(properties.contains(name), "`{name}` is missing");
    }
    for capability in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ] {
        // Each is the boolean true: its name, the type `t`, and 1.
        let entry = [&[u8::try_from(capability.len()).expect("short")][..], capability.as_bytes(), b"t\x01"].concat();
        let found = wire.server_properties.windows(entry.len()).any(|window| window == entry);
        assert!(found, "`{capability}` is missing");
    }
}
