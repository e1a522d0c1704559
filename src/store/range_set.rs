//! A set of positions that mostly come in runs: kept as runs.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// A set of `u64` below `u64::MAX`. What it costs grows with the number of runs, not of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Where each run begins, and the first position behind it. Runs neither touch nor overlap.
    runs: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> RangeSet {
        RangeSet::default()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many runs there are.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// How many positions are in it.
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|(first, end)| end - first).sum()
    }

    /// Adds `count` positions from `first` on; those beyond the last possible position are left out.
    pub fn insert(&mut self, first: u64, count: u64) {
        let mut end = first.saturating_add(count);
        if end == first {
            return;
        }
        // Most often it follows the last run.
        if let Some(mut last) = self.runs.last_entry()
            && *last.key() <= first
            && *last.get() >= first
        {
            *last.get_mut() = end.max(*last.get());
            return;
        }
        let mut start = first;
        if let Some((&before, &before_end)) = self.runs.range(..=first).next_back()
            && before_end >= first
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.runs.range(start..=end).next() {
            end = end.max(next_end);
            self.runs.remove(&next);
        }
        self.runs.insert(start, end);
    }

    /// Takes `count` positions from `first` on out of it, where they are in it.
    pub fn remove(&mut self, first: u64, count: u64) {
        let end = first.saturating_add(count);
        if end == first {
            return;
        }
        if let Some((&before, &before_end)) = self.runs.range(..first).next_back()
            && before_end > first
        {
            self.runs.insert(before, first);
            self.runs.insert(first, before_end);
        }
        while let Some((&run, &run_end)) = self.runs.range(first..end).next() {
            self.runs.remove(&run);
            if run_end > end {
                self.runs.insert(end, run_end);
            }
        }
    }

    /// Takes everything below `first` out of it.
    pub fn remove_below(&mut self, first: u64) {
        self.remove(0, first);
    }

    /// Keeps the runs, of `(first, count)`, that `keep` says yes to.
    pub fn retain(&mut self, mut keep: impl FnMut(u64, u64) -> bool) {
        self.runs.retain(|first, end| keep(*first, *end - *first));
    }

    /// Whether `position` is in it.
    pub fn contains(&self, position: u64) -> bool {
        self.runs.range(..=position).next_back().is_some_and(|(_, end)| *end > position)
    }

    /// How many of the positions in `range` are in it.
    pub fn count_in(&self, range: RangeInclusive<u64>) -> u64 {
        self.iter_in(range).map(|(_, count)| count).sum()
    }

    /// The runs as `(first, count)`, rising.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().map(|(first, end)| (*first, end - first))
    }

    /// What of the runs lies in `range`, as `(first, count)`, rising.
    pub fn iter_in(&self, range: RangeInclusive<u64>) -> impl Iterator<Item = (u64, u64)> + '_ {
        let (first, end) = (*range.start(), range.end().saturating_add(1));
        let across = self.runs.range(..first).next_back().filter(|(_, run_end)| **run_end > first);
        let inside = (first < end).then(|| self.runs.range(first..end));
        across
            .filter(|_| first < end)
            .into_iter()
            .chain(inside.into_iter().flatten())
            .map(move |(run, run_end)| ((*run).max(first), (*run_end).min(end) - (*run).max(first)))
    }

    /// The last position in it.
    pub fn last(&self) -> Option<u64> {
        self.runs.last_key_value().map(|(_, end)| end - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const POSITIONS: u64 = 40;

    fn check(set: &RangeSet, model: &BTreeSet<u64>) {
        for position in 0..POSITIONS + 20 {
            assert_eq!(set.contains(position), model.contains(&position), "{position} in {set:?}");
        }
        assert_eq!(set.count(), model.len() as u64);
        assert_eq!((set.is_empty(), set.last()), (model.is_empty(), model.last().copied()));
        let mut behind = None;
        for (first, count) in set.iter() {
            assert!(count > 0 && behind.is_none_or(|behind| behind < first), "runs touch: {set:?}");
            behind = Some(first + count);
        }
        assert_eq!(set.iter().count(), set.runs());
        for first in 0..POSITIONS {
            let last = (first * 7) % POSITIONS;
            let expected = model.iter().filter(|position| (first..=last).contains(*position)).count();
            assert_eq!(set.count_in(first..=last), expected as u64, "in {first}..={last} of {set:?}");
        }
    }

    proptest! {
        /// Goal: it is a set. Method: any insertions and removals, each beside a plain set.
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((0..4_u8, 0..POSITIONS, 0..12_u64), 0..40)) {
            let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
            for (kind, first, count) in steps {
                match kind {
                    0 | 1 => {
                        set.insert(first, count);
                        model.extend(first..first + count);
                    }
                    2 => {
                        set.remove(first, count);
                        model.retain(|position| !(first..first + count).contains(position));
                    }
                    _ => {
                        set.remove_below(count);
                        model.retain(|position| *position >= count);
                    }
                }
                check(&set, &model);
            }
            set.retain(|first, count| (first + count) % 2 == 0);
            prop_assert!(set.iter().all(|(first, count)| (first + count) % 2 == 0));
        }
    }

    /// Goal: the largest positions do no harm. Method: runs that would pass the end.
    #[test]
    fn positions_end() {
        let mut set = RangeSet::new();
        set.insert(u64::MAX - 2, 9);
        set.insert(0, u64::MAX);
        assert_eq!((set.runs(), set.last()), (1, Some(u64::MAX - 1)));
        assert_eq!(set.count_in(0..=u64::MAX), u64::MAX);
        set.remove(5, u64::MAX);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(0, 5)]);
    }
}
