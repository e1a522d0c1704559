//! The built `lepus-perf compare` and `export`: exit codes, outputs and refusals, as a script sees them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};
use serde_json::{Value, json};
use tempfile::TempDir;

const LEPUS_PERF: &str = env!("CARGO_BIN_EXE_lepus-perf");

/// Evenly spread latencies up to `nanos`, as result files have them.
fn encoded(nanos: u64) -> String {
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).expect("valid");
    (1..=1000).for_each(|part| histogram.record(part * nanos / 1000).expect("in range"));
    let mut octets = Vec::new();
    V2DeflateSerializer::new().serialize(&histogram, &mut octets).expect("written");
    STANDARD.encode(octets)
}

fn run(scenario: &str, target: &str, rate: f64, round: u32, nanos: u64) -> Value {
    let counts = json!({ "published": 1000, "received": 1000 });
    let intervals: Vec<Value> = (0..10)
        .map(|index| {
            json!({
                "start_seconds": index, "seconds": 1.0, "is_warm_up": index == 0, "counts": counts, "backlog": 0,
                "broker_cpu_seconds": 0.1, "broker_resident_octets": null,
                "histograms": { "response": encoded(nanos + index * 10) },
            })
        })
        .collect();
    json!({
        "scenario": scenario, "round": round, "workload": {}, "rate": rate, "seed": 1, "started_unix_millis": 0,
        "target": { "name": target, "uri": "", "product": "", "version": "", "platform": "", "cores": [] },
        "client_cores": [], "intervals": intervals, "check": { "totals": counts }, "broker": null,
        "client_cpu_seconds": 1.0, "invalid": [], "warnings": [],
    })
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().expect("a directory"));
        files.write("a.json", &result(&[run("s", "x", 1e3, 0, 1_000_000), run("s", "x", 1e3, 1, 1_000_000)]));
        files.write("b.json", &result(&[run("s", "x", 1e3, 0, 1_200_000)]));
        files.write("c.hgrm", "Value Percentile TotalCount 1/(1-Percentile)\n\n1.0 0.5 1 2\n5.0 1.0 2 inf\n");
        files
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    /// A word that is a file's name is replaced by its path.
    fn perf(&self, line: &str) -> Output {
        let is_file = |word: &str| {
            let ends = [".json", ".hgrm", ".hlog", ".svg", ".png", ".html", ".csv"];
            ends.iter().any(|end| word.ends_with(end))
        };
        let words = line.split(' ').map(|word| if is_file(word) { self.path(word) } else { word.to_owned() });
        Command::new(LEPUS_PERF).args(words).env_remove("COLUMNS").output().expect("lepus-perf runs")
    }
}

fn result(runs: &[Value]) -> String {
    let origin = json!({
        "version": "0", "revision": null, "command": [], "started_unix_millis": 0, "cpu_model": "", "processors": 1,
        "kernel": "", "memory_octets": 0,
    });
    json!({ "schema": "lepus-perf/2", "origin": origin, "runs": runs }).to_string()
}

#[track_caller]
fn check(output: &Output, code: i32, expected: &str) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    assert!(out.contains(expected) || err.contains(expected), "'{expected}' is not in: {out}{err}");
}

/// Goal: 0 where nothing is asked or no condition holds, 1 where one holds, 2 where it cannot be judged.
#[test]
fn exit_codes() {
    let files = Files::new();
    check(&files.perf("compare a.json b.json"), 0, "1.20×");
    check(&files.perf("compare a.json b.json --fail-if p99>+25%"), 0, "1.20×");
    check(&files.perf("compare a.json b.json --fail-if p99>+5%"), 1, "p99>+5%: p99 of b is");
    check(&files.perf("compare a.json b.json --fail-if p99>+5% --fail-if-sure"), 1, "limit +5.0 %");
    check(&files.perf("compare a.json b.json --fail-if p99>1ms --fail-if rate<100k"), 1, "rate of");
    check(&files.perf("compare a.json --fail-if max<2ms"), 1, "max of");
    check(&files.perf("compare a.json --fail-if p99>+5%"), 2, "nothing to compare");
    check(&files.perf("compare c.hgrm c.hgrm --fail-if rate<100k"), 2, "is not known");
    check(&files.perf("compare a.json b.json --fail-if p99>5"), 2, "duration with its unit");
    check(&files.perf("compare a.json b.json --fail-if max>1us --fail-if-sure"), 2, "no interval of confidence");
    check(&files.perf("compare"), 2, "FILE");
    check(&files.perf("compare a.json --histogram confirm"), 2, "it has: response");
}

/// Goal: runs that are invalid or have failed decide nothing, and are shown with what was wrong; unless they are allowed.
#[test]
fn runs_that_decide_nothing() {
    let files = Files::new();
    for (field, word) in [("invalid", "INVALID"), ("failures", "FAILED")] {
        let mut other = run("s", "x", 1e3, 0, 1_200_000);
        other[field] = json!(["it was late"]);
        files.write("d.json", &result(&[other]));
        let output = files.perf("compare a.json d.json --fail-if p99>+5%");
        check(&output, 2, "--fail-if cannot be judged: p99>+5%: d ");
        check(&output, 2, &format!("{word} d: it was late"));
        check(&files.perf("compare a.json d.json --fail-if p99>+25%"), 2, "cannot be judged");
        check(&files.perf("compare a.json d.json --fail-if p99>+5% --allow-invalid"), 1, "p99>+5%: p99 of d is");
        check(&files.perf("compare a.json d.json --fail-if p99>+25% --allow-invalid"), 0, "1.20×");
    }
    let mut open = run("s", "x", 1e3, 0, 1_000_000);
    open["unchecked"] = json!(["whether messages were lost"]);
    files.write("e.json", &result(&[open]));
    check(&files.perf("compare a.json e.json"), 0, "e: not checked: whether messages were lost");
}

/// Goal: tables stand on standard output alone; standard error has only what failed.
#[test]
fn outputs_are_apart() {
    let files = Files::new();
    let output = files.perf("compare a.json b.json c.hgrm");
    assert!(output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("c: a mere distribution") && !text.contains('\x1b'), "{text}");
    let output = files.perf("compare a.json b.json --json");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let values = &found["tables"][0]["columns"][1]["values"]["p50"];
    let ratio = values["ratio"].as_f64().expect("a number");
    assert!((ratio - 1.2).abs() < 0.01 && values["interval"].is_array(), "{found}");
    assert_eq!(found["tables"][0]["columns"][0]["rounds"], 2);
}

/// Goal: several scenarios, targets and rates are compared each with its like.
#[test]
fn like_with_like() {
    let files = Files::new();
    for (name, nanos) in [("m.json", 1_000_000), ("n.json", 2_000_000)] {
        let runs = [
            run("s", "x", 1e3, 0, nanos),
            run("s", "x", 2e3, 0, nanos * 2),
            run("s", "y", 1e3, 0, nanos * 4),
            run("t", "x", 1e3, 0, nanos * 8),
        ];
        files.write(name, &result(&runs));
    }
    let tables = |line: &str| -> Vec<(String, usize)> {
        let found: Value = serde_json::from_slice(&files.perf(line).stdout).expect("JSON");
        let all = found["tables"].as_array().expect("an array").iter();
        all.map(|table| {
            (table["heading"].as_str().expect("text").to_owned(), table["columns"].as_array().map_or(0, Vec::len))
        })
        .collect()
    };
    let expected = ["s, x, 1.00k/s", "s, x, 2.00k/s", "s, y, 1.00k/s", "t, x, 1.00k/s"];
    assert_eq!(tables("compare m.json n.json --json"), expected.map(|heading| (heading.to_owned(), 2)));
    let expected = [("s, 1.00k/s", 2), ("s, 2.00k/s", 1), ("t, 1.00k/s", 1)];
    assert_eq!(tables("compare m.json --json"), expected.map(|(heading, count)| (heading.to_owned(), count)));
    assert_eq!(tables("compare a.json b.json c.hgrm --json"), [(String::new(), 3)]);
    check(&files.perf("compare m.json n.json --fail-if p50>1.9x"), 1, "(s, y, 1.00k/s)");
}

/// Goal: what cannot be read or written is told by file, line and reason, and nothing is left half written.
#[test]
fn refusals() {
    let files = Files::new();
    let whole = fs::read_to_string(files.path("a.json")).expect("there");
    files.write("cut.json", &whole[..whole.len() / 2]);
    files.write("other.json", "{\"a\": 1}");
    files.write("cut.hgrm", "1.0 0.5 1 2\n2.0 0.7");
    files.write("words.hgrm", "hello\n");
    check(&files.perf("compare cut.json"), 2, "cut.json:1: cut off");
    check(&files.perf("compare other.json"), 2, "no field \"schema\"");
    check(&files.perf("compare cut.hgrm"), 2, "cut.hgrm:2: not a line");
    check(&files.perf("compare words.hgrm"), 2, "words.hgrm:1: not a line");
    check(&files.perf("compare nowhere.json"), 2, "nowhere.json: No such file");
    check(&files.perf("export a.json"), 2, "what to write?");
    check(&files.perf("export a.json --csv nowhere/a.csv"), 2, "there is no directory");
    check(&files.perf("export c.hgrm --csv a.csv"), 2, "not JSON");
    assert!(!Path::new(&files.path("a.csv")).exists());
}

/// Goal: each kind of file is made of one result and of a comparison.
#[test]
fn files_are_written() {
    let files = Files::new();
    let line =
        "export a.json --csv o.csv --hlog o.hlog --hgrm o.hgrm --svg o.svg --png o.png --html o.html --json o.json";
    check(&files.perf(line), 0, "wrote");
    check(&files.perf("compare a.json o.json o.hlog o.hgrm"), 0, "1.00×");
    assert_eq!(fs::read_to_string(files.path("o.csv")).expect("there").lines().count(), 1 + 2 * 11);
    let line = "compare a.json b.json c.hgrm --svg p.svg --png p.png --html p.html --theme dark --log-y";
    check(&files.perf(line), 0, "1.20×");
    for (name, begins) in [("p.svg", b"<svg".as_slice()), ("p.png", b"\x89PNG"), ("p.html", b"<!DOCTYPE html>")] {
        assert!(fs::read(files.path(name)).expect("there").starts_with(begins), "{name}");
    }
    check(&files.perf("export a.json --csv -"), 0, "kind,scenario");
}

/// Goal: of files with several scenarios one can be compared and exported; one that is not there is refused with those that are.
#[test]
fn one_scenario_of_several() {
    let files = Files::new();
    let two = [run("s", "x", 1e3, 0, 1_000_000), run("t", "x", 1e3, 0, 2_000_000)];
    files.write("two.json", &result(&two));
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let all = text(&files.perf("compare two.json --draws 0"));
    assert!(all.contains("s: response") && all.contains("t: response"), "{all}");
    let one = text(&files.perf("compare two.json c.hgrm --only t --draws 0"));
    assert!(!one.contains("900 µs") && one.contains("1.80 ms"), "{one}");
    assert_eq!(files.perf("export two.json --only t --csv one.csv").status.code(), Some(0));
    let csv = fs::read_to_string(files.path("one.csv")).expect("written");
    assert!(csv.lines().skip(1).all(|line| line.split(',').nth(1) == Some("t")) && csv.lines().count() == 12, "{csv}");
    for line in ["compare two.json --only u", "export two.json --only u --csv none.csv"] {
        let output = files.perf(line);
        let fault = String::from_utf8_lossy(&output.stderr);
        assert_ne!(output.status.code(), Some(0), "{line}");
        assert!(fault.contains("--only u: there is no such scenario; there are s, t"), "{fault}");
    }
}
