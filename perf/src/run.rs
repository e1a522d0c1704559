//! `lepus-perf run`: one workload from its first queue to its report.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::{Client, ClientError};
use crate::clock::{Clock, Schedule, nanos};
use crate::consumer::{Consumer, ConsumerReport};
use crate::interrupt::Interrupt;
use crate::latency::{Latencies, merged};
use crate::machine::{Machine, pin};
use crate::options::RunOptions;
use crate::process::{Usage, usage};
use crate::producer::{Producer, ProducerReport};
use crate::progress::{Progress, Totals};
use crate::report::{BrokerUsage, Check, FORMAT, LatencyReport, Rate, Rates, Report};
use crate::result::{Recorded, hgrm};
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

/// Why there is no report.
#[derive(Debug)]
pub enum RunError {
    /// The options contradict themselves or the machine.
    Options(String),
    /// The broker cannot be used.
    Client(ClientError),
    /// The queues hold so many messages already.
    NotEmpty(u64),
    /// Consumers cannot begin.
    NotReady,
    /// The system refuses something.
    System(&'static str, io::Error),
    /// A report cannot be written.
    File(PathBuf, io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(sentence) => f.write_str(sentence),
            Self::Client(error) => write!(f, "{error}"),
            Self::NotEmpty(count) => write!(
                f,
                "{count} messages are in the queues already, so nothing could be checked: purge or delete the queues, or \
                 choose other ones with -u"
            ),
            Self::NotReady => write!(f, "the broker does not start the consumers"),
            Self::System(tried, error) => write!(f, "{tried}: {error}"),
            Self::File(path, error) => write!(f, "cannot write {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for RunError {}

impl From<ClientError> for RunError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
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

/// The measured time, as it was seen.
struct Observed {
    from: Sample,
    to: Sample,
    seconds: Vec<Totals>,
}

/// Runs one workload and reports it. The exit code tells whether everything was right.
///
/// # Errors
/// Where it comes to no report.
pub fn run(options: &RunOptions) -> Result<ExitCode, RunError> {
    options.check().map_err(RunError::Options)?;
    let machine_cores = options.cores.as_ref().map(|cores| cores.0.as_slice());
    if let Some(cores) = machine_cores {
        pin(cores).map_err(RunError::Options)?;
    }
    if let Some(pid) = options.broker_pid
        && usage(pid).is_none()
    {
        return Err(RunError::Options(format!("--broker-pid: there is no process {pid}")));
    }
    let interrupt = Interrupt::listen().map_err(|error| RunError::System("listening to signals", error))?;
    let topology = Topology::plan(options);
    let mut control = Client::open(&options.uri, "lepus-perf control")?;
    let message_count = topology.declare(&mut control, options)?;
    if message_count > 0 && options.producers > 0 {
        return Err(RunError::NotEmpty(message_count));
    }
    let report = measure(options, &topology, control.product.clone(), &interrupt);
    // The control connection was silent for long; a new one is sure to be there.
    drop(control);
    if !options.keep {
        let deleted = Client::open(&options.uri, "lepus-perf control")
            .and_then(|mut control| topology.delete(&mut control, options).and_then(|()| control.close()));
        if let Err(error) = deleted {
            eprintln!("lepus-perf: the queues are left behind: {error}");
        }
    }
    let report = report?;
    print!("{report}");
    write_files(options, &report)?;
    Ok(if report.check.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(
    options: &RunOptions,
    topology: &Topology,
    broker: crate::client::Product,
    interrupt: &Interrupt,
) -> Result<Report, RunError> {
    let clock = Clock::start();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let progress = Progress::new(options.producers, options.consumers);
    let connect = |index| Consumer::connect(options, topology, index, clock, &progress);
    let consumers = (0..options.consumers).map(connect).collect::<Result<Vec<_>, _>>()?;
    let connect = |index| Producer::connect(options, topology, index, clock, &progress);
    let producers = (0..options.producers).map(connect).collect::<Result<Vec<_>, _>>()?;
    let resident_before = options.broker_pid.and_then(usage).map_or(0, |usage| usage.resident_octets);

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
        let observed = observe(options, topology, clock, schedule, &progress, interrupt);
        progress.stop_producers();
        await_last_messages(options, topology, clock, &progress, interrupt);
        progress.stop_consumers();
        let join = "a thread that panics has said so";
        let consumed: Vec<_> = consuming.into_iter().map(|thread| thread.join().expect(join)).collect();
        let produced: Vec<_> = producing.into_iter().map(|thread| thread.join().expect(join)).collect();
        ready.map(|()| (observed, consumed, produced))
    })?;
    let mut failures = Vec::new();
    let consumed = successes(consumed, "consumer", &mut failures);
    let produced = successes(produced, "producer", &mut failures);
    let check = check(options, &produced, &consumed, progress.totals(), failures, interrupt.is_asked());
    let mut report = Report {
        lepus_perf_format: FORMAT,
        version: env!("CARGO_PKG_VERSION"),
        command: command_line(),
        started_unix_seconds: started,
        machine: Machine::look(),
        broker,
        window_seconds: seconds_between(&observed.from, &observed.to),
        window: observed.to.totals.since(observed.from.totals),
        rates: rates(&observed),
        broker_usage: options.broker_pid.and_then(|pid| broker_usage(pid, &observed, resident_before)),
        load_cpu_seconds: cpu_seconds(observed.from.load, observed.to.load).unwrap_or(0.0),
        seconds: observed.seconds,
        latencies: Vec::new(),
        check,
    };
    report.latencies = latencies(produced, consumed);
    Ok(report)
}

fn pin_thread(core: Option<usize>) {
    if let Some(core) = core {
        // The process is on these cores already, so this cannot fail for want of the core.
        let _ = pin(&[core]);
    }
}

/// The command line without the password of its URI.
fn command_line() -> Vec<String> {
    let visible = |argument: String| match argument.find("amqp://") {
        Some(at) => match argument[at..].parse::<crate::uri::AmqpUri>() {
            Ok(uri) => format!("{}{uri}", &argument[..at]),
            Err(_) => argument,
        },
        None => argument,
    };
    std::env::args().map(visible).collect()
}

fn await_consumers(options: &RunOptions, progress: &Progress) -> Result<(), RunError> {
    let mut waited = Duration::ZERO;
    while progress.consumers_ready.load(Ordering::Relaxed) < options.consumers as u64 && !progress.has_failed() {
        if waited > READY_MAX {
            progress.fail();
            return Err(RunError::NotReady);
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

/// Samples the run until its schedule or its count is reached, or something ends it before.
fn observe(
    options: &RunOptions,
    topology: &Topology,
    clock: Clock,
    schedule: Schedule,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Observed {
    let sample = || Sample {
        nanos: clock.nanos(),
        totals: progress.totals(),
        broker: options.broker_pid.and_then(usage),
        load: usage(std::process::id()),
    };
    let is_over = || {
        if progress.has_failed() || interrupt.is_asked() {
            return true;
        }
        if options.producers == 0 {
            return options.count.is_some_and(|count| progress.totals().received >= count);
        }
        // A count is done when all of it has been received, too.
        let totals = progress.totals();
        progress.producers_finished.load(Ordering::Relaxed) == options.producers as u64
            && (options.consumers == 0 || totals.received >= totals.published * topology.copies)
    };
    clock.sleep_until(schedule.start);
    let mut from = sample();
    let mut last = from;
    let mut seconds = Vec::new();
    let mut is_measuring = schedule.measure_from <= schedule.start;
    for tick in 1.. {
        let until = (schedule.start + tick * nanos(SECOND)).min(schedule.end);
        let mut over = is_over();
        while !over && clock.nanos() < until {
            clock.sleep_until(until.min(clock.nanos() + nanos(LOOK_UP)));
            over = is_over();
        }
        let now = sample();
        let is_whole_second = now.nanos - last.nanos > nanos(SECOND) * 9 / 10;
        if is_measuring && is_whole_second {
            seconds.push(per_second(now.totals.since(last.totals), now.nanos - last.nanos));
        }
        if !options.quiet && (is_whole_second || over) {
            print_line(tick, is_measuring, topology, &last, &now);
        }
        last = now;
        if over || now.nanos >= schedule.end {
            break;
        }
        if !is_measuring && now.nanos >= schedule.measure_from {
            is_measuring = true;
            from = now;
        }
    }
    Observed { from, to: last, seconds }
}

/// Counts of somewhat more or less than a second, as those of a whole one.
fn per_second(counts: Totals, nanos: u64) -> Totals {
    let scaled = |count: u64| {
        let scaled = u128::from(count) * 1_000_000_000 / u128::from(nanos);
        u64::try_from(scaled).expect("counts of a second are small")
    };
    Totals {
        published: scaled(counts.published),
        confirmed: scaled(counts.confirmed),
        received: scaled(counts.received),
    }
}

fn print_line(tick: u64, is_measuring: bool, topology: &Topology, last: &Sample, now: &Sample) {
    let counts = now.totals.since(last.totals);
    let Totals { published, confirmed, received } = per_second(counts, (now.nanos - last.nanos).max(1));
    let backlog = (now.totals.published * topology.copies).saturating_sub(now.totals.received);
    let cpu = cpu_seconds(last.broker, now.broker)
        .map_or_else(String::new, |cpu| format!("  broker {:>3.0} % CPU", cpu / seconds_between(last, now) * 100.0));
    let phase = if is_measuring { "" } else { "  warm-up" };
    eprintln!(
        "{tick:>4} s  published {published:>9}/s  confirmed {confirmed:>9}/s  received {received:>9}/s  backlog \
         {backlog:>9}{cpu}{phase}"
    );
}

/// Waits until everything that was published has been received, or nothing more comes.
fn await_last_messages(
    options: &RunOptions,
    topology: &Topology,
    clock: Clock,
    progress: &Progress,
    interrupt: &Interrupt,
) {
    // A second Ctrl-C ends the process; the first does not keep anybody from checking all that was sent.
    let _ = interrupt;
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
    failures: Vec<String>,
    is_interrupted: bool,
) -> Check {
    let mut faults = Faults::default();
    // Where a thread has failed nothing can be said of the others' messages.
    if failures.is_empty() && options.consumers > 0 {
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
    let sum = |of: fn(&ProducerReport) -> u64| produced.iter().flatten().map(of).sum();
    Check {
        totals,
        faults,
        nacked: sum(|report| report.nacked),
        unconfirmed: sum(|report| report.unconfirmed),
        unsent: sum(|report| report.unsent),
        blocked: sum(|report| report.blocked),
        failures,
        is_interrupted,
    }
}

fn latencies(produced: Vec<Option<ProducerReport>>, consumed: Vec<Option<ConsumerReport>>) -> Vec<LatencyReport> {
    let (mut responses, mut services) = (Vec::new(), Vec::new());
    for report in consumed.into_iter().flatten() {
        responses.push(report.response_times);
        services.push(report.service_times);
    }
    let (mut lags, mut confirms) = (Vec::new(), Vec::new());
    for report in produced.into_iter().flatten() {
        lags.push(report.send_lags);
        confirms.push(report.confirm_latencies);
    }
    let all: [(_, _, Vec<Latencies>); 4] = [
        ("response", "from when it should have been sent to its receipt", responses),
        ("service", "from when it was sent to its receipt", services),
        ("send-lag", "from when it should have been sent to when it was", lags),
        ("confirm", "from when it was sent to its confirm", confirms),
    ];
    let report = |(name, meaning, parts)| merged(parts).map(|histogram| LatencyReport::new(name, meaning, histogram));
    all.into_iter().filter_map(report).collect()
}

fn rates(observed: &Observed) -> Rates {
    let counts = observed.to.totals.since(observed.from.totals);
    let seconds = seconds_between(&observed.from, &observed.to);
    let rate = |of: fn(&Totals) -> u64| Rate::new(of(&counts), seconds, observed.seconds.iter().map(of).collect());
    Rates {
        published: rate(|totals| totals.published),
        confirmed: rate(|totals| totals.confirmed),
        received: rate(|totals| totals.received),
    }
}

#[allow(clippy::cast_precision_loss, reason = "nanoseconds of hours are far below 2^53")]
fn seconds_between(from: &Sample, to: &Sample) -> f64 {
    (to.nanos - from.nanos) as f64 / 1e9
}

fn cpu_seconds(from: Option<Usage>, to: Option<Usage>) -> Option<f64> {
    Some(to?.cpu_seconds - from?.cpu_seconds)
}

#[allow(clippy::cast_precision_loss, reason = "counts of messages are far below 2^53")]
fn broker_usage(pid: u32, observed: &Observed, resident_octets_before: u64) -> Option<BrokerUsage> {
    let cpu_seconds = cpu_seconds(observed.from.broker, observed.to.broker)?;
    let counts = observed.to.totals.since(observed.from.totals);
    let each = |count: u64| (count > 0 && cpu_seconds > 0.0).then(|| count as f64 / cpu_seconds);
    Some(BrokerUsage {
        pid,
        cpu_seconds,
        published_per_cpu_second: each(counts.published),
        received_per_cpu_second: each(counts.received),
        resident_octets_before,
        resident_octets_after: observed.to.broker?.resident_octets,
    })
}

fn write_files(options: &RunOptions, report: &Report) -> Result<(), RunError> {
    if let Some(path) = &options.json {
        let mut text = serde_json::to_string(report).expect("a report has no maps with odd keys");
        text.push('\n');
        write_file(path, &text)?;
    }
    if let Some(path) = &options.hgrm {
        for (index, latency) in report.latencies.iter().enumerate() {
            let own = if index == 0 { path.clone() } else { named(path, latency.name) };
            write_file(&own, &hgrm::text(latency.name, &Recorded(latency.histogram.clone())))?;
        }
    }
    Ok(())
}

fn write_file(path: &Path, text: &str) -> Result<(), RunError> {
    fs::write(path, text).map_err(|error| RunError::File(path.to_owned(), error))
}

/// `run.hgrm` becomes `run.confirm.hgrm`.
fn named(path: &Path, name: &str) -> PathBuf {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(if extension.is_empty() {
        format!("{stem}.{name}")
    } else {
        format!("{stem}.{name}.{extension}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_files_are_named_after_the_first() {
        assert_eq!(named(Path::new("/a/run.hgrm"), "confirm"), Path::new("/a/run.confirm.hgrm"));
        assert_eq!(named(Path::new("run"), "confirm"), Path::new("run.confirm"));
    }

    #[test]
    fn seconds_that_are_too_long_count_as_one() {
        let counts = Totals { published: 30, confirmed: 0, received: 15 };
        assert_eq!(per_second(counts, 1_500_000_000), Totals { published: 20, confirmed: 0, received: 10 });
    }
}
