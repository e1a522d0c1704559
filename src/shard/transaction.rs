//! `tx.commit` and `tx.rollback`: publishes and acknowledgements that were held back.
//!
//! As in RabbitMQ, a transaction covers publishes and acknowledgements of one channel; it is atomic only towards one queue.

use super::{Shard, basic_methods::precondition, publish::Origin, shard_message::Asker};
use crate::{
    connection::{Awaiting, Mode, Then, Transaction},
    protocol::{
        exception::Exception,
        method::{Method, tx},
    },
};

impl Shard {
    /// What the transaction holds, which is no longer counted.
    fn take_pending(&mut self, slot: u32, number: u16) -> Result<Transaction, Exception> {
        let channel = self.channel_mut(slot, number);
        let Mode::Transactional { pending, .. } = &mut channel.mode else {
            return Err(precondition("channel is not transactional"));
        };
        let pending = std::mem::take(pending);
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.incoming_octets -= pending.octets_held();
        }
        self.connections.account(slot);
        Ok(pending)
    }

    pub(super) fn commit(&mut self, slot: u32, number: u16) -> Result<(), Exception> {
        let pending = self.take_pending(slot, number)?;
        let origin = Origin { slot, number, payload: &[], may_wait: false };
        for (message, mandatory) in &pending.publishes {
            self.publish_committed(&origin, &message.view(), *mandatory);
        }
        let settles = !pending.settlements.is_empty();
        for (outstanding, settlement) in pending.settlements {
            self.settle(outstanding, settlement);
        }
        if settles {
            self.await_settlements(slot, number);
        }
        self.release_held_back(slot, number);
        let awaiting = Awaiting { channel: number, method: tx::Commit::IDS, no_wait: false, then: Then::Commit };
        self.await_answer(slot, awaiting);
        self.finish_commit(slot, number);
        Ok(())
    }

    /// `tx.commit` is answered once acknowledgements of messages whose queues are here are on disk, too.
    fn await_settlements(&mut self, slot: u32, number: u16) {
        self.tell_journal();
        if self.persistence.as_ref().is_none_or(|persistence| persistence.journal.pending_octets() == 0) {
            return;
        }
        let connection = self.connections.get_mut(slot).expect("a method has a connection");
        let to = Asker { connection: connection.id, channel: number };
        let Some(commit) = connection.channel(number).and_then(|channel| channel.confirms_mut()) else { return };
        let publish = commit.next_number();
        commit.publish(1, false);
        self.await_commit(to, publish..publish + 1);
    }

    /// Answers `tx.commit` once every shard has taken what was published.
    pub(super) fn finish_commit(&mut self, slot: u32, number: u16) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let awaits_commit = connection
            .awaiting
            .as_ref()
            .is_some_and(|awaiting| awaiting.channel == number && matches!(awaiting.then, Then::Commit));
        if !awaits_commit {
            return;
        }
        let Some(channel) = connection.channel(number) else { return };
        let Mode::Transactional { commit, .. } = &mut channel.mode else { return };
        if !commit.is_settled() {
            return;
        }
        commit.poll_verdicts(|_| {});
        connection.awaiting = None;
        self.send(slot, number, &Method::TxCommitOk(tx::CommitOk {}));
        self.resume(slot, crate::connection::Pause::Answer);
    }

    pub(super) fn rollback(&mut self, slot: u32, number: u16) -> Result<(), Exception> {
        let mut pending = self.take_pending(slot, number)?;
        let channel = self.channel_mut(slot, number);
        pending.settlements.sort_unstable_by_key(|(outstanding, _)| outstanding.tag);
        channel.unacknowledged.restore(pending.settlements.into_iter().map(|(outstanding, _)| outstanding));
        self.send(slot, number, &Method::TxRollbackOk(tx::RollbackOk {}));
        Ok(())
    }
}
