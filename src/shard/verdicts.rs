//! Publisher confirms on their way to the publisher: gathered through a turn, told at its end.

use super::{Shard, shard_message::Asker};
use crate::{
    connection::{Connection, Mode, Verdict},
    protocol::method::{Method, basic},
};
use std::ops::RangeInclusive;

impl Shard {
    /// Notes that a channel may have something to confirm.
    #[inline]
    pub(super) fn note_verdicts(&mut self, slot: u32, number: u16) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let Some(channel) = connection.channel(number) else { return };
        if channel.has_verdicts {
            return;
        }
        channel.has_verdicts = true;
        if connection.confirming.is_empty() {
            connection.confirming.push(number);
            self.connections.confirming.push(slot);
        } else {
            connection.confirming.push(number);
        }
    }

    /// Another shard has taken (or refused) publishes.
    pub(super) fn handle_confirm(&mut self, to: Asker, numbers: RangeInclusive<u64>, accepted: bool) {
        let slot = to.connection.slot;
        let Some(connection) = self.connections.with_id(slot, to.connection.generation) else { return };
        let Some(confirms) = connection.channel(to.channel).and_then(|channel| channel.confirms_mut()) else { return };
        for number in numbers {
            confirms.answer(number, accepted);
        }
        self.note_verdicts(slot, to.channel);
        self.finish_commit(slot, to.channel);
    }

    /// Tells all publishers what there is to tell.
    pub(super) fn tell_confirms(&mut self) {
        while let Some(slot) = self.connections.confirming.pop() {
            let Some(connection) = self.connections.get_mut(slot) else { continue };
            for number in std::mem::take(&mut connection.confirming) {
                self.tell_confirms_of(slot, number);
            }
        }
    }

    /// Tells the publisher of one channel.
    pub(super) fn tell_confirms_of(&mut self, slot: u32, number: u16) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let Connection { channels, output, .. } = connection;
        let Some(crate::connection::ChannelSlot::Open(channel)) = channels.get_mut(usize::from(number)) else { return };
        channel.has_verdicts = false;
        let Mode::Confirm(confirms) = &mut channel.mode else { return };
        if !confirms.has_verdicts() {
            return;
        }
        confirms.poll_verdicts(|Verdict { number: delivery_tag, multiple, accepted }| {
            let method = if accepted {
                Method::BasicAck(basic::Ack { delivery_tag, multiple })
            } else {
                Method::BasicNack(basic::Nack { delivery_tag, multiple, requeue: false })
            };
            method.put(output.octets_mut(), number);
        });
        self.connections.mark_dirty(slot);
    }
}
