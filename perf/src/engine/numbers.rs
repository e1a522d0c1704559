//! Sets of sequence numbers that lie close together: what is missing, what was refused.

use std::collections::BTreeMap;
use std::ops::Range;

/// Numbers, as ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Where each range ends, by where it starts.
    ends: BTreeMap<u64, u64>,
}

impl Numbers {
    /// Adds a range; those of it that are in are in once.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&other_start, &other_end)) = self.ends.range(..=end).next_back()
            && other_end >= start
        {
            self.ends.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.ends.insert(start, end);
    }

    /// Takes one number out. Whether it was in.
    pub fn remove(&mut self, number: u64) -> bool {
        let Some((&start, &end)) = self.ends.range(..=number).next_back() else { return false };
        if end <= number {
            return false;
        }
        self.ends.remove(&start);
        for (start, end) in [(start, number), (number + 1, end)] {
            if start < end {
                self.ends.insert(start, end);
            }
        }
        true
    }

    /// Whether a number is in.
    pub fn has(&self, number: u64) -> bool {
        self.ends.range(..=number).next_back().is_some_and(|(_, &end)| number < end)
    }

    /// How many ranges there are, which is what memory is taken by.
    pub fn ranges(&self) -> usize {
        self.ends.len()
    }

    /// The ranges within a range, ascending.
    pub fn within(&self, bounds: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let first = self.ends.range(..bounds.start).next_back().map_or(bounds.start, |(&start, _)| start);
        let ranges = self.ends.range(first..bounds.end.max(first));
        let clipped = move |(&start, &end): (&u64, &u64)| start.max(bounds.start)..end.min(bounds.end);
        ranges.map(clipped).filter(|range| !range.is_empty())
    }

    /// All ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ends.iter().map(|(&start, &end)| start..end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Goal: it holds what a plain set holds, in as few ranges as possible.
    /// Method: random ranges are put in and random numbers taken out, against a set of single numbers.
    #[test]
    fn agrees_with_a_plain_set() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..50 {
            let (mut numbers, mut plain) = (Numbers::default(), BTreeSet::new());
            for _ in 0..60 {
                let (start, length) = (random.u64(0..200), random.u64(0..12));
                numbers.insert(start..start + length);
                plain.extend(start..start + length);
                let number = random.u64(0..210);
                assert_eq!(numbers.has(number), plain.contains(&number));
                assert_eq!(numbers.remove(number), plain.remove(&number));
                let all: Vec<u64> = numbers.iter().flatten().collect();
                assert_eq!(all, plain.iter().copied().collect::<Vec<_>>());
                let runs = plain.iter().filter(|number| !plain.contains(&(*number + 1))).count();
                assert_eq!(numbers.ranges(), runs);
                let (from, to) = (random.u64(0..210), random.u64(0..210));
                let within: Vec<u64> = numbers.within(from..to).flatten().collect();
                let expected: Vec<u64> = plain.iter().copied().filter(|number| (from..to).contains(number)).collect();
                assert_eq!(within, expected, "{from}..{to}");
            }
        }
    }
}
