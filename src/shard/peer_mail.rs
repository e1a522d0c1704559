//! What arrives from another shard.

use super::{
    Shard,
    batch::{Batch, Contents, Messages},
    control_mail::Got,
    deliver::{Taken, WINDOW_OCTETS_PER_MESSAGE, content_octets, deliver},
    shard_message::{Asker, ConsumerHome, Publisher, QueueReply, QueueRequest, ShardMessage},
};
use crate::{
    connection::{Hold, Pause, QueueHandle, Settlement},
    definitions::ShardIndex,
    limits::{OUTPUT_OCTETS_MAX, WINDOW_OCTETS_STEP},
    message::MessageView,
    queue::{Attributes, ConsumerKey, Position},
};
use std::ops::Range;

/// A delivery as it arrives at the shard of its consumer.
struct Arrived {
    to: ConsumerHome,
    queue: QueueHandle,
    key: ConsumerKey,
    position: Option<Position>,
    redelivered: bool,
}

impl Shard {
    /// Takes a batch from another shard. What the control plane sent before must have been handled before.
    pub fn handle_batch(&mut self, from: usize, batch: Batch) {
        if batch.credit_octets > 0 && self.outboxes[from].restore(batch.credit_octets) {
            let peer = ShardIndex(u16::try_from(from).expect("shards are bounded"));
            for slot in self.connections.slots() {
                self.resume(slot, Pause::Peer(peer));
            }
        }
        let publish_octets = batch.publish_octets;
        let (mut messages, contents) = batch.into_parts();
        for message in messages.drain(..) {
            self.handle_message(from, message, &contents);
        }
        self.outboxes[from].taken(publish_octets, Batch::from_parts(messages, contents));
    }

    fn handle_message(&mut self, from: usize, message: ShardMessage, contents: &Contents) {
        match message {
            ShardMessage::Publish { queue, publisher, attributes, contents: run } => {
                self.handle_publishes(from, queue, publisher, attributes, contents.run(&run));
            }
            ShardMessage::Confirm { to, first, last, accepted } => self.handle_confirm(to, first..=last, accepted),
            ShardMessage::Deliver { to, queue, key, position, redelivered, contents: run } => {
                let mut arrived = Arrived { to, queue, key, position, redelivered };
                for message in contents.run(&run) {
                    self.handle_delivery(&arrived, &message);
                    arrived.position = arrived.position.map(|position| position + 1);
                }
            }
            ShardMessage::Got { to, queue, position, redelivered, left, content } => {
                let got = Got { queue, position, redelivered, left };
                self.finish_get(to, &got, &contents.single(&content));
            }
            ShardMessage::Reply { to, content } => self.deliver_reply(to, &contents.single(&content)),
            ShardMessage::Settle { queue, consumer, position, count, settlement } => {
                for position in position..position + u64::from(count) {
                    self.settle_here(queue, consumer, position, settlement);
                }
            }
            ShardMessage::Window { queue, key, octets } => {
                self.open_window(queue, key, octets);
            }
            ShardMessage::Hold { queue, key, held } => self.set_held(queue, key, held),
            ShardMessage::Held { home } => self.consumer_is_held(&home),
            ShardMessage::Ask { from, queue, request } => self.handle_queue_request(from, queue, request),
            ShardMessage::Answer { to, reply } => self.handle_queue_reply(to, reply),
            ShardMessage::ConsumerCancelled { home } => self.consumer_lost_its_queue(&home),
        }
    }

    /// Gives messages to a queue; where they have a publisher, tells its shard which were taken.
    fn handle_publishes(
        &mut self,
        from: usize,
        queue: QueueHandle,
        publisher: Option<Publisher>,
        attributes: Attributes,
        messages: Messages<'_>,
    ) {
        let Some(Publisher { channel, number: mut first }) = publisher else {
            for message in messages {
                self.begin_message(None);
                // Nobody waits for it.
                let _ = self.enqueue(queue, &message, attributes);
            }
            return;
        };
        let (mut next, mut last) = (first, None);
        for message in messages {
            if !self.is_same_message((channel, next)) {
                self.begin_message(Some((channel, next)));
            }
            let taken = self.enqueue(queue, &message, attributes);
            if last.is_some_and(|last| last != taken) {
                self.answer_publishes(from, channel, first..next, last);
                first = next;
            }
            last = Some(taken);
            next += 1;
        }
        self.answer_publishes(from, channel, first..next, last);
    }

    /// Answers publishes from another shard: what is journaled once it is on disk.
    fn answer_publishes(&mut self, from: usize, to: Asker, numbers: Range<u64>, taken: Option<Taken>) {
        match taken {
            None => {}
            Some(Taken::InMemory) => self.confirm_to(from, to, numbers, true),
            Some(Taken::Refused) => self.confirm_to(from, to, numbers, false),
            Some(Taken::Journaled) => self.await_commit(to, numbers),
        }
    }

    /// Tells a publisher's shard that publishes were taken or refused; numbers that go on from the ones before travel as one.
    pub(super) fn confirm_to(&mut self, peer: usize, to: Asker, numbers: Range<u64>, accepted: bool) {
        if numbers.is_empty() {
            return;
        }
        let newest = numbers.end - 1;
        let messages = &mut self.outboxes[peer].batch().messages;
        if let Some(ShardMessage::Confirm { to: before, last, accepted: same, .. }) = messages.last_mut()
            && *before == to
            && *same == accepted
            && *last + 1 == numbers.start
        {
            *last = newest;
            return;
        }
        messages.push(ShardMessage::Confirm { to, first: numbers.start, last: newest, accepted });
    }

    fn handle_delivery(&mut self, arrived: &Arrived, message: &MessageView<'_>) {
        let Arrived { to, queue, key, position, redelivered } = *arrived;
        let peer = usize::from(queue.home.0);
        let Some(connection) = self.connections.with_id(to.connection.slot, to.connection.generation) else {
            self.return_delivery(arrived, Settlement::Requeued);
            return;
        };
        if connection.channel(to.channel).is_none() || connection.consumer(to.index, to.serial).is_none() {
            self.return_delivery(arrived, Settlement::Requeued);
            return;
        }
        let channel = connection.channel(to.channel).expect("the channel was just found");
        let counted = content_octets(message) as u64 + WINDOW_OCTETS_PER_MESSAGE.unsigned_abs();
        let has_room = position.is_none() || channel.has_room();
        let consumer = connection.consumer(to.index, to.serial).expect("the consumer was just found");
        if !has_room || consumer.hold != Hold::None {
            consumer.owed_octets += u32::try_from(counted).expect("a message is bounded");
            let batch = self.outboxes[peer].batch();
            if consumer.hold == Hold::None {
                consumer.hold = Hold::Asked;
                batch.messages.push(ShardMessage::Hold { queue, key, held: true });
                connection.channel(to.channel).expect("the channel was just found").held_back.push(to.index);
            }
            self.return_delivery(arrived, Settlement::Returned);
            return;
        }
        deliver(connection, &to, key, queue, position, redelivered, message);
        let is_full = connection.output.len() >= OUTPUT_OCTETS_MAX;
        let consumer = connection.consumer(to.index, to.serial).expect("the consumer was just found");
        consumer.owed_octets += u32::try_from(counted).expect("a message is bounded");
        if is_full {
            if !connection.waiting_for_output.contains(&to.index) {
                connection.waiting_for_output.push(to.index);
            }
        } else if consumer.owed_octets >= WINDOW_OCTETS_STEP {
            let octets = std::mem::take(&mut consumer.owed_octets);
            self.outboxes[peer].batch().messages.push(ShardMessage::Window { queue, key, octets });
        }
        self.connections.mark_dirty(to.connection.slot);
    }

    /// A delivery that came too late goes back to its place. Nobody has seen it, but where its consumer is gone others may
    /// have got what was behind it, and whoever gets it next must not take it for one that comes in order.
    fn return_delivery(&mut self, arrived: &Arrived, settlement: Settlement) {
        let Some(position) = arrived.position else { return };
        let batch = self.outboxes[usize::from(arrived.queue.home.0)].batch();
        batch.push_settlement(arrived.queue, Some(arrived.key), position, settlement);
    }

    /// A consumer may be sent more octets.
    fn open_window(&mut self, queue: QueueHandle, key: ConsumerKey, octets: u32) {
        let Some(slot) = self.queues.find(queue) else { return };
        let consumers = &mut self.queues.get_mut(slot).expect("the queue was just found").consumers;
        let Some(home) = consumers.get_mut(key) else { return };
        home.window_octets += i64::from(octets);
        if !home.is_held {
            consumers.resume(key);
            self.queues.mark_runnable(slot);
        }
    }

    fn set_held(&mut self, queue: QueueHandle, key: ConsumerKey, held: bool) {
        let Some(slot) = self.queues.find(queue) else { return };
        let consumers = &mut self.queues.get_mut(slot).expect("the queue was just found").consumers;
        let Some(home) = consumers.get_mut(key) else { return };
        home.is_held = held;
        let home = *home;
        if held {
            consumers.suspend(key);
            let batch = self.outboxes[usize::from(home.connection.shard.0)].batch();
            batch.messages.push(ShardMessage::Held { home });
        } else {
            consumers.resume(key);
            self.queues.mark_runnable(slot);
        }
    }

    /// A consumer's queue has stopped, and all that it had sent has gone back: from here on it may be let go on.
    fn consumer_is_held(&mut self, home: &ConsumerHome) {
        let slot = home.connection.slot;
        let Some(connection) = self.connections.with_id(slot, home.connection.generation) else { return };
        let Some(consumer) = connection.consumer(home.index, home.serial) else { return };
        consumer.hold = Hold::Stopped;
        self.release_held_back(slot, home.channel);
    }

    /// Asks a queue for something, wherever it is; the answer comes to [`Shard::handle_queue_reply`].
    pub(super) fn ask_queue(&mut self, from: Asker, queue: QueueHandle, request: QueueRequest) {
        if queue.home == self.index {
            self.handle_queue_request(from, queue.id, request);
        } else {
            let batch = self.outboxes[usize::from(queue.home.0)].batch();
            batch.messages.push(ShardMessage::Ask { from, queue: queue.id, request });
        }
    }

    /// Answers a question, wherever it came from.
    pub(super) fn answer(&mut self, to: Asker, reply: QueueReply) {
        if to.connection.shard == self.index {
            self.handle_queue_reply(to, reply);
        } else {
            let batch = self.outboxes[usize::from(to.connection.shard.0)].batch();
            batch.messages.push(ShardMessage::Answer { to, reply });
        }
    }
}
