//! The report of one run as text: what stands on standard output at its end. At most 80 columns wide.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use crate::result::quantile::{self, QUANTILES};
use crate::result::{BrokerUse, Counts, DiskUse, Interval, Origin, Recorded, Run, histogram};
use crate::units::{count_text, duration_text, octets_text, rate_text, three_digits};

/// Columns that a table may have.
pub const COLUMNS_MAX: usize = 80;

/// Columns that the names of quantiles take.
const LATENCY_NAMES_WIDTH: usize = 10;
const FITS: &str = "a string takes any text";

/// How what must not be overlooked is told from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emphasis {
    /// By words alone.
    Plain,
    /// In colours, too.
    Coloured,
}

impl Emphasis {
    /// For standard output: in colours where it is a terminal and `NO_COLOR` is not set.
    pub fn of_stdout() -> Self {
        let is_coloured = std::io::stdout().is_terminal() && !is_no_color();
        if is_coloured { Self::Coloured } else { Self::Plain }
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    /// Something is wrong.
    pub fn wrong(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// Something should be known.
    pub fn warning(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// A heading.
    pub fn heading(self, text: &str) -> String {
        self.paint("1", text)
    }
}

/// Whether the user wants no colours (<https://no-color.org>).
pub fn is_no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// All of one run: rates, latencies, the broker's use, and whether everything was right.
pub fn text(run: &Run, origin: &Origin, emphasis: Emphasis) -> String {
    let mut text = String::new();
    head(&mut text, run, emphasis);
    rates(&mut text, run);
    latencies(&mut text, run);
    broker(&mut text, run);
    machine(&mut text, run, origin);
    verdict(&mut text, run, emphasis);
    text
}

/// Names of the target, as `lepus (Lepus 0.1.0)`.
pub fn target_text(run: &Run) -> String {
    let target = &run.target;
    let product = format!("{} {}", target.product, target.version);
    match (product.trim(), target.name.as_str()) {
        ("", name) => name.to_owned(),
        (product, "") => product.to_owned(),
        (product, name) if name == product => name.to_owned(),
        (product, name) => format!("{name} ({product})"),
    }
}

fn head(text: &mut String, run: &Run, emphasis: Emphasis) {
    let mut title = format!("{} · {}", run.scenario, target_text(run));
    if run.round > 0 {
        write!(title, " · round {}", run.round + 1).expect(FITS);
    }
    writeln!(text, "{}", emphasis.heading(&title)).expect(FITS);
    writeln!(text, "  {}", run.target.uri).expect(FITS);
}

/// Mean over the whole, and median, least and most of the seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// All in one second of the measured time.
    pub mean: f64,
    /// Of the intervals' rates.
    pub median: f64,
    /// Of the intervals' rates.
    pub min: f64,
    /// Of the intervals' rates.
    pub max: f64,
}

impl Rate {
    /// Of the measured intervals; those much shorter than the longest, as the last one may be, count in the mean only.
    /// `None` where no time was measured.
    pub fn of<'a>(intervals: impl Iterator<Item = &'a Interval>, count: impl Fn(&Counts) -> u64) -> Option<Self> {
        let (mut total, mut seconds, mut samples) = (0, 0.0, Vec::new());
        for interval in intervals.filter(|interval| interval.seconds > 0.0) {
            let own = count(&interval.counts);
            total += own;
            seconds += interval.seconds;
            samples.push((interval.seconds, own as f64 / interval.seconds));
        }
        let longest = samples.iter().map(|(seconds, _)| *seconds).fold(0.0, f64::max);
        let mut samples: Vec<f64> =
            samples.into_iter().filter(|(seconds, _)| *seconds >= longest / 2.0).map(|(_, rate)| rate).collect();
        samples.sort_unstable_by(f64::total_cmp);
        let (&min, &max) = (samples.first()?, samples.last()?);
        let median = f64::midpoint(samples[(samples.len() - 1) / 2], samples[samples.len() / 2]);
        Some(Self { mean: total as f64 / seconds, median, min, max })
    }
}

/// A name, and where its count is.
pub type CountField = (&'static str, fn(&Counts) -> u64);

/// What is counted, in the order in which it is shown.
pub const COUNTS: [CountField; 9] = [
    ("published", |counts| counts.published),
    ("confirmed", |counts| counts.confirmed),
    ("received", |counts| counts.received),
    ("acknowledged", |counts| counts.acknowledged),
    ("requeued", |counts| counts.requeued),
    ("rejected", |counts| counts.rejected),
    ("returned", |counts| counts.returned),
    ("refused", |counts| counts.refused),
    ("operations", |counts| counts.operations),
];

fn rates(text: &mut String, run: &Run) {
    let (counts, seconds) = run.measured_counts();
    if seconds <= 0.0 {
        text.push_str("\n  nothing was measured: the run ended before its warm-up did\n");
        return;
    }
    let time = format!("in {seconds:.1} s");
    writeln!(text, "\n  {:<13}{:>12}{:>12}{:>12}{:>12}{time:>17}", "a second", "mean", "median", "min", "max")
        .expect(FITS);
    for (name, field) in COUNTS.into_iter().filter(|(_, field)| field(&counts) > 0) {
        let Some(rate) = Rate::of(run.measured(), field) else { continue };
        let [mean, median, min, max] = [rate.mean, rate.median, rate.min, rate.max].map(rate_text);
        writeln!(text, "  {name:<13}{mean:>12}{median:>12}{min:>12}{max:>12}{:>17}", count_text(field(&counts)))
            .expect(FITS);
    }
    if let Some(rate) = run.rate {
        writeln!(text, "  {:<13}{:>12}", "wanted", rate_text(rate)).expect(FITS);
    }
    for phase in &run.phases {
        let rate = if phase.seconds > 0.0 { phase.messages as f64 / phase.seconds } else { f64::NAN };
        let (rate, seconds) = (rate_text(rate), three_digits(phase.seconds));
        wrap(
            text,
            &format!("  {:<13}", phase.name),
            &format!("{} in {seconds} s, {rate} a second", count_text(phase.messages)),
        );
    }
}

fn latencies(text: &mut String, run: &Run) {
    let all: Vec<(&str, &str, Recorded)> = histogram::ALL
        .into_iter()
        .filter_map(|(name, meaning)| run.histogram(name).map(|recorded| (name, meaning, recorded)))
        .collect();
    if all.is_empty() {
        return;
    }
    let mut is_any_beyond = false;
    let mut rest = all.as_slice();
    while !rest.is_empty() {
        let mut width = LATENCY_NAMES_WIDTH;
        let fits = |(name, ..): &&(&str, &str, Recorded)| {
            width += column_width(name);
            width <= COLUMNS_MAX
        };
        let some;
        (some, rest) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        is_any_beyond |= latency_columns(text, some);
    }
    for (name, meaning, _) in &all {
        writeln!(text, "  {name}: {meaning}").expect(FITS);
    }
    if is_any_beyond {
        text.push_str("  * beyond what so few values can tell: it is the longest of them\n");
    }
}

/// Columns of a histogram: its longest values, and a mark behind them.
fn column_width(name: &str) -> usize {
    name.chars().count().max(12) + 1
}

/// Quantiles of histograms side by side. Whether any of them is beyond what its values can tell.
fn latency_columns(text: &mut String, all: &[(&str, &str, Recorded)]) -> bool {
    write!(text, "\n  {:<8}", "latency").expect(FITS);
    all.iter().for_each(|(name, ..)| write!(text, "{name:>0$}", column_width(name)).expect(FITS));
    text.push('\n');
    let mut is_any_beyond = false;
    for (name, quantile) in QUANTILES.into_iter().chain([("max", 1.0)]) {
        write!(text, "  {name:<8}").expect(FITS);
        for (histogram, _, recorded) in all {
            let is_beyond = quantile::is_beyond_resolution(recorded.0.len(), quantile);
            is_any_beyond |= is_beyond;
            let value = quantile::at(recorded, quantile).map_or_else(|| "-".to_owned(), duration_text);
            // The mark stands in a column of its own, so that values stay in line.
            let width = column_width(histogram) - 1;
            write!(text, "{value:>width$}{}", if is_beyond { '*' } else { ' ' }).expect(FITS);
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    write!(text, "  {:<8}", "mean").expect(FITS);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most an hour")]
    let mean = |recorded: &Recorded| duration_text(recorded.0.mean().round() as u64);
    let push = |text: &mut String, of: &dyn Fn(&Recorded) -> String| {
        for (name, _, recorded) in all {
            write!(text, "{:>1$} ", of(recorded), column_width(name) - 1).expect(FITS);
        }
        text.truncate(text.trim_end_matches(' ').len());
    };
    push(text, &mean);
    write!(text, "\n  {:<8}", "count").expect(FITS);
    push(text, &|recorded| count_text(recorded.0.len()));
    text.push('\n');
    is_any_beyond
}

/// What the workload is about, for each second of the broker's CPU time.
pub fn messages_per_cpu_second(run: &Run) -> Option<f64> {
    let broker = run.broker.filter(|broker| broker.cpu_seconds > 0.0)?;
    let (counts, _) = run.measured_counts();
    let messages = counts.primary();
    (messages > 0).then(|| messages as f64 / broker.cpu_seconds)
}

fn broker(text: &mut String, run: &Run) {
    let Some(broker) = run.broker else {
        let reason =
            "CPU, memory and disk not available: its process is not on this machine, or not seen (--broker-pid)";
        text.push('\n');
        return wrap(text, "  broker   ", reason);
    };
    let BrokerUse { pid, cpu_seconds, resident_octets_before, resident_octets_max, .. } = broker;
    let (_, seconds) = run.measured_counts();
    write!(text, "\n  broker   CPU {cpu_seconds:.2} s").expect(FITS);
    if seconds > 0.0 {
        write!(text, " ({:.0} %)", 100.0 * cpu_seconds / seconds).expect(FITS);
    }
    if let Some(rate) = messages_per_cpu_second(run) {
        write!(text, ", {} messages a CPU second", rate_text(rate)).expect(FITS);
    }
    let [before, max] = [resident_octets_before, resident_octets_max].map(octets_text);
    writeln!(text, "\n           memory {before} before, {max} at most; process {pid}").expect(FITS);
    wrap(text, "           ", &disk_text(run, broker));
}

/// What the broker has written to disk.
fn disk_text(run: &Run, broker: BrokerUse) -> String {
    let Some(octets) = broker.disk_octets else {
        return format!("disk not available: /proc/{pid}/io may be read by its user and by root", pid = broker.pid);
    };
    if octets == 0 {
        return "disk: nothing written".to_owned();
    }
    let mut text = format!("disk {} written", octets_text(octets));
    if let Some(DiskUse { octets_per_message, amplification }) = run.disk_use() {
        text += &format!(", {} octets per message", rate_text(octets_per_message));
        if let Some(amplification) = amplification {
            text += &format!(", write amplification {}", three_digits(amplification));
        }
    }
    if let Some(calls) = broker.write_calls {
        text += &format!("; {} write calls", count_text(calls));
    }
    text
}

fn machine(text: &mut String, run: &Run, origin: &Origin) {
    let cores = |cores: &[usize]| cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let client = if run.client_cores.is_empty() { "any core".to_owned() } else { cores(&run.client_cores) };
    let broker =
        if run.target.cores.is_empty() { String::new() } else { format!(", broker on {}", cores(&run.target.cores)) };
    let busy = run.client_busy_part.map_or_else(String::new, |part| format!(" (busy {:.0} %)", 100.0 * part));
    let line = format!("load CPU {:.2} s{busy} on {client}{broker}", run.client_cpu_seconds);
    writeln!(text, "  {:<9}{line}", "cores").expect(FITS);
    let Origin { cpu_model, processors, kernel, memory_octets, .. } = origin;
    if !cpu_model.is_empty() {
        let line = format!("{cpu_model}, {processors} processors, {}, {kernel}", octets_text(*memory_octets));
        wrap(text, "  machine  ", &line);
    }
}

fn verdict(text: &mut String, run: &Run, emphasis: Emphasis) {
    let check = &run.check;
    let faults: Vec<String> = [
        (check.lost, "lost"),
        (check.duplicated, "duplicated"),
        (check.reordered, "reordered"),
        (check.corrupted, "corrupted"),
        (check.totals.refused, "refused"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, name)| format!("{} {}", count_text(count), name.to_uppercase()))
    .collect();
    let mut totals: Vec<CountField> =
        COUNTS.into_iter().filter(|(name, field)| *name != "refused" && field(&check.totals) > 0).collect();
    // That nothing came of what was published is worth a word; of mere operations neither is.
    let has_messages = check.totals.published + check.totals.received > 0;
    let is_missing =
        |name: &str, totals: &[CountField]| has_messages && !totals.iter().any(|(other, _)| *other == name);
    for field in [COUNTS[0], COUNTS[2]] {
        if is_missing(field.0, &totals) {
            totals.push(field);
        }
    }
    // What is compared stands side by side: what was published, and what of it came.
    totals.sort_by_key(|(name, _)| [&"published", &"received"].iter().position(|first| *first == name).unwrap_or(2));
    let mut totals: Vec<String> =
        totals.iter().map(|(name, field)| format!("{} {name}", count_text(field(&check.totals)))).collect();
    if totals.is_empty() {
        totals.push("nothing".to_owned());
    }
    wrap(text, "  totals   ", &format!("{}, warm-up and end included", totals.join(", ")));
    let check = match (faults.is_empty(), run.unchecked.is_empty()) {
        (false, _) => emphasis.wrong(&format!("WRONG: {}", faults.join(", "))),
        (true, true) => "all right: none lost, duplicated, reordered, corrupted or refused".to_owned(),
        (true, false) => "nothing wrong was found, but not all was checked".to_owned(),
    };
    writeln!(text, "  check    {check}").expect(FITS);
    for sentence in &run.unchecked {
        wrap(text, "           ", &format!("not checked: {sentence}"));
    }
    for (word, sentences) in [("FAILED", &run.failures), ("INVALID", &run.invalid), ("warning", &run.warnings)] {
        for sentence in sentences {
            let mut lines = String::new();
            wrap(&mut lines, &format!("  {word:<9}"), sentence);
            for line in lines.lines() {
                let painted = if word == "warning" { emphasis.warning(line) } else { emphasis.wrong(line) };
                writeln!(text, "{painted}").expect(FITS);
            }
        }
    }
}

/// Words behind a title, broken so that lines stay within [`COLUMNS_MAX`].
pub fn wrap(text: &mut String, title: &str, words: &str) {
    let indent = title.chars().count();
    let mut column = indent;
    text.push_str(title);
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if column > indent {
            if column + 1 + length > COLUMNS_MAX {
                write!(text, "\n{:indent$}", "").expect(FITS);
                column = indent;
            } else {
                text.push(' ');
                column += 1;
            }
        }
        text.push_str(word);
        column += length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Check;
    use crate::test_runs::{interval_of, run_of, run_of_intervals};

    fn shown(run: &Run) -> String {
        let origin = Origin {
            cpu_model: "A processor of a very long name which goes on and on, and on".to_owned(),
            processors: 64,
            kernel: "Linux 6.18.0-cloud-amd64".to_owned(),
            memory_octets: 16 << 30,
            ..Origin::default()
        };
        let text = text(run, &origin, Emphasis::Plain);
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS_MAX && !line.ends_with(' '), "'{line}' in:\n{text}");
        }
        text
    }

    fn row(text: &str, name: &str) -> Vec<String> {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name} in:\n{text}")).split_whitespace().map(str::to_owned).collect()
    }

    /// Goal: all histograms with the largest numbers fit into 80 columns, with rates and the broker.
    #[test]
    fn everything_fits() {
        let mut values = vec![999_000_000_u64; 20_000];
        values.push(3_599_000_000_000);
        let names = histogram::ALL.map(|(name, _)| (name, values.as_slice()));
        let mut run = run_of(&names);
        let all = 123_456_789;
        let counts = Counts { published: all, confirmed: all, received: all, acknowledged: all, ..Counts::default() };
        (run.intervals[0].counts, run.check.totals) = (counts, counts);
        run.rate = Some(1e8);
        run.broker = Some(BrokerUse {
            pid: 4_194_303,
            cpu_seconds: 12345.0,
            resident_octets_before: 1,
            resident_octets_max: 1 << 40,
            disk_octets: Some(1 << 50),
            write_calls: Some(12_345_678_901),
        });
        run.client_cores = vec![1];
        run.target.cores = vec![0];
        run.invalid = vec!["the load generator was late by more than a millisecond for much of the time ".repeat(2)];
        run.warnings = vec!["load and broker share cores".to_owned()];
        let text = shown(&run);
        assert_eq!(row(&text, "published")[1..], ["123,456,789"; 5]);
        assert_eq!(row(&text, "p99.99")[1..3], ["999", "ms"]);
        assert_eq!(row(&text, "count").len(), 6);
        assert!(text.contains("INVALID") && text.contains("warning  load and broker"), "{text}");
        assert!(!text.contains('*'), "{text}");
    }

    /// Goal: quantiles that so few values cannot tell are marked, and only those.
    #[test]
    fn few_values_are_marked() {
        let values: Vec<u64> = (1..=50).collect();
        let text = shown(&run_of(&[("response", &values)]));
        for (name, is_marked) in [("p50", false), ("p95", false), ("p99", true), ("p99.99", true), ("max", false)] {
            assert_eq!(row(&text, name).last().is_some_and(|word| word.ends_with('*')), is_marked, "{name}:\n{text}");
        }
        assert_eq!(row(&text, "p50")[1..], ["25", "ns"]);
        assert!(text.contains("* beyond what so few values"), "{text}");
    }

    /// Goal: a run without anything measured says so, and has no made-up numbers.
    #[test]
    fn empty_runs() {
        let text = shown(&run_of_intervals(Vec::new()));
        assert!(text.contains("nothing was measured") && !text.contains("latency"), "{text}");
        let mut warm_up_only = run_of(&[("response", &[5])]);
        warm_up_only.intervals[0].is_warm_up = true;
        assert!(shown(&warm_up_only).contains("nothing was measured"));
        let text = shown(&run_of(&[]));
        assert!(!text.contains("NaN") && !text.contains("published  "), "{text}");
    }

    /// Goal: what the broker wrote is told by message and by octet of payload; that it is not known, as well.
    #[test]
    fn writes_to_disk() {
        let flat = |run: &Run| shown(run).split_whitespace().collect::<Vec<_>>().join(" ");
        let mut run = run_of(&[("response", &[5; 100])]);
        run.intervals[0].counts.published_octets = 100 * 1000;
        assert!(flat(&run).contains("broker CPU, memory and disk not available"));
        let mut check = |disk_octets, write_calls, expected: &str| {
            run.broker = Some(BrokerUse { pid: 7, disk_octets, write_calls, ..BrokerUse::default() });
            assert!(flat(&run).contains(expected), "{}", flat(&run));
        };
        let all = "disk 122 KiB written, 1,250 octets per message, write amplification 1.25; 1,234 write calls";
        check(Some(125_000), Some(1234), all);
        check(Some(0), Some(1234), "disk: nothing written");
        check(None, None, "disk not available: /proc/7/io");
        let counts = Counts { received: 10, ..Counts::default() };
        assert_eq!(DiskUse::of(counts, 50), Some(DiskUse { octets_per_message: 5.0, amplification: None }));
        assert_eq!(DiskUse::of(Counts::default(), 50), None);
    }

    /// Goal: each kind of fault is told, and makes the check line wrong; a refused message as well.
    #[test]
    fn faults_are_told() {
        let mut run = run_of(&[("service", &[5])]);
        assert!(shown(&run).contains("check    all right"));
        run.unchecked.push("whether messages were lost: the run ended before all could have come".to_owned());
        let text = shown(&run);
        assert!(!text.contains("all right") && text.contains("not checked: whether messages were lost"), "{text}");
        run.check = Check { lost: 1, duplicated: 2, reordered: 3, corrupted: 4, ..run.check };
        run.check.totals.refused = 5;
        let text = shown(&run);
        assert!(text.contains("WRONG: 1 LOST, 2 DUPLICATED, 3 REORDERED, 4 CORRUPTED, 5 REFUSED"), "{text}");
    }

    /// Goal: a short last interval does not become the least rate, but counts in the mean.
    #[test]
    fn rates_of_intervals() {
        let mut intervals: Vec<Interval> =
            [4, 8, 6].map(|count| interval_of(0, &[("service", &vec![1; count])])).into_iter().collect();
        let mut last = interval_of(3, &[("service", &[1])]);
        last.seconds = 0.25;
        intervals.push(last);
        let rate = Rate::of(intervals.iter(), |counts| counts.published).expect("measured");
        assert_eq!(rate, Rate { mean: 19.0 / 3.25, median: 6.0, min: 4.0, max: 8.0 });
        assert_eq!(Rate::of([].iter(), |counts| counts.published), None);
    }

    /// Goal: no escape sequences unless they are wanted.
    #[test]
    fn colours() {
        let mut run = run_of(&[]);
        run.check.lost = 1;
        assert!(!text(&run, &Origin::default(), Emphasis::Plain).contains('\x1b'));
        assert!(text(&run, &Origin::default(), Emphasis::Coloured).contains("\x1b[1;31mWRONG: 1 LOST\x1b[0m"));
    }
}
