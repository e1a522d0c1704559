//! What a queue's `x-` arguments mean for the queue itself.

use super::Name;

/// What happens to a publish, or to the head, where a queue is full (`x-overflow`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueOverflow {
    /// Messages leave from the head until the queue is within its limits.
    #[default]
    DropHead,
    /// The publish is refused: its publisher gets a nack.
    RejectPublish,
    /// The publish is refused and dead-lettered.
    RejectPublishDeadLetter,
}

/// The options of one queue. `None` means that there is no such limit or behaviour.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueOptions {
    /// `x-message-ttl`, in milliseconds.
    pub message_ttl_millis: Option<u64>,
    /// `x-expires`, in milliseconds.
    pub expires_millis: Option<u64>,
    /// `x-max-length`, in ready messages.
    pub length_max: Option<u64>,
    /// `x-max-length-bytes`, in octets of the bodies of ready messages.
    pub octets_max: Option<u64>,
    /// `x-overflow`.
    pub overflow: QueueOverflow,
    /// `x-dead-letter-exchange`.
    pub dead_letter_exchange: Option<Name>,
    /// `x-dead-letter-routing-key`.
    pub dead_letter_routing_key: Option<Name>,
    /// `x-max-priority`.
    pub priority_max: Option<u8>,
    /// `x-single-active-consumer`.
    pub single_active_consumer: bool,
}
