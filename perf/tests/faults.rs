//! `lepus-perf` against brokers that do what none should: each fault has to be found, and told by its kind.

mod stub_broker;

use std::process::{Command, Output};
use std::time::Duration;

use lepus_perf::options::RunOptions;
use lepus_perf::result::{Check, Counts, Run, histogram};
use lepus_perf::run::{Labels, measure};
use stub_broker::Fault;

fn run(fault: Fault, line: &str) -> Run {
    let uri = stub_broker::start(fault);
    let words = ["--uri", &uri].into_iter().chain(line.split_whitespace());
    let options = RunOptions::try_parse_from(words).expect("well-formed");
    measure(&options, &Labels::default(), &mut |_| {}).expect("the stub serves")
}

fn faults(check: Check) -> [u64; 4] {
    [check.lost, check.duplicated, check.reordered, check.corrupted]
}

/// Goal: each fault counts as what it is, and as nothing else; without one there is none.
#[test]
fn faults_are_told_by_their_kind() {
    for line in
        ["--count 100 -a", "--count 100 -c 10 -s 1000", "--count 100 -r 2000 -q 5", "--count 100 -s uniform:16-300"]
    {
        let check = |fault, expected: [u64; 4]| {
            let run = run(fault, line);
            assert_eq!(faults(run.check), expected, "{fault:?} with {line}");
            assert_eq!(run.is_right(), expected == [0; 4], "{fault:?} with {line}: {:?}", run.failures);
            assert_eq!(run.check.totals.published, 100);
        };
        check(Fault::None, [0; 4]);
        check(Fault::Double(60), [0, 1, 0, 0]);
        check(Fault::Swap(60), [0, 0, 1, 0]);
    }
}

/// Goal: what is missing in the end is lost; a body with a wrong octet is corrupted, and its message missing.
/// Method: these wait until nothing more comes, so they run side by side.
#[test]
fn what_is_missing_is_lost() {
    std::thread::scope(|scope| {
        for at in [0, 60, 99] {
            scope.spawn(move || assert_eq!(faults(run(Fault::Drop(at), "--count 100 -a").check), [1, 0, 0, 0], "{at}"));
        }
        scope.spawn(|| {
            for size in ["16", "17", "5000", "200000"] {
                let run = run(Fault::Corrupt(7), &format!("--count 20 -s {size}"));
                assert_eq!(faults(run.check), [1, 0, 0, 1], "{size} octets");
            }
        });
    });
}

/// Goal: what the broker refuses is refused, not lost.
#[test]
fn refused_messages_are_not_lost() {
    let run = run(Fault::Nack(60), "--count 100 -c 10");
    let Counts { published, confirmed, refused, received, .. } = run.check.totals;
    assert_eq!((published, confirmed, refused, received), (100, 99, 1, 99));
    assert_eq!((faults(run.check), run.is_right()), ([0; 4], false));
}

/// Goal: a broker that stops for a moment cannot hide it. Every message that was to be sent meanwhile shows it in its
/// response time, though most of them were sent late, and so have a short service time. The load generator is not to blame.
/// Method: one unconfirmed message at most, so that the stop of half a second holds the others back; then without that
/// limit, so that sockets take all: now both times show it.
#[test]
fn a_stall_shows_in_response_times() {
    let long = |run: &Run, name| {
        let recorded = run.histogram(name).expect("recorded");
        recorded.0.count_between(150_000_000, u64::MAX)
    };
    let stall = Fault::Stall(500, Duration::from_millis(500));
    let held_back = run(stall, "-r 1000 --warmup 0 -z 2 -c 1 -a --send-lag-limit 100");
    // 350 messages were to be sent between the stop and 150 ms before its end.
    assert!(long(&held_back, histogram::RESPONSE) >= 340, "{}", long(&held_back, histogram::RESPONSE));
    assert!(long(&held_back, histogram::SEND_LAG) >= 330, "{}", long(&held_back, histogram::SEND_LAG));
    assert!(long(&held_back, histogram::SERVICE) <= 34, "{}", long(&held_back, histogram::SERVICE));
    assert_eq!(held_back.invalid, Vec::<String>::new());
    assert!(
        held_back.warnings.iter().any(|warning| warning.contains("held publishers up")),
        "{:?}",
        held_back.warnings
    );
    let absorbed = run(stall, "-r 1000 --warmup 0 -z 2 -a --send-lag-limit 100");
    assert!(long(&absorbed, histogram::RESPONSE) >= 340, "{}", long(&absorbed, histogram::RESPONSE));
    assert!(long(&absorbed, histogram::SERVICE) >= 340, "{}", long(&absorbed, histogram::SERVICE));
}

/// Goal: a broker that tells publishers to stop is told of, and pays with its response times; nothing is lost, and the load
/// generator is not to blame.
#[test]
fn a_broker_that_blocks_publishers_is_told() {
    let block = Fault::Block(300, Duration::from_millis(500));
    let run = run(block, "-r 1000 --warmup 0 -z 2 -a --send-lag-limit 100");
    assert!(run.warnings.iter().any(|warning| warning.contains("connection.blocked")), "{:?}", run.warnings);
    assert!(run.histogram(histogram::RESPONSE).expect("recorded").0.count_between(150_000_000, u64::MAX) >= 340);
    assert_eq!((run.invalid.len(), run.is_right(), run.check.totals.received), (0, true, 2000), "{:?}", run.invalid);
}

/// Goal: a rate that the load generator itself cannot keep makes the run invalid, though nothing is wrong with the broker.
/// Method: bursts that take longer to write than the limit allows.
#[test]
fn a_generator_that_is_late_is_found() {
    let run = run(Fault::None, "-y 0 -r 400000 --arrivals burst:100000 --warmup 0 -z 1 --send-lag-limit 0.001");
    assert_eq!(run.invalid.len(), 1, "{:?}", run.warnings);
    assert!(run.invalid[0].contains("the load generator was late"), "{:?}", run.invalid);
}

fn perf(arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_lepus-perf")).arg("run").args(arguments).output();
    let output = output.expect("lepus-perf runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, text)
}

/// Goal: exit codes: 1 where something was wrong or failed, with a sentence that names host and cause; 2 where the command
/// line is wrong.
#[test]
fn exit_codes() {
    let check = |fault, arguments: &[&str], code: i32, expected: &str| {
        let uri = stub_broker::start(fault);
        let (output, text) = perf(&[&["--uri", &uri, "--quiet"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{fault:?}: {text}");
        assert!(text.contains(expected), "{fault:?}: {text}");
    };
    check(Fault::None, &["--count", "10"], 0, "all right");
    check(Fault::Double(3), &["--count", "10"], 1, "1 DUPLICATED");
    check(Fault::Nack(3), &["--count", "10", "-c", "5"], 1, "1 REFUSED");
    check(Fault::Close(3), &["--count", "100000"], 1, "CONNECTION_FORCED - by the test");
    check(Fault::RefuseLogin, &["--count", "10"], 1, "the broker refuses (403): ACCESS_REFUSED - no");
    check(Fault::None, &["--count", "x"], 2, "--count");
    check(Fault::None, &["-q", "5", "-A", "6"], 2, "would wait for ever");
    let (output, text) = perf(&["--uri", "amqp://127.0.0.1:1"]);
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("127.0.0.1:1: cannot connect"), "{text}");
}
