//! What was delivered and awaits its acknowledgement: from position to place.
//!
//! Positions are handed out in order and mostly settled in order, so a ring indexed by position does it without
//! hashing. Positions that lie far apart (a message that nobody settles while millions pass by, the levels of a queue
//! with priorities) go into a hash map instead of stretching the ring.

use super::Position;
use super::blocks::Place;
use ahash::AHashMap;

/// The smallest ring, in positions.
const RING_LENGTH_MIN: usize = 64;
/// A ring grows to no more than this many positions for each message in it, beyond [`RING_LENGTH_DENSE_MAX`].
const RING_LENGTH_PER_MESSAGE_MAX: usize = 8;
/// A ring may grow to this length, in positions, however few messages are in it.
const RING_LENGTH_DENSE_MAX: usize = 1024;
/// The empty ring and the empty map keep their memory up to this capacity, in messages.
const CAPACITY_RETAINED: usize = 512;

/// The messages of one queue that await their acknowledgement.
#[derive(Default)]
pub(super) struct Unacknowledged {
    /// The places of the positions from `first` on, each at its position modulo the length, which is a power of two or
    /// zero. [`Place::NONE`] where a position is not outstanding.
    ring: Vec<Place>,
    /// The lowest position in the ring; any position while the ring is empty.
    first: Position,
    /// How many are in the ring.
    ring_count: usize,
    scattered: AHashMap<Position, Place>,
}

impl Unacknowledged {
    /// How many are outstanding.
    #[inline]
    pub fn len(&self) -> usize {
        self.ring_count + self.scattered.len()
    }

    /// Where a position is in the ring, if the ring reaches so far.
    #[inline]
    fn index(&self, position: Position) -> Option<usize> {
        let offset = position.wrapping_sub(self.first);
        (offset < self.ring.len() as u64).then(|| truncate(position) & (self.ring.len() - 1))
    }

    /// Adds a message that is not outstanding.
    #[inline]
    pub fn insert(&mut self, position: Position, place: Place) {
        if self.ring_count == 0 {
            self.first = position;
        }
        match self.index(position) {
            Some(index) => {
                assert!(self.ring[index] == Place::NONE, "a position is outstanding once");
                self.ring[index] = place;
                self.ring_count += 1;
            }
            None => self.insert_out_of_reach(position, place),
        }
    }

    /// Adds a message where the ring does not reach.
    #[cold]
    fn insert_out_of_reach(&mut self, position: Position, place: Place) {
        if self.ring_count > 0 {
            let Some(offset) = position.checked_sub(self.first) else {
                self.scattered.insert(position, place);
                return;
            };
            let length_max = (self.ring_count * RING_LENGTH_PER_MESSAGE_MAX).max(RING_LENGTH_DENSE_MAX);
            if offset < length_max as u64 {
                self.grow((truncate(offset) + 1).next_power_of_two());
            } else {
                self.scatter();
            }
        }
        if self.ring.is_empty() {
            self.ring = vec![Place::NONE; RING_LENGTH_MIN];
        }
        if self.ring_count == 0 {
            self.first = position;
        }
        let index = self.index(position).expect("the ring reaches so far now");
        self.ring[index] = place;
        self.ring_count += 1;
    }

    fn grow(&mut self, length: usize) {
        let mut grown = vec![Place::NONE; length];
        let first = truncate(self.first);
        for position in first..first + self.ring.len() {
            grown[position & (length - 1)] = self.ring[position & (self.ring.len() - 1)];
        }
        self.ring = grown;
    }

    /// Moves all of the ring into the map.
    fn scatter(&mut self) {
        for position in self.first..self.first + self.ring.len() as u64 {
            let index = truncate(position) & (self.ring.len() - 1);
            let place = std::mem::replace(&mut self.ring[index], Place::NONE);
            if place != Place::NONE {
                self.scattered.insert(position, place);
            }
        }
        self.ring_count = 0;
    }

    /// The place of an outstanding message, which stays so.
    #[inline]
    pub fn get(&self, position: Position) -> Option<Place> {
        match self.index(position) {
            Some(index) if self.ring[index] != Place::NONE => Some(self.ring[index]),
            _ => self.scattered.get(&position).copied(),
        }
    }

    /// All that are outstanding, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Position, Place)> + '_ {
        let ring = (self.first..self.first + self.ring.len() as u64).filter_map(|position| {
            let place = self.ring[truncate(position) & (self.ring.len() - 1)];
            (place != Place::NONE).then_some((position, place))
        });
        ring.chain(self.scattered.iter().map(|(&position, &place)| (position, place)))
    }

    /// Takes a message out. `None` where the position is not outstanding.
    #[inline]
    pub fn take(&mut self, position: Position) -> Option<Place> {
        if let Some(index) = self.index(position) {
            let place = std::mem::replace(&mut self.ring[index], Place::NONE);
            if place != Place::NONE {
                self.ring_count -= 1;
                if self.ring_count == 0 {
                    self.shrink_empty_ring();
                } else if position == self.first {
                    self.skip_settled();
                }
                return Some(place);
            }
        }
        if self.scattered.is_empty() { None } else { self.take_scattered(position) }
    }

    /// Moves `first` up to the lowest position in the ring, in which there is one.
    #[inline]
    fn skip_settled(&mut self) {
        let mask = self.ring.len() - 1;
        while self.ring[truncate(self.first) & mask] == Place::NONE {
            self.first += 1;
        }
    }

    #[inline]
    fn shrink_empty_ring(&mut self) {
        if self.ring.len() > CAPACITY_RETAINED {
            self.ring = Vec::new();
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

/// The low bits of a position, of which a ring uses no more than memory has.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
fn truncate(position: u64) -> usize {
    position as usize
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
                        let gap = if pick % 16 == 0 { u64::from(pick) } else { u64::from(pick) % 100 };
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
