//! Many connections, and more than the machine has room for.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::broker::{BINARY, Broker};
use crate::support::canary::{Canary, broker_is_unhurt};
use crate::support::methods::connection;
use crate::support::octets::PROTOCOL_HEADER;
use crate::support::wire::{Event, Handshake, Wire};
use crate::support::{raise_open_files_limit, wait_until};

/// Goal: two thousand connections at once, each usable; afterwards their sockets are closed and memory is back.
#[test]
fn two_thousand_connections_open_and_close() {
    let room = raise_open_files_limit();
    let count = usize::try_from(room).unwrap_or(usize::MAX).saturating_sub(200).min(2000);
    let mut broker = Broker::start(&[]);
    let mut canary = Canary::new(&broker);
    let files = if broker.is_oracle() { 0 } else { broker.open_files() };
    for round in 0..2 {
        let mut wires: Vec<Wire> = (0..count).map(|_| Wire::open_with(&broker, &Handshake::default())).collect();
        canary.sing();
        for wire in wires.iter_mut().step_by(10) {
            wire.open_channel(1);
            wire.synchronise(1);
        }
        // Half say goodbye, half vanish.
        for (number, wire) in wires.into_iter().enumerate() {
            if number % 2 == round {
                wire.close();
            }
        }
        if !broker.is_oracle() {
            wait_until("all sockets are closed", Duration::from_secs(20), || broker.open_files() <= files + 2);
        }
        canary.sing();
    }
    broker_is_unhurt(&mut broker);
}

/// Sockets that are opened and closed at once, and ones that are reset.
#[test]
fn sockets_that_close_at_once_hurt_nobody() {
    let mut broker = Broker::start(&[]);
    let mut canary = Canary::new(&broker);
    for number in 0..500 {
        let mut wire = Wire::connect(&broker);
        if number % 3 == 0 {
            let _ = wire.try_send(&PROTOCOL_HEADER);
        }
        if number % 7 == 0 {
            // Unread octets make the close a reset.
            wire.next_event(Duration::from_millis(1));
        }
        drop(wire);
        if number % 100 == 0 {
            canary.sing();
        }
    }
    canary.sing();
    broker_is_unhurt(&mut broker);
}

/// Goal: out of file descriptors, the broker neither dies nor spins, serves who is connected, and recovers.
/// Method: a limit of 96 files; connect until one is not served; measure processor time; disconnect; connect again.
#[test]
fn running_out_of_file_descriptors_is_survived() {
    const OPEN_FILES_MAX: usize = 96;
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {OPEN_FILES_MAX}; exec \"$0\" \"$@\""), BINARY]);
    let Some(mut broker) = Broker::own_through(shell, &["--shards", "1"]) else { return };
    let mut canary = Canary::new(&broker);
    let mut served = Vec::new();
    let mut waiting = Vec::new();
    // The kernel completes connections in the backlog: only an answer tells that one is accepted.
    while waiting.len() < 5 {
        assert!(served.len() <= OPEN_FILES_MAX, "the limit does not hold");
        let mut wire = Wire::connect(&broker);
        wire.send(&PROTOCOL_HEADER);
        match wire.next_event(Duration::from_secs(1)) {
            Event::Frame(frame) => {
                assert_eq!(frame.method_id(), Some(connection::START));
                served.push(wire);
            }
            // Held in the backlog or closed at once: both are fine.
            Event::Silence | Event::Closed => waiting.push(wire),
        }
        canary.sing();
    }
    assert!(served.len() >= 10, "only {} connections were served", served.len());
    let ticks = broker.processor_ticks();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        canary.sing();
        std::thread::sleep(Duration::from_millis(50));
    }
    let used = broker.processor_ticks() - ticks;
    assert!(used < 100, "the broker used {used} of 200 ticks while it could not accept");
    drop(served);
    drop(waiting);
    let start = Instant::now();
    let mut recovered = false;
    while !recovered && start.elapsed() < Duration::from_secs(15) {
        recovered = Wire::connect(&broker).shake_hands(&Handshake::default()).is_ok();
    }
    assert!(recovered, "no connection was accepted after room was made");
    canary.sing();
    broker_is_unhurt(&mut broker);
}
