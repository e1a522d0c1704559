//! Made-up runs, for tests of what shows and judges them.

use std::collections::BTreeMap;

use crate::result::{Check, Counts, Interval, Recorded, Run, Target};

/// A measured second with these latencies, in nanoseconds, by histogram; as many messages as the first one has.
pub fn interval_of(start: u32, histograms: &[(&str, &[u64])]) -> Interval {
    let messages = histograms.first().map_or(0, |(_, values)| values.len() as u64);
    let recorded = |values: &[u64]| {
        let mut recorded = Recorded::default();
        values.iter().for_each(|&nanos| recorded.record(nanos));
        recorded
    };
    Interval {
        start_seconds: f64::from(start),
        seconds: 1.0,
        counts: Counts { published: messages, received: messages, ..Counts::default() },
        histograms: histograms.iter().map(|&(name, values)| (name.to_owned(), recorded(values))).collect(),
        ..Interval::default()
    }
}

/// A run of one such second.
pub fn run_of(histograms: &[(&str, &[u64])]) -> Run {
    run_of_intervals(vec![interval_of(0, histograms)])
}

/// A run without faults against `lepus`, as scenario `test`.
pub fn run_of_intervals(intervals: Vec<Interval>) -> Run {
    let mut totals = Counts::default();
    intervals.iter().for_each(|interval| totals += interval.counts);
    let target = Target {
        name: "lepus".to_owned(),
        uri: "amqp://guest@127.0.0.1:5672/%2F".to_owned(),
        product: "Lepus".to_owned(),
        version: "0.1.0".to_owned(),
        ..Target::default()
    };
    Run {
        scenario: "test".to_owned(),
        target,
        round: 0,
        workload: BTreeMap::new(),
        rate: None,
        seed: 1,
        started_unix_millis: 0,
        client_cores: Vec::new(),
        intervals,
        check: Check { totals, ..Check::default() },
        broker: None,
        client_cpu_seconds: 0.0,
        client_busy_part: None,
        invalid: Vec::new(),
        warnings: Vec::new(),
        failures: Vec::new(),
        unchecked: Vec::new(),
        phases: Vec::new(),
    }
}
