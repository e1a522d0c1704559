//! Connections that send seeded random octets, and mutations of a valid session.
//!
//! `LEPUS_TEST_SEEDS=10000` runs more seeds; `LEPUS_TEST_SEED=17` replays one.

use std::ops::Range;
use std::time::Duration;

use crate::support::broker::{Broker, oracle};
use crate::support::canary::{Canary, broker_is_unhurt};
use crate::support::methods::{self, EXCLUSIVE, MANDATORY, NO_ACK, connection};
use crate::support::octets::{METHOD, Octets, PROTOCOL_HEADER, Table, frame, frame_declaring};
use crate::support::random::Random;
use crate::support::wire::{Event, Handshake, Wire, message};

fn seeds() -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    if let Some(seed) = number("LEPUS_TEST_SEED") {
        return seed..seed + 1;
    }
    // RabbitMQ makes strangers wait for three seconds before it closes.
    0..number("LEPUS_TEST_SEEDS").unwrap_or(if oracle().is_some() { 10 } else { 300 })
}

/// Writes what it can, stops sending, and reads until the broker closes; it must, since nothing more can come.
#[track_caller]
fn feed(broker: &Broker, octets: &[u8], seed: u64) {
    let mut wire = Wire::connect(broker);
    let _ = wire.try_send(octets);
    wire.finish_sending();
    drain(&mut wire, seed);
}

#[track_caller]
fn drain(wire: &mut Wire, seed: u64) {
    use std::io::Read;
    // Raw: a header instead of a frame may come back.
    wire.stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
    let mut chunk = [0; 65_536];
    loop {
        match wire.stream.read(&mut chunk) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                panic!("seed {seed}: the broker keeps a socket whose peer has stopped sending");
            }
            Err(_) => return,
        }
    }
}

/// A frame that is well-formed outside and random within.
fn random_frame(random: &mut Random) -> Vec<u8> {
    let length = random.below(200);
    let mut payload = random.octets(length);
    if random.below(2) == 0 && payload.len() >= 4 {
        let class = [10, 20, 40, 50, 60, 85, 90][random.below(7)];
        let method = (1 + random.below(12)) * 10 + random.below(2);
        payload[..4].copy_from_slice(&[0, class, 0, u8::try_from(method).expect("small")]);
    }
    let kind = [1, 1, 1, 1, 2, 3, 8, random.octet()][random.below(8)];
    let channel = [0, 1, 1, 1, 2, 65_535][random.below(6)];
    if random.below(20) == 0 {
        let size = u32::try_from(random.below(1 << 20)).expect("small");
        return frame_declaring(kind, channel, size, &payload);
    }
    frame(kind, channel, &payload)
}

/// A session as a client would send it, reading nothing.
fn session(queue: &str) -> Vec<Vec<u8>> {
    let table = Table::new().text("x-note", "x").i32("x-max-length", 100).table("t", &Table::new().boolean("b", true));
    let headers = Octets::new().u16(1 << 13 | 1 << 12).table(&table).u8(2).0;
    let method = |payload: Vec<u8>| frame(METHOD, 1, &payload);
    vec![
        PROTOCOL_HEADER.to_vec(),
        frame(METHOD, 0, &Handshake::default().start_ok()),
        frame(METHOD, 0, &methods::tune_ok(2047, 131_072, 10)),
        frame(METHOD, 0, &methods::connection_open("/")),
        method(methods::channel_open()),
        method(methods::queue_declare(queue, EXCLUSIVE, &Table::new().i32("x-max-length", 100))),
        method(methods::exchange_declare(&format!("{queue}-x"), "topic", methods::EXCHANGE_AUTO_DELETE)),
        method(methods::queue_bind(queue, &format!("{queue}-x"), "a.*.#")),
        method(methods::confirm_select()),
        message(1, "", queue, 0, b"hello", 131_072),
        method(methods::publish(&format!("{queue}-x"), "a.b.c", MANDATORY)),
        frame(2, 1, &methods::content_header(6, &headers)),
        frame(3, 1, b"world!"),
        method(methods::get(queue, false)),
        method(methods::nack(1, false)),
        method(methods::qos(10, true)),
        method(methods::consume(queue, "tag", 0)),
        method(methods::ack(0, true)),
        method(methods::cancel("tag")),
        method(methods::recover(true)),
        method(methods::consume(queue, "tag", NO_ACK)),
        message(1, "", queue, MANDATORY, &[b'x'; 3000], 131_072),
        frame(8, 0, &[]),
        method(methods::queue_purge(queue)),
        method(methods::queue_delete(queue)),
        frame(METHOD, 0, &methods::close(connection::CLOSE, 200, "goodbye")),
    ]
}

/// Applies one to four random changes to the session's octets or to the order of its frames.
fn mutate(random: &mut Random, mut frames: Vec<Vec<u8>>) -> Vec<u8> {
    for _ in 0..random.below(3) {
        // The handshake stays in front most of the time, or nothing behind it would ever be reached.
        let first = if random.below(4) == 0 { 0 } else { 4 };
        let (a, b) = (first + random.below(frames.len() - first), first + random.below(frames.len() - first));
        match random.below(4) {
            0 => frames.swap(a, b),
            1 => frames.insert(b, frames[a].clone()),
            2 => drop(frames.remove(a)),
            _ => frames.insert(a, random_frame(random)),
        }
    }
    let handshake: usize = frames.iter().take(4).map(Vec::len).sum();
    let mut octets = frames.concat();
    for _ in 0..=random.below(3) {
        let from = if random.below(4) == 0 { 0 } else { handshake.min(octets.len() - 1) };
        let at = from + random.below(octets.len() - from);
        match random.below(6) {
            0 => octets[at] ^= 1 << random.below(8),
            1 => octets[at] = random.octet(),
            2 => drop(octets.remove(at)),
            3 => octets.insert(at, random.octet()),
            4 => octets[at] = [0, 1, 0x7F, 0x80, 0xFF, 0xCE][random.below(6)],
            _ if random.below(4) == 0 => octets.truncate(at.max(1)),
            _ => octets[at] = octets[at].wrapping_add(1),
        }
    }
    octets
}

/// Goal: random octets as a whole connection, before, within and after the handshake.
#[test]
fn random_octets_hurt_nobody() {
    let mut broker = Broker::start(&[]);
    let mut canary = Canary::new(&broker);
    for seed in seeds() {
        let mut random = Random::new(seed);
        let length = random.below(3000);
        match seed % 4 {
            0 => feed(&broker, &random.octets(length), seed),
            1 => feed(&broker, &[&PROTOCOL_HEADER[..], &random.octets(length)].concat(), seed),
            way => {
                let mut wire = Wire::open(&broker);
                let frames: Vec<u8> = (0..30).flat_map(|_| random_frame(&mut random)).collect();
                let _ = wire.try_send(if way == 2 { &frames } else { &frames[..length.min(frames.len())] });
                wire.finish_sending();
                drain(&mut wire, seed);
            }
        }
        canary.sing();
        broker.expect_running();
    }
    broker_is_unhurt(&mut broker);
}

/// Goal: small changes to a valid session, in its octets and in the order of its frames.
#[test]
fn mutated_sessions_hurt_nobody() {
    let mut broker = Broker::start(&[]);
    let mut canary = Canary::new(&broker);
    for seed in seeds() {
        let mut random = Random::new(seed ^ 0xABCD_EF01);
        let queue = crate::support::unique("mutated");
        let octets = mutate(&mut random, session(&queue));
        feed(&broker, &octets, seed);
        canary.sing();
        broker.expect_running();
    }
    broker_is_unhurt(&mut broker);
}

/// The session itself is valid: it ends with close-ok. Otherwise its mutations would prove little.
#[test]
fn the_session_is_valid_without_mutations() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::connect(&broker);
    wire.send(&session(&crate::support::unique("valid")).concat());
    loop {
        match wire.next_event(Duration::from_secs(20)) {
            Event::Frame(frame) if frame.method_id() == Some(connection::CLOSE_OK) => break,
            Event::Frame(frame) if frame.method_id().is_some_and(|(_, method)| method == 50 || method == 40) => {
                // Only basic.return (60, 50) is welcome among those.
                assert_eq!(
                    frame.method_id(),
                    Some(methods::basic::RETURN),
                    "{}",
                    crate::support::wire::describe(&frame)
                );
            }
            Event::Frame(_) => {}
            other => panic!("the broker closed before close-ok: {other:?}"),
        }
    }
    broker_is_unhurt(&mut broker);
}
