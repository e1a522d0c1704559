//! The report: one page that holds everything it shows and loads nothing.
//!
//! This module makes the numbers; `report.js` draws them. Everything that users or brokers have named travels as JSON and is set
//! as text, never as HTML.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::compare::column::{Column, titles};
use crate::compare::{self, Table};
use crate::plot;
use crate::result::{Counts, Interval, Origin, Recorded, Run, histogram};

/// Points of time that are drawn of a run; intervals of longer ones are added up.
const MOMENTS_MAX: usize = 600;
/// Rows of the heat map to each tenfold latency.
const HEAT_ROWS_PER_DECADE: f64 = 12.0;

/// The whole page.
pub fn page(columns: &[Column], origins: &[(String, Origin)], tables: &[Table]) -> String {
    let data = data(columns, origins, tables).to_string();
    // Within a script nothing but `</script` and `<!--` ends the text.
    let data = data.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.push_str("<link rel=\"icon\" href=\"data:,\">\n<title>lepus-perf report</title>\n<style>\n");
    page.push_str(include_str!("report.css"));
    page.push_str("</style>\n</head>\n<body>\n");
    page.push_str(include_str!("report.html"));
    page.push_str("<script type=\"application/json\" id=\"data\">");
    page.push_str(&data);
    page.push_str("</script>\n<script>\n\"use strict\";\n(() => {\n");
    for script in [include_str!("chart.js"), include_str!("report.js")] {
        page.push_str(script);
    }
    page.push_str("})();\n</script>\n</body>\n</html>\n");
    page
}

fn data(columns: &[Column], origins: &[(String, Origin)], tables: &[Table]) -> Json {
    let all: Vec<&Column> = columns.iter().collect();
    let titles = titles(&all);
    let mut names: Vec<String> = columns.iter().flat_map(Column::histogram_names).collect();
    names.sort_by_key(|name| (crate::compare::column::rank(name), name.clone()));
    names.dedup();
    let meaning = |name: &str| histogram::ALL.iter().find(|(own, _)| *own == name).map_or("", |(_, meaning)| *meaning);
    let column = |(column, title): (&Column, &String)| {
        let lines: BTreeMap<&str, Vec<(f64, f64)>> = names
            .iter()
            .map(|name| (name.as_str(), plot::points(column, name)))
            .filter(|(_, points)| !points.is_empty())
            .map(|(name, points)| (name, points.into_iter().map(|(x, nanos)| (rounded(x, 1e5), nanos)).collect()))
            .collect();
        json!({
            "title": title, "file": column.file, "scenario": column.scenario, "target": column.target, "rate": column.rate,
            "lines": lines,
            "runs": column.runs().iter().map(|run| run_data(run, &names)).collect::<Vec<_>>(),
        })
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "histograms": names.iter().map(|name| json!({ "name": name, "meaning": meaning(name) })).collect::<Vec<_>>(),
        "columns": columns.iter().zip(&titles).map(column).collect::<Vec<_>>(),
        "origins": origins.iter().map(|(file, origin)| json!({ "file": file, "origin": origin })).collect::<Vec<_>>(),
        "comparison": compare::json_of(tables, &[]),
    })
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

fn run_data(run: &Run, names: &[String]) -> Json {
    let moments = moments(&run.intervals);
    let series = |of: &dyn Fn(&Interval) -> Json| moments.iter().map(of).collect::<Vec<Json>>();
    let rate = |of: fn(&Counts) -> u64| {
        let is_any = moments.iter().any(|moment| of(&moment.counts) > 0);
        let each = |moment: &Interval| {
            if moment.seconds > 0.0 {
                json!(rounded(of(&moment.counts) as f64 / moment.seconds, 10.0))
            } else {
                Json::Null
            }
        };
        if is_any { json!(series(&each)) } else { Json::Null }
    };
    let latencies: BTreeMap<&str, Json> = names
        .iter()
        .filter(|name| moments.iter().any(|moment| moment.histograms.contains_key(*name)))
        .map(|name| (name.as_str(), latencies(&moments, name)))
        .collect();
    json!({
        "round": run.round, "target": run.target, "scenario": run.scenario, "workload": run.workload, "rate": run.rate,
        "seed": run.seed, "started": run.started_unix_millis, "client_cores": run.client_cores, "check": run.check,
        "broker": run.broker, "client_cpu_seconds": run.client_cpu_seconds,
        "client_busy_part": run.client_busy_part, "invalid": run.invalid,
        "warnings": run.warnings, "failures": run.failures, "unchecked": run.unchecked, "has_faults": run.has_faults(),
        "start": series(&|moment| json!(rounded(moment.start_seconds, 1e3))),
        "seconds": series(&|moment| json!(rounded(moment.seconds, 1e3))),
        "warm_up": run.intervals.iter().filter(|interval| interval.is_warm_up).map(|interval| interval.start_seconds + interval.seconds).fold(0.0, f64::max),
        "published": rate(|counts| counts.published), "confirmed": rate(|counts| counts.confirmed),
        "received": rate(|counts| counts.received), "operations": rate(|counts| counts.operations),
        "backlog": series(&|moment| json!(moment.backlog)),
        "cpu": series(&|moment| json!(moment.broker_cpu_seconds.filter(|_| moment.seconds > 0.0).map(|used| rounded(used / moment.seconds, 1e4)))),
        "resident": series(&|moment| json!(moment.broker_resident_octets)),
        "disk": series(&|moment| json!(moment.broker_disk_octets.filter(|_| moment.seconds > 0.0).map(|octets| rounded(octets as f64 / moment.seconds, 1.0)))),
        "latencies": latencies,
    })
}

/// Intervals, added up so that there are not too many. Warm-up and measured ones are not mixed.
fn moments(intervals: &[Interval]) -> Vec<Interval> {
    let together = intervals.len().div_ceil(MOMENTS_MAX).max(1);
    let mut moments = Vec::new();
    for part in intervals.chunk_by(|a, b| a.is_warm_up == b.is_warm_up) {
        moments.extend(part.chunks(together).map(sum));
    }
    moments
}

fn sum(intervals: &[Interval]) -> Interval {
    let mut all = intervals[0].clone();
    for interval in &intervals[1..] {
        all.seconds += interval.seconds;
        all.counts += interval.counts;
        all.backlog = all.backlog.max(interval.backlog);
        all.broker_cpu_seconds = all.broker_cpu_seconds.zip(interval.broker_cpu_seconds).map(|(sum, more)| sum + more);
        all.broker_resident_octets = all.broker_resident_octets.max(interval.broker_resident_octets);
        let sum = |own: Option<u64>, more: Option<u64>| own.zip(more).map(|(own, more)| own + more);
        all.broker_disk_octets = sum(all.broker_disk_octets, interval.broker_disk_octets);
        all.broker_write_calls = sum(all.broker_write_calls, interval.broker_write_calls);
        for (name, recorded) in &interval.histograms {
            all.histograms.entry(name.clone()).or_default().add(recorded);
        }
    }
    all
}

/// Quantiles of each moment and the heat map: for each moment pairs of row and messages; row 0 begins at 1 ns.
fn latencies(moments: &[Interval], name: &str) -> Json {
    let recorded = |moment: &Interval| moment.histograms.get(name).filter(|recorded| !recorded.is_empty()).cloned();
    let all: Vec<Option<Recorded>> = moments.iter().map(recorded).collect();
    let each =
        |of: &dyn Fn(&Recorded) -> u64| all.iter().map(|recorded| json!(recorded.as_ref().map(of))).collect::<Vec<_>>();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "twelve decades at most")]
    let row = |nanos: u64| ((nanos.max(1) as f64).log10() * HEAT_ROWS_PER_DECADE) as u32;
    let heat = |recorded: &Option<Recorded>| {
        let mut rows: BTreeMap<u32, u64> = BTreeMap::new();
        for step in recorded.iter().flat_map(|recorded| recorded.0.iter_recorded()) {
            *rows.entry(row(step.value_iterated_to())).or_default() += step.count_at_value();
        }
        rows.into_iter().collect::<Vec<_>>()
    };
    json!({
        "count": each(&|recorded| recorded.0.len()),
        "p50": each(&|recorded| recorded.0.value_at_quantile(0.5)),
        "p99": each(&|recorded| recorded.0.value_at_quantile(0.99)),
        "max": each(&|recorded| recorded.0.max()),
        "heat": all.iter().map(heat).collect::<Vec<_>>(),
        "rows_per_decade": HEAT_ROWS_PER_DECADE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::sample;

    /// Goal: what users have named cannot end the script or become HTML; nothing is loaded from elsewhere.
    #[test]
    fn the_page_is_closed() {
        let file = sample::two_brokers(2);
        let mut columns = Column::of_runs("a</script><script>alert(1)</script>", file.runs);
        columns[0].target = "<img src=x onerror=alert(1)>".to_owned();
        let tables = compare::tables(&columns, None).expect("comparable");
        let page = page(&columns, &[("<b>".to_owned(), file.origin)], &tables);
        assert!(!page.contains("<img") && !page.contains("<script>alert") && !page.contains('\u{2028}'));
        assert_eq!(page.matches("</script>").count(), 2);
        for foreign in ["http://", "https://", "src=", "@import", "url("] {
            let own = page.split("id=\"data\"").next().expect("there is a first part");
            assert!(!own.contains(foreign), "{foreign}");
        }
    }

    /// Goal: the data of the page are those of the run.
    #[test]
    fn the_data() {
        let run = sample::run("lepus", "Lepus", 2e5, 0);
        let told = |sentence: &str| vec![sentence.to_owned()];
        let run = Run { failures: told("it ended early"), unchecked: told("whether all came"), ..run };
        let data = run_data(&run, &["response".to_owned()]);
        assert_eq!(
            (&data["failures"][0], &data["unchecked"][0]),
            (&json!("it ended early"), &json!("whether all came"))
        );
        assert_eq!(data["start"].as_array().map(Vec::len), Some(20));
        let max = run.intervals.iter().map(|interval| interval.histograms["response"].0.max()).max();
        let found =
            data["latencies"]["response"]["max"].as_array().expect("an array").iter().filter_map(Json::as_u64).max();
        assert_eq!(found, max);
        let heat: u64 = data["latencies"]["response"]["heat"][5]
            .as_array()
            .expect("an array")
            .iter()
            .filter_map(|pair| pair[1].as_u64())
            .sum();
        assert_eq!(heat, run.intervals[5].histograms["response"].0.len());
    }

    /// Goal: long runs are drawn with few points, and nothing of them is lost.
    #[test]
    fn long_runs_are_added_up() {
        let interval = |index: u32| Interval {
            start_seconds: f64::from(index),
            seconds: 1.0,
            is_warm_up: index < 5,
            counts: Counts { received: 2, ..Counts::default() },
            ..Interval::default()
        };
        let intervals: Vec<Interval> = (0..5000).map(interval).collect();
        let moments = moments(&intervals);
        assert!(moments.len() <= MOMENTS_MAX + 1, "{}", moments.len());
        assert_eq!(moments.iter().map(|moment| moment.counts.received).sum::<u64>(), 10_000);
        assert!(moments[0].is_warm_up && (moments[0].seconds - 5.0).abs() < 1e-9 && !moments[1].is_warm_up);
    }
}
