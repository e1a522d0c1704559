//! Who consumes from a queue, and whose turn it is.
//!
//! Consumers take turns among those of the highest `x-priority` that can take a message; those that cannot (no credit,
//! suspended, not the active one) are out of the ring, so that a turn costs the same with ten thousand consumers as
//! with one. Knows nothing of connections: what a consumer is, is the caller's `T`.

const NOBODY: u32 = u32::MAX;

/// Names one consumer of one queue; not reused before 2^32 others had the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConsumerKey {
    /// Where it is in the table.
    pub slot: u32,
    /// Tells those apart that had the slot.
    pub generation: u32,
}

/// How a consumer consumes.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerSettings {
    /// `x-priority`.
    pub priority: i32,
    /// Nobody else may consume.
    pub exclusive: bool,
    /// Its messages await acknowledgements (`no-ack` is not set).
    pub acknowledges: bool,
    /// How many unacknowledged messages it may have (prefetch). `None`: any number. Means nothing without
    /// acknowledgements.
    pub credit: Option<u32>,
}

struct Consumer<T> {
    value: T,
    settings: ConsumerSettings,
    /// What is left of the credit.
    credit: Option<u32>,
    is_suspended: bool,
    /// Whether it is in its group's ring.
    is_ready: bool,
    /// The order in which consumers came.
    number: u64,
    before: u32,
    after: u32,
}

struct Slot<T> {
    generation: u32,
    consumer: Option<Consumer<T>>,
}

/// The consumers of one priority.
struct Group {
    priority: i32,
    /// Whose turn it is; [`NOBODY`] where none can take a message. The ring goes on over `after`.
    turn: u32,
    members: u32,
}

/// The consumers of one queue.
pub struct Consumers<T> {
    slots: Vec<Slot<T>>,
    vacant: Vec<u32>,
    /// Highest priority first.
    groups: Vec<Group>,
    /// One bit for each group with somebody in its ring.
    ready_groups: Vec<u64>,
    exclusive_count: usize,
    is_single_active: bool,
    active: u32,
    number_next: u64,
}

impl<T> Consumers<T> {
    /// Nobody yet. With `single_active` only one at a time gets messages, the others wait for it to leave.
    pub fn new(single_active: bool) -> Consumers<T> {
        Consumers {
            slots: vec![],
            vacant: vec![],
            groups: vec![],
            ready_groups: vec![],
            exclusive_count: 0,
            is_single_active: single_active,
            active: NOBODY,
            number_next: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one of them is exclusive.
    pub fn has_exclusive(&self) -> bool {
        self.exclusive_count > 0
    }

    /// The one that gets all messages, where there may only be one.
    pub fn active(&self) -> Option<ConsumerKey> {
        (self.active != NOBODY).then(|| self.key(self.active))
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (ConsumerKey, &T)> {
        self.slots.iter().zip(0..).filter_map(|(slot, index)| {
            let key = ConsumerKey { slot: index, generation: slot.generation };
            slot.consumer.as_ref().map(|consumer| (key, &consumer.value))
        })
    }

    /// Adds a consumer; it takes its turn after those that are there.
    pub fn add(&mut self, value: T, settings: ConsumerSettings) -> ConsumerKey {
        let consumer = Consumer {
            value,
            settings,
            credit: if settings.acknowledges { settings.credit } else { None },
            is_suspended: false,
            is_ready: false,
            number: self.number_next,
            before: NOBODY,
            after: NOBODY,
        };
        self.number_next += 1;
        let index = if let Some(index) = self.vacant.pop() {
            self.slots[index as usize].consumer = Some(consumer);
            index
        } else {
            let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 consumers");
            self.slots.push(Slot { generation: 0, consumer: Some(consumer) });
            index
        };
        self.exclusive_count += usize::from(settings.exclusive);
        match self.find_group(settings.priority) {
            Ok(group) => self.groups[group].members += 1,
            Err(group) => {
                self.groups.insert(group, Group { priority: settings.priority, turn: NOBODY, members: 1 });
                self.index_groups();
            }
        }
        if self.is_single_active && self.active == NOBODY {
            self.active = index;
        }
        self.refresh(index);
        self.key(index)
    }

    /// Takes a consumer out. `None` where it left before.
    pub fn remove(&mut self, key: ConsumerKey) -> Option<T> {
        let priority = self.consumer(key)?.settings.priority;
        self.leave_ring(key.slot);
        let slot = &mut self.slots[key.slot as usize];
        let consumer = slot.consumer.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.vacant.push(key.slot);
        self.exclusive_count -= usize::from(consumer.settings.exclusive);
        let group = self.group_of(priority);
        self.groups[group].members -= 1;
        if self.groups[group].members == 0 {
            self.groups.remove(group);
            self.index_groups();
        }
        if self.active == key.slot {
            self.choose_active();
        }
        Some(consumer.value)
    }

    /// Makes the one active that is next in line: the highest priority, among those the one that waits longest.
    fn choose_active(&mut self) {
        self.active = NOBODY;
        let waiting = self.slots.iter().zip(0..).filter_map(|(slot, index)| Some((slot.consumer.as_ref()?, index)));
        let next = waiting.min_by_key(|(consumer, _)| (std::cmp::Reverse(consumer.settings.priority), consumer.number));
        if let Some((_, index)) = next {
            self.active = index;
            self.refresh(index);
        }
    }

    /// The caller's value of a consumer. `None` where it left.
    pub fn get(&self, key: ConsumerKey) -> Option<&T> {
        self.consumer(key).map(|consumer| &consumer.value)
    }

    /// The caller's value of a consumer, to be changed. `None` where it left.
    pub fn get_mut(&mut self, key: ConsumerKey) -> Option<&mut T> {
        self.consumer_mut(key).map(|consumer| &mut consumer.value)
    }

    /// How a consumer consumes. `None` where it left.
    pub fn settings(&self, key: ConsumerKey) -> Option<&ConsumerSettings> {
        self.consumer(key).map(|consumer| &consumer.settings)
    }

    /// Who gets the next message, and whether it acknowledges. Spends one credit and passes the turn on.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "what it gives borrows from it, which no iterator may")]
    pub fn next(&mut self) -> Option<(ConsumerKey, &T, bool)> {
        let group = self.first_ready_group()?;
        let index = self.groups[group].turn;
        let consumer = self.member_mut(index);
        let after = consumer.after;
        let is_spent = match &mut consumer.credit {
            Some(credit) => {
                *credit -= 1;
                *credit == 0
            }
            None => false,
        };
        if is_spent {
            self.leave_ring(index);
        } else {
            self.groups[group].turn = after;
        }
        Some(self.entry(index))
    }

    /// Who would get the next message, and whether it acknowledges. Changes nothing.
    #[inline]
    pub fn peek_next(&self) -> Option<(ConsumerKey, &T, bool)> {
        let group = self.first_ready_group()?;
        Some(self.entry(self.groups[group].turn))
    }

    /// Gives credit back: `count` messages were acknowledged. Nothing where the consumer left or has no limit.
    #[inline]
    pub fn restore(&mut self, key: ConsumerKey, count: u32) {
        let Some(consumer) = self.consumer_mut(key) else { return };
        if let Some(credit) = &mut consumer.credit {
            *credit = credit.saturating_add(count);
            if !consumer.is_ready {
                self.refresh(key.slot);
            }
        }
    }

    /// Sets what is left of a consumer's credit; `None`: no limit. Nothing where it left or does not acknowledge.
    pub fn set_credit(&mut self, key: ConsumerKey, credit: Option<u32>) {
        let Some(consumer) = self.consumer_mut(key) else { return };
        if consumer.settings.acknowledges {
            consumer.credit = credit;
            self.refresh(key.slot);
        }
    }

    /// The consumer can take no messages until it is resumed. Nothing where it left.
    pub fn suspend(&mut self, key: ConsumerKey) {
        self.set_suspended(key, true);
    }

    /// The consumer can take messages again. Nothing where it left.
    pub fn resume(&mut self, key: ConsumerKey) {
        self.set_suspended(key, false);
    }

    fn set_suspended(&mut self, key: ConsumerKey, suspended: bool) {
        let Some(consumer) = self.consumer_mut(key) else { return };
        consumer.is_suspended = suspended;
        self.refresh(key.slot);
    }

    fn key(&self, index: u32) -> ConsumerKey {
        ConsumerKey { slot: index, generation: self.slots[index as usize].generation }
    }

    #[inline]
    fn entry(&self, index: u32) -> (ConsumerKey, &T, bool) {
        let slot = &self.slots[index as usize];
        let consumer = slot.consumer.as_ref().expect("the ring has only consumers that are there");
        let key = ConsumerKey { slot: index, generation: slot.generation };
        (key, &consumer.value, consumer.settings.acknowledges)
    }

    #[inline]
    fn consumer(&self, key: ConsumerKey) -> Option<&Consumer<T>> {
        let slot = self.slots.get(key.slot as usize)?;
        if slot.generation == key.generation { slot.consumer.as_ref() } else { None }
    }

    #[inline]
    fn consumer_mut(&mut self, key: ConsumerKey) -> Option<&mut Consumer<T>> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.generation == key.generation { slot.consumer.as_mut() } else { None }
    }

    #[inline]
    fn member_mut(&mut self, index: u32) -> &mut Consumer<T> {
        self.slots[index as usize].consumer.as_mut().expect("the ring has only consumers that are there")
    }

    fn find_group(&self, priority: i32) -> Result<usize, usize> {
        self.groups.binary_search_by(|group| priority.cmp(&group.priority))
    }

    #[inline]
    fn group_of(&self, priority: i32) -> usize {
        self.find_group(priority).expect("a consumer's group is there")
    }

    #[inline]
    fn first_ready_group(&self) -> Option<usize> {
        let word = self.ready_groups.iter().position(|&word| word != 0)?;
        Some(64 * word + self.ready_groups[word].trailing_zeros() as usize)
    }

    /// Numbers the groups anew, after one came or went.
    fn index_groups(&mut self) {
        self.ready_groups.clear();
        self.ready_groups.resize(self.groups.len().div_ceil(64), 0);
        for (index, group) in self.groups.iter().enumerate() {
            if group.turn != NOBODY {
                self.ready_groups[index / 64] |= 1 << (index % 64);
            }
        }
    }

    /// Puts a consumer into its ring or takes it out, after something changed for it.
    fn refresh(&mut self, index: u32) {
        let is_active = !self.is_single_active || self.active == index;
        let consumer = self.member_mut(index);
        let can_take = is_active && !consumer.is_suspended && consumer.credit != Some(0);
        if can_take {
            self.join_ring(index);
        } else {
            self.leave_ring(index);
        }
    }

    /// Puts a consumer at the end of its ring: before the one whose turn it is.
    fn join_ring(&mut self, index: u32) {
        let consumer = self.member_mut(index);
        if consumer.is_ready {
            return;
        }
        consumer.is_ready = true;
        let priority = consumer.settings.priority;
        let group = self.group_of(priority);
        let turn = self.groups[group].turn;
        if turn == NOBODY {
            self.groups[group].turn = index;
            self.ready_groups[group / 64] |= 1 << (group % 64);
            self.link(index, index);
        } else {
            let last = self.member_mut(turn).before;
            self.link(last, index);
            self.link(index, turn);
        }
    }

    /// Takes a consumer out of its ring; if it was its turn, it is the next one's.
    fn leave_ring(&mut self, index: u32) {
        let consumer = self.member_mut(index);
        if !consumer.is_ready {
            return;
        }
        consumer.is_ready = false;
        let (before, after, priority) = (consumer.before, consumer.after, consumer.settings.priority);
        let group = self.group_of(priority);
        if after == index {
            self.groups[group].turn = NOBODY;
            self.ready_groups[group / 64] &= !(1 << (group % 64));
            return;
        }
        self.link(before, after);
        if self.groups[group].turn == index {
            self.groups[group].turn = after;
        }
    }

    fn link(&mut self, before: u32, after: u32) {
        self.member_mut(before).after = after;
        self.member_mut(after).before = before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ACKNOWLEDGING: ConsumerSettings =
        ConsumerSettings { priority: 0, exclusive: false, acknowledges: true, credit: None };

    fn with_priority(priority: i32) -> ConsumerSettings {
        ConsumerSettings { priority, ..ACKNOWLEDGING }
    }

    fn with_credit(credit: u32) -> ConsumerSettings {
        ConsumerSettings { credit: Some(credit), ..ACKNOWLEDGING }
    }

    fn next(consumers: &mut Consumers<char>) -> Option<char> {
        let peeked = consumers.peek_next().map(|(key, &name, _)| (key, name));
        let next = consumers.next().map(|(key, &name, _)| (key, name));
        assert_eq!(peeked, next, "what peek shows is what comes");
        next.map(|(_, name)| name)
    }

    fn turns(consumers: &mut Consumers<char>, count: usize) -> String {
        (0..count).filter_map(|_| next(consumers)).collect()
    }

    /// Goal: equals take turns; a newcomer comes last; who leaves is left out.
    /// Method: three consumers, one added and one removed in between.
    #[test]
    fn equals_take_turns() {
        let mut consumers = Consumers::new(false);
        assert_eq!(next(&mut consumers), None);
        consumers.add('a', ACKNOWLEDGING);
        let b = consumers.add('b', ACKNOWLEDGING);
        assert_eq!(turns(&mut consumers, 3), "aba");
        consumers.add('c', ACKNOWLEDGING);
        assert_eq!(turns(&mut consumers, 6), "bacbac");
        assert_eq!(consumers.remove(b), Some('b'));
        assert_eq!((consumers.remove(b), consumers.get(b), consumers.len()), (None, None, 2));
        assert_eq!(turns(&mut consumers, 4), "acac");
        let reused = consumers.add('d', ACKNOWLEDGING);
        assert_eq!(reused.slot, b.slot);
        assert_ne!(reused, b, "a key is not reused");
        consumers.suspend(b);
        assert_eq!(turns(&mut consumers, 3), "acd", "an old key changes nothing");
    }

    /// Goal: credit is spent and restored; only who acknowledges has any.
    /// Method: two consumers with credit, one without acknowledgements and a credit that means nothing.
    #[test]
    fn credit_is_spent_and_restored() {
        let mut consumers = Consumers::new(false);
        let a = consumers.add('a', with_credit(1));
        let b = consumers.add('b', with_credit(2));
        assert_eq!(turns(&mut consumers, 9), "abb");
        consumers.restore(a, 2);
        assert_eq!(turns(&mut consumers, 9), "aa");
        consumers.set_credit(b, None);
        assert_eq!(turns(&mut consumers, 3), "bbb");
        consumers.set_credit(b, Some(0));
        assert_eq!(next(&mut consumers), None);
        consumers.add('c', ConsumerSettings { acknowledges: false, ..with_credit(1) });
        assert_eq!(turns(&mut consumers, 3), "ccc");
    }

    /// Goal: the highest priority comes first, the lower ones where it cannot take a message.
    /// Method: 200 priorities (more than one word of the table), each with credit for one message.
    #[test]
    fn the_highest_priority_comes_first() {
        let mut consumers = Consumers::new(false);
        let priorities: Vec<i32> = (0..200).map(|number| number * 77 % 200 - 100).collect();
        for &priority in &priorities {
            consumers.add(priority, ConsumerSettings { priority, ..with_credit(1) });
        }
        let mut expected = priorities;
        expected.sort_unstable_by(|left, right| right.cmp(left));
        let served: Vec<i32> = std::iter::from_fn(|| consumers.next().map(|(_, &priority, _)| priority)).collect();
        assert_eq!(served, expected);
        let keys: Vec<_> = consumers.iter().map(|(key, &priority)| (key, priority)).collect();
        for &(key, priority) in keys.iter().filter(|(_, priority)| priority % 2 == 0) {
            assert_eq!(consumers.remove(key), Some(priority));
        }
        for &(key, _) in &keys {
            consumers.restore(key, 1);
        }
        let served: Vec<i32> = std::iter::from_fn(|| consumers.next().map(|(_, &priority, _)| priority)).collect();
        expected.retain(|priority| priority % 2 != 0);
        assert_eq!(served, expected);
    }

    /// Goal: with a single active consumer all messages go to one; the next is the one of the highest priority, and
    /// among those the one that waits longest.
    /// Method: remove the active one, twice; suspend it in between.
    #[test]
    fn a_single_active_consumer_is_followed_by_the_next_in_line() {
        let mut consumers = Consumers::new(true);
        let a = consumers.add('a', ACKNOWLEDGING);
        consumers.add('b', ACKNOWLEDGING);
        let c = consumers.add('c', with_priority(5));
        consumers.add('d', with_priority(5));
        assert_eq!(turns(&mut consumers, 2), "aa", "a higher priority does not take over");
        consumers.suspend(a);
        assert_eq!(next(&mut consumers), None, "the others wait");
        consumers.remove(a);
        assert_eq!(consumers.active(), Some(c));
        assert_eq!(turns(&mut consumers, 2), "cc");
        consumers.remove(c);
        assert_eq!(turns(&mut consumers, 2), "dd");
    }

    /// Goal: exclusive consumers are known as long as they are there.
    /// Method: add and remove one beside another.
    #[test]
    fn exclusive_consumers_are_known() {
        let mut consumers = Consumers::new(false);
        consumers.add('a', ACKNOWLEDGING);
        assert!(!consumers.has_exclusive());
        let b = consumers.add('b', ConsumerSettings { exclusive: true, ..ACKNOWLEDGING });
        assert!(consumers.has_exclusive());
        consumers.remove(b);
        assert!(!consumers.has_exclusive());
    }

    /// A consumer of the model: its number, its priority, its credit, whether it is suspended.
    struct Naive {
        key: ConsumerKey,
        priority: i32,
        credit: u32,
        is_suspended: bool,
    }

    /// The consumers in the order of their turns, not the ready ones only.
    fn next_of(model: &mut [Naive], turns: &mut Vec<ConsumerKey>) -> Option<ConsumerKey> {
        let can_take = |naive: &&mut Naive| naive.credit > 0 && !naive.is_suspended;
        let highest = model.iter_mut().filter(can_take).map(|naive| naive.priority).max()?;
        turns.retain(|key| model.iter().any(|naive| naive.key == *key));
        let of_key = |key: &ConsumerKey| model.iter().position(|naive| naive.key == *key).expect("it is there");
        let place = turns.iter().position(|key| {
            let naive = &model[of_key(key)];
            naive.priority == highest && naive.credit > 0 && !naive.is_suspended
        })?;
        let key = turns.remove(place);
        turns.push(key);
        let index = of_key(&key);
        model[index].credit -= 1;
        Some(key)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Goal: whoever is next is what a search through all of them finds.
        /// Method: random adding, removing, suspending, resuming, restoring and taking turns. Who becomes ready comes
        /// last in line, in the model too.
        #[test]
        fn the_next_consumer_is_the_models(steps in prop::collection::vec((0_u8..8, any::<u16>(), 0_u32..3), 1..200)) {
            let mut consumers = Consumers::new(false);
            let (mut model, mut turns) = (Vec::<Naive>::new(), Vec::new());
            for (step, pick, number) in steps {
                let picked = (!model.is_empty()).then(|| usize::from(pick) % model.len());
                let was_ready = |naive: &Naive| naive.credit > 0 && !naive.is_suspended;
                match (step, picked) {
                    (0, _) => {
                        let priority = i32::from(pick % 5);
                        let settings = ConsumerSettings { priority, ..with_credit(number) };
                        let key = consumers.add((), settings);
                        model.push(Naive { key, priority, credit: number, is_suspended: false });
                        turns.push(key);
                    }
                    (1, Some(index)) => assert!(consumers.remove(model.remove(index).key).is_some()),
                    (2..=4, Some(index)) => {
                        let naive = &mut model[index];
                        let before = was_ready(naive);
                        match step {
                            2 => {
                                consumers.suspend(naive.key);
                                naive.is_suspended = true;
                            }
                            3 => {
                                consumers.resume(naive.key);
                                naive.is_suspended = false;
                            }
                            _ => {
                                consumers.restore(naive.key, number);
                                naive.credit += number;
                            }
                        }
                        if was_ready(naive) && !before {
                            turns.retain(|key| *key != naive.key);
                            turns.push(naive.key);
                        }
                    }
                    _ => {
                        let next = consumers.next().map(|(key, (), _)| key);
                        assert_eq!(next, next_of(&mut model, &mut turns));
                    }
                }
                assert_eq!(consumers.len(), model.len());
            }
        }
    }
}
