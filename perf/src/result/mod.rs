//! What runs have shown: the content of a result file, and what every table, plot and comparison is made of.
//!
//! A result file is one JSON object, a [`ResultFile`]; its fields are the format. Times are in nanoseconds, sizes in octets,
//! and rates in messages a second, unless a name says otherwise. Histograms are whole, for each interval: quantiles of several
//! intervals or rounds come from their merged counts, never from averaging quantiles.

pub mod csv;
mod file_error;
pub mod hgrm;
pub mod hlog;
mod json;
pub mod quantile;
mod recorded;
#[cfg(test)]
pub mod sample;
pub mod whole_file;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use file_error::FileError;
pub use recorded::Recorded;

/// Names the format; readers refuse others.
pub const SCHEMA: &str = "lepus-perf/2";

/// One file: one run, or the runs of a sweep, of several targets in turn, or of a suite.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ResultFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// How it came to be.
    pub origin: Origin,
    /// In the order in which they were made.
    pub runs: Vec<Run>,
}

/// Where, when and by which command.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Origin {
    /// Version of lepus-perf.
    pub version: String,
    /// Revision that it was built from, where that was known.
    pub revision: Option<String>,
    /// The exact command line.
    pub command: Vec<String>,
    /// When it began, in milliseconds since 1970.
    pub started_unix_millis: u64,
    /// Model of the CPU.
    pub cpu_model: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// Kernel's release.
    pub kernel: String,
    /// Memory of the machine.
    pub memory_octets: u64,
}

/// One run: one workload against one target.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Run {
    /// Name of the scenario; runs of the same name are comparable.
    pub scenario: String,
    /// Against what.
    pub target: Target,
    /// From 0, where targets or scenarios are repeated.
    pub round: u32,
    /// Options of the workload, as they are given on the command line: `rate` → `20000`.
    pub workload: BTreeMap<String, String>,
    /// The wanted rate, where the loop is open.
    pub rate: Option<f64>,
    /// What arrival times, sizes and keys were drawn with.
    pub seed: u64,
    /// When the first message was to be sent, in milliseconds since 1970.
    pub started_unix_millis: u64,
    /// Cores that the load generator ran on; empty: any.
    pub client_cores: Vec<usize>,
    /// The first ones are warm-up, as they say.
    pub intervals: Vec<Interval>,
    /// All messages, warm-up included.
    pub check: Check,
    /// The broker's process in the measured time, where it is known.
    pub broker: Option<BrokerUse>,
    /// CPU time of the load generator in the measured time, in seconds.
    pub client_cpu_seconds: f64,
    /// The part of the measured time that its busiest thread was at work, not looking or waiting for work; `None`: not known.
    #[serde(default)]
    pub client_busy_part: Option<f64>,
    /// Why its latencies must not be trusted; empty: they may.
    pub invalid: Vec<String>,
    /// What a reader should know, such as shared cores.
    pub warnings: Vec<String>,
    /// Parts that the run had one after the other, such as publishing and consuming a backlog; mostly none.
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// What has ended the run before its time or kept it from finishing: connections that failed, messages that the broker
    /// did not take or confirm. Empty in runs that went well.
    #[serde(default)]
    pub failures: Vec<String>,
    /// What was not checked, and why: where it is not empty, that `check` has found nothing says nothing of that.
    #[serde(default)]
    pub unchecked: Vec<String>,
}

/// One part of a run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Phase {
    /// Such as `publish`.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// Messages in it.
    pub messages: u64,
}

/// A broker.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Target {
    /// How it is called in tables: as the user named it, else product and version.
    pub name: String,
    /// Where it was reached, without the password.
    pub uri: String,
    /// Of its server properties.
    pub product: String,
    /// Of its server properties.
    pub version: String,
    /// Of its server properties.
    pub platform: String,
    /// Cores that its process may run on, where it is known.
    pub cores: Vec<usize>,
}

/// What happened in about a second.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Interval {
    /// When it began, in seconds after the run's start.
    pub start_seconds: f64,
    /// How long it was.
    pub seconds: f64,
    /// Whether it comes before what is measured.
    pub is_warm_up: bool,
    /// What was counted in it.
    pub counts: Counts,
    /// Messages published and not yet received at its end.
    pub backlog: u64,
    /// CPU time of the broker's process in it, in seconds, where that is known.
    pub broker_cpu_seconds: Option<f64>,
    /// Resident memory of the broker's process at its end, where that is known.
    pub broker_resident_octets: Option<u64>,
    /// Octets that the broker's process has written to disk in it, where that is known.
    pub broker_disk_octets: Option<u64>,
    /// Calls by which it has written, to disk and sockets, where that is known.
    pub broker_write_calls: Option<u64>,
    /// Latencies by [`histogram`] names, in nanoseconds; a message belongs to the interval in which it was received.
    pub histograms: BTreeMap<String, Recorded>,
}

/// Names of histograms.
pub mod histogram {
    /// From when a message was to be sent until it was received, or until a consumer that takes its time (`--consumer-delay`)
    /// begins to work at it.
    pub const RESPONSE: &str = "response";
    /// From when it was sent until then.
    pub const SERVICE: &str = "service";
    /// From when it was to be sent until it was sent.
    pub const SEND_LAG: &str = "send-lag";
    /// From when it was to be sent until the broker confirmed it, where the loop is open.
    pub const CONFIRM_RESPONSE: &str = "confirm-response";
    /// From when it was sent until the broker confirmed it.
    pub const CONFIRM: &str = "confirm";
    /// From a request until its reply: RPC, `basic.get` of a message, declarations, connections, `tx.commit`. RPC under a rate:
    /// from when the request was to be sent.
    pub const ROUND_TRIP: &str = "round-trip";
    /// All, in the order in which they are shown, with what they mean.
    pub const ALL: [(&str, &str); 6] = [
        (RESPONSE, "intended send time to receipt"),
        (SERVICE, "sent to receipt"),
        (SEND_LAG, "intended send time to sent"),
        (CONFIRM_RESPONSE, "intended send time to confirmed"),
        (CONFIRM, "sent to confirmed"),
        (ROUND_TRIP, "request to reply"),
    ];

    /// Names in the order of their worth to a reader who is shown only the first that is there: round trips first where the
    /// workload is about them, send lags, which say more of the load generator, last.
    pub fn by_worth(is_about_round_trips: bool) -> impl Iterator<Item = &'static str> {
        let first = is_about_round_trips.then_some(ROUND_TRIP);
        let others = ALL.into_iter().map(|(name, _)| name).filter(|name| *name != SEND_LAG);
        first.into_iter().chain(others).chain([SEND_LAG])
    }
}

/// Messages, or operations.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Counts {
    /// Written by producers.
    pub published: u64,
    /// Octets of their bodies.
    pub published_octets: u64,
    /// Confirmed by the broker.
    pub confirmed: u64,
    /// Refused by the broker (`basic.nack` to a producer).
    pub refused: u64,
    /// Returned as not routable.
    pub returned: u64,
    /// Received by consumers, redeliveries included.
    pub received: u64,
    /// Acknowledged by consumers.
    pub acknowledged: u64,
    /// Given back by consumers, to come again.
    pub requeued: u64,
    /// Refused by consumers for good (`basic.nack` without `requeue`).
    pub rejected: u64,
    /// Churn: operations done (connections, channels, queues or bindings made and removed); RPC: replies.
    pub operations: u64,
}

/// Whether everything was right, over the whole run.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Check {
    /// What was counted over the whole run.
    pub totals: Counts,
    /// Messages that never came, though the broker had taken them.
    pub lost: u64,
    /// Messages that came again, and no consumer had given back.
    pub duplicated: u64,
    /// Messages that came before an earlier one of the same producer and queue.
    pub reordered: u64,
    /// Messages whose checksum is wrong, or that no producer of this run has sent.
    pub corrupted: u64,
}

/// The broker's process in the measured time.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct BrokerUse {
    /// Its number.
    pub pid: u32,
    /// CPU time, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory before the first message.
    pub resident_octets_before: u64,
    /// The most that was seen.
    pub resident_octets_max: u64,
    /// Octets that it has written to disk: to a file system's cache, or past it. `None`: not known.
    pub disk_octets: Option<u64>,
    /// Calls by which it has written, to disk and sockets; those of io_uring are not among them. `None`: not known.
    pub write_calls: Option<u64>,
}

impl Run {
    /// Intervals that count.
    pub fn measured(&self) -> impl Iterator<Item = &Interval> {
        self.intervals.iter().filter(|interval| !interval.is_warm_up)
    }

    /// Latencies of the measured time.
    pub fn histogram(&self, name: &str) -> Option<Recorded> {
        let mut all: Option<Recorded> = None;
        for recorded in self.measured().filter_map(|interval| interval.histograms.get(name)) {
            all.get_or_insert_default().add(recorded);
        }
        all.filter(|all| !all.is_empty())
    }

    /// What the measured time has counted, and how long it was in seconds.
    pub fn measured_counts(&self) -> (Counts, f64) {
        let mut all = Counts::default();
        let mut seconds = 0.0;
        for interval in self.measured() {
            all += interval.counts;
            seconds += interval.seconds;
        }
        (all, seconds)
    }

    /// Octets that the broker has written to disk for each message published, and for each octet of their bodies, in the measured
    /// time; of a run that publishes nothing, for each message that it is about. `None` where that is not known.
    pub fn disk_use(&self) -> Option<DiskUse> {
        let (counts, _) = self.measured_counts();
        DiskUse::of(counts, self.broker?.disk_octets?)
    }

    /// Whether it is about requests and their replies: RPC, churn, and `basic.get` where messages have no times of their own.
    pub fn is_about_round_trips(&self) -> bool {
        match self.workload.get("workload").map(String::as_str) {
            Some("rpc") => true,
            Some("get") => {
                !["rate", "ramp", "rate-profile", "trace"].iter().any(|name| self.workload.contains_key(*name))
            }
            Some(workload) => workload.ends_with("-churn"),
            None => false,
        }
    }

    /// Whether nothing was wrong: no faults, no failures. Whether its latencies can be trusted, `invalid` tells.
    pub fn is_right(&self) -> bool {
        !self.has_faults() && self.failures.is_empty()
    }

    /// Whether messages were lost, doubled, out of order, corrupted or refused.
    pub fn has_faults(&self) -> bool {
        let Check { totals, lost, duplicated, reordered, corrupted } = self.check;
        [lost, duplicated, reordered, corrupted, totals.refused].iter().any(|&count| count > 0)
    }
}

/// What writing costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskUse {
    /// Octets on disk for a message.
    pub octets_per_message: f64,
    /// Octets on disk for an octet of a body; `None` where nothing was published.
    pub amplification: Option<f64>,
}

impl DiskUse {
    /// Of so many octets on disk; `None` where there were no messages.
    pub fn of(counts: Counts, disk_octets: u64) -> Option<Self> {
        let messages = if counts.published > 0 { counts.published } else { counts.primary() };
        let per = |count: u64| (count > 0).then(|| disk_octets as f64 / count as f64);
        Some(Self { octets_per_message: per(messages)?, amplification: per(counts.published_octets) })
    }
}

impl Counts {
    /// The one that the workload is about: received messages, else operations, confirmed or published messages.
    pub fn primary(&self) -> u64 {
        let all = [self.received, self.operations, self.confirmed, self.published];
        all.into_iter().find(|&count| count > 0).unwrap_or(0)
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.published += other.published;
        self.published_octets += other.published_octets;
        self.confirmed += other.confirmed;
        self.refused += other.refused;
        self.returned += other.returned;
        self.received += other.received;
        self.acknowledged += other.acknowledged;
        self.requeued += other.requeued;
        self.rejected += other.rejected;
        self.operations += other.operations;
    }
}
