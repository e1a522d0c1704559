//! Whether a run still goes on, and what there is to say where it does not.

use std::time::Duration;

use crate::engine::check::under_way;
use crate::run::Measurement;

/// How long nothing may be received while messages are under way; then they are lost. How long nothing at all may happen in a
/// run that only a count ends.
pub const STALL_MAX: Duration = Duration::from_secs(10);
/// The same, where the broker has told publishers to stop.
const BLOCKED_MAX: Duration = Duration::from_secs(30);

impl Measurement<'_> {
    /// For how long nothing was published, confirmed, received or finished, although something was due.
    pub fn stalled_for(&mut self) -> Duration {
        let totals = self.shared.totals();
        let done = totals.published + totals.received + totals.operations;
        let done = done + totals.answered + totals.not_taken + totals.sources_finished;
        let now = self.shared.clock.nanos();
        if done != self.progress.0 {
            self.progress = (done, now);
        }
        let next_due = if self.shared.is_stopped() { 0 } else { totals.next_due };
        Duration::from_nanos(now - self.progress.1.max(next_due).min(now))
    }

    /// Without producers, until Ctrl-C: that nothing comes is no fault.
    pub fn reads_for_ever(&self) -> bool {
        self.shared.options.producers == 0 && self.shared.options.count.is_none()
    }

    /// How long that may be.
    pub fn stall_max(&self) -> Duration {
        let (options, totals) = (&self.shared.options, self.shared.totals());
        let stall_max = if totals.blocked > totals.unblocked { BLOCKED_MAX } else { STALL_MAX };
        let polling = Duration::from_micros(options.polling_interval);
        stall_max.saturating_add(options.processing().unwrap_or_default().saturating_mul(2)).saturating_add(polling)
    }

    /// What was missing when the run was ended because nothing went on.
    pub fn stall(&self) -> String {
        let (options, totals) = (&self.shared.options, self.shared.totals());
        let what = match options.count {
            Some(count) if options.producers == 0 => format!("{} of {count} messages received", totals.received),
            Some(count) if options.workload.is_churn() => format!("{} of {count} operations done", totals.operations),
            Some(count) => format!("{} of {count} messages published", totals.published),
            None => format!("{} messages published", totals.published),
        };
        let left = under_way(totals, options, &self.shared.topology);
        format!("nothing went on for {} s, so the run was ended: {what}, {left} under way", self.stall_max().as_secs())
    }

    /// Queues that were filled by others than this program hold nothing that could be checked.
    pub fn forgive_foreign(&mut self) {
        let foreign = self.reports.iter().map(|report| report.corrupted).sum::<u64>();
        let is_ours = self.reports.iter().any(|report| !report.lanes.is_empty());
        if self.shared.options.producers == 0 && foreign > 0 && !is_ours {
            self.reports.iter_mut().for_each(|report| report.corrupted = 0);
            self.warnings
                .push(format!("{foreign} messages are not from lepus-perf: neither content nor order was checked"));
        }
    }
}
