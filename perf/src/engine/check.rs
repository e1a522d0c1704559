//! Whether everything that was sent was received once, in order and undamaged.

use std::collections::BTreeMap;

use crate::engine::Totals;
use crate::engine::sequence::{self, Faults, Lane, NotTaken, Progression, Readers, nothing_came};
use crate::engine::topology::Topology;
use crate::engine::worker::Report;
use crate::options::{RunOptions, Workload};
use crate::result::{Check, Counts};

/// What is to be brought together.
pub struct Evidence<'r> {
    /// What was asked for.
    pub options: &'r RunOptions,
    /// What was declared.
    pub topology: &'r Topology,
    /// What was counted from the first message to the last.
    pub counts: Counts,
    /// Messages that came again.
    pub redelivered: u64,
    /// What the threads have seen.
    pub reports: Vec<Report>,
    /// Whether all was awaited that could come: else what is missing is not lost.
    pub is_complete: bool,
}

/// What came of it.
pub struct Finding {
    /// The verdict.
    pub check: Check,
    /// Messages that came though the broker had not taken them: no fault.
    pub came_refused: u64,
    /// Messages that were not taken, among which nobody can tell whether another one is lost.
    pub undecided: u64,
}

impl Evidence<'_> {
    /// Brings it together.
    pub fn check(self) -> Finding {
        let Self { options, topology, counts, redelivered, reports, is_complete } = self;
        let mut published: BTreeMap<usize, u64> = BTreeMap::new();
        let mut views: BTreeMap<(usize, usize), Vec<Lane>> = BTreeMap::new();
        let (mut faults, mut reply_faults) = (Faults::default(), Faults::default());
        let (mut is_by_key, mut replies) = (false, Vec::new());
        let (mut refusals, all_taken) = (BTreeMap::<usize, NotTaken>::new(), NotTaken::default());
        for report in reports {
            replies.extend(report.replies);
            faults.foreign += report.corrupted;
            published.extend(report.published.iter().map(|&(index, count)| (usize::from(index), count)));
            refusals.extend(report.not_taken.into_iter().map(|(index, not_taken)| (usize::from(index), not_taken)));
            for ((queue, producer), lane) in report.lanes {
                // Where a trace has the keys, nobody knows which queue a message comes to: all are one.
                is_by_key |= lane.readers() == Readers::Several && topology.readers_of(queue, options.sinks()) == 1;
                let queue = if is_by_key { 0 } else { queue };
                views.entry((queue, producer)).or_default().push(lane);
            }
        }
        if options.sinks() > 0 && options.producers > 0 && !options.workload.is_churn() {
            let queues = if is_by_key { 1 } else { topology.queues.len() };
            for (&producer, &count) in &published {
                let not_taken = refusals.get(&producer).unwrap_or(&all_taken);
                for queue in 0..queues {
                    let progression =
                        if is_by_key { Progression::EACH } else { topology.progression(queue).of_producer(producer) };
                    faults.add(match views.remove(&(queue, producer)) {
                        Some(lanes) => sequence::finish(lanes, count, not_taken),
                        None => nothing_came(progression, count, not_taken),
                    });
                }
            }
        }
        // Of a producer whose connection has failed nobody knows how much it has sent.
        views.values().flatten().for_each(|lane| faults.add(lane.faults()));
        for (producer, lane) in replies {
            let not_taken = refusals.get(&producer).unwrap_or(&all_taken);
            match published.get(&producer) {
                Some(&count) => reply_faults.add(sequence::finish(vec![lane], count, not_taken)),
                None => reply_faults.add(lane.faults()),
            }
        }
        let mut lost = faults.lost + counts.requeued.saturating_sub(redelivered);
        let mut duplicated = faults.duplicated + reply_faults.duplicated;
        if options.producers > 0 {
            // What comes again and was not given back is doubled, whatever the broker calls it.
            duplicated += redelivered.saturating_sub(counts.requeued);
        }
        if options.workload == Workload::Rpc {
            // A request that was lost has no reply.
            lost += reply_faults.lost.saturating_sub(faults.lost);
        }
        // Replies of several servers pass each other.
        let reply_reordered = if options.sinks() == 1 { reply_faults.reordered } else { 0 };
        let check = Check {
            totals: counts,
            lost: if is_complete { lost } else { 0 },
            duplicated,
            reordered: faults.reordered + reply_reordered,
            corrupted: faults.foreign,
        };
        Finding { check, came_refused: faults.came_refused, undecided: faults.undecided }
    }
}

/// Messages that are under way: published and not yet received, or given back and not yet come again.
pub fn under_way(totals: Totals, options: &RunOptions, topology: &Topology) -> u64 {
    let Totals { published, received, requeued, not_taken, operations, .. } = totals;
    if options.producers == 0 || options.workload.is_churn() || options.consumers == 0 {
        return 0;
    }
    let expected = published.saturating_sub(not_taken) * topology.copies + requeued;
    let replies = if options.workload == Workload::Rpc { received.saturating_sub(operations) } else { 0 };
    expected.saturating_sub(received) + replies
}
