//! A broker that is killed a hundred times in a row.

use crate::client::{Client, Incoming, Properties, message};
use crate::ledger::{Ledger, MessageId, Seen};
use crate::site::{Site, expect_stopped};
use crate::support::broker::Broker;
use crate::support::methods;
use crate::support::octets::{METHOD, Table, frame};
use crate::support::random::Random;
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const QUEUES: u16 = 5;
const PUBLISHERS: usize = 3;
/// Publishes of one connection that are not confirmed.
const WINDOW: usize = 200;
/// All queues are looked through after so many rounds.
const ROUNDS_PER_CHECK: u32 = 10;
/// Bit of `basic.consume`: it is not answered.
const CONSUME_NO_WAIT: u8 = 8;
/// Above so many messages consumers acknowledge all.
const BACKLOG_MESSAGES_MAX: usize = 4_000;

fn queue_name(queue: u16) -> String {
    format!("kept-{queue}")
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// What happens in a round.
#[derive(Clone, Copy, Debug)]
struct Round {
    octets_max: usize,
    publishes_max: usize,
    lives: Duration,
}

impl Round {
    /// Most are short with short messages; some have bodies that fill the memory, some fill the journal.
    fn draw(number: u32, random: &mut Random) -> Round {
        let millis = |least: u64, random: &mut Random| Duration::from_millis(least + random.below(250) as u64);
        match number % 10 {
            3 | 7 => Round { octets_max: 20 << 10, publishes_max: 1_500, lives: millis(150, random) },
            9 => Round { octets_max: 100 << 10, publishes_max: 3_000, lives: millis(1_200, random) },
            _ => Round { octets_max: 400, publishes_max: 2_000, lives: millis(5, random) },
        }
    }
}

/// Goal: a hundred kills, and what was confirmed and not acknowledged is there once, in order, unchanged; what was delivered says
/// so; what was acknowledged comes back only after a restart, if at all; nothing else comes.
/// Method: several publishers with confirms and a consumer for each queue, against one data directory; SIGKILL at a random
/// moment, in some rounds while the broker starts; now and then a stop in order; one to three shards. Counts are compared after
/// each restart, all messages after ten.
#[test]
fn confirmed_messages_survive_a_hundred_kills() {
    let Some(site) = Site::new() else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    let seed = setting("LEPUS_TEST_SEED", u64::from(now.subsec_nanos()));
    eprintln!("LEPUS_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let ledger = Mutex::new(Ledger::default());
    let rounds = u32::try_from(setting("LEPUS_TEST_KILLS", 100)).expect("a test ends");
    for round in 1..=rounds {
        hold(&ledger).round = round;
        if round % 5 == 0 {
            // It reads what was left, forwards it, frees what was older: and dies in the midst of it.
            let mut starting = site.spawn(&["--shards", &random_shards(&mut random)]);
            thread::sleep(Duration::from_millis(random.below(120) as u64));
            starting.kill().expect("it is our child");
            starting.wait().expect("it is our child");
        }
        let broker = site.start(&["--queue-memory", "1MiB", "--shards", &random_shards(&mut random)]);
        check_counts(&broker, &ledger);
        if round % ROUNDS_PER_CHECK == 0 {
            check_all(&broker, &ledger);
        }
        let plan = Round::draw(round, &mut random);
        let is_stopped = round % 17 == 0;
        live(&broker, &ledger, plan, if is_stopped { Signal::TERM } else { Signal::KILL }, &mut random);
        if is_stopped {
            expect_stopped(broker);
        }
    }
    hold(&ledger).round = rounds + 1;
    let broker = site.start(&[]);
    check_counts(&broker, &ledger);
    check_all(&broker, &ledger);
    let ledger = hold(&ledger);
    eprintln!("{} messages were published, {} acknowledgements were lost", ledger.published(), ledger.returned);
}

fn random_shards(random: &mut Random) -> String {
    (1 + random.below(3)).to_string()
}

fn hold(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The queues have no fewer and no more messages than they may.
#[track_caller]
fn check_counts(broker: &Broker, ledger: &Mutex<Ledger>) {
    let mut client = Client::open(broker);
    let ledger = hold(ledger);
    for queue in 0..QUEUES {
        client.declare(&queue_name(queue), &Table::new());
        let ready = client.ready(&queue_name(queue));
        let (least, most) = ledger.bounds(queue);
        assert!(least <= ready && ready <= most, "{} has {ready} messages: {least} to {most}", queue_name(queue));
    }
}

/// Each queue is looked through; everything goes back then.
#[track_caller]
fn check_all(broker: &Broker, ledger: &Mutex<Ledger>) {
    let mut ledger = hold(ledger);
    for queue in 0..QUEUES {
        let mut client = Client::open(broker);
        let count = client.ready(&queue_name(queue));
        let mut seen = Seen::default();
        let taken = client.take(&queue_name(queue), usize::try_from(count).expect("it fits"), false);
        let found: Vec<MessageId> = taken
            .iter()
            .map(|delivery| ledger.deliver(queue, &delivery.body, delivery.redelivered, &mut seen))
            .collect();
        assert_eq!(client.ready(&queue_name(queue)), 0);
        ledger.reconcile(queue, &found);
        client.wire.close();
    }
}

/// Publishes and consumes for as long as the round is to last; then the broker gets `end`.
fn live(broker: &Broker, ledger: &Mutex<Ledger>, plan: Round, end: Signal, random: &mut Random) {
    let is_over = AtomicBool::new(false);
    let publishers: Vec<_> =
        (0..PUBLISHERS).map(|_| (Client::publisher(broker), hold(ledger).add_publisher())).collect();
    let consumers: Vec<_> = (0..QUEUES).map(|queue| (Client::open(broker), queue)).collect();
    let started = Instant::now();
    thread::scope(|scope| {
        for (client, number) in publishers {
            let (random, is_over) = (Random::new(random.next()), &is_over);
            scope.spawn(move || publish(client, number, ledger, plan, random, is_over));
        }
        for (client, queue) in consumers {
            let (random, is_over) = (Random::new(random.next()), &is_over);
            scope.spawn(move || consume(client, queue, ledger, random, is_over));
        }
        thread::sleep(plan.lives.saturating_sub(started.elapsed()));
        // Under their feet: they are told after.
        broker.signal(end);
        is_over.store(true, Ordering::Relaxed);
    });
}

fn publish(
    mut client: Client,
    publisher: usize,
    ledger: &Mutex<Ledger>,
    plan: Round,
    mut random: Random,
    is_over: &AtomicBool,
) {
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        let burst = random.below(20).min(plan.publishes_max - sent);
        let mut octets = vec![];
        if client.unconfirmed_count() < WINDOW {
            let mut ledger = hold(ledger);
            for _ in 0..burst {
                let queue = u16::try_from(random.below(usize::from(QUEUES))).expect("queues are few");
                let body = ledger.send(publisher, queue, random.below(plan.octets_max));
                octets.extend(message("", &queue_name(queue), Properties::default(), &body));
            }
            sent += burst;
            client.note_published(burst as u64);
        }
        if client.wire.try_send(&octets).is_err() {
            return;
        }
        // Who cannot publish waits.
        let limit = if octets.is_empty() { Duration::from_millis(20) } else { Duration::from_millis(1) };
        match client.next(limit) {
            Incoming::Confirm { tag, multiple, is_ack } => {
                assert!(is_ack, "a publish was refused");
                let tags = client.note_confirm(tag, multiple);
                hold(ledger).confirm(publisher, &tags);
            }
            Incoming::Closed => return,
            Incoming::Silence | Incoming::Blocked | Incoming::Unblocked => {}
            other => panic!("a publisher got {other:?}"),
        }
    }
}

fn consume(mut client: Client, queue: u16, ledger: &Mutex<Ledger>, mut random: Random, is_over: &AtomicBool) {
    let prefetch = 1 + u16::try_from(random.below(100)).expect("it is small");
    let consume = methods::consume(&queue_name(queue), "consumer", CONSUME_NO_WAIT);
    if client.wire.try_send_method(1, &methods::qos(prefetch, false)).is_err()
        || !matches!(client.next(Duration::from_secs(5)), Incoming::Limited)
        || client.wire.try_send_method(1, &consume).is_err()
    {
        return;
    }
    let mut seen = Seen::default();
    let mut waiting: Vec<(u64, MessageId)> = vec![];
    // Once in a while everything goes back and comes again.
    let mut until_return = 50 + random.below(2_000);
    let mut is_returning = false;
    while !is_over.load(Ordering::Relaxed) {
        let delivery = match client.next(Duration::from_millis(20)) {
            Incoming::Delivery(delivery) => delivery,
            Incoming::Recovered => {
                seen.note_return();
                waiting.clear();
                until_return = 50 + random.below(2_000);
                is_returning = false;
                continue;
            }
            Incoming::Closed => return,
            _ => continue,
        };
        let mut ledger = hold(ledger);
        let id = ledger.deliver(queue, &delivery.body, delivery.redelivered, &mut seen);
        waiting.push((delivery.delivery_tag, id));
        until_return = until_return.saturating_sub(1);
        let is_full = waiting.len() >= usize::from(prefetch);
        let octets = if is_returning {
            // What comes now comes again.
            continue;
        } else if until_return == 0 {
            is_returning = true;
            frame(METHOD, 1, &methods::recover(true))
        } else if is_full || random.below(3) == 0 {
            let all = is_full || ledger.backlog(queue) > BACKLOG_MESSAGES_MAX;
            settle(&mut waiting, &mut ledger, &mut random, all)
        } else {
            continue;
        };
        drop(ledger);
        if client.wire.try_send(&octets).is_err() {
            return;
        }
    }
}

/// Acknowledges or discards what waits: all of it, or some.
fn settle(waiting: &mut Vec<(u64, MessageId)>, ledger: &mut Ledger, random: &mut Random, all: bool) -> Vec<u8> {
    let mut octets = vec![];
    if all || random.below(4) == 0 {
        // All up to one of them.
        let last = if all { waiting.len() - 1 } else { random.below(waiting.len()) };
        waiting.iter().take(last + 1).for_each(|(_, id)| ledger.settle(*id));
        octets.extend(frame(METHOD, 1, &methods::ack(waiting[last].0, true)));
        waiting.drain(..=last);
        return octets;
    }
    let (tag, id) = waiting.remove(random.below(waiting.len()));
    ledger.settle(id);
    octets.extend(frame(
        METHOD,
        1,
        &if random.below(2) == 0 { methods::ack(tag, false) } else { methods::reject(tag, false) },
    ));
    octets
}
