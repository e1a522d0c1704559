//! Was each message received once, and in order?
//!
//! One queue holds one *lane* for each producer: an arithmetic progression of its sequence numbers. A lane with one
//! reader is checked number by number. A lane with several readers is checked for order in each of them and as a set by
//! its count and its sums of numbers and squares: a set that differs shows, though losses and duplicates of equal
//! number show as lost and doubled by the smallest number that fits.

use std::ops::Range;

/// Gaps that one lane remembers, to tell late messages from doubled ones.
const GAPS_MAX: usize = 4096;

/// The sequence numbers that one producer sends to one queue: `first`, `first + stride`, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progression {
    /// The first one.
    pub first: u64,
    /// From one to the next.
    pub stride: u64,
}

impl Progression {
    /// How many of the numbers are below `published`.
    pub fn count_below(self, published: u64) -> u64 {
        published.saturating_sub(self.first).div_ceil(self.stride)
    }
}

/// What was wrong; all zero where nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Faults {
    /// Messages that never came.
    pub lost: u64,
    /// Messages that came more than once.
    pub duplicated: u64,
    /// Messages that came after a later one.
    pub reordered: u64,
    /// Messages that this run did not send.
    pub foreign: u64,
}

impl Faults {
    /// Sums up.
    pub fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
    }
}

/// How a lane is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// One consumer gets all of it.
    One,
    /// Several consumers share it.
    Several,
    /// It was filled by an earlier run: only the order can be checked.
    Unknown,
}

/// One consumer's view of one lane.
#[derive(Clone, Debug)]
pub struct Lane {
    progression: Progression,
    readers: Readers,
    /// The number that should come next.
    next: u64,
    gaps: Vec<Range<u64>>,
    faults: Faults,
    received: u64,
    sum: u64,
    square_sum: u64,
}

impl Lane {
    /// Nothing has come yet.
    pub fn new(progression: Progression, readers: Readers) -> Self {
        let (gaps, faults) = (Vec::new(), Faults::default());
        Self { progression, readers, next: progression.first, gaps, faults, received: 0, sum: 0, square_sum: 0 }
    }

    /// What is known before all is over: not what is missing.
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// How it is read.
    pub fn readers(&self) -> Readers {
        self.readers
    }

    /// The message with this number, modulo 2^32, has come.
    #[inline]
    pub fn receive(&mut self, sequence: u32) {
        self.received += 1;
        let ahead = sequence.wrapping_sub(low_half(self.next)).cast_signed();
        let number = self.next.wrapping_add_signed(i64::from(ahead));
        if self.readers == Readers::Several {
            self.sum = self.sum.wrapping_add(number);
            self.square_sum = self.square_sum.wrapping_add(number.wrapping_mul(number));
        }
        if ahead == 0 {
            self.next += self.progression.stride;
        } else {
            self.receive_unexpected(number, ahead > 0);
        }
    }

    #[cold]
    fn receive_unexpected(&mut self, number: u64, is_ahead: bool) {
        if is_ahead {
            if self.readers == Readers::One && self.gaps.len() < GAPS_MAX {
                self.gaps.push(self.next..number);
            }
            self.next = number + self.progression.stride;
            return;
        }
        if self.readers != Readers::One {
            // Doubled or late: which of them, the set tells in the end. Of an unknown lane nobody will know.
            self.faults.reordered += 1;
            return;
        }
        let Some(index) = self.gaps.iter().position(|gap| gap.contains(&number)) else {
            self.faults.duplicated += 1;
            return;
        };
        self.faults.reordered += 1;
        let gap = self.gaps.swap_remove(index);
        let behind = number + self.progression.stride..gap.end;
        self.gaps.extend([gap.start..number, behind].into_iter().filter(|part| part.start < part.end));
    }

    /// Where this consumer is the lane's only reader: what was wrong, now that all is over and the producer has
    /// published so many messages.
    fn finish_alone(mut self, published: u64) -> Faults {
        let missing = self.progression.count_below(published) + self.faults.duplicated;
        self.faults.lost = missing.saturating_sub(self.received);
        self.faults
    }
}

/// What was wrong on one lane, from the views of all its readers; the producer has published so many messages in all.
pub fn finish(views: Vec<Lane>, published: u64) -> Faults {
    let Some(first) = views.first() else { return Faults::default() };
    let (progression, readers) = (first.progression, first.readers);
    let mut faults = Faults::default();
    if readers != Readers::Several {
        for lane in views {
            let own = if readers == Readers::One { lane.finish_alone(published) } else { lane.faults };
            faults.add(own);
        }
        return faults;
    }
    let (mut received, mut sum, mut square_sum) = (0, 0_u64, 0_u64);
    for lane in &views {
        faults.add(lane.faults);
        received += lane.received;
        sum = sum.wrapping_add(lane.sum);
        square_sum = square_sum.wrapping_add(lane.square_sum);
    }
    let expected = progression.count_below(published);
    for index in 0..expected {
        let number = progression.first + index * progression.stride;
        sum = sum.wrapping_sub(number);
        square_sum = square_sum.wrapping_sub(number.wrapping_mul(number));
    }
    faults.lost = expected.saturating_sub(received);
    faults.duplicated = received.saturating_sub(expected);
    if received == expected && (sum, square_sum) != (0, 0) {
        faults.lost += 1;
        faults.duplicated += 1;
    }
    // A message that comes again to the same reader comes after a later one, too; it is told once.
    faults.reordered = faults.reordered.saturating_sub(faults.duplicated);
    faults
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
#[inline]
fn low_half(number: u64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Progression = Progression { first: 0, stride: 1 };

    fn faults(lost: u64, duplicated: u64, reordered: u64) -> Faults {
        Faults { lost, duplicated, reordered, foreign: 0 }
    }

    #[track_caller]
    fn check_alone(progression: Progression, received: &[u64], published: u64, expected: Faults) {
        let mut lane = Lane::new(progression, Readers::One);
        for &number in received {
            lane.receive(low_half(number));
        }
        assert_eq!(finish(vec![lane], published), expected, "{received:?} of {published}");
    }

    /// Goal: with one reader each fault is told by its kind.
    #[test]
    fn one_reader() {
        check_alone(EACH, &[0, 1, 2, 3], 4, faults(0, 0, 0));
        check_alone(EACH, &[], 0, faults(0, 0, 0));
        check_alone(EACH, &[], 3, faults(3, 0, 0));
        check_alone(EACH, &[0, 2, 3], 4, faults(1, 0, 0));
        check_alone(EACH, &[1, 2, 3], 4, faults(1, 0, 0));
        check_alone(EACH, &[0, 1], 4, faults(2, 0, 0));
        check_alone(EACH, &[0, 1, 1, 2, 3], 4, faults(0, 1, 0));
        check_alone(EACH, &[0, 2, 1, 3], 4, faults(0, 0, 1));
        check_alone(EACH, &[0, 3, 2, 1], 4, faults(0, 0, 2));
        check_alone(EACH, &[0, 3, 1, 1], 4, faults(1, 1, 1));
        check_alone(EACH, &[0, 1, 1, 3], 4, faults(1, 1, 0));
    }

    /// Goal: a queue that gets every third message is held to these.
    #[test]
    fn strides() {
        let third = Progression { first: 2, stride: 3 };
        assert_eq!([2, 3, 5, 6].map(|published| third.count_below(published)), [0, 1, 1, 2]);
        check_alone(third, &[2, 5, 8], 9, faults(0, 0, 0));
        check_alone(third, &[2, 8], 9, faults(1, 0, 0));
        check_alone(third, &[2, 8, 5], 9, faults(0, 0, 1));
    }

    /// Goal: numbers go on where their 32 bits begin anew.
    #[test]
    fn more_than_two_to_the_32_messages() {
        let first = (1 << 32) - 2;
        let late = Progression { first, stride: 1 };
        check_alone(late, &[first, first + 1, first + 2, first + 3], first + 4, faults(0, 0, 0));
        check_alone(late, &[first, first + 3, first + 2], first + 4, faults(1, 0, 1));
    }

    #[track_caller]
    fn check_shared(views: &[&[u32]], published: u64, expected: Faults) {
        let lanes = views.iter().map(|numbers| {
            let mut lane = Lane::new(EACH, Readers::Several);
            numbers.iter().for_each(|&number| lane.receive(number));
            lane
        });
        assert_eq!(finish(lanes.collect(), published), expected, "{views:?} of {published}");
    }

    /// Goal: with several readers the set and each reader's order are checked.
    #[test]
    fn several_readers() {
        check_shared(&[&[0, 2, 5], &[1, 3, 4]], 6, faults(0, 0, 0));
        check_shared(&[&[0, 2], &[1, 3, 4]], 6, faults(1, 0, 0));
        check_shared(&[&[0, 2, 5], &[1, 3, 4, 5]], 6, faults(0, 1, 0));
        check_shared(&[&[0, 2, 4], &[1, 3, 4]], 6, faults(1, 1, 0));
        check_shared(&[&[0, 2, 2, 5], &[1, 3, 4]], 6, faults(0, 1, 0));
        check_shared(&[&[0, 5, 2], &[1, 3, 4]], 6, faults(0, 0, 1));
    }

    /// Goal: of an earlier run's messages the order alone is checked.
    #[test]
    fn unknown_origin() {
        let mut lane = Lane::new(EACH, Readers::Unknown);
        for number in [7, 9, 8] {
            lane.receive(number);
        }
        assert_eq!(finish(vec![lane], 0), faults(0, 0, 1));
    }
}
