//! Messages into queues, and out of them to consumers.
//!
//! A message that meets an empty queue and a consumer with credit never lies in the queue: its delivery is encoded straight
//! from where the message is (a read buffer, another shard's batch) into the consumer's output.

use super::{
    Shard,
    dead_letters::DeadLetter,
    outbox::Outbox,
    persistence::Put,
    shard_message::{ConsumerHome, ShardMessage},
    state::Connections,
};
use crate::{
    connection::{Connection, Hold, OutputBuffer, Outstanding, QueueHandle},
    definitions::ShardIndex,
    limits::{DEAD_LETTERS_MAX, OUTPUT_OCTETS_MAX},
    message::{BodyView, MessageView},
    protocol::{
        content,
        frame::{FRAME_END, FRAME_HEADER_OCTETS, FRAME_OVERHEAD_OCTETS, FrameKind, frame_header},
        properties::CONTENT_HEADER_FIXED_OCTETS,
    },
    queue::{Attributes, ConsumerKey, Consumers, Enqueued, Position},
};

/// A consumer that takes the next message.
#[derive(Clone, Copy)]
struct Picked {
    key: ConsumerKey,
    home: ConsumerHome,
    acknowledges: bool,
}

/// What became of a message that was given to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "who published it waits for it"]
pub(super) enum Taken {
    /// It is where it should be.
    InMemory,
    /// It is where it should be once all that is in the journal now is on disk.
    Journaled,
    /// The queue is full.
    Refused,
}

/// What each delivery to another shard counts besides its octets.
pub(super) const WINDOW_OCTETS_PER_MESSAGE: i64 = 64;

impl Shard {
    /// Gives a message to a queue that has its home here.
    ///
    /// A queue that is gone meanwhile takes everything.
    pub(super) fn enqueue(
        &mut self,
        queue: QueueHandle,
        message: &MessageView<'_>,
        mut attributes: Attributes,
    ) -> Taken {
        let Some(slot) = self.queues.find(queue) else { return Taken::InMemory };
        let cell = self.queues.get_mut(slot).expect("the queue was just found");
        let options = &cell.definition.options;
        if let Some(most) = options.priority_max {
            attributes.priority = attributes.priority.min(most);
        }
        if let Some(ttl) = options.message_ttl_millis {
            let expires_at = self.now.saturating_add(ttl);
            attributes.expires_at = Some(attributes.expires_at.map_or(expires_at, |own| own.min(expires_at)));
        }
        let expires = attributes.expires_at.is_some();
        let is_journaled = attributes.persistent && cell.queue.is_logged();
        if is_journaled && let Some(persistence) = &mut self.persistence {
            let segment = persistence.segment();
            cell.queue.set_segment(segment);
            persistence.recycling.note(cell, slot, u64::from(segment));
        }
        if cell.queue.is_empty() && !cell.queue.would_overflow(message.body.len()) {
            let Self { connections, outboxes, index, persistence, unix_offset_millis, .. } = self;
            if let Some(picked) = pick(&mut cell.consumers, connections, *index) {
                let position = if picked.acknowledges {
                    Some(cell.queue.hold_new(*message, attributes))
                } else {
                    cell.queue.pass_through();
                    None
                };
                send(connections, outboxes, &picked, QueueHandle { slot, ..queue }, position, false, message);
                spend_window(&mut cell.consumers, &picked, queue.home, content_octets(message));
                let put = position.filter(|_| is_journaled);
                if let (Some(position), Some(persistence)) = (put, persistence) {
                    let put = Put { position, attributes: &attributes, delivered: true, message };
                    persistence.put(&cell.definition, put, *unix_offset_millis);
                }
                if position.is_some() {
                    self.queues.mark_changed(slot);
                    if expires {
                        // It may come back.
                        self.queues.mark_timed(slot);
                    }
                }
                self.metrics.delivered += 1;
                return if put.is_some() { Taken::Journaled } else { Taken::InMemory };
            }
        }
        let keeps_dead = cell.definition.options.dead_letter_exchange.is_some();
        let Self { queues, dead_letters, persistence, unix_offset_millis, .. } = self;
        let cell = queues.get_mut(slot).expect("the queue was just found");
        let definition = &cell.definition;
        let taken = cell.queue.enqueue(*message, attributes, &mut |reason, dead| {
            if keeps_dead {
                dead_letters.push(DeadLetter::new(definition, reason, &dead));
            }
        });
        let taken = match (taken, persistence) {
            (Enqueued::Rejected, _) => Taken::Refused,
            (Enqueued::Accepted(position), Some(persistence)) if is_journaled => {
                let put = Put { position, attributes: &attributes, delivered: false, message };
                persistence.put(definition, put, *unix_offset_millis);
                Taken::Journaled
            }
            (Enqueued::Accepted(_), _) => Taken::InMemory,
        };
        let is_stalled = cell.queue.is_stalled();
        if cell.consumers.peek_next().is_some() {
            queues.mark_runnable(slot);
        }
        queues.mark_changed(slot);
        if expires {
            queues.mark_timed(slot);
            // A message may be published with no time to live at all.
            self.expire(slot);
        }
        if is_stalled {
            self.load_front(slot);
        }
        taken
    }

    /// Delivers from every queue for which something has changed, until consumers or queues are exhausted.
    pub(super) fn run_queues(&mut self) {
        while let Some(slot) = self.queues.runnable.pop() {
            if let Some(cell) = self.queues.get_mut(slot) {
                cell.is_runnable = false;
                self.drain(slot);
            }
        }
    }

    fn drain(&mut self, slot: u32) {
        // Behind each message that goes there may be some whose time is up.
        while self.expire(slot) && self.deliver_ready(slot) {}
        self.queues.mark_changed(slot);
        if let Some(cell) = self.queues.get_mut(slot)
            && cell.queue.has_absent()
        {
            let is_wanted = cell.consumers.peek_next().is_some() || !cell.waiting_gets.is_empty();
            self.load(slot, is_wanted);
        }
    }

    /// Delivers from the head of a queue. Whether it has stopped at a message that has expired.
    fn deliver_ready(&mut self, slot: u32) -> bool {
        let handle = self.queues.handle(slot, self.index);
        let Self { queues, connections, outboxes, index, metrics, now, persistence, .. } = self;
        let cell = queues.get_mut(slot).expect("a queue that is drained is there");
        loop {
            if let Some(persistence) = persistence
                && cell.queue.is_logged()
                && cell.consumers.peek_next().is_some()
                && !persistence.is_clear_to_deliver(cell, handle)
            {
                break;
            }
            let Some(front) = cell.queue.front() else { break };
            if front.expires_at.is_some_and(|at| at <= *now) {
                return true;
            }
            let Some(picked) = pick(&mut cell.consumers, connections, *index) else { break };
            let position = picked.acknowledges.then_some(front.position);
            send(connections, outboxes, &picked, handle, position, front.redelivered, &front.message);
            let octets = content_octets(&front.message);
            spend_window(&mut cell.consumers, &picked, handle.home, octets);
            if picked.acknowledges {
                cell.queue.hold_front();
            } else {
                cell.queue.remove_front();
            }
            metrics.delivered += 1;
        }
        false
    }

    /// A queue may be over its limits, or hold expired messages, that it could not look at before.
    pub(super) fn trim(&mut self, slot: u32) {
        let Self { queues, dead_letters, .. } = self;
        let Some(cell) = queues.get_mut(slot) else { return };
        let definition = &cell.definition;
        cell.queue.drop_excess(&mut |reason, dead| {
            if definition.options.dead_letter_exchange.is_some() {
                dead_letters.push(DeadLetter::new(definition, reason, &dead));
            }
        });
        let is_stalled = cell.queue.is_stalled();
        queues.mark_changed(slot);
        if is_stalled {
            self.load_front(slot);
        }
        self.expire(slot);
    }

    /// Takes expired messages off the head of a queue, but, where they go on to a dead letter exchange, no more than may wait to be
    /// published there. Whether none is left; otherwise a later turn goes on ([`Shard::expire_more`]).
    pub(super) fn expire(&mut self, slot: u32) -> bool {
        let Self { queues, dead_letters, now, .. } = self;
        let Some(cell) = queues.get_mut(slot) else { return true };
        if cell.queue.next_expiry().is_none_or(|at| at > *now) {
            return true;
        }
        let keeps_dead = cell.definition.options.dead_letter_exchange.is_some();
        let definition = &cell.definition;
        let most = if keeps_dead { DEAD_LETTERS_MAX.saturating_sub(dead_letters.len()) } else { usize::MAX };
        cell.queue.expire(*now, most, &mut |reason, dead| {
            if keeps_dead {
                dead_letters.push(DeadLetter::new(definition, reason, &dead));
            }
        });
        let is_done = cell.queue.next_expiry().is_none_or(|at| at > *now);
        queues.mark_changed(slot);
        if !is_done {
            queues.mark_expiring(slot);
        }
        is_done
    }

    /// Goes on with the queues of which more has expired than one turn takes.
    pub(super) fn expire_more(&mut self) {
        for slot in self.queues.take_expiring() {
            if self.expire(slot) {
                self.queues.mark_runnable(slot);
            }
        }
    }

    /// The output of a connection has room again: its consumers may go on.
    pub(super) fn wake_consumers_of_output(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if connection.waiting_for_output.is_empty() || connection.output.len() >= OUTPUT_OCTETS_MAX / 2 {
            return;
        }
        for index in std::mem::take(&mut connection.waiting_for_output) {
            self.wake_consumer(slot, index);
        }
    }

    /// A consumer may take messages again.
    pub(super) fn wake_consumer(&mut self, slot: u32, index: u32) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let Some(consumer) = connection.consumers.get_mut(index as usize).and_then(Option::as_mut) else { return };
        let (key, Some(queue)) = (consumer.key, consumer.queue) else { return };
        if queue.home == self.index {
            if let Some(at) = self.queues.find(queue) {
                self.queues.get_mut(at).expect("the queue was just found").consumers.resume(key);
                self.queues.mark_runnable(at);
            }
            return;
        }
        match consumer.hold {
            Hold::None => {}
            // What is under way has to come back first.
            Hold::Asked => {
                let number = consumer.channel;
                connection.channel(number).expect("a consumer's channel is open").held_back.push(index);
                return;
            }
            Hold::Stopped => {
                let number = consumer.channel;
                if !connection.channel(number).is_some_and(|channel| channel.has_room()) {
                    return;
                }
                let consumer = connection.consumers[index as usize].as_mut().expect("it was just found");
                consumer.hold = Hold::None;
                let batch = self.outboxes[usize::from(queue.home.0)].batch();
                batch.messages.push(ShardMessage::Hold { queue, key, held: false });
            }
        }
        let consumer = connection.consumers[index as usize].as_mut().expect("it was just found");
        let octets = std::mem::take(&mut consumer.owed_octets);
        if octets > 0 {
            let batch = self.outboxes[usize::from(queue.home.0)].batch();
            batch.messages.push(ShardMessage::Window { queue, key, octets });
        }
    }
}

/// Who takes the next message of a queue. Consumers that can't take one now are suspended on the way.
#[inline]
fn pick(consumers: &mut Consumers<ConsumerHome>, connections: &mut Connections, own: ShardIndex) -> Option<Picked> {
    loop {
        let (key, home, acknowledges) = consumers.peek_next()?;
        let home = *home;
        let ready = if home.connection.shard == own {
            connections
                .with_id(home.connection.slot, home.connection.generation)
                .is_some_and(|connection| can_take(connection, &home, acknowledges))
        } else {
            home.window_octets > 0
        };
        if ready {
            consumers.next();
            return Some(Picked { key, home, acknowledges });
        }
        consumers.suspend(key);
    }
}

/// Whether a consumer on this shard can take a message now; if not, it is noted where it will be woken from.
#[inline]
fn can_take(connection: &mut Connection, home: &ConsumerHome, acknowledges: bool) -> bool {
    if connection.output.len() >= OUTPUT_OCTETS_MAX {
        connection.waiting_for_output.push(home.index);
        return false;
    }
    let Some(channel) = connection.channel(home.channel) else { return false };
    if acknowledges && !channel.has_room() {
        channel.held_back.push(home.index);
        return false;
    }
    true
}

/// Sends a message to the consumer that was picked for it.
#[inline]
fn send(
    connections: &mut Connections,
    outboxes: &mut [Outbox],
    picked: &Picked,
    queue: QueueHandle,
    position: Option<Position>,
    redelivered: bool,
    message: &MessageView<'_>,
) {
    let home = &picked.home;
    if home.connection.shard == queue.home {
        let slot = home.connection.slot;
        let connection = connections.get_mut(slot).expect("a consumer that was picked is there");
        deliver(connection, home, picked.key, queue, position, redelivered, message);
        connections.mark_dirty(slot);
        return;
    }
    let batch = outboxes[usize::from(home.connection.shard.0)].batch();
    batch.push_delivery(home, queue, picked.key, position, redelivered, message);
}

/// What a message counts against a consumer's window, in octets.
pub(super) fn content_octets(message: &MessageView<'_>) -> usize {
    message.exchange.len() + message.routing_key.len() + message.properties.len() + message.body.len()
}

/// A delivery to another shard uses up some of its consumer's window.
#[inline]
fn spend_window(consumers: &mut Consumers<ConsumerHome>, picked: &Picked, own: ShardIndex, octets: usize) {
    if picked.home.connection.shard == own {
        return;
    }
    if let Some(home) = consumers.get_mut(picked.key) {
        home.window_octets -= i64::try_from(octets).expect("a message is bounded") + WINDOW_OCTETS_PER_MESSAGE;
    }
}

/// Encodes a delivery into the connection's output and takes note of it.
#[inline]
pub(super) fn deliver(
    connection: &mut Connection,
    home: &ConsumerHome,
    key: ConsumerKey,
    queue: QueueHandle,
    position: Option<Position>,
    redelivered: bool,
    message: &MessageView<'_>,
) {
    let channel = connection.channel(home.channel).expect("a consumer's channel is open");
    let tag = channel.next_delivery_tag();
    if let Some(position) = position {
        channel.unacknowledged.push(Outstanding::new(tag, queue, position, Some(key)));
    }
    let Connection { output, consumers, frame_octets_max, .. } = connection;
    let consumer = consumers[home.index as usize].as_ref().expect("a consumer that was picked is there");
    put_delivery(output, &consumer.delivery_prefix, home.channel, tag, redelivered, message, *frame_octets_max);
}

/// Appends `basic.deliver` with its content. `prefix` is the method frame up to the delivery tag, with its size left zero.
#[inline]
fn put_delivery(
    output: &mut OutputBuffer,
    prefix: &[u8],
    channel: u16,
    tag: u64,
    redelivered: bool,
    message: &MessageView<'_>,
    frame_octets_max: usize,
) {
    let out = output.octets_mut();
    let start = out.len();
    let method_octets = prefix.len() + 8 + 1 + 1 + message.exchange.len() + 1 + message.routing_key.len();
    let small_body = if message.body.is_large() { 0 } else { message.body.len() };
    out.reserve(
        method_octets + message.properties.len() + small_body + 3 * FRAME_OVERHEAD_OCTETS + CONTENT_HEADER_FIXED_OCTETS,
    );
    out.extend_from_slice(prefix);
    out[start + 3..start + FRAME_HEADER_OCTETS].copy_from_slice(&size_octets(method_octets - FRAME_HEADER_OCTETS));
    out.extend_from_slice(&tag.to_be_bytes());
    out.push(u8::from(redelivered));
    put_short(out, message.exchange);
    put_short(out, message.routing_key);
    out.push(FRAME_END);
    put_content(output, channel, message, frame_octets_max);
}

/// Appends a message's header frame and body frames; a large body is referenced, not copied.
#[inline]
pub(super) fn put_content(output: &mut OutputBuffer, channel: u16, message: &MessageView<'_>, frame_octets_max: usize) {
    let body = message.body.octets();
    let out = output.octets_mut();
    if !message.body.is_large() {
        content::put_content(out, channel, message.properties, body, frame_octets_max);
        return;
    }
    content::put_content_header(out, channel, message.properties, body.len() as u64);
    let most = frame_octets_max - FRAME_OVERHEAD_OCTETS;
    let mut at = 0;
    while at < body.len() {
        let end = body.len().min(at + most);
        output.octets_mut().extend_from_slice(&frame_header(FrameKind::Body, channel, end - at));
        match message.body {
            BodyView::Shared(bytes) => output.push_shared(bytes.slice(at..end)),
            BodyView::Slice(octets) => output.octets_mut().extend_from_slice(&octets[at..end]),
        }
        output.octets_mut().push(FRAME_END);
        at = end;
    }
}

#[inline]
fn put_short(out: &mut Vec<u8>, octets: &[u8]) {
    debug_assert!(octets.len() <= crate::limits::SHORT_STRING_OCTETS_MAX);
    #[expect(clippy::cast_possible_truncation, reason = "a short string is at most 255 octets")]
    out.push(octets.len() as u8);
    out.extend_from_slice(octets);
}

#[inline]
fn size_octets(size: usize) -> [u8; 4] {
    u32::try_from(size).expect("a frame is smaller than 4 GiB").to_be_bytes()
}
