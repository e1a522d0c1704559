//! The levels of a queue: one first-in first-out list for each priority in use, and which of them is next.
//!
//! A queue without priorities has the one level 0. Messages that were requeued stand before the others of their level,
//! in the order of their positions: all of them were in front of what was not delivered yet.

use super::Position;
use super::blocks::{Chain, Place};
use std::collections::BTreeMap;

/// The ready messages of one priority.
pub(super) struct Level {
    /// What came back after it was delivered.
    pub requeued: BTreeMap<Position, Place>,
    /// What was never delivered.
    pub chain: Chain,
}

impl Level {
    pub fn is_empty(&self) -> bool {
        self.chain.is_empty() && self.requeued.is_empty()
    }
}

/// All levels up to the highest one used, and the highest one that has a ready message.
pub(super) struct Levels {
    by_priority: Vec<Level>,
    /// One bit for each level that has a ready message. Not kept while there is only the level 0.
    occupied: [u64; 4],
    /// The highest level that has a ready message; any one where there is none.
    top: u8,
}

impl Levels {
    pub fn new() -> Levels {
        let mut levels = Levels { by_priority: vec![], occupied: [0; 4], top: 0 };
        levels.grow(0);
        levels
    }

    /// Adds the levels up to that of `priority`.
    #[cold]
    fn grow(&mut self, priority: u8) {
        if self.by_priority.len() == 1 && !self.by_priority[0].is_empty() {
            self.occupied[0] = 1;
        }
        let length = usize::from(priority) + 1;
        self.by_priority.resize_with(length, || Level { requeued: BTreeMap::new(), chain: Chain::new() });
    }

    /// The level that the next message comes from, if there is one.
    #[inline]
    pub fn top(&self) -> &Level {
        &self.by_priority[usize::from(self.top)]
    }

    /// The level that the next message comes from, for taking it; [`Levels::note_removed`] follows.
    #[inline]
    pub fn top_mut(&mut self) -> &mut Level {
        &mut self.by_priority[usize::from(self.top)]
    }

    /// All levels, each with its priority.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Level)> {
        (0..=u8::MAX).zip(&self.by_priority)
    }

    /// All levels, each with its priority, for moving what is in them between memory and disk.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u8, &mut Level)> {
        (0..=u8::MAX).zip(&mut self.by_priority)
    }

    /// The level of `priority`, for adding to it; [`Levels::note_added`] follows where the message stays.
    #[inline]
    pub fn level_mut(&mut self, priority: u8) -> &mut Level {
        if usize::from(priority) >= self.by_priority.len() {
            self.grow(priority);
        }
        &mut self.by_priority[usize::from(priority)]
    }

    /// The level of `priority` has got a ready message.
    #[inline]
    pub fn note_added(&mut self, priority: u8) {
        if self.by_priority.len() > 1 {
            self.occupied[usize::from(priority / 64)] |= 1 << (priority % 64);
            if priority > self.top || self.top().is_empty() {
                self.top = priority;
            }
        }
    }

    /// The top level has lost a ready message.
    #[inline]
    pub fn note_removed(&mut self) {
        if self.by_priority.len() > 1 && self.top().is_empty() {
            self.lower_top();
        }
    }

    fn lower_top(&mut self) {
        self.occupied[usize::from(self.top / 64)] &= !(1 << (self.top % 64));
        let highest = (0..=u8::MAX / 64).rev().find(|&word| self.occupied[usize::from(word)] != 0);
        if let Some(word) = highest {
            let bit = self.occupied[usize::from(word)].ilog2();
            self.top = 64 * word + u8::try_from(bit).expect("a word has 64 bits");
        }
    }

    /// The memory held by the levels themselves. Constant time.
    pub fn octets_held(&self) -> u64 {
        (self.by_priority.capacity() * size_of::<Level>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the top is the highest level with a message, over all 256 priorities.
    /// Method: mark levels through their `requeued` maps, in an order that raises and lowers the top, then take all.
    #[test]
    fn the_top_is_the_highest_level_with_a_message() {
        let mut levels = Levels::new();
        let priorities = [0, 200, 3, 255, 64, 63, 128, 1];
        let mut highest = 0;
        for priority in priorities {
            levels.level_mut(priority).requeued.insert(0, Place::NONE);
            levels.note_added(priority);
            highest = highest.max(priority);
            assert_eq!(levels.top, highest);
        }
        let mut expected = priorities;
        expected.sort_unstable_by(|left, right| right.cmp(left));
        for priority in expected {
            assert_eq!(levels.top, priority);
            levels.top_mut().requeued.clear();
            levels.note_removed();
        }
        assert!(levels.top().is_empty());
        levels.level_mut(2).requeued.insert(0, Place::NONE);
        levels.note_added(2);
        assert_eq!(levels.top, 2, "a lower level is the top once the higher ones are empty");
    }

    /// Goal: what was ready before the second level came into use is not forgotten.
    /// Method: one message at level 0, then one at 5, then take the upper.
    #[test]
    fn the_first_level_survives_growth() {
        let mut levels = Levels::new();
        for priority in [0, 5] {
            levels.level_mut(priority).requeued.insert(0, Place::NONE);
            levels.note_added(priority);
        }
        levels.top_mut().requeued.clear();
        levels.note_removed();
        assert_eq!(levels.top, 0);
        assert!(!levels.top().is_empty());
    }
}
