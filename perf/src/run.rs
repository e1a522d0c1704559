//! One run: a workload against one broker, from its first queue to its [`Run`].

mod outcome;
mod pace;
mod place;
mod stall;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use glommio::ExecutorJoinHandle;

use crate::engine::Shared;
use crate::engine::check::under_way;
use crate::engine::client::{ANSWER_MAX, Client, ClientError, Endpoint, Product};
use crate::engine::clock::{Schedule, nanos};
use crate::engine::recorder::Recordings;
use crate::engine::topology::{Made, Topology};
use crate::engine::trace;
use crate::engine::worker::{self, Event, Report, Snapshot};
use crate::interrupt;
use crate::machine::broker_process;
use crate::machine::page_cache::drop_page_cache;
use crate::machine::process::{Usage, Written, usage};
use crate::machine::{Pinned, unix_millis};
use crate::options::{RunOptions, Workload};
use crate::result::{Counts, Interval, Phase, Run};
use crate::run::pace::Pace;
use crate::run::stall::STALL_MAX;

/// From the last preparation to the first message.
const START_DELAY: Duration = Duration::from_millis(20);
/// How often the run looks whether it is over.
const LOOK_UP: Duration = Duration::from_millis(5);
/// How long threads take, at most, to see a signal.
const SIGNAL_DELAY: Duration = Duration::from_millis(20);
/// How long a thread that has a core of its own looks for work before it sleeps: longer than waking up takes.
const SPIN: Duration = Duration::from_micros(300);
/// Where messages were refused, nothing may come for so long before all is there.
const REFUSED_REST: Duration = Duration::from_secs(1);
/// How long what is under way is awaited when the user wants the end.
const INTERRUPT_GRACE: Duration = Duration::from_secs(2);
/// How long the broker may take to delete a queue.
const DELETE_MAX: Duration = Duration::from_secs(5);
/// How long consumers may take to begin.
const READY_MAX: Duration = Duration::from_secs(60);

/// How a run is called among others.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// Runs of the same scenario are comparable.
    pub scenario: String,
    /// What the user calls the broker; `None`: what it calls itself.
    pub target_name: Option<String>,
    /// From 0, where targets or scenarios are repeated.
    pub round: u32,
}

/// Why there is no result.
#[derive(Debug)]
pub enum RunError {
    /// The options contradict themselves or the machine.
    Options(String),
    /// The broker cannot be used; a sentence that names it.
    Broker(String),
    /// The system refuses something: what was tried, and why not.
    System(String, io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(sentence) | Self::Broker(sentence) => f.write_str(sentence),
            Self::System(tried, error) => write!(f, "{tried}: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

/// What a run has shown last.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// About a second, which is over.
    pub interval: &'a Interval,
    /// The load generator was late so often already that the whole run will be invalid.
    pub is_invalid: bool,
}

/// Who watches a run: `Break` ends it, with a clause that says why.
pub type Observe<'o> = dyn FnMut(Progress<'_>) -> ControlFlow<String> + 'o;

/// Runs one workload and returns all that it has shown. Prints nothing. `observe` gets each interval, about one a second, as
/// soon as it is over, and may end the run: then nothing more is sent or awaited, and [`Run::failures`] says why. Ends early,
/// and in good order, once [`interrupt::is_requested`].
///
/// Latencies of what arrives after the last interval, while what is under way is awaited, belong to the last interval: leaving
/// them out would hide the slowest.
///
/// # Errors
/// Where it comes to no result, because the options contradict themselves or the broker refuses what has to come first.
/// What fails later is told in [`Run::failures`].
pub fn measure(options: &RunOptions, labels: &Labels, observe: &mut Observe<'_>) -> Result<Run, RunError> {
    options.check().map_err(RunError::Options)?;
    let trace = options.trace.as_deref().map(trace::read).transpose().map_err(RunError::Options)?;
    let pinned = options.cores.as_ref().map(|cores| Pinned::to(&cores.0)).transpose().map_err(RunError::Options)?;
    let endpoints =
        options.uri.iter().map(Endpoint::resolve).collect::<Result<Vec<_>, _>>().map_err(RunError::Broker)?;
    let threads = options.cores.as_ref().map_or(options.threads, |cores| cores.0.len());
    let topology = Topology::plan(options);
    let shared = Arc::new(Shared::new(options.clone(), topology, endpoints, trace, threads));
    let measurement = Measurement::begin(&shared, labels, observe)?;
    if let Some(pinned) = &pinned {
        // What this thread does each second is not to be seen in what the others measure.
        pinned.stand_aside(&measurement.broker_pid.map(broker_process::cores).unwrap_or_default());
    }
    measurement.run()
}

/// The one run that is being made.
struct Measurement<'r> {
    shared: &'r Arc<Shared>,
    labels: &'r Labels,
    observe: &'r mut Observe<'r>,
    product: Product,
    made: Made,
    broker_pid: Option<u32>,
    resident_octets_before: u64,
    /// What each thread has told of each second.
    snapshots: BTreeMap<u64, Vec<Snapshot>>,
    lasts: usize,
    intervals: Vec<Interval>,
    phases: Vec<Phase>,
    totals: Recordings,
    pace: Pace,
    started_unix_millis: u64,
    /// Once it has begun.
    schedule: Option<Schedule>,
    last: Sample,
    measured_from: Option<Sample>,
    reports: Vec<Report>,
    warnings: Vec<String>,
    /// What was done when it last became more, and when that was.
    progress: (u64, u64),
    /// The run ended because nothing more came.
    has_stalled: bool,
    /// Why who watches has ended it.
    ended_early: Option<String>,
}

/// What was used at one moment.
#[derive(Clone, Copy)]
struct Sample {
    nanos: u64,
    broker: Option<Usage>,
    load: Option<Usage>,
}

impl<'r> Measurement<'r> {
    /// Declares what is needed.
    fn begin(shared: &'r Arc<Shared>, labels: &'r Labels, observe: &'r mut Observe<'r>) -> Result<Self, RunError> {
        let options = &shared.options;
        let broker_pid = options.broker_pid.or_else(|| place::broker_process(&shared.endpoints));
        if let Some(pid) = options.broker_pid
            && usage(pid).is_none()
        {
            return Err(RunError::Options(format!("--broker-pid: there is no process {pid}")));
        }
        let mut made = Made::default();
        let declared =
            control(shared, ANSWER_MAX, async |client| shared.topology.declare(client, options, &mut made).await);
        let declared = declared.and_then(|(product, message_count)| {
            if message_count == 0 || options.producers == 0 || options.workload.is_churn() {
                return Ok(product);
            }
            Err(RunError::Broker(format!(
                "{message_count} messages are in the queues already, so nothing could be checked: purge or delete the \
                 queues, or choose other ones with -u"
            )))
        });
        let product = declared.inspect_err(|_| {
            // Why it came to nothing says more than what may become of the rest.
            let _ = control(shared, DELETE_MAX, async |client| made.delete(client).await);
        })?;
        let resident_octets_before = broker_pid.and_then(usage).map_or(0, |usage| usage.resident_octets);
        Ok(Self {
            shared,
            labels,
            observe,
            product,
            made,
            broker_pid,
            resident_octets_before,
            snapshots: BTreeMap::new(),
            lasts: 0,
            intervals: Vec::new(),
            phases: Vec::new(),
            totals: Recordings::default(),
            pace: Pace::new(shared.progress.len()),
            started_unix_millis: 0,
            schedule: None,
            last: Sample { nanos: 0, broker: None, load: None },
            measured_from: None,
            reports: Vec::new(),
            warnings: Vec::new(),
            progress: (0, 0),
            has_stalled: false,
            ended_early: None,
        })
    }

    fn run(mut self) -> Result<Run, RunError> {
        let shared = self.shared;
        let options = &shared.options;
        let (sender, events) = channel();
        let cores = options.cores.as_ref().map(|cores| cores.0.as_slice());
        let spin = self.spin();
        let mut threads = Vec::new();
        for thread in 0..shared.progress.len() {
            let core = cores.map(|cores| cores[thread]);
            let started = worker::start(Arc::clone(shared), thread, core, spin, sender.clone());
            threads.push(started.map_err(|reason| RunError::System(reason, io::Error::other("see above")))?);
        }
        drop(sender);
        let is_complete = self.run_threads(&events);
        shared.end();
        self.await_threads(&events, threads);
        let failures = shared.take_failures();
        self.delete();
        if self.intervals.is_empty() {
            if let Some(schedule) = self.schedule {
                self.end_cut_interval(schedule);
            }
            let Counts { confirmed, received, operations, .. } = self.totals.counts;
            if !failures.is_empty() && confirmed + received + operations == 0 {
                return Err(RunError::Broker(failures.join("; ")));
            }
        }
        Ok(self.result(is_complete && failures.is_empty(), failures))
    }

    /// How long threads look for work before they sleep: not at all where they might take the broker's cores away.
    fn spin(&self) -> Duration {
        let options = &self.shared.options;
        let Some(cores) = &options.cores else { return Duration::ZERO };
        if let Some(micros) = options.spin {
            return Duration::from_micros(micros);
        }
        let broker_cores = self.broker_pid.map(broker_process::cores).unwrap_or_default();
        let is_apart = if self.broker_pid.is_some() {
            !broker_cores.iter().any(|core| cores.0.contains(core))
        } else {
            !self.shared.endpoints.iter().any(|endpoint| broker_process::is_local(endpoint.address))
        };
        if is_apart { SPIN } else { Duration::ZERO }
    }

    /// From the first connection to the last message. Whether all that was under way has come, or does not come any more.
    fn run_threads(&mut self, events: &Receiver<Event>) -> bool {
        let shared = self.shared;
        let options = &shared.options;
        let threads = shared.progress.len();
        let mut ready = 0;
        while ready < threads && !shared.has_failed() {
            match events.recv_timeout(LOOK_UP) {
                Ok(Event::Ready) => ready += 1,
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => shared.fail("a thread has died".to_owned()),
            }
            self.heed_interrupt();
        }
        let is_backlog = options.workload == Workload::Backlog;
        if !is_backlog {
            shared.begin_consuming();
            self.await_consumers();
        }
        if shared.has_failed() {
            return false;
        }
        let clock = shared.clock;
        let start = clock.nanos() + nanos(START_DELAY);
        self.started_unix_millis = unix_millis() + u64::try_from(START_DELAY.as_millis()).unwrap_or(0);
        let measure_from = start + nanos(options.warmup());
        let end = options.time().filter(|_| !is_backlog).map_or(u64::MAX, |time| measure_from + nanos(time));
        let schedule = Schedule { start, measure_from, end };
        shared.start(schedule);
        self.schedule = Some(schedule);
        clock.sleep_until(start);
        self.last = Sample { nanos: start, ..self.sample() };
        self.progress = (0, start);
        let (mut phase, mut phase_from) = (is_backlog.then_some("publish"), (start, 0));
        while self.lasts < threads && !shared.has_failed() {
            self.handle_event(events, schedule);
            let totals = shared.totals();
            let is_published = totals.sources_finished == options.sources() as u64;
            if phase == Some("publish") && is_published {
                self.end_phase("publish", phase_from, totals.published);
                self.cool();
                phase = Some("consume");
                phase_from = (clock.nanos(), totals.received);
                shared.begin_consuming();
            }
            let has_stalled = self.stalled_for() > self.stall_max();
            self.has_stalled |= has_stalled && schedule.end == u64::MAX && !self.reads_for_ever();
            // What is planned to last for some time lasts until then, though no more messages are due.
            let has_time_left = options.count.is_none() && schedule.end != u64::MAX && clock.nanos() < schedule.end;
            if (self.is_over() && !has_time_left) || self.has_stalled || interrupt::is_requested() {
                shared.stop();
            }
        }
        if phase == Some("consume") {
            self.end_phase("consume", phase_from, shared.totals().received - phase_from.1);
        }
        shared.end_producing();
        shared.begin_consuming();
        std::thread::sleep(SIGNAL_DELAY);
        self.drain(events, schedule)
    }

    /// A signal before the first message ends a run without a result.
    fn heed_interrupt(&self) {
        if interrupt::is_requested() && !self.shared.has_failed() {
            self.shared.fail("interrupted before the first message".to_owned());
        }
    }

    /// What is on disk is read from there from now on, where that is wanted and possible.
    fn cool(&mut self) {
        if !self.shared.options.cold {
            return;
        }
        let cooled = match self.broker_pid {
            Some(_) => drop_page_cache().map_err(|error| format!("{error}; root may")),
            None => Err("the broker is not on this machine".to_owned()),
        };
        if let Err(reason) = cooled {
            self.warnings.push(format!("--cold: the page cache was not dropped: {reason}"));
        }
        // Nothing went on meanwhile, and nothing was to.
        self.progress.1 = self.shared.clock.nanos();
    }

    fn end_phase(&mut self, name: &str, from: (u64, u64), messages: u64) {
        let seconds = (self.shared.clock.nanos() - from.0) as f64 / 1e9;
        self.phases.push(Phase { name: name.to_owned(), seconds, messages });
    }

    fn await_consumers(&self) {
        let shared = self.shared;
        let sinks = if shared.options.workload.is_churn() { 0 } else { shared.options.sinks() };
        let replies = if shared.options.workload == Workload::Rpc { shared.options.sources() } else { 0 };
        let until = shared.clock.nanos() + nanos(READY_MAX);
        while shared.totals().sinks_ready < (sinks + replies) as u64 && !shared.has_failed() {
            if shared.clock.nanos() > until {
                shared.fail("the broker does not start the consumers".to_owned());
            }
            self.heed_interrupt();
            std::thread::sleep(LOOK_UP);
        }
    }

    /// Whether a count is reached and received, or nothing more is to be sent.
    fn is_over(&self) -> bool {
        let options = &self.shared.options;
        let totals = self.shared.totals();
        if options.producers == 0 {
            return options.count.is_some_and(|count| totals.received >= count);
        }
        let sources = if options.workload.is_churn() { options.producers } else { options.sources() };
        totals.sources_finished == sources as u64 && under_way(totals, options, &self.shared.topology) == 0
    }

    fn sample(&self) -> Sample {
        let (broker, load) = (self.broker_pid.and_then(usage), usage(std::process::id()));
        Sample { nanos: self.shared.clock.nanos(), broker, load }
    }

    fn handle_event(&mut self, events: &Receiver<Event>, schedule: Schedule) {
        match events.recv_timeout(LOOK_UP) {
            Ok(Event::Snapshot(snapshot)) => {
                self.lasts += usize::from(snapshot.is_last);
                self.snapshots.entry(snapshot.number).or_default().push(snapshot);
            }
            Ok(Event::Ended(report)) => self.reports.push(report),
            Ok(Event::Ready) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_UP),
        }
        let threads = self.shared.progress.len();
        while let Some(entry) = self.snapshots.first_entry()
            && (entry.get().len() == threads || self.lasts == threads)
        {
            let snapshots = entry.remove();
            self.end_interval(snapshots, schedule);
        }
    }

    /// Makes an interval of what the threads have told.
    fn end_interval(&mut self, snapshots: Vec<Snapshot>, schedule: Schedule) {
        let mut all = Recordings::default();
        // A thread that was late may have taken the one before after others have taken this one.
        let at = snapshots.iter().map(|snapshot| snapshot.at).max().unwrap_or(0).max(self.last.nanos);
        let is_cut = snapshots.iter().any(|snapshot| snapshot.is_last) && at < schedule.end;
        let is_warm_up = self.last.nanos + nanos(LOOK_UP) < schedule.measure_from;
        for snapshot in snapshots {
            if !is_warm_up {
                self.pace.add(snapshot.thread, &snapshot.recordings, at - self.last.nanos);
            }
            all.add(snapshot.recordings);
        }
        // A run that ends with its count ends with its last message, not when that was seen.
        let until = if is_cut && all.counted_at > self.last.nanos { all.counted_at.min(at) } else { at };
        let now = Sample { nanos: until, ..self.sample() };
        self.totals.counts += all.counts;
        self.totals.redelivered += all.redelivered;
        if !is_warm_up {
            self.measured_from.get_or_insert(self.last);
        }
        let interval = Interval {
            start_seconds: (self.last.nanos - schedule.start) as f64 / 1e9,
            seconds: (until - self.last.nanos) as f64 / 1e9,
            is_warm_up,
            counts: all.counts,
            backlog: under_way(self.shared.totals(), &self.shared.options, &self.shared.topology),
            broker_cpu_seconds: cpu_seconds(self.last.broker, now.broker),
            broker_resident_octets: now.broker.map(|usage| usage.resident_octets),
            broker_disk_octets: written(self.last.broker, now.broker).map(|written| written.disk_octets),
            broker_write_calls: written(self.last.broker, now.broker).map(|written| written.calls),
            histograms: all.histograms,
        };
        self.last = now;
        let is_invalid = !is_warm_up && self.pace.is_lost(&self.shared.options, schedule.measured_part(at));
        if let ControlFlow::Break(reason) = (self.observe)(Progress { interval: &interval, is_invalid }) {
            self.ended_early.get_or_insert(reason);
            self.shared.stop();
        }
        self.intervals.push(interval);
    }

    /// Makes an interval of the little that there was of a run that has failed within its first one.
    fn end_cut_interval(&mut self, schedule: Schedule) {
        let at = self.shared.clock.nanos();
        let mut snapshots: Vec<Snapshot> = std::mem::take(&mut self.snapshots).into_values().flatten().collect();
        snapshots.extend(self.reports.iter_mut().map(|report| {
            let recordings = std::mem::take(&mut report.recordings);
            Snapshot { number: 0, at, thread: 0, is_last: true, recordings }
        }));
        self.end_interval(snapshots, schedule);
    }

    /// Waits until everything has come that is under way, or nothing more comes. Whether it was one of these: the limit of time
    /// was not reached.
    fn drain(&mut self, events: &Receiver<Event>, schedule: Schedule) -> bool {
        let shared = self.shared;
        let (options, clock) = (&shared.options, shared.clock);
        let from = clock.nanos();
        let mut interrupted_at = None;
        let sources = if options.workload.is_churn() { options.producers } else { options.sources() } as u64;
        while !shared.has_failed() && self.ended_early.is_none() {
            let totals = shared.totals();
            let are_finished = totals.sources_finished == sources;
            let left = under_way(totals, options, &shared.topology);
            // Of what was refused some may come all the same, so that the count does not tell when all is there.
            let is_counted = totals.not_taken == 0 || self.stalled_for() > REFUSED_REST;
            if are_finished && left == 0 && is_counted {
                return true;
            }
            let now = clock.nanos();
            // Producers that are stuck take their own time until they give up.
            let stall_max = if are_finished { STALL_MAX } else { STALL_MAX * 2 };
            if self.stalled_for() > stall_max {
                if left > 0 {
                    let seconds = stall_max.as_secs();
                    self.warnings.push(format!("{left} messages did not come within {seconds} s, and count as lost"));
                }
                return true;
            }
            if interrupt::is_requested() {
                if !shared.is_stopped() {
                    shared.stop();
                }
                if now - *interrupted_at.get_or_insert(now) > nanos(INTERRUPT_GRACE) {
                    self.warnings.push(format!("{left} messages were still under way when the run was ended"));
                    return false;
                }
            }
            if now - from > nanos(Duration::from_secs(options.drain_limit)) && are_finished {
                shared.fail(format!(
                    "{left} messages were still under way {} s after the end (--drain-limit)",
                    options.drain_limit
                ));
                return false;
            }
            self.handle_event(events, schedule);
        }
        false
    }

    fn await_threads(&mut self, events: &Receiver<Event>, threads: Vec<ExecutorJoinHandle<()>>) {
        while let Ok(event) = events.recv() {
            match event {
                Event::Ended(report) => self.reports.push(report),
                Event::Snapshot(snapshot) => self.snapshots.entry(snapshot.number).or_default().push(snapshot),
                Event::Ready => {}
            }
        }
        for thread in threads {
            if thread.join().is_err() {
                self.shared.fail("a thread has died".to_owned());
            }
        }
    }

    fn delete(&mut self) {
        let options = &self.shared.options;
        if options.keep || self.made == Made::default() {
            return;
        }
        let deleted = control(self.shared, DELETE_MAX, async |client| self.made.delete(client).await);
        if let Err(error) = deleted {
            self.warnings.push(format!("the queues are left behind: {error}"));
        }
    }
}

/// Does something on a connection of its own, on an executor of its own. No answer may take longer than `answer_max`.
fn control<T>(
    shared: &Shared,
    answer_max: Duration,
    act: impl AsyncFnOnce(&mut Client) -> Result<T, ClientError>,
) -> Result<(Product, T), RunError> {
    let executor = worker::executor(None)
        .make()
        .map_err(|error| RunError::System("preparing io_uring".to_owned(), io::Error::other(error.to_string())))?;
    let endpoint = &shared.endpoints[0];
    let result = executor.run(async {
        let mut client = Client::open_within(endpoint, "lepus-perf control", answer_max).await?;
        let done = act(&mut client).await?;
        let product = client.product.clone();
        client.close().await?;
        Ok((product, done))
    });
    result.map_err(|error| RunError::Broker(endpoint.sentence(&error)))
}

/// CPU time between two moments; `None` where it is not known.
fn cpu_seconds(from: Option<Usage>, to: Option<Usage>) -> Option<f64> {
    Some(to?.cpu_seconds - from?.cpu_seconds)
}

/// What was written between two moments; `None` where it is not known.
fn written(from: Option<Usage>, to: Option<Usage>) -> Option<Written> {
    Some(to?.written?.since(from?.written?))
}
