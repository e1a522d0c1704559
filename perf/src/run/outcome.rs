//! What a run comes to in its end: everything that was seen of it as one [`Run`], with what there is to say of it.

use crate::engine::check::Evidence;
use crate::engine::client::Product;
use crate::engine::recorder::Recordings;
use crate::engine::unchecked;
use crate::engine::worker::Report;
use crate::interrupt;
use crate::machine::{broker_process, own_cores};
use crate::result::{BrokerUse, Check, Counts, Interval, Run, Target, histogram};
use crate::run::{Measurement, cpu_seconds, place, written};

/// A broker that has written less than this part of persistent messages' octets does not keep them on disk.
const WRITTEN_PART_MIN: f64 = 0.9;

impl Measurement<'_> {
    /// Everything as one.
    pub fn result(mut self, is_complete: bool, failures: Vec<String>) -> Run {
        let options = &self.shared.options;
        let mut rest = Recordings::default();
        for snapshot in std::mem::take(&mut self.snapshots).into_values().flatten() {
            rest.add(snapshot.recordings);
        }
        for report in &mut self.reports {
            rest.add(std::mem::take(&mut report.recordings));
        }
        self.totals.counts += rest.counts;
        self.totals.redelivered += rest.redelivered;
        self.pace.add_late(&rest);
        // The wait for what never came was not part of the work.
        while self.has_stalled && self.intervals.len() > 1 && self.intervals.last().is_some_and(is_empty) {
            self.intervals.pop();
        }
        if let Some(last) = self.intervals.last_mut() {
            for (name, recorded) in rest.histograms {
                last.histograms.entry(name).or_default().add(&recorded);
            }
        }
        let sum = |of: fn(&Report) -> u64| self.reports.iter().map(of).sum::<u64>();
        let (unsent, unanswered) = (sum(|report| report.unsent), sum(|report| report.unanswered));
        let mut run = Run {
            scenario: self.labels.scenario.clone(),
            target: self.target(),
            round: self.labels.round,
            workload: options.workload(),
            rate: options.mean_rate(),
            seed: options.seed,
            started_unix_millis: self.started_unix_millis,
            client_cores: options.cores.as_ref().map(|cores| cores.0.clone()).unwrap_or_default(),
            broker: self.broker_use(),
            client_cpu_seconds: self.load_seconds(),
            client_busy_part: self.pace.busy_part(),
            phases: std::mem::take(&mut self.phases),
            invalid: Vec::new(),
            warnings: Vec::new(),
            check: Check::default(),
            intervals: Vec::new(),
            failures,
            unchecked: unchecked::reasons(options, is_complete),
        };
        if self.has_stalled {
            run.failures.push(self.stall());
        }
        if let Some(reason) = &self.ended_early {
            run.failures.push(format!("ended early: {reason}"));
        } else if unanswered > 0 {
            run.failures.push(format!("{unanswered} publishes or commits were not answered by the broker"));
        }
        if unsent > 0 && (interrupt::is_requested() || self.ended_early.is_some()) {
            self.warnings.push(format!("{unsent} messages were due and not sent yet when the run was ended"));
        } else if unsent > 0 {
            run.failures.push(format!(
                "{unsent} messages should have been sent and were not: the broker did not take them in time"
            ));
        }
        self.warn_of_work();
        self.forgive_foreign();
        run.intervals = std::mem::take(&mut self.intervals);
        run.invalid = self.pace.invalid(options);
        let evidence = Evidence {
            options,
            topology: &self.shared.topology,
            counts: self.totals.counts,
            redelivered: self.totals.redelivered,
            reports: std::mem::take(&mut self.reports),
            is_complete,
        };
        let finding = evidence.check();
        run.check = finding.check;
        run.unchecked.extend(unchecked::refused(&finding));
        if finding.came_refused > 0 {
            self.warnings.push(format!(
                "{} messages came though the broker had refused or returned them: it may, as one of several queues refuses",
                finding.came_refused
            ));
        }
        self.warn(&run);
        run.warnings = std::mem::take(&mut self.warnings);
        run
    }

    fn target(&self) -> Target {
        let Product { product, version, platform } = self.product.clone();
        let own_name = if product.is_empty() { "unknown broker".to_owned() } else { format!("{product} {version}") };
        let uris: Vec<String> = self.shared.options.uri.iter().map(ToString::to_string).collect();
        Target {
            name: self.labels.target_name.clone().unwrap_or(own_name),
            uri: uris.join(" "),
            product,
            version,
            platform,
            cores: self.broker_pid.map(broker_process::cores).unwrap_or_default(),
        }
    }

    fn broker_use(&self) -> Option<BrokerUse> {
        let resident = self.intervals.iter().filter_map(|interval| interval.broker_resident_octets).max();
        let from = self.measured_from.and_then(|sample| sample.broker);
        Some(BrokerUse {
            pid: self.broker_pid?,
            cpu_seconds: cpu_seconds(from, self.last.broker)?,
            resident_octets_before: self.resident_octets_before,
            resident_octets_max: resident.unwrap_or(self.resident_octets_before),
            disk_octets: written(from, self.last.broker).map(|written| written.disk_octets),
            write_calls: written(from, self.last.broker).map(|written| written.calls),
        })
    }

    fn load_seconds(&self) -> f64 {
        cpu_seconds(self.measured_from.and_then(|sample| sample.load), self.last.load).unwrap_or(0.0)
    }

    /// Says how many messages consumers had not worked at when the run ended.
    fn warn_of_work(&mut self) {
        let unworked: u64 = self.reports.iter().map(|report| report.unworked).sum();
        if unworked > 0 {
            self.warnings.push(format!(
                "{unworked} messages waited still to be worked at in the end: their latencies are what they would have become"
            ));
        }
    }

    /// What a reader should know.
    fn warn(&mut self, run: &Run) {
        let client_cores = if run.client_cores.is_empty() { own_cores() } else { run.client_cores.clone() };
        self.warnings.extend(place::warning(&client_cores, &run.target.cores));
        self.warnings.extend(self.pace.warnings(&self.shared.options, run));
        let send_lag = run.histogram(histogram::SEND_LAG).unwrap_or_default();
        let late_millis = send_lag.0.value_at_quantile(0.99) as f64 / 1e6;
        if run.invalid.is_empty() && !send_lag.is_empty() && late_millis > self.shared.options.send_lag_limit {
            self.warnings.push(format!(
                "the broker held publishers up (full socket, confirms, connection.blocked): 1 % of the messages were sent \
                 {late_millis:.1} ms late or more, which response times include"
            ));
        }
        if self.shared.endpoints.len() > 1 && self.broker_pid.is_none() {
            self.warnings
                .push("the brokers' CPU time and memory are not reported: they are several processes".to_owned());
        }
        self.warnings.extend(unwritten(run, self.shared.options.is_persistent()));
        let blocked = self.shared.totals().blocked;
        if blocked > 0 {
            self.warnings.push(format!("the broker has blocked publishers {blocked} times (connection.blocked)"));
        }
        if interrupt::is_requested() {
            self.warnings.push("interrupted".to_owned());
        }
    }
}

/// Persistent messages of which the broker has hardly written anything.
fn unwritten(run: &Run, is_persistent: bool) -> Option<String> {
    let part = run.disk_use()?.amplification.filter(|part| is_persistent && *part < WRITTEN_PART_MIN)?;
    Some(format!(
        "the messages are persistent, and the broker wrote {:.0} % of their octets to disk meanwhile: what it confirms is not \
         there, unless it was acknowledged before",
        100.0 * part
    ))
}

fn is_empty(interval: &Interval) -> bool {
    interval.counts == Counts::default()
}
