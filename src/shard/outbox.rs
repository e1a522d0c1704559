//! What a shard has for one other shard: at most one batch a turn, and how much the other has yet to take.
//!
//! Publishes are bounded by credit: `OUTBOX_OCTETS_MAX` may be under way to a peer; it gives credit back as it takes them.
//! Deliveries are bounded by the windows of their consumers, everything else by what it answers.

use super::batch::Batch;
use crate::limits::{CREDIT_OCTETS_STEP, OUTBOX_OCTETS_MAX};

/// Emptied batches that are kept for reuse.
const SPARE_BATCHES_MAX: usize = 4;
/// A batch that has grown beyond this is not kept, in octets.
const SPARE_OCTETS_MAX: usize = 1 << 20;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Outbox {
    batch: Batch,
    /// Emptied batches of this shard's own, to be used again.
    spare: Vec<Batch>,
    /// The peer's batches, emptied, that go back to it.
    emptied: Vec<Batch>,
    /// Octets of publishes that the peer has yet to take.
    under_way_octets: u64,
    /// Octets of the peer's publishes that were taken and not told yet.
    owed_credit_octets: u64,
}

impl Outbox {
    /// Whether publishes to this peer have to wait.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.under_way_octets >= OUTBOX_OCTETS_MAX
    }

    /// The batch that is being gathered.
    #[inline]
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Takes note of a publish that was put into the batch.
    #[inline]
    pub fn add_publish(&mut self, octets: u64) {
        self.batch.publish_octets += octets;
        self.under_way_octets += octets;
    }

    /// The peer's batch was taken: owes what it held of credit, and keeps the emptied batch to give it back.
    pub fn taken(&mut self, publish_octets: u64, empty: Batch) {
        self.owed_credit_octets += publish_octets;
        if self.emptied.len() < SPARE_BATCHES_MAX && empty.octets_held() <= SPARE_OCTETS_MAX {
            self.emptied.push(empty);
        }
    }

    /// An emptied batch of the peer's, for the way back.
    #[inline]
    pub fn poll_emptied(&mut self) -> Option<Batch> {
        self.emptied.pop()
    }

    /// An own batch has come back.
    pub fn add_spare(&mut self, empty: Batch) {
        if self.spare.len() < SPARE_BATCHES_MAX {
            self.spare.push(empty);
        }
    }

    /// The peer gave credit back. Whether publishes may go on that had to wait.
    pub fn restore(&mut self, octets: u64) -> bool {
        let was_full = self.is_full();
        self.under_way_octets =
            self.under_way_octets.checked_sub(octets).expect("a peer gives back only what was under way");
        was_full && !self.is_full()
    }

    /// The batch of this turn, if there is something to send. Credit goes back only where more may come.
    pub fn poll_batch(&mut self, takes_more: bool) -> Option<Batch> {
        let owed = if takes_more { self.owed_credit_octets } else { 0 };
        if owed >= CREDIT_OCTETS_STEP || (owed > 0 && !self.batch.is_empty()) {
            self.batch.credit_octets += std::mem::take(&mut self.owed_credit_octets);
        }
        if self.batch.is_empty() {
            return None;
        }
        Some(std::mem::replace(&mut self.batch, self.spare.pop().unwrap_or_default()))
    }

    /// Whether there is something to tell the peer; credit is nothing.
    pub fn has_messages(&self) -> bool {
        !self.batch.messages.is_empty()
    }

    /// Whether nothing is gathered and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.batch.is_empty() && self.under_way_octets == 0
    }

    /// The memory that it holds, in octets.
    pub fn octets_held(&self) -> u64 {
        let kept: usize = self.spare.iter().chain(&self.emptied).map(Batch::octets_held).sum();
        (self.batch.octets_held() + kept) as u64
    }
}
