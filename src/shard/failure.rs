//! Ends of channels and connections: by a mistake, by the peer, by the broker's shutdown. Everything they held is given back.

use super::{
    Shard,
    shard_message::{Asker, ConsumerHome, QueueRequest},
};
use crate::{
    connection::{ChannelSlot, Consumer, Mode, Phase, Settlement, Then},
    limits::CLOSE_MILLIS_MAX,
    protocol::{
        exception::{ConnectionException, Exception},
        method::{Method, basic, channel, connection},
        reply_code::ReplyCode,
    },
};

impl Shard {
    /// Closes the channel or the connection, as the mistake demands. `method`: class and method that it was made with.
    pub(super) fn fail(&mut self, slot: u32, number: u16, exception: Exception, method: (u16, u16)) {
        let exception = match exception {
            Exception::Connection(exception) => return self.fail_connection(slot, &exception, method),
            Exception::Channel(exception) => exception,
        };
        tracing::debug!("channel {number} is closed: {}", exception.text);
        self.tell_confirms_of(slot, number);
        self.release_channel(slot, number);
        let Some(connection) = self.connections.get_mut(slot) else { return };
        *connection.channel_slot(number) = ChannelSlot::Closing;
        let close = channel::Close {
            reply_code: exception.code.code(),
            reply_text: exception.text.as_bytes(),
            class_id: method.0,
            method_id: method.1,
        };
        self.send(slot, number, &Method::ChannelClose(close));
    }

    /// Closes the connection with an error.
    pub(super) fn fail_connection(&mut self, slot: u32, exception: &ConnectionException, method: (u16, u16)) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if matches!(connection.phase, Phase::Closing | Phase::Closed) {
            // A second mistake while the first is being answered: the peer does not understand.
            connection.phase = Phase::Closed;
            self.connections.mark_dirty(slot);
            return;
        }
        tracing::info!("connection {slot} is closed: {}", exception.text);
        self.close_connection(slot, exception, method);
    }

    fn close_connection(&mut self, slot: u32, exception: &ConnectionException, method: (u16, u16)) {
        self.release_connection(slot);
        let now = self.now;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.phase = Phase::Closing;
        connection.deadline = Some(now + CLOSE_MILLIS_MAX);
        if connection.pause.take().is_some() {
            self.connections.resumed.push(slot);
        }
        let close = connection::Close {
            reply_code: exception.code.code(),
            reply_text: exception.text.as_bytes(),
            class_id: method.0,
            method_id: method.1,
        };
        self.send(slot, 0, &Method::ConnectionClose(close));
    }

    /// The broker stops.
    pub(super) fn close_for_shutdown(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        match connection.phase {
            Phase::Running => {
                let text = "broker forced connection closure with reason 'shutdown'";
                self.close_connection(slot, &ConnectionException::new(ReplyCode::ConnectionForced, text), (0, 0));
            }
            Phase::Closing | Phase::Closed => {}
            _ => self.end_connection(slot),
        }
    }

    /// The socket is gone.
    pub fn handle_disconnected(&mut self, slot: u32) {
        self.release_connection(slot);
        self.connections.remove(slot);
    }

    /// Gives back what a connection holds: consumers, outstanding deliveries, exclusive queues.
    pub(super) fn release_connection(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.awaiting = None;
        let numbers = 0..u16::try_from(connection.channels.len()).expect("channel numbers are two octets");
        for number in numbers {
            self.release_channel(slot, number);
        }
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.channels.clear();
        connection.incoming_octets = 0;
        for id in std::mem::take(&mut connection.exclusive_queues) {
            if let Some(at) = self.queues.slot_of(id) {
                self.retire_queue(at);
            }
        }
    }

    /// Gives back what a channel holds.
    pub(super) fn release_channel(&mut self, slot: u32, number: u16) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let asker = connection.asker(number);
        let ChannelSlot::Open(channel) = std::mem::take(connection.channel_slot(number)) else { return };
        let mut channel = *channel;
        if let Some(incoming) = channel.incoming.take() {
            connection.incoming_octets -= incoming.body.len() as u64;
        }
        let mut settlements = Vec::new();
        if let Mode::Transactional { pending, .. } = &mut channel.mode {
            connection.incoming_octets -= pending.octets_held();
            settlements = std::mem::take(&mut pending.settlements);
        }
        let mut indexes: Vec<u32> = channel.consumers.values().copied().chain(channel.reply_consumer).collect();
        // In an order that does not hang on the map's, so that a run of the simulator can be repeated.
        indexes.sort_unstable();
        let gone: Vec<Consumer> = indexes.into_iter().filter_map(|index| connection.remove_consumer(index)).collect();
        for consumer in gone {
            self.leave_queue(asker, &consumer);
        }
        while let Some(outstanding) = channel.unacknowledged.take_front_through(u64::MAX) {
            self.settle(outstanding, Settlement::Requeued);
        }
        for (outstanding, _) in settlements {
            self.settle(outstanding, Settlement::Requeued);
        }
    }

    /// A consumer is gone; its queue need not answer.
    pub(super) fn leave_queue(&mut self, asker: Asker, consumer: &Consumer) {
        if let Some(queue) = consumer.queue {
            self.ask_queue(asker, queue, QueueRequest::Leave(consumer.key));
        }
    }

    /// The queue of a consumer is gone: the client is told, if it wants to know.
    pub(super) fn consumer_lost_its_queue(&mut self, home: &ConsumerHome) {
        let Some(connection) = self.connections.with_id(home.connection.slot, home.connection.generation) else {
            return;
        };
        if connection.consumer(home.index, home.serial).is_none() {
            return;
        }
        let Some(consumer) = connection.remove_consumer(home.index) else { return };
        if !connection.capabilities.consumer_cancel_notify || connection.phase != Phase::Running {
            return;
        }
        connection.cancels_due.push((consumer.channel, consumer.tag));
        if !connection.awaiting.as_ref().is_some_and(|awaiting| matches!(awaiting.then, Then::Delete)) {
            self.tell_cancels_due(home.connection.slot);
        }
    }

    /// Tells the client of consumers that lost their queue.
    pub(super) fn tell_cancels_due(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let mut due = std::mem::take(&mut connection.cancels_due);
        // A channel may have been closed meanwhile.
        due.retain(|(channel, _)| connection.channel(*channel).is_some());
        for (channel, consumer_tag) in due {
            let cancel = Method::BasicCancel(basic::Cancel { consumer_tag: &consumer_tag, no_wait: true });
            self.send(slot, channel, &cancel);
        }
    }
}
