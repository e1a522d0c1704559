//! Direct reply-to: replies go straight to the consumer of `amq.rabbitmq.reply-to`, through no queue.
//!
//! The address that stands in for it names the requester's connection and channel, and carries a secret against guessing.
//!
//! Source: RabbitMQ, "Direct Reply-to".

use super::{
    Shard,
    basic_methods::precondition,
    publish::{Origin, Published},
    shard_message::{Asker, ConsumerHome, ShardMessage},
};
use crate::{
    connection::Mode,
    definitions::{ConnectionId, QueueId, ShardIndex},
    limits::{FRAME_OCTETS_MAX, MESSAGE_OVERHEAD_OCTETS, OUTPUT_PAUSE_OCTETS},
    message::MessageView,
    protocol::{
        exception::Exception,
        method::{Method, basic},
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// The name of the pseudo-queue.
pub(super) const REPLY_TO_QUEUE: &[u8] = b"amq.rabbitmq.reply-to";

impl Shard {
    /// `basic.consume` from the pseudo-queue.
    pub(super) fn consume_replies(
        &mut self,
        slot: u32,
        number: u16,
        consume: &basic::Consume<'_>,
    ) -> Result<(), Exception> {
        if !consume.no_ack {
            return Err(precondition("reply consumer cannot acknowledge"));
        }
        if self.channel_mut(slot, number).reply_consumer.is_some() {
            return Err(precondition("reply consumer already set"));
        }
        let index = self.add_consumer(slot, number, consume, None)?;
        self.channel_mut(slot, number).reply_consumer = Some(index);
        if !consume.no_wait {
            let connection = self.connections.get(slot).expect("a method has a connection");
            let consumer = connection.consumers[index as usize].as_ref().expect("it was just added");
            let tag = consumer.tag.clone();
            self.send(slot, number, &Method::BasicConsumeOk(basic::ConsumeOk { consumer_tag: &tag }));
        }
        Ok(())
    }

    /// The address that replies to this channel go to.
    pub(super) fn reply_address(&mut self, origin: &Origin<'_>) -> Result<Vec<u8>, Exception> {
        if self.channel_mut(origin.slot, origin.number).reply_consumer.is_none() {
            return Err(precondition("fast reply consumer does not exist"));
        }
        let connection = self.connections.get(origin.slot).expect("a publish has a connection");
        let to = connection.asker(origin.number);
        let mut octets = Vec::with_capacity(20);
        octets.extend_from_slice(&to.connection.shard.0.to_be_bytes());
        octets.extend_from_slice(&to.connection.slot.to_be_bytes());
        octets.extend_from_slice(&to.connection.generation.to_be_bytes());
        octets.extend_from_slice(&to.channel.to_be_bytes());
        octets.extend_from_slice(&self.reply_seal(&octets).to_be_bytes());
        let mut address = REPLY_TO_QUEUE.to_vec();
        address.push(b'.');
        address.extend_from_slice(URL_SAFE_NO_PAD.encode(octets).as_bytes());
        Ok(address)
    }

    /// What can't be guessed of an address.
    fn reply_seal(&self, octets: &[u8]) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        let state = ahash::RandomState::with_seeds(self.reply_secret, !self.reply_secret, 3, 4);
        let mut hasher = state.build_hasher();
        hasher.write(octets);
        hasher.finish()
    }

    /// Whether a passive declare with this name asks for the pseudo-queue, or for a requester that is still there as far as
    /// this shard knows.
    pub(super) fn is_reply_address(&mut self, name: &[u8]) -> bool {
        if name == REPLY_TO_QUEUE {
            return true;
        }
        let Some(to) = self.read_reply_address(name) else { return false };
        if to.connection.shard != self.index {
            return true;
        }
        let connection = self.connections.with_id(to.connection.slot, to.connection.generation);
        connection.and_then(|connection| connection.channel(to.channel)).is_some_and(|it| it.reply_consumer.is_some())
    }

    /// Whom an address names.
    fn read_reply_address(&self, routing_key: &[u8]) -> Option<Asker> {
        let text = routing_key.strip_prefix(REPLY_TO_QUEUE)?.strip_prefix(b".")?;
        let octets = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (named, seal) = octets.split_at_checked(12)?;
        if seal != self.reply_seal(named).to_be_bytes() {
            return None;
        }
        let shard = ShardIndex(u16::from_be_bytes([named[0], named[1]]));
        let slot = u32::from_be_bytes([named[2], named[3], named[4], named[5]]);
        let generation = u32::from_be_bytes([named[6], named[7], named[8], named[9]]);
        let channel = u16::from_be_bytes([named[10], named[11]]);
        Some(Asker { connection: ConnectionId { shard, slot, generation }, channel })
    }

    /// Publishes to a reply address through the default exchange. `None` where the routing key is none.
    pub(super) fn publish_reply(
        &mut self,
        origin: &Origin<'_>,
        publish: &basic::Publish<'_>,
        message: &MessageView<'_>,
    ) -> Option<Published> {
        if !publish.routing_key.starts_with(REPLY_TO_QUEUE) {
            return None;
        }
        let to = self.read_reply_address(publish.routing_key)?;
        let mut full_peer = None;
        let is_known = usize::from(to.connection.shard.0) < self.outboxes.len();
        if to.connection.shard == self.index {
            self.deliver_reply(to, message);
        } else if is_known {
            let outbox = &mut self.outboxes[usize::from(to.connection.shard.0)];
            if outbox.is_full() {
                full_peer = Some(to.connection.shard);
                if origin.may_wait {
                    return Some(Published::PeerIsFull(to.connection.shard));
                }
            }
            let content = outbox.batch().put_content(message);
            outbox.batch().messages.push(ShardMessage::Reply { to, content });
            outbox.add_publish(super::deliver::content_octets(message) as u64 + MESSAGE_OVERHEAD_OCTETS);
        }
        self.metrics.published += 1;
        let channel = self.channel_mut(origin.slot, origin.number);
        if let Mode::Confirm(confirms) = &mut channel.mode {
            confirms.publish(0, false);
            self.note_verdicts(origin.slot, origin.number);
        }
        Some(full_peer.map_or(Published::Done, Published::PeerIsFull))
    }

    /// Delivers a reply to its requester, if that still is there and reads what it gets: replies are promised to nobody, and
    /// no queue holds them back.
    pub(super) fn deliver_reply(&mut self, to: Asker, message: &MessageView<'_>) {
        let Some(connection) = self.connections.with_id(to.connection.slot, to.connection.generation) else { return };
        if connection.output.len() + message.body.len() >= OUTPUT_PAUSE_OCTETS - FRAME_OCTETS_MAX {
            self.metrics.replies_dropped += 1;
            return;
        }
        let Some(index) = connection.channel(to.channel).and_then(|channel| channel.reply_consumer) else { return };
        let Some(consumer) = connection.consumers[index as usize].as_ref() else { return };
        let (serial, key) = (consumer.serial, consumer.key);
        let home = ConsumerHome {
            connection: to.connection,
            channel: to.channel,
            index,
            serial,
            window_octets: 0,
            is_held: false,
        };
        let queue = crate::connection::QueueHandle { home: self.index, slot: u32::MAX, id: QueueId(0) };
        super::deliver::deliver(connection, &home, key, queue, None, false, message);
        self.metrics.delivered += 1;
        self.connections.mark_dirty(to.connection.slot);
    }

    /// Text for a generated consumer tag: unique, and not to be guessed.
    pub(super) fn generated_text(&mut self) -> String {
        let number = self.next_generated_number();
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.reply_seal(&number.to_be_bytes()).to_be_bytes());
        octets[8..].copy_from_slice(&self.reply_seal(&(!number).to_be_bytes()).to_be_bytes());
        URL_SAFE_NO_PAD.encode(octets)
    }
}
