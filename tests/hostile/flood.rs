//! A publisher that floods a consumer that never reads: memory stays bounded, the others stay served.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use crate::support::broker::Broker;
use crate::support::canary::{Canary, broker_is_unhurt};
use crate::support::methods::{self, NO_ACK, basic, connection};
use crate::support::octets::{METHOD, frame};
use crate::support::wire::{ANSWER_MAX, Event, Handshake, Wire, message};
use crate::support::{unique, wait_until};

const MEMORY_LIMIT: u64 = 256 << 20;
/// What a process needs besides messages, and what may be underway when publishers are stopped.
const MEMORY_BESIDES: u64 = 160 << 20;
/// The flood ends here at the latest: four times what the broker may hold.
const FLOOD_OCTETS: usize = 1 << 30;

/// Publishes numbered messages without ever waiting for room: what the socket does not take stays in `pending`.
struct Flood {
    wire: Wire,
    queue: String,
    body_octets: usize,
    pending: Vec<u8>,
    written: usize,
    next: u64,
    is_blocked: bool,
}

impl Flood {
    fn new(broker: &Broker, queue: &str, body_octets: usize) -> Flood {
        let mut handshake = Handshake::default();
        handshake.capabilities.push("connection.blocked");
        let mut wire = Wire::open_with(broker, &handshake);
        wire.open_channel(1);
        wire.stream.set_write_timeout(Some(Duration::from_millis(20))).expect("a time-out can be set");
        wire.send_method(1, &methods::confirm_select());
        wire.expect_method(1, methods::confirm::SELECT_OK);
        let queue = queue.to_owned();
        Flood { wire, queue, body_octets, pending: Vec::new(), written: 0, next: 0, is_blocked: false }
    }

    /// Writes for a while; takes in what the broker says. Whether anything could be written.
    fn step(&mut self) -> bool {
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
            for _ in 0..(1 << 18) / self.body_octets {
                let mut body = vec![b'.'; self.body_octets];
                body[..8].copy_from_slice(&self.next.to_be_bytes());
                self.pending.extend(message(1, "", &self.queue, 0, &body, self.wire.frame_max));
                self.next += 1;
            }
        }
        let moved = match self.wire.stream.write(&self.pending[self.written..]) {
            Ok(count) => {
                self.written += count;
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Err(error) => panic!("the publisher was dropped: {error}"),
        };
        self.listen(Duration::from_millis(1));
        moved
    }

    fn listen(&mut self, limit: Duration) {
        while let Event::Frame(frame) = self.wire.next_event(limit) {
            match frame.method_id() {
                Some(connection::BLOCKED) => self.is_blocked = true,
                Some(connection::UNBLOCKED) => self.is_blocked = false,
                Some(basic::ACK) => {}
                other => panic!("the publisher got {other:?}"),
            }
            if limit > Duration::from_millis(1) {
                return;
            }
        }
    }

    /// Ends the batch that is underway.
    fn finish(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.written < self.pending.len() {
            assert!(Instant::now() < deadline, "the publisher stays stuck");
            self.step();
        }
    }
}

/// The whole way: flood until blocked, others are served, memory is bounded; drain, unblocked, all in order.
fn check_flood(body_octets: usize, consumer_bits: u8, with_consumer: bool) {
    let Some(mut broker) = Broker::own(&["--memory-limit", "256MiB"]) else { return };
    let mut canary = Canary::new(&broker);
    let mut control = Wire::open(&broker);
    let name = control.declare(1, &unique("flood"), 0);
    let prepared = control.declare(1, &unique("prepared"), 0);
    for number in 0..100 {
        control.publish(1, "", &prepared, 0, number.to_string().as_bytes());
    }
    control.synchronise(1);
    let mut consumer = Wire::open(&broker);
    if with_consumer {
        consumer.consume(1, &name, "never reads", consumer_bits);
    }
    let mut flood = Flood::new(&broker, &name, body_octets);
    let mut highest = 0;
    let mut last_progress = Instant::now();
    let mut steps = 0;
    let most = (FLOOD_OCTETS / body_octets) as u64;
    while !flood.is_blocked && flood.next < most && last_progress.elapsed() < Duration::from_secs(10) {
        if flood.step() {
            last_progress = Instant::now();
        }
        highest = highest.max(broker.resident_octets());
        steps += 1;
        if steps % 100 == 1 && !flood.is_blocked {
            // The alarm may stop this one's publishing too, between the check and the publish: so only receive.
            control.counts(1, &prepared);
        }
    }
    assert!(flood.is_blocked, "no connection.blocked after {} messages; resident {highest}", flood.next);
    let blocked_at = flood.next;
    let quiet_since = Instant::now();
    while quiet_since.elapsed() < Duration::from_secs(2) {
        flood.step();
        highest = highest.max(broker.resident_octets());
    }
    let after_alarm = (flood.next - blocked_at) * body_octets as u64;
    assert!(after_alarm < 64 << 20, "{after_alarm} octets were taken after connection.blocked");
    assert!(highest < MEMORY_LIMIT + MEMORY_BESIDES, "resident memory rose to {highest}");

    // Whoever does not publish is served as ever.
    let start = Instant::now();
    for number in 0..100 {
        assert_eq!(control.get(1, &prepared, true).expect("it is there").text(), number.to_string());
    }
    let mut newcomer = Wire::open(&broker);
    newcomer.declare(1, "", methods::EXCLUSIVE);
    newcomer.close();
    assert!(start.elapsed() < Duration::from_secs(3), "others waited {:?}", start.elapsed());

    drain(&mut flood, consumer, &name, with_consumer);
    canary.sing();
    control.call(1, &methods::queue_delete(&name), methods::queue::DELETE_OK);
    control.call(1, &methods::queue_delete(&prepared), methods::queue::DELETE_OK);
    wait_until("memory falls back", Duration::from_secs(20), || broker.resident_octets() < MEMORY_LIMIT);
    broker_is_unhurt(&mut broker);
}

/// Reads everything in order while the publisher goes on; it must be let go by itself.
fn drain(flood: &mut Flood, mut consumer: Wire, name: &str, with_consumer: bool) {
    if !with_consumer {
        consumer.consume(1, name, "comes late", NO_ACK);
    }
    std::thread::scope(|scope| {
        let name = name.to_owned();
        let reader = scope.spawn(move || {
            let mut expected = 0_u64;
            loop {
                let delivery = consumer.expect_delivery(1);
                assert_eq!(delivery.body[..8], expected.to_be_bytes(), "from {name}, out of order");
                assert!(!delivery.redelivered);
                if delivery.delivery_tag.is_multiple_of(64) {
                    // Harmless where there is nothing to acknowledge: 0 means all that is outstanding.
                    consumer.send(&frame(METHOD, 1, &methods::ack(0, true)));
                }
                expected += 1;
                if delivery.body.ends_with(b"last") {
                    return;
                }
            }
        });
        let deadline = Instant::now() + Duration::from_secs(120);
        while flood.is_blocked {
            assert!(Instant::now() < deadline, "no connection.unblocked while draining");
            assert!(!reader.is_finished(), "the consumer gave up");
            flood.listen(Duration::from_millis(50));
        }
        flood.finish();
        let mut body = flood.next.to_be_bytes().to_vec();
        body.extend(b"last");
        flood.wire.stream.set_write_timeout(Some(ANSWER_MAX)).expect("a time-out can be set");
        flood.wire.publish(1, "", &flood.queue, 0, &body);
        reader.join().expect("the consumer got all in order");
    });
}

/// Messages pile up in front of a consumer without acknowledgements, whose socket is full.
#[test]
fn a_consumer_that_never_reads_is_flooded_without_acknowledgements() {
    check_flood(1024, NO_ACK, true);
}

/// The same with acknowledgements and no prefetch limit: all that fits into the output may be unacknowledged.
#[test]
fn a_consumer_that_never_reads_is_flooded_with_acknowledgements() {
    check_flood(200, 0, true);
}

/// Large bodies, which may be held in another way.
#[test]
fn a_consumer_that_never_reads_is_flooded_with_large_messages() {
    check_flood(100_000, NO_ACK, true);
}

/// Without any consumer: the backlog alone reaches the watermark.
#[test]
fn a_queue_without_consumers_is_flooded() {
    check_flood(16_000, 0, false);
}

/// Clients that did not ask for `connection.blocked` do not get it; their publishing waits all the same.
#[test]
fn connection_blocked_goes_only_to_who_asked_for_it() {
    let Some(mut broker) = Broker::own(&["--memory-limit", "256MiB"]) else { return };
    let mut silent = Wire::open(&broker);
    let name = silent.declare(1, &unique("flood"), methods::AUTO_DELETE);
    let mut flood = Flood::new(&broker, &name, 60_000);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !flood.is_blocked {
        assert!(Instant::now() < deadline, "no connection.blocked");
        flood.step();
    }
    silent.publish(1, "", &name, 0, b"waits");
    silent.expect_quiet();
    let mut control = Wire::open(&broker);
    control.call(1, &methods::queue_purge(&name), methods::queue::PURGE_OK);
    let deadline = Instant::now() + Duration::from_secs(20);
    while flood.is_blocked {
        assert!(Instant::now() < deadline, "no connection.unblocked after the purge");
        flood.listen(Duration::from_millis(50));
    }
    silent.synchronise(1);
    drop(flood);
    broker_is_unhurt(&mut broker);
}

/// Goal: a client that asks and never reads the answers is held or dropped, not buffered for without bound.
/// Method: requests with large answers until the socket is full, for a while; resident memory stays bounded.
#[test]
fn a_client_that_never_reads_its_answers_is_bounded() {
    let Some(mut broker) = Broker::own(&[]) else { return };
    let mut canary = Canary::new(&broker);
    let before = broker.resident_octets();
    let mut wire = Wire::open(&broker);
    let name = wire.declare(1, "", methods::EXCLUSIVE);
    wire.publish(1, "", &name, 0, &vec![b'x'; 1 << 20]);
    wire.stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a time-out can be set");
    // Each turn is 60 octets in and 1 MiB out.
    let turn = [frame(METHOD, 1, &methods::get(&name, false)), frame(METHOD, 1, &methods::recover(true))].concat();
    let start = Instant::now();
    let mut stuck = 0;
    while stuck < 5 && start.elapsed() < Duration::from_secs(10) {
        match wire.stream.write(&turn.repeat(100)) {
            Ok(_) => stuck = 0,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => stuck += 1,
            Err(_) => break,
        }
        let grown = broker.resident_octets().saturating_sub(before);
        assert!(grown < 128 << 20, "resident memory grew by {grown}");
    }
    canary.sing();
    drop(wire);
    broker_is_unhurt(&mut broker);
}

/// The same for what a mandatory publish returns.
#[test]
fn a_publisher_that_never_reads_its_returns_is_bounded() {
    let Some(mut broker) = Broker::own(&[]) else { return };
    let mut canary = Canary::new(&broker);
    let before = broker.resident_octets();
    let mut wire = Wire::open(&broker);
    wire.stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a time-out can be set");
    let octets = message(1, "", "nowhere", methods::MANDATORY, &[b'x'; 10_000], 131_072).repeat(20);
    let (mut sent, mut stuck) = (0, 0);
    while stuck < 5 && sent < 512 << 20 {
        match wire.stream.write(&octets[sent % octets.len()..]) {
            Ok(count) => (sent, stuck) = (sent + count, 0),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => stuck += 1,
            Err(_) => break,
        }
        let grown = broker.resident_octets().saturating_sub(before);
        assert!(grown < 128 << 20, "resident memory grew by {grown} after {sent} octets");
    }
    canary.sing();
    drop(wire);
    broker_is_unhurt(&mut broker);
}
