//! Every kind of message and queue, before a kill and after it.

use crate::client::{Client, Properties, message};
use crate::site::{Site, kill, stop};
use crate::support::broker::Broker;
use crate::support::methods::{self, DURABLE, NO_ACK, exchange, queue, tx};
use crate::support::octets::{Octets, Table};
use crate::support::wait_until;
use crate::support::wire::Wire;
use std::thread;
use std::time::{Duration, Instant};

/// Publishes and waits for the confirms.
#[track_caller]
fn publish_all(client: &mut Client, queue: &str, properties: Properties<'_>, bodies: &[&str]) {
    bodies.iter().for_each(|body| client.publish(queue, properties, body.as_bytes()));
    client.wait_confirmed();
}

/// All that a queue has, as text, and gone then.
#[track_caller]
fn drain(broker: &Broker, queue: &str) -> Vec<String> {
    let mut wire = Wire::open(broker);
    let mut drained = vec![];
    while let Some(got) = wire.get(1, queue, true) {
        drained.push(got.text().to_owned());
    }
    drained
}

#[track_caller]
fn declare_exchange(client: &mut Client, name: &str, kind: &str) {
    client.wire.call(1, &methods::exchange_declare(name, kind, DURABLE), exchange::DECLARE_OK);
}

#[track_caller]
fn bind(client: &mut Client, queue: &str, exchange: &str, key: &str) {
    client.wire.call(1, &methods::queue_bind(queue, exchange, key), queue::BIND_OK);
}

/// Goal: the time that a message has left counts on while no broker runs; one without a limit stays.
/// Method: messages with a short and a long expiration, a queue with a time to live; the broker is killed, and starts again when
/// the short ones are over.
#[test]
fn expirations_count_on() {
    let Some(site) = Site::new() else { return };
    let broker = site.start(&[]);
    let mut client = Client::publisher(&broker);
    client.declare("expiring", &Table::new());
    client.declare("time-to-live", &Table::new().i32("x-message-ttl", 3_000));
    let began = Instant::now();
    let short = Properties { expiration: Some("2500"), ..Properties::default() };
    let long = Properties { expiration: Some("600000"), ..Properties::default() };
    publish_all(&mut client, "expiring", short, &["short"]);
    publish_all(&mut client, "expiring", long, &["long"]);
    publish_all(&mut client, "expiring", Properties::default(), &["forever"]);
    publish_all(&mut client, "time-to-live", Properties::default(), &["live"]);
    kill(broker);
    let broker = site.start(&[]);
    let mut client = Client::open(&broker);
    // Restored with what is left, they go without being looked at, and no later than they should; nor earlier.
    for (queue, left, millis) in [("expiring", 2, 2_500), ("time-to-live", 0, 3_000)] {
        if began.elapsed() < Duration::from_millis(millis - 500) {
            assert_eq!(client.ready(queue), left + 1, "{queue}: it went too early, after {:?}", began.elapsed());
        }
        wait_until("it expires", Duration::from_secs(10), || client.ready(queue) == left);
        assert!(began.elapsed() >= Duration::from_millis(millis - 100), "{queue}: after {:?}", began.elapsed());
    }
    kill(broker);
    let broker = site.start(&[]);
    assert_eq!(drain(&broker, "expiring"), ["long", "forever"]);
    assert_eq!(drain(&broker, "time-to-live"), [""; 0]);
}

/// Goal: priorities are heeded as before. Method: messages of several, and of one above the queue's highest; a kill.
#[test]
fn priorities_survive() {
    let Some(site) = Site::new() else { return };
    let mut broker = site.start(&[]);
    let mut client = Client::publisher(&broker);
    client.declare("prioritised", &Table::new().i32("x-max-priority", 5));
    for (number, priority) in [0, 5, 3, 9, 0, 3].into_iter().enumerate() {
        let properties = Properties { priority: Some(priority), ..Properties::default() };
        publish_all(&mut client, "prioritised", properties, &[&number.to_string()]);
    }
    kill(broker);
    broker = site.start(&[]);
    assert_eq!(drain(&broker, "prioritised"), ["1", "3", "2", "5", "0", "4"]);
}

/// Goal: what is gone of one priority takes nothing along of another that lies between. Method: much more than fits into memory,
/// every other message of a high priority; these are consumed, and the broker stopped, then killed.
#[test]
fn priorities_survive_in_files() {
    const COUNT: usize = 8_000;
    let Some(site) = Site::new() else { return };
    let flags = ["--queue-memory", "4MiB", "--shards", "1"];
    let mut broker = site.start(&flags);
    let mut client = Client::publisher(&broker);
    client.declare("prioritised", &Table::new().i32("x-max-priority", 5));
    for number in 0..COUNT {
        let properties = Properties { priority: Some(if number % 2 == 0 { 1 } else { 4 }), ..Properties::default() };
        client.publish("prioritised", properties, format!("{number:02000}").as_bytes());
    }
    client.wait_confirmed();
    let number_of = |body: &[u8]| std::str::from_utf8(body).expect("text").parse::<usize>().expect("a number");
    let high = client.take("prioritised", COUNT / 2, true);
    assert!(high.iter().enumerate().all(|(at, delivery)| number_of(&delivery.body) == 2 * at + 1));
    for round in 0..2 {
        if round == 0 {
            stop(broker)
        } else {
            kill(broker)
        }
        broker = site.start(&flags);
        client = Client::publisher(&broker);
        assert_eq!(client.ready("prioritised"), COUNT as u64 / 2);
    }
    let low = client.take("prioritised", COUNT / 2, true);
    assert!(low.iter().enumerate().all(|(at, delivery)| number_of(&delivery.body) == 2 * at));
}

/// Goal: large bodies survive, transient messages do not, in durable queues and in others. Method: some of each, a kill.
#[test]
fn large_bodies_survive_and_transient_messages_do_not() {
    let Some(site) = Site::new() else { return };
    let broker = site.start(&[]);
    let mut client = Client::publisher(&broker);
    client.declare("mixed", &Table::new());
    let transient = Properties { is_transient: true, ..Properties::default() };
    let body = |number: u8| vec![number; (100 << 10) + usize::from(number)];
    for number in 0..20 {
        client.publish("mixed", if number % 4 == 3 { transient } else { Properties::default() }, &body(number));
    }
    client.publish("mixed", Properties::default(), &vec![7; 5 << 20]);
    client.wait_confirmed();
    client.wire.declare(1, "volatile", 0);
    publish_all(&mut client, "volatile", Properties::default(), &["gone with its queue"]);
    kill(broker);
    let broker = site.start(&[]);
    let mut client = Client::open(&broker);
    assert_eq!(client.ready("mixed"), 16);
    let taken = client.take("mixed", 16, true);
    let numbers: Vec<u8> = taken[..15].iter().map(|delivery| delivery.body[0]).collect();
    assert_eq!(numbers, (0..20).filter(|number| number % 4 != 3).collect::<Vec<u8>>());
    assert!(taken[..15].iter().all(|delivery| delivery.body == body(delivery.body[0])));
    assert_eq!(taken[15].body, vec![7; 5 << 20]);
    let declare = methods::queue_declare("volatile", methods::PASSIVE, &Table::new());
    client.wire.send_method(1, &declare);
    client.wire.expect_channel_close(1, 404, "volatile");
}

/// Goal: one message in several queues of one shard, and of several, is in all of them; bindings, too.
/// Method: a fanout to durable queues and one that is not, with one shard, then with more.
#[test]
fn fanned_out_messages_survive() {
    let Some(site) = Site::new() else { return };
    let mut broker = site.start(&["--shards", "1"]);
    let mut client = Client::publisher(&broker);
    declare_exchange(&mut client, "spread", "fanout");
    for queue in 0..5 {
        client.declare(&format!("spread-{queue}"), &Table::new());
        bind(&mut client, &format!("spread-{queue}"), "spread", "");
    }
    client.wire.declare(1, "volatile", 0);
    bind(&mut client, "volatile", "spread", "");
    let mut expected = vec![];
    for shards in ["1", "3", "2"] {
        for number in 0..50 {
            let body = format!("{shards}-{number}");
            client.note_published(1);
            client.wire.send(&message("spread", "", Properties::default(), body.as_bytes()));
            expected.push(body);
        }
        client.wait_confirmed();
        kill(broker);
        broker = site.start(&["--shards", shards]);
        client = Client::publisher(&broker);
    }
    for queue in 0..5 {
        assert_eq!(drain(&broker, &format!("spread-{queue}")), expected);
    }
}

/// Goal: a dead-lettered message is where it went, with its history, and only there. Method: rejected, expired and overflown
/// messages, to a queue, perhaps on another shard; a kill.
#[test]
fn dead_letters_survive() {
    let Some(site) = Site::new() else { return };
    let broker = site.start(&[]);
    let mut client = Client::publisher(&broker);
    client.declare("grave", &Table::new());
    let dying = || Table::new().text("x-dead-letter-exchange", "").text("x-dead-letter-routing-key", "grave");
    client.declare("rejecting", &dying());
    client.declare("expiring", &dying().i32("x-message-ttl", 1));
    client.declare("short", &dying().i32("x-max-length", 1));
    publish_all(&mut client, "rejecting", Properties::default(), &["rejected"]);
    let got = client.wire.get(1, "rejecting", false).expect("it is there");
    client.wire.send_method(1, &methods::reject(got.delivery_tag, false));
    publish_all(&mut client, "expiring", Properties::default(), &["expired"]);
    publish_all(&mut client, "short", Properties::default(), &["overflown", "stays"]);
    wait_until("all are dead", Duration::from_secs(10), || client.ready("grave") == 3);
    // What is confirmed now comes behind them.
    publish_all(&mut client, "grave", Properties::default(), &["last"]);
    kill(broker);
    let broker = site.start(&[]);
    let mut wire = Wire::open(&broker);
    let mut found = vec![];
    while let Some(got) = wire.get(1, "grave", true) {
        let text = got.text().to_owned();
        let has_history = got.properties.windows(7).any(|octets| octets == b"x-death");
        assert_eq!(has_history, text != "last", "{text}");
        found.push(text);
    }
    found.sort();
    assert_eq!(found, ["expired", "last", "overflown", "rejected"]);
    assert_eq!((drain(&broker, "rejecting"), drain(&broker, "short")), (vec![], vec!["stays".to_owned()]));
}

/// Goal: what a transaction has committed is there, what it has not is not. Method: a commit, a rollback, one that is open.
#[test]
fn committed_transactions_survive() {
    let Some(site) = Site::new() else { return };
    let broker = site.start(&[]);
    let mut client = Client::open(&broker);
    for queue in ["one", "two"] {
        client.declare(queue, &Table::new());
    }
    client.wire.call(1, &Octets::method(tx::SELECT).0, tx::SELECT_OK);
    for (body, end) in [
        ("committed", Some((tx::COMMIT, tx::COMMIT_OK))),
        ("rolled back", Some((tx::ROLLBACK, tx::ROLLBACK_OK))),
        ("committed too", Some((tx::COMMIT, tx::COMMIT_OK))),
        ("open", None),
    ] {
        for queue in ["one", "two"] {
            client.wire.send(&message("", queue, Properties::default(), body.as_bytes()));
        }
        if let Some((end, ok)) = end {
            client.wire.call(1, &Octets::method(end).0, ok);
        }
    }
    // Of this one the acknowledgement is committed.
    let got = client.wire.get(1, "one", false).expect("it is there");
    client.wire.send_method(1, &methods::ack(got.delivery_tag, false));
    client.wire.call(1, &Octets::method(tx::COMMIT).0, tx::COMMIT_OK);
    kill(broker);
    let broker = site.start(&[]);
    // With the acknowledgement, what was open before it was committed; an acknowledgement alone may be lost.
    let one = drain(&broker, "one");
    assert!(one == ["committed too", "open"] || one == ["committed", "committed too", "open"], "{one:?}");
    assert_eq!(drain(&broker, "two"), ["committed", "committed too", "open"]);
}

/// Goal: limits hold after a restart, what was purged stays so, and a queue that was deleted and made again is another one.
/// Method: each, with a kill right after the answer.
#[test]
fn limits_purges_and_deletions_survive() {
    let Some(site) = Site::new() else { return };
    let broker = site.start(&[]);
    let mut client = Client::publisher(&broker);
    client.declare("limited", &Table::new().i32("x-max-length", 3));
    client.declare("refusing", &Table::new().i32("x-max-length", 2).text("x-overflow", "reject-publish"));
    for queue in ["purged", "deleted", "anew"] {
        client.declare(queue, &Table::new());
    }
    publish_all(&mut client, "limited", Properties::default(), &["1", "2", "3", "4", "5"]);
    publish_all(&mut client, "refusing", Properties::default(), &["1", "2"]);
    for queue in ["purged", "deleted", "anew"] {
        publish_all(&mut client, queue, Properties::default(), &["a", "b", "c"]);
    }
    client.wire.call(1, &methods::queue_purge("purged"), queue::PURGE_OK);
    client.wire.call(1, &methods::queue_delete("deleted"), queue::DELETE_OK);
    client.wire.call(1, &methods::queue_delete("anew"), queue::DELETE_OK);
    client.declare("anew", &Table::new());
    publish_all(&mut client, "anew", Properties::default(), &["new"]);
    publish_all(&mut client, "purged", Properties::default(), &["d"]);
    kill(broker);
    let broker = site.start(&[]);
    let mut client = Client::publisher(&broker);
    publish_all(&mut client, "limited", Properties::default(), &["6"]);
    client.publish("refusing", Properties::default(), b"3");
    let mut nack = client.wire.expect_method(1, methods::basic::NACK);
    assert_eq!(nack.u64(), 2);
    assert_eq!(drain(&broker, "limited"), ["4", "5", "6"]);
    assert_eq!(drain(&broker, "refusing"), ["1", "2"]);
    assert_eq!(drain(&broker, "purged"), ["d"]);
    assert_eq!(drain(&broker, "anew"), ["new"]);
    client.wire.send_method(1, &methods::queue_declare("deleted", methods::PASSIVE, &Table::new()));
    client.wire.expect_channel_close(1, 404, "deleted");
}

/// Goal: what may have been delivered says so after a kill, what cannot have been does not. Method: a queue without a consumer, and
/// one where some are delivered: to a consumer and by get, without acknowledgement and with automatic ones.
#[test]
fn deliveries_before_a_kill_are_told() {
    let Some(site) = Site::new() else { return };
    let broker = site.start(&[]);
    let mut client = Client::publisher(&broker);
    for queue in ["seen", "unseen", "taken"] {
        client.declare(queue, &Table::new());
        publish_all(&mut client, queue, Properties::default(), &["1", "2", "3"]);
    }
    assert!(!client.wire.get(1, "seen", false).expect("it is there").redelivered);
    let mut consumer = Wire::open(&broker);
    consumer.consume(1, "taken", "taker", NO_ACK);
    for number in ["1", "2", "3"] {
        assert_eq!(consumer.expect_delivery(1).text(), number);
    }
    kill(broker);
    let broker = site.start(&[]);
    let mut client = Client::open(&broker);
    let flags = |client: &mut Client, queue: &str| {
        let mut flags = vec![];
        while let Some(got) = client.wire.get(1, queue, true) {
            flags.push(got.redelivered);
        }
        flags
    };
    assert_eq!(flags(&mut client, "unseen"), [false; 3]);
    let seen = flags(&mut client, "seen");
    assert!(seen.len() == 3 && seen[0], "{seen:?}");
    // Automatic acknowledgements may be lost; then the messages come again, and say so.
    assert!(flags(&mut client, "taken").iter().all(|redelivered| *redelivered));
}

/// Goal: a shard that stays awake for commits, and for everything where that is asked for, confirms what it should, and rests when
/// there is nothing to do. Method: a publisher who waits for each confirm, over both shards; then a second of silence.
#[test]
fn a_shard_that_watches_rests_too() {
    for flags in [&["--shards", "2"][..], &["--shards", "2", "--busy-poll"]] {
        let Some(site) = Site::new() else { return };
        let broker = site.start(flags);
        let mut client = Client::publisher(&broker);
        let queues = ["one", "two", "three", "four"];
        queues.iter().for_each(|queue| client.declare(queue, &Table::new()));
        for number in 0..200 {
            let number = number.to_string();
            for queue in queues {
                publish_all(&mut client, queue, Properties::default(), &[&number]);
            }
        }
        // What is left to be written is written, and the mark behind it.
        thread::sleep(Duration::from_secs(1));
        let before = broker.processor_ticks();
        thread::sleep(Duration::from_secs(1));
        let taken = broker.processor_ticks() - before;
        assert!(taken < 30, "{flags:?}: {taken} hundredths of a second of CPU time in a second without work");
        kill(broker);
        let broker = site.start(flags);
        for queue in queues {
            let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
            assert_eq!(drain(&broker, queue), expected, "{flags:?}: {queue}");
        }
    }
}
