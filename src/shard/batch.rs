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

/// What is before each message of a run: the octets of its properties, and its [`Body`].
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
