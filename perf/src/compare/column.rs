//! What is compared: the rounds of one scenario against one target at one wanted rate, of one file; or the distribution that
//! a file of another tool holds.

use std::fs;
use std::path::Path;

use crate::result::hgrm::Distribution;
use crate::result::{FileError, Origin, Recorded, ResultFile, Run, histogram, hlog};
use crate::units::short_rate_text;

/// One column of tables, one line of plots.
#[derive(Clone, Debug)]
pub struct Column {
    /// As it is called in titles: the path as given, without the extension.
    pub file: String,
    /// Empty where the file does not say.
    pub scenario: String,
    /// Name of the broker; empty where the file does not say.
    pub target: String,
    /// The wanted rate, where the loop was open and the file says so.
    pub rate: Option<f64>,
    /// Where its numbers come from.
    pub source: Source,
}

/// What is known.
#[derive(Clone, Debug)]
pub enum Source {
    /// Rounds, at least one.
    Runs(Vec<Run>),
    /// Quantiles only.
    Distribution(Distribution),
}

/// What values of other tools' files mean, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct ForeignUnits {
    /// Of `.hgrm` files.
    pub hgrm_nanos: f64,
    /// Of `.hlog` files.
    pub hlog_nanos: f64,
}

impl Default for ForeignUnits {
    fn default() -> Self {
        Self { hgrm_nanos: 1e6, hlog_nanos: 1.0 }
    }
}

impl Column {
    /// Groups runs into columns, in the order of their first appearance.
    pub fn of_runs(file: &str, runs: Vec<Run>) -> Vec<Self> {
        let mut columns: Vec<Self> = Vec::new();
        for run in runs {
            let is_same = |column: &&mut Self| {
                column.scenario == run.scenario && column.target == run.target.name && column.rate == run.rate
            };
            if let Some(Self { source: Source::Runs(rounds), .. }) = columns.iter_mut().find(is_same) {
                rounds.push(run);
                continue;
            }
            columns.push(Self {
                file: file.to_owned(),
                scenario: run.scenario.clone(),
                target: run.target.name.clone(),
                rate: run.rate,
                source: Source::Runs(vec![run]),
            });
        }
        columns
    }

    /// The rounds; none where there is only a distribution.
    pub fn runs(&self) -> &[Run] {
        match &self.source {
            Source::Runs(runs) => runs,
            Source::Distribution(_) => &[],
        }
    }

    /// The wanted rate in words.
    pub fn rate_text(&self) -> String {
        let is_trace = self.runs().iter().any(|run| run.workload.contains_key("trace"));
        match self.rate {
            Some(rate) => format!("{}/s", short_rate_text(rate)),
            None if is_trace => "trace".to_owned(),
            None => "unpaced".to_owned(),
        }
    }

    /// Names of the histograms that are not empty; the empty name stands for one that the file does not name.
    pub fn histogram_names(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.source {
            Source::Distribution(distribution) => vec![distribution.name.clone()],
            Source::Runs(runs) => runs
                .iter()
                .flat_map(Run::measured)
                .flat_map(|interval| &interval.histograms)
                .filter(|(_, recorded)| !recorded.is_empty())
                .map(|(name, _)| name.clone())
                .collect(),
        };
        names.sort_by_key(|name| (rank(name), name.clone()));
        names.dedup();
        names
    }

    /// The name under which this column has a histogram: its own, or none where the file does not name it.
    pub fn own_name<'a>(&self, name: &'a str) -> Option<&'a str> {
        let names = self.histogram_names();
        [name, ""].into_iter().find(|wanted| names.iter().any(|own| own == wanted))
    }

    /// All rounds together; `None` also where there is only a distribution.
    pub fn histogram(&self, name: &str) -> Option<Recorded> {
        let own = self.own_name(name)?;
        let mut all: Option<Recorded> = None;
        for recorded in self.runs().iter().filter_map(|run| run.histogram(own)) {
            all.get_or_insert_default().add(&recorded);
        }
        all
    }
}

/// The place of a histogram's name in [`histogram::ALL`].
pub fn rank(name: &str) -> usize {
    histogram::ALL.iter().position(|(known, _)| *known == name).unwrap_or(histogram::ALL.len())
}

/// The histogram to show where none is asked for: the first by its worth ([`histogram::by_worth`]) that all columns have, else
/// of any other name; the empty name where none of them names it. `None` where they have none in common.
pub fn best_common(columns: &[&Column]) -> Option<String> {
    let mut runs = columns.iter().flat_map(|column| column.runs()).peekable();
    let is_about_round_trips = runs.peek().is_some() && runs.all(Run::is_about_round_trips);
    let known: Vec<&str> = histogram::by_worth(is_about_round_trips).collect();
    let worth = |name: &str| known.iter().position(|known| *known == name).unwrap_or(known.len());
    let mut names: Vec<String> = columns.iter().flat_map(|column| column.histogram_names()).collect();
    names.sort_by_key(|name| (name.is_empty(), worth(name), name.clone()));
    names.into_iter().find(|name| columns.iter().all(|column| column.own_name(name).is_some()))
}

/// Without directories.
fn name_of(file: &str) -> String {
    Path::new(file).file_name().map_or_else(|| file.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The shortest titles that tell the columns apart: by target, by file, by rate, by scenario, or by several of them.
pub fn titles(columns: &[&Column]) -> Vec<String> {
    let mut files: Vec<&str> = columns.iter().map(|column| column.file.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    let mut names: Vec<String> = files.iter().map(|file| name_of(file)).collect();
    names.sort();
    names.dedup();
    let are_names_distinct = names.len() == files.len();
    let part = |column: &Column, which: char| match which {
        't' => column.target.clone(),
        'f' => {
            if are_names_distinct {
                name_of(&column.file)
            } else {
                column.file.clone()
            }
        }
        's' => column.scenario.clone(),
        _ => column.rate_text(),
    };
    let join = |column: &Column, parts: &str| {
        let parts: Vec<String> =
            parts.chars().map(|which| part(column, which)).filter(|text| !text.is_empty()).collect();
        parts.join(" ")
    };
    for parts in ["t", "f", "r", "s", "ft", "fr", "fs", "tr", "ts", "sr", "ftr", "fts", "fsr", "tsr", "ftsr"] {
        let titles: Vec<String> = columns.iter().map(|column| join(column, parts)).collect();
        let mut distinct = titles.clone();
        distinct.sort();
        distinct.dedup();
        if distinct.len() == titles.len() && !titles.iter().any(String::is_empty) {
            return titles;
        }
    }
    columns.iter().enumerate().map(|(index, column)| format!("{} #{}", join(column, "ft"), index + 1)).collect()
}

/// Reads a file of any kind that is known: a result (JSON), a log of intervals (`.hlog`), a distribution (`.hgrm`).
///
/// # Errors
/// Where it cannot be read, or is none of them.
pub fn load(path: &Path, units: ForeignUnits) -> Result<(Vec<Column>, Option<Origin>), FileError> {
    let octets = fs::read(path).map_err(|error| FileError::whole(path, error.to_string()))?;
    let text = String::from_utf8(octets).map_err(|_| {
        FileError::whole(path, "neither a result of lepus-perf nor an .hlog or .hgrm file: it is not text")
    })?;
    let name = path.with_extension("").to_string_lossy().into_owned();
    let is_json = |text: &str| text.starts_with(['{', '[']) || path.extension().is_some_and(|end| end == "json");
    if is_json(text.trim_start()) {
        let ResultFile { origin, runs, .. } = ResultFile::from_json(&text, path)?;
        return Ok((Column::of_runs(&name, runs), Some(origin)));
    }
    let fault = |(line, reason): (usize, String)| FileError::at(path, line, reason);
    if hlog::is_hlog(&text) || path.extension().is_some_and(|end| end == "hlog") {
        return Ok((Column::of_runs(&name, hlog::parse(&text, units.hlog_nanos).map_err(fault)?), None));
    }
    let distribution = Distribution::parse(&text, units.hgrm_nanos).map_err(fault)?;
    let column = Column {
        file: name,
        scenario: String::new(),
        target: String::new(),
        rate: None,
        source: Source::Distribution(distribution),
    };
    Ok((vec![column], None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::sample;
    use crate::test_runs::run_of;

    #[test]
    fn rounds_are_one_column() {
        let columns = Column::of_runs("a", sample::two_brokers(3).runs);
        assert_eq!(columns.iter().map(|column| column.runs().len()).collect::<Vec<_>>(), [3, 3]);
        let all: Vec<&Column> = columns.iter().collect();
        assert_eq!(titles(&all), ["lepus", "rabbitmq"]);
        assert_eq!(best_common(&all).as_deref(), Some("response"));
        let merged = columns[0].histogram("service").expect("there");
        assert_eq!(
            merged.0.len(),
            columns[0].runs().iter().map(|run| run.histogram("service").map_or(0, |h| h.0.len())).sum::<u64>()
        );
    }

    /// Goal: what a reader wants to know first is shown first: of RPC and churn the round trip, of messages their response time,
    /// and never how late the load generator was where there is something else. A trace is no closed loop.
    #[test]
    fn the_best_histogram() {
        let column = |workload: &[(&str, &str)], names: &[&str]| {
            let names: Vec<(&str, &[u64])> = names.iter().map(|name| (*name, &[5_u64][..])).collect();
            let mut run = run_of(&names);
            run.workload = workload.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Column::of_runs("a", vec![run]).remove(0)
        };
        let all = ["response", "service", "send-lag", "confirm", "round-trip"];
        for (workload, names, expected) in [
            (&[][..], &all[..], "response"),
            (&[("workload", "rpc"), ("rate", "5")], &all, "round-trip"),
            (&[("workload", "queue-churn")], &["round-trip"], "round-trip"),
            (&[("workload", "get")], &["service", "round-trip"], "round-trip"),
            (&[("workload", "get"), ("rate", "5")], &all, "response"),
            (&[], &["send-lag", "confirm"], "confirm"),
        ] {
            let column = column(workload, names);
            assert_eq!(best_common(&[&column]).as_deref(), Some(expected), "{workload:?} {names:?}");
        }
        assert_eq!(column(&[("trace", "x.csv")], &all).rate_text(), "trace");
        assert_eq!(column(&[], &all).rate_text(), "unpaced");
    }

    #[test]
    fn titles_tell_apart() {
        let column = |file: &str, target: &str, rate| Column {
            file: file.to_owned(),
            scenario: "s".to_owned(),
            target: target.to_owned(),
            rate,
            source: Source::Runs(vec![sample::run("x", "Lepus", 1e5, 0)]),
        };
        let check = |columns: [Column; 2], expected: [&str; 2]| assert_eq!(titles(&columns.each_ref()), expected);
        check([column("a", "l", None), column("b", "l", None)], ["a", "b"]);
        check([column("a", "l", Some(1e4)), column("a", "l", None)], ["10.0k/s", "unpaced"]);
        check([column("x/a", "l", None), column("y/b", "l", None)], ["a", "b"]);
        check([column("x/a", "l", None), column("y/a", "l", None)], ["x/a", "y/a"]);
        check([column("a", "l", None), column("a", "l", None)], ["a l #1", "a l #2"]);
    }
}
