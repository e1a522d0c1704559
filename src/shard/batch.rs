//! What travels between two shards at once: messages in order, and one run of octets that their contents lie in.
//!
//! Publishes, deliveries and settlements that go on where the one before has ended are told as one message with a count: what
//! they have in common crosses once. Whoever has taken a batch may use the emptied one for its own.

use super::shard_message::{ConsumerHome, Publisher, ShardMessage};
use crate::{
    connection::{QueueHandle, Settlement},
    limits::SHORT_STRING_OCTETS_MAX,
    message::{BodyView, MessageView},
    queue::{Attributes, ConsumerKey, Position},
};
use bytes::Bytes;

/// What is before each message of a run: the octets of its properties, and those of its body, or which of the referenced ones it is.
const ENTRY_HEADER_OCTETS: usize = 8;
/// Set in the octets of the properties where the body is one of the referenced ones: instead of its octets, its index is told.
const SHARED: u32 = 1 << 31;

/// Where contents of messages lie in a batch that were published to one exchange with one routing key.
#[derive(Debug)]
pub struct ContentRun {
    offset: u32,
    /// How many messages.
    count: u32,
    exchange_octets: u8,
    routing_key_octets: u8,
}

impl ContentRun {
    /// How many messages.
    #[inline]
    pub fn len(&self) -> u32 {
        self.count
    }

    /// A run has one message at least.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// What the contents of a batch's messages lie in.
#[derive(Debug, Default)]
pub struct Contents {
    octets: Vec<u8>,
    /// Large bodies, referenced.
    bodies: Vec<Bytes>,
    bodies_octets: usize,
}

/// Messages that travel together.
#[derive(Debug, Default)]
pub struct Batch {
    /// In order.
    pub messages: Vec<ShardMessage>,
    contents: Contents,
    /// Octets of publishes that the sender may send again.
    pub credit_octets: u64,
    /// Octets of publishes that it carries.
    pub publish_octets: u64,
    /// When it was sent, on a clock that all shards advance: what happened because of it has a higher one.
    pub stamp: u64,
}

impl Batch {
    /// Whether it carries nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.credit_octets == 0
    }

    /// Adds a message for a queue. `publisher` is who is to be answered, with the number of the publish.
    #[inline]
    pub fn push_publish(
        &mut self,
        queue: QueueHandle,
        publisher: Option<Publisher>,
        attributes: Attributes,
        message: &MessageView<'_>,
    ) {
        if let Some(ShardMessage::Publish { queue: same_queue, publisher: first, attributes: same, contents }) =
            self.messages.last_mut()
            && *same_queue == queue
            && *same == attributes
            && goes_on(*first, publisher, contents.count)
            && self.contents.extend(contents, message)
        {
            return;
        }
        let contents = self.contents.put(message);
        self.messages.push(ShardMessage::Publish { queue, publisher, attributes, contents });
    }

    /// Adds a delivery to a consumer.
    #[inline]
    pub fn push_delivery(
        &mut self,
        to: &ConsumerHome,
        queue: QueueHandle,
        key: ConsumerKey,
        position: Option<Position>,
        redelivered: bool,
        message: &MessageView<'_>,
    ) {
        if let Some(ShardMessage::Deliver {
            queue: before, key: same, position: first, redelivered: was, contents, ..
        }) = self.messages.last_mut()
            && before.id == queue.id
            && *same == key
            && *was == redelivered
            && first.map(|first| first + u64::from(contents.count)) == position
            && self.contents.extend(contents, message)
        {
            return;
        }
        let contents = self.contents.put(message);
        self.messages.push(ShardMessage::Deliver { to: *to, queue, key, position, redelivered, contents });
    }

    /// Adds what becomes of a delivery.
    #[inline]
    pub fn push_settlement(
        &mut self,
        queue: QueueHandle,
        consumer: Option<ConsumerKey>,
        position: Position,
        settlement: Settlement,
    ) {
        if let Some(ShardMessage::Settle { queue: before, consumer: same, position: first, count, settlement: also }) =
            self.messages.last_mut()
            && before.id == queue.id
            && *same == consumer
            && *also == settlement
            && *first + u64::from(*count) == position
        {
            *count += 1;
            return;
        }
        self.messages.push(ShardMessage::Settle { queue, consumer, position, count: 1, settlement });
    }

    /// Copies a message in that goes alone (a large body is referenced).
    pub fn put_content(&mut self, message: &MessageView<'_>) -> ContentRun {
        self.contents.put(message)
    }

    /// What its messages' contents lie in.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Takes it apart: the messages, and what their contents lie in.
    pub fn into_parts(self) -> (Vec<ShardMessage>, Contents) {
        (self.messages, self.contents)
    }

    /// An empty batch on used memory.
    pub fn from_parts(mut messages: Vec<ShardMessage>, mut contents: Contents) -> Self {
        messages.clear();
        contents.octets.clear();
        contents.bodies.clear();
        contents.bodies_octets = 0;
        Self { messages, contents, ..Self::default() }
    }

    /// The memory that it holds, in octets.
    pub fn octets_held(&self) -> usize {
        let messages = self.messages.capacity() * size_of::<ShardMessage>();
        messages + self.contents.octets.capacity() + self.contents.bodies_octets
    }
}

/// Whether a publish is the next of those that the first of a run of `count` began.
#[inline]
fn goes_on(first: Option<Publisher>, next: Option<Publisher>, count: u32) -> bool {
    match (first, next) {
        (None, None) => true,
        (Some(first), Some(next)) => first.channel == next.channel && first.number + u64::from(count) == next.number,
        _ => false,
    }
}

impl Contents {
    /// Begins a run.
    #[inline]
    fn put(&mut self, message: &MessageView<'_>) -> ContentRun {
        let offset = octet_count(self.octets.len());
        self.octets.extend_from_slice(message.exchange);
        self.octets.extend_from_slice(message.routing_key);
        self.put_entry(message);
        ContentRun {
            offset,
            count: 1,
            exchange_octets: short_octet_count(message.exchange),
            routing_key_octets: short_octet_count(message.routing_key),
        }
    }

    /// Adds to the run that was added to last. Whether the message belongs there.
    #[inline]
    fn extend(&mut self, run: &mut ContentRun, message: &MessageView<'_>) -> bool {
        let head = &self.octets[run.offset as usize..];
        let (exchange, head) = head.split_at(usize::from(run.exchange_octets));
        let routing_key = &head[..usize::from(run.routing_key_octets)];
        if exchange != message.exchange || routing_key != message.routing_key {
            return false;
        }
        self.put_entry(message);
        run.count += 1;
        true
    }

    #[inline]
    fn put_entry(&mut self, message: &MessageView<'_>) {
        let body = message.body.octets();
        let mut properties_octets = octet_count(message.properties.len());
        assert!(properties_octets & SHARED == 0, "properties fit into a frame");
        if message.body.is_large() {
            properties_octets |= SHARED;
            self.put_entry_header(properties_octets, octet_count(self.bodies.len()));
            self.octets.extend_from_slice(message.properties);
            self.bodies_octets += body.len();
            self.bodies.push(message.body.to_bytes());
        } else {
            self.octets.reserve(ENTRY_HEADER_OCTETS + message.properties.len() + body.len());
            self.put_entry_header(properties_octets, octet_count(body.len()));
            self.octets.extend_from_slice(message.properties);
            self.octets.extend_from_slice(body);
        }
    }

    #[inline]
    fn put_entry_header(&mut self, properties_octets: u32, body: u32) {
        let whole = u64::from(properties_octets) | u64::from(body) << 32;
        self.octets.extend_from_slice(&whole.to_le_bytes());
    }

    /// The messages of a run, in order.
    #[inline]
    pub fn run(&self, run: &ContentRun) -> Messages<'_> {
        let head = &self.octets[run.offset as usize..];
        let (exchange, head) = head.split_at(usize::from(run.exchange_octets));
        let (routing_key, entries) = head.split_at(usize::from(run.routing_key_octets));
        Messages { exchange, routing_key, entries, bodies: &self.bodies, count: run.count }
    }

    /// The message of a run of one.
    pub fn single(&self, run: &ContentRun) -> MessageView<'_> {
        assert_eq!(run.count, 1, "it went alone");
        self.run(run).next().expect("a run has one message at least")
    }
}

/// The messages of a run.
#[derive(Debug)]
pub struct Messages<'a> {
    exchange: &'a [u8],
    routing_key: &'a [u8],
    entries: &'a [u8],
    bodies: &'a [Bytes],
    count: u32,
}

impl<'a> Iterator for Messages<'a> {
    type Item = MessageView<'a>;

    #[inline]
    fn next(&mut self) -> Option<MessageView<'a>> {
        self.count = self.count.checked_sub(1)?;
        let (header, rest) = self.entries.split_first_chunk::<ENTRY_HEADER_OCTETS>().expect("a run has its messages");
        let whole = u64::from_le_bytes(*header);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let (properties_octets, body) = (whole as u32, (whole >> 32) as usize);
        let (properties, rest) = rest.split_at((properties_octets & !SHARED) as usize);
        let body = if properties_octets & SHARED == 0 {
            let (body, rest) = rest.split_at(body);
            self.entries = rest;
            BodyView::Slice(body)
        } else {
            self.entries = rest;
            BodyView::Shared(&self.bodies[body])
        };
        Some(MessageView { exchange: self.exchange, routing_key: self.routing_key, properties, body })
    }
}

#[inline]
fn octet_count(length: usize) -> u32 {
    u32::try_from(length).expect("messages and batches are bounded")
}

#[inline]
fn short_octet_count(octets: &[u8]) -> u8 {
    debug_assert!(octets.len() <= SHORT_STRING_OCTETS_MAX);
    u8::try_from(octets.len()).expect("a short string is at most 255 octets")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        definitions::{ConnectionId, QueueId, ShardIndex},
        limits::SHARED_BODY_OCTETS_MIN,
        shard::shard_message::Asker,
    };
    use proptest::prelude::*;

    /// What was put in, or was read back; numbers stand for what they choose among.
    #[derive(Clone, Debug, PartialEq)]
    enum Told {
        Publish { queue: u64, publisher: Option<u64>, persistent: bool, message: (u8, u8, bool) },
        Deliver { queue: u64, position: Option<u64>, redelivered: bool, message: (u8, u8, bool) },
        Settle { queue: u64, position: u64, settlement: Settlement },
    }

    const ASKER: Asker =
        Asker { connection: ConnectionId { shard: ShardIndex(0), slot: 1, generation: 2 }, channel: 3 };
    const KEY: ConsumerKey = ConsumerKey { slot: 1, generation: 1 };

    fn handle(id: u64) -> QueueHandle {
        QueueHandle { home: ShardIndex(1), slot: 7, id: QueueId(id) }
    }

    /// A message whose parts its numbers determine.
    fn with_message<R>((key, body, is_large): (u8, u8, bool), with: impl FnOnce(&MessageView<'_>) -> R) -> R {
        let octets = vec![body; if is_large { SHARED_BODY_OCTETS_MIN } else { usize::from(body) }];
        let properties = vec![body; usize::from(body % 5)];
        with(&MessageView {
            exchange: &vec![b'x'; usize::from(key % 2)],
            routing_key: &vec![b'k'; usize::from(key)],
            properties: &properties,
            body: BodyView::Slice(&octets),
        })
    }

    /// The numbers of a message, which must be whole.
    fn numbers_of(message: &MessageView<'_>) -> (u8, u8, bool) {
        let key = u8::try_from(message.routing_key.len()).expect("small");
        let octets = message.body.octets();
        let numbers = (key, octets.first().copied().unwrap_or(0), message.body.is_large());
        with_message(numbers, |expected| {
            assert_eq!(
                (message.exchange, message.routing_key, message.properties, octets),
                (expected.exchange, expected.routing_key, expected.properties, expected.body.octets())
            );
        });
        numbers
    }

    fn push(batch: &mut Batch, told: &Told) {
        match *told {
            Told::Publish { queue, publisher, persistent, message } => {
                let publisher = publisher.map(|number| Publisher { channel: ASKER, number });
                let attributes = Attributes { persistent, ..Attributes::default() };
                with_message(message, |message| batch.push_publish(handle(queue), publisher, attributes, message));
            }
            Told::Deliver { queue, position, redelivered, message } => with_message(message, |message| {
                let home = ConsumerHome {
                    connection: ASKER.connection,
                    channel: 3,
                    index: 0,
                    serial: 0,
                    window_octets: 0,
                    is_held: false,
                };
                batch.push_delivery(&home, handle(queue), KEY, position, redelivered, message);
            }),
            Told::Settle { queue, position, settlement } => {
                batch.push_settlement(handle(queue), Some(KEY), position, settlement);
            }
        }
    }

    fn read_back(batch: Batch) -> Vec<Told> {
        let mut all = Vec::new();
        let (messages, contents) = batch.into_parts();
        for message in &messages {
            match message {
                ShardMessage::Publish { queue, publisher, attributes, contents: run } => {
                    assert_eq!(contents.run(run).count(), run.len() as usize);
                    all.extend((0..).zip(contents.run(run)).map(|(index, message)| Told::Publish {
                        queue: queue.id.0,
                        publisher: publisher.map(|first| first.number + index),
                        persistent: attributes.persistent,
                        message: numbers_of(&message),
                    }));
                }
                ShardMessage::Deliver { queue, position, redelivered, contents: run, .. } => {
                    all.extend((0..).zip(contents.run(run)).map(|(index, message)| Told::Deliver {
                        queue: queue.id.0,
                        position: position.map(|first| first + index),
                        redelivered: *redelivered,
                        message: numbers_of(&message),
                    }));
                }
                ShardMessage::Settle { queue, position, count, settlement, .. } => {
                    all.extend((*position..position + u64::from(*count)).map(|position| Told::Settle {
                        queue: queue.id.0,
                        position,
                        settlement: *settlement,
                    }));
                }
                other => panic!("{other:?} was never put in"),
            }
        }
        all
    }

    /// Few values, so that much of it goes on where the one before has ended.
    fn told() -> impl Strategy<Value = Told> {
        let message = || (0..2_u8, 0..3_u8, prop::bool::weighted(0.05));
        let number = || prop::option::weighted(0.7, 0..3_u64);
        prop_oneof![
            4 => (0..2_u64, number(), any::<bool>(), message()).prop_map(|(queue, publisher, persistent, message)| {
                Told::Publish { queue, publisher, persistent, message }
            }),
            4 => (0..2_u64, number(), any::<bool>(), message()).prop_map(|(queue, position, redelivered, message)| {
                Told::Deliver { queue, position, redelivered, message }
            }),
            2 => (0..2_u64, 0..3_u64, any::<bool>()).prop_map(|(queue, position, is_acknowledged)| {
                let settlement = if is_acknowledged { Settlement::Acknowledged } else { Settlement::Requeued };
                Told::Settle { queue, position, settlement }
            }),
        ]
    }

    proptest! {
        /// Goal: whatever is gathered into runs comes out as it was put in: each message, in order, with its own number.
        /// Method: random sequences, each step repeated some times with numbers that go on.
        #[test]
        fn runs_come_out_as_they_were_put_in(steps in prop::collection::vec((told(), 1..4_u64), 0..40)) {
            let mut all = Vec::new();
            for (told, times) in steps {
                for index in 0..times {
                    let mut told = told.clone();
                    match &mut told {
                        Told::Publish { publisher: number, .. } | Told::Deliver { position: number, .. } => {
                            *number = number.map(|number| number + index);
                        }
                        Told::Settle { position, .. } => *position += index,
                    }
                    all.push(told);
                }
            }
            let mut batch = Batch::default();
            all.iter().for_each(|told| push(&mut batch, told));
            prop_assert!(batch.messages.len() <= all.len());
            prop_assert_eq!(read_back(batch), all);
        }
    }

    /// Goal: what goes on really crosses as one message.
    #[test]
    fn what_goes_on_is_one_message() {
        let mut batch = Batch::default();
        for number in 0..100 {
            let message = (1, u8::from(number % 3 == 0), false);
            push(&mut batch, &Told::Publish { queue: 1, publisher: Some(number), persistent: true, message });
        }
        for position in 5..10 {
            push(&mut batch, &Told::Settle { queue: 1, position, settlement: Settlement::Acknowledged });
        }
        assert_eq!(batch.messages.len(), 2);
    }
}
