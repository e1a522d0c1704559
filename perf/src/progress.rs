//! Counters that threads raise and the run reads once a second.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::clock::Schedule;

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
            producers_stop: AtomicBool::new(false),
            consumers_stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
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
