//! One client's connection as a plain value: its phase, channels, consumers, limits and output. No sockets, no clock.
//!
//! What happens between connections and queues is the shard's business ([`crate::shard`]).

mod channel;
mod confirms;
pub mod handshake;
mod output;
mod unacknowledged;

pub use channel::{Channel, ChannelSlot, Incoming, Mode, PublishMemo, Settlement, Transaction};
pub use confirms::{Confirms, Verdict};
pub use output::OutputBuffer;
pub use unacknowledged::{Outstanding, QueueHandle, Unacknowledged};

use crate::{
    definitions::{ConnectionId, Name, QueueId, ShardIndex},
    limits::{CHANNELS_MAX, FRAME_OCTETS_MAX},
    protocol::method::Method,
    queue::ConsumerKey,
};
use ahash::AHashMap;

/// After so many the incarnations of confirms start again.
const CONFIRMS_SERIAL_MAX: u32 = 0xFF_FFFF;

/// Where a connection stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Awaits the protocol header.
    Header,
    /// Awaits `connection.start-ok`.
    Start,
    /// The credentials are being verified.
    Authenticating,
    /// Awaits `connection.tune-ok`.
    Tune,
    /// Awaits `connection.open`.
    Open,
    /// Open for use.
    Running,
    /// The broker has sent `connection.close` and awaits `close-ok`.
    Closing,
    /// Over: what is in the output is still written, then the socket is closed.
    Closed,
}

/// Why the frames of a connection are not handled for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// A method awaits its answer from the control plane or from a queue on another shard.
    Answer,
    /// It publishes to a shard that is behind.
    Peer(ShardIndex),
    /// It publishes while memory is short, or room on the disk.
    Memory,
    /// It publishes while the disk is behind.
    Disk,
    /// It does not read what it is answered.
    Output,
}

/// What the client said that it can take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Capabilities {
    /// Wants `connection.close` 403 on a refused login.
    pub authentication_failure_close: bool,
    /// Takes `connection.blocked`.
    pub connection_blocked: bool,
    /// Takes `basic.cancel` from the broker.
    pub consumer_cancel_notify: bool,
}

/// A consumer as its connection knows it.
#[derive(Debug)]
pub struct Consumer {
    /// Its channel.
    pub channel: u16,
    /// Its tag.
    pub tag: Box<[u8]>,
    /// Its queue; `None` for a consumer of direct replies.
    pub queue: Option<QueueHandle>,
    /// What the queue calls it.
    pub key: ConsumerKey,
    /// The start of its `basic.deliver` frames, up to the delivery tag, with the frame's size left zero.
    pub delivery_prefix: Box<[u8]>,
    /// Octets that a queue on another shard has sent and that were not given back as window yet.
    pub owed_octets: u32,
    /// Whether its queue, on another shard, is held back because the channel is at its limit.
    pub hold: Hold,
    /// Tells this consumer from earlier ones with the same index.
    pub serial: u32,
}

/// How far the queue of a consumer on another shard is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It delivers.
    None,
    /// It was asked to stop; what is still under way goes back to it.
    Asked,
    /// It has stopped.
    Stopped,
}

/// See the module's documentation.
pub struct Connection {
    /// Its identity.
    pub id: ConnectionId,
    /// Where it stands.
    pub phase: Phase,
    /// Whether the peer's address is a loopback address.
    pub from_loopback: bool,
    /// What waits to be written.
    pub output: OutputBuffer,
    /// The negotiated frame-max, in octets, or the broker's own while there is none.
    pub frame_octets_max: usize,
    /// The negotiated highest channel number.
    pub channel_max: u16,
    /// The channels by number.
    pub channels: Vec<ChannelSlot>,
    /// The consumers of all its channels.
    pub consumers: Vec<Option<Consumer>>,
    /// Indexes of `consumers` that may be used again.
    pub consumers_free: Vec<u32>,
    /// The number of consumers that there ever were.
    pub consumer_serial: u32,
    /// How many channels have chosen confirms or transactions.
    pub confirms_serial: u32,
    /// The user that logged in.
    pub user: Name,
    /// The virtual host.
    pub vhost: Name,
    /// What the client can take.
    pub capabilities: Capabilities,
    /// Why its frames are not handled for now.
    pub pause: Option<Pause>,
    /// The method that awaits its answer.
    pub awaiting: Option<Awaiting>,
    /// Heartbeat interval in milliseconds; 0 = none.
    pub heartbeat_millis: u64,
    /// When anything last arrived, on the shard's clock.
    pub received_at: u64,
    /// When anything was last written.
    pub sent_at: u64,
    /// When the handshake, or the closing one, must be over.
    pub deadline: Option<u64>,
    /// Whether it was told that it is blocked.
    pub told_blocked: bool,
    /// Its exclusive queues.
    pub exclusive_queues: Vec<QueueId>,
    /// Exchanges that it may publish to, for one version of the definitions.
    pub write_permitted: AHashMap<Box<[u8]>, bool>,
    /// The version that `write_permitted` holds for.
    pub write_permitted_version: u64,
    /// Whether it is in the shard's list of connections with output.
    pub is_dirty: bool,
    /// Whether its socket took less than it was given last.
    pub is_stuck: bool,
    /// Consumers that wait until the output has room.
    pub waiting_for_output: Vec<u32>,
    /// Consumers that lost their queue by a `queue.delete` of this connection: channel and tag. They are told after its
    /// `delete-ok`, as RabbitMQ does.
    pub cancels_due: Vec<(u16, Box<[u8]>)>,
    /// Channels that have something to confirm.
    pub confirming: Vec<u16>,
    /// Memory that was last accounted for it.
    pub accounted_octets: u64,
    /// Octets of content that has not arrived whole.
    pub incoming_octets: u64,
    /// What deliveries that await their acknowledgement hold, as last counted, in octets.
    unacknowledged_octets: u64,
}

/// A method that awaits an answer, and what is needed to go on with it then.
#[derive(Debug)]
pub struct Awaiting {
    /// The channel that it came on.
    pub channel: u16,
    /// Its class and method, for errors.
    pub method: (u16, u16),
    /// Whether the client wants no answer.
    pub no_wait: bool,
    /// What to do with the answer.
    pub then: Then,
}

/// See [`Awaiting`].
#[derive(Debug)]
pub enum Then {
    /// Log in.
    Authenticate {
        /// Who.
        user: Name,
        /// By which mechanism, for the refusal's text.
        mechanism: &'static str,
    },
    /// Answer with this method, whatever the answer holds.
    Answer(OkMethod),
    /// `queue.declare`: the definition is there, the counts are not.
    QueueDeclared {
        /// The queue's name.
        name: Name,
    },
    /// `basic.consume`.
    Consume {
        /// Index into the connection's consumers.
        index: u32,
    },
    /// `basic.cancel`.
    Cancel {
        /// Index into the connection's consumers.
        index: u32,
        /// The consumer's tag: the consumer may have lost its queue, and be gone, before the answer comes.
        tag: Box<[u8]>,
    },
    /// `basic.get`.
    Get,
    /// `queue.purge`.
    Purge,
    /// `queue.delete`.
    Delete,
    /// `tx.commit`.
    Commit,
}

/// Answers that carry nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OkMethod {
    /// `exchange.declare-ok`.
    ExchangeDeclare,
    /// `exchange.delete-ok`.
    ExchangeDelete,
    /// `exchange.bind-ok`.
    ExchangeBind,
    /// `exchange.unbind-ok`.
    ExchangeUnbind,
    /// `queue.bind-ok`.
    QueueBind,
    /// `queue.unbind-ok`.
    QueueUnbind,
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(id: ConnectionId, from_loopback: bool, now: u64, deadline: u64) -> Self {
        Self {
            id,
            phase: Phase::Header,
            from_loopback,
            output: OutputBuffer::default(),
            frame_octets_max: FRAME_OCTETS_MAX,
            channel_max: CHANNELS_MAX,
            channels: Vec::new(),
            consumers: Vec::new(),
            consumers_free: Vec::new(),
            consumer_serial: 0,
            confirms_serial: 0,
            user: Name::from(""),
            vhost: Name::from(""),
            capabilities: Capabilities::default(),
            pause: None,
            awaiting: None,
            heartbeat_millis: 0,
            received_at: now,
            sent_at: now,
            deadline: Some(deadline),
            told_blocked: false,
            exclusive_queues: Vec::new(),
            write_permitted: AHashMap::new(),
            write_permitted_version: 0,
            is_dirty: false,
            is_stuck: false,
            waiting_for_output: Vec::new(),
            cancels_due: Vec::new(),
            confirming: Vec::new(),
            accounted_octets: 0,
            incoming_octets: 0,
            unacknowledged_octets: 0,
        }
    }

    /// The open channel with this number.
    #[inline]
    pub fn channel(&mut self, number: u16) -> Option<&mut Channel> {
        match self.channels.get_mut(usize::from(number)) {
            Some(ChannelSlot::Open(channel)) => Some(channel),
            _ => None,
        }
    }

    /// What stands under this number, made room for.
    pub fn channel_slot(&mut self, number: u16) -> &mut ChannelSlot {
        let index = usize::from(number);
        if self.channels.len() <= index {
            self.channels.resize_with(index + 1, ChannelSlot::default);
        }
        &mut self.channels[index]
    }

    /// The consumer with this index, if it is the one that was meant.
    #[inline]
    pub fn consumer(&mut self, index: u32, serial: u32) -> Option<&mut Consumer> {
        self.consumers.get_mut(index as usize)?.as_mut().filter(|consumer| consumer.serial == serial)
    }

    /// Keeps a consumer; returns its index.
    pub fn add_consumer(&mut self, consumer: Consumer) -> u32 {
        if let Some(index) = self.consumers_free.pop() {
            self.consumers[index as usize] = Some(consumer);
            return index;
        }
        self.consumers.push(Some(consumer));
        u32::try_from(self.consumers.len() - 1).expect("consumers are bounded")
    }

    /// Confirms for a channel, with numbers that none of the connection had before.
    pub fn new_confirms(&mut self) -> Confirms {
        self.confirms_serial = (self.confirms_serial + 1) & CONFIRMS_SERIAL_MAX;
        Confirms::new(self.confirms_serial)
    }

    /// Forgets a consumer.
    pub fn remove_consumer(&mut self, index: u32) -> Option<Consumer> {
        let consumer = self.consumers.get_mut(index as usize)?.take()?;
        self.consumers_free.push(index);
        if let Some(channel) = self.channel(consumer.channel) {
            channel.consumers.remove(&consumer.tag);
            channel.held_back.retain(|held| *held != index);
        }
        Some(consumer)
    }

    /// Appends a method frame to the output.
    pub fn send(&mut self, channel: u16, method: &Method<'_>) {
        method.put(self.output.octets_mut(), channel);
    }

    /// Whether frames may be handled now.
    #[inline]
    pub fn takes_input(&self) -> bool {
        self.pause.is_none() && self.phase != Phase::Closed
    }

    /// The memory that it holds, in octets: its output, what has arrived of content, and what awaits acknowledgement when that
    /// was last counted.
    pub fn octets_held(&self) -> u64 {
        (self.output.octets_held() as u64) + self.incoming_octets + self.unacknowledged_octets
    }

    /// Counts what is held for deliveries that await their acknowledgement, or its commit, and gives back what is not needed.
    pub fn count_unacknowledged(&mut self) {
        let mut octets = 0;
        for slot in &mut self.channels {
            let ChannelSlot::Open(channel) = slot else { continue };
            channel.unacknowledged.shrink();
            octets += channel.unacknowledged.octets_held() as u64;
            if let Mode::Transactional { pending, .. } = &channel.mode {
                octets += size_of_val(pending.settlements.as_slice()) as u64;
            }
        }
        self.unacknowledged_octets = octets;
    }
}
