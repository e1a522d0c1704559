//! Answers that methods waited for: of the control plane, and of queues.

use super::{
    Shard,
    control_message::{ControlAnswer, ControlMail},
    shard_message::{Asker, QueueReply, QueueRequest},
};
use crate::{
    connection::{Awaiting, Connection, Outstanding, Pause, QueueHandle, Settlement, Then},
    definitions::Applied,
    message::MessageView,
    protocol::{
        exception::Exception,
        method::{Method, basic, queue},
    },
    queue::{ConsumerKey, Position},
};

/// What came with a message that answers `basic.get`.
pub(super) struct Got {
    pub queue: QueueHandle,
    pub position: Option<Position>,
    pub redelivered: bool,
    /// Ready messages that are left.
    pub left: u64,
}

impl Shard {
    /// Takes what the control plane tells.
    pub fn handle_control(&mut self, mail: ControlMail) {
        match mail {
            ControlMail::QueueCreated(definition) => self.create_queue(definition),
            ControlMail::QueueDropped(id) => {
                if let Some(slot) = self.queues.slot_of(id) {
                    self.close_queue(slot);
                }
            }
            ControlMail::Answer { to, result } => self.handle_control_answer(to, result),
        }
    }

    fn handle_control_answer(&mut self, to: Asker, result: Result<ControlAnswer, Exception>) {
        let slot = to.connection.slot;
        let Some(Awaiting { channel, method, no_wait, then }) = self.take_awaiting(to) else {
            self.disown(to, result);
            return;
        };
        match (then, result) {
            (Then::Authenticate { user, mechanism }, Ok(ControlAnswer::Authenticated(is_right))) => {
                self.finish_login(slot, user, mechanism, is_right);
            }
            (_, Err(exception)) => self.fail(slot, channel, exception, method),
            (Then::QueueDeclared { .. }, Ok(ControlAnswer::Applied(Applied::Queue { definition, created }))) => {
                if created && definition.exclusive_owner == Some(to.connection) {
                    let connection = self.connections.get_mut(slot).expect("its answer was taken");
                    connection.exclusive_queues.push(definition.id);
                }
                self.count_declared(slot, channel, no_wait, &definition);
            }
            (Then::Answer(ok), Ok(_)) => self.send_ok(slot, channel, ok, no_wait),
            (Then::Delete, Ok(ControlAnswer::QueueDeleted(count))) => self.finish_delete(slot, channel, no_wait, count),
            (then, Ok(answer)) => unreachable!("{then:?} was answered with {answer:?}"),
        }
        self.tell_cancels_due(slot);
    }

    /// An answer for a connection that is gone: an exclusive queue goes with it.
    fn disown(&mut self, to: Asker, result: Result<ControlAnswer, Exception>) {
        if let Ok(ControlAnswer::Applied(Applied::Queue { definition, created: true })) = result
            && definition.exclusive_owner == Some(to.connection)
            && let Some(slot) = self.queues.slot_of(definition.id)
        {
            self.retire_queue(slot);
        }
    }

    /// What the asker was waiting for; it goes on.
    fn take_awaiting(&mut self, to: Asker) -> Option<Awaiting> {
        let connection = self.connections.with_id(to.connection.slot, to.connection.generation)?;
        let awaiting = connection.awaiting.take_if(|awaiting| awaiting.channel == to.channel)?;
        self.resume(to.connection.slot, Pause::Answer);
        Some(awaiting)
    }

    /// Takes a queue's answer.
    pub(super) fn handle_queue_reply(&mut self, to: Asker, reply: QueueReply) {
        let slot = to.connection.slot;
        let Some(Awaiting { channel, method, no_wait, then }) = self.take_awaiting(to) else {
            if let QueueReply::Consuming(key, queue) = reply {
                self.ask_queue(to, queue, QueueRequest::Leave(key));
            }
            return;
        };
        match (then, reply) {
            (Then::Consume { index }, QueueReply::Refused(exception)) => {
                let connection = self.connections.get_mut(slot).expect("its answer was taken");
                connection.remove_consumer(index);
                self.fail(slot, channel, exception, method);
            }
            (_, QueueReply::Refused(exception)) => self.fail(slot, channel, exception, method),
            (Then::QueueDeclared { name }, QueueReply::Counted(messages, consumers)) => {
                let ok = queue::DeclareOk {
                    queue: name.as_bytes(),
                    message_count: clamped(messages),
                    consumer_count: clamped(consumers),
                };
                self.send(slot, channel, &Method::QueueDeclareOk(ok));
            }
            (Then::Consume { index }, QueueReply::Consuming(key, handle)) => {
                self.finish_consume(slot, index, no_wait, key, handle);
            }
            (then @ Then::Cancel { .. }, QueueReply::Cancelled) => {
                self.requeue_awaiting(slot, Awaiting { channel, method, no_wait, then });
                self.finish_cancel(slot);
            }
            (Then::Get, QueueReply::Empty) => {
                self.send(slot, channel, &Method::BasicGetEmpty(basic::GetEmpty {}));
            }
            (Then::Purge, QueueReply::Purged(count)) => {
                if !no_wait {
                    let ok = queue::PurgeOk { message_count: clamped(count) };
                    self.send(slot, channel, &Method::QueuePurgeOk(ok));
                }
            }
            (Then::Delete, QueueReply::Purged(count)) => self.finish_delete(slot, channel, no_wait, count),
            (then, reply) => unreachable!("{then:?} was answered with {reply:?}"),
        }
        self.tell_cancels_due(slot);
    }

    fn requeue_awaiting(&mut self, slot: u32, awaiting: Awaiting) {
        self.connections.get_mut(slot).expect("its answer was taken").awaiting = Some(awaiting);
    }

    fn finish_consume(&mut self, slot: u32, index: u32, no_wait: bool, key: ConsumerKey, handle: QueueHandle) {
        let connection = self.connections.get_mut(slot).expect("its answer was taken");
        let consumer = connection.consumers[index as usize].as_mut().expect("its connection waited for it");
        consumer.key = key;
        consumer.queue = Some(handle);
        let (channel, tag) = (consumer.channel, consumer.tag.clone());
        if !no_wait {
            self.send(slot, channel, &Method::BasicConsumeOk(basic::ConsumeOk { consumer_tag: &tag }));
        }
    }

    /// The queue has forgotten the consumer that the connection waits to cancel.
    pub(super) fn finish_cancel(&mut self, slot: u32) {
        let connection = self.connections.get_mut(slot).expect("its answer was taken");
        let Some(Awaiting { channel, no_wait, then: Then::Cancel { index, tag }, .. }) = connection.awaiting.take()
        else {
            return;
        };
        if connection.remove_consumer(index).is_some()
            && let Some(state) = connection.channel(channel)
            && state.reply_consumer == Some(index)
        {
            state.reply_consumer = None;
        }
        if !no_wait {
            self.send(slot, channel, &Method::BasicCancelOk(basic::CancelOk { consumer_tag: &tag }));
        }
        self.resume(slot, Pause::Answer);
    }

    /// A message that answers `basic.get`.
    pub(super) fn finish_get(&mut self, to: Asker, got: &Got, message: &MessageView<'_>) {
        let slot = to.connection.slot;
        let Some(Awaiting { channel: number, .. }) = self.take_awaiting(to) else {
            if let Some(position) = got.position {
                let unwanted = Outstanding::new(0, got.queue, position, None);
                self.settle(unwanted, Settlement::Requeued);
            }
            return;
        };
        let connection = self.connections.get_mut(slot).expect("its answer was taken");
        let Connection { output, channels, frame_octets_max, .. } = connection;
        let crate::connection::ChannelSlot::Open(channel) = &mut channels[usize::from(number)] else { return };
        let tag = channel.next_delivery_tag();
        if let Some(position) = got.position {
            channel.unacknowledged.push(Outstanding::new(tag, got.queue, position, None));
        }
        let ok = basic::GetOk {
            delivery_tag: tag,
            redelivered: got.redelivered,
            exchange: message.exchange,
            routing_key: message.routing_key,
            message_count: clamped(got.left),
        };
        Method::BasicGetOk(ok).put(output.octets_mut(), number);
        super::deliver::put_content(output, number, message, *frame_octets_max);
        self.connections.mark_dirty(slot);
    }

    fn finish_delete(&mut self, slot: u32, number: u16, no_wait: bool, count: u64) {
        if !no_wait {
            let ok = queue::DeleteOk { message_count: clamped(count) };
            self.send(slot, number, &Method::QueueDeleteOk(ok));
        }
    }
}

/// Counts on the wire have four octets.
fn clamped(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
