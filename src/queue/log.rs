//! What the journal has to be told of a queue that outlives the process: which messages are gone, which may have been
//! delivered, and from time to time how the queue stands as a whole.
//!
//! **Which may have been delivered.** A message that comes back after a crash must say so (`redelivered`) if anybody may have seen
//! it, even where its acknowledgement was lost. So before messages that have waited are delivered, the journal says below which
//! position that has begun; a few more than are needed at first, more and more while it goes on, so that it costs nothing and marks
//! few that nobody has seen. A message that is delivered as it comes says so in its own record.

use super::{Position, Queue};
use crate::definitions::QueueOptions;
use crate::store::Checkpoint;

/// The most messages that are said to be delivered ahead of their delivery.
const AHEAD_MAX: u64 = 4096;
/// From so many on the next are asked for before they are needed.
const AHEAD_EARLY_MIN: u64 = 64;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Log {
    /// Runs of positions that are gone since the journal was told: the first, and how many.
    settled: Vec<(Position, u64)>,
    /// Whether the journal has to be told how the whole stands.
    is_overtaken: bool,
    /// The journal says of all below this position that they may have been delivered.
    delivered_below: Position,
    /// It was asked to say so of all below this one.
    asked_below: Position,
    /// How many were asked for last.
    ahead: u64,
    /// Below this one a process that has ended may have delivered.
    redelivered_below: Position,
    /// One more than the highest position that was taken from the front.
    passed_below: Position,
}

/// What the journal is to be told of a queue.
pub enum LogEntry {
    /// So many messages from this position on are gone.
    Settled(Position, u64),
    /// How the whole stands.
    Checkpoint(Checkpoint),
}

/// See [`Queue::gate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Whether the front message may be delivered now.
    pub is_open: bool,
    /// The journal is to say that messages below this position may have been delivered; then tell [`Queue::note_delivering`].
    pub ask_below: Option<Position>,
}

impl Log {
    /// Below which position the journal is to say that messages may have been delivered, so that the one at `position`, and those
    /// behind it, can be. `None` where it was asked already.
    fn ask(&mut self, position: Position) -> Option<Position> {
        let spare = if self.ahead >= AHEAD_EARLY_MIN { self.ahead / 2 } else { 0 };
        if self.asked_below > position + spare {
            return None;
        }
        self.ahead = (2 * self.ahead).clamp(1, AHEAD_MAX);
        self.asked_below = self.asked_below.max(position) + self.ahead;
        Some(self.asked_below)
    }
}

impl Queue {
    /// An empty queue whose persistent messages outlive the process.
    pub fn logged(options: QueueOptions) -> Queue {
        Queue { holds_positions: true, log: Some(Box::default()), ..Queue::new(options) }
    }

    /// Whether its persistent messages outlive the process.
    #[inline]
    pub fn is_logged(&self) -> bool {
        self.log.is_some()
    }

    /// Says which segment of the journal the next messages will lie in, or a later one.
    #[inline]
    pub fn set_segment(&mut self, segment: u32) {
        self.store.segment = segment;
    }

    /// Takes note that a journaled message is gone.
    #[inline]
    pub(super) fn log_settled(&mut self, position: Position) {
        let log = self.log.as_mut().expect("only a queue with a log has journaled messages");
        match log.settled.last_mut() {
            Some((first, count)) if *first + *count == position => *count += 1,
            _ => log.settled.push((position, 1)),
        }
    }

    /// All that was ready is gone: that is told as a whole.
    pub(super) fn log_purged(&mut self) {
        if let Some(log) = &mut self.log {
            log.is_overtaken |= !log.settled.is_empty() || self.store.cold.is_some();
        }
    }

    /// Whether the journal has to be told something.
    #[inline]
    pub fn has_log_entries(&self) -> bool {
        self.log.as_ref().is_some_and(|log| !log.settled.is_empty() || log.is_overtaken)
    }

    /// Tells what the journal has to be told. `queue` is what the journal calls the queue.
    pub fn take_log_entries(&mut self, queue: u64, tell: &mut dyn FnMut(LogEntry)) {
        let Some(log) = &mut self.log else { return };
        let settled = std::mem::take(&mut log.settled);
        if std::mem::take(&mut log.is_overtaken) {
            tell(LogEntry::Checkpoint(self.checkpoint(queue)));
            self.store.settled_before().for_each(|(first, count)| tell(LogEntry::Settled(first, count)));
            return;
        }
        for &(first, count) in &settled {
            tell(LogEntry::Settled(first, count));
        }
        // The memory of it is kept for the next time, where it is little.
        if settled.capacity() <= 64
            && let Some(log) = &mut self.log
        {
            log.settled = settled;
            log.settled.clear();
        }
    }

    /// Whether the journal has to go on saying how the queue stands: there are messages or files, or it was said that messages
    /// are delivered that are yet to come, which are delivered then without asking again.
    pub fn is_spoken_for(&self) -> bool {
        let is_ahead = self.log.as_ref().is_some_and(|log| log.asked_below > self.position_next);
        self.has_files() || self.message_count() > 0 || is_ahead
    }

    /// Has the next [`Queue::take_log_entries`] tell how the whole stands.
    pub fn ask_checkpoint(&mut self) {
        if let Some(log) = &mut self.log {
            log.is_overtaken = true;
        }
    }

    /// How the queue stands.
    fn checkpoint(&self, queue: u64) -> Checkpoint {
        let log = self.log.as_ref().expect("asked of a queue with a log");
        let fronts = self.levels.iter().map(|(priority, level)| {
            let is_empty = level.chain.is_empty();
            (priority, if is_empty { self.position_next } else { self.store.front_position(&level.chain) })
        });
        let requeued = self.levels.iter().flat_map(|(_, level)| level.requeued.iter());
        let requeued = requeued.map(|(&position, &place)| (position, place));
        let outstanding = self.unacknowledged.iter().chain(requeued).filter(|(_, place)| place.is_journaled());
        let mut positions: Vec<Position> = outstanding.map(|(position, _)| position).collect();
        positions.sort_unstable();
        let mut ranges: Vec<(Position, u64)> = vec![];
        for position in positions {
            match ranges.last_mut() {
                Some((first, count)) if *first + *count == position => *count += 1,
                _ => ranges.push((position, 1)),
            }
        }
        Checkpoint {
            queue,
            delivered_below: log.asked_below.max(log.redelivered_below),
            position_next: self.position_next,
            levels: fronts.collect(),
            ranges,
        }
    }

    /// Has the next [`Queue::take_log_entries`] tell exactly what was delivered, as the process ends in order.
    pub fn settle_deliveries(&mut self) {
        let Some(log) = &mut self.log else { return };
        let exact = log.passed_below.max(log.redelivered_below);
        if log.asked_below > exact {
            log.delivered_below = exact;
            log.asked_below = exact;
            log.is_overtaken = true;
        }
    }

    /// Takes note that this message was taken from the front. Whether a process that has ended may have delivered it.
    #[inline]
    pub(super) fn note_passed(&mut self, position: Position) -> bool {
        let Some(log) = &mut self.log else { return false };
        log.passed_below = log.passed_below.max(position + 1);
        position < log.redelivered_below
    }

    /// Whether a process that has ended may have delivered this message.
    #[inline]
    pub(super) fn was_delivered_before(&self, position: Position) -> bool {
        self.log.as_ref().is_some_and(|log| position < log.redelivered_below)
    }

    /// Whether the front message can be delivered as far as the journal is concerned, and what is to be asked of that.
    #[inline]
    pub fn gate(&mut self) -> Gate {
        if self.log.is_none() {
            return Gate { is_open: true, ask_below: None };
        }
        let waits = self.front().filter(|front| front.persistent && !front.redelivered).map(|front| front.position);
        let (Some(position), Some(log)) = (waits, &mut self.log) else {
            return Gate { is_open: true, ask_below: None };
        };
        Gate { is_open: position < log.delivered_below, ask_below: log.ask(position) }
    }

    /// The journal says on disk that messages below this position may have been delivered.
    pub fn note_delivering(&mut self, below: Position) {
        if let Some(log) = &mut self.log {
            log.delivered_below = log.delivered_below.max(below);
        }
    }

    /// Says what the journal says of a queue that a process has left that has ended.
    pub(super) fn restore_delivered_below(&mut self, below: Position) {
        if let Some(log) = &mut self.log {
            **log = Log { redelivered_below: below, delivered_below: below, asked_below: below, ..Log::default() };
        }
    }
}
