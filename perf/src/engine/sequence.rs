//! Was each message received once, and in order?
//!
//! One queue holds one *lane* for each producer: an arithmetic progression of its sequence numbers. A lane with one
//! reader is checked number by number. A lane with several readers is checked for order in each of them and as a set by
//! its count and its sums of numbers and squares: a set that differs shows, though losses and duplicates of equal
//! number show as lost and doubled by the smallest number that fits.
//!
//! A message that the broker has not taken, but refused or returned, may be missing, and nothing else may: it is known by its
//! number. A queue may have got it all the same, since a broker refuses what one of several queues has refused.

use std::ops::Range;

use crate::engine::numbers::Numbers;

/// Ranges that are remembered of one lane's gaps, and of what one producer was refused; more take too much memory.
const RANGES_MAX: usize = 1 << 18;

/// The sequence numbers that one producer sends to one queue: `first`, `first + stride`, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progression {
    /// The first one.
    pub first: u64,
    /// From one to the next.
    pub stride: u64,
}

impl Progression {
    /// All of them.
    pub const EACH: Self = Self { first: 0, stride: 1 };

    /// Those that come from another producer, where this is the first one's: each begins with another queue.
    pub fn of_producer(self, producer: usize) -> Self {
        let behind = producer as u64 % self.stride;
        Self { first: (self.first + self.stride - behind) % self.stride, stride: self.stride }
    }

    /// How many of the numbers are below `published`.
    pub fn count_below(self, published: u64) -> u64 {
        published.saturating_sub(self.first).div_ceil(self.stride)
    }

    /// How many of them are in a range.
    pub fn count_in(self, range: Range<u64>) -> u64 {
        self.count_below(range.end).saturating_sub(self.count_below(range.start))
    }
}

/// What the broker has not taken of one producer's messages.
#[derive(Clone, Debug, Default)]
pub struct NotTaken {
    numbers: Numbers,
    /// Messages whose numbers are not known any more, as there are too many ranges.
    forgotten: u64,
}

impl NotTaken {
    /// These are not taken.
    pub fn insert(&mut self, numbers: Range<u64>) {
        if self.numbers.ranges() < RANGES_MAX {
            self.numbers.insert(numbers);
        } else {
            self.forgotten += numbers.end - numbers.start;
        }
    }

    /// Those whose numbers are known, ascending.
    #[cfg(test)]
    pub fn numbers(&self) -> impl Iterator<Item = Range<u64>> {
        self.numbers.iter()
    }

    /// How many of a progression's numbers in a range are known to be not taken.
    fn count(&self, progression: Progression, range: Range<u64>) -> u64 {
        self.numbers.within(range).map(|range| progression.count_in(range)).sum()
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
    /// Messages that came though the broker had not taken them: no fault.
    pub came_refused: u64,
    /// Messages that were not taken, among which nobody can tell whether another one is lost.
    pub undecided: u64,
}

impl Faults {
    /// Sums up.
    pub fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.came_refused += other.came_refused;
        self.undecided += other.undecided;
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
    /// What was left out up to now.
    gaps: Numbers,
    /// Whether there were more gaps than are remembered.
    has_forgotten: bool,
    faults: Faults,
    received: u64,
    sum: u64,
    square_sum: u64,
}

impl Lane {
    /// Nothing has come yet.
    pub fn new(progression: Progression, readers: Readers) -> Self {
        let (gaps, faults, next) = (Numbers::default(), Faults::default(), progression.first);
        let (received, sum, square_sum) = (0, 0, 0);
        Self { progression, readers, next, gaps, has_forgotten: false, faults, received, sum, square_sum }
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
            if self.readers == Readers::One {
                self.has_forgotten |= self.gaps.ranges() >= RANGES_MAX;
                if !self.has_forgotten {
                    self.gaps.insert(self.next..number);
                }
            }
            self.next = number + self.progression.stride;
            return;
        }
        if self.readers != Readers::One {
            // Doubled or late: which of them, the set tells in the end. Of an unknown lane nobody will know.
            self.faults.reordered += 1;
        } else if self.gaps.remove(number) {
            self.faults.reordered += 1;
        } else {
            self.faults.duplicated += 1;
        }
    }

    /// Where this consumer is the lane's only reader: what was wrong, now that all is over and the producer has
    /// published so many messages, of which some were not taken.
    fn finish_alone(mut self, published: u64, not_taken: &NotTaken) -> Faults {
        let missing = self.progression.count_below(published) + self.faults.duplicated;
        let missing = missing.saturating_sub(self.received);
        let tail = self.next..published.max(self.next);
        let excused: u64 = self.gaps.iter().chain([tail]).map(|gap| not_taken.count(self.progression, gap)).sum();
        let known = not_taken.count(self.progression, 0..published);
        if known + not_taken.forgotten == 0 {
            self.faults.lost = missing;
        } else if not_taken.forgotten > 0 || self.has_forgotten {
            self.faults.lost = missing.saturating_sub(known + not_taken.forgotten);
            self.faults.undecided = known + not_taken.forgotten;
        } else {
            self.faults.lost = missing.saturating_sub(excused);
            self.faults.came_refused = known - excused;
        }
        self.faults
    }
}

/// What was wrong on a lane of which nothing came at all.
pub fn nothing_came(progression: Progression, published: u64, not_taken: &NotTaken) -> Faults {
    Lane::new(progression, Readers::One).finish_alone(published, not_taken)
}

/// What was wrong on one lane, from the views of all its readers; the producer has published so many messages in all, of which
/// some were not taken.
pub fn finish(views: Vec<Lane>, published: u64, not_taken: &NotTaken) -> Faults {
    let Some(first) = views.first() else { return Faults::default() };
    let readers = first.readers;
    if readers == Readers::Several {
        return finish_shared(&views, published, not_taken);
    }
    let mut faults = Faults::default();
    for lane in views {
        faults.add(if readers == Readers::One { lane.finish_alone(published, not_taken) } else { lane.faults });
    }
    faults
}

/// A number of messages, and the sums of their numbers and of the squares of these, modulo 2^64: what is left of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    count: u64,
    sum: u64,
    square_sum: u64,
}

impl Sums {
    fn add(&mut self, number: u64) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(number);
        self.square_sum = self.square_sum.wrapping_add(number.wrapping_mul(number));
    }

    fn of(numbers: impl Iterator<Item = u64>) -> Self {
        let mut sums = Self::default();
        numbers.for_each(|number| sums.add(number));
        sums
    }

    fn less(self, other: Self) -> Self {
        Self {
            count: self.count.wrapping_sub(other.count),
            sum: self.sum.wrapping_sub(other.sum),
            square_sum: self.square_sum.wrapping_sub(other.square_sum),
        }
    }
}

fn finish_shared(views: &[Lane], published: u64, not_taken: &NotTaken) -> Faults {
    let progression = views[0].progression;
    let (mut faults, mut received) = (Faults::default(), Sums::default());
    for lane in views {
        faults.add(lane.faults);
        received.count += lane.received;
        received.sum = received.sum.wrapping_add(lane.sum);
        received.square_sum = received.square_sum.wrapping_add(lane.square_sum);
    }
    let numbers = |range: Range<u64>| {
        let first = progression.first + progression.count_below(range.start) * progression.stride;
        (0..progression.count_in(range)).map(move |index| first + index * progression.stride)
    };
    let refused = Sums::of(not_taken.numbers.within(0..published).flat_map(&numbers));
    let all = Sums::of(numbers(0..published));
    let taken = all.less(refused);
    let least = taken.count.saturating_sub(not_taken.forgotten);
    let refused_count = refused.count + not_taken.forgotten;
    // What came beyond what was taken: of one message its number is known.
    let beyond = received.less(taken);
    let is_one_refused =
        beyond.count == 1 && beyond == Sums::of([beyond.sum].into_iter()) && not_taken.numbers.has(beyond.sum);
    if beyond != Sums::default() {
        faults.lost = least.saturating_sub(received.count);
        faults.duplicated = received.count.saturating_sub(all.count);
        if refused_count == 0 {
            if beyond.count == 0 {
                faults.lost += 1;
                faults.duplicated += 1;
            }
        } else if received == all || is_one_refused {
            faults.came_refused = beyond.count;
        } else {
            // As many as were taken, and not those: one of these is missing at least.
            faults.lost += u64::from(beyond.count == 0 && not_taken.forgotten == 0);
            faults.undecided = refused_count;
        }
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

    const EACH: Progression = Progression::EACH;

    fn faults(lost: u64, duplicated: u64, reordered: u64) -> Faults {
        Faults { lost, duplicated, reordered, ..Faults::default() }
    }

    #[track_caller]
    fn check_alone(progression: Progression, received: &[u64], published: u64, expected: Faults) {
        let mut lane = Lane::new(progression, Readers::One);
        for &number in received {
            lane.receive(low_half(number));
        }
        assert_eq!(finish(vec![lane], published, &NotTaken::default()), expected, "{received:?} of {published}");
    }

    /// What came of six messages, of which some were refused.
    #[track_caller]
    fn check_refused(refused: &[u64], views: &[&[u32]], expected: Faults) {
        let mut not_taken = NotTaken::default();
        refused.iter().for_each(|&number| not_taken.insert(number..number + 1));
        let readers = if views.len() == 1 { Readers::One } else { Readers::Several };
        let lanes = views.iter().map(|numbers| {
            let mut lane = Lane::new(EACH, readers);
            numbers.iter().for_each(|&number| lane.receive(number));
            lane
        });
        assert_eq!(finish(lanes.collect(), 6, &not_taken), expected, "{refused:?}: {views:?}");
    }

    /// Goal: what was refused may be missing, and excuses no other message, also where a queue has got it all the same.
    #[test]
    fn refused_messages_excuse_no_others() {
        let came = |lost, came_refused| Faults { lost, came_refused, ..Faults::default() };
        check_refused(&[2], &[&[0, 1, 3, 4, 5]], came(0, 0));
        check_refused(&[2], &[&[0, 1, 2, 3, 4, 5]], came(0, 1));
        check_refused(&[2], &[&[0, 1, 2, 3, 5]], came(1, 1));
        check_refused(&[5], &[&[0, 1, 2, 3, 4]], came(0, 0));
        check_refused(&[4], &[&[0, 1, 2, 3]], came(1, 0));
        check_refused(&[0, 1, 2, 3, 4, 5], &[&[]], came(0, 0));
        check_refused(&[0, 5], &[&[0, 1, 4, 5]], came(2, 2));
        check_refused(&[2], &[&[0, 1, 1, 3, 4, 5]], faults(0, 1, 0));
        check_refused(&[2], &[&[0, 1, 4, 3, 5]], faults(0, 0, 1));
        assert_eq!(nothing_came(EACH, 6, &NotTaken::default()), faults(6, 0, 0));
    }

    /// Goal: with several readers a loss beside refused messages shows as well; where it cannot be known, that is said.
    #[test]
    fn refused_messages_with_several_readers() {
        let came = |lost, came_refused| Faults { lost, came_refused, ..Faults::default() };
        let unclear = |lost, undecided| Faults { lost, undecided, ..Faults::default() };
        check_refused(&[2], &[&[0, 3, 5], &[1, 4]], came(0, 0));
        check_refused(&[2], &[&[0, 3, 5], &[1, 2, 4]], came(0, 1));
        check_refused(&[1, 2], &[&[0, 3, 5], &[2, 4]], came(0, 1));
        check_refused(&[1, 2], &[&[0, 3, 5], &[1, 2, 4]], came(0, 2));
        check_refused(&[2], &[&[0, 3], &[1, 2, 4]], unclear(1, 1));
        check_refused(&[2], &[&[0, 3], &[1, 4]], unclear(1, 1));
        check_refused(&[1, 2], &[&[0, 3, 5], &[1, 2]], unclear(0, 2));
        check_refused(&[2], &[&[0, 3, 5, 5], &[1, 2, 4]], Faults { duplicated: 1, ..unclear(0, 1) });
    }

    /// Goal: more ranges than are remembered are an open question, neither a loss nor none.
    #[test]
    fn too_many_refused_messages_are_undecided() {
        let (mut not_taken, mut lane) = (NotTaken::default(), Lane::new(EACH, Readers::One));
        let published = 2 * RANGES_MAX as u64 + 20;
        for number in (0..published).step_by(2) {
            not_taken.insert(number..number + 1);
            lane.receive(low_half(number + 1));
        }
        assert_eq!(not_taken.forgotten, 10);
        let found = finish(vec![lane], published, &not_taken);
        assert_eq!(found, Faults { undecided: published / 2, ..Faults::default() });
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
        assert_eq!(finish(lanes.collect(), published, &NotTaken::default()), expected, "{views:?} of {published}");
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
        assert_eq!(finish(vec![lane], 0, &NotTaken::default()), faults(0, 0, 1));
    }
}
