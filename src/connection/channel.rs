//! One channel of a connection: its modes, its consumers by tag, its outstanding deliveries, the content that is coming in.

use super::{Confirms, Outstanding, Unacknowledged};
use crate::{
    definitions::{Exchange, Name},
    message::Message,
};
use ahash::AHashMap;
use std::sync::Arc;

/// What stands under a channel number.
#[derive(Default)]
pub enum ChannelSlot {
    /// Never opened, or closed.
    #[default]
    Closed,
    /// Open.
    Open(Box<Channel>),
    /// The broker has sent `channel.close` and awaits its `close-ok`; whatever else arrives is ignored.
    Closing,
}

/// A publish of which not all frames have arrived.
#[derive(Debug)]
pub struct Incoming {
    /// The payload of its `basic.publish`.
    pub publish: Box<[u8]>,
    /// Of its content header: how large the body will be, and the properties.
    pub header: Option<(u64, Box<[u8]>)>,
    /// The body as far as it has arrived.
    pub body: Vec<u8>,
}

/// What the last publish of the channel resolved to, so that the next one to the same place need not ask again.
pub struct PublishMemo {
    /// The epoch of the shard's route cache that it holds for.
    pub epoch: u64,
    /// The name of the exchange.
    pub exchange_name: Box<[u8]>,
    /// The exchange itself.
    pub exchange: Arc<Exchange>,
    /// Index of the exchange in the shard's route cache.
    pub routes: u32,
    /// The whole payload of the last publish, and the route that it took.
    pub last: Vec<u8>,
    /// The route that `last` took; `None` where it can't be reused.
    pub last_route: Option<u32>,
}

/// What a transaction holds back until it is committed.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Publishes: the message, and whether it is mandatory.
    pub publishes: Vec<(Message, bool)>,
    /// Acknowledgements, with what they say.
    pub settlements: Vec<(Outstanding, Settlement)>,
}

impl Transaction {
    /// The memory of its publishes, in octets.
    pub fn octets_held(&self) -> u64 {
        self.publishes.iter().map(|(message, _)| message.octets_held() as u64).sum()
    }
}

/// What becomes of an outstanding delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// `basic.ack`: it is done.
    Acknowledged,
    /// `basic.reject` or `basic.nack` without requeue: dead-lettered or dropped.
    Rejected,
    /// Back to its place; it had been delivered to a client.
    Requeued,
    /// Back to its place, from a consumer whose channel is at its limit; no client has seen it.
    Returned,
}

/// The mode of a channel.
#[derive(Debug, Default)]
pub enum Mode {
    /// Neither confirms nor transactions.
    #[default]
    Plain,
    /// After `confirm.select`.
    Confirm(Confirms),
    /// After `tx.select`. `commit` counts the publishes of a commit that other shards have yet to take.
    Transactional {
        /// What is held back.
        pending: Transaction,
        /// The publishes of the commits so far.
        commit: Confirms,
    },
}

/// See the module's documentation.
#[derive(Default)]
pub struct Channel {
    /// Its mode.
    pub mode: Mode,
    /// Deliveries that await their acknowledgement.
    pub unacknowledged: Unacknowledged,
    /// The last delivery tag that was given.
    pub delivery_tag: u64,
    /// Consumers by tag: index into the connection's consumers.
    pub consumers: AHashMap<Box<[u8]>, u32>,
    /// `basic.qos` with global = false: the prefetch count of consumers started from now on; 0 = unlimited.
    pub prefetch_per_consumer: u16,
    /// `basic.qos` with global = true: how many deliveries the whole channel may have outstanding; 0 = unlimited.
    pub prefetch_of_channel: u16,
    /// Consumers that wait until the channel is below its limit: indexes into the connection's consumers.
    pub held_back: Vec<u32>,
    /// The publish of which not all frames have arrived.
    pub incoming: Option<Incoming>,
    /// The queue that an empty queue name means: the last declared one.
    pub last_queue: Option<Name>,
    /// See [`PublishMemo`].
    pub memo: Option<Box<PublishMemo>>,
    /// Whether the channel is in its connection's list of channels with something to confirm.
    pub has_verdicts: bool,
    /// The consumer of `amq.rabbitmq.reply-to`: index into the connection's consumers.
    pub reply_consumer: Option<u32>,
}

impl Channel {
    /// Whether the channel's own limit allows one more delivery that awaits an acknowledgement.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.prefetch_of_channel == 0 || self.unacknowledged.len() < usize::from(self.prefetch_of_channel)
    }

    /// The tag of the next delivery.
    #[inline]
    pub fn next_delivery_tag(&mut self) -> u64 {
        self.delivery_tag += 1;
        self.delivery_tag
    }

    /// The confirms of a publish: those of `confirm.select`, or of a commit.
    pub fn confirms_mut(&mut self) -> Option<&mut Confirms> {
        match &mut self.mode {
            Mode::Plain => None,
            Mode::Confirm(confirms) => Some(confirms),
            Mode::Transactional { commit, .. } => Some(commit),
        }
    }
}
