//! The seeded simulator: several shards, the control plane and clients on one thread, everything from one seed.
//!
//! Batches between shards take their time, sockets take little or nothing, clients vanish in the middle of a frame, queues
//! are deleted under way, memory gets short. Clients speak AMQP; what each has sent takes effect in the books
//! (`ledger`) when its shard has read it, so that the books know exactly what must have become of every message.
//!
//! `cargo test --test simulator` runs some hundred seeds and checks the checker itself; `-- --seeds 10000` runs that
//! many; `-- --seed 123` runs one and tells everything that happens.
#![allow(clippy::too_many_arguments, reason = "what a delivery is has many parts")]

mod actions;
mod channel;
mod client;
mod context;
mod control;
mod database;
mod disk;
mod driver;
mod faults;
mod files;
mod ledger;
mod options;
mod random;
mod receive;
mod restart;
mod ring;
mod topology;
mod wire;
mod world;

use faults::Mutation;
use options::Options;
use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};
use world::{Report, StoreReport};

/// Seeds that a mutation gets to be noticed.
const SEEDS_PER_MUTATION: u64 = 100;
/// So many runs in which a mutation happened are enough.
const STRUCK_RUNS: usize = 4;

thread_local! {
    /// What the last panic said.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::FAILURE;
        }
    };
    if options.lists {
        return ExitCode::SUCCESS;
    }
    std::panic::set_hook(Box::new(|info| PANIC.with_borrow_mut(|text| *text = info.to_string())));
    let (mut passed, mut failed) = (0, 0);
    for is_durable in options.worlds() {
        let (started, mut store) = (Instant::now(), StoreReport::default());
        let (mut messages, mut deliveries, mut confirms) = (0, 0, 0);
        for seed in options.first..options.first + options.seeds {
            let report = run(seed, options.steps, is_durable, None, options.is_verbose);
            messages += report.messages;
            deliveries += report.deliveries;
            confirms += report.confirms;
            store.add(&report.store);
            if report.violations.is_empty() {
                passed += 1;
            } else {
                failed += 1;
                tell(seed, &options, is_durable, &report);
            }
        }
        println!("{messages} messages, {deliveries} deliveries, {confirms} confirms in {:.1?}", started.elapsed());
        if is_durable {
            println!("{store}");
        }
    }
    if options.has_self_test {
        let checks = std::iter::once(check_repeatable(&options));
        for check in checks.chain(faults::ALL.iter().map(|mutation| check_mutation(*mutation, &options))) {
            match check {
                Ok(what) => {
                    passed += 1;
                    println!("{what}");
                }
                Err(what) => {
                    failed += 1;
                    println!("FAILED: {what}");
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one seed; a panic is a violation.
fn run(seed: u64, steps: u64, is_durable: bool, mutation: Option<Mutation>, is_verbose: bool) -> Report {
    catch_unwind(AssertUnwindSafe(|| world::run(seed, steps, is_durable, mutation, is_verbose))).unwrap_or_else(|_| {
        Report {
            violations: vec![PANIC.with_borrow(Clone::clone)],
            digest: 0,
            messages: 0,
            deliveries: 0,
            confirms: 0,
            has_mutated: mutation.is_some(),
            store: StoreReport::default(),
        }
    })
}

fn tell(seed: u64, options: &Options, is_durable: bool, report: &Report) {
    let world = if is_durable { "--durable" } else { "--transient" };
    println!("seed {seed} fails ({world}):");
    for violation in report.violations.iter().take(10) {
        println!("    {violation}");
    }
    println!("    replay: cargo test --test simulator -- --seed {seed} --steps {} {world}", options.steps);
}

/// Goal: a seed gives the same run each time. Method: run some twice.
fn check_repeatable(options: &Options) -> Result<String, String> {
    for (seed, is_durable) in (options.first..options.first + 5).flat_map(|seed| [(seed, false), (seed, true)]) {
        let [first, second] = [(); 2].map(|()| run(seed, options.steps, is_durable, None, false).digest);
        if first != second {
            return Err(format!("seed {seed} gives two different runs, durable: {is_durable}"));
        }
    }
    Ok("seeds give the same run each time".into())
}

/// Goal: the checker notices a mutation. Method: run seeds until it has happened in some; each must be noticed, but for
/// those that may do no harm: then it goes on until one is.
fn check_mutation(mutation: Mutation, options: &Options) -> Result<String, String> {
    let is_harmless = mutation.may_be_harmless();
    let (mut struck, mut noticed) = (0, 0);
    for seed in 0..SEEDS_PER_MUTATION {
        let report = run(1_000_000 + seed, options.steps, mutation.is_of_disk(), Some(mutation), false);
        struck += usize::from(report.has_mutated);
        noticed += usize::from(report.has_mutated && !report.violations.is_empty());
        if struck >= STRUCK_RUNS && (noticed > 0 || !is_harmless) {
            break;
        }
    }
    let needed = if is_harmless { 1 } else { struck };
    let what = format!("{mutation:?} was noticed in {noticed} of {struck} runs");
    if struck > 0 && noticed >= needed { Ok(what) } else { Err(what) }
}

impl StoreReport {
    fn add(&mut self, other: &StoreReport) {
        self.restarts += other.restarts;
        self.refusals += other.refusals;
        self.blocked += other.blocked;
        self.commits += other.commits;
        self.page_outs += other.page_outs;
        self.loads += other.loads;
        self.retired += other.retired;
        self.full += other.full;
    }
}

impl std::fmt::Display for StoreReport {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { restarts, refusals, blocked, commits, page_outs, loads, retired, full } = self;
        write!(
            to,
            "{restarts} restarts, damage refused {refusals} times, {commits} commits, {page_outs} page-outs, {loads} loads, \
             {retired} segments used again, {full} times no room, {blocked} clients told so"
        )
    }
}
