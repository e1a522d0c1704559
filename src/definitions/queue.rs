//! What is known of a queue without asking it: its name, its properties, and where it lives.

use crate::definitions::name_table::Named;
use crate::definitions::{ConnectionId, Name, ShardIndex};
use crate::protocol::field_table::FieldTable;

/// One queue; never reused, so that a queue that was deleted and declared again is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

/// What happens to a message when the queue is full (`x-overflow`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueOverflow {
    /// The oldest message goes.
    #[default]
    DropHead,
    /// The new message is refused.
    RejectPublish,
    /// The new message is refused and dead-lettered.
    RejectPublishDeadLetter,
}

/// What the arguments of a queue ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueOptions {
    /// How long a message may wait, in milliseconds (`x-message-ttl`).
    pub message_ttl_millis: Option<u64>,
    /// How long the queue lives unused, in milliseconds (`x-expires`); never zero.
    pub expires_millis: Option<u64>,
    /// How many messages may be ready (`x-max-length`).
    pub length_max: Option<u64>,
    /// How many octets of bodies may be ready (`x-max-length-bytes`).
    pub octets_max: Option<u64>,
    /// What happens when it is full (`x-overflow`).
    pub overflow: QueueOverflow,
    /// Where dead messages go (`x-dead-letter-exchange`).
    pub dead_letter_exchange: Option<Name>,
    /// The routing key that they get (`x-dead-letter-routing-key`); `None` keeps their own.
    pub dead_letter_routing_key: Option<Name>,
    /// The highest priority (`x-max-priority`); `None` for a queue without priorities.
    pub priority_max: Option<u8>,
    /// Whether only one consumer at a time gets messages (`x-single-active-consumer`).
    pub single_active_consumer: bool,
}

/// A queue as it was declared. Immutable.
#[derive(Clone, Debug)]
pub struct QueueDefinition {
    /// Which one.
    pub id: QueueId,
    /// The virtual host that it belongs to.
    pub vhost: Name,
    /// The name.
    pub name: Name,
    /// The shard that it lives on.
    pub home: ShardIndex,
    /// Whether it outlives the broker's process. Never true for an exclusive queue.
    pub durable: bool,
    /// Whether it goes when its last consumer leaves.
    pub auto_delete: bool,
    /// The connection that alone may use it.
    pub exclusive_owner: Option<ConnectionId>,
    /// Whether the broker chose the name.
    pub server_named: bool,
    /// The arguments as they were declared.
    pub arguments: FieldTable,
    /// What the arguments ask for.
    pub options: QueueOptions,
}

impl Named for QueueDefinition {
    fn name(&self) -> &str {
        &self.name
    }
}
