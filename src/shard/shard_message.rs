//! All that one shard may tell another.

use super::batch::ContentRun;
use crate::{
    connection::{QueueHandle, Settlement},
    definitions::{ConnectionId, QueueId},
    protocol::exception::Exception,
    queue::{Attributes, ConsumerKey, ConsumerSettings, Position},
};

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

/// A publish that is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// The publishing channel.
    pub channel: Asker,
    /// The publish's number there.
    pub number: u64,
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
    /// Messages for a queue; where they are to be answered, of one publisher.
    Publish {
        /// The queue.
        queue: QueueHandle,
        /// The first publish, where they are to be answered; the others are numbered on from it.
        publisher: Option<Publisher>,
        /// The messages' attributes.
        attributes: Attributes,
        /// The messages.
        contents: ContentRun,
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
    /// Deliveries to a consumer.
    Deliver {
        /// The consumer.
        to: ConsumerHome,
        /// The queue that it came from.
        queue: QueueHandle,
        /// What the queue calls the consumer.
        key: ConsumerKey,
        /// Where the first message is held until it is acknowledged, and the others from there on; `None` if they aren't.
        position: Option<Position>,
        /// Whether they may have been delivered before.
        redelivered: bool,
        /// The messages.
        contents: ContentRun,
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
        content: ContentRun,
    },
    /// A direct reply to the consumer of `amq.rabbitmq.reply-to`.
    Reply {
        /// Whose consumer.
        to: Asker,
        /// The message.
        content: ContentRun,
    },
    /// Deliveries were settled.
    Settle {
        /// The queue.
        queue: QueueHandle,
        /// The consumer that they had gone to.
        consumer: Option<ConsumerKey>,
        /// Where the first is held.
        position: Position,
        /// How many were settled, held at this position and the following ones.
        count: u32,
        /// What becomes of them.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what crosses is small: it is written on one core and read on another.
    #[test]
    fn messages_are_small() {
        let octets = size_of::<ShardMessage>();
        assert!(octets <= 96, "{octets} octets");
    }
}
