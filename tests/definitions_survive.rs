//! What was declared durable is there after the broker was killed, with all its properties; what was transient is not. The data
//! directory is the broker's alone, and one that cannot be used is refused in a clear sentence.
#![allow(clippy::large_stack_arrays, reason = "the stacks of tests have room")]

#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::broker::{BINARY, Broker, oracle};
use support::canary::broker_is_unhurt;
use support::methods::{self, AUTO_DELETE, DURABLE, EXCHANGE_AUTO_DELETE, EXCLUSIVE, PASSIVE, exchange, queue};
use support::octets::{Octets, Table};
use support::random::Random;
use support::wait_until;
use support::wire::{Event, Handshake, Wire};
use tempfile::TempDir;

/// How long the broker may take to end by itself.
const END_MAX: Duration = Duration::from_secs(20);

/// A data directory and what brokers in it are started with.
struct Home {
    directory: TempDir,
    shards: &'static str,
}

impl Home {
    fn new() -> Home {
        Home { directory: tempfile::tempdir().expect("a temporary directory"), shards: "2" }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts a broker here, `None` where the running one is to be used.
    fn start(&self, flags: &[&str]) -> Option<Broker> {
        self.start_through(Command::new(BINARY), flags)
    }

    fn start_through(&self, command: Command, flags: &[&str]) -> Option<Broker> {
        let path = self.path();
        let own = ["--data-dir", path.to_str().expect("temporary paths are text"), "--shards", self.shards];
        Broker::own_through(command, &[&own, flags].concat())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, text).expect("it can be written");
        path.to_str().expect("temporary paths are text").to_owned()
    }
}

/// As a power cut would, as far as a process can tell.
fn kill(broker: Broker) {
    drop(broker);
}

fn exchange_declare(name: &str, kind: &str, bits: u8, arguments: &Table) -> Vec<u8> {
    Octets::method(exchange::DECLARE).u16(0).short(name).short(kind).u8(bits).table(arguments).0
}

/// Whether a passive declare finds it.
#[track_caller]
fn is_there(wire: &mut Wire, declare: &[u8], ok: (u16, u16), what: &str) -> bool {
    wire.send_method(1, declare);
    let Event::Frame(frame) = wire.next_event(Duration::from_secs(10)) else { panic!("no answer about {what}") };
    if frame.method_id() == Some(ok) {
        return true;
    }
    let mut close = frame.arguments();
    let (code, text) = (close.u16(), close.short());
    assert!(code == 404 && text.contains(what), "{what}: {code} {text}");
    wire.send_method(1, &Octets::method(methods::channel::CLOSE_OK).0);
    wire.open_channel(1);
    false
}

#[track_caller]
fn has_queue(wire: &mut Wire, name: &str) -> bool {
    is_there(wire, &methods::queue_declare(name, PASSIVE, &Table::new()), queue::DECLARE_OK, name)
}

#[track_caller]
fn has_exchange(wire: &mut Wire, name: &str) -> bool {
    is_there(wire, &methods::exchange_declare(name, "", PASSIVE), exchange::DECLARE_OK, name)
}

#[track_caller]
fn refused(wire: &mut Wire, method: &[u8], code: u16, text: &str) {
    wire.send_method(1, method);
    wire.expect_channel_close(1, code, text);
    wire.open_channel(1);
}

/// Publishes, and tells by how many messages each queue has grown.
#[track_caller]
fn arrives(wire: &mut Wire, exchange: &str, key: &str, queues: &[&str]) -> Vec<u32> {
    let before: Vec<u32> = queues.iter().map(|name| wire.counts(1, name).0).collect();
    wire.publish(1, exchange, key, 0, b"x");
    // Routed, and in its queues, when an answer of each queue has come after it.
    wire.synchronise(1);
    queues.iter().zip(before).map(|(name, before)| wire.counts(1, name).0 - before).collect()
}

/// What the tests of survival declare. Nested tables, odd types and octets that are not text survive, too.
fn queue_arguments() -> Table {
    let nested = Table::new().boolean("deep", true).entry("bytes", b'x', &Octets::new().long(&[0xFF, 0]).0);
    Table::new().i32("x-message-ttl", 3_600_000).table("note", &nested).entry("void", b'V', &[])
}

/// Goal: everything durable is there after a kill, with its properties, and only that (section 2.1.1 of the specification
/// leaves it at the word; RabbitMQ's documentation of durability says more).
/// Method: declare one of everything, kill, ask for it; twice, since the second start reads what the first one has read.
#[test]
fn everything_durable_is_there_after_a_kill() {
    let home = Home::new();
    let Some(broker) = home.start(&[]) else { return };
    let mut wire = Wire::open(&broker);
    let generated = declare_everything(&mut wire);
    kill(broker);
    for _ in 0..2 {
        let mut broker = home.start(&[]).expect("it is not the oracle");
        check_everything(&mut Wire::open(&broker), &generated);
        broker.expect_running();
        kill(broker);
    }
}

/// Returns the name of the queue that the broker named.
fn declare_everything(wire: &mut Wire) -> String {
    let declare = |wire: &mut Wire, name: &str, bits, arguments: &Table| {
        wire.call(1, &methods::queue_declare(name, bits, arguments), queue::DECLARE_OK).short()
    };
    declare(wire, "plain", DURABLE, &Table::new());
    declare(wire, "arguments", DURABLE, &queue_arguments());
    declare(wire, "passing", DURABLE | AUTO_DELETE, &Table::new());
    declare(wire, "transient", 0, &Table::new());
    declare(wire, "deleted", DURABLE, &Table::new());
    declare(wire, "mine", DURABLE | EXCLUSIVE, &Table::new());
    let generated = declare(wire, "", DURABLE, &Table::new());
    let alternate = Table::new().text("alternate-exchange", "fanout");
    for (name, kind, bits, arguments) in [
        ("direct", "direct", DURABLE, &alternate),
        ("topic", "topic", DURABLE | EXCHANGE_AUTO_DELETE, &Table::new()),
        ("fanout", "fanout", DURABLE, &Table::new()),
        ("headers", "headers", DURABLE, &Table::new()),
        ("unused auto", "fanout", DURABLE | EXCHANGE_AUTO_DELETE, &Table::new()),
        ("used auto", "fanout", DURABLE | EXCHANGE_AUTO_DELETE, &Table::new()),
        ("passing by", "fanout", 0, &Table::new()),
        ("deleted", "fanout", DURABLE, &Table::new()),
    ] {
        wire.call(1, &exchange_declare(name, kind, bits, arguments), exchange::DECLARE_OK);
    }
    for (to, from, key) in [
        ("plain", "direct", "k"),
        ("transient", "direct", "k"),
        ("plain", "passing by", ""),
        ("arguments", "topic", "a.#"),
        ("plain", "fanout", ""),
        ("plain", "amq.topic", "*.b"),
        ("plain", "direct", "unbound"),
        ("plain", "used auto", ""),
        ("deleted", "direct", "k"),
        (&generated, "headers", ""),
    ] {
        wire.call(1, &methods::queue_bind(to, from, key), queue::BIND_OK);
    }
    wire.call(1, &methods::exchange_bind("topic", "amq.fanout", "a"), exchange::BIND_OK);
    wire.call(1, &methods::queue_unbind("plain", "direct", "unbound"), queue::UNBIND_OK);
    wire.call(1, &methods::queue_unbind("plain", "used auto", ""), queue::UNBIND_OK);
    wire.call(1, &methods::queue_delete("deleted"), queue::DELETE_OK);
    wire.call(1, &methods::exchange_delete("deleted"), exchange::DELETE_OK);
    generated
}

fn check_everything(wire: &mut Wire, generated: &str) {
    for name in ["plain", "arguments", "passing", generated] {
        assert!(has_queue(wire, name), "{name}");
    }
    for name in ["transient", "deleted", "mine"] {
        assert!(!has_queue(wire, name), "{name}");
    }
    for name in ["direct", "topic", "fanout", "headers", "unused auto"] {
        assert!(has_exchange(wire, name), "{name}");
    }
    for name in ["passing by", "deleted", "used auto"] {
        assert!(!has_exchange(wire, name), "{name}");
    }
    let none = Table::new();
    wire.call(1, &methods::queue_declare("arguments", DURABLE, &queue_arguments()), queue::DECLARE_OK);
    refused(wire, &methods::queue_declare("arguments", DURABLE, &none), 406, "inequivalent arg 'x-message-ttl'");
    refused(wire, &methods::queue_declare("plain", 0, &none), 406, "inequivalent arg 'durable' for queue 'plain'");
    refused(wire, &methods::queue_declare("passing", DURABLE, &none), 406, "inequivalent arg 'auto_delete'");
    refused(wire, &exchange_declare("direct", "topic", DURABLE, &none), 406, "inequivalent arg 'type'");
    refused(wire, &exchange_declare("direct", "direct", DURABLE, &none), 406, "inequivalent arg 'alternate-exchange'");
    refused(wire, &exchange_declare("topic", "topic", DURABLE, &none), 406, "inequivalent arg 'auto_delete'");

    let queues = ["plain", "arguments", generated];
    for (exchange, key, expected) in [
        ("direct", "k", [1, 0, 0]),
        // By the alternate exchange.
        ("direct", "unbound", [1, 0, 0]),
        ("topic", "a.b", [0, 1, 0]),
        ("topic", "b", [0, 0, 0]),
        ("amq.topic", "a.b", [1, 0, 0]),
        ("amq.fanout", "a", [0, 1, 0]),
        ("headers", "", [0, 0, 1]),
        ("", generated, [0, 0, 1]),
    ] {
        assert_eq!(arrives(wire, exchange, key, &queues), expected, "{exchange} {key}");
    }
}

const WITH_USERS: &str = r#"{
  "users": [{"name": "ann", "password": "carrots", "tags": "administrator"},
            {"name": "guest", "password_hash": "", "tags": ""}],
  "vhosts": [{"name": "/"}, {"name": "shop"}],
  "permissions": [{"user": "ann", "vhost": "shop", "configure": "^own-", "write": ".*", "read": ".*"}],
  "exchanges": [], "bindings": [],
  "queues": [{"name": "work", "vhost": "shop", "durable": true, "arguments": {"x-max-length": 2}},
             {"name": "scratch", "vhost": "shop", "durable": false}]}"#;

/// Goal: what a definitions file brought stays without the file: users, virtual hosts, permissions, queues; and who was shut
/// out stays out. Method: start with the file, kill, start without.
#[test]
fn users_and_virtual_hosts_stay_without_the_file() {
    let home = Home::new();
    let file = home.file("users.json", WITH_USERS);
    let Some(broker) = home.start(&["--definitions", &file]) else { return };
    kill(broker);
    let mut broker = home.start(&[]).expect("it is not the oracle");
    let mut wire = Wire::open_with(&broker, &Handshake::login("ann", "carrots", "shop"));
    wire.open_channel(1);
    assert!(has_queue(&mut wire, "work") && !has_queue(&mut wire, "scratch"));
    let none = Table::new();
    wire.call(1, &methods::queue_declare("own-1", 0, &none), queue::DECLARE_OK);
    refused(&mut wire, &methods::queue_declare("foreign", 0, &none), 403, "configure access to queue 'foreign'");
    let elsewhere = Wire::try_open(&broker, &Handshake::login("ann", "carrots", "/")).err().expect("refused");
    assert_eq!(elsewhere.code, Some(530));
    let guest = Wire::try_open(&broker, &Handshake::default()).err().expect("refused");
    assert_eq!(guest.code, Some(403));
    broker.expect_running();
}

/// Goal: the file is merged at each start: what exists stays as it is, which is said where it is not the same; the rest is
/// added; users are as the file says. Method: start with a file, then with another.
#[test]
fn the_definitions_file_is_merged_at_each_start() {
    let home = Home::new();
    let file = home.file("first.json", WITH_USERS);
    let Some(mut broker) = home.start(&["--definitions", &file]) else { return };
    assert!(!broker.stderr().contains("left out"), "{}", broker.stderr());
    kill(broker);
    let changed = WITH_USERS
        .replace("carrots", "turnips")
        .replace("\"x-max-length\": 2", "\"x-max-length\": 3")
        .replace("\"exchanges\": []", r#""exchanges": [{"name": "shop", "vhost": "shop", "type": "topic"}]"#)
        .replace("\"scratch\", ", "\"more\", ")
        .replace("\"durable\": false", "\"durable\": true");
    let file = home.file("second.json", &changed);
    broker = home.start(&["--definitions", &file]).expect("it is not the oracle");
    wait_until("the log tells what was left out", END_MAX, || {
        broker.stderr().contains("queues[0]: left out, since it exists and is not the same")
    });
    assert!(broker.stderr().contains("inequivalent arg 'x-max-length' for queue 'work' in vhost 'shop'"));
    assert!(Wire::try_open(&broker, &Handshake::login("ann", "carrots", "shop")).is_err());
    let mut wire = Wire::open_with(&broker, &Handshake::login("ann", "turnips", "shop"));
    wire.open_channel(1);
    assert!(has_queue(&mut wire, "work") && has_queue(&mut wire, "more") && has_exchange(&mut wire, "shop"));
    for _ in 0..3 {
        wire.publish(1, "", "work", 0, b"x");
    }
    wire.synchronise(1);
    assert_eq!(wire.counts(1, "work").0, 2, "its own x-max-length holds");
    broker.expect_running();
}

/// Goal: the number of shards may change between starts. Method: queues on four shards, then on one, then on three.
#[test]
fn queues_find_a_home_on_other_numbers_of_shards() {
    let mut home = Home::new();
    home.shards = "4";
    let Some(broker) = home.start(&[]) else { return };
    let mut wire = Wire::open(&broker);
    let names: Vec<String> = (0..20).map(|number| format!("q{number}")).collect();
    for name in &names {
        wire.declare(1, name, DURABLE);
        wire.call(1, &methods::queue_bind(name, "amq.fanout", ""), queue::BIND_OK);
    }
    kill(broker);
    for shards in ["1", "3"] {
        home.shards = shards;
        let broker = home.start(&[]).expect("it is not the oracle");
        let mut wire = Wire::open(&broker);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(arrives(&mut wire, "amq.fanout", "", &names), [1; 20], "{shards} shards");
        kill(broker);
    }
}

/// How many commits the log tells of.
fn commits(broker: &Broker) -> usize {
    broker.stderr().lines().filter(|line| line.contains("committed")).count()
}

const COMMITS_LOGGED: [&str; 2] = ["--log", "warn,lepus::control=debug"];

/// Goal: what many clients declare at once shares commits; what exists already costs none, and neither does what is transient.
/// Method: a thousand durable queues from twenty connections at once, counted in the log; then again, and transient ones.
#[test]
fn declares_share_commits() {
    let home = Home::new();
    let Some(mut broker) = home.start(&COMMITS_LOGGED) else { return };
    let mut wires: Vec<Wire> = (0..20).map(|_| Wire::open(&broker)).collect();
    let mut declare_all = |bits, prefix: &str| {
        for (index, wire) in wires.iter_mut().enumerate() {
            for number in 0..50 {
                let name = format!("{prefix}{index}-{number}");
                wire.send_method(1, &methods::queue_declare(&name, bits, &Table::new()));
                wire.send_method(1, &methods::queue_bind(&name, "amq.direct", "k"));
            }
        }
        for wire in &mut wires {
            for _ in 0..50 {
                wire.expect_method(1, queue::DECLARE_OK);
                wire.expect_method(1, queue::BIND_OK);
            }
        }
    };
    let before = commits(&broker);
    declare_all(DURABLE, "durable");
    // The log comes through a pipe: one more commit tells that it has come.
    let mut wire = Wire::open(&broker);
    wire.declare(1, "one more", DURABLE);
    wait_until("the log has come", END_MAX, || broker.stderr().contains("committed"));
    let shared = commits(&broker) - before;
    assert!(shared <= 500, "{shared} commits for 2,000 changes from 20 connections");
    let settled = |broker: &Broker| {
        let mut last = usize::MAX;
        wait_until("the log stands still", END_MAX, || {
            let now = commits(broker);
            std::mem::replace(&mut last, now) == now
        });
        last
    };
    let before = settled(&broker);
    declare_all(DURABLE, "durable");
    declare_all(0, "transient");
    declare_all(DURABLE | EXCLUSIVE, "exclusive");
    assert_eq!(settled(&broker), before);
    broker.expect_running();
}

/// Goal: whatever was answered has happened, whenever the broker is killed. Method: clients that declare, bind and delete without
/// pause; a kill after some number of answers; then all that was answered is asked for. Some rounds in the same directory.
#[test]
fn what_was_answered_is_there_after_a_kill_at_any_moment() {
    let home = Home::new();
    let mut random = Random::new(7);
    for round in 0..10 {
        let Some(broker) = home.start(&[]) else { return };
        let name = |wire: usize, number: usize| format!("r{round}-{wire}-{number}");
        let mut wires: Vec<Wire> = (0..3).map(|_| Wire::open(&broker)).collect();
        for (index, wire) in wires.iter_mut().enumerate() {
            for step in STEPS.iter().flatten() {
                wire.send_method(1, &step.method(|number| name(index, number)));
            }
        }
        // Only the first is listened to before; the others' answers are on their way when it happens.
        let listened = random.below(60);
        for _ in 0..listened {
            wires[0].read_frame();
        }
        kill(broker);
        let mut answered: Vec<usize> = wires.iter_mut().map(answers_until_end).collect();
        answered[0] += listened;
        let broker = home.start(&[]).expect("it is not the oracle");
        let mut wire = Wire::open(&broker);
        for (index, answered) in answered.into_iter().enumerate() {
            check_answered(&mut wire, answered, |number| name(index, number));
        }
        kill(broker);
    }
}

/// What a client does to its queues, by their number.
#[derive(Clone, Copy)]
enum Step {
    Declare(usize),
    Bind(usize),
    Delete(usize),
}

/// Forty queues; each second one is deleted again.
const STEPS: [[Step; 5]; 20] = {
    let mut steps = [[Step::Declare(0); 5]; 20];
    let mut pair = 0;
    while pair < 20 {
        let (stays, goes) = (2 * pair, 2 * pair + 1);
        steps[pair] =
            [Step::Declare(stays), Step::Bind(stays), Step::Declare(goes), Step::Bind(goes), Step::Delete(goes)];
        pair += 1;
    }
    steps
};

impl Step {
    fn method(self, name: impl Fn(usize) -> String) -> Vec<u8> {
        match self {
            Step::Declare(number) => methods::queue_declare(&name(number), DURABLE, &Table::new()),
            Step::Bind(number) => methods::queue_bind(&name(number), "amq.direct", &name(number)),
            Step::Delete(number) => methods::queue_delete(&name(number)),
        }
    }
}

/// What the first `answered` steps did has happened. Of those behind, nothing is known: they may have happened unanswered.
#[track_caller]
fn check_answered(wire: &mut Wire, answered: usize, name: impl Fn(usize) -> String) {
    for step in STEPS.iter().flatten().take(answered) {
        match *step {
            Step::Declare(number) if number % 2 == 0 => assert!(has_queue(wire, &name(number)), "{}", name(number)),
            Step::Bind(number) if number % 2 == 0 => {
                assert_eq!(arrives(wire, "amq.direct", &name(number), &[&name(number)]), [1], "{}", name(number));
            }
            Step::Delete(number) => assert!(!has_queue(wire, &name(number)), "{}", name(number)),
            Step::Declare(_) | Step::Bind(_) => {}
        }
    }
}

fn answers_until_end(wire: &mut Wire) -> usize {
    let mut count = 0;
    while let Event::Frame(_) = wire.next_event(Duration::from_secs(10)) {
        count += 1;
    }
    count
}

/// Runs a broker in this directory that must end by itself with exit code 1 and one sentence that has these parts.
#[track_caller]
fn check_refused(path: &Path, parts: &[&str]) {
    let mut command = Command::new(BINARY);
    command.args(["--port", "0", "--shards", "1", "--data-dir"]).arg(path).stdin(Stdio::null());
    let output = command.output().expect("the binary runs");
    let stderr = String::from_utf8(output.stderr).expect("errors are text");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for part in parts.iter().chain(&["--data-dir"]) {
        assert!(stderr.contains(part), "`{part}` is missing in: {stderr}");
    }
    assert!(output.stdout.is_empty(), "the banner came all the same");
}

/// Goal: one broker has the directory, for its user alone. Method: a second one, while the first runs and after it was killed;
/// the modes of what it made.
#[test]
fn the_directory_belongs_to_one_broker() {
    let home = Home::new();
    let Some(mut broker) = home.start(&[]) else { return };
    let path = home.path();
    let pid = fs::read_to_string(path.join("lock")).expect("the lock is there");
    check_refused(&path, &[path.to_str().expect("text"), &format!("process {}", pid.trim())]);
    broker_is_unhurt(&mut broker);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in fs::read_dir(&path).expect("it can be read") {
        let path = entry.expect("an entry").path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
    kill(broker);
    let mut broker = home.start(&[]).expect("it is not the oracle");
    broker_is_unhurt(&mut broker);
}

/// Goal: what is not a data directory of this version is refused, untouched. Method: one for each reason.
#[test]
fn directories_that_cannot_be_used_are_refused() {
    if oracle().is_some() {
        return;
    }
    let home = Home::new();
    let path = home.path();
    let file = home.file("letter.txt", "dear");
    check_refused(Path::new(&file), &[&file]);
    check_refused(home.directory.path(), &["letter.txt"]);
    check_refused(Path::new("/proc/no/such/place"), &["/proc/no/such/place"]);
    let broker = home.start(&[]).expect("it is not the oracle");
    kill(broker);
    fs::write(path.join("format"), "lepus 7\n").expect("it can be written");
    check_refused(&path, &["'lepus 7'", "'lepus 2'"]);
    fs::write(path.join("format"), "lepus 2\n").expect("it can be written");
    let database = path.join("definitions.redb");
    let sound = fs::read(&database).expect("it is there");
    fs::write(&database, &sound[..sound.len() / 2]).expect("it can be written");
    check_refused(&path, &["definitions.redb", "damaged"]);
    fs::write(&database, "dear diary ".repeat(1000)).expect("it can be written");
    check_refused(&path, &["definitions.redb", "not a database"]);
    fs::write(&database, sound).expect("it can be written");
    broker_is_unhurt(&mut home.start(&[]).expect("it is not the oracle"));
}

/// Goal: a disk that fails ends the broker with exit code 74 and a sentence that names the file and the error; what was
/// answered before is there afterwards. Method: a limit on the size of files, which the database outgrows.
#[test]
fn a_disk_that_fails_ends_the_broker() {
    let home = Home::new();
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\"", BINARY]);
    let Some(mut broker) = home.start_through(shell, &[]) else { return };
    let mut wire = Wire::open(&broker);
    for number in 0..5000 {
        let declare = methods::queue_declare(&format!("queue number {number}"), DURABLE, &Table::new());
        if wire.try_send_method(1, &declare).is_err() {
            break;
        }
    }
    let answered = answers_until_end(&mut wire);
    let status = broker.expect_exit(END_MAX);
    assert_eq!(status.code(), Some(74), "{}", broker.stderr());
    let file = home.path().join("definitions.redb");
    wait_until("the sentence comes", END_MAX, || broker.stderr().contains("File too large"));
    assert!(broker.stderr().contains(file.to_str().expect("text")), "{}", broker.stderr());
    assert!(!broker.stderr().contains("panicked"), "{}", broker.stderr());
    let broker = home.start(&[]).expect("it is not the oracle");
    let mut wire = Wire::open(&broker);
    assert!(answered > 10, "{answered}");
    for number in 0..answered {
        assert!(has_queue(&mut wire, &format!("queue number {number}")), "{number} of {answered}");
    }
}

/// Goal: while the disk is full, durable declares wait and nothing else does: who wants to consume logs in and consumes. With room
/// again, all that waited is done. Method: a small file system in a namespace of the broker's own, filled up.
#[test]
fn a_full_disk_is_waited_for() {
    let home = Home::new();
    fs::create_dir(home.path()).expect("it is new");
    let namespace = ["-rm", "sh", "-c", "mount -t tmpfs -o size=300m,mode=700 tmpfs \"$0\" && exec \"$@\""];
    let data_dir = home.path();
    let is_possible = Command::new("unshare").args(namespace).arg(&data_dir).arg("true").status();
    if !is_possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may not make namespaces");
        return;
    }
    let mut unshare = Command::new("unshare");
    unshare.args(namespace).arg(&data_dir).arg(BINARY);
    let Some(mut broker) = home.start_through(unshare, &[]) else { return };
    let mut wire = Wire::open(&broker);
    wire.declare(1, "before", DURABLE);
    wire.publish(1, "", "before", 0, b"x");
    wire.synchronise(1);
    // The way into the broker's namespace.
    let filler = format!("/proc/{}/root{}/filler", broker.pid(), data_dir.display());
    let mut file = fs::File::create(&filler).expect("there is room for its name");
    let full = loop {
        if let Err(full) = std::io::Write::write_all(&mut file, &[0; 4096]) {
            break full;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);

    let names: Vec<String> = (0..2000).map(|number| format!("while it is full {number}")).collect();
    for name in &names {
        wire.send_method(1, &methods::queue_declare(name, DURABLE, &Table::new()));
    }
    wait_until("the log says that it is full", END_MAX, || broker.stderr().contains("declarations wait until"));
    let mut consumer = Wire::open(&broker);
    consumer.consume(1, "before", "tag", methods::NO_ACK);
    assert_eq!(consumer.expect_delivery(1).text(), "x");

    drop(file);
    fs::remove_file(&filler).expect("it is there");
    for name in &names {
        assert_eq!(wire.expect_method(1, queue::DECLARE_OK).short(), *name);
    }
    broker_is_unhurt(&mut broker);
}
