//! Messages that died in a queue, on their way to its dead letter exchange.

use super::Shard;
use crate::{
    connection::QueueHandle,
    definitions::{QueueDefinition, RouteSet},
    limits::MESSAGE_OVERHEAD_OCTETS,
    message::{Message, MessageView},
    protocol::properties::{delivery_mode, priority},
    queue::{
        Attributes, DeathReason,
        dead_letter::{Death, dead_lettered},
    },
};
use std::sync::Arc;

/// A message that died, and where.
pub(super) struct DeadLetter {
    queue: Arc<QueueDefinition>,
    reason: DeathReason,
    message: Message,
}

impl DeadLetter {
    pub fn new(queue: &Arc<QueueDefinition>, reason: DeathReason, message: &MessageView<'_>) -> Self {
        Self { queue: Arc::clone(queue), reason, message: message.to_message() }
    }
}

impl Shard {
    /// Publishes what has died since the last call.
    pub(super) fn publish_dead_letters(&mut self) {
        for letter in std::mem::take(&mut self.dead_letters) {
            self.publish_dead_letter(&letter);
        }
    }

    fn publish_dead_letter(&mut self, letter: &DeadLetter) {
        let DeadLetter { queue, reason, message } = letter;
        let options = &queue.options;
        let Some(exchange_name) = &options.dead_letter_exchange else { return };
        let definitions = Arc::clone(&self.definitions);
        let Some(vhost) = definitions.vhost(queue.vhost.as_bytes()) else { return };
        let Some(exchange) = vhost.exchange(exchange_name.as_bytes()) else { return };
        let death = Death {
            reason: *reason,
            queue: queue.name.as_bytes(),
            time_seconds: self.unix_seconds(),
            routing_key: options.dead_letter_routing_key.as_deref().map(str::as_bytes),
        };
        let dead = dead_lettered(message.view(), &death);
        let keys: Vec<&[u8]> = dead.routing_keys.iter().map(|key| &key[..]).collect();
        let mut found = RouteSet::default();
        definitions.route(vhost, exchange, &keys, &dead.properties, &mut found);
        let letter = MessageView {
            exchange: exchange_name.as_bytes(),
            routing_key: keys.first().copied().unwrap_or(message.view().routing_key),
            properties: &dead.properties,
            body: message.view().body,
        };
        let attributes = Attributes {
            priority: priority(letter.properties).unwrap_or(0),
            expires_at: None,
            persistent: delivery_mode(letter.properties) == Some(2),
        };
        self.metrics.dead_lettered += 1;
        self.begin_message(None);
        for definition in found.queues() {
            if dead.is_cycle(definition.name.as_bytes()) {
                continue;
            }
            let slot = self.queues.slot_of(definition.id).unwrap_or(u32::MAX);
            let target = QueueHandle { home: definition.home, slot, id: definition.id };
            if target.home == self.index {
                // Nobody waits for it.
                let _ = self.enqueue(target, &letter, attributes);
            } else {
                let outbox = &mut self.outboxes[usize::from(target.home.0)];
                outbox.batch().push_publish(target, None, attributes, &letter);
                outbox.add_publish(super::deliver::content_octets(&letter) as u64 + MESSAGE_OVERHEAD_OCTETS);
            }
        }
    }
}
