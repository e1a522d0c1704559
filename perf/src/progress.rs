//! Counters that threads raise and the run reads once a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::clock::Schedule;
use crate::result::{Recorded, histogram};

/// A counter of one thread on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The owning thread's new count.
    #[inline]
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// The count, a moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the threads of a run share.
pub struct Progress {
    /// Messages written, by producer.
    pub published: Vec<Counter>,
    /// Messages confirmed, by producer.
    pub confirmed: Vec<Counter>,
    /// Messages received, by consumer.
    pub received: Vec<Counter>,
    /// Set once everybody is ready.
    pub schedule: OnceLock<Schedule>,
    /// Consumers that may receive.
    pub consumers_ready: AtomicU64,
    /// Producers that have finished, well or not.
    pub producers_finished: AtomicU64,
    /// Latencies since they were last taken, by thread: producers, then consumers.
    pub latencies: Vec<Mutex<Latencies>>,
    producers_stop: AtomicBool,
    consumers_stop: AtomicBool,
    failed: AtomicBool,
}

impl Progress {
    /// Nothing has happened.
    pub fn new(producers: usize, consumers: usize) -> Self {
        let counters = |count| (0..count).map(|_| Counter::default()).collect();
        Self {
            published: counters(producers),
            confirmed: counters(producers),
            received: counters(consumers),
            schedule: OnceLock::new(),
            consumers_ready: AtomicU64::new(0),
            producers_finished: AtomicU64::new(0),
            latencies: (0..producers + consumers).map(|_| Mutex::default()).collect(),
            producers_stop: AtomicBool::new(false),
            consumers_stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// The latencies of all threads since they were last taken.
    pub fn take_latencies(&self) -> BTreeMap<String, Recorded> {
        let mut all = BTreeMap::new();
        for latencies in &self.latencies {
            let taken = std::mem::take(&mut *latencies.lock().expect("nobody panics with it"));
            let Latencies { response, service, send_lag, confirm } = taken;
            for (name, recorded) in [
                (histogram::RESPONSE, response),
                (histogram::SERVICE, service),
                (histogram::SEND_LAG, send_lag),
                (histogram::CONFIRM, confirm),
            ] {
                if !recorded.is_empty() {
                    all.entry(name.to_owned()).or_insert_with(Recorded::default).add(&recorded);
                }
            }
        }
        all
    }

    /// All published, confirmed, received so far.
    pub fn totals(&self) -> Totals {
        let sum = |counters: &[Counter]| counters.iter().map(Counter::get).sum();
        Totals { published: sum(&self.published), confirmed: sum(&self.confirmed), received: sum(&self.received) }
    }

    /// Producers are to finish.
    pub fn stop_producers(&self) {
        self.producers_stop.store(true, Ordering::Relaxed);
    }

    /// They are to finish.
    #[inline]
    pub fn producers_stopped(&self) -> bool {
        self.producers_stop.load(Ordering::Relaxed)
    }

    /// Consumers are to finish.
    pub fn stop_consumers(&self) {
        self.consumers_stop.store(true, Ordering::Relaxed);
    }

    /// They are to finish.
    #[inline]
    pub fn consumers_stopped(&self) -> bool {
        self.consumers_stop.load(Ordering::Relaxed)
    }

    /// A thread has failed: all are to finish.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
        self.stop_producers();
        self.stop_consumers();
    }

    /// A thread has failed.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

/// What one thread records.
#[derive(Default)]
pub struct Latencies {
    /// From the intended sending to the receipt.
    pub response: Recorded,
    /// From the actual sending to the receipt.
    pub service: Recorded,
    /// From the intended to the actual sending.
    pub send_lag: Recorded,
    /// From sending to the confirm.
    pub confirm: Recorded,
}

/// Counts of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Written by producers.
    pub published: u64,
    /// Confirmed by the broker.
    pub confirmed: u64,
    /// Received by consumers.
    pub received: u64,
}

impl Totals {
    /// What was added since.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            published: self.published - earlier.published,
            confirmed: self.confirmed - earlier.confirmed,
            received: self.received - earlier.received,
        }
    }
}
