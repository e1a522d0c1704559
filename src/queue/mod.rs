//! One queue as a plain value: what is ready, what awaits its acknowledgement, what dies and why; and who consumes.
//!
//! Does no I/O, reads no clock and knows no connections or channels: `now` is an argument, and whoever owns the queue
//! takes the front message, delivers it and says so. Messages lie densely in `blocks`; a first-in first-out queue has
//! no index of its ready messages, their positions follow from the order in which they lie.
//!
//! One walk: [`Queue::enqueue`] copies a message to the tail; [`Queue::front`] shows the next one; then
//! [`Queue::remove_front`] (delivered without acknowledgement) or [`Queue::hold_front`] (awaits it); then
//! [`Queue::acknowledge`], [`Queue::reject`] or [`Queue::requeue`] by position.
//!
//! Behaviour follows `RabbitMQ`'s classic queues.

mod blocks;
mod bodies;
mod cold;
pub mod consumers;
pub mod dead_letter;
mod expiry;
mod load;
mod log;
#[cfg(test)]
mod model;
mod overflow;
mod packed;
mod page_out;
mod paging;
mod priority;
mod record;
pub mod recovery;
mod relocation;
mod restore;
#[cfg(test)]
mod survival;
mod unacknowledged;

pub use cold::{Load, PageOut};
pub use consumers::{ConsumerKey, ConsumerSettings, Consumers};
pub use log::{Gate, LogEntry};
pub use paging::PageOutWish;
pub use relocation::{Forwarded, Relocation};
pub use restore::LiveExtent;

use crate::definitions::QueueOptions;
use crate::message::MessageView;
use blocks::{BlockStore, Place};
use log::Log;
use priority::{Level, Levels};
use record::{Labels, Record};
use unacknowledged::Unacknowledged;

/// A message's place in its queue: grows with each enqueue, never reused within one queue.
pub type Position = u64;

/// What a queue must know of a message besides its octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Higher ones are delivered first. What is above the queue's `priority_max` counts as that.
    pub priority: u8,
    /// When it expires, in milliseconds on the caller's clock; the earlier of the message's and the queue's limit.
    pub expires_at: Option<u64>,
    /// Whether it is to survive a restart. In a queue that keeps no log it makes no difference.
    pub persistent: bool,
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a rejected publish is answered with a nack"]
pub enum Enqueued {
    /// The queue has it, at this position (or has dropped it from its head since).
    Accepted(Position),
    /// The queue is full and refuses: the publisher gets a nack.
    Rejected,
}

/// Why a message died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeathReason {
    /// Its time was up.
    Expired,
    /// A consumer refused it without requeueing.
    Rejected,
    /// The queue was over its length limit.
    MaxLen,
    /// It was delivered too often.
    DeliveryLimit,
}

impl DeathReason {
    /// `RabbitMQ`'s name of it, as it stands in `x-death`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::MaxLen => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// Takes messages that died in a queue with a dead letter exchange: the caller publishes them there.
pub type DeadSink<'s> = dyn FnMut(DeathReason, MessageView<'_>) + 's;

/// The next message to be delivered.
#[derive(Clone, Copy, Debug)]
pub struct Front<'q> {
    /// Its place in the queue: what [`Queue::acknowledge`] wants after [`Queue::hold_front`].
    pub position: Position,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// Its priority in this queue.
    pub priority: u8,
    /// Whether it is to survive a restart.
    pub persistent: bool,
    /// When it expires, in milliseconds on the caller's clock.
    pub expires_at: Option<u64>,
    /// The message.
    pub message: MessageView<'q>,
}

/// A queue.
pub struct Queue {
    options: QueueOptions,
    /// Whether a length or octet limit is set.
    is_limited: bool,
    /// Whether a message with a time limit was ever enqueued.
    has_expiring: bool,
    position_next: Position,
    ready_count: u64,
    ready_octets: u64,
    requeued_count: usize,
    /// Whether each record holds its position, so that it need not follow from the order.
    holds_positions: bool,
    levels: Levels,
    unacknowledged: Unacknowledged,
    store: BlockStore,
    /// What the journal has to be told; none where the queue ends with the process.
    log: Option<Box<Log>>,
}

impl Queue {
    /// An empty queue that ends with the process.
    pub fn new(options: QueueOptions) -> Queue {
        Queue {
            is_limited: options.length_max.is_some() || options.octets_max.is_some(),
            holds_positions: options.priority_max.is_some(),
            log: None,
            options,
            has_expiring: false,
            position_next: 0,
            ready_count: 0,
            ready_octets: 0,
            requeued_count: 0,
            levels: Levels::new(),
            unacknowledged: Unacknowledged::default(),
            store: BlockStore::default(),
        }
    }

    /// What it was declared with.
    pub fn options(&self) -> &QueueOptions {
        &self.options
    }

    /// Messages that wait to be delivered.
    #[inline]
    pub fn ready_count(&self) -> u64 {
        self.ready_count
    }

    /// Messages that were delivered and await their acknowledgement.
    #[inline]
    pub fn unacknowledged_count(&self) -> u64 {
        self.unacknowledged.len() as u64
    }

    /// All messages: ready and unacknowledged.
    #[inline]
    pub fn message_count(&self) -> u64 {
        self.ready_count + self.unacknowledged_count()
    }

    /// Messages that have ever entered, those that passed through included.
    #[inline]
    pub fn entered_count(&self) -> u64 {
        self.position_next
    }

    /// The octets of the bodies of the ready messages.
    #[inline]
    pub fn ready_octets(&self) -> u64 {
        self.ready_octets
    }

    /// Whether nothing is ready.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ready_count == 0
    }

    /// The memory that the queue holds, in octets, unused room in its blocks and tables counted. Constant time.
    pub fn octets_held(&self) -> u64 {
        // A map's node has room for eleven entries and is half full at the least.
        let requeued = self.requeued_count * size_of::<(Position, Place)>() * 3 / 2;
        (size_of::<Self>() + requeued) as u64
            + self.levels.octets_held()
            + self.unacknowledged.octets_held()
            + self.store.octets_held()
    }

    fn has_dead_letter_exchange(&self) -> bool {
        self.options.dead_letter_exchange.is_some()
    }

    /// Adds a message at the tail of its priority, or refuses it where the queue is full and its overflow says so.
    ///
    /// `dead` gets what leaves the head of a full queue (which may be this very message), or this message where it is
    /// refused and the overflow is reject-publish-dlx. The caller calls [`Queue::expire`] next if
    /// [`Queue::next_expiry`] has come.
    #[inline]
    pub fn enqueue(&mut self, message: MessageView<'_>, attributes: Attributes, dead: &mut DeadSink<'_>) -> Enqueued {
        if self.is_limited && self.refuses(&message, dead) {
            return Enqueued::Rejected;
        }
        let body_octets = message.body.len() as u64;
        let position = self.position_next;
        let labels = self.labels(attributes);
        self.store.append(&mut self.levels.level_mut(labels.priority).chain, &message, &labels);
        self.levels.note_added(labels.priority);
        self.ready_count += 1;
        self.ready_octets += body_octets;
        if self.is_limited && self.is_over_limits(self.ready_count, self.ready_octets) {
            self.drop_excess(dead);
        }
        Enqueued::Accepted(position)
    }

    /// What is stored with a message that enters now.
    #[inline]
    fn labels(&mut self, attributes: Attributes) -> Labels {
        let position = self.position_next;
        self.position_next += 1;
        self.has_expiring |= attributes.expires_at.is_some();
        Labels {
            position: self.holds_positions.then_some(position),
            priority: attributes.priority.min(self.options.priority_max.unwrap_or(0)),
            expires_at: attributes.expires_at,
            persistent: attributes.persistent && self.log.is_some(),
            redelivered: false,
        }
    }

    /// The next message: of the highest priority, and among those the one that was enqueued first. `None` where nothing is
    /// ready, and where it has to be read back first: [`Queue::poll_load`].
    #[inline]
    pub fn front(&self) -> Option<Front<'_>> {
        if self.is_empty() {
            return None;
        }
        let level = self.levels.top();
        let (position, redelivered, record) = if let Some((&position, &place)) = level.requeued.first_key_value() {
            (position, place.is_redelivered(), self.store.record(place))
        } else {
            if !self.store.is_front_resident(&level.chain) {
                return None;
            }
            let record = self.store.front(&level.chain);
            let position = self.position_of_chain_front(level, record);
            (position, record.is_redelivered() || self.was_delivered_before(position), record)
        };
        Some(Front {
            position,
            redelivered,
            priority: record.priority(),
            persistent: record.is_persistent(),
            expires_at: record.expires_at(),
            message: self.store.message(record),
        })
    }

    /// The position of the first message of a level's chain, which is `record`. It is stored where there may be other
    /// levels; else all that were enqueued since are still in the chain.
    #[inline]
    fn position_of_chain_front(&self, level: &Level, record: Record<'_>) -> Position {
        if self.holds_positions {
            record.position().expect("each record holds its position")
        } else {
            self.position_next - level.chain.len()
        }
    }

    /// Takes the front message out of what is ready. Somebody must release its place.
    #[inline]
    fn take_front(&mut self) -> (Position, Place) {
        assert!(self.ready_count > 0, "took the front of an empty queue");
        let position_next = self.position_next;
        let holds_positions = self.holds_positions;
        let level = self.levels.top_mut();
        let (position, place, body_octets) = if level.requeued.is_empty() {
            let position = if holds_positions {
                self.store.front(&level.chain).position().expect("each record holds its position")
            } else {
                position_next - level.chain.len()
            };
            let (place, body_octets) = self.store.pass_front(&mut level.chain);
            let place = if self.note_passed(position) { place.redelivered() } else { place };
            (position, place, body_octets)
        } else {
            self.take_first_requeued()
        };
        self.levels.note_removed();
        self.ready_count -= 1;
        self.ready_octets -= body_octets;
        (position, place)
    }

    /// Takes the first message of the top level that was requeued, of which there is one.
    #[cold]
    fn take_first_requeued(&mut self) -> (Position, Place, u64) {
        let (position, place) = self.levels.top_mut().requeued.pop_first().expect("the map is not empty");
        self.requeued_count -= 1;
        (position, place, self.store.octets_of(self.store.record(place).body()))
    }

    /// The front message, of which there is one, was delivered and needs no acknowledgement: it is gone.
    #[inline]
    pub fn remove_front(&mut self) {
        let (position, place) = self.take_front();
        self.release(position, place);
    }

    /// The message at `place` is gone.
    #[inline]
    fn release(&mut self, position: Position, place: Place) {
        if place.is_journaled() {
            self.log_settled(position);
        }
        self.store.release(place);
    }

    /// The front message, of which there is one, was delivered and awaits its acknowledgement.
    #[inline]
    pub fn hold_front(&mut self) {
        let (position, place) = self.take_front();
        self.unacknowledged.insert(position, place);
    }

    /// Stores a message that was delivered on arrival, and returns its position. Nothing may be ready.
    ///
    /// The caller has asked [`Queue::would_overflow`] where the queue rejects on overflow.
    #[inline]
    pub fn hold_new(&mut self, message: MessageView<'_>, attributes: Attributes) -> Position {
        assert!(self.is_empty(), "a message overtook those that are ready");
        let position = self.position_next;
        let labels = self.labels(attributes);
        let chain = &mut self.levels.level_mut(labels.priority).chain;
        let place = self.store.append_passed(chain, &message, &labels);
        self.unacknowledged.insert(position, place);
        position
    }

    /// Counts a message that was delivered on arrival and needs no acknowledgement. Nothing may be ready.
    #[inline]
    pub fn pass_through(&mut self) {
        assert!(self.is_empty(), "a message overtook those that are ready");
        self.position_next += 1;
    }

    /// A consumer has dealt with the message: it is gone. `false` where it is not outstanding.
    #[inline]
    pub fn acknowledge(&mut self, position: Position) -> bool {
        let Some(place) = self.unacknowledged.take(position) else { return false };
        self.release(position, place);
        true
    }

    /// An unacknowledged message, which stays so. `None` where it is not outstanding.
    pub fn unacknowledged(&self, position: Position) -> Option<MessageView<'_>> {
        let place = self.unacknowledged.get(position)?;
        Some(self.store.message(self.store.record(place)))
    }

    /// Puts an unacknowledged message back where it was. `false` where it is not outstanding.
    ///
    /// `delivered` says whether a consumer may have seen it; once it has, the message stays `redelivered`. After the
    /// last one of a batch the caller calls [`Queue::drop_excess`], as the queue may be over its limits now.
    pub fn requeue(&mut self, position: Position, delivered: bool) -> bool {
        let Some(place) = self.unacknowledged.take(position) else { return false };
        let record = self.store.record(place);
        let priority = record.priority();
        self.ready_octets += self.store.octets_of(record.body());
        self.ready_count += 1;
        self.requeued_count += 1;
        let place = if delivered { place.redelivered() } else { place };
        let previous = self.levels.level_mut(priority).requeued.insert(position, place);
        assert!(previous.is_none(), "a message is ready once");
        self.levels.note_added(priority);
        true
    }

    /// A consumer refused the message for good: it is dead-lettered if the queue has a dead letter exchange, and gone.
    /// `false` where it is not outstanding.
    pub fn reject(&mut self, position: Position, dead: &mut DeadSink<'_>) -> bool {
        let Some(place) = self.unacknowledged.take(position) else { return false };
        self.bury(position, place, DeathReason::Rejected, dead);
        true
    }

    /// Removes the front message, which has died.
    fn bury_front(&mut self, reason: DeathReason, dead: &mut DeadSink<'_>) {
        let (position, place) = self.take_front();
        self.bury(position, place, reason, dead);
    }

    fn bury(&mut self, position: Position, place: Place, reason: DeathReason, dead: &mut DeadSink<'_>) {
        if self.has_dead_letter_exchange() {
            dead(reason, self.store.message(self.store.record(place)));
        }
        self.release(position, place);
    }

    /// Drops all that is ready and returns how many those were. Nothing is dead-lettered.
    pub fn purge(&mut self) -> u64 {
        let purged = self.ready_count;
        while !self.is_empty() {
            let level = self.levels.top_mut();
            if level.requeued.is_empty() && !self.store.is_front_resident(&level.chain) {
                self.ready_count -= self.store.drop_absent_front(&mut level.chain);
                self.levels.note_removed();
            } else {
                self.remove_front();
            }
        }
        // The octets of what was not in memory were not looked at.
        self.ready_octets = 0;
        self.log_purged();
        purged
    }
}
