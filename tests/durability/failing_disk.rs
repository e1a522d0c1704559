//! Disks that fail, and disks that are full.

use crate::client::{Client, Incoming, Properties};
use crate::site::{Site, kill, stop};
use crate::support::broker::{BINARY, Broker};
use crate::support::octets::Table;
use crate::support::wait_until;
use crate::support::wire::ANSWER_MAX;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The broker through `strace`, which lets the `nth` such system call of each thread fail; `None` where that cannot be done.
fn failing(call: &str, nth: u32) -> Option<Command> {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status().is_ok_and(|it| it.success());
    if !works {
        eprintln!("skipped: strace is not there, or may not trace");
        return None;
    }
    let mut command = Command::new("strace");
    let inject = format!("inject={call}:error=EIO:when={nth}");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject, BINARY]);
    Some(command)
}

/// Publishes one by one until the broker has gone; then it must have ended with 74 and words that contain `parts`, and have what
/// it has confirmed.
#[track_caller]
fn check_disk_failure(call: &str, nth: u32, parts: &[&str]) {
    let Some(site) = Site::new() else { return };
    let Some(command) = failing(call, nth) else { return };
    let mut broker = site.start_through(command, &["--shards", "1"]);
    let mut client = Client::publisher(&broker);
    client.declare("kept", &Table::new());
    let mut confirmed = 0_u32;
    for number in 0..5_000_u32 {
        let octets = crate::client::message("", "kept", Properties::default(), &number.to_le_bytes());
        client.note_published(1);
        if client.wire.try_send(&octets).is_err() {
            break;
        }
        match client.next(ANSWER_MAX) {
            Incoming::Confirm { is_ack: true, .. } => confirmed += 1,
            Incoming::Closed => break,
            other => panic!("{other:?}"),
        }
    }
    let status = broker.expect_exit(Duration::from_secs(20));
    let stderr = broker.stderr();
    assert_eq!(status.code(), Some(74), "{stderr}");
    for part in parts.iter().chain(&[site.path().to_str().expect("plain"), "Input/output error"]) {
        assert!(stderr.contains(part), "`{part}` is missing in: {stderr}");
    }
    assert!(confirmed > 0, "nothing was confirmed before");
    let broker = site.start(&[]);
    let mut client = Client::open(&broker);
    let there = client.ready("kept");
    assert!(there == u64::from(confirmed) || there == u64::from(confirmed) + 1, "{there} of {confirmed}");
    let taken = client.take("kept", usize::try_from(there).expect("few"), true);
    assert!((0_u32..).zip(&taken).all(|(number, delivery)| delivery.body == number.to_le_bytes()));
}

/// Goal: a failed sync ends the broker with exit code 74 and the name of the file; what was confirmed is there.
#[test]
fn a_failed_sync_ends_the_broker() {
    check_disk_failure("fdatasync", 40, &["cannot sync", ".journal"]);
}

/// Goal: a failed write does so too.
#[test]
fn a_failed_write_ends_the_broker() {
    check_disk_failure("pwrite64", 300, &["cannot write", ".journal", "at offset"]);
}

/// A file system of its own, in memory.
struct SmallDisk {
    mounted: TempDir,
}

impl SmallDisk {
    /// `None`, and the test has to end, where this user may not mount anything.
    fn new(mebioctets: u32) -> Option<SmallDisk> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root may mount a file system");
            return None;
        }
        let mounted = tempfile::tempdir().expect("a temporary directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebioctets}m"), "tmpfs"]).arg(mounted.path());
        let output = mount.output().expect("mount is there");
        if !output.status.success() {
            eprintln!("skipped: cannot mount: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(SmallDisk { mounted })
    }

    fn path(&self) -> PathBuf {
        self.mounted.path().join("data")
    }

    fn free_octets(&self) -> u64 {
        let room = rustix::fs::statvfs(self.mounted.path()).expect("it is mounted");
        room.f_bavail * room.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.mounted.path()).status();
    }
}

const BODY_OCTETS: usize = 16 << 10;

fn body(number: u64) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(BODY_OCTETS, number.to_le_bytes()[0]);
    body
}

/// Publishes until the broker blocks it; answers how many were confirmed, which are all before the first that was not.
#[track_caller]
fn publish_until_blocked(client: &mut Client, next: &mut u64) -> u64 {
    let mut first_unconfirmed = *next;
    let mut is_blocked = false;
    let mut quiet_since = Instant::now();
    let began = Instant::now();
    client.wire.stream.set_nonblocking(false).expect("it is a socket");
    loop {
        assert!(began.elapsed() < Duration::from_secs(90), "it is never blocked");
        if !is_blocked && client.unconfirmed_count() < 64 {
            client.publish("full", Properties::default(), &body(*next));
            *next += 1;
        }
        match client.next(Duration::from_millis(if is_blocked { 200 } else { 1 })) {
            Incoming::Confirm { tag, multiple, is_ack } => {
                assert!(is_ack, "refused");
                first_unconfirmed += client.note_confirm(tag, multiple).len() as u64;
                quiet_since = Instant::now();
            }
            Incoming::Blocked => is_blocked = true,
            Incoming::Unblocked => is_blocked = false,
            Incoming::Silence => {}
            other => panic!("{other:?}"),
        }
        if is_blocked && quiet_since.elapsed() > Duration::from_secs(1) {
            return first_unconfirmed;
        }
    }
}

/// Takes messages from the front of the queue: numbers from `from` on.
#[track_caller]
fn drain(broker: &Broker, from: u64, count: u64) {
    let mut client = Client::open(broker);
    client.wire.call(1, &crate::support::methods::qos(100, false), crate::support::methods::basic::QOS_OK);
    client.wire.consume(1, "full", "drain", 0);
    for number in from..from + count {
        let delivery = client.wire.expect_delivery(1);
        assert!(delivery.body == body(number), "{number} was expected");
        client.wire.send_method(1, &crate::support::methods::ack(delivery.delivery_tag, false));
    }
    client.wire.close();
}

/// Goal: when the disk is full publishers are blocked and told, nothing that was confirmed is lost, consumers drain, and
/// publishing goes on by itself; a broker that ends meanwhile starts again. Method: a file system of 300 MiB, filled, without a
/// limit; a kill while there is no room at all.
#[test]
fn a_full_disk_blocks_publishers_and_recovers() {
    let Some(disk) = SmallDisk::new(300) else { return };
    let Some(site) = Site::at(&disk.path()) else { return };
    let flags = ["--shards", "1", "--queue-memory", "4MiB", "--disk-limit", "0"];
    let mut broker = site.start(&flags);
    let mut client = Client::publisher(&broker);
    client.declare("full", &Table::new());
    let mut next = 0;
    let confirmed = publish_until_blocked(&mut client, &mut next);
    assert!(confirmed > 1_000, "{confirmed} were confirmed");
    kill(broker);
    eat(&disk);
    broker = site.start(&flags);
    let ready = Client::open(&broker).ready("full");
    assert!(ready >= confirmed && ready <= next, "{ready} of {confirmed}");
    drain(&broker, 0, ready);
    // There is room again.
    let mut client = Client::publisher(&broker);
    for number in 0..100 {
        client.publish("full", Properties::default(), &body(number));
    }
    client.wait_confirmed();
    drain(&broker, 0, 100);
    // And once more without a kill: who was blocked goes on.
    let mut next = 0;
    let confirmed = publish_until_blocked(&mut client, &mut next);
    drain(&broker, 0, confirmed);
    wait_until_unblocked(&mut client);
    client.wait_confirmed();
    drain(&broker, confirmed, next - confirmed);
    stop(broker);
}

/// Goal: with the room that is kept free by default a broker that was killed starts again, and consumers drain and make room.
/// Method: publish to queues of all shards until there is less, kill, and drain after the start.
#[test]
fn what_the_disk_limit_leaves_is_enough_for_a_start() {
    for shards in ["1", "2", "4"] {
        let Some(disk) = SmallDisk::new(700) else { return };
        let Some(site) = Site::at(&disk.path()) else { return };
        let flags = ["--shards", shards, "--queue-memory", "4MiB"];
        let mut broker = site.start(&flags);
        let mut client = Client::publisher(&broker);
        client.declare("full", &Table::new());
        let mut next = 0;
        let confirmed = publish_until_blocked(&mut client, &mut next);
        kill(broker);
        broker = site.start(&flags);
        let ready = Client::open(&broker).ready("full");
        assert!(ready >= confirmed && ready <= next, "{ready} of {confirmed}");
        drain(&broker, 0, ready);
        let mut client = Client::publisher(&broker);
        client.publish("full", Properties::default(), &body(0));
        client.wait_confirmed();
        stop(broker);
    }
}

#[track_caller]
fn wait_until_unblocked(client: &mut Client) {
    loop {
        match client.next(Duration::from_secs(20)) {
            Incoming::Unblocked => return,
            Incoming::Confirm { tag, multiple, is_ack } => {
                assert!(is_ack, "refused");
                client.note_confirm(tag, multiple);
            }
            other => panic!("it is still blocked: {other:?}"),
        }
    }
}

/// Goal: publishers are blocked below the limit of free room, and go on above it. Method: a limit that is above what is free; then a
/// file system on which somebody else's file comes and goes.
#[test]
fn the_disk_limit_blocks_publishers() {
    let Some(site) = Site::new() else { return };
    let broker = site.start(&["--disk-limit", "1000000GB"]);
    let mut client = Client::publisher(&broker);
    client.declare("full", &Table::new());
    client.publish("full", Properties::default(), &body(0));
    assert!(matches!(client.next(ANSWER_MAX), Incoming::Blocked), "it is blocked");
    kill(broker);
    let Some(disk) = SmallDisk::new(400) else { return };
    let Some(site) = Site::at(&disk.path()) else { return };
    let broker = site.start(&["--disk-limit", "60MiB", "--shards", "1"]);
    let mut client = Client::publisher(&broker);
    client.declare("full", &Table::new());
    client.publish("full", Properties::default(), &body(0));
    client.wait_confirmed();
    // The segments that are prepared ahead are there by then.
    wait_until("segments are prepared", Duration::from_secs(10), || disk.free_octets() < (400 - 60) << 20);
    fill(&disk, &disk.mounted.path().join("ballast"));
    wait_until("it is noticed", Duration::from_secs(10), || broker.stderr().contains("the disk is nearly full"));
    client.publish("full", Properties::default(), &body(1));
    assert!(matches!(client.next(ANSWER_MAX), Incoming::Blocked), "it is blocked");
    drain(&broker, 0, 1);
    fs::remove_file(disk.mounted.path().join("ballast")).expect("it is there");
    wait_until_unblocked(&mut client);
    client.wait_confirmed();
    drain(&broker, 1, 1);
    stop(broker);
}

/// Leaves nothing.
fn eat(disk: &SmallDisk) {
    let mut rest = fs::File::create(disk.mounted.path().join("rest")).expect("a name needs no room");
    while std::io::Write::write_all(&mut rest, &[1; 4096]).is_ok() {}
    assert!(disk.free_octets() < 1 << 20, "{} octets are left", disk.free_octets());
}

/// Leaves 40 MiB.
fn fill(disk: &SmallDisk, ballast: &Path) {
    let octets = disk.free_octets() - (40 << 20);
    fs::write(ballast, vec![1; usize::try_from(octets).expect("it is small")]).expect("there is room");
}
