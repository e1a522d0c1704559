//! The queue against a naive model of it, and against the memory it promises to hold.

use super::{Attributes, DeathReason, Enqueued, Position, Queue};
use crate::definitions::{QueueOptions, QueueOverflow};
use crate::limits::SHARED_BODY_OCTETS_MIN;
use crate::message::{BodyView, Message, MessageView};
use bytes::Bytes;
use proptest::prelude::*;

/// What was done with dead messages: why, and their number.
type Deaths = Vec<(DeathReason, u64)>;

/// A message of the model.
#[derive(Clone, Debug)]
struct Entry {
    position: Position,
    number: u64,
    octets: u64,
    attributes: Attributes,
    redelivered: bool,
}

/// The queue as a list of messages, each operation a search through it.
struct Model {
    options: QueueOptions,
    ready: Vec<Entry>,
    unacknowledged: Vec<Entry>,
    next: Position,
}

impl Model {
    fn front_index(&self) -> Option<usize> {
        let order = |index: &usize| {
            let entry = &self.ready[*index];
            (std::cmp::Reverse(entry.attributes.priority), entry.position)
        };
        (0..self.ready.len()).min_by_key(order)
    }

    fn take_front(&mut self) -> Entry {
        let index = self.front_index().expect("something is ready");
        self.ready.remove(index)
    }

    fn take_unacknowledged(&mut self, position: Position) -> Option<Entry> {
        let index = self.unacknowledged.iter().position(|entry| entry.position == position)?;
        Some(self.unacknowledged.remove(index))
    }

    fn ready_octets(&self) -> u64 {
        self.ready.iter().map(|entry| entry.octets).sum()
    }

    fn is_over(&self, length: u64, octets: u64) -> bool {
        self.options.length_max.is_some_and(|most| length > most)
            || self.options.octets_max.is_some_and(|most| octets > most)
    }

    fn refuses(&self, octets: u64) -> bool {
        self.options.overflow != QueueOverflow::DropHead
            && self.is_over(self.ready.len() as u64 + 1, self.ready_octets() + octets)
    }

    fn bury(&self, deaths: &mut Deaths, reason: DeathReason, number: u64) {
        if self.options.dead_letter_exchange.is_some() {
            deaths.push((reason, number));
        }
    }

    fn new_entry(&mut self, number: u64, octets: u64, attributes: Attributes) -> Entry {
        let priority = attributes.priority.min(self.options.priority_max.unwrap_or(0));
        let entry = Entry {
            position: self.next,
            number,
            octets,
            attributes: Attributes { priority, ..attributes },
            redelivered: false,
        };
        self.next += 1;
        entry
    }

    fn enqueue(&mut self, number: u64, octets: u64, attributes: Attributes, deaths: &mut Deaths) -> Enqueued {
        if self.refuses(octets) {
            if self.options.overflow == QueueOverflow::RejectPublishDeadLetter {
                self.bury(deaths, DeathReason::MaxLen, number);
            }
            return Enqueued::Rejected;
        }
        let entry = self.new_entry(number, octets, attributes);
        let position = entry.position;
        self.ready.push(entry);
        self.drop_excess(deaths);
        Enqueued::Accepted(position)
    }

    fn drop_excess(&mut self, deaths: &mut Deaths) {
        while self.options.overflow == QueueOverflow::DropHead
            && !self.ready.is_empty()
            && self.is_over(self.ready.len() as u64, self.ready_octets())
        {
            let entry = self.take_front();
            self.bury(deaths, DeathReason::MaxLen, entry.number);
        }
    }

    fn expire(&mut self, now: u64, most: usize, deaths: &mut Deaths) -> usize {
        for expired in 0..most {
            let front = self.front_index().map(|index| self.ready[index].attributes.expires_at);
            match front {
                Some(Some(expires_at)) if expires_at <= now => {
                    let entry = self.take_front();
                    self.bury(deaths, DeathReason::Expired, entry.number);
                }
                _ => return expired,
            }
        }
        most
    }
}

/// What may be done to a queue. A `Pick` chooses among what is outstanding.
#[derive(Clone, Debug)]
enum Step {
    Enqueue { octets: usize, attributes: Attributes },
    Arrive { octets: usize, attributes: Attributes, held: bool },
    Hold(u8),
    Remove(u8),
    Acknowledge { pick: usize, count: u8 },
    Requeue { pick: usize, delivered: bool },
    Reject(usize),
    Expire { now: u64, most: usize },
    Purge,
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let expires_at = prop_oneof![3 => Just(None), 1 => (0_u64..50).prop_map(Some)];
    (prop_oneof![3 => 0_u8..4, 1 => any::<u8>()], expires_at, any::<bool>())
        .prop_map(|(priority, expires_at, persistent)| Attributes { priority, expires_at, persistent })
}

fn octets() -> impl Strategy<Value = usize> {
    prop_oneof![
        20 => 8_usize..40,
        4 => 8_usize..4000,
        1 => SHARED_BODY_OCTETS_MIN - 1..SHARED_BODY_OCTETS_MIN + 2,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (octets(), attributes()).prop_map(|(octets, attributes)| Step::Enqueue { octets, attributes }),
        3 => (octets(), attributes(), any::<bool>())
            .prop_map(|(octets, attributes, held)| Step::Arrive { octets, attributes, held }),
        6 => (1_u8..20).prop_map(Step::Hold),
        2 => (1_u8..20).prop_map(Step::Remove),
        6 => (prop_oneof![Just(0), any::<usize>()], 1_u8..20)
            .prop_map(|(pick, count)| Step::Acknowledge { pick, count }),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(pick, delivered)| Step::Requeue { pick, delivered }),
        2 => any::<usize>().prop_map(Step::Reject),
        1 => (0_u64..60, 0_usize..5).prop_map(|(now, most)| Step::Expire { now, most }),
        1 => Just(Step::Purge),
    ]
}

fn options() -> impl Strategy<Value = QueueOptions> {
    let overflow = prop_oneof![
        Just(QueueOverflow::DropHead),
        Just(QueueOverflow::RejectPublish),
        Just(QueueOverflow::RejectPublishDeadLetter),
    ];
    let length_max = prop_oneof![2 => Just(None), 1 => (0_u64..30).prop_map(Some)];
    let octets_max = prop_oneof![2 => Just(None), 1 => (0_u64..20_000).prop_map(Some)];
    let priority_max = prop_oneof![Just(None), Just(Some(2)), Just(Some(255))];
    (overflow, length_max, octets_max, priority_max, any::<bool>()).prop_map(
        |(overflow, length_max, octets_max, priority_max, dead_letters)| QueueOptions {
            overflow,
            length_max,
            octets_max,
            priority_max,
            dead_letter_exchange: dead_letters.then(|| "grave".into()),
            ..QueueOptions::default()
        },
    )
}

/// A message that carries its number, with parts whose lengths vary with it.
fn message(number: u64, octets: usize) -> Message {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(octets, number.to_le_bytes()[0]);
    let properties = if number.is_multiple_of(2) { &[0, 0][..] } else { &[0x10, 0, 2] };
    let routing_key = format!("key.{number}");
    let view = MessageView {
        exchange: &b"exchange"[..usize::try_from(number % 8).expect("below 8")],
        routing_key: routing_key.as_bytes(),
        properties,
        body: BodyView::Shared(&Bytes::from(body)),
    };
    view.to_message()
}

/// The number that a message carries; checks that all of it is as [`message`] made it.
fn number_of(view: MessageView<'_>) -> u64 {
    let (number, _) = view.body.octets().split_first_chunk().expect("a body of eight octets or more");
    let number = u64::from_le_bytes(*number);
    let made = message(number, view.body.len());
    let made = made.view();
    assert_eq!((made.exchange, made.routing_key), (view.exchange, view.routing_key));
    assert_eq!((made.properties, made.body.octets()), (view.properties, view.body.octets()));
    number
}

/// A queue and its model, which do the same.
struct Pair {
    queue: Queue,
    model: Model,
    number: u64,
}

impl Pair {
    fn new(options: &QueueOptions) -> Pair {
        let model = Model { options: options.clone(), ready: vec![], unacknowledged: vec![], next: 0 };
        Pair { queue: Queue::new(options.clone()), model, number: 0 }
    }

    /// One of the outstanding positions, or one that is not where there are none.
    fn pick(&self, pick: usize) -> Position {
        match self.model.unacknowledged.len() {
            0 => self.model.next + 7,
            count => self.model.unacknowledged[pick % count].position,
        }
    }

    fn step(&mut self, step: &Step) {
        let (mut died, mut expected) = (Deaths::new(), Deaths::new());
        let mut dead = |reason: DeathReason, view: MessageView<'_>| died.push((reason, number_of(view)));
        let Pair { queue, model, number } = self;
        match *step {
            Step::Enqueue { octets, attributes } => {
                *number += 1;
                let made = message(*number, octets);
                let accepted = model.enqueue(*number, octets as u64, attributes, &mut expected);
                assert_eq!(queue.would_overflow(octets), accepted == Enqueued::Rejected);
                assert_eq!(queue.enqueue(made.view(), attributes, &mut dead), accepted);
            }
            Step::Arrive { octets, attributes, held } => {
                if queue.is_empty() {
                    *number += 1;
                    let made = message(*number, octets);
                    let entry = model.new_entry(*number, octets as u64, attributes);
                    if held {
                        assert_eq!(queue.hold_new(made.view(), attributes), entry.position);
                        model.unacknowledged.push(entry);
                    } else {
                        queue.pass_through();
                    }
                }
            }
            Step::Hold(count) => {
                for _ in 0..u64::from(count).min(queue.ready_count()) {
                    queue.hold_front();
                    let entry = model.take_front();
                    model.unacknowledged.push(entry);
                }
            }
            Step::Remove(count) => {
                for _ in 0..u64::from(count).min(queue.ready_count()) {
                    queue.remove_front();
                    model.take_front();
                }
            }
            Step::Expire { now, most } => {
                let expired = model.expire(now, most, &mut expected);
                assert_eq!(queue.expire(now, most, &mut dead), expired);
            }
            Step::Purge => {
                assert_eq!(queue.purge(), model.ready.len() as u64);
                model.ready.clear();
            }
            Step::Acknowledge { .. } | Step::Requeue { .. } | Step::Reject(_) => {
                self.settle(step, &mut dead, &mut expected);
            }
        }
        assert_eq!(died, expected);
        self.compare();
    }

    fn settle(&mut self, step: &Step, dead: &mut super::DeadSink<'_>, expected: &mut Deaths) {
        match *step {
            Step::Acknowledge { pick, count } => {
                for _ in 0..count {
                    let position = self.pick(pick);
                    let is_outstanding = self.model.take_unacknowledged(position).is_some();
                    assert_eq!(self.queue.acknowledge(position), is_outstanding);
                    assert!(!self.queue.acknowledge(position), "settled twice");
                }
            }
            Step::Requeue { pick, delivered } => {
                let position = self.pick(pick);
                let entry = self.model.take_unacknowledged(position);
                assert_eq!(self.queue.requeue(position, delivered), entry.is_some());
                if let Some(entry) = entry {
                    self.model.ready.push(Entry { redelivered: entry.redelivered || delivered, ..entry });
                }
                self.queue.drop_excess(dead);
                self.model.drop_excess(expected);
            }
            Step::Reject(pick) => {
                let position = self.pick(pick);
                let entry = self.model.take_unacknowledged(position);
                assert_eq!(self.queue.reject(position, dead), entry.is_some());
                if let Some(entry) = entry {
                    self.model.bury(expected, DeathReason::Rejected, entry.number);
                }
            }
            _ => unreachable!("the other steps settle nothing"),
        }
    }

    fn compare(&self) {
        let Pair { queue, model, .. } = self;
        assert_eq!(queue.ready_count(), model.ready.len() as u64);
        assert_eq!(queue.unacknowledged_count(), model.unacknowledged.len() as u64);
        assert_eq!(queue.message_count(), (model.ready.len() + model.unacknowledged.len()) as u64);
        assert_eq!(queue.ready_octets(), model.ready_octets());
        assert_eq!(queue.entered_count(), model.next);
        let front = queue.front();
        let expected = model.front_index().map(|index| &model.ready[index]);
        assert_eq!(front.is_some(), expected.is_some());
        if let (Some(front), Some(expected)) = (front, expected) {
            assert_eq!(front.position, expected.position);
            assert_eq!(front.redelivered, expected.redelivered);
            assert_eq!(front.priority, expected.attributes.priority);
            assert!(!front.persistent, "the queue keeps no log");
            assert_eq!(front.expires_at, expected.attributes.expires_at);
            assert_eq!(number_of(front.message), expected.number);
            let is_shared = matches!(front.message.body, BodyView::Shared(_));
            assert_eq!(is_shared, front.message.body.is_large(), "large bodies, and only those, are shared");
        }
        assert_eq!(queue.next_expiry(), expected.and_then(|entry| entry.attributes.expires_at));
        for entry in &model.unacknowledged {
            let view = queue.unacknowledged(entry.position).expect("the model says that it is outstanding");
            assert_eq!(number_of(view), entry.number);
        }
    }

    /// Removes all that is left, in the queue's own order, and checks that its memory goes too.
    fn drain(&mut self) {
        while !self.model.unacknowledged.is_empty() {
            self.step(&Step::Acknowledge { pick: 0, count: 1 });
        }
        while !self.model.ready.is_empty() {
            self.step(&Step::Remove(1));
        }
        let levels = self.queue.levels.octets_held();
        assert!(self.queue.octets_held() - levels < IDLE_OCTETS_MAX * 4, "{} octets", self.queue.octets_held());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Goal: the queue does what the model does, whatever is asked of it, in whatever order.
    /// Method: random steps on both with random options; counts, front, deaths and outstanding messages are compared
    /// after each step.
    #[test]
    fn the_queue_does_what_the_model_does(options in options(), steps in prop::collection::vec(step(), 1..120)) {
        let mut pair = Pair::new(&options);
        for step in &steps {
            pair.step(step);
        }
        pair.drain();
    }
}

/// What an empty queue may hold after it was full, in octets.
const IDLE_OCTETS_MAX: u64 = 64 << 10;
const MANY: u64 = 1_000_000;

fn small_message() -> MessageView<'static> {
    MessageView {
        exchange: b"amq.topic",
        routing_key: b"sensors.kitchen",
        properties: &[0x10, 0, 1],
        body: BodyView::Slice(&[7; 16]),
    }
}

fn fill(queue: &mut Queue) {
    for _ in 0..MANY {
        let accepted = queue.enqueue(small_message(), Attributes::default(), &mut |_, _| unreachable!("nothing dies"));
        assert!(matches!(accepted, Enqueued::Accepted(_)));
    }
    assert!(queue.octets_held() < 60 << 20, "{} octets held", queue.octets_held());
}

/// Goal: a million small messages fit into 60 MiB, and the memory goes when they go.
/// Method: fill, drain without acknowledgements, ask.
#[test]
fn a_million_messages_fit_into_60_mib() {
    let mut queue = Queue::new(QueueOptions::default());
    fill(&mut queue);
    while !queue.is_empty() {
        queue.remove_front();
    }
    assert!(queue.octets_held() < IDLE_OCTETS_MAX, "{} octets held", queue.octets_held());
}

/// Goal: memory falls with the messages also where they are acknowledged in any order.
/// Method: hold a million, acknowledge them in order, in reverse, and strided so that every block keeps a message to
/// the last; ask at the end of each.
#[test]
fn memory_falls_with_acknowledgements_in_any_order() {
    // The stride is prime to a million: each position comes once.
    let orders: [fn(u64) -> u64; 3] = [|number| number, |number| MANY - 1 - number, |number| number * 777_777 % MANY];
    let mut queue = Queue::new(QueueOptions::default());
    for order in orders {
        let base = queue.entered_count();
        fill(&mut queue);
        (0..MANY).for_each(|_| queue.hold_front());
        assert!(queue.octets_held() < 80 << 20, "{} octets held", queue.octets_held());
        for number in 0..MANY {
            assert!(queue.acknowledge(base + order(number)));
        }
        assert_eq!(queue.message_count(), 0);
        assert!(queue.octets_held() < IDLE_OCTETS_MAX, "{} octets held", queue.octets_held());
    }
}

/// Goal: a message that nobody settles does not make the tables grow while others pass by.
/// Method: hold one, then let a million come, be held and be acknowledged.
#[test]
fn an_old_message_does_not_stretch_the_tables() {
    let mut queue = Queue::new(QueueOptions::default());
    let old = queue.hold_new(small_message(), Attributes::default());
    for _ in 0..MANY {
        let position = queue.hold_new(small_message(), Attributes::default());
        assert!(queue.acknowledge(position));
    }
    assert!(queue.octets_held() < 4 * IDLE_OCTETS_MAX, "{} octets held", queue.octets_held());
    assert!(queue.acknowledge(old));
    assert!(queue.octets_held() < IDLE_OCTETS_MAX, "{} octets held", queue.octets_held());
}
