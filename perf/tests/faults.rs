//! `lepus-perf` against brokers that do what none should: each fault has to be found, and told by its kind.

mod stub_broker;

use std::ops::ControlFlow;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use lepus_perf::options::RunOptions;
use lepus_perf::result::{Check, Counts, Run, histogram};
use lepus_perf::run::{Labels, measure};
use stub_broker::Fault;

fn run(fault: Fault, line: &str) -> Run {
    let uri = stub_broker::start(fault);
    let words = ["--uri", &uri].into_iter().chain(line.split_whitespace());
    let options = RunOptions::try_parse_from(words).expect("well-formed");
    measure(&options, &Labels::default(), &mut |_| ControlFlow::Continue(())).expect("the stub serves")
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

/// Goal: a message that comes again, though nobody gave it back, is doubled, whatever the broker calls it.
#[test]
fn redelivered_messages_are_doubled() {
    for line in ["--count 100 -a", "--count 100 -q 5 -y 3"] {
        let run = run(Fault::Redeliver(60), line);
        assert_eq!((faults(run.check), run.is_right()), ([0, 1, 0, 0], false), "{line}");
    }
}

/// Goal: with several readers a message that comes twice is told once, as doubled, whoever gets it.
#[test]
fn several_readers_tell_faults_once() {
    for line in ["--count 100 -a -y 2", "--count 101 -x 2 -y 3", "--count 100 -a -y 1 -Y 2"] {
        assert_eq!(faults(run(Fault::None, line).check), [0; 4], "{line}");
        let doubled = faults(run(Fault::Double(20), line).check);
        // Each producer's message with this number.
        assert_eq!(doubled, [0, if line.contains("-x 2") { 2 } else { 1 }, 0, 0], "{line}");
    }
}

/// Goal: a producer whose connection fails takes nothing with it: what it has sent is not doubled, nor is that of the others.
#[test]
fn a_failed_producer_is_no_fault_of_the_others() {
    let run = run(Fault::CloseOne(1500), "-r 2000 -x 2 -y 2 --warmup 0 -z 3");
    assert!(run.failures.iter().any(|failure| failure.contains("CONNECTION_FORCED")), "{:?}", run.failures);
    assert_eq!(faults(run.check), [0; 4]);
}

/// Goal: replies are checked as messages are.
#[test]
fn replies_are_checked() {
    std::thread::scope(|scope| {
        for (fault, expected) in [
            (Fault::None, [0; 4]),
            (Fault::DropReply(20), [1, 0, 0, 0]),
            (Fault::DoubleReply(20), [0, 1, 0, 0]),
            (Fault::Drop(20), [1, 0, 0, 0]),
            (Fault::Double(20), [0, 2, 0, 0]),
        ] {
            scope.spawn(move || {
                let run = run(fault, "-w rpc --count 100 --in-flight 2");
                assert_eq!((faults(run.check), run.is_right()), (expected, expected == [0; 4]), "{fault:?}");
                assert_eq!(run.check.totals.published, 100, "{fault:?}");
            });
        }
    });
}

/// Goal: a run that a count limits ends where the broker owes an answer for ever, and says what is missing.
#[test]
fn lost_answers_end_a_run() {
    std::thread::scope(|scope| {
        for (fault, line, expected) in [
            (Fault::ForgetConfirm(10), "--count 1000 -c 10", "1 publishes or commits were not answered"),
            (Fault::ForgetConfirm(10), "--count 1000 -c 1", "11 of 1000 messages published"),
            (Fault::ForgetConfirm(10), "--count 1000 -c 1 -w backlog", "11 of 1000 messages published"),
            (Fault::ForgetConfirm(10), "--count 1000 -c 1 -r 5000", "989 messages should have been sent"),
            (Fault::ForgetCommit(3), "--count 1000 -m 10", "40 of 1000 messages published"),
            (Fault::DropReply(20), "-w rpc --count 100", "21 of 100 messages published, 1 under way"),
        ] {
            scope.spawn(move || {
                let run = run(fault, line);
                assert!(
                    run.failures.iter().any(|text| text.contains(expected)),
                    "{fault:?}, {line}: {:?}",
                    run.failures
                );
            });
        }
        scope.spawn(|| {
            let run = run(Fault::None, "-x 0 --count 5");
            assert!(run.failures.iter().any(|text| text.contains("0 of 5 messages received")), "{:?}", run.failures);
        });
    });
}

/// Goal: what was due before the end is sent after it, where the broker held it back until then; what never can be sent is
/// told.
/// Method: a stop from 300 ms before the end on, of 600 ms, then of a minute, with one unconfirmed message at most; then one
/// that begins with `connection.blocked`.
#[test]
fn a_stall_at_the_end_is_not_cut_off() {
    let (short, long) = (Duration::from_millis(600), Duration::from_secs(60));
    let line = "-r 1000 --warmup 0 -z 1 -c 1 -a --send-lag-limit 100";
    std::thread::scope(|scope| {
        for fault in [Fault::Stall(700, short), Fault::Block(700, short)] {
            scope.spawn(move || {
                let run = run(fault, line);
                assert_eq!((run.check.totals.published, run.check.totals.received), (1000, 1000), "{fault:?}");
                assert_eq!((run.failures.len(), run.is_right()), (0, true), "{fault:?}: {:?}", run.failures);
                let response = run.histogram(histogram::RESPONSE).expect("recorded");
                assert_eq!(response.0.len(), 1000, "{fault:?}");
                // The last one was due 300 ms before the stop's end.
                assert!(response.0.count_between(290_000_000, u64::MAX) >= 290, "{fault:?}");
                let confirm = run.histogram(histogram::CONFIRM_RESPONSE).expect("recorded");
                assert!(confirm.0.count_between(290_000_000, u64::MAX) >= 290, "{fault:?}");
            });
        }
        for fault in [Fault::Stall(700, long), Fault::Block(700, long)] {
            scope.spawn(move || {
                let run = run(fault, line);
                let published = run.check.totals.published;
                let unsent = format!("{} messages should have been sent", 1000 - published);
                assert!(published <= 701, "{fault:?}: {published}");
                assert!(run.failures.iter().any(|text| text.contains(&unsent)), "{fault:?}: {:?}", run.failures);
            });
        }
    });
}

/// Goal: what the broker has refused is not in flight any more.
#[test]
fn refused_messages_leave_the_window_of_in_flight() {
    let run = run(Fault::NackBefore(50), "--count 200 --in-flight 10 -c 20");
    let Counts { published, refused, received, .. } = run.check.totals;
    assert_eq!((published, refused, received, run.failures.len()), (200, 50, 150, 0), "{:?}", run.failures);
}

/// Goal: what waits for a consumer that takes its time is late, and the wait shows; the broker did nothing wrong.
/// Method: 100 messages at once, 5 ms of work each: the last begins after half a second, though all are read at once.
#[test]
fn the_wait_for_a_slow_consumer_shows() {
    let run = run(Fault::None, "--count 100 -r 100000 -a --consumer-delay 5000");
    let response = run.histogram(histogram::RESPONSE).expect("recorded");
    assert_eq!((response.0.len(), faults(run.check)), (100, [0; 4]));
    assert!(response.0.max() >= 490_000_000, "{}", response.0.max());
    assert!(response.0.count_between(245_000_000, u64::MAX) >= 50);
}

/// Goal: what the broker refuses is refused, not lost.
#[test]
fn refused_messages_are_not_lost() {
    let run = run(Fault::Nack(60), "--count 100 -c 10");
    let Counts { published, confirmed, refused, received, .. } = run.check.totals;
    assert_eq!((published, confirmed, refused, received), (100, 99, 1, 99));
    assert_eq!((faults(run.check), run.is_right()), ([0; 4], false));
}

/// Goal: a message that was refused and came all the same is neither doubled nor an excuse for one that is lost; one that was
/// returned is not lost.
#[test]
fn refused_messages_excuse_no_others() {
    std::thread::scope(|scope| {
        for line in ["--count 100 -c 10", "--count 100 -c 10 -y 2", "--count 100 -c 10 -r 2000"] {
            scope.spawn(move || {
                let run = run(Fault::NackTaken(60), line);
                let Counts { refused, received, .. } = run.check.totals;
                assert_eq!((faults(run.check), refused, received), ([0; 4], 1, 100), "{line}");
                assert!(run.warnings.iter().any(|text| text.starts_with("1 messages came though")), "{line}");
                assert_eq!(run.unchecked, Vec::<String>::new(), "{line}");
            });
            scope.spawn(move || {
                let run = run(Fault::NackTakenDrop(60, 70), line);
                assert_eq!(faults(run.check), [1, 0, 0, 0], "{line}");
            });
        }
        for line in ["--count 100 -f mandatory", "--count 100 -f mandatory -c 10 -s 20000 -y 2"] {
            scope.spawn(move || {
                let run = run(Fault::Return(60), line);
                let Counts { returned, received, .. } = run.check.totals;
                assert_eq!((faults(run.check), returned, received), ([0; 4], 1, 99), "{line}");
                assert_eq!(run.unchecked, Vec::<String>::new(), "{line}");
            });
        }
    });
}

/// Goal: who watches a run can end it: nothing more is awaited, what was measured is kept, and the run says why it is short.
#[test]
fn a_run_that_is_ended_early() {
    let uri = stub_broker::start(Fault::Stall(1500, Duration::from_secs(3)));
    let line = format!("--uri {uri} -r 1000 --warmup 0 -z 60 -c 10 -a --send-lag-limit 100");
    let options = RunOptions::try_parse_from(line.split_whitespace()).expect("well-formed");
    let began = Instant::now();
    let mut seconds = 0;
    let run = measure(&options, &Labels::default(), &mut |_| {
        seconds += 1;
        if seconds < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break("enough is seen".to_owned()) }
    });
    let run = run.expect("the stub serves");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!((run.failures, faults(run.check)), (vec!["ended early: enough is seen".to_owned()], [0; 4]));
    assert!(run.unchecked.iter().any(|text| text.contains("ended before")), "{:?}", run.unchecked);
    assert!((1000..=1510).contains(&run.check.totals.published), "{:?}", run.check.totals);
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
/// Method: a limit that no timer keeps, and bursts that fit into the socket, so that the broker holds nothing up.
#[test]
fn a_generator_that_is_late_is_found() {
    let run = run(Fault::None, "-y 0 -r 4000 --arrivals burst:1000 --warmup 0 -z 1 --send-lag-limit 0.001");
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
