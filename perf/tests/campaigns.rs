//! Several runs in one process, and what the user sees of them: the built `lepus-perf` against the built broker.

mod broker;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use broker::{Broker, LEPUS_PERF};
use lepus_perf::result::ResultFile;

fn perf(arguments: &[&str]) -> Output {
    Command::new(LEPUS_PERF).args(arguments).output().expect("lepus-perf runs")
}

/// Standard output and standard error, where the exit code is this.
#[track_caller]
fn texts(output: &Output, code: i32) -> (String, String) {
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).expect("UTF-8");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    (out, err)
}

fn result_file(path: &Path) -> ResultFile {
    serde_json::from_str(&std::fs::read_to_string(path).expect("written")).expect("a result file")
}

/// Goal: a suite runs each scenario on each target in each round, interleaved, and keeps all of it; a target that is not
/// there is told, the others go on, and the exit code is 1.
#[test]
fn a_suite_on_two_targets_and_one_that_is_gone() {
    let (one, other) = (Broker::start(), Broker::start());
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("suite.json");
    let suite = concat!(env!("CARGO_MANIFEST_DIR"), "/suites/quick.toml");
    let targets = [format!("one={}", one.uri), format!("other={}", other.uri), "gone=amqp://127.0.0.1:1".to_owned()];
    let mut arguments = vec!["suite", suite, "--rounds", "2", "--json", json.to_str().expect("UTF-8")];
    targets.iter().for_each(|target| arguments.extend(["--target", target]));
    let (out, err) = texts(&perf(&arguments), 1);
    for expected in ["throughput", "latency", "fan-out", "gone: FAILED: ", "overview"] {
        assert!(out.contains(expected), "'{expected}' is not in: {out}");
    }
    assert!(err.contains("latency · gone") && !err.contains('\x1b') && !out.contains('\x1b'), "{err}");
    let runs = result_file(&json).runs;
    let found: Vec<(&str, u32)> = runs.iter().map(|run| (run.scenario.as_str(), run.round)).collect();
    let rounds = (0..2).flat_map(|round| ["throughput", "latency", "fan-out"].map(|name| (name, round)));
    assert_eq!(found, rounds.flat_map(|run| [run, run]).collect::<Vec<_>>());
    for pair in runs.chunks(2) {
        let mut names = [pair[0].target.name.as_str(), pair[1].target.name.as_str()];
        names.sort_unstable();
        assert_eq!(names, ["one", "other"]);
        assert!(pair.iter().all(|run| run.is_right() && run.check.totals.received > 0));
    }
}

/// Goal: `versus` shows the targets side by side and its results can be compared.
#[test]
fn two_targets_side_by_side() {
    let (one, other) = (Broker::start(), Broker::start());
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("versus.json");
    let json = json.to_str().expect("UTF-8");
    let targets = [format!("one={}", one.uri), format!("other={}", other.uri)];
    let arguments = ["versus", "--target", &targets[0], "--target", &targets[1], "--rounds", "2", "--pause", "0"];
    let workload =
        ["--rate", "500", "--send-lag-limit", "60000", "--time", "1", "--warmup", "0", "--quiet", "--json", json];
    let (out, err) = texts(&perf(&[&arguments[..], &workload[..]].concat()), 0);
    assert!(err.is_empty(), "{err}");
    assert!(out.contains("response") && out.contains('×'), "{out}");
    let head = out.lines().find(|line| line.trim_start().starts_with("one")).expect("a line of names");
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["one", "other"]);
    let (out, _) = texts(&perf(&["compare", json]), 0);
    assert!(out.contains("one") && out.contains("other"), "{out}");
}

/// Goal: a sweep tries the rates, finds that an impossible objective is kept by none (exit code 1), and that an easy one is
/// kept by all; both keep their runs.
#[test]
fn sweeps() {
    let broker = Broker::start();
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("sweep.json");
    let json_text = json.to_str().expect("UTF-8");
    let sweep = |objective: &str, code: i32| {
        let arguments = ["sweep", "--uri", &broker.uri, "--rates", "100,200", "--objective", objective, "--quiet"];
        let times = ["--time=3", "--warmup=0", "--pause=0", "--send-lag-limit=60000", "--json", json_text];
        (texts(&perf(&[&arguments[..], &times[..]].concat()), code).0, result_file(&json))
    };
    let (out, file) = sweep("p50<1ns", 1);
    assert!(out.contains("no rate was kept"), "{out}");
    // Tried again, since a machine may hiccup once.
    assert_eq!(file.runs.iter().map(|run| run.rate).collect::<Vec<_>>(), [Some(100.0), Some(100.0)]);
    // An hour: whether a loaded machine keeps up is not the matter, but everything that is sent must come.
    let (out, file) = sweep("max<=3600s", 0);
    assert!(out.contains("highest rate kept"), "{out}");
    assert!(file.runs.len() >= 2 && file.runs.iter().all(|run| !run.has_faults()));
}

/// Goal: a step of a sweep that is lost does not go on to its end, and its backlog is not awaited.
/// Method: steps of a minute, at rates that the consumer takes or is far from taking.
#[test]
fn a_hopeless_step_ends_early() {
    let broker = Broker::start();
    let began = Instant::now();
    let arguments =
        ["sweep", "--uri", &broker.uri, "--rates", "8000", "--quiet", "--time=60", "--warmup=0", "--pause=0"];
    let (out, _) = texts(&perf(&[&arguments[..], &["--consumer-rate=100", "--send-lag-limit=60000"]].concat()), 1);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let out = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(out.contains("no rate was kept") && out.contains("ended early: it falls behind by"), "{out}");
    assert_eq!(out.matches("ended early").count(), 1, "tried once: {out}");
}

/// Goal: SIGINT ends a suite with what is complete, and the exit code says that it is not all.
#[test]
fn an_interrupted_suite_keeps_what_is_complete() {
    let broker = Broker::start();
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("suite.json");
    let suite = concat!(env!("CARGO_MANIFEST_DIR"), "/suites/quick.toml");
    let mut child = Command::new(LEPUS_PERF)
        .args(["suite", suite, "--rounds", "1000", "--plain", "--target", &format!("one={}", broker.uri)])
        .args(["--json", json.to_str().expect("UTF-8")])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("lepus-perf runs");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines().map_while(Result::ok);
    // The second run has begun, so the first one is complete.
    assert!(lines.any(|line| line.contains("run 2/3000")), "no second run");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is there");
    lines.for_each(drop);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let runs = result_file(&json).runs;
    assert!(!runs.is_empty() && runs.len() < 10, "{}", runs.len());
    assert!(runs.iter().all(|run| run.measured_counts().1 > 0.9), "an incomplete run was kept");
}

/// Goal: what cannot be meant is refused with exit code 2 and a sentence, before anything is run.
#[test]
fn refusals() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("bad.toml");
    std::fs::write(&file, "[scenario.x]\nauto-ack = true\nsiez = 5\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    let check = |arguments: &[&str], expected: &str| {
        let (_, err) = texts(&perf(arguments), 2);
        assert!(err.contains(expected), "'{expected}' is not in: {err}");
    };
    check(&["suite", file], "bad.toml:3: scenario 'x': option 'siez'");
    check(&["suite", "quick", "--only", "nothing"], "there is no such scenario");
    check(&["suite", "quick", "--set", "tiem=5"], "is 'time' meant");
    check(&["versus", "--target", "amqp://h", "--target", "amqp://h"], "two targets are called");
    check(&["versus", "--target", "amqp://h", "--uri", "amqp://h"], "belongs to --target");
    check(&["sweep", "--objective", "p99<5"], "no unit");
    check(&["sweep", "--rate", "5"], "what a sweep varies");
    check(&["sweep", "--time", "2"], "at least 3 seconds");
    check(&["versus", "--target", "a=amqp://u:secret@h,x"], "pid=N");
}

/// Goal: --list and --dry-run need no broker and show what would be run.
#[test]
fn a_look_at_a_suite() {
    let (out, _) = texts(&perf(&["suite", "standard", "--list"]), 0);
    assert!(out.lines().count() >= 10 && out.contains("latency-20k"), "{out}");
    let (out, _) = texts(&perf(&["suite", "quick", "--dry-run", "--target", "amqp://u:secret@h", "--rounds", "2"]), 0);
    assert_eq!(out.lines().filter(|line| line.starts_with("lepus-perf run --uri amqp://u@h")).count(), 6, "{out}");
    assert!(!out.contains("secret") && out.contains("# 6 runs, about"), "{out}");
}
