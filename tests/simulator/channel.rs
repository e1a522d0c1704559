//! One channel as its client knows it.

use crate::{
    context::Context,
    ledger::{MessageId, QueueIndex},
};
use std::collections::{BTreeMap, HashMap};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Plain,
    Confirm,
    Transactional,
}

/// What a channel waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    Open,
    Select,
    Declare(QueueIndex),
    /// Of an exchange, or something passive.
    Other,
    Bind(usize),
    Unbind(usize),
    Consume(String),
    Cancel(String),
    Get {
        queue: QueueIndex,
        no_ack: bool,
    },
    Purge(QueueIndex),
    Delete,
    Qos {
        count: u16,
        is_of_channel: bool,
    },
    Commit,
    Rollback,
    Recover,
    /// The client closes the channel.
    Close,
    /// The client did something wrong on purpose: the broker closes the channel.
    Punishment,
}

impl Pending {
    /// Whether the answer may be `channel.close`.
    pub fn may_fail(&self) -> bool {
        matches!(
            self,
            Self::Declare(_)
                | Self::Other
                | Self::Bind(_)
                | Self::Unbind(_)
                | Self::Consume(_)
                | Self::Get { .. }
                | Self::Purge(_)
                | Self::Delete
                | Self::Punishment
        )
    }

    /// Whether publishes may follow before the answer.
    pub fn lets_publish(&self) -> bool {
        matches!(self, Self::Qos { .. } | Self::Cancel(_) | Self::Commit | Self::Select)
    }
}

/// How a delivery is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Acknowledge,
    Reject,
    Requeue,
}

impl How {
    pub fn name(self) -> &'static str {
        match self {
            Self::Acknowledge => "acknowledged",
            Self::Reject => "rejected",
            Self::Requeue => "requeued",
        }
    }
}

/// A delivery that is to be settled.
#[derive(Clone, Debug)]
pub struct Held {
    pub queue: QueueIndex,
    pub id: MessageId,
    pub consumer: Option<String>,
    /// The client has said what becomes of it; the broker may not have read it.
    pub is_settled: bool,
}

pub struct ConsumerNote {
    pub queue: QueueIndex,
    pub no_ack: bool,
    pub prefetch: u16,
    /// It is alone, and has been from the start of the broker on: whatever it gets is in order.
    pub is_audit: bool,
    /// Of each publishing channel the number of the last message that came without `redelivered`.
    pub last_sequence: HashMap<u64, u64>,
}

/// What the client has sent, in order; it takes effect when the broker has read it.
#[derive(Clone, Debug)]
pub enum Op {
    Publish(MessageId, Option<u64>),
    Settle {
        tag: u64,
        multiple: bool,
        how: How,
    },
    /// Something that waits for an answer.
    Sync(Pending),
}

/// A content that is coming in.
pub struct Incoming {
    pub method: Vec<u8>,
    pub properties: Vec<u8>,
    pub body_octets: usize,
    pub has_header: bool,
    pub body: Vec<u8>,
}

#[expect(clippy::struct_field_names, reason = "the limit of the channel, beside that of its consumers")]
pub struct Channel {
    pub incarnation: u64,
    pub mode: Mode,
    pub pending: Option<Pending>,
    pub is_open: bool,
    /// Nothing that comes in changes anything any more.
    pub is_void: bool,
    pub sequence: u64,
    pub confirm_last: u64,
    /// Publishes that were not confirmed yet, and whether the broker has read them.
    pub confirms: BTreeMap<u64, (MessageId, bool)>,
    pub tag_last: u64,
    pub outstanding: BTreeMap<u64, Held>,
    pub pending_publishes: Vec<MessageId>,
    /// Publishes of the transaction that is being committed.
    pub committing: Vec<MessageId>,
    pub pending_settlements: Vec<(u64, Held, How)>,
    pub consumers: BTreeMap<String, ConsumerNote>,
    pub prefetch_per_consumer: u16,
    pub prefetch_of_channel: u16,
    pub incoming: Option<Incoming>,
    /// A delivery that a mutation holds back.
    pub swapped: Option<(Vec<u8>, Vec<u8>, Vec<u8>)>,
}

impl Channel {
    pub fn new(incarnation: u64, mode: Mode) -> Self {
        Self {
            incarnation,
            mode,
            pending: Some(Pending::Open),
            is_open: false,
            is_void: false,
            sequence: 0,
            confirm_last: 0,
            confirms: BTreeMap::new(),
            tag_last: 0,
            outstanding: BTreeMap::new(),
            pending_publishes: Vec::new(),
            committing: Vec::new(),
            pending_settlements: Vec::new(),
            consumers: BTreeMap::new(),
            prefetch_per_consumer: 0,
            prefetch_of_channel: 0,
            incoming: None,
            swapped: None,
        }
    }

    /// Whether the next thing may be sent.
    pub fn is_free(&self) -> bool {
        self.is_open && self.pending.is_none()
    }

    /// The broker has put everything back that the channel held.
    pub fn release(&mut self, context: &mut Context) {
        let pending = self.pending_settlements.drain(..).map(|(_, held, _)| held);
        for held in std::mem::take(&mut self.outstanding).into_values().chain(pending) {
            context.ledger.released(held.queue, held.id, self.incarnation);
        }
    }

    /// The channel is over: whatever may have been on its way to it may be lost.
    pub fn forget(mut self, context: &mut Context) {
        self.release(context);
        for id in self.pending_publishes.drain(..) {
            context.ledger.rolled_back(id);
        }
        context.ledger.uncertain_channels.remove(&self.incarnation);
        self.note_leaving(context);
    }

    /// The channel is going to be over.
    pub fn note_leaving(&self, context: &mut Context) {
        let queues = &mut context.ledger.topology.queues;
        for consumer in self.consumers.values() {
            queues[consumer.queue].is_lossy |= consumer.no_ack;
            queues[consumer.queue].may_be_gone |= queues[consumer.queue].auto_delete;
        }
        match self.pending {
            Some(Pending::Get { queue, no_ack: true }) => queues[queue].is_lossy = true,
            Some(Pending::Purge(queue)) => queues[queue].is_lossy = true,
            _ => {}
        }
    }

    /// The broker has read something.
    pub fn apply(&mut self, context: &mut Context, op: Op) {
        match op {
            Op::Publish(id, number) => {
                if let Some(confirm) = number.and_then(|number| self.confirms.get_mut(&number)) {
                    confirm.1 = true;
                }
                if self.mode == Mode::Transactional {
                    self.pending_publishes.push(id);
                } else {
                    context.ledger.processed(id);
                }
            }
            Op::Settle { tag, multiple, how } => self.apply_settle(context, tag, multiple, how),
            Op::Sync(pending) => self.apply_sync(context, &pending),
        }
    }

    fn apply_settle(&mut self, context: &mut Context, tag: u64, multiple: bool, how: How) {
        let first = if multiple { 0 } else { tag };
        let tags: Vec<u64> = self.outstanding.range(first..=tag).map(|(tag, _)| *tag).collect();
        for tag in tags {
            let held = self.outstanding.remove(&tag).expect("it was just seen");
            if self.mode == Mode::Transactional {
                self.pending_settlements.push((tag, held, how));
            } else {
                self.settle(context, &held, how);
            }
        }
    }

    fn settle(&self, context: &mut Context, held: &Held, how: How) {
        if let Err(what) = context.ledger.settled(held.queue, held.id, self.incarnation, how.name()) {
            context.violation(what);
        }
    }

    fn apply_sync(&mut self, context: &mut Context, pending: &Pending) {
        match pending {
            Pending::Qos { count, is_of_channel: true } => {
                let is_looser = *count == 0 || (self.prefetch_of_channel != 0 && *count > self.prefetch_of_channel);
                if is_looser {
                    self.prefetch_of_channel = *count;
                }
            }
            Pending::Commit => {
                self.committing = std::mem::take(&mut self.pending_publishes);
                for id in &self.committing {
                    context.ledger.processed(*id);
                }
                for (_, held, how) in std::mem::take(&mut self.pending_settlements) {
                    self.settle(context, &held, how);
                }
            }
            Pending::Rollback => {
                for id in std::mem::take(&mut self.pending_publishes) {
                    context.ledger.rolled_back(id);
                }
                for (tag, mut held, _) in std::mem::take(&mut self.pending_settlements) {
                    held.is_settled = false;
                    self.outstanding.insert(tag, held);
                }
            }
            Pending::Recover => {
                // What a transaction holds back is not put back by this.
                for held in std::mem::take(&mut self.outstanding).into_values() {
                    context.ledger.released(held.queue, held.id, self.incarnation);
                }
                self.is_void = true;
            }
            Pending::Close | Pending::Punishment => {
                self.release(context);
                for id in self.pending_publishes.drain(..) {
                    context.ledger.rolled_back(id);
                }
                self.is_void = true;
            }
            pending if pending.may_fail() && self.pending.as_ref() == Some(pending) => {
                context.ledger.uncertain_channels.insert(self.incarnation);
            }
            _ => {}
        }
    }
}
