//! The deliveries of one channel that await their acknowledgement, by delivery tag.
//!
//! Tags grow; acknowledgements mostly come in order, so this is a ring with holes.

use crate::{
    definitions::{QueueId, ShardIndex},
    queue::{ConsumerKey, Position},
};
use std::collections::VecDeque;

/// Settled entries that are put up with.
const SETTLED_RETAINED: usize = 4096;

/// Which queue an outstanding delivery came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueHandle {
    /// Its shard.
    pub home: ShardIndex,
    /// Where that shard keeps it; a hint that is checked against `id`.
    pub slot: u32,
    /// The queue.
    pub id: QueueId,
}

/// One delivery that awaits its acknowledgement.
#[derive(Clone, Copy, Debug)]
pub struct Outstanding {
    /// The delivery tag.
    pub tag: u64,
    /// Where the message came from.
    pub queue: QueueHandle,
    /// Its position there.
    pub position: Position,
    /// To whom it was delivered; `None` for `basic.get`.
    pub consumer: Option<ConsumerKey>,
    settled: bool,
}

impl Outstanding {
    /// A delivery that has just been made.
    pub fn new(tag: u64, queue: QueueHandle, position: Position, consumer: Option<ConsumerKey>) -> Self {
        Self { tag, queue, position, consumer, settled: false }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Unacknowledged {
    ring: VecDeque<Outstanding>,
    settled: usize,
}

impl Unacknowledged {
    /// How many await their acknowledgement.
    #[inline]
    pub fn len(&self) -> usize {
        self.ring.len() - self.settled
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes note of a delivery; its tag is higher than all before.
    #[inline]
    pub fn push(&mut self, outstanding: Outstanding) {
        debug_assert!(self.ring.back().is_none_or(|last| last.tag < outstanding.tag), "tags grow");
        self.ring.push_back(outstanding);
    }

    /// Takes the delivery with this tag out; `None` if it is not outstanding.
    pub fn take(&mut self, tag: u64) -> Option<Outstanding> {
        let at = match self.ring.front() {
            Some(front) if front.tag == tag => 0,
            _ => self.ring.binary_search_by_key(&tag, |outstanding| outstanding.tag).ok()?,
        };
        let entry = &mut self.ring[at];
        if entry.settled {
            return None;
        }
        let taken = *entry;
        entry.settled = true;
        self.settled += 1;
        while self.ring.front().is_some_and(|front| front.settled) {
            self.ring.pop_front();
            self.settled -= 1;
        }
        self.compact();
        Some(taken)
    }

    /// Sweeps settled ones out that stand behind one that is not settled, where they are the larger half.
    fn compact(&mut self) {
        if self.settled > SETTLED_RETAINED && self.settled > self.ring.len() / 2 {
            self.ring.retain(|outstanding| !outstanding.settled);
            self.settled = 0;
        }
    }

    /// Gives memory back that a burst has left: all where none is outstanding. To be called now and then.
    pub fn shrink(&mut self) {
        if self.ring.is_empty() {
            self.ring = VecDeque::new();
        } else if self.ring.capacity() > 4 * self.ring.len().max(SETTLED_RETAINED) {
            self.ring.shrink_to(2 * self.ring.len());
        }
    }

    /// Takes the oldest one out if its tag is not above `tag`.
    #[inline]
    pub fn take_front_through(&mut self, tag: u64) -> Option<Outstanding> {
        loop {
            let front = self.ring.front()?;
            if front.tag > tag {
                return None;
            }
            let taken = *front;
            self.ring.pop_front();
            if taken.settled {
                self.settled -= 1;
            } else {
                return Some(taken);
            }
        }
    }

    /// Puts deliveries back that were taken out, in the order of their tags.
    pub fn restore(&mut self, taken: impl IntoIterator<Item = Outstanding>) {
        let mut all: Vec<Outstanding> = self.ring.drain(..).filter(|outstanding| !outstanding.settled).collect();
        all.extend(taken.into_iter().map(|outstanding| Outstanding { settled: false, ..outstanding }));
        all.sort_unstable_by_key(|outstanding| outstanding.tag);
        self.ring = all.into();
        self.settled = 0;
    }

    /// Whether a `multiple` up to this tag means anything that is known: the tag itself is outstanding, or was the last.
    pub fn contains(&self, tag: u64) -> bool {
        self.ring.binary_search_by_key(&tag, |outstanding| outstanding.tag).is_ok_and(|at| !self.ring[at].settled)
    }

    /// The memory that is held, in octets.
    pub fn octets_held(&self) -> usize {
        self.ring.capacity() * size_of::<Outstanding>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outstanding(tag: u64) -> Outstanding {
        Outstanding::new(tag, QueueHandle { home: ShardIndex(0), slot: 0, id: QueueId(1) }, tag, None)
    }

    /// Goal: what a rolled back transaction puts back is outstanding again.
    #[test]
    fn what_is_restored_is_outstanding() {
        let mut unacknowledged = Unacknowledged::default();
        (1..=3).for_each(|tag| unacknowledged.push(outstanding(tag)));
        let taken = unacknowledged.take(2).expect("it is outstanding");
        unacknowledged.restore([taken]);
        assert_eq!(unacknowledged.len(), 3);
        let all: Vec<u64> = std::iter::from_fn(|| unacknowledged.take_front_through(9)).map(|it| it.tag).collect();
        assert_eq!(all, [1, 2, 3]);
    }

    /// Goal: one delivery that is never settled does not make the memory grow with all that comes after it.
    /// Method: settle a million others one by one; then the first one after all.
    #[test]
    fn one_that_is_forgotten_keeps_nothing_behind_it() {
        let mut unacknowledged = Unacknowledged::default();
        unacknowledged.push(outstanding(1));
        for tag in 2..1_000_000 {
            unacknowledged.push(outstanding(tag));
            assert_eq!(unacknowledged.take(tag).map(|taken| taken.tag), Some(tag));
        }
        assert!(unacknowledged.octets_held() <= 4 * SETTLED_RETAINED * size_of::<Outstanding>());
        assert_eq!(unacknowledged.len(), 1);
        assert!(unacknowledged.contains(1) && !unacknowledged.contains(999_999));
        assert_eq!(unacknowledged.take(1).map(|taken| taken.tag), Some(1));
        assert!(unacknowledged.is_empty());
    }

    /// Goal: what a burst has needed is given back, also where it was settled by one `multiple`.
    #[test]
    fn memory_of_a_burst_is_given_back() {
        let mut unacknowledged = Unacknowledged::default();
        (1..=100_000).for_each(|tag| unacknowledged.push(outstanding(tag)));
        while unacknowledged.take_front_through(99_990).is_some() {}
        unacknowledged.shrink();
        assert!(unacknowledged.octets_held() <= 64 * size_of::<Outstanding>());
        assert_eq!(unacknowledged.len(), 10);
        while unacknowledged.take_front_through(u64::MAX).is_some() {}
        unacknowledged.shrink();
        assert_eq!(unacknowledged.octets_held(), 0);
    }

    /// Goal: each delivery is taken once, in whatever order.
    #[test]
    fn each_is_taken_once() {
        let mut unacknowledged = Unacknowledged::default();
        for tag in [1, 2, 4, 5, 9] {
            unacknowledged.push(outstanding(tag));
        }
        assert!(unacknowledged.take(3).is_none());
        assert_eq!(unacknowledged.take(4).map(|taken| taken.tag), Some(4));
        assert!(unacknowledged.take(4).is_none());
        assert_eq!(unacknowledged.len(), 4);
        let rest: Vec<u64> =
            std::iter::from_fn(|| unacknowledged.take_front_through(5)).map(|taken| taken.tag).collect();
        assert_eq!(rest, [1, 2, 5]);
        assert!(unacknowledged.contains(9));
        assert_eq!(unacknowledged.len(), 1);
        assert_eq!(unacknowledged.take(9).map(|taken| taken.tag), Some(9));
        assert!(unacknowledged.is_empty());
    }
}
