//! Tests of how publishers share the commits of a journal: a disk that takes a while, and a client with many publishers, step
//! by step in simulated time.

use super::aligned::AlignedBuffer;
use super::disk::DiskRequest;
use super::fixture::{entry, with_message};
use super::journal::{Journal, JournalOptions};
use crate::limits::JOURNAL_HOLD_MICROS_MAX;
use std::collections::BTreeSet;

/// A disk that takes a while and publishers that answer to what is confirmed: one after the other, as one client does.
struct World {
    journal: Journal,
    now: u64,
    commit_micros: u64,
    /// What the client takes for one confirm and the next publish, and the way there and back.
    client_micros: u64,
    way_micros: u64,
    /// What the broker takes to send one confirm, and does nothing else meanwhile.
    send_micros: u64,
    /// When who publishes next.
    publishes: BTreeSet<(u64, u64)>,
    /// Who waits for which batch, since when.
    waiting: Vec<(u64, u64, u64)>,
    in_flight: Option<(u64, u64, AlignedBuffer)>,
    confirmed: u64,
    waited_micros_max: u64,
    client_free: u64,
}

impl World {
    fn new(commit_micros: u64, client_micros: u64, way_micros: u64) -> World {
        let options = JournalOptions { epoch: 1, shard: 0, segment_octets: 32 << 20, segments_target: 3 };
        World {
            journal: Journal::new(options),
            now: 1_000_000,
            commit_micros,
            client_micros,
            way_micros,
            send_micros: 0,
            publishes: BTreeSet::new(),
            waiting: Vec::new(),
            in_flight: None,
            confirmed: 0,
            waited_micros_max: 0,
            client_free: 0,
        }
    }

    /// So many publishers begin; each has a number of messages that await their confirm at any time.
    fn start(&mut self, publishers: u64, window: u64) {
        let places = (0..publishers).flat_map(|publisher| (0..window).map(move |place| (publisher, place)));
        self.publishes.extend(places.map(|(publisher, place)| (self.now, publisher << 32 | place)));
    }

    /// Lets so many commits happen; `answers` says when a publisher publishes next, from the time at which it can.
    fn run(&mut self, commits: u64, answers: &mut dyn FnMut(u64, u64) -> Option<u64>) {
        let end = self.journal.counters().commits + commits;
        while self.journal.counters().commits < end && self.step(answers) {}
    }

    /// Until the next event. Returns whether there was one.
    fn step(&mut self, answers: &mut dyn FnMut(u64, u64) -> Option<u64>) -> bool {
        self.poll();
        let deadline = self.journal.next_deadline_micros();
        let events = [self.publishes.first().map(|next| next.0), self.in_flight.as_ref().map(|next| next.0), deadline];
        let Some(next) = events.into_iter().flatten().min() else { return false };
        self.now = self.now.max(next);
        let is_late = deadline.is_some_and(|deadline| deadline <= self.now);
        while let Some(&(at, place)) = self.publishes.first().filter(|next| next.0 <= self.now) {
            self.publishes.remove(&(at, place));
            with_message(1, 10, |message| self.journal.put_message(&entry(1, self.confirmed), message));
            self.journal.demand_by(place >> 32);
            self.waiting.push((self.journal.gathering(), place, at));
        }
        if let Some((_, sequence, octets)) = self.in_flight.take_if(|next| next.0 <= self.now) {
            self.journal.handle_committed(sequence, octets, self.now);
            // The broker looks while it has not read what has come meanwhile.
            self.poll();
            self.confirm(sequence, answers);
            self.poll();
        } else if is_late {
            self.journal.handle_deadline(self.now);
        }
        true
    }

    fn poll(&mut self) {
        while let Some(request) = self.journal.poll_request(self.now) {
            match request {
                DiskRequest::Commit { sequence, octets, .. } => {
                    self.in_flight = Some((self.now + self.commit_micros, sequence, octets));
                }
                DiskRequest::PrepareSegment { segment } => self.journal.handle_segment_prepared(segment),
                other => panic!("a journal does not ask for {other:?}"),
            }
        }
    }

    fn confirm(&mut self, durable: u64, answers: &mut dyn FnMut(u64, u64) -> Option<u64>) {
        let (served, waiting): (Vec<_>, _) = self.waiting.drain(..).partition(|(sequence, _, _)| *sequence <= durable);
        self.waiting = waiting;
        for (_, place, since) in served {
            self.confirmed += 1;
            self.waited_micros_max = self.waited_micros_max.max(self.now - since);
            self.now += self.send_micros;
            self.client_free = self.client_free.max(self.now + self.way_micros) + self.client_micros;
            let at = answers(place >> 32, self.client_free + self.way_micros);
            self.publishes.extend(at.map(|at| (at, place)));
        }
    }
}

fn at_once(_: u64, at: u64) -> Option<u64> {
    Some(at)
}

/// What a commit takes, what the client takes for a message, and the way between it and the broker, in microseconds.
type Times = (u64, u64, u64);

/// How many messages share a commit, and how many commits were held back, of 400.
fn share((commit, client, way): Times, publishers: u64, window: u64) -> (f64, u64) {
    let mut world = World::new(commit, client, way);
    world.start(publishers, window);
    world.run(50, &mut at_once);
    let (confirmed, holds) = (world.confirmed, world.journal.counters().holds);
    world.run(400, &mut at_once);
    ((world.confirmed - confirmed) as f64 / 400.0, world.journal.counters().holds - holds)
}

/// Goal: of a hundred publishers that await one confirm each, well over half share a commit. Method: disks and clients of
/// several speeds.
#[test]
fn publishers_share_commits() {
    for times in [(150, 1, 20), (150, 2, 20), (150, 3, 30), (150, 5, 30), (400, 3, 30), (1000, 3, 30), (1000, 10, 30)] {
        let (shared, _) = share(times, 100, 1);
        assert!((70.0..=100.0).contains(&shared), "{times:?}: {shared} messages a commit");
        assert!(share(times, 10, 1).0 >= 8.0 && share(times, 2, 1).0 >= 2.0, "{times:?}");
    }
}

/// Goal: what the broker takes to send confirms does not count as waiting. Method: a disk that is faster than that; clients
/// that answer at once, and ones that take longer than the broker.
#[test]
fn a_busy_broker_is_waited_for() {
    for (send, client) in [(8, 3), (8, 12), (20, 3)] {
        let mut world = World::new(150, client, 20);
        world.send_micros = send;
        world.start(100, 1);
        world.run(50, &mut at_once);
        let confirmed = world.confirmed;
        world.run(400, &mut at_once);
        let shared = (world.confirmed - confirmed) as f64 / 400.0;
        assert!(shared >= 70.0, "{send} us to send, {client} us to answer: {shared} messages a commit");
    }
}

/// Goal: nobody waits for nobody, and who has several messages under way loses nothing. Method: one publisher, with a window of
/// one and of many; then many whose windows last longer than a commit, against what their client can do.
#[test]
fn continuous_publishers_are_not_held_back() {
    for window in [1, 100] {
        assert_eq!(share((150, 2, 20), 1, window).1, 0, "one with {window} under way was held back");
    }
    let mut world = World::new(150, 2, 20);
    world.start(100, 10);
    world.run(50, &mut at_once);
    let (confirmed, began) = (world.confirmed, world.now);
    world.run(400, &mut at_once);
    let micros = (world.now - began) as f64 / (world.confirmed - confirmed) as f64;
    assert!(micros < 2.0 / 0.9, "a message takes {micros} us, the client 2");
}

/// Goal: whoever publishes now and then is not waited for. Method: a thousand messages a second, from few and from many, at
/// intervals that are all different.
#[test]
fn occasional_publishers_are_not_waited_for() {
    for publishers in [4, 20, 200] {
        let mut world = World::new(150, 2, 20);
        world.start(publishers, 1);
        let mut random = 1_u64;
        let mut answers = |_: u64, at: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some(at + publishers * 500 + (random >> 33) % (publishers * 1000))
        };
        world.run(20, &mut answers);
        let holds = world.journal.counters().holds;
        world.waited_micros_max = 0;
        world.run(1000, &mut answers);
        let holds = world.journal.counters().holds - holds;
        assert!(holds < 200, "{publishers} publishers: {holds} of 1000 commits were held back");
        assert!(world.waited_micros_max <= 4 * 150, "somebody waited {} us", world.waited_micros_max);
    }
}

/// Goal: nobody is waited for in vain for long. Method: most of the publishers stop at the same moment.
#[test]
fn who_has_gone_is_not_waited_for() {
    let mut world = World::new(150, 2, 20);
    world.start(100, 1);
    world.run(50, &mut at_once);
    world.waited_micros_max = 0;
    let mut answers = |publisher: u64, at: u64| (publisher < 10).then_some(at);
    world.run(10, &mut answers);
    assert!(world.waited_micros_max <= 2 * 150 + JOURNAL_HOLD_MICROS_MAX, "{} us", world.waited_micros_max);
    let (confirmed, commits) = (world.confirmed, world.journal.counters().commits);
    world.run(100, &mut answers);
    assert_eq!(world.journal.counters().commits - commits, 100);
    assert!(world.confirmed - confirmed >= 800, "the ten that are left share commits");
    // One that waits all alone, when the others have gone, is served at the deadline.
    world.run(1, &mut |_, _| None);
    world.start(1, 1);
    world.waited_micros_max = 0;
    world.run(10, &mut |_, _| None);
    assert!(world.publishes.is_empty() && world.waiting.is_empty());
}

/// Goal: somebody who must not wait does not. Method: hold a batch back, then demand it without a name.
#[test]
fn a_plain_demand_is_not_held_back() {
    let mut world = World::new(150, 2, 20);
    world.start(100, 1);
    world.run(50, &mut at_once);
    while world.journal.next_deadline_micros().is_none() {
        world.step(&mut at_once);
    }
    assert!(world.journal.poll_request(world.now).is_none(), "it is held back");
    let deadline = world.journal.next_deadline_micros().expect("it is held back");
    assert!(deadline > world.now && deadline <= world.now + JOURNAL_HOLD_MICROS_MAX);
    world.journal.demand();
    assert_eq!(world.journal.next_deadline_micros(), None);
    assert!(matches!(world.journal.poll_request(world.now), Some(DiskRequest::Commit { .. })));
}
