//! What a suite may say, and what is told of its faults.

use super::*;

const SUITE: &str = r#"rounds = 3
pause = 0.5

[defaults]
time = 4
warmup = 1

[[target]]
name = "lepus"
uri = "amqp://u:secret@localhost:5673"
pid = 12

[[target]]
uri = "amqp://localhost"

[scenario.throughput]
about = "as fast as it goes"
auto-ack = true
size = 1024
flag = ["persistent"]

[scenario.latency]
rate = 2e4
time = 7
auto-ack = false
"#;

/// Goal: scenarios stand in the order of the text, with defaults unless they say otherwise, and overrides over all.
#[test]
fn a_whole_suite() {
    let suite = parse(SUITE, &[]).expect("well-formed");
    assert_eq!((suite.rounds, suite.pause_seconds), (Some(3), Some(0.5)));
    assert_eq!(suite.targets.iter().map(TargetSpec::label).collect::<Vec<_>>(), ["lepus", "localhost:5672"]);
    let [throughput, latency] = suite.scenarios.as_slice() else { panic!("two scenarios") };
    assert_eq!((throughput.name.as_str(), throughput.about.as_str()), ("throughput", "as fast as it goes"));
    assert!(throughput.options.auto_ack && throughput.options.is_persistent());
    assert_eq!(throughput.options.workload()["size"], "1024");
    assert_eq!(throughput.options.time().map(|time| time.as_secs()), Some(4));
    assert_eq!((latency.options.rate, latency.options.auto_ack), (Some(20_000.0), false));
    assert_eq!(latency.options.time().map(|time| time.as_secs()), Some(7));
    let overrides = [("time".to_owned(), "2".to_owned())];
    for scenario in parse(SUITE, &overrides).expect("well-formed").scenarios {
        assert_eq!(scenario.options.time().map(|time| time.as_secs()), Some(2));
    }
}

/// Goal: what holds for all scenarios is left out where it would do nothing; a scenario that says it itself is refused.
#[test]
fn options_that_do_nothing() {
    let text =
        "[defaults]\nconfirm = 5\n[scenario.churn]\nworkload = \"queue-churn\"\n[scenario.messages]\nsize = 20\n";
    let suite = parse(text, &[("size".to_owned(), "99".to_owned())]).expect("well-formed");
    let given: Vec<Vec<String>> =
        suite.scenarios.iter().map(|scenario| scenario.options.workload().into_keys().collect()).collect();
    assert_eq!(given, [vec!["workload"], vec!["confirm", "size"]]);
    let fault = parse("[scenario.churn]\nworkload = \"queue-churn\"\nsize = 20\n", &[]).expect_err("it does nothing");
    assert!(fault.to_string().contains("--size would do nothing"), "{fault}");
}

/// Goal: a fault is told by line, scenario, option and reason.
#[test]
fn faults() {
    let check = |text: &str, line: usize, parts: &[&str]| {
        let fault = parse(text, &[]).expect_err(text);
        assert_eq!(fault.line, line, "{fault} in:\n{text}");
        for part in parts {
            assert!(fault.reason.contains(part), "'{part}' is not in '{fault}'");
        }
        assert_eq!(fault.to_string().lines().count(), 1, "{fault}");
    };
    check("", 1, &["no scenario"]);
    check("rounds = 2\n[scenario]\n", 1, &["no scenario"]);
    check("a = \n", 1, &[]);
    check("\n[scenario.x\n", 2, &[]);
    check("[scenario.x]\nsize = 1024\nsize = 5", 3, &["duplicate"]);
    check("rounds = 0\n[scenario.x]\n", 1, &["rounds"]);
    check("pause = -1\n[scenario.x]\n", 1, &["pause"]);
    check("size = 1024\n[scenario.x]\n", 1, &["'size' is none of", "[defaults]"]);
    check("[scenario.x]\n\nsiez = 1024\n", 3, &["scenario 'x'", "option 'siez'", "no --siez", "is 'size' meant"]);
    check("[scenario.x]\nfrobnicate = 1\n", 2, &["no --frobnicate"]);
    check("[scenario.x]\nsize = \"big\"\n", 2, &["scenario 'x'", "option 'size'", "invalid value 'big'"]);
    check("[scenario.x]\nauto-ack = 1\n", 2, &["'auto-ack'", "true or false"]);
    check("[scenario.x]\nsize = { a = 1 }\n", 2, &["'size'", "a number, a text"]);
    check("[scenario.x]\nuri = \"amqp://h\"\n", 2, &["'uri'", "[[target]]"]);
    check("[defaults]\nwarmpu = 1\n[scenario.x]\n", 2, &["defaults", "is 'warmup' meant"]);
    check("# first\n[scenario.good]\n[scenario.x]\nqueues = 0\n", 3, &["scenario 'x'", "--queues: at least 1"]);
    check("[scenario.x]\ntime = 0\n", 1, &["never end"]);
    check("scenario = 5\n", 1, &["[scenario.NAME]"]);
    check("[scenario]\nx = 5\n", 2, &["[scenario.x]"]);
    check("target = 5\n[scenario.x]\n", 1, &["[[target]]"]);
    check("[[target]]\nname = \"a\"\n[scenario.x]\n", 1, &["'uri' is missing"]);
    check("[[target]]\nuri = \"http://h\"\n[scenario.x]\n", 2, &["amqp://"]);
    check("[[target]]\nuri = \"amqp://h\"\npid = \"x\"\n[scenario.x]\n", 3, &["'pid'"]);
    check("[[target]]\nurl = \"amqp://h\"\n[scenario.x]\n", 2, &["'url' is none of name, uri, pid"]);
}

#[test]
fn distances() {
    for (a, b, expected) in
        [("", "", 0), ("a", "", 1), ("siez", "size", 1), ("siez", "seed", 2), ("rate", "rates", 1), ("abc", "xyz", 3)]
    {
        assert_eq!(distance(a, b), expected, "{a} {b}");
    }
}

/// Goal: the suites that are shipped are well-formed, and the standard one takes ten minutes at most.
#[test]
fn shipped_suites() {
    let seconds = |text: &str| {
        let suite = parse(text, &[]).expect("well-formed");
        let run = |scenario: &Scenario| {
            let options = &scenario.options;
            let time = options.time().map_or(3.0, |time| time.as_secs_f64());
            // Declaring, draining and deleting take about half a second.
            options.warmup().as_secs_f64() + time + suite.pause_seconds.unwrap_or(1.0) + 0.5
        };
        let one_round: f64 = suite.scenarios.iter().map(run).sum();
        one_round * f64::from(suite.rounds.unwrap_or(1))
    };
    let standard = seconds(include_str!("../../suites/standard.toml")) * 2.0;
    assert!(standard <= 600.0, "{standard} s with two targets");
    assert!(seconds(include_str!("../../suites/quick.toml")) <= 30.0);
}
