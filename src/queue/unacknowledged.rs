//! What was delivered and awaits its acknowledgement: from position to place.
//!
//! Positions are handed out in order and mostly settled in order, so a ring indexed by position does it without
//! hashing. Positions that lie far apart (a message that nobody settles while millions pass by, the levels of a queue
//! with priorities) go into a hash map instead of stretching the ring.

use super::Position;
use super::blocks::Place;
use ahash::AHashMap;
use std::collections::VecDeque;

/// The longest run of positions that are filled in when the next message is not the following one.
const GAP_MAX: u64 = 64;
/// A ring from this length on, in positions, must be filled by an eighth to be allowed to grow.
const RING_LENGTH_SPARSE_MIN: usize = 1024;
/// The empty ring and the empty map keep their memory up to this capacity, in messages.
const CAPACITY_RETAINED: usize = 512;

/// The messages of one queue that await their acknowledgement.
#[derive(Default)]
pub(super) struct Unacknowledged {
    /// The places of the positions from `first` on; [`Place::NONE`] where one is not outstanding. Its first slot is one
    /// that is.
    ring: VecDeque<Place>,
    first: Position,
    /// How many slots of the ring are outstanding.
    ring_count: usize,
    scattered: AHashMap<Position, Place>,
}

impl Unacknowledged {
    /// How many are outstanding.
    #[inline]
    pub fn len(&self) -> usize {
        self.ring_count + self.scattered.len()
    }

    /// Adds a message that is not outstanding.
    #[inline]
    pub fn insert(&mut self, position: Position, place: Place) {
        let end = self.first + self.ring.len() as u64;
        if position == end && self.ring.len() < self.ring.capacity() {
            self.ring.push_back(place);
            self.ring_count += 1;
        } else {
            self.insert_out_of_line(position, place, end);
        }
    }

    #[cold]
    fn insert_out_of_line(&mut self, position: Position, place: Place, end: Position) {
        if self.ring.is_empty() {
            self.first = position;
        } else if position < self.first {
            self.scattered.insert(position, place);
            return;
        } else if position < end {
            let slot = &mut self.ring[index(position - self.first)];
            assert!(*slot == Place::NONE, "a position is outstanding once");
            *slot = place;
            self.ring_count += 1;
            return;
        } else if position - end > GAP_MAX || self.is_sparse() {
            self.scatter();
            self.first = position;
        } else {
            self.ring.extend((end..position).map(|_| Place::NONE));
        }
        self.ring.push_back(place);
        self.ring_count += 1;
    }

    /// Whether the ring would grow although few of its slots are outstanding.
    fn is_sparse(&self) -> bool {
        let length = self.ring.len();
        length >= RING_LENGTH_SPARSE_MIN && length == self.ring.capacity() && self.ring_count < length / 8
    }

    /// Moves all of the ring into the map.
    fn scatter(&mut self) {
        for (position, place) in (self.first..).zip(self.ring.drain(..)) {
            if place != Place::NONE {
                self.scattered.insert(position, place);
            }
        }
        self.ring_count = 0;
    }

    /// The place of an outstanding message, which stays so.
    #[inline]
    pub fn get(&self, position: Position) -> Option<Place> {
        match position.checked_sub(self.first).and_then(|offset| self.ring.get(index(offset))) {
            Some(&place) if place != Place::NONE => Some(place),
            _ => self.scattered.get(&position).copied(),
        }
    }

    /// Takes a message out. `None` where the position is not outstanding.
    #[inline]
    pub fn take(&mut self, position: Position) -> Option<Place> {
        if let Some(offset) = position.checked_sub(self.first)
            && let Some(slot) = self.ring.get_mut(index(offset))
        {
            let place = std::mem::replace(slot, Place::NONE);
            if place != Place::NONE {
                self.ring_count -= 1;
                if offset == 0 {
                    self.drop_settled();
                }
                return Some(place);
            }
        }
        if self.scattered.is_empty() { None } else { self.take_scattered(position) }
    }

    /// Drops the slots before the first one that is outstanding.
    #[inline]
    fn drop_settled(&mut self) {
        while let Some(&Place::NONE) = self.ring.front() {
            self.ring.pop_front();
            self.first += 1;
        }
        if self.ring.is_empty() && self.ring.capacity() > CAPACITY_RETAINED {
            self.ring = VecDeque::with_capacity(CAPACITY_RETAINED);
        }
    }

    #[cold]
    fn take_scattered(&mut self, position: Position) -> Option<Place> {
        let place = self.scattered.remove(&position);
        if self.scattered.is_empty() && self.scattered.capacity() > CAPACITY_RETAINED {
            self.scattered = AHashMap::new();
        }
        place
    }

    /// The memory held, unused room counted. Constant time.
    pub fn octets_held(&self) -> u64 {
        // The map has one octet of its own for each slot and leaves one of eight slots empty.
        let scattered = self.scattered.capacity() * (size_of::<(Position, Place)>() + 1) * 8 / 7;
        (self.ring.capacity() * size_of::<Place>() + scattered) as u64
    }
}

/// An index into the ring; where the offset is beyond all memory, one that no ring has.
#[inline]
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Goal: what was inserted is found once, whatever the order of the positions and the gaps between them.
        /// Method: random runs of positions, near and far, forwards and from below, against an ordered map; takes of
        /// outstanding positions, from either end or the middle, and of others.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0_u8..4, any::<u16>(), 1_u64..100), 1..300)) {
            let mut unacknowledged = Unacknowledged::default();
            let mut model = BTreeMap::new();
            let mut next = 1000;
            for (step, pick, run) in steps {
                match step {
                    0 | 1 => {
                        let gap = if pick % 16 == 0 { u64::from(pick) } else { u64::from(pick) % (GAP_MAX + 2) };
                        // One of eight runs goes to positions from below, which are vacant or else skipped.
                        let start = if pick % 8 == 7 { u64::from(pick) % next } else { next + gap };
                        for position in start..start + run {
                            let place = Place::of_test(position);
                            if model.insert(position, place).is_none() {
                                unacknowledged.insert(position, place);
                            }
                        }
                        next = next.max(start + run);
                    }
                    2 => {
                        for _ in 0..run {
                            let Some((&position, _)) = model.first_key_value() else { break };
                            assert!(unacknowledged.take(position) == model.remove(&position));
                        }
                    }
                    _ => {
                        for step in 0..run {
                            let wanted = u64::from(pick) * step % next;
                            let position = model.range(wanted..).next().map_or(wanted, |(&position, _)| position);
                            assert!(unacknowledged.get(position) == model.get(&position).copied());
                            assert!(unacknowledged.take(position) == model.remove(&position));
                            assert!(unacknowledged.take(position).is_none());
                        }
                    }
                }
                assert_eq!(unacknowledged.len(), model.len());
            }
            for (position, place) in model {
                assert!(unacknowledged.take(position) == Some(place));
            }
            let retained = (CAPACITY_RETAINED * 3 * size_of::<(Position, Place)>()) as u64;
            assert!(unacknowledged.octets_held() <= retained, "{} octets", unacknowledged.octets_held());
        }
    }
}
