//! How the broker starts, and how it says that it cannot: exit code and one clear sentence.
#![allow(clippy::doc_markdown, reason = "RabbitMQ is a name, not code")]
#![allow(clippy::large_stack_arrays, reason = "the stacks of tests have room")]

#[path = "support/mod.rs"]
mod support;

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use sha2::{Digest, Sha256};
use support::broker::{BINARY, Broker, oracle};
use support::canary::broker_is_unhurt;
use support::methods::{self, EXCLUSIVE, channel, queue};
use support::octets::Table;
use support::wire::{Handshake, Wire};

/// Runs the binary to its end, which must come by itself.
#[track_caller]
fn run(flags: &[&str]) -> Output {
    let data_dir = tempfile::tempdir().expect("a temporary directory");
    let mut child = Command::new(BINARY)
        .args(flags)
        .env("LEPUS_DATA_DIR", data_dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let start = Instant::now();
    while child.try_wait().expect("it is our child").is_none() {
        if start.elapsed() > Duration::from_secs(20) {
            let _ = child.kill();
            let output = child.wait_with_output().expect("it is our child");
            panic!("{flags:?}: it runs on; {output:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("it is our child")
}

/// The start fails with one of `codes` and a clear word that contains all of `parts`; `a|b` means either.
#[track_caller]
fn check_refused(flags: &[&str], codes: &[i32], parts: &[&str]) {
    let output = run(flags);
    let stderr = String::from_utf8(output.stderr).expect("errors are text");
    let code = output.status.code().expect("it ended by itself");
    assert!(codes.contains(&code), "{flags:?}: exit code {code}, expected one of {codes:?}; stderr: {stderr}");
    for part in parts {
        assert!(part.split('|').any(|either| stderr.contains(either)), "{flags:?}: `{part}` is missing in: {stderr}");
    }
    for trace in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
        assert!(!stderr.contains(trace), "{flags:?}: {stderr}");
    }
    if code == 1 {
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 1, "{flags:?}: one line was expected: {stderr}");
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(!stdout.contains("listening on"), "{flags:?}: the banner came all the same");
}

#[test]
fn an_occupied_port_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port().to_string();
    check_refused(&["--port", &port], &[1], &[&port]);
}

/// A second broker on the port of a running one: every socket may be shared when both ask for it, so it is checked.
#[test]
fn a_second_broker_on_the_same_port_is_refused() {
    let Some(mut broker) = Broker::own(&[]) else { return };
    let port = broker.address.port().to_string();
    check_refused(&["--port", &port], &[1], &[&port]);
    broker_is_unhurt(&mut broker);
}

#[test]
fn an_address_that_is_not_ours_is_refused() {
    check_refused(&["--port", "0", "--bind", "192.0.2.1"], &[1], &["192.0.2.1"]);
}

#[test]
fn bad_flags_are_usage_errors() {
    check_refused(&["--no-such-flag"], &[2], &["--no-such-flag"]);
    check_refused(&["--port", "70000"], &[2], &["--port"]);
    check_refused(&["--port", "abc"], &[2], &["--port"]);
    check_refused(&["--shards", "many"], &[2], &["--shards"]);
    check_refused(&["--shards", "-1"], &[2], &["-1"]);
    check_refused(&["--bind", "not an address"], &[1, 2], &["not an address"]);
    check_refused(&["--memory-limit", "lots"], &[1, 2], &["lots"]);
    check_refused(&["no-such-command"], &[2], &["no-such-command"]);
}

#[test]
fn impossible_numbers_are_refused() {
    check_refused(&["--port", "0", "--shards", "0"], &[1, 2], &["shards"]);
    check_refused(&["--port", "0", "--cores", "100000"], &[1, 2], &["100000"]);
    check_refused(&["--port", "0", "--cores", "0,x"], &[1, 2], &["cores"]);
    check_refused(&["--port", "0", "--cores", "3-1"], &[1, 2], &["3-1"]);
    check_refused(&["--port", "0", "--memory-limit", "0"], &[1, 2], &["memory-limit"]);
}

#[test]
fn an_unknown_log_level_is_refused() {
    check_refused(&["--port", "0", "--log", "chatty=very=much"], &[1, 2], &["log"]);
    check_refused(&["--port", "0", "--log", "loudest!"], &[1, 2], &["loudest!"]);
}

/// Too many shards for the locked memory: one sentence with the remedy, or a start; never a panic.
#[test]
fn a_memlock_limit_too_low_is_said_or_survived() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -l 64; exec \"$0\" --port 0 --shards 4 & sleep 3; kill $! 2>/dev/null; wait $!", BINARY]);
    let data_dir = tempfile::tempdir().expect("a temporary directory");
    let output = shell.env("LEPUS_DATA_DIR", data_dir.path()).stdin(Stdio::null()).output().expect("sh runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    let started = String::from_utf8_lossy(&output.stdout).contains("listening on");
    assert!(started || stderr.contains("memlock"), "neither started nor said why: {stderr}");
}

#[test]
fn help_and_version_are_told() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8(help.stdout).expect("help is text");
    for flag in [
        "--bind",
        "--port",
        "--shards",
        "--cores",
        "--log",
        "--data-dir",
        "--definitions",
        "--memory-limit",
        "LEPUS_PORT",
        "5672",
    ] {
        assert!(text.contains(flag), "`{flag}` is missing in the help:\n{text}");
    }
    let version = run(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&version.stdout).trim(), concat!("lepus ", env!("CARGO_PKG_VERSION")));
}

/// Goal: every flag is an environment variable too, and the flag wins.
#[test]
fn flags_come_from_the_environment_too() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound").port();
    let mut through_environment = Command::new("env");
    // The given `--port` goes to a variable of the shell, not to the broker.
    through_environment.args([&format!("LEPUS_PORT={port}"), "sh", "-c", "exec \"$0\" --shards 1", BINARY]);
    let Some(mut broker) = Broker::own_through(through_environment, &[]) else { return };
    assert_eq!(broker.address.port(), port);
    broker_is_unhurt(&mut broker);
    let mut both = Command::new("env");
    both.args([&format!("LEPUS_PORT={port}"), BINARY]);
    let mut second = Broker::own_through(both, &["--port", "0"]).expect("it is not the oracle");
    assert_ne!(second.address.port(), port);
    broker_is_unhurt(&mut second);
}

#[test]
fn a_bad_environment_variable_is_a_usage_error() {
    let output = Command::new(BINARY).env("LEPUS_PORT", "none").output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none"));
}

/// More shards than cores, one shard, and a chosen core all serve.
#[test]
fn any_number_of_shards_serves() {
    for flags in [&["--shards", "1"][..], &["--shards", "7"], &["--cores", "0"]] {
        let Some(mut broker) = Broker::own(flags) else { return };
        for _ in 0..8 {
            broker_is_unhurt(&mut broker);
        }
    }
}

fn definitions_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".json").expect("a temporary file");
    std::fs::write(file.path(), text).expect("it can be written");
    file
}

/// The start stops with file, place and reason.
#[track_caller]
fn check_bad_definitions(text: &str, parts: &[&str]) {
    let file = definitions_file(text);
    let path = file.path().to_str().expect("temporary paths are text");
    let mut all = vec![path];
    all.extend(parts);
    check_refused(&["--port", "0", "--definitions", path], &[1], &all);
}

#[test]
fn a_bad_definitions_file_stops_the_start() {
    let missing = "/no/such/definitions.json";
    check_refused(&["--port", "0", "--definitions", missing], &[1], &[missing]);
    check_refused(&["--port", "0", "--definitions", "/"], &[1], &["/"]);
    check_bad_definitions("", &["line 1"]);
    check_bad_definitions("not JSON", &["line 1"]);
    check_bad_definitions("[1, 2]", &["the document"]);
    check_bad_definitions("{\n \"vhosts\": [\n", &["line"]);
    check_bad_definitions(r#"{"users": 5}"#, &["users|line 1"]);
    check_bad_definitions(
        r#"{"vhosts": [{"name": "/"}], "queues": [{"name": 5, "vhost": "/"}]}"#,
        &["queues[0]|line 1"],
    );
    check_bad_definitions(
        r#"{"vhosts": [{"name": "/"}], "queues": [
            {"name": "q", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {"x-max-length": "many"}}]}"#,
        &["queues[0]", "x-max-length"],
    );
    check_bad_definitions(
        r#"{"vhosts": [{"name": "/"}], "exchanges": [
            {"name": "e", "vhost": "/", "type": "no-such", "durable": true, "auto_delete": false, "internal": false,
             "arguments": {}}]}"#,
        &["exchanges[0]", "no-such"],
    );
    check_bad_definitions(
        r#"{"vhosts": [{"name": "/"}], "bindings": [
            {"source": "amq.topic", "vhost": "/", "destination": "no-such", "destination_type": "queue",
             "routing_key": "k", "arguments": {}}]}"#,
        &["bindings[0]", "no-such"],
    );
    check_bad_definitions(
        r#"{"users": [{"name": "u", "password_hash": "????", "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": ""}]}"#,
        &["users[0]"],
    );
    check_bad_definitions(
        r#"{"users": [], "vhosts": [{"name": "/"}], "permissions": [
            {"user": "guest", "vhost": "/", "configure": "(", "write": ".*", "read": ".*"}]}"#,
        &["permissions[0]"],
    );
}

/// RabbitMQ's salted hash: four octets of salt, SHA-256 of salt and password, in base64.
fn password_hash(password: &str) -> String {
    let salt = [1, 2, 3, 4];
    let mut hash = salt.to_vec();
    hash.extend(Sha256::new().chain_update(salt).chain_update(password).finalize());
    base64::engine::general_purpose::STANDARD.encode(hash)
}

/// As RabbitMQ 3.10 and 4 export it.
fn export() -> String {
    format!(
        r#"{{"rabbit_version": "3.10.8", "rabbitmq_version": "3.10.8", "product_name": "RabbitMQ",
  "product_version": "3.10.8",
  "users": [
    {{"name": "alice", "password_hash": "{}", "hashing_algorithm": "rabbit_password_hashing_sha256",
      "tags": ["administrator"], "limits": {{}}}},
    {{"name": "bob", "password_hash": "{}", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "",
      "limits": {{}}}}],
  "vhosts": [{{"name": "/"}}, {{"name": "other"}}],
  "permissions": [
    {{"user": "alice", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}},
    {{"user": "alice", "vhost": "other", "configure": ".*", "write": ".*", "read": ".*"}},
    {{"user": "bob", "vhost": "/", "configure": "^bob-", "write": "^(bob-.*|amq\\.default)$", "read": "^bob-"}}],
  "topic_permissions": [], "parameters": [], "global_parameters": [], "policies": [],
  "queues": [
    {{"name": "work", "vhost": "/", "durable": true, "auto_delete": false,
      "arguments": {{"x-queue-type": "classic", "x-max-length": 2}}}},
    {{"name": "work", "vhost": "other", "durable": true, "auto_delete": false, "arguments": {{}}}}],
  "exchanges": [
    {{"name": "events", "vhost": "/", "type": "topic", "durable": true, "auto_delete": false, "internal": false,
      "arguments": {{}}}}],
  "bindings": [
    {{"source": "events", "vhost": "/", "destination": "work", "destination_type": "queue", "routing_key": "a.*",
      "arguments": {{}}}}]}}"#,
        password_hash("secret of alice"),
        password_hash("secret of bob")
    )
}

fn broker_with_export() -> Option<(Broker, tempfile::NamedTempFile)> {
    let file = definitions_file(&export());
    let broker = Broker::own(&["--definitions", file.path().to_str().expect("temporary paths are text")])?;
    Some((broker, file))
}

#[test]
fn users_of_an_export_log_in_with_their_passwords() {
    let Some((mut broker, _file)) = broker_with_export() else { return };
    Wire::open_with(&broker, &Handshake::login("alice", "secret of alice", "/")).close();
    Wire::open_with(&broker, &Handshake::login("bob", "secret of bob", "/")).close();
    let wrong = Wire::try_open(&broker, &Handshake::login("bob", "secret of alice", "/")).err().expect("refused");
    assert_eq!(wrong.code, Some(403));
    let foreign = Wire::try_open(&broker, &Handshake::login("bob", "secret of bob", "other")).err().expect("refused");
    assert_eq!(foreign.code, Some(530));
    assert!(foreign.text.contains("access to vhost 'other' refused for user 'bob'"), "{foreign:?}");
    broker.expect_running();
}

/// Queues, bindings and arguments are there; vhosts are separate worlds.
#[test]
fn queues_and_bindings_of_an_export_are_there() {
    let Some((mut broker, _file)) = broker_with_export() else { return };
    let mut wire = Wire::open_with(&broker, &Handshake::login("alice", "secret of alice", "/"));
    wire.open_channel(1);
    let mut other = Wire::open_with(&broker, &Handshake::login("alice", "secret of alice", "other"));
    other.open_channel(1);
    for number in 0..3 {
        wire.publish(1, "events", "a.b", 0, number.to_string().as_bytes());
    }
    wire.publish(1, "events", "b.a", 0, b"elsewhere");
    other.publish(1, "", "work", 0, b"in the other vhost");
    wire.synchronise(1);
    other.synchronise(1);
    assert_eq!(wire.counts(1, "work").0, 2, "x-max-length holds");
    assert_eq!(wire.get(1, "work", true).expect("it is there").text(), "1");
    assert_eq!(other.counts(1, "work").0, 1);
    assert_eq!(other.get(1, "work", true).expect("it is there").text(), "in the other vhost");
    // Repeating the declaration with other arguments is refused: the ones of the file were taken.
    wire.send_method(1, &methods::queue_declare("work", methods::DURABLE, &Table::new()));
    wire.expect_channel_close(1, 406, "inequivalent arg 'x-max-length' for queue 'work' in vhost '/'");
    broker.expect_running();
}

#[test]
fn permissions_of_an_export_are_enforced() {
    let Some((mut broker, _file)) = broker_with_export() else { return };
    let mut bob = Wire::open_with(&broker, &Handshake::login("bob", "secret of bob", "/"));
    bob.open_channel(1);
    let own = bob.declare(1, "bob-queue", EXCLUSIVE);
    bob.publish(1, "", &own, 0, b"mine");
    assert_eq!(bob.get(1, &own, true).expect("it is there").text(), "mine");
    let none = Table::new();
    let refused: [(Vec<u8>, &str); 6] = [
        (methods::queue_declare("alices", 0, &none), "configure access to queue 'alices' in vhost '/' refused"),
        (
            methods::exchange_declare("alices", "direct", 0),
            "configure access to exchange 'alices' in vhost '/' refused",
        ),
        (methods::consume("work", "c", 0), "read access to queue 'work' in vhost '/' refused for user 'bob'"),
        (methods::get("work", true), "read access to queue 'work' in vhost '/' refused for user 'bob'"),
        (methods::queue_purge("work"), "read access to queue 'work' in vhost '/' refused for user 'bob'"),
        (methods::queue_bind("bob-queue", "events", "#"), "read access to exchange 'events' in vhost '/' refused"),
    ];
    for (method, text) in refused {
        bob.send_method(1, &method);
        bob.expect_channel_close(1, 403, text);
        bob.open_channel(1);
    }
    bob.publish(1, "events", "a.b", 0, b"not allowed");
    bob.expect_channel_close(1, 403, "write access to exchange 'events' in vhost '/' refused for user 'bob'");
    bob.open_channel(1);
    bob.call(1, &methods::close(channel::CLOSE, 200, ""), channel::CLOSE_OK);
    bob.open_channel(2);
    bob.call(2, &methods::queue_delete("bob-queue"), queue::DELETE_OK);
    broker.expect_running();
    assert!(oracle().is_none());
}
