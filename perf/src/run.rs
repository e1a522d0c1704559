//! One run: a workload against one broker, from its first queue to its [`Run`].

use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::client::{Client, ClientError, Product};
use crate::clock::{Clock, Schedule, nanos};
use crate::consumer::{Consumer, ConsumerReport};
use crate::interrupt;
use crate::machine::{pin, unix_millis};
use crate::options::RunOptions;
use crate::process::{Usage, usage};
use crate::producer::{Producer, ProducerReport};
use crate::progress::{Progress, Totals};
use crate::result::{BrokerUse, Check, Counts, Interval, Run, Target};
use crate::sequence::{self, Faults, Lane};
use crate::topology::Topology;

/// From the last preparation to the first message.
const START_DELAY: Duration = Duration::from_millis(20);
/// How often the run looks whether it is over.
const LOOK_UP: Duration = Duration::from_millis(10);
/// How long nothing may be received while messages are outstanding; then they are lost.
const DRAIN_STALL_MAX: Duration = Duration::from_secs(10);
/// How long consumers may take to begin.
const READY_MAX: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

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

impl From<ClientError> for RunError {
    fn from(error: ClientError) -> Self {
        Self::Broker(error.to_string())
    }
}

/// What was seen at one moment.
#[derive(Clone, Copy)]
struct Sample {
    nanos: u64,
    totals: Totals,
    broker: Option<Usage>,
    load: Option<Usage>,
}

/// Runs one workload and returns all that it has shown. Prints nothing. `observe` gets each interval, about one a second, as
/// soon as it is over. Ends early, and in good order, once [`interrupt::is_requested`].
///
/// Latencies of what arrives after the last interval, while what is under way is awaited, belong to the last interval: leaving
/// them out would hide the slowest.
///
/// # Errors
/// Where it comes to no result, because the options contradict themselves or the broker refuses what has to come first.
/// What fails later is told in [`Run::failures`].
pub fn measure(options: &RunOptions, labels: &Labels, observe: &mut dyn FnMut(&Interval)) -> Result<Run, RunError> {
    options.check().map_err(RunError::Options)?;
    if let Some(cores) = &options.cores {
        pin(&cores.0).map_err(RunError::Options)?;
    }
    if let Some(pid) = options.broker_pid
        && usage(pid).is_none()
    {
        return Err(RunError::Options(format!("--broker-pid: there is no process {pid}")));
    }
    let topology = Topology::plan(options);
    let mut control = Client::open(&options.uri, "lepus-perf control")?;
    let message_count = topology.declare(&mut control, options)?;
    if message_count > 0 && options.producers > 0 {
        return Err(RunError::Broker(format!(
            "{message_count} messages are in the queues already, so nothing could be checked: purge or delete the queues, or \
             choose other ones with -u"
        )));
    }
    let product = control.product.clone();
    let run = run_threads(options, labels, &topology, product, observe);
    // The control connection was silent for long; a new one is sure to be there.
    drop(control);
    if options.keep {
        return run;
    }
    let deleted = Client::open(&options.uri, "lepus-perf control")
        .and_then(|mut control| topology.delete(&mut control, options).and_then(|()| control.close()));
    let mut run = run?;
    if let Err(error) = deleted {
        run.warnings.push(format!("the queues are left behind: {error}"));
    }
    Ok(run)
}

fn run_threads(
    options: &RunOptions,
    labels: &Labels,
    topology: &Topology,
    product: Product,
    observe: &mut dyn FnMut(&Interval),
) -> Result<Run, RunError> {
    let clock = Clock::start();
    let started_unix_millis = unix_millis();
    let progress = Progress::new(options.producers, options.consumers);
    let connect = |index| Consumer::connect(options, topology, index, clock, &progress);
    let consumers = (0..options.consumers).map(connect).collect::<Result<Vec<_>, _>>()?;
    let connect = |index| Producer::connect(options, topology, index, clock, &progress);
    let producers = (0..options.producers).map(connect).collect::<Result<Vec<_>, _>>()?;
    let resident_octets_before = options.broker_pid.and_then(usage).map_or(0, |usage| usage.resident_octets);
    let (observed, consumed, produced) = thread::scope(|scope| {
        let mut cores = options.cores.iter().flat_map(|cores| cores.0.iter().copied()).cycle();
        let consuming: Vec<_> = consumers
            .into_iter()
            .map(|consumer| {
                let core = cores.next();
                let progress = &progress;
                scope.spawn(move || {
                    pin_thread(core);
                    consumer.run().inspect_err(|_| progress.fail())
                })
            })
            .collect();
        let ready = await_consumers(options, &progress);
        let schedule = schedule(options, clock);
        progress.schedule.set(schedule).expect("set once, here");
        let producing: Vec<_> = producers
            .into_iter()
            .map(|producer| {
                let core = cores.next();
                let progress = &progress;
                scope.spawn(move || {
                    pin_thread(core);
                    let report = producer.run(schedule).inspect_err(|_| progress.fail());
                    progress.producers_finished.fetch_add(1, Ordering::Relaxed);
                    report
                })
            })
            .collect();
        let observed = watch(options, topology, clock, schedule, &progress, observe);
        progress.stop_producers();
        await_last_messages(options, topology, clock, &progress);
        progress.stop_consumers();
        let join = "a thread that panics has said so";
        let consumed: Vec<_> = consuming.into_iter().map(|thread| thread.join().expect(join)).collect();
        let produced: Vec<_> = producing.into_iter().map(|thread| thread.join().expect(join)).collect();
        ready.map(|()| (observed, consumed, produced))
    })?;
    let mut failures = Vec::new();
    let consumed = successes(consumed, "consumer", &mut failures);
    let produced = successes(produced, "producer", &mut failures);
    let (mut intervals, load_cpu_seconds, broker_cpu_seconds) = observed;
    if let Some(last) = intervals.last_mut() {
        for (name, recorded) in progress.take_latencies() {
            last.histograms.entry(name).or_default().add(&recorded);
        }
    }
    let own_name = format!("{} {}", product.product, product.version);
    let target = Target {
        name: labels.target_name.clone().unwrap_or(own_name),
        uri: options.uri.to_string(),
        product: product.product,
        version: product.version,
        platform: product.platform,
        cores: Vec::new(),
    };
    let resident = intervals.iter().filter_map(|interval| interval.broker_resident_octets).max();
    let broker = options.broker_pid.map(|pid| BrokerUse {
        pid,
        cpu_seconds: broker_cpu_seconds,
        resident_octets_before,
        resident_octets_max: resident.unwrap_or(resident_octets_before),
    });
    let mut run = Run {
        scenario: labels.scenario.clone(),
        target,
        round: labels.round,
        workload: options.workload(),
        rate: options.rate,
        seed: 0,
        started_unix_millis,
        client_cores: options.cores.as_ref().map(|cores| cores.0.clone()).unwrap_or_default(),
        intervals,
        check: Check::default(),
        broker,
        client_cpu_seconds: load_cpu_seconds,
        invalid: Vec::new(),
        warnings: Vec::new(),
        failures,
    };
    check(options, &produced, &consumed, progress.totals(), &mut run);
    Ok(run)
}

fn pin_thread(core: Option<usize>) {
    if let Some(core) = core {
        // The process is on these cores already, so this cannot fail for want of the core.
        let _ = pin(&[core]);
    }
}

fn await_consumers(options: &RunOptions, progress: &Progress) -> Result<(), RunError> {
    let mut waited = Duration::ZERO;
    while progress.consumers_ready.load(Ordering::Relaxed) < options.consumers as u64 && !progress.has_failed() {
        if waited > READY_MAX {
            progress.fail();
            return Err(RunError::Broker("the broker does not start the consumers".to_owned()));
        }
        thread::sleep(LOOK_UP);
        waited += LOOK_UP;
    }
    Ok(())
}

fn schedule(options: &RunOptions, clock: Clock) -> Schedule {
    let start = clock.nanos() + nanos(START_DELAY);
    let measure_from = start + nanos(options.warmup());
    Schedule { start, measure_from, end: options.time().map_or(u64::MAX, |time| measure_from + nanos(time)) }
}

/// Samples the run until its schedule or its count is reached, or something ends it before: the intervals, and the CPU seconds
/// of the load and the broker in the measured time.
fn watch(
    options: &RunOptions,
    topology: &Topology,
    clock: Clock,
    schedule: Schedule,
    progress: &Progress,
    observe: &mut dyn FnMut(&Interval),
) -> (Vec<Interval>, f64, f64) {
    let sample = || Sample {
        nanos: clock.nanos(),
        totals: progress.totals(),
        broker: options.broker_pid.and_then(usage),
        load: usage(std::process::id()),
    };
    clock.sleep_until(schedule.start);
    let mut from = sample();
    let mut last = from;
    let mut intervals = Vec::new();
    let mut is_measuring = schedule.measure_from <= schedule.start;
    for tick in 1.. {
        let until = (schedule.start + tick * nanos(SECOND)).min(schedule.end);
        let mut over = is_over(options, topology, progress);
        while !over && clock.nanos() < until {
            clock.sleep_until(until.min(clock.nanos() + nanos(LOOK_UP)));
            over = is_over(options, topology, progress);
        }
        let now = sample();
        let interval = Interval {
            start_seconds: (last.nanos - schedule.start.min(last.nanos)) as f64 / 1e9,
            seconds: (now.nanos - last.nanos) as f64 / 1e9,
            is_warm_up: !is_measuring,
            counts: counts(now.totals.since(last.totals)),
            backlog: (now.totals.published * topology.copies).saturating_sub(now.totals.received),
            broker_cpu_seconds: cpu_seconds(last.broker, now.broker),
            broker_resident_octets: now.broker.map(|usage| usage.resident_octets),
            histograms: progress.take_latencies(),
        };
        observe(&interval);
        intervals.push(interval);
        last = now;
        if over || now.nanos >= schedule.end {
            break;
        }
        if !is_measuring && now.nanos >= schedule.measure_from {
            is_measuring = true;
            from = now;
        }
    }
    let load = cpu_seconds(from.load, last.load).unwrap_or(0.0);
    (intervals, load, cpu_seconds(from.broker, last.broker).unwrap_or(0.0))
}

fn is_over(options: &RunOptions, topology: &Topology, progress: &Progress) -> bool {
    if progress.has_failed() || interrupt::is_requested() {
        return true;
    }
    if options.producers == 0 {
        return options.count.is_some_and(|count| progress.totals().received >= count);
    }
    // A count is done when all of it has been received, too.
    let totals = progress.totals();
    progress.producers_finished.load(Ordering::Relaxed) == options.producers as u64
        && (options.consumers == 0 || totals.received >= totals.published * topology.copies)
}

fn counts(totals: Totals) -> Counts {
    let Totals { published, confirmed, received } = totals;
    Counts { published, confirmed, received, ..Counts::default() }
}

/// Waits until everything that was published has been received, or nothing more comes.
fn await_last_messages(options: &RunOptions, topology: &Topology, clock: Clock, progress: &Progress) {
    // A second Ctrl-C ends the process; the first does not keep anybody from checking all that was sent.
    let (mut received, mut since) = (0, clock.nanos());
    while !progress.has_failed() {
        let totals = progress.totals();
        let producers_finished = progress.producers_finished.load(Ordering::Relaxed) == options.producers as u64;
        let expected = if options.producers == 0 { 0 } else { totals.published * topology.copies };
        if producers_finished && (options.consumers == 0 || totals.received >= expected) {
            return;
        }
        let now = clock.nanos();
        if totals.received > received || !producers_finished {
            (received, since) = (totals.received, now);
        } else if now - since > nanos(DRAIN_STALL_MAX) {
            return;
        }
        thread::sleep(LOOK_UP);
    }
}

fn successes<T>(results: Vec<Result<T, ClientError>>, who: &str, failures: &mut Vec<String>) -> Vec<Option<T>> {
    let keep = |(index, result): (usize, Result<T, ClientError>)| {
        result.inspect_err(|error| failures.push(format!("{who} {index}: {error}"))).ok()
    };
    results.into_iter().enumerate().map(keep).collect()
}

/// Brings the consumers' views of each lane together with what its producer has published.
fn check(
    options: &RunOptions,
    produced: &[Option<ProducerReport>],
    consumed: &[Option<ConsumerReport>],
    totals: Totals,
    run: &mut Run,
) {
    let mut faults = Faults::default();
    // Where a thread has failed nothing can be said of the others' messages.
    if run.failures.is_empty() && options.consumers > 0 {
        let mut lanes: Vec<(&(usize, usize), &Lane)> = Vec::new();
        for report in consumed.iter().flatten() {
            faults.foreign += report.foreign;
            lanes.extend(report.lanes.iter().map(|(name, lane)| (name, lane)));
        }
        lanes.sort_by_key(|(name, _)| **name);
        for views in lanes.chunk_by(|a, b| a.0 == b.0) {
            let (_, index) = *views[0].0;
            let published = produced.get(index).and_then(Option::as_ref).map_or(0, |report| report.published);
            faults.add(sequence::finish(views.iter().map(|(_, lane)| (*lane).clone()).collect(), published));
        }
    }
    let sum = |of: fn(&ProducerReport) -> u64| produced.iter().flatten().map(of).sum::<u64>();
    run.check = Check {
        totals: Counts { refused: sum(|report| report.nacked), ..counts(totals) },
        lost: faults.lost,
        duplicated: faults.duplicated,
        reordered: faults.reordered,
        corrupted: faults.foreign,
    };
    for (count, what) in [
        (sum(|report| report.unconfirmed), "messages were not confirmed"),
        (sum(|report| report.unsent), "messages should have been sent and were not: the broker did not take them"),
    ] {
        if count > 0 {
            run.failures.push(format!("{count} {what}"));
        }
    }
    let blocked = sum(|report| report.blocked);
    if blocked > 0 {
        run.warnings.push(format!("the broker has blocked publishers {blocked} times (connection.blocked)"));
    }
    if interrupt::is_requested() {
        run.warnings.push("interrupted".to_owned());
    }
}

fn cpu_seconds(from: Option<Usage>, to: Option<Usage>) -> Option<f64> {
    Some(to?.cpu_seconds - from?.cpu_seconds)
}
