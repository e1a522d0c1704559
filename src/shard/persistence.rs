//! What of a shard outlives the process: its journal, who waits for it, and what it asks of the disk.
//!
//! Messages are put into the journal as they are enqueued, what is gone at the end of each turn. Who waits for a batch to be on
//! disk (publishers, queues that are about to deliver, files that are to be removed) stands in one row by the batches' numbers.

use super::{
    Shard,
    paging::{Paging, PagingSizes},
    recycling::Recycling,
    shard_message::Asker,
    state::QueueCell,
};
use crate::{
    connection::{Pause, QueueHandle},
    definitions::{QueueDefinition, QueueId},
    limits::QUEUE_MEMORY_OCTETS_DEFAULT,
    message::MessageView,
    queue::{Attributes, LogEntry, Position, Queue},
    store::{ColdFileId, DiskReply, DiskRequest, Entry, Journal, JournalOptions, journal::JournalCounters},
};
use ahash::AHashMap;
use std::{collections::VecDeque, ops::Range};

/// What a shard whose queues outlive the process is made with.
pub struct PersistenceStart {
    /// Its journal.
    pub journal: JournalOptions,
    /// Queues that have their home here, as processes have left them that have ended.
    pub restored: AHashMap<QueueId, Queue>,
    /// How much memory messages of such queues may hold before they are moved to disk, in octets.
    pub queue_memory_octets: u64,
    /// The same for messages that end with the process.
    pub transient_memory_octets: u64,
    /// From which sizes on they are moved.
    pub paging_sizes: PagingSizes,
}

impl PersistenceStart {
    /// Nothing was left.
    pub fn new(journal: JournalOptions) -> Self {
        Self {
            journal,
            restored: AHashMap::new(),
            queue_memory_octets: QUEUE_MEMORY_OCTETS_DEFAULT,
            transient_memory_octets: u64::MAX,
            paging_sizes: PagingSizes::default(),
        }
    }
}

/// Who waits until a batch of the journal is on disk.
struct Waiter {
    sequence: u64,
    waiting: Waiting,
}

enum Waiting {
    /// Publishes of one channel: all numbers from the first to the last.
    Publishes { to: Asker, first: u64, last: u64 },
    /// A queue that may then deliver what is below a position.
    Delivery { queue: QueueHandle, below: Position },
    /// A file that may then be removed.
    File(ColdFileId),
    /// A deleted queue's files, which may then be removed.
    Queue(u64),
    /// A segment of the journal, which may then be used again.
    Segment(DiskRequest),
}

/// See the module's documentation.
pub(super) struct Persistence {
    pub journal: Journal,
    pub requests: VecDeque<DiskRequest>,
    waiters: VecDeque<Waiter>,
    /// Whether the message that is put next is the one that was put last.
    pub repeats: bool,
    /// The publish of another shard's channel that what was enqueued last came from.
    last_published: Option<(Asker, u64)>,
    /// Whether somebody waits for the disk to catch up.
    pub has_paused: bool,
    pub restored: AHashMap<QueueId, Queue>,
    pub paging: Paging,
    pub recycling: Recycling,
    /// What the disk has returned that cannot be served from: the process has to end.
    pub failure: Option<String>,
    is_ending: bool,
}

impl Persistence {
    pub fn new(start: PersistenceStart) -> Self {
        Self {
            journal: Journal::new(start.journal),
            requests: VecDeque::new(),
            waiters: VecDeque::new(),
            repeats: false,
            last_published: None,
            has_paused: false,
            paging: Paging::new(start.paging_sizes, start.queue_memory_octets, start.transient_memory_octets),
            recycling: Recycling::default(),
            restored: start.restored,
            failure: None,
            is_ending: false,
        }
    }

    /// The segment that what is put now lies in, or a later one.
    #[inline]
    pub fn segment(&self) -> u32 {
        u32::try_from(self.journal.gathering_segment()).expect("a process does not fill so many segments")
    }

    /// Puts a message of a queue into the journal.
    #[inline]
    pub fn put(&mut self, queue: &QueueDefinition, entry: Put<'_>, unix_offset_millis: u64) {
        let Put { position, attributes, delivered, message } = entry;
        let entry = Entry {
            queue: queue.id.0,
            position,
            priority: attributes.priority.min(queue.options.priority_max.unwrap_or(0)),
            expires_unix_millis: attributes.expires_at.map(|at| at.saturating_add(unix_offset_millis)),
            delivered,
            forwarded: false,
        };
        if self.repeats && self.journal.can_repeat() {
            self.journal.put_same(&entry);
        } else {
            self.journal.put_message(&entry, message);
        }
        self.repeats = true;
    }

    /// Whether the front message of a queue may be delivered as far as the journal is concerned; asks the journal for what is
    /// needed.
    #[inline]
    pub fn is_clear_to_deliver(&mut self, cell: &mut QueueCell, queue: QueueHandle) -> bool {
        let gate = cell.queue.gate();
        if let Some(below) = gate.ask_below {
            self.await_delivery(queue, below);
            self.recycling.note(cell, queue.slot, self.journal.gathering_segment());
        }
        gate.is_open
    }

    /// Lets a queue go on once all that was put until now is on disk.
    fn await_delivery(&mut self, queue: QueueHandle, below: Position) {
        self.journal.put_delivering(queue.id.0, below);
        self.journal.demand();
        self.wait(Waiting::Delivery { queue, below });
    }

    /// Has a segment of the journal given back once all that was put until now is on disk.
    pub fn await_retirement(&mut self, request: DiskRequest) {
        self.wait(Waiting::Segment(request));
    }

    fn wait(&mut self, waiting: Waiting) {
        self.waiters.push_back(Waiter { sequence: self.journal.appended(), waiting });
    }

    /// The memory that is held for what is on its way to the disk, in octets.
    pub fn octets_held(&self) -> u64 {
        self.journal.octets_held() + self.paging.octets_held()
    }

    /// The disk is behind: who publishes has to wait for a moment.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.journal.is_full() || self.paging.is_behind()
    }

    /// The disk is full: who publishes has to wait for longer.
    #[inline]
    pub fn is_starved(&self) -> bool {
        self.journal.is_starved() || self.paging.is_full()
    }
}

/// A message that is put into the journal.
pub(super) struct Put<'a> {
    pub position: Position,
    pub attributes: &'a Attributes,
    /// Whether it is delivered at once.
    pub delivered: bool,
    pub message: &'a MessageView<'a>,
}

impl Shard {
    /// Has what is persistent outlive the process.
    #[must_use]
    pub fn with_persistence(mut self, start: PersistenceStart) -> Self {
        self.queues.set_pageable_from(start.paging_sizes.queue_octets_min, start.paging_sizes.queue_octets_step);
        self.persistence = Some(Box::new(Persistence::new(start)));
        self
    }

    /// The queue for a definition: as it was left, or new.
    pub(super) fn make_queue(&mut self, definition: &QueueDefinition) -> (Queue, bool) {
        match &mut self.persistence {
            Some(persistence) if definition.durable => match persistence.restored.remove(&definition.id) {
                Some(restored) => (restored, true),
                None => (Queue::logged(definition.options.clone()), false),
            },
            _ => (Queue::new(definition.options.clone()), false),
        }
    }

    /// What is enqueued from here on is another message than before; `of` is the publish of another shard's channel that it
    /// comes from, if it may come again for another queue.
    #[inline]
    pub(super) fn begin_message(&mut self, of: Option<(Asker, u64)>) {
        if let Some(persistence) = &mut self.persistence
            && (persistence.repeats || persistence.last_published.is_some() || of.is_some())
        {
            persistence.repeats = false;
            persistence.last_published = of;
        }
    }

    /// Whether what was enqueued last comes from this publish of another shard's channel.
    #[inline]
    pub(super) fn is_same_message(&self, publish: (Asker, u64)) -> bool {
        self.persistence.as_ref().is_some_and(|persistence| persistence.last_published == Some(publish))
    }

    /// Publishes of a channel, in a row, at least one, are confirmed once all that was put until now is on disk.
    pub(super) fn await_commit(&mut self, to: Asker, numbers: Range<u64>) {
        let persistence = self.persistence.as_mut().expect("something was journaled");
        let sequence = persistence.journal.appended();
        if let Some(Waiter { sequence: same, waiting: Waiting::Publishes { to: before, last, .. } }) =
            persistence.waiters.back_mut()
            && *same == sequence
            && *before == to
            && *last + 1 == numbers.start
        {
            *last = numbers.end - 1;
            return;
        }
        persistence.journal.demand_by(waiter_number(to));
        persistence.wait(Waiting::Publishes { to, first: numbers.start, last: numbers.end - 1 });
    }

    /// Accounts for the queues that have changed, and tells the journal what is gone of them, and what else they have to tell.
    pub(super) fn tell_journal(&mut self) {
        let Self { queues, persistence, .. } = self;
        queues.account_changed();
        while let Some(slot) = queues.poll_untold() {
            let cell = queues.get_mut(slot).expect("a queue that has to tell something is there");
            let queue = cell.definition.id.0;
            let is_transient = !cell.queue.is_logged();
            let Some(persistence) = persistence else { continue };
            let mut tells_much = false;
            cell.queue.take_log_entries(queue, &mut |entry| match entry {
                LogEntry::Settled(first, count) => persistence.journal.put_settled(queue, first, count),
                LogEntry::Checkpoint(checkpoint) => {
                    tells_much = true;
                    persistence.journal.put_checkpoint(&checkpoint);
                }
            });
            if !is_transient && (cell.queue.has_files() || tells_much) {
                persistence.recycling.note(cell, slot, persistence.journal.gathering_segment());
            }
            for file in cell.queue.take_gone_files() {
                let file = ColdFileId { queue, file, is_transient };
                if is_transient {
                    persistence.requests.push_back(DiskRequest::RemoveFile { file });
                } else {
                    persistence.journal.put_cold_gone(queue, file.file);
                    persistence.wait(Waiting::File(file));
                }
            }
        }
    }

    /// A queue was deleted: its files go.
    pub(super) fn remove_queue_files(&mut self, queue: u64, is_logged: bool, files: &[(u32, u64)]) {
        let Some(persistence) = &mut self.persistence else { return };
        if files.is_empty() {
            return;
        }
        if is_logged {
            files.iter().for_each(|(file, _)| persistence.journal.put_cold_gone(queue, *file));
            persistence.wait(Waiting::Queue(queue));
        } else {
            persistence.requests.push_back(DiskRequest::RemoveQueue { queue, is_transient: true });
        }
    }

    /// The next thing that is asked of the disk. `now_micros` is the time on a clock that only grows, in microseconds.
    pub fn poll_disk_request(&mut self, now_micros: u64) -> Option<DiskRequest> {
        let persistence = self.persistence.as_mut()?;
        persistence.requests.pop_front().or_else(|| persistence.journal.poll_request(now_micros))
    }

    /// When [`Shard::handle_disk_deadline`] is to be called, on the clock of [`Shard::poll_disk_request`].
    pub fn next_disk_deadline(&self) -> Option<u64> {
        self.persistence.as_ref().and_then(|persistence| persistence.journal.next_deadline_micros())
    }

    /// The deadline has come, and nothing that has come in before is left to be handled. A turn has to follow.
    pub fn handle_disk_deadline(&mut self, now_micros: u64) {
        if let Some(persistence) = &mut self.persistence {
            persistence.journal.handle_deadline(now_micros);
        }
    }

    /// Takes an answer of the disk. A turn has to follow.
    pub fn handle_disk(&mut self, reply: DiskReply, now_micros: u64) {
        let Some(persistence) = &mut self.persistence else { return };
        let was_starved = persistence.is_starved();
        match reply {
            DiskReply::Committed { sequence, octets } => {
                persistence.journal.handle_committed(sequence, octets, now_micros);
                self.handle_durable();
            }
            DiskReply::SegmentPrepared { segment } => persistence.journal.handle_segment_prepared(segment),
            DiskReply::SegmentRefused { .. } => persistence.journal.handle_segment_refused(),
            DiskReply::Written { token, octets } => self.handle_paged_out(token, octets, true),
            DiskReply::WriteRefused { token, octets } => self.handle_paged_out(token, octets, false),
            DiskReply::Read { token, octets } => self.handle_loaded(token, octets),
            DiskReply::Synced { token } => persistence.recycling.handle_synced(token),
        }
        if self.persistence.as_ref().is_some_and(|persistence| persistence.is_starved() != was_starved) {
            self.look_at_pressure();
        }
    }

    /// This connection waits until the disk has caught up.
    pub(super) fn pause_for_disk(&mut self, slot: u32) {
        if let Some(persistence) = &mut self.persistence {
            persistence.has_paused = true;
        }
        self.pause(slot, Pause::Disk);
    }

    /// Lets those go on who waited for the disk, if it has caught up. To be called at the end of a turn.
    pub(super) fn resume_behind(&mut self) {
        let Some(persistence) = &mut self.persistence else { return };
        if !persistence.has_paused || persistence.is_behind() {
            return;
        }
        persistence.has_paused = false;
        for slot in self.connections.slots() {
            self.resume(slot, Pause::Disk);
        }
    }

    /// Batches of the journal are on disk.
    fn handle_durable(&mut self) {
        loop {
            let Some(persistence) = &mut self.persistence else { return };
            let durable = persistence.journal.durable();
            if persistence.waiters.front().is_none_or(|waiter| waiter.sequence > durable) {
                return;
            }
            let waiter = persistence.waiters.pop_front().expect("there is one");
            match waiter.waiting {
                Waiting::Publishes { to, first, last } => self.confirm(to, first, last),
                Waiting::Delivery { queue, below } => {
                    if let Some(slot) = self.queues.find(queue) {
                        self.queues.get_mut(slot).expect("the queue was just found").queue.note_delivering(below);
                        self.queues.mark_runnable(slot);
                        self.serve_waiting_gets(slot);
                    }
                }
                Waiting::File(file) => persistence.requests.push_back(DiskRequest::RemoveFile { file }),
                Waiting::Segment(request) => persistence.requests.push_back(request),
                Waiting::Queue(queue) => {
                    persistence.requests.push_back(DiskRequest::RemoveQueue { queue, is_transient: false });
                }
            }
        }
    }

    fn confirm(&mut self, to: Asker, first: u64, last: u64) {
        if to.connection.shard == self.index {
            self.handle_confirm(to, first..=last, true);
        } else {
            self.confirm_to(usize::from(to.connection.shard.0), to, first..last + 1, true);
        }
    }

    /// What is to be done about ten times a second.
    pub(super) fn tick_persistence(&mut self) {
        let Some(persistence) = &mut self.persistence else { return };
        persistence.journal.handle_tick();
        persistence.paging.handle_tick();
        self.look_at_pressure();
    }

    /// What the journal has counted, where there is one.
    pub fn journal_counters(&self) -> Option<JournalCounters> {
        self.persistence.as_ref().map(|persistence| persistence.journal.counters())
    }

    /// What of the disk cannot be served from, if anything: then the process has to end.
    pub fn disk_failure(&self) -> Option<&str> {
        self.persistence.as_ref().and_then(|persistence| persistence.failure.as_deref())
    }

    /// The process ends in order, and no connection is left: has the journal say how all stands. Whether it is all on disk; to be
    /// called until it is, with what the disk answers in between.
    pub fn poll_settled(&mut self) -> bool {
        let Self { queues, persistence, .. } = self;
        let Some(persistence) = persistence else { return true };
        if !persistence.is_ending {
            persistence.is_ending = true;
            for slot in queues.slots() {
                let cell = queues.get_mut(slot).expect("the slot is in use");
                cell.queue.settle_deliveries();
                queues.mark_changed(slot);
            }
            persistence.journal.ask_again();
            self.tell_journal();
        }
        let persistence = self.persistence.as_mut().expect("it was there");
        persistence.journal.demand();
        if persistence.journal.is_idle() {
            persistence.journal.rest();
        }
        // Where the disk has no room there is nothing to wait for.
        persistence.journal.is_idle() || persistence.journal.is_stuck()
    }
}

/// A number that tells a channel from others.
fn waiter_number(to: Asker) -> u64 {
    u64::from(to.connection.shard.0) << 56
        ^ u64::from(to.connection.slot) << 28
        ^ u64::from(to.connection.generation) << 16
        ^ u64::from(to.channel)
}
