//! All that one shard may tell another, and the batches in which it travels.
//!
//! A batch owns everything that it carries: messages in order, and one run of octets that small messages' contents lie in.
//! Whoever has taken a batch may use the emptied one for its own.

use crate::{
    connection::{QueueHandle, Settlement},
    definitions::{ConnectionId, QueueId},
    limits::SHORT_STRING_OCTETS_MAX,
    message::{BodyView, MessageView},
    protocol::exception::Exception,
    queue::{Attributes, ConsumerKey, ConsumerSettings, Position},
};
use bytes::Bytes;

/// Where a message's content lies in a batch.
#[derive(Debug)]
pub struct Content {
    offset: u32,
    properties_octets: u32,
    /// Of a small body how many octets it has, of a large one which of the referenced bodies it is.
    body: u32,
    exchange_octets: u8,
    routing_key_octets: u8,
    is_shared: bool,
}

/// What the contents of a batch's messages lie in.
#[derive(Debug, Default)]
pub struct Contents {
    octets: Vec<u8>,
    /// Large bodies, referenced.
    bodies: Vec<Bytes>,
    bodies_octets: usize,
}

/// A consumer as its queue knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerHome {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its channel.
    pub channel: u16,
    /// Index into the connection's consumers.
    pub index: u32,
    /// Tells it from earlier consumers with that index.
    pub serial: u32,
    /// Octets that may still be sent to it, if it lives on another shard.
    pub window_octets: i64,
    /// Whether its shard has asked to hold it back.
    pub is_held: bool,
}

/// Who asked a queue for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The connection.
    pub connection: ConnectionId,
    /// The channel.
    pub channel: u16,
}

/// What a connection may ask a queue for.
#[derive(Debug)]
pub enum QueueRequest {
    /// How many messages and consumers it has.
    Count,
    /// Start a consumer.
    Consume {
        /// Where it lives.
        home: ConsumerHome,
        /// How it consumes.
        settings: ConsumerSettings,
    },
    /// Stop a consumer. Its outstanding deliveries stay outstanding.
    Cancel(ConsumerKey),
    /// The same, without an answer.
    Leave(ConsumerKey),
    /// Take one message.
    Get {
        /// Whether it awaits an acknowledgement.
        acknowledges: bool,
    },
    /// Drop all ready messages.
    Purge,
    /// Delete it; the control plane answers.
    Delete {
        /// Only if it has no consumers.
        if_unused: bool,
        /// Only if it has no ready messages.
        if_empty: bool,
    },
}

/// What a queue answers.
#[derive(Debug)]
pub enum QueueReply {
    /// Messages that are ready, and consumers.
    Counted(u64, u64),
    /// The consumer is there.
    Consuming(ConsumerKey, QueueHandle),
    /// The consumer is gone.
    Cancelled,
    /// A message follows in the same batch as a [`ShardMessage::Got`]; or there was none.
    Empty,
    /// So many messages were dropped.
    Purged(u64),
    /// It cannot be done.
    Refused(Exception),
}

/// One thing that a shard tells another.
#[derive(Debug)]
pub enum ShardMessage {
    /// A message for a queue.
    Publish {
        /// The queue.
        queue: QueueHandle,
        /// The publishing channel and the number of the publish, where it is to be answered.
        confirm: Option<(Asker, u64)>,
        /// The message's attributes.
        attributes: Attributes,
        /// The message.
        content: Content,
    },
    /// Publishes were taken (or refused): all numbers from the first to the last.
    Confirm {
        /// The publishing channel.
        to: Asker,
        /// The first number.
        first: u64,
        /// The last number.
        last: u64,
        /// Whether they were taken.
        accepted: bool,
    },
    /// A delivery to a consumer.
    Deliver {
        /// The consumer.
        to: ConsumerHome,
        /// The queue that it came from.
        queue: QueueHandle,
        /// What the queue calls the consumer.
        key: ConsumerKey,
        /// Where the message is held until it is acknowledged; `None` if it isn't.
        position: Option<Position>,
        /// Whether it may have been delivered before.
        redelivered: bool,
        /// The message.
        content: Content,
    },
    /// A message that answers `basic.get`.
    Got {
        /// Who asked.
        to: Asker,
        /// The queue.
        queue: QueueHandle,
        /// Where the message is held; `None` if it isn't.
        position: Option<Position>,
        /// Whether it may have been delivered before.
        redelivered: bool,
        /// Ready messages that are left.
        left: u64,
        /// The message.
        content: Content,
    },
    /// A direct reply to the consumer of `amq.rabbitmq.reply-to`.
    Reply {
        /// Whose consumer.
        to: Asker,
        /// The message.
        content: Content,
    },
    /// A delivery was settled.
    Settle {
        /// The queue.
        queue: QueueHandle,
        /// The consumer that it had gone to.
        consumer: Option<ConsumerKey>,
        /// Where it is held.
        position: Position,
        /// What becomes of it.
        settlement: Settlement,
    },
    /// The consumer may be sent so many more octets.
    Window {
        /// The queue.
        queue: QueueHandle,
        /// The consumer.
        key: ConsumerKey,
        /// So many.
        octets: u32,
    },
    /// The consumer's channel has reached its limit: no deliveries until told otherwise. Answered with
    /// [`ShardMessage::Held`]; what arrives before that goes back, so that nothing overtakes it.
    Hold {
        /// The queue.
        queue: QueueHandle,
        /// The consumer.
        key: ConsumerKey,
        /// Whether it is to be held back, or to go on.
        held: bool,
    },
    /// No delivery to this consumer is under way any more: it is held back.
    Held {
        /// The consumer.
        home: ConsumerHome,
    },
    /// A question to a queue.
    Ask {
        /// Who asks.
        from: Asker,
        /// The queue.
        queue: QueueId,
        /// What for.
        request: QueueRequest,
    },
    /// A queue's answer.
    Answer {
        /// Who asked.
        to: Asker,
        /// The answer.
        reply: QueueReply,
    },
    /// A consumer lost its queue.
    ConsumerCancelled {
        /// The consumer.
        home: ConsumerHome,
    },
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

    /// Copies a message in (a large body is referenced).
    #[inline]
    pub fn put_content(&mut self, message: &MessageView<'_>) -> Content {
        self.contents.put(message)
    }

    /// What its messages' contents lie in, for [`Contents::view`].
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

impl Contents {
    /// Copies a message in (a large body is referenced).
    #[inline]
    pub fn put(&mut self, message: &MessageView<'_>) -> Content {
        let body = message.body.octets();
        let is_shared = message.body.is_large();
        let offset = octet_count(self.octets.len());
        let small = if is_shared { 0 } else { body.len() };
        self.octets.reserve(message.exchange.len() + message.routing_key.len() + message.properties.len() + small);
        self.octets.extend_from_slice(message.exchange);
        self.octets.extend_from_slice(message.routing_key);
        self.octets.extend_from_slice(message.properties);
        let body = if is_shared {
            self.bodies_octets += body.len();
            self.bodies.push(message.body.to_bytes());
            octet_count(self.bodies.len() - 1)
        } else {
            self.octets.extend_from_slice(body);
            octet_count(body.len())
        };
        Content {
            offset,
            properties_octets: octet_count(message.properties.len()),
            body,
            exchange_octets: short_octet_count(message.exchange),
            routing_key_octets: short_octet_count(message.routing_key),
            is_shared,
        }
    }

    /// A message that was put in.
    #[inline]
    pub fn view(&self, content: &Content) -> MessageView<'_> {
        let rest = &self.octets[content.offset as usize..];
        let (exchange, rest) = rest.split_at(usize::from(content.exchange_octets));
        let (routing_key, rest) = rest.split_at(usize::from(content.routing_key_octets));
        let (properties, rest) = rest.split_at(content.properties_octets as usize);
        let body = if content.is_shared {
            BodyView::Shared(&self.bodies[content.body as usize])
        } else {
            BodyView::Slice(&rest[..content.body as usize])
        };
        MessageView { exchange, routing_key, properties, body }
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

    /// Goal: what crosses for each message is small: it is written on one core and read on another.
    #[test]
    fn messages_are_small() {
        let octets = size_of::<ShardMessage>();
        assert!(octets <= 96, "{octets} octets");
        assert!(size_of::<Content>() <= 16, "{} octets", size_of::<Content>());
    }
}
