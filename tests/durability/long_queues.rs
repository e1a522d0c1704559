//! Long queues, many queues: what stays in memory, and what is on disk when.

use crate::client::{Client, Properties};
use crate::site::{Site, kill, stop};
use crate::support::octets::Table;
use crate::support::{methods, wait_until};
use std::fs;
use std::time::Duration;

/// How many segment files queues have.
fn queue_files(site: &Site) -> usize {
    let directories = fs::read_dir(site.path().join("queues")).into_iter().flatten();
    let files = directories
        .map(|directory| fs::read_dir(directory.expect("it can be read").path()).into_iter().flatten().count());
    files.sum()
}

/// Goal: a long queue leaves the memory, is there after a kill, is drained in order, and leaves nothing behind. Method: 300,000
/// messages of 100 octets, with the least memory for queues that can be had; before and after, look at files and memory.
#[test]
fn a_long_queue_leaves_memory_and_disk() {
    const MESSAGES: usize = 300_000;
    let Some(site) = Site::new() else { return };
    let flags = ["--shards", "1", "--queue-memory", "1MiB"];
    let mut broker = site.start(&flags);
    let mut client = Client::publisher(&broker);
    client.declare("long", &Table::new());
    let before = broker.resident_octets();
    for number in 0..MESSAGES {
        client.publish("long", Properties::default(), format!("{number:0100}").as_bytes());
        if number % 10_000 == 0 {
            client.wait_confirmed();
        }
    }
    client.wait_confirmed();
    assert!(queue_files(&site) > 0, "it is all in memory");
    // All of it would take 40 MB and more; what is held are 4 MiB of it, and buffers.
    let grown = broker.resident_octets().saturating_sub(before);
    assert!(grown < 64 << 20, "it has grown by {grown} octets");
    kill(broker);
    broker = site.start(&flags);
    let mut client = Client::open(&broker);
    assert_eq!(client.ready("long"), MESSAGES as u64);
    client.wire.call(1, &methods::qos(1_000, false), methods::basic::QOS_OK);
    client.wire.consume(1, "long", "drain", 0);
    for number in 0..MESSAGES {
        let delivery = client.wire.expect_delivery(1);
        assert_eq!(delivery.text().parse::<usize>().ok(), Some(number));
        if number % 500 == 499 {
            client.wire.send_method(1, &methods::ack(delivery.delivery_tag, true));
        }
    }
    wait_until("the files are gone", Duration::from_secs(20), || queue_files(&site) == 0);
    client.wire.close();
    stop(broker);
    let broker = site.start(&flags);
    assert_eq!(Client::open(&broker).ready("long"), 0);
}

/// Goal: many queues are there after a kill, each with its message. Method: a thousand, with one each, over two restarts, with
/// other numbers of shards.
#[test]
fn a_thousand_queues_come_back() {
    const QUEUES: usize = 1_000;
    let Some(site) = Site::new() else { return };
    let mut broker = site.start(&["--shards", "2"]);
    let mut client = Client::publisher(&broker);
    let name = |number: usize| format!("one-of-many-{number}");
    for number in 0..QUEUES {
        client.declare(&name(number), &Table::new());
        client.publish(&name(number), Properties::default(), number.to_string().as_bytes());
        if number % 100 == 0 {
            client.wait_confirmed();
        }
    }
    client.wait_confirmed();
    for shards in ["1", "3"] {
        kill(broker);
        broker = site.start(&["--shards", shards]);
    }
    let mut client = Client::open(&broker);
    for number in 0..QUEUES {
        let got = client.wire.get(1, &name(number), true).expect("it is there");
        assert_eq!(got.text(), number.to_string());
        assert_eq!(client.ready(&name(number)), 0);
    }
    stop(broker);
    let broker = site.start(&[]);
    let mut client = Client::open(&broker);
    assert!((0..QUEUES).all(|number| client.ready(&name(number)) == 0));
}
