//! A queue's side of consume, cancel, get, purge, count and delete.

use super::{
    Shard,
    batch::Batch,
    control_mail::Got,
    control_message::{ControlRequest, Operation},
    shard_message::{Asker, ConsumerHome, QueueReply, QueueRequest, ShardMessage},
};
use crate::{
    definitions::{QueueDefinition, QueueId},
    protocol::{
        exception::{ChannelException, Exception},
        reply_code::ReplyCode,
    },
    queue::{ConsumerKey, ConsumerSettings},
};
use std::sync::Arc;

impl Shard {
    /// A queue has its home here from now on.
    pub(super) fn create_queue(&mut self, definition: Arc<QueueDefinition>) {
        assert!(definition.home == self.index, "a queue was created away from its home");
        if self.queues.slot_of(definition.id).is_none() {
            let id = definition.id;
            let (queue, is_restored) = self.make_queue(&definition);
            let slot = self.queues.insert(definition, queue, self.now);
            if is_restored && let Some(persistence) = &mut self.persistence {
                persistence.recycling.note_restored(slot, id);
            }
        }
    }

    /// Closes a queue: its messages are gone, its consumers are told. Returns how many messages were ready.
    pub(super) fn close_queue(&mut self, slot: u32) -> u64 {
        let Some(mut cell) = self.queues.remove(slot) else { return 0 };
        let homes: Vec<ConsumerHome> = cell.consumers.iter().map(|(_, home)| *home).collect();
        for home in homes {
            if home.connection.shard == self.index {
                self.consumer_lost_its_queue(&home);
            } else {
                let batch = self.outboxes[usize::from(home.connection.shard.0)].batch();
                batch.messages.push(ShardMessage::ConsumerCancelled { home });
            }
        }
        for (asker, _) in std::mem::take(&mut cell.waiting_gets) {
            self.answer(asker, QueueReply::Empty);
        }
        let mut files = cell.queue.files();
        // Those that went in this turn.
        files.extend(cell.queue.take_gone_files().into_iter().map(|file| (file, 0)));
        self.remove_queue_files(cell.definition.id.0, cell.queue.is_logged(), &files);
        cell.queue.ready_count()
    }

    /// Closes a queue of its own accord and has the control plane forget it.
    pub(super) fn retire_queue(&mut self, slot: u32) {
        let Some(id) = self.queues.get(slot).map(|cell| cell.definition.id) else { return };
        let count = self.close_queue(slot);
        self.control_requests.push_back(ControlRequest { from: None, operation: Operation::QueueClosed(id, count) });
    }

    /// Answers a question to a queue that has its home here.
    pub(super) fn handle_queue_request(&mut self, from: Asker, queue: QueueId, request: QueueRequest) {
        let Some(slot) = self.queues.slot_of(queue) else {
            let gone = ChannelException::new(ReplyCode::NotFound, "the queue was deleted meanwhile");
            let reply = match request {
                QueueRequest::Leave(_) => return,
                QueueRequest::Cancel(_) => QueueReply::Cancelled,
                QueueRequest::Count => QueueReply::Counted(0, 0),
                QueueRequest::Purge => QueueReply::Purged(0),
                QueueRequest::Delete { .. } => QueueReply::Purged(0),
                QueueRequest::Consume { .. } | QueueRequest::Get { .. } => QueueReply::Refused(gone.into()),
            };
            self.answer(from, reply);
            return;
        };
        while !self.expire(slot) && matches!(request, QueueRequest::Get { .. }) {
            // Who asks for one message is told that there is none only if there is none.
            self.publish_dead_letters();
        }
        let now = self.now;
        let cell = self.queues.get_mut(slot).expect("the queue was just found");
        cell.used_at = now;
        match request {
            QueueRequest::Count => {
                let reply = QueueReply::Counted(cell.queue.ready_count(), cell.consumers.len() as u64);
                self.answer(from, reply);
            }
            QueueRequest::Consume { home, settings } => self.start_consumer(from, slot, home, settings),
            QueueRequest::Cancel(key) => {
                self.answer(from, QueueReply::Cancelled);
                self.stop_consumer(slot, key);
            }
            QueueRequest::Leave(key) => self.stop_consumer(slot, key),
            QueueRequest::Get { acknowledges } => self.get_message(from, slot, acknowledges),
            QueueRequest::Purge => {
                let count = cell.queue.purge();
                self.queues.mark_changed(slot);
                self.answer(from, QueueReply::Purged(count));
            }
            QueueRequest::Delete { if_unused, if_empty } => self.delete_queue(from, slot, if_unused, if_empty),
        }
    }

    fn start_consumer(&mut self, from: Asker, slot: u32, home: ConsumerHome, settings: ConsumerSettings) {
        let handle = self.queues.handle(slot, self.index);
        let cell = self.queues.get_mut(slot).expect("the caller found the queue");
        if cell.consumers.has_exclusive() || (settings.exclusive && !cell.consumers.is_empty()) {
            let QueueDefinition { name, vhost, .. } = &*cell.definition;
            let text = format!("queue '{name}' in vhost '{vhost}' in exclusive use");
            let refused = Exception::from(ChannelException::new(ReplyCode::AccessRefused, text));
            self.answer(from, QueueReply::Refused(refused));
            return;
        }
        let key = cell.consumers.add(home, settings);
        self.queues.mark_runnable(slot);
        self.answer(from, QueueReply::Consuming(key, handle));
    }

    /// Forgets a consumer; an auto-delete queue goes with its last one.
    fn stop_consumer(&mut self, slot: u32, key: ConsumerKey) {
        let cell = self.queues.get_mut(slot).expect("the caller found the queue");
        let was_there = cell.consumers.remove(key).is_some();
        if was_there && cell.consumers.is_empty() && cell.definition.auto_delete {
            self.retire_queue(slot);
        } else {
            self.queues.mark_runnable(slot);
        }
    }

    /// Serves those who wait for messages of this queue, as far as there are any that can be delivered now.
    pub(super) fn serve_waiting_gets(&mut self, slot: u32) {
        let Some(cell) = self.queues.get_mut(slot) else { return };
        // Who still has to wait is put back into the row.
        for (from, acknowledges) in std::mem::take(&mut cell.waiting_gets) {
            self.get_message(from, slot, acknowledges);
        }
    }

    fn get_message(&mut self, from: Asker, slot: u32, acknowledges: bool) {
        let queue = self.queues.handle(slot, self.index);
        let Self { queues, persistence, .. } = self;
        let cell = queues.get_mut(slot).expect("the caller found the queue");
        if cell.queue.is_empty() {
            self.answer(from, QueueReply::Empty);
            return;
        }
        let is_clear = persistence.as_mut().is_none_or(|persistence| persistence.is_clear_to_deliver(cell, queue));
        let Some(front) = cell.queue.front().filter(|_| is_clear) else {
            cell.waiting_gets.push_back((from, acknowledges));
            self.load(slot, true);
            return;
        };
        let left = cell.queue.ready_count() - 1;
        let position = acknowledges.then_some(front.position);
        let redelivered = front.redelivered;
        self.metrics.delivered += 1;
        let asker_is_here = from.connection.shard == self.index;
        let mut own = Batch::default();
        let peer = usize::from(from.connection.shard.0);
        let batch = if asker_is_here { &mut own } else { self.outboxes[peer].batch() };
        let content = batch.put_content(&front.message);
        if acknowledges {
            cell.queue.hold_front();
        } else {
            cell.queue.remove_front();
        }
        self.queues.mark_changed(slot);
        if asker_is_here {
            let (_, contents) = own.into_parts();
            let got = Got { queue, position, redelivered, left };
            self.finish_get(from, &got, &contents.single(&content));
        } else {
            batch.messages.push(ShardMessage::Got { to: from, queue, position, redelivered, left, content });
        }
    }

    fn delete_queue(&mut self, from: Asker, slot: u32, if_unused: bool, if_empty: bool) {
        let cell = self.queues.get(slot).expect("the caller found the queue");
        let QueueDefinition { name, vhost, id, .. } = &*cell.definition;
        let obstacle = if if_unused && !cell.consumers.is_empty() {
            Some("in use")
        } else if if_empty && cell.queue.ready_count() > 0 {
            Some("not empty")
        } else {
            None
        };
        if let Some(obstacle) = obstacle {
            let text = format!("queue '{name}' in vhost '{vhost}' {obstacle}");
            let refused = Exception::from(ChannelException::new(ReplyCode::PreconditionFailed, text));
            self.answer(from, QueueReply::Refused(refused));
            return;
        }
        let id = *id;
        let count = self.close_queue(slot);
        let operation = Operation::QueueClosed(id, count);
        self.control_requests.push_back(ControlRequest { from: Some(from), operation });
    }
}
