//! The tables of a shard: connections and queues in slabs, with the lists of those that something is to be done for.

use super::{
    QueueSlots,
    shard_message::{Asker, ConsumerHome},
};
use crate::{
    connection::{Connection, QueueHandle},
    definitions::{QueueDefinition, QueueId, ShardIndex},
    queue::{Consumers, Queue},
};
use std::{collections::VecDeque, sync::Arc};

/// The connections of a shard.
#[derive(Default)]
pub(super) struct Connections {
    slots: Vec<Option<Box<Connection>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    /// Those with output, each once.
    pub dirty: Vec<u32>,
    /// Those whose frames are handled again.
    pub resumed: Vec<u32>,
    /// Those with something to confirm.
    pub confirming: Vec<u32>,
    /// Memory of outputs, of content that has not arrived whole, of transactions and unacknowledged deliveries, in octets.
    pub octets_held: u64,
}

impl Connections {
    pub fn insert(&mut self, make: impl FnOnce(u32, u32) -> Connection) -> &mut Connection {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.generations.push(0);
            u32::try_from(self.slots.len() - 1).expect("connections are bounded by file descriptors")
        });
        let index = slot as usize;
        self.slots[index].insert(Box::new(make(slot, self.generations[index])))
    }

    /// Forgets a connection: its identity is not given again.
    pub fn remove(&mut self, slot: u32) -> Option<Box<Connection>> {
        let connection = self.slots.get_mut(slot as usize)?.take()?;
        self.generations[slot as usize] = self.generations[slot as usize].wrapping_add(1);
        self.free.push(slot);
        self.octets_held -= connection.accounted_octets;
        Some(connection)
    }

    #[inline]
    pub fn get(&self, slot: u32) -> Option<&Connection> {
        self.slots.get(slot as usize)?.as_deref()
    }

    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The connection with this identity, if it still is there.
    #[inline]
    pub fn with_id(&mut self, slot: u32, generation: u32) -> Option<&mut Connection> {
        self.get_mut(slot).filter(|connection| connection.id.generation == generation)
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The slots in use.
    pub fn slots(&self) -> Vec<u32> {
        (0u32..).zip(&self.slots).filter(|(_, connection)| connection.is_some()).map(|(slot, _)| slot).collect()
    }

    /// Puts a connection onto the list of those with output.
    #[inline]
    pub fn mark_dirty(&mut self, slot: u32) {
        if let Some(connection) = self.slots[slot as usize].as_deref_mut()
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Brings the account of a connection's memory up to date.
    pub fn account(&mut self, slot: u32) {
        if let Some(connection) = self.slots[slot as usize].as_deref_mut() {
            let held = connection.octets_held();
            self.octets_held = self.octets_held + held - connection.accounted_octets;
            connection.accounted_octets = held;
        }
    }
}

/// A queue with its consumers and what the shard notes about it.
pub struct QueueCell {
    /// What it is.
    pub definition: Arc<QueueDefinition>,
    /// Its messages.
    pub queue: Queue,
    /// Its consumers.
    pub consumers: Consumers<ConsumerHome>,
    /// Whether it is in the list of queues that may have deliveries to make.
    pub is_runnable: bool,
    /// Whether it is in the list of queues that something happens to when time passes.
    is_timed: bool,
    /// Whether it is in the list of queues that go on expiring.
    is_expiring: bool,
    /// Whether it is in the list of queues that have changed in this turn.
    is_changed: bool,
    /// Whether it is in the list of queues that the journal is to be told something of.
    is_untold: bool,
    /// Whether it is in the list of queues that may be moved to disk, and from how many octets on it is put there.
    is_pageable: bool,
    pageable_from_octets: u64,
    /// The last segment of the journal that was noted to hold something of it.
    pub noted_segment: u64,
    /// Who waits for a message that has to be read back or told of first, and whether they acknowledge.
    pub waiting_gets: VecDeque<(Asker, bool)>,
    /// When it was last used, for `x-expires`.
    pub used_at: u64,
    accounted_octets: u64,
}

/// The queues that have their home on a shard.
#[derive(Default)]
pub(super) struct Queues {
    cells: Vec<Option<Box<QueueCell>>>,
    free: Vec<u32>,
    by_id: QueueSlots,
    /// Where the last queue lay that was looked up by its identity alone.
    found_last: u32,
    /// Those that may have deliveries to make, each once.
    pub runnable: Vec<u32>,
    /// Those that something happens to when time passes; may name one that has changed hands twice.
    timed: Vec<u32>,
    /// Those that have more expired messages at their head than one turn takes, each once: nobody gets anything from them before
    /// these are gone.
    expiring: Vec<u32>,
    /// Those that have changed since all was accounted for, each once.
    changed: Vec<u32>,
    /// Those that the journal is to be told something of, each once.
    untold: Vec<u32>,
    /// Those that may be moved to disk, each once: those that end with the process, and those that do not.
    pageable: [VecDeque<u32>; 2],
    /// See [`PagingSizes`](super::PagingSizes).
    pageable_octets_min: u64,
    pageable_octets_step: u64,
    /// Memory of their messages, in octets.
    pub octets_held: u64,
    /// The part of it that belongs to queues that outlive the process.
    pub logged_octets_held: u64,
}

impl Queues {
    /// From how many octets on queues may be moved to disk, and after how many more it is tried again.
    pub fn set_pageable_from(&mut self, octets_min: u64, octets_step: u64) {
        (self.pageable_octets_min, self.pageable_octets_step) = (octets_min, octets_step);
    }

    pub fn insert(&mut self, definition: Arc<QueueDefinition>, queue: Queue, now: u64) -> u32 {
        let consumers = Consumers::new(definition.options.single_active_consumer);
        let cell = QueueCell {
            queue,
            consumers,
            is_runnable: false,
            is_timed: false,
            is_expiring: false,
            is_changed: false,
            is_untold: false,
            is_pageable: false,
            pageable_from_octets: self.pageable_octets_min,
            noted_segment: 0,
            waiting_gets: VecDeque::new(),
            used_at: now,
            accounted_octets: 0,
            definition,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.cells.push(None);
            u32::try_from(self.cells.len() - 1).expect("queues are bounded by memory")
        });
        self.by_id.insert(cell.definition.id, slot);
        self.cells[slot as usize] = Some(Box::new(cell));
        self.mark_changed(slot);
        if self
            .get(slot)
            .is_some_and(|cell| cell.definition.options.expires_millis.is_some() || cell.queue.may_expire())
        {
            self.mark_timed(slot);
        }
        slot
    }

    pub fn remove(&mut self, slot: u32) -> Option<Box<QueueCell>> {
        let cell = self.cells.get_mut(slot as usize)?.take()?;
        self.by_id.remove(&cell.definition.id);
        self.free.push(slot);
        self.octets_held -= cell.accounted_octets;
        if cell.queue.is_logged() {
            self.logged_octets_held -= cell.accounted_octets;
        }
        Some(cell)
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn slot_of(&self, id: QueueId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// The queues that something happens to when time passes; those that it no longer does are forgotten.
    pub fn timed(&mut self) -> Vec<u32> {
        let Self { cells, timed, .. } = self;
        timed.retain(|slot| {
            let Some(cell) = cells[*slot as usize].as_deref_mut() else { return false };
            cell.is_timed = cell.definition.options.expires_millis.is_some() || cell.queue.may_expire();
            cell.is_timed
        });
        timed.clone()
    }

    /// Notes that more of a queue has expired than this turn takes.
    pub fn mark_expiring(&mut self, slot: u32) {
        if let Some(cell) = self.cells[slot as usize].as_deref_mut()
            && !cell.is_expiring
        {
            cell.is_expiring = true;
            self.expiring.push(slot);
        }
    }

    /// The queues to go on with, the one that has waited longest first; they are no longer in the list.
    pub fn take_expiring(&mut self) -> Vec<u32> {
        let mut taken = std::mem::take(&mut self.expiring);
        for slot in &taken {
            if let Some(cell) = self.cells[*slot as usize].as_deref_mut() {
                cell.is_expiring = false;
            }
        }
        // Who comes first may leave no room for the others.
        if !taken.is_empty() {
            taken.rotate_left(1);
        }
        taken
    }

    /// Whether there are queues to go on with.
    pub fn are_expiring(&self) -> bool {
        !self.expiring.is_empty()
    }

    /// Notes that a queue holds messages that expire.
    #[inline]
    pub fn mark_timed(&mut self, slot: u32) {
        if let Some(cell) = self.cells[slot as usize].as_deref_mut()
            && !cell.is_timed
        {
            cell.is_timed = true;
            self.timed.push(slot);
        }
    }

    #[inline]
    pub fn get(&self, slot: u32) -> Option<&QueueCell> {
        self.cells.get(slot as usize)?.as_deref()
    }

    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut QueueCell> {
        self.cells.get_mut(slot as usize)?.as_deref_mut()
    }

    /// Where the queue lies that is meant; the handle's slot is a hint.
    #[inline]
    pub fn find(&mut self, handle: QueueHandle) -> Option<u32> {
        // Other shards do not know the slot, but mostly mean the queue that was meant last.
        for slot in [handle.slot, self.found_last] {
            if self.get(slot).is_some_and(|cell| cell.definition.id == handle.id) {
                return Some(slot);
            }
        }
        self.found_last = self.slot_of(handle.id)?;
        Some(self.found_last)
    }

    /// How other parts call the queue in this slot.
    pub fn handle(&self, slot: u32, home: ShardIndex) -> QueueHandle {
        let id = self.cells[slot as usize].as_ref().expect("a queue lies in this slot").definition.id;
        QueueHandle { home, slot, id }
    }

    /// Puts a queue onto the list of those that may have deliveries to make.
    #[inline]
    pub fn mark_runnable(&mut self, slot: u32) {
        if let Some(cell) = self.cells[slot as usize].as_deref_mut()
            && !cell.is_runnable
        {
            cell.is_runnable = true;
            self.runnable.push(slot);
        }
    }

    /// Takes note that a queue has changed. To be called after each change of a queue; [`Queues::account_changed`] sees to the rest.
    #[inline]
    pub fn mark_changed(&mut self, slot: u32) {
        if let Some(cell) = self.cells[slot as usize].as_deref_mut()
            && !cell.is_changed
        {
            cell.is_changed = true;
            self.changed.push(slot);
        }
    }

    /// Brings the account of the memory of all queues up to date, and takes note of what the journal is to be told: once in a turn,
    /// as some queues change with each of many messages.
    pub fn account_changed(&mut self) {
        while let Some(slot) = self.changed.pop() {
            let Some(cell) = self.cells[slot as usize].as_deref_mut() else { continue };
            if !std::mem::take(&mut cell.is_changed) {
                continue;
            }
            let held = cell.queue.octets_held() + crate::limits::MESSAGE_OVERHEAD_OCTETS;
            self.octets_held = self.octets_held + held - cell.accounted_octets;
            if cell.queue.is_logged() {
                self.logged_octets_held = self.logged_octets_held + held - cell.accounted_octets;
            }
            cell.accounted_octets = held;
            if held >= cell.pageable_from_octets && !cell.is_pageable {
                cell.is_pageable = true;
                self.pageable[usize::from(cell.queue.is_logged())].push_back(slot);
            }
            if !cell.is_untold && (cell.queue.has_log_entries() || cell.queue.has_gone_files()) {
                cell.is_untold = true;
                self.untold.push(slot);
            }
        }
    }

    /// The next queue that the journal is to be told something of.
    pub fn poll_untold(&mut self) -> Option<u32> {
        while let Some(slot) = self.untold.pop() {
            if let Some(cell) = self.cells[slot as usize].as_deref_mut()
                && std::mem::take(&mut cell.is_untold)
            {
                return Some(slot);
            }
        }
        None
    }

    /// How many queues may be moved to disk: of those that outlive the process, or of the others.
    pub fn pageable_count(&self, is_logged: bool) -> usize {
        self.pageable[usize::from(is_logged)].len()
    }

    /// The queue that is to be moved to disk next, the list's last from now on.
    pub fn next_pageable(&mut self, is_logged: bool) -> Option<u32> {
        let Self { cells, pageable, .. } = self;
        let list = &mut pageable[usize::from(is_logged)];
        while let Some(slot) = list.pop_front() {
            if let Some(cell) = cells[slot as usize].as_deref_mut()
                && cell.is_pageable
                && cell.queue.is_logged() == is_logged
            {
                list.push_back(slot);
                return Some(slot);
            }
        }
        None
    }

    /// Nothing of this queue could be moved to disk: it leaves the list until it has grown.
    pub fn leave_pageable(&mut self, slot: u32) {
        if let Some(cell) = self.cells[slot as usize].as_deref_mut() {
            cell.is_pageable = false;
            cell.pageable_from_octets =
                (cell.accounted_octets + self.pageable_octets_step).max(self.pageable_octets_min);
            let list = &mut self.pageable[usize::from(cell.queue.is_logged())];
            list.retain(|other| *other != slot);
        }
    }

    /// Memory of messages of queues that end with the process, in octets.
    #[inline]
    pub fn transient_octets_held(&self) -> u64 {
        self.octets_held - self.logged_octets_held
    }

    /// One more than the highest slot that was ever in use.
    pub fn slot_end(&self) -> u32 {
        u32::try_from(self.cells.len()).expect("queues are bounded by memory")
    }

    /// The slots in use.
    pub fn slots(&self) -> Vec<u32> {
        (0u32..).zip(&self.cells).filter(|(_, cell)| cell.is_some()).map(|(slot, _)| slot).collect()
    }

    /// The queue in this slot, if it is the one that is meant.
    #[inline]
    pub fn with_id(&mut self, slot: u32, id: QueueId) -> Option<&mut QueueCell> {
        self.get_mut(slot).filter(|cell| cell.definition.id == id)
    }
}
