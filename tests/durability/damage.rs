//! Damaged data directories: refused with the place of the damage, inspected, verified, salvaged.

use crate::client::{Client, Properties};
use crate::site::{Site, kill, stop};
use crate::support::octets::Table;
use crate::support::random::Random;
use crate::support::wait_until;
use lepus::store::PAGE_OCTETS;
use lepus::store::extent::EXTENT_HEAD_OCTETS;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

/// Enough for several segment files of the queue, with the least memory that a broker takes.
const LONG: usize = 12_000;
const LONG_OCTETS: usize = 4_000;
const SHORT: usize = 50;

/// A site with a long queue, most of it in segment files, and a short one, in the journal only. The broker was stopped.
fn site_with_queues() -> Option<Site> {
    let site = Site::new()?;
    let broker = site.start(&["--queue-memory", "4MiB", "--shards", "1"]);
    let mut client = Client::publisher(&broker);
    for queue in ["long", "short"] {
        client.declare(queue, &Table::new());
    }
    for number in 0..LONG {
        client.publish("long", Properties::default(), &body(number, LONG_OCTETS));
        if number % 1_000 == 0 {
            client.wait_confirmed();
        }
    }
    for number in 0..SHORT {
        client.publish("short", Properties::default(), &body(number, 100));
    }
    client.wait_confirmed();
    kill(broker);
    // The next one leaves the journals of the first, so that what is in segment files is there only.
    let old = journal(&site);
    let broker = site.start(&["--queue-memory", "4MiB", "--shards", "1"]);
    wait_until("the older journals are retired", Duration::from_secs(20), || old.iter().all(|path| !path.exists()));
    stop(broker);
    Some(site)
}

fn body(number: usize, octets: usize) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(octets, number.to_le_bytes()[0]);
    body
}

/// Drains a queue and answers the numbers of its messages, which are whole and in order.
#[track_caller]
fn drain(client: &mut Client, queue: &str) -> Vec<usize> {
    let count = usize::try_from(client.ready(queue)).expect("it fits");
    let taken = client.take(queue, count, true);
    let numbers: Vec<usize> = taken
        .iter()
        .map(|delivery| {
            let number = usize::from_le_bytes(delivery.body[..8].try_into().expect("eight octets"));
            assert_eq!(delivery.body, body(number, delivery.body.len()), "message {number} is not as it was sent");
            number
        })
        .collect();
    assert!(numbers.is_sorted() && numbers.windows(2).all(|pair| pair[0] != pair[1]), "out of order, or twice");
    numbers
}

fn files(site: &Site, below: &str, suffix: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut directories = vec![site.path().join(below)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().map(|entry| entry.expect("it can be read").path()) {
            if entry.is_dir() {
                directories.push(entry);
            } else if entry.to_str().is_some_and(|path| path.ends_with(suffix) && !path.contains("free-")) {
                found.push(entry);
            }
        }
    }
    found.sort();
    found
}

fn journal(site: &Site) -> Vec<PathBuf> {
    files(site, "journal", ".journal")
}

/// The segments that a start reads, each with how much of it was written, and is something.
fn written_journal(site: &Site) -> Vec<(PathBuf, u64)> {
    let json: serde_json::Value = serde_json::from_slice(&site.run(&["inspect", "--json"]).stdout).expect("it is JSON");
    let segments = json["journal_segments"].as_array().expect("a list").iter();
    let segments = segments.map(|segment| {
        let file = segment["file"].as_str().expect("a name");
        (site.path().join(file), segment["batch_octets"].as_u64().expect("a number"))
    });
    segments.filter(|(_, octets)| *octets > 0).collect()
}

fn segments(site: &Site) -> Vec<PathBuf> {
    files(site, "queues", ".segment")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[track_caller]
fn check(output: &Output, code: i32, parts: &[&str]) -> String {
    let text = text(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// A start is refused with exit code 1 and a sentence with these parts.
#[track_caller]
fn check_start_refused(site: &Site, parts: &[&str]) {
    let output = site.try_start();
    check(&output, 1, parts);
    assert!(!text(&output).contains("listening on"), "it has started all the same");
}

fn flip(path: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(path).expect("it is there");
    let mut octet = [0];
    file.read_exact_at(&mut octet, offset).expect("it is that long");
    file.write_all_at(&[octet[0] ^ 0x10], offset).expect("it can be written");
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("plain names")
}

/// Goal: `inspect` and `recover` tell what is there, and change nothing, not even the time of a file; a running broker's
/// directory is refused. Method: a long and a short queue, as text and as JSON, then once more while a broker runs.
#[test]
fn a_sound_directory_is_inspected() {
    let Some(site) = site_with_queues() else { return };
    let state = || {
        let all = files(&site, ".", "").into_iter().map(|path| (fs::metadata(&path).expect("it is there"), path));
        let state = all.map(|(metadata, path)| (path, metadata.len(), metadata.modified().expect("it has a time")));
        state.collect::<Vec<_>>()
    };
    let before = state();
    let output =
        check(&site.run(&["inspect"]), 0, &["format lepus 2", "VHOST", "long", "short", "queue segment files"]);
    let row = output.lines().find(|line| line.contains(" short ")).expect("the queue has a row");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((cells[0], cells[1], cells[3], cells[4]), ("/", "short", "50", "5000"), "{row}");
    let output = site.run(&["inspect", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(json["messages"], LONG + SHORT);
    assert_eq!(json["queues"][0]["name"], "long");
    assert_eq!(json["queues"][0]["messages"], LONG);
    assert_eq!(json["queues"][0]["body_octets"], LONG * LONG_OCTETS);
    assert_eq!(json["queues"][0]["files"], segments(&site).len());
    assert_eq!(json["journal_segments"].as_array().map(Vec::len), Some(journal(&site).len()));
    assert_eq!(json["damage"], serde_json::json!([]));
    check(&site.run(&["recover"]), 0, &["Nothing is damaged."]);
    check(&site.run(&["recover", "--salvage"]), 0, &["Nothing is damaged."]);
    assert!(before == state(), "something was changed");
    let broker = site.start(&[]);
    for arguments in [&["inspect"][..], &["recover"], &["recover", "--salvage"]] {
        check(&site.run(arguments), 1, &["is used by another broker, process"]);
    }
    kill(broker);
    let broker = site.start(&[]);
    assert_eq!(drain(&mut Client::open(&broker), "short").len(), SHORT);
}

/// The queue's messages that a broker on this directory has, which it must start with; and that many `inspect` tells.
#[track_caller]
fn drain_all(site: &Site) -> (Vec<usize>, Vec<usize>) {
    let output = site.run(&["inspect", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(json["damage"], serde_json::json!([]), "{json:#}");
    let broker = site.start(&[]);
    let mut client = Client::open(&broker);
    let (long, short) = (drain(&mut client, "long"), drain(&mut client, "short"));
    assert_eq!(json["messages"], long.len() + short.len(), "{json:#}");
    stop(broker);
    check(&site.run(&["recover"]), 0, &["Nothing is damaged."]);
    (long, short)
}

/// What a refusal to start tells to do, which is done then.
#[track_caller]
fn salvage(site: &Site) -> String {
    let text = check(&site.run(&["recover", "--salvage"]), 0, &["Kept", "Lost", "The broker can be started."]);
    check(&site.run(&["recover"]), 0, &["Nothing is damaged."]);
    text
}

fn remedy(site: &Site) -> String {
    format!("'lepus recover --salvage {}'", site.path().display())
}

/// Goal: a flipped bit anywhere in a journal or in a queue's file is found, told with file and offset, and a start refuses
/// it; or it is in octets that mean nothing. Method: flip a bit, verify, flip it back; in places at random.
#[test]
fn flipped_bits_are_found() {
    let Some(site) = site_with_queues() else { return };
    let mut random = Random::new(7);
    let mut found = [0, 0];
    let with_length = |path: PathBuf| (fs::metadata(&path).expect("it is there").len(), path);
    let all = [
        written_journal(&site),
        segments(&site).into_iter().map(with_length).map(|(length, path)| (path, length)).collect(),
    ];
    for number in 0..16 {
        let kind = number % 2;
        let (path, length) = &all[kind][random.below(all[kind].len())];
        let offset = random.next() % length;
        flip(path, offset);
        let output = site.run(&["recover"]);
        if output.status.code() != Some(0) {
            found[kind] += 1;
            let text = check(&output, 1, &[name(path), &remedy(&site)]);
            let line = text.lines().find(|line| line.contains("is damaged at offset")).expect("the place is told");
            let told = line.split("offset ").nth(1).and_then(|rest| rest.split(':').next()).expect("a number");
            let told: u64 = told.parse().expect("a number");
            assert!(told <= offset && offset - told < 8 << 20, "{offset}: {line}");
            if kind == 0 {
                check_start_refused(&site, &[name(path), "is damaged at offset", &remedy(&site)]);
            }
        }
        flip(path, offset);
    }
    assert!(found[0] > 0 && found[1] > 3, "{found:?}: hardly any flip was in octets that mean something");
    let (long, short) = drain_all(&site);
    assert_eq!((long.len(), short.len()), (LONG, SHORT));
}

/// Goal: a damaged journal is refused; salvaging keeps what is sound, in order, and moves the rest aside.
/// Method: damage an early batch of the journal that has all that is in memory.
#[test]
fn a_damaged_journal_is_salvaged() {
    let Some(site) = site_with_queues() else { return };
    let path = written_journal(&site).remove(0).0;
    flip(&path, 100);
    check_start_refused(&site, &[name(&path), "offset 0", &remedy(&site)]);
    check(&site.run(&["inspect"]), 1, &["Damage:", name(&path), "offset 0"]);
    let text = salvage(&site);
    assert!(text.contains("how many is not known") && text.contains(name(&path)), "{text}");
    assert!(files(&site, ".", "journal").iter().any(|path| path.to_string_lossy().contains("damaged-")), "{text}");
    let (long, short) = drain_all(&site);
    assert!(!long.is_empty() && long.len() + short.len() < LONG + SHORT, "{} {}", long.len(), short.len());
}

/// Goal: damage within an extent, which a start does not read, ends the broker when it comes to it, with file, offset and remedy;
/// salvaging loses what is in that extent and nothing else. Method: a bit in the middle of a file.
#[test]
fn a_damaged_queue_file_is_salvaged() {
    let Some(site) = site_with_queues() else { return };
    let path = segments(&site).remove(0);
    let octets = fs::read(&path).expect("it is there");
    // Neither in padding, which is zeros and means nothing, nor in a header, which says how many messages there are.
    let is_written = |at: &usize| octets[*at] != 0 && at % PAGE_OCTETS >= EXTENT_HEAD_OCTETS;
    let offset = (octets.len() / 2..octets.len()).find(is_written).expect("something is written there");
    flip(&path, offset as u64);
    let mut broker = site.start(&[]);
    let mut client = Client::open(&broker);
    client.wire.send_method(1, &crate::support::methods::consume("long", "taker", 2));
    client.wire.read_to_end();
    let status = broker.expect_exit(Duration::from_secs(30));
    let stderr = broker.stderr();
    assert_eq!(status.code(), Some(74), "{stderr}");
    assert!(stderr.contains(name(&path)) && stderr.contains("offset") && stderr.contains(&remedy(&site)), "{stderr}");
    drop(broker);
    let before: usize = inspected(&site, "long");
    let text = salvage(&site);
    let (long, short) = drain_all(&site);
    let lost = before - long.len();
    assert!(lost > 0 && lost < 40, "{lost} messages of one block are lost");
    assert!(text.contains(&format!(": {lost} messages")), "{lost}: {text}");
    assert_eq!(short.len(), SHORT);
}

fn inspected(site: &Site, queue: &str) -> usize {
    let json: serde_json::Value = serde_json::from_slice(&site.run(&["inspect", "--json"]).stdout).expect("it is JSON");
    let queues = json["queues"].as_array().expect("a list");
    let queue = queues.iter().find(|it| it["name"] == queue).expect("it is told of");
    usize::try_from(queue["messages"].as_u64().expect("a number")).expect("it fits")
}

/// Goal: what is missing, or too short, is refused with its name, and salvaging keeps the rest. Method: remove a queue's file,
/// cut one off; cut the journal off.
#[test]
fn missing_and_truncated_files_are_salvaged() {
    let Some(site) = site_with_queues() else { return };
    let path = segments(&site).remove(0);
    fs::remove_file(&path).expect("it is there");
    check_start_refused(&site, &[name(&path), "is missing", &remedy(&site)]);
    let text = salvage(&site);
    assert!(text.contains(name(&path)), "{text}");
    let path = segments(&site).remove(0);
    let length = fs::metadata(&path).expect("it is there").len();
    fs::File::options().write(true).open(&path).and_then(|file| file.set_len(length / 2)).expect("it can be cut");
    check_start_refused(&site, &[name(&path), "offset", &remedy(&site)]);
    salvage(&site);
    let path = written_journal(&site).remove(0).0;
    fs::File::options().write(true).open(&path).and_then(|file| file.set_len(1 << 20)).expect("it can be cut");
    check_start_refused(&site, &[name(&path), "is truncated", "1048576", &remedy(&site)]);
    salvage(&site);
    let (long, short) = drain_all(&site);
    assert!(!long.is_empty() && long.len() < LONG, "{}", long.len());
    assert_eq!(short.len(), SHORT);
}

/// Goal: another version's directory is left alone, and one without definitions, each with a clear sentence. Method: both, with
/// each command.
#[test]
fn what_cannot_be_understood_is_left_alone() {
    let Some(site) = site_with_queues() else { return };
    let check_all_refused = |parts: &[&str]| {
        check_start_refused(&site, parts);
        for arguments in [&["inspect"][..], &["recover"], &["recover", "--salvage"]] {
            check(&site.run(arguments), 1, parts);
        }
    };
    let format = site.path().join("format");
    fs::write(&format, "lepus 7\n").expect("it can be written");
    check_all_refused(&["'lepus 7'", "'lepus 2' only"]);
    fs::write(&format, "lepus 2\n").expect("it can be written");
    let definitions = site.path().join("definitions.redb");
    let aside = site.path().join("definitions.aside");
    fs::rename(&definitions, &aside).expect("it is there");
    check_all_refused(&["definitions.redb is missing", "bring it back"]);
    fs::write(&definitions, "this is no database").expect("it can be written");
    check_all_refused(&["definitions.redb", "bring a sound copy of it back"]);
    fs::rename(&aside, &definitions).expect("it is there");
    let (long, short) = drain_all(&site);
    assert_eq!((long.len(), short.len()), (LONG, SHORT));
}

/// Messages in one block: those that a start would find damaged only when it comes to them may be counted, and go.
const BLOCK: usize = 40;

/// Goal: salvaging that is cut short loses nothing more, and can be run again. Method: a damaged journal and a damaged file;
/// the command is killed at several moments, then left to end.
#[test]
fn salvaging_can_be_interrupted() {
    let Some(site) = site_with_queues() else { return };
    let path = segments(&site).remove(0);
    flip(&path, fs::metadata(&path).expect("it is there").len() / 2);
    // Behind it there is a mark at least, so that it is damage and no end.
    let journal = written_journal(&site).remove(0).0;
    flip(&journal, 100);
    let before = inspected(&site, "long") + inspected(&site, "short");
    for millis in [20, 60, 120, 180, 250, 400, 600] {
        let mut salvaging = site.spawn_command(&["recover", "--salvage"]);
        std::thread::sleep(Duration::from_millis(millis));
        let _ = salvaging.kill();
        salvaging.wait().expect("it is our child");
        let left = inspected(&site, "long") + inspected(&site, "short");
        assert!(left <= before && left > before - BLOCK, "{left} of {before} are left after {millis} ms");
    }
    site.run(&["recover", "--salvage"]);
    let (long, short) = drain_all(&site);
    let left = long.len() + short.len();
    assert!(left < before && left > before - BLOCK, "{left} of {before} are left");
    assert!(files(&site, ".", ".segment").iter().any(|path| path.to_string_lossy().contains("damaged-")));
}
