//! The engine: threads with an executor each, connections on them, and what they share with the thread that watches the run.

pub mod batch;
pub mod check;
pub mod churn;
pub mod client;
pub mod clock;
pub mod confirms;
mod delivery;
pub mod link;
pub mod numbers;
mod receiving;
pub mod recorder;
pub mod sequence;
pub mod sink;
pub mod source;
pub mod stamp;
pub mod topology;
pub mod trace;
pub mod unchecked;
pub mod worker;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;

use crate::engine::batch::Content;
use crate::engine::client::{Endpoint, FRAME_OCTETS_MAX};
use crate::engine::clock::{Clock, Schedule};
use crate::engine::recorder::Recorder;
use crate::engine::topology::Topology;
use crate::engine::trace::TraceLine;
use crate::options::RunOptions;

/// What all threads of a run share.
pub struct Shared {
    /// Of the run.
    pub clock: Clock,
    /// What is asked for.
    pub options: RunOptions,
    /// What is declared.
    pub topology: Topology,
    /// What messages are.
    pub content: Arc<Content>,
    /// Connections go to each in turn.
    pub endpoints: Vec<Endpoint>,
    /// What is played again.
    pub trace: Option<Vec<TraceLine>>,
    /// Set once everybody is ready.
    pub schedule: OnceLock<Schedule>,
    /// By thread.
    pub progress: Vec<Progress>,
    signals: AtomicU64,
    consuming: AtomicBool,
    producing_over: AtomicBool,
    stopped: AtomicBool,
    over: AtomicBool,
    failed: AtomicBool,
    failures: Mutex<Vec<String>>,
}

/// Counters of one thread, since the run's start, on cache lines of their own.
#[repr(align(128))]
#[derive(Default)]
pub struct Progress {
    /// Messages written.
    pub published: AtomicU64,
    /// Messages received, those that came again included.
    pub received: AtomicU64,
    /// Messages that were given back, so that they come again.
    pub requeued: AtomicU64,
    /// Messages that no queue has got: refused or returned.
    pub not_taken: AtomicU64,
    /// Operations done, or replies received.
    pub operations: AtomicU64,
    /// Publishes, gets and commits that the broker has answered.
    pub answered: AtomicU64,
    /// `connection.blocked` came so many times.
    pub blocked: AtomicU64,
    /// `connection.unblocked` came so many times.
    pub unblocked: AtomicU64,
    /// A channel waits until this time, in nanoseconds of the run's clock, before it is to send; it may have passed.
    pub next_due: AtomicU64,
    /// Publishing channels that have finished, well or not.
    pub sources_finished: AtomicU64,
    /// Channels that consume.
    pub sinks_ready: AtomicU64,
}

/// Sums over all threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// As in [`Progress`].
    pub published: u64,
    /// As in [`Progress`].
    pub received: u64,
    /// As in [`Progress`].
    pub requeued: u64,
    /// As in [`Progress`].
    pub not_taken: u64,
    /// As in [`Progress`].
    pub operations: u64,
    /// As in [`Progress`].
    pub answered: u64,
    /// As in [`Progress`].
    pub blocked: u64,
    /// As in [`Progress`].
    pub unblocked: u64,
    /// As in [`Progress`]: the last of all.
    pub next_due: u64,
    /// As in [`Progress`].
    pub sources_finished: u64,
    /// As in [`Progress`].
    pub sinks_ready: u64,
}

impl Shared {
    /// Nothing has happened.
    pub fn new(
        options: RunOptions,
        topology: Topology,
        endpoints: Vec<Endpoint>,
        trace: Option<Vec<TraceLine>>,
        threads: usize,
    ) -> Self {
        Self {
            clock: Clock::start(),
            content: Arc::new(Content::new(&options, &topology)),
            options,
            topology,
            endpoints,
            trace,
            schedule: OnceLock::new(),
            progress: (0..threads).map(|_| Progress::default()).collect(),
            signals: AtomicU64::new(0),
            consuming: AtomicBool::new(false),
            producing_over: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            over: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            failures: Mutex::default(),
        }
    }

    /// What all threads have done.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for progress in &self.progress {
            totals.published += progress.published.load(Ordering::Relaxed);
            totals.received += progress.received.load(Ordering::Relaxed);
            totals.requeued += progress.requeued.load(Ordering::Relaxed);
            totals.not_taken += progress.not_taken.load(Ordering::Relaxed);
            totals.operations += progress.operations.load(Ordering::Relaxed);
            totals.answered += progress.answered.load(Ordering::Relaxed);
            totals.blocked += progress.blocked.load(Ordering::Relaxed);
            totals.unblocked += progress.unblocked.load(Ordering::Relaxed);
            totals.next_due = totals.next_due.max(progress.next_due.load(Ordering::Relaxed));
            totals.sources_finished += progress.sources_finished.load(Ordering::Relaxed);
            totals.sinks_ready += progress.sinks_ready.load(Ordering::Relaxed);
        }
        totals
    }

    fn signal(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::Relaxed);
        self.signals.fetch_add(1, Ordering::Release);
    }

    /// Producers may begin, as the schedule says.
    pub fn start(&self, schedule: Schedule) {
        self.schedule.set(schedule).expect("set once, by the thread that watches");
        self.signals.fetch_add(1, Ordering::Release);
    }

    /// Rises with each signal: connections are to look.
    pub fn signals(&self) -> u64 {
        self.signals.load(Ordering::Acquire)
    }

    /// Consumers may begin.
    pub fn begin_consuming(&self) {
        self.signal(&self.consuming);
    }

    /// They may.
    pub fn is_consuming(&self) -> bool {
        self.consuming.load(Ordering::Relaxed)
    }

    /// The time is over: producers are to finish. Those that are late catch up.
    pub fn end_producing(&self) {
        self.signal(&self.producing_over);
    }

    /// The run ends before its time: producers are to finish at once.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.end_producing();
    }

    /// It does.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// They are to.
    pub fn is_producing_over(&self) -> bool {
        self.producing_over.load(Ordering::Relaxed)
    }

    /// All are to finish.
    pub fn end(&self) {
        self.signal(&self.over);
    }

    /// They are to.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Something has failed, so that nothing can go on.
    pub fn fail(&self, sentence: String) {
        self.failures.lock().expect("nobody panics with it").push(sentence);
        self.failed.store(true, Ordering::Relaxed);
    }

    /// It has.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// What has failed. Many connections that fail alike are one sentence.
    pub fn take_failures(&self) -> Vec<String> {
        let all = std::mem::take(&mut *self.failures.lock().expect("nobody panics with it"));
        let more = all.len().saturating_sub(5);
        let mut first: Vec<String> = all.into_iter().take(5).collect();
        if more > 0 {
            first.push(format!("and {more} failures more"));
        }
        first
    }
}

/// What the connections of one thread share.
pub struct Context {
    /// With all threads.
    pub shared: Arc<Shared>,
    /// Which thread.
    pub thread: usize,
    /// What they record.
    pub recorder: RefCell<Recorder>,
    /// What they read into, one after the other.
    pub read_buffer: RefCell<Vec<u8>>,
    wakers: RefCell<Vec<Waker>>,
    /// Tasks that may not publish before messages have been received.
    waiting: RefCell<Vec<Waker>>,
    /// How often these were woken.
    wakings: Cell<u64>,
}

impl Context {
    /// Of one thread.
    pub fn new(shared: Arc<Shared>, thread: usize) -> Rc<Self> {
        Rc::new(Self {
            shared,
            thread,
            recorder: RefCell::default(),
            read_buffer: RefCell::new(vec![0; link::READ_OCTETS + FRAME_OCTETS_MAX as usize + 64]),
            wakers: RefCell::default(),
            waiting: RefCell::default(),
            wakings: Cell::new(0),
        })
    }

    /// What this thread has done.
    pub fn progress(&self) -> &Progress {
        &self.shared.progress[self.thread]
    }

    /// Lets the thread that watches see what this thread has done.
    pub fn tell_progress(&self) {
        let (all, answered) = {
            let recorder = self.recorder.borrow();
            (recorder.all_counts(), recorder.answered)
        };
        let progress = self.progress();
        let had = progress.received.load(Ordering::Relaxed) + progress.not_taken.load(Ordering::Relaxed);
        progress.published.store(all.published, Ordering::Relaxed);
        progress.received.store(all.received, Ordering::Relaxed);
        progress.requeued.store(all.requeued, Ordering::Relaxed);
        progress.not_taken.store(all.refused + all.returned, Ordering::Relaxed);
        progress.operations.store(all.operations, Ordering::Relaxed);
        progress.answered.store(all.confirmed + answered, Ordering::Relaxed);
        if had != all.received + all.refused + all.returned && !self.waiting.borrow().is_empty() {
            self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
            self.wakings.set(self.wakings.get() + 1);
        }
    }

    /// A channel does not send before that time.
    pub fn wait_until(&self, at: u64) {
        let next_due = &self.progress().next_due;
        if next_due.load(Ordering::Relaxed) < at {
            next_due.store(at, Ordering::Relaxed);
        }
    }

    /// Wakes a task once this thread has received more. `waiting_since` is the task's, to ask for that once: `None` at first.
    pub fn wait_for_progress(&self, waker: &Waker, waiting_since: &mut Option<u64>) {
        if *waiting_since != Some(self.wakings.get()) {
            self.waiting.borrow_mut().push(waker.clone());
            *waiting_since = Some(self.wakings.get());
        }
    }

    /// A task that is to look at signals.
    pub fn keep_waker(&self, waker: Waker) {
        self.wakers.borrow_mut().push(waker);
    }

    /// There is a signal.
    pub fn wake_all(&self) {
        for waker in self.wakers.borrow().iter() {
            waker.wake_by_ref();
        }
    }
}
