//! The built `lepus-perf` against the built broker.

mod broker;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use broker::{Broker, LEPUS_PERF};
use lepus_perf::result::{ResultFile, SCHEMA, histogram};

impl Broker {
    fn perf(&self, arguments: &[&str]) -> Output {
        let pid = self.child.id().to_string();
        let mut command = Command::new(LEPUS_PERF);
        command.args(["run", "--uri", &self.uri, "--broker-pid", &pid]).args(arguments);
        command.output().expect("lepus-perf runs")
    }
}

/// Numbers as programs write them: `1500`, not `1,500`.
fn without_separators(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let is_digit = |index: Option<usize>| index.and_then(|index| letters.get(index)).is_some_and(char::is_ascii_digit);
    let is_separator =
        |index: usize| letters[index] == ',' && is_digit(index.checked_sub(1)) && is_digit(Some(index + 1));
    (0..letters.len()).filter(|&index| !is_separator(index)).map(|index| letters[index]).collect()
}

#[track_caller]
fn check_right(output: &Output, expected: &str) {
    check_verdict(output, "all right: none lost", expected);
}

/// What a run says that has found no fault and has not looked everywhere.
const NOT_ALL: &str = "nothing wrong was found, but not all was checked";

#[track_caller]
fn check_verdict(output: &Output, verdict: &str, expected: &str) {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains(verdict), "{text}");
    assert!(without_separators(&text).contains(expected), "'{expected}' is not in: {text}");
}

/// Goal: every workload publishes what was asked for, receives all of it, and says so.
#[test]
fn workloads_come_out_right() {
    let broker = Broker::start();
    for (line, expected) in [
        ("--count 1000", "1000 published, 1000 received"),
        ("--count 1001 -x 3 -y 2 --queues 4 -q 10 -A 3 -c 7 -f persistent", "1001 published, 1001 received"),
        ("--count 1000 -x 2 -y 5 -q 20", "1000 published, 1000 received"),
        ("--count 300 -e perf-fanout -t fanout --queues 5 -y 3 -a", "300 published, 1500 received"),
        ("--count 1000 -e perf-topic -t topic --bindings 20 --queues 2 -a -s 6", "1000 published, 1000 received"),
        ("--count 1000 -e perf-headers -t headers --bindings 20 --queues 2", "1000 published, 1000 received"),
        ("--count 1000 -e perf-direct --queues 3 -a --in-flight 10", "1000 published, 1000 received"),
        ("--count 300 -e perf-direct --queues 3 -k one", "300 published, 900 received"),
        ("--count 5 -s 1000000 -a", "5 published, 5 received"),
        ("--count 200 -r 1000 -x 2 -c 100", "200 published, 200 received"),
        ("--count 200 -r 1000 -x 2 --arrivals poisson", "200 published, 200 received"),
        ("--count 200 -r 1000 -x 2 --arrivals burst:50", "200 published, 200 received"),
        ("--rate-profile 100@0.5,100-300@0.5 --warmup 0", "150 published, 150 received"),
        ("--count 3000 -s lognormal:500,1", "3000 published, 3000 received"),
        (
            "--count 3000 -x 20 -y 10 -X 3 -Y 2 --queues 7 --threads 2 -s uniform:16-2000",
            "3000 published, 3000 received",
        ),
        ("--count 1000 -m 30", "1000 published, 1000 received"),
        ("--count 1000 --nack-share 0.2 --requeue -q 50 -A 7", "1000 published, 1"),
        ("--count 1000 --nack-share 0.2 -q 50", "1000 published, 1000 received"),
        ("--count 100 --nack-share 1", "100 published, 100 received, 100 rejected"),
        ("--count 1000 -q 50 --consumer-delay 50", "1000 published, 1000 received"),
        ("--count 500 -a -R 10000", "500 published, 500 received"),
        ("--count 300 -w rpc -x 3 --in-flight 5 -s 100000", "300 published, 300 received"),
        ("--count 300 -w rpc -x 2 --reply-queue -r 2000", "300 published, 300 received"),
        ("--count 500 -w get -y 2", "500 published, 500 received"),
        ("--count 5000 -w backlog -f persistent -c 100", "5000 published, 5000 received"),
        ("--count 20 -w connection-churn -x 3", "20 operations"),
        ("--count 20 -w channel-churn -x 3", "20 operations"),
        ("--count 20 -w queue-churn -x 3", "20 operations"),
        ("--count 20 -w binding-churn -x 3", "20 operations"),
        ("--count 100 --queue-arg x-max-length=100000 --auto-delete --durable", "100 published, 100 received"),
        ("--count 100 -e perf-none -f mandatory -t topic -k a --queues 1", "100 published, 100 received"),
    ] {
        let name = format!("--quiet -u perf-{}", line.len());
        // How late a loaded machine is, is not the matter.
        let is_paced = line.contains("-r ") || line.contains("--rate-profile");
        let limit = is_paced.then_some("--send-lag-limit=60000");
        let arguments: Vec<&str> = name.split(' ').chain(line.split(' ')).chain(limit).collect();
        let is_open = ["churn", "-s 6", "lognormal"].iter().any(|part| line.contains(part));
        let verdict = if is_open { NOT_ALL } else { "all right: none lost" };
        check_verdict(&broker.perf(&arguments), verdict, expected);
    }
}

/// Goal: what one run leaves behind another one drains; a run that could not check its own messages is refused.
#[test]
fn a_backlog_is_built_and_drained() {
    let broker = Broker::start();
    let keep = ["-y", "0", "--count", "5000", "--keep", "-c", "100"];
    check_verdict(&broker.perf(&keep), NOT_ALL, "5000 published, 0 received");
    let refused = broker.perf(&["--count", "1"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("5000 messages are in the queues already"));
    check_verdict(&broker.perf(&["-x", "0", "--count", "5000", "-a"]), NOT_ALL, "0 published, 5000 received");
    check_right(&broker.perf(&["--count", "10"]), "10 published, 10 received");
}

/// Goal: what was there before a run is there after it, whatever the run does; what a run has made is gone.
/// Method: --predeclared declares passively, and so fails where a queue is not there; so does publishing to no exchange.
#[test]
fn what_others_have_made_is_left_alone() {
    let broker = Broker::start();
    let perf = |line: &str| broker.perf(&line.split(' ').collect::<Vec<_>>());
    let is_there = |line: &str| {
        let output = perf(&format!("--predeclared --count 5 -c 1 {line}"));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || text.contains("404"), "{line}: {text}");
        output.status.success()
    };
    check_right(&perf("--count 5 -u orders -e shop --keep"), "5 published");
    assert!(is_there("-u orders -e shop"));
    check_right(&perf("--count 5 -u orders -e shop"), "5 published");
    assert!(is_there("-u orders -e shop"), "queue or exchange of another was deleted");
    check_verdict(&perf("-y 0 --count 7 -u orders --keep"), NOT_ALL, "7 published");
    check_verdict(&perf("-x 0 --count 7 -u orders"), NOT_ALL, "7 received");
    assert!(is_there("-u orders"), "a consumer has deleted the queue");
    // Of several queues only those that it has made.
    check_right(&perf("--count 10 -u orders-1 --keep"), "10 published");
    check_right(&perf("--count 10 -u orders --queues 2 -e fair"), "10 published");
    assert!(is_there("-u orders-1") && !is_there("-u orders-0"));
    assert!(!is_there("-u orders-1 -e fair -k orders-1"), "its own exchange is left behind");
    // A run that comes to nothing leaves nothing either.
    check_verdict(&perf("-y 0 --count 1 -u orders-1 --keep"), NOT_ALL, "1 published");
    assert!(!perf("--count 1 -u orders --queues 2").status.success());
    assert!(!is_there("-u orders-0"));
}

/// Goal: a run that ends before all has come is not praised for what nobody has seen.
#[test]
fn what_is_left_in_the_end_is_a_failure() {
    let broker = Broker::start();
    let line = "--quiet -z 1 --warmup 0 -q 1 --drain-limit 0";
    let output = broker.perf(&line.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for expected in ["FAILED", "still under way 0 s after the end", "not checked: whether messages were lost"] {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(expected) && !text.contains("all right"), "{text}");
    }
}

/// Goal: a result file says what was measured.
#[test]
fn a_file_is_written() {
    let broker = Broker::start();
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("run.json");
    let path = json.to_str().expect("UTF-8");
    let arguments = ["--count", "500", "-r", "5000", "-c", "50", "--send-lag-limit", "60000", "--json", path];
    check_right(&broker.perf(&arguments), "response");
    let text = std::fs::read_to_string(&json).expect("the file is there");
    let file: ResultFile = serde_json::from_str(&text).expect("a result file");
    let run = &file.runs[0];
    assert_eq!((file.schema.as_str(), run.rate, run.check.totals.received), (SCHEMA, Some(5000.0), 500));
    for name in [histogram::RESPONSE, histogram::SERVICE, histogram::SEND_LAG, histogram::CONFIRM] {
        assert_eq!(run.histogram(name).map(|recorded| recorded.0.len()), Some(500), "{name}");
    }
    assert!(run.broker.is_some_and(|broker| broker.resident_octets_max > 0));
}

/// Goal: a trace is played, with its sizes and keys; a wrong line is told.
#[test]
fn traces_are_played() {
    let broker = Broker::start();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("trace");
    let path = path.to_str().expect("UTF-8");
    let line = |number: u16| format!("{:.3} {} k{}", f64::from(number) / 1000.0, 16 + number, number % 2);
    let lines = (0..200).map(line).collect::<Vec<_>>().join("\n");
    std::fs::write(path, lines).expect("the disk has room");
    let arguments =
        ["--trace", path, "-e", "perf-trace", "-t", "topic", "-k", "#", "--queues", "2", "-x", "3", "--quiet"];
    let arguments = [&arguments[..], &["--send-lag-limit", "60000"]].concat();
    check_right(&broker.perf(&arguments), "200 published, 400 received");
    std::fs::write(path, "0.1 16\nsoon\n").expect("the disk has room");
    let refused = broker.perf(&arguments);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text.contains("trace, line 2: 'soon' is no time in seconds"), "{text}");
}

/// Goal: one process has thousands of channels on hundreds of connections.
#[test]
fn many_connections() {
    let broker = Broker::start();
    let line = "--quiet -x 200 -y 200 -X 5 -Y 5 --queues 1000 --count 20000 -c 10 -q 10 --threads 2";
    check_right(&broker.perf(&line.split(' ').collect::<Vec<_>>()), "20000 published, 20000 received");
}

/// Goal: Ctrl-C ends a run with its result.
#[test]
fn interrupted_runs_have_their_result() {
    let broker = Broker::start();
    let mut command = Command::new(LEPUS_PERF);
    command
        .args(["run", "--uri", &broker.uri, "-z", "0", "--warmup", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("lepus-perf runs");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
    assert!(lines.next().is_some_and(|line| line.expect("text").contains("published")), "an interval is told");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is alive");
    let drained = std::thread::spawn(move || lines.count());
    check_right(&child.wait_with_output().expect("it ends"), "interrupted");
    drained.join().expect("the thread reads on");
}

/// Goal: without a broker, or with options that contradict themselves, there is one clear sentence.
#[test]
fn refusals_are_one_sentence() {
    let check = |arguments: &[&str], expected: &str| {
        let output = Command::new(LEPUS_PERF).arg("run").args(arguments).output().expect("lepus-perf runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(expected) && text.lines().count() == 1, "{text}");
    };
    check(&["--uri", "amqp://127.0.0.1:1"], "127.0.0.1:1: cannot connect");
    let broker = Broker::start();
    check(&["--uri", &broker.uri.replace("://", "://guest:wrong@")], "refuse");
    check(&["--uri", &format!("{}/nowhere", broker.uri)], "nowhere");
}
