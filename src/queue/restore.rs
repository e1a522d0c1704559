//! A queue as a process has left it that has ended: from what its journal and its files say.

use super::record::Labels;
use super::relocation::Forwarded;
use super::{Position, Queue};
use crate::definitions::QueueOptions;
use crate::store::{ExtentNote, RangeSet};

/// What of an extent of a process that has ended is alive.
#[derive(Clone, Copy, Debug)]
pub struct LiveExtent {
    /// The number of its file.
    pub file: u32,
    /// Where it lies, and what is in it.
    pub note: ExtentNote,
    /// How many of its messages are alive, at least one.
    pub count: u32,
    /// The octets of their bodies.
    pub octets: u64,
}

impl Queue {
    /// An empty queue with a log, that what was left is then put into: files, then, by rising position for each priority, messages
    /// and extents, then [`Queue::finish_restore`]. Below `delivered_below` messages may have been delivered.
    pub fn restored(options: QueueOptions, delivered_below: Position) -> Queue {
        let mut queue = Queue::logged(options);
        queue.restore_delivered_below(delivered_below);
        // All of it depends on the journals that were left.
        queue.store.segment = 0;
        queue
    }

    /// A file that is there. By rising number.
    pub fn restore_file(&mut self, number: u32, octets: u64) {
        self.store.restore_file(number, octets);
    }

    /// A message of the journal that is alive.
    pub fn restore_message(&mut self, forwarded: &Forwarded<'_>) {
        let Forwarded { position, priority, expires_at, redelivered, message } = forwarded;
        let priority = (*priority).min(self.options.priority_max.unwrap_or(0));
        let labels = Labels {
            position: Some(*position),
            priority,
            expires_at: *expires_at,
            persistent: true,
            redelivered: *redelivered,
        };
        self.has_expiring |= expires_at.is_some();
        self.store.append(&mut self.levels.level_mut(priority).chain, message, &labels);
        self.levels.note_added(priority);
        self.ready_count += 1;
        self.ready_octets += message.body.len() as u64;
        self.position_next = self.position_next.max(position + 1);
    }

    /// An extent of a file in which something is alive.
    pub fn restore_extent(&mut self, extent: &LiveExtent) {
        let head = &extent.note.head;
        let priority = head.priority.min(self.options.priority_max.unwrap_or(0));
        let chain = &mut self.levels.level_mut(priority).chain;
        self.store.restore_extent(chain, extent.file, &extent.note, extent.count);
        self.levels.note_added(priority);
        self.ready_count += u64::from(extent.count);
        self.ready_octets += extent.octets;
        // It is not known whether something in it expires.
        self.has_expiring = true;
        self.position_next = self.position_next.max(head.last_position + 1);
    }

    /// All is there. `settled` are the positions that are dead in the files; what comes next gets `position_next` or a higher one.
    pub fn finish_restore(&mut self, settled: RangeSet, position_next: Position) {
        self.position_next = self.position_next.max(position_next);
        self.store.finish_restore(settled);
    }
}
