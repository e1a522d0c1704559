//! Results as they might be, for tests: two brokers, several rounds, an open loop; the same for every call.

use std::collections::BTreeMap;

use super::{BrokerUse, Check, Counts, Interval, Origin, Recorded, ResultFile, Run, SCHEMA, Target, histogram};
use crate::random::Random;

const INTERVALS: u32 = 20;
const MESSAGES: u64 = 5_000;

/// Lepus and another broker in turn, so many rounds of each, with a stall of the other one.
pub fn two_brokers(rounds: u32) -> ResultFile {
    let runs = (0..rounds)
        .flat_map(|round| [run("lepus", "Lepus", 200_000.0, round), run("rabbitmq", "RabbitMQ", 600_000.0, round)]);
    ResultFile { schema: SCHEMA.to_owned(), origin: origin(), runs: runs.collect() }
}

/// One broker, one round, latencies stretched by a factor.
pub fn one_broker(factor: f64) -> ResultFile {
    let runs = vec![run("lepus", "Lepus", 200_000.0 * factor, 0)];
    ResultFile { schema: SCHEMA.to_owned(), origin: origin(), runs }
}

fn origin() -> Origin {
    Origin {
        version: "0.1.0".to_owned(),
        revision: Some("56a079c".to_owned()),
        command: ["lepus-perf", "run", "--rate", "5000", "--name", "<b>&\"'\u{2028}</script>"]
            .map(str::to_owned)
            .into(),
        started_unix_millis: 1_790_000_000_000,
        cpu_model: "Example CPU @ 3.00GHz".to_owned(),
        processors: 8,
        kernel: "Linux 6.1.0".to_owned(),
        memory_octets: 16 << 30,
    }
}

/// One run; `scale` is the median of its latencies in nanoseconds.
pub fn run(name: &str, product: &str, scale: f64, round: u32) -> Run {
    let mut random = Random::new(u64::from(round) ^ scale.to_bits());
    let is_other = product != "Lepus";
    let mut intervals = Vec::new();
    for index in 0..INTERVALS {
        let stall = if is_other && index == 12 { 20.0 } else { 1.0 };
        intervals.push(interval(index, scale * stall * (0.95 + 0.1 * random.unit()), &mut random));
    }
    let all = intervals.iter().fold(Counts::default(), |mut all, interval| {
        all += interval.counts;
        all
    });
    let check = Check { totals: all, ..Check::default() };
    Run { intervals, check, ..bare(name, product, round) }
}

/// One run without intervals.
pub fn bare(name: &str, product: &str, round: u32) -> Run {
    let is_other = product != "Lepus";
    Run {
        scenario: "steady".to_owned(),
        target: Target {
            name: name.to_owned(),
            uri: "amqp://guest@127.0.0.1:5672/%2F".to_owned(),
            product: product.to_owned(),
            version: "1.0".to_owned(),
            platform: "Linux".to_owned(),
            cores: vec![0],
        },
        round,
        workload: BTreeMap::from([("rate".to_owned(), "5000".to_owned()), ("size".to_owned(), "1024".to_owned())]),
        rate: Some(5000.0),
        seed: 1,
        started_unix_millis: 1_790_000_000_000 + u64::from(round) * 60_000 + u64::from(is_other) * 30_000,
        client_cores: vec![1, 2],
        intervals: Vec::new(),
        check: Check::default(),
        broker: Some(BrokerUse {
            pid: 4242,
            cpu_seconds: 3.6 * if is_other { 3.0 } else { 1.0 },
            resident_octets_before: 20 << 20,
            resident_octets_max: 50 << 20,
            disk_octets: Some(100 << 20),
            write_calls: Some(12_345),
        }),
        client_cpu_seconds: 4.5,
        client_busy_part: Some(0.42),
        invalid: if is_other && round == 1 {
            vec!["the load generator fell behind: send lag".to_owned()]
        } else {
            vec![]
        },
        warnings: if round == 0 {
            vec!["the broker shares <core> 0 with the load generator".to_owned()]
        } else {
            vec![]
        },
        failures: Vec::new(),
        unchecked: Vec::new(),
        phases: Vec::new(),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "latencies of a second at most")]
fn interval(index: u32, scale: f64, random: &mut Random) -> Interval {
    let mut recorded = [histogram::RESPONSE, histogram::SERVICE, histogram::SEND_LAG, histogram::CONFIRM]
        .map(|name| (name.to_owned(), Recorded::default()));
    for _ in 0..MESSAGES {
        // Log-normal, with a tail of one in a hundred.
        let normal = (-2.0 * random.unit().ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos();
        let tail = if random.unit() < 0.01 { 3.0 + 9.0 * random.unit() } else { 1.0 };
        let service = scale * (0.35 * normal).exp() * tail;
        let lag = 2_000.0 + 10_000.0 * random.unit();
        for ((_, recorded), nanos) in recorded.iter_mut().zip([service + lag, service, lag, service * 0.8]) {
            recorded.record(nanos as u64);
        }
    }
    let messages = MESSAGES - u64::from(index % 3);
    let counts = Counts {
        published: messages,
        published_octets: messages * 1024,
        confirmed: messages,
        received: messages,
        acknowledged: messages,
        ..Counts::default()
    };
    Interval {
        start_seconds: f64::from(index),
        seconds: 1.0,
        is_warm_up: index < 2,
        counts,
        backlog: (scale / 200_000.0) as u64,
        broker_cpu_seconds: Some((0.2 + 0.02 * random.unit()) * (scale / 200_000.0).clamp(1.0, 3.0)),
        broker_resident_octets: Some((40 << 20) + u64::from(index) * 100_000),
        broker_disk_octets: Some(5 << 20),
        broker_write_calls: Some(600),
        histograms: recorded.into(),
    }
}
