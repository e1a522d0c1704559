//! `.hlog`: HdrHistogram's log of intervals, format 1.3, with a histogram in its compressed encoding on each line.
//!
//! Values are nanoseconds; the column of maxima is in milliseconds, as the format wants it. Tags name the histogram, and
//! where a file has several runs also scenario, target, wanted rate and round: `response/steady/lepus/5000/0`. Intervals of
//! the warm-up are left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Check, Interval, Recorded, ResultFile, Run, Target, histogram};

const NANOS_PER_MILLISECOND: f64 = 1e6;
const FITS: &str = "a string takes any text";

/// The log of all measured intervals.
pub fn text(file: &ResultFile) -> String {
    let start = file.origin.started_unix_millis;
    let seconds = start as f64 / 1e3;
    let mut text = format!(
        "#[Logged by lepus-perf {}]\n#[Histogram log format version 1.3]\n#[StartTime: {seconds:.3} (seconds since epoch)]\n\
         #[BaseTime: {seconds:.3} (seconds since epoch)]\n\
         #[Values are nanoseconds; Interval_Max is in milliseconds (MaxValueUnitRatio: 1000000.0)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        file.origin.version
    );
    for run in &file.runs {
        let offset = run.started_unix_millis.saturating_sub(start) as f64 / 1e3;
        for interval in run.measured() {
            for (name, recorded) in &interval.histograms {
                let max = recorded.0.max() as f64 / NANOS_PER_MILLISECOND;
                let (begin, length) = (offset + interval.start_seconds, interval.seconds);
                let tag = tag(name, (file.runs.len() > 1).then_some(run));
                writeln!(text, "Tag={tag},{begin:.3},{length:.3},{max:.6},{}", recorded.to_base64()).expect(FITS);
            }
        }
    }
    text
}

fn tag(name: &str, run: Option<&Run>) -> String {
    let mut tag = escaped(name);
    if let Some(run) = run {
        let rate = run.rate.map_or_else(String::new, |rate| rate.to_string());
        for part in [run.scenario.as_str(), run.target.name.as_str(), rate.as_str(), run.round.to_string().as_str()] {
            tag.push('/');
            tag.push_str(&escaped(part));
        }
    }
    tag
}

/// Commas and white space would end a tag; `/` divides ours.
fn escaped(part: &str) -> String {
    let mut text = String::new();
    for c in part.chars() {
        if c.is_whitespace() || c.is_control() || [',', '/', '%', '#', '"'].contains(&c) {
            let mut octets = [0; 4];
            c.encode_utf8(&mut octets).bytes().for_each(|octet| write!(text, "%{octet:02X}").expect(FITS));
        } else {
            text.push(c);
        }
    }
    text
}

fn unescaped(text: &str) -> String {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        if let (b'%', Some(octet)) = (first, code) {
            octets.push(octet);
            rest = &tail[2..];
        } else {
            octets.push(first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// Whether a text looks like a log of intervals.
pub fn is_hlog(text: &str) -> bool {
    text.lines().take(100).any(|line| {
        line.contains("\"StartTimestamp\"") || line.contains("Histogram log format") || line.starts_with("Tag=")
    })
}

/// Reads what [`text`] or another tool has written; `nanos_per_unit` says what a recorded value of 1 means.
///
/// The runs have nothing but histograms. A tag of ours names scenario, target, rate and round; any other tag becomes the
/// target's name, and its histogram has no name.
///
/// # Errors
/// The number of the line, from 1, and what is wrong with it.
pub fn parse(text: &str, nanos_per_unit: f64) -> Result<Vec<Run>, (usize, String)> {
    let mut runs: Vec<Run> = Vec::new();
    let mut start_seconds = 0.0;
    let mut last_line = 1;
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        last_line = number;
        if let Some(time) = line.strip_prefix("#[StartTime:") {
            start_seconds = time.split_whitespace().next().and_then(|time| time.parse().ok()).unwrap_or(0.0);
        }
        if line.is_empty() || line.starts_with('#') || line.starts_with('"') {
            continue;
        }
        let entry = Entry::parse(line, nanos_per_unit).map_err(|reason| (number, reason))?;
        take(&mut runs, entry, start_seconds);
    }
    if runs.is_empty() { Err((last_line, "no histograms in it".to_owned())) } else { Ok(runs) }
}

struct Entry {
    tag: String,
    start_seconds: f64,
    seconds: f64,
    recorded: Recorded,
}

impl Entry {
    fn parse(line: &str, nanos_per_unit: f64) -> Result<Self, String> {
        let (tag, rest) = match line.strip_prefix("Tag=") {
            Some(rest) => rest.split_once(',').ok_or("cut off after the tag")?,
            None => ("", line),
        };
        let fields: Vec<&str> = rest.split(',').collect();
        let &[start, length, max, encoded] = fields.as_slice() else {
            return Err("not a line of a histogram log: start, length, maximum, histogram".to_owned());
        };
        let number = |field: &str| {
            field
                .trim()
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .ok_or(format!("'{field}' is no number"))
        };
        number(max)?;
        let recorded = Recorded::from_base64(encoded.trim())?;
        Ok(Self {
            tag: tag.to_owned(),
            start_seconds: number(start)?,
            seconds: number(length)?,
            recorded: scaled(recorded, nanos_per_unit),
        })
    }
}

/// In nanoseconds, with the bounds of all others.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a latency; longer ones count as the longest"
)]
fn scaled(recorded: Recorded, nanos_per_unit: f64) -> Recorded {
    let mut nanos = Recorded::default();
    if (nanos_per_unit - 1.0).abs() < f64::EPSILON {
        nanos.add(&recorded);
    } else {
        for step in recorded.0.iter_recorded() {
            let value = step.value_iterated_to() as f64 * nanos_per_unit;
            nanos.0.saturating_record_n(value as u64, step.count_at_value());
        }
    }
    nanos
}

fn take(runs: &mut Vec<Run>, entry: Entry, log_start_seconds: f64) {
    let mut parts = entry.tag.split('/').map(unescaped);
    let first = parts.next().unwrap_or_default();
    let is_ours = histogram::ALL.iter().any(|(name, _)| *name == first);
    let rest: Vec<String> = if is_ours { parts.collect() } else { Vec::new() };
    let (histogram, scenario, target, rate, round) = match rest.as_slice() {
        [scenario, target, rate, round] => {
            (first.as_str(), scenario.as_str(), target.clone(), rate.parse().ok(), round.parse().unwrap_or(0))
        }
        _ if is_ours => (first.as_str(), "", String::new(), None, 0),
        _ => ("", "", entry.tag.clone(), None, 0),
    };
    let is_same =
        |run: &Run| run.scenario == scenario && run.target.name == target && run.rate == rate && run.round == round;
    let index = runs.iter().position(is_same).unwrap_or_else(|| {
        runs.push(Run {
            scenario: scenario.to_owned(),
            target: Target { name: target, ..Target::default() },
            round,
            workload: BTreeMap::new(),
            rate,
            seed: 0,
            started_unix_millis: millis(log_start_seconds),
            client_cores: Vec::new(),
            intervals: Vec::new(),
            check: Check::default(),
            broker: None,
            client_cpu_seconds: 0.0,
            client_busy_part: None,
            invalid: Vec::new(),
            warnings: Vec::new(),
            failures: Vec::new(),
            unchecked: Vec::new(),
            phases: Vec::new(),
        });
        runs.len() - 1
    });
    let intervals = &mut runs[index].intervals;
    let is_at = |interval: &Interval| {
        (interval.start_seconds - entry.start_seconds).abs() < 1e-6 && !interval.histograms.contains_key(histogram)
    };
    // Lines of one interval follow each other.
    if !intervals.last().is_some_and(is_at) {
        let (start_seconds, seconds) = (entry.start_seconds, entry.seconds);
        intervals.push(Interval { start_seconds, seconds, ..Interval::default() });
    }
    let last = intervals.last_mut().expect("there is one now");
    last.histograms.insert(histogram.to_owned(), entry.recorded);
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "milliseconds since 1970; 0 where it is none"
)]
fn millis(seconds: f64) -> u64 {
    (seconds * 1e3) as u64
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// Goal: scenario, target, rate, round and each histogram of the measured time come back.
    #[test]
    fn a_log_comes_back() {
        let mut file = sample::two_brokers(2);
        file.runs[0].target.name = "odd, name/100%ü".to_owned();
        let runs = parse(&text(&file), 1.0).expect("our own");
        assert_eq!(runs.len(), 4);
        for (found, right) in runs.iter().zip(&file.runs) {
            assert_eq!(
                (&found.scenario, &found.target.name, found.round),
                (&right.scenario, &right.target.name, right.round)
            );
            assert_eq!((found.rate, found.intervals.len()), (right.rate, right.measured().count()));
            for name in ["response", "service", "send-lag", "confirm"] {
                assert_eq!(found.histogram(name), right.histogram(name), "{name}");
            }
        }
        let one = parse(&text(&sample::one_broker(1.0)), 1.0).expect("our own");
        assert_eq!((one.len(), one[0].target.name.as_str()), (1, ""));
        assert_eq!(one[0].histogram("confirm"), sample::one_broker(1.0).runs[0].histogram("confirm"));
    }

    /// Goal: tags of others, and none, each make a run; values are scaled.
    #[test]
    fn other_tools() {
        let mut recorded = Recorded::default();
        recorded.record(7);
        let encoded = recorded.to_base64();
        let log = format!(
            "#[StartTime: 5.5 (seconds since epoch), Thu Jan 01]\n\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\
             \"Interval_Compressed_Histogram\"\n0.1,1.0,7.0,{encoded}\nTag=A/b,0.1,1.0,7.0,{encoded}\n1.1,1.0,7.0,{encoded}\n"
        );
        assert!(is_hlog(&log));
        let runs = parse(&log, 1e3).expect("well-formed");
        let found: Vec<_> = runs.iter().map(|run| (run.target.name.as_str(), run.intervals.len())).collect();
        assert_eq!(found, [("", 2), ("A/b", 1)]);
        let histogram = runs[0].histogram("").expect("there");
        assert!(histogram.0.equivalent(histogram.0.max(), 7_000) && histogram.0.len() == 2);
        assert_eq!(runs[0].started_unix_millis, 5500);
    }

    /// Goal: damage is told by line.
    #[test]
    fn refusals() {
        let check = |text: &str, line: usize, expected: &str| {
            let (number, reason) = parse(text, 1.0).expect_err("refused");
            assert!(number == line && reason.contains(expected), "{number}: {reason}");
        };
        check("#[x]\n", 1, "no histograms");
        check("Tag=a\n", 1, "cut off");
        check("#[x]\n1,2,3\n", 2, "not a line");
        check("#[x]\n1,2,3,HISTFAAAA\n", 2, "not base64");
        check("1,2,3,AAAA\n", 1, "not an encoded histogram");
        check("1,x,3,AAAA\n", 1, "not an encoded");
        let text = text(&sample::one_broker(1.0));
        let cut = &text[..text.len() - 40];
        check(cut, cut.lines().count(), "not ");
    }
}
