//! What becomes of outstanding deliveries: acknowledged, rejected, requeued.

use super::{Shard, dead_letters::DeadLetter};
use crate::{
    connection::{Mode, Outstanding, QueueHandle, Settlement},
    protocol::{
        exception::{ChannelException, Exception},
        reply_code::ReplyCode,
    },
    queue::{ConsumerKey, Position},
};

impl Shard {
    /// `basic.ack`, `basic.nack` and `basic.reject`.
    pub(super) fn settle_tag(
        &mut self,
        slot: u32,
        number: u16,
        tag: u64,
        multiple: bool,
        settlement: Settlement,
    ) -> Result<(), Exception> {
        let channel = self.connections.get_mut(slot).and_then(|connection| connection.channel(number));
        let channel = channel.expect("the channel that a method came on is open");
        if let Mode::Transactional { pending, .. } = &mut channel.mode {
            if !multiple {
                let taken = channel.unacknowledged.take(tag).ok_or_else(|| unknown_delivery_tag(tag))?;
                pending.settlements.push((taken, settlement));
                return Ok(());
            }
            let through = if tag == 0 { u64::MAX } else { tag };
            if tag != 0 && !channel.unacknowledged.contains(tag) {
                return Err(unknown_delivery_tag(tag));
            }
            while let Some(taken) = channel.unacknowledged.take_front_through(through) {
                pending.settlements.push((taken, settlement));
            }
            return Ok(());
        }
        if multiple {
            if tag != 0 && !channel.unacknowledged.contains(tag) {
                return Err(unknown_delivery_tag(tag));
            }
            self.settle_through(slot, number, if tag == 0 { u64::MAX } else { tag }, settlement);
        } else {
            let taken = channel.unacknowledged.take(tag).ok_or_else(|| unknown_delivery_tag(tag))?;
            self.settle(taken, settlement);
        }
        self.release_held_back(slot, number);
        Ok(())
    }

    fn settle_through(&mut self, slot: u32, number: u16, through: u64, settlement: Settlement) {
        loop {
            let Some(connection) = self.connections.get_mut(slot) else { return };
            let Some(channel) = connection.channel(number) else { return };
            let Some(taken) = channel.unacknowledged.take_front_through(through) else { return };
            self.settle(taken, settlement);
        }
    }

    /// `basic.recover`: puts every outstanding delivery of the channel back.
    pub(super) fn requeue_all(&mut self, slot: u32, number: u16) {
        self.settle_through(slot, number, u64::MAX, Settlement::Requeued);
        self.release_held_back(slot, number);
    }

    /// Consumers that the channel's limit held back may go on.
    pub(super) fn release_held_back(&mut self, slot: u32, number: u16) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let Some(channel) = connection.channel(number) else { return };
        if channel.held_back.is_empty() || !channel.has_room() {
            return;
        }
        for index in std::mem::take(&mut channel.held_back) {
            self.wake_consumer(slot, index);
        }
    }

    /// Settles one delivery, wherever its queue is.
    #[inline]
    pub(super) fn settle(&mut self, outstanding: Outstanding, settlement: Settlement) {
        let Outstanding { queue, position, consumer, .. } = outstanding;
        if settlement == Settlement::Acknowledged {
            self.metrics.acknowledged += 1;
        }
        if queue.home == self.index {
            self.settle_here(queue, consumer, position, settlement);
        } else {
            let batch = self.outboxes[usize::from(queue.home.0)].batch();
            batch.push_settlement(queue, consumer, position, settlement);
        }
    }

    /// Settles a delivery of a queue that has its home here. A queue that is gone has forgotten it.
    pub(super) fn settle_here(
        &mut self,
        queue: QueueHandle,
        consumer: Option<ConsumerKey>,
        position: Position,
        settlement: Settlement,
    ) {
        let Some(slot) = self.queues.find(queue) else { return };
        let Self { queues, dead_letters, .. } = self;
        let cell = queues.get_mut(slot).expect("the queue was just found");
        match settlement {
            Settlement::Acknowledged => {
                cell.queue.acknowledge(position);
            }
            Settlement::Requeued | Settlement::Returned => {
                // One that no client has seen may have been overtaken by what others got, unless its consumer is alone.
                let is_alone = |key| cell.consumers.len() == 1 && cell.consumers.get(key).is_some();
                let is_redelivery = settlement == Settlement::Requeued || !consumer.is_some_and(is_alone);
                cell.queue.requeue(position, is_redelivery);
                let definition = &cell.definition;
                cell.queue.drop_excess(&mut |reason, dead| {
                    if definition.options.dead_letter_exchange.is_some() {
                        dead_letters.push(DeadLetter::new(definition, reason, &dead));
                    }
                });
            }
            Settlement::Rejected => {
                let definition = &cell.definition;
                cell.queue.reject(position, &mut |reason, dead| {
                    if definition.options.dead_letter_exchange.is_some() {
                        dead_letters.push(DeadLetter::new(definition, reason, &dead));
                    }
                });
            }
        }
        if let Some(key) = consumer {
            cell.consumers.restore(key, 1);
        }
        if !cell.queue.is_empty() {
            queues.mark_runnable(slot);
        }
        queues.mark_changed(slot);
    }
}

fn unknown_delivery_tag(tag: u64) -> Exception {
    ChannelException::new(ReplyCode::PreconditionFailed, format!("unknown delivery tag {tag}")).into()
}
