//! What every part of a run shares: the random numbers, the time, the ledger, the trace.

use crate::{
    disk::End,
    faults::{Mutation, Planned},
    ledger::Ledger,
    random::Random,
};
use std::collections::{HashMap, HashSet};

pub struct Context {
    pub random: Random,
    pub ledger: Ledger,
    /// Steps so far.
    pub step: u64,
    /// Milliseconds on the broker's clock.
    pub now: u64,
    pub mutation: Option<Planned>,
    /// Messages that are in a ring on their way to their queue: how many copies.
    pub under_way: HashMap<u64, u32>,
    /// Queue and position of all that was delivered to another shard and not settled.
    pub positions: HashSet<(u64, u64)>,
    /// Whether everything is to go well and fast from now on.
    pub is_healthy: bool,
    /// Counts whatever moves, to see when nothing does any more.
    pub activity: u64,
    pub memory_is_short: bool,
    /// Whether what is durable outlives the broker, which ends now and then.
    pub is_durable: bool,
    /// Below the disk's watermark.
    pub disk_is_short: bool,
    /// What the disk has returned that a shard cannot go on with.
    pub failure: Option<String>,
    /// When the broker is to end because a mutation needs that to be noticed, and how.
    pub end_at: Option<(u64, End)>,
    /// Whether most messages are large, so that windows, outputs and outboxes fill up.
    pub is_heavy: bool,
    next_incarnation: u64,
    is_verbose: bool,
}

impl Context {
    pub fn new(seed: u64, mutation: Option<Mutation>, is_verbose: bool) -> Self {
        let mut random = Random::new(seed);
        let wait = random.between(0, 12);
        Self {
            mutation: mutation.map(|mutation| Planned::new(mutation, wait)),
            random,
            ledger: Ledger::default(),
            step: 0,
            now: 0,
            under_way: HashMap::new(),
            positions: HashSet::new(),
            is_healthy: true,
            activity: 0,
            memory_is_short: false,
            is_durable: false,
            disk_is_short: false,
            failure: None,
            end_at: None,
            is_heavy: false,
            next_incarnation: 0,
            is_verbose,
        }
    }

    /// Whether this mutation is to happen now.
    pub fn strikes(&mut self, mutation: Mutation) -> bool {
        let strikes = self.mutation.as_mut().is_some_and(|planned| planned.strikes(mutation));
        if strikes {
            self.trace(|| format!("MUTATION {mutation:?}"));
        }
        strikes
    }

    /// Tells what happens, if anybody wants to know.
    pub fn trace(&self, what: impl FnOnce() -> String) {
        if self.is_verbose {
            println!("{:>6} {:>6} ms  {}", self.step, self.now, what());
        }
    }

    pub fn violation(&mut self, what: String) {
        self.trace(|| format!("VIOLATION {what}"));
        let step = self.step;
        self.ledger.violations.push(format!("step {step}: {what}"));
    }

    /// The broker is to end before long.
    pub fn end_soon(&mut self, end: End) {
        let steps = self.random.between(1, 60) as u64;
        self.end_at = Some((self.step + steps, end));
    }

    /// The power is to fail before long.
    pub fn end_soon_by_power_loss(&mut self) {
        self.end_soon(End::PowerLoss);
    }

    /// A number that no other channel has.
    pub fn incarnation(&mut self) -> u64 {
        self.next_incarnation += 1;
        self.next_incarnation
    }
}
