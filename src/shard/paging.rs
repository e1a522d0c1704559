//! Messages between memory and disk: which queues leave the memory when that gets short, and what comes back for whom.

use super::{Shard, persistence::Persistence, state::QueueCell};
use crate::{
    definitions::QueueId,
    limits::{PAGE_OUT_OCTETS_MAX, PAGE_OUT_UNDER_WAY_OCTETS_MAX, QUEUE_SEGMENT_OCTETS},
    queue::{Load, PageOut, PageOutWish},
    store::{AlignedBuffer, ColdFileId, ColdPlace, DiskRequest, cold_path},
};
use ahash::AHashMap;
use std::collections::VecDeque;

/// Blocks at the front of a queue that stay in memory while other queues have more to move.
const KEEP_FRONT_BLOCKS: usize = 4;
/// Blocks that are read ahead of a queue's front: while there is much memory, less, and none.
const AHEAD_BLOCKS: [usize; 3] = [24, 6, 2];
/// Octets that are read at once: one block in the last case.
const LOAD_OCTETS_MAX: [usize; 3] = [512 << 10, 256 << 10, 0];
/// Small queues that are looked at in one turn.
const SMALL_QUEUES_PER_TURN: usize = 64;
/// Buffers that are kept for reuse.
const BUFFERS_MAX: usize = 2;

/// From which sizes on, and how much at once, messages go to disk. A test makes them small.
#[derive(Clone, Copy, Debug)]
pub struct PagingSizes {
    /// Queues smaller than this are not moved to disk while there are others, in octets.
    pub queue_octets_min: u64,
    /// A queue of which nothing could be moved is looked at again once it has grown by so much, in octets.
    pub queue_octets_step: u64,
    /// Where many small queues hold much together, those smaller than this stay, in octets.
    pub small_queue_octets_min: u64,
    /// What a queue moves at once, in octets, but one block at the least.
    pub page_out_octets_max: usize,
    /// What is written to a queue's segment file before another one is begun, in octets.
    pub file_octets: u64,
    /// What a queue has in a segment of the journal that is to be used again goes to files where it is so much or more, in
    /// octets.
    pub relocated_octets_min: usize,
    /// The same where much would have to be forwarded otherwise.
    pub relocated_octets_min_crowded: usize,
}

impl Default for PagingSizes {
    fn default() -> Self {
        Self {
            queue_octets_min: 512 << 10,
            queue_octets_step: 64 << 10,
            small_queue_octets_min: 8 << 10,
            page_out_octets_max: PAGE_OUT_OCTETS_MAX,
            file_octets: QUEUE_SEGMENT_OCTETS,
            relocated_octets_min: 32 << 10,
            relocated_octets_min_crowded: 2 << 10,
        }
    }
}

/// What is under way for a queue.
struct UnderWay {
    slot: u32,
    id: QueueId,
    extents: Vec<u32>,
    octets: usize,
    /// What to call it where it goes wrong.
    place: ColdPlace,
}

/// See the module's documentation.
pub(super) struct Paging {
    pub sizes: PagingSizes,
    queue_memory_octets: u64,
    transient_memory_octets: u64,
    under_way: AHashMap<u64, UnderWay>,
    token_next: u64,
    /// Octets on their way to the disk, and from there.
    page_out_octets: usize,
    load_octets: usize,
    /// The small queue that is looked at next.
    cursor: u32,
    /// Tokens of page-outs that are under way, the oldest first.
    page_outs: VecDeque<u64>,
    buffers: Vec<AlignedBuffer>,
    /// Whether the disk was full just now: nothing is tried before the next tick.
    is_refused: bool,
    /// Whether the disk was full when something was to be written last.
    is_full: bool,
    /// How often it was.
    refusals: u64,
    /// Whether memory is far beyond what it should be, and the disk is at it.
    is_behind: bool,
}

impl Paging {
    pub fn new(sizes: PagingSizes, queue_memory_octets: u64, transient_memory_octets: u64) -> Self {
        Self {
            sizes,
            queue_memory_octets,
            transient_memory_octets,
            under_way: AHashMap::new(),
            token_next: 1,
            page_out_octets: 0,
            load_octets: 0,
            cursor: 0,
            page_outs: VecDeque::new(),
            buffers: vec![],
            is_refused: false,
            is_full: false,
            refusals: 0,
            is_behind: false,
        }
    }

    #[inline]
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    #[inline]
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    #[inline]
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// How often the disk was full when something was to be written.
    pub fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Octets on their way to the disk.
    pub fn octets_under_way(&self) -> usize {
        self.page_out_octets
    }

    /// The disk may have room again.
    pub fn handle_tick(&mut self) {
        // Nothing was refused since the last one, and nothing is on its way that may be.
        self.is_full &= self.is_refused || !self.page_outs.is_empty();
        self.is_refused = false;
    }

    /// A number that no other request has.
    pub fn next_token(&mut self) -> u64 {
        self.token_next += 1;
        self.token_next
    }

    /// The oldest page-out that is under way; where there is none, a token that comes later than all.
    pub fn oldest_page_out(&self) -> u64 {
        self.page_outs.front().copied().unwrap_or(self.token_next + 1)
    }

    /// The memory that is held for what is under way, in octets.
    pub fn octets_held(&self) -> u64 {
        let buffers: usize = self.buffers.iter().map(AlignedBuffer::capacity).sum();
        (self.page_out_octets + self.load_octets + buffers) as u64
    }
}

impl Persistence {
    /// Begins to move messages of a queue to disk: all but the first blocks, with or without the one that is appended to.
    /// Whether there were any.
    fn move_out(
        &mut self,
        cell: &mut QueueCell,
        slot: u32,
        unix_offset_millis: u64,
        keep_front: usize,
        with_tail: bool,
    ) -> bool {
        let sizes = self.paging.sizes;
        let id = cell.definition.id;
        let wish = PageOutWish {
            queue: id.0,
            unix_offset_millis,
            keep_front,
            with_tail,
            octets_max: sizes.page_out_octets_max,
            file_octets: sizes.file_octets,
        };
        let mut buffer = self.paging.buffers.pop();
        let page_out = cell.queue.page_out(&wish, &mut buffer);
        self.paging.buffers.extend(buffer);
        let Some(page_out) = page_out else { return false };
        self.submit_page_out(slot, id, !cell.queue.is_logged(), page_out);
        true
    }

    /// Asks the disk to write what a queue moves out.
    pub fn submit_page_out(&mut self, slot: u32, id: QueueId, is_transient: bool, page_out: PageOut) {
        let PageOut { file, offset, octets, extents } = page_out;
        let paging = &mut self.paging;
        let token = paging.next_token();
        let place = ColdPlace { file: ColdFileId { queue: id.0, file, is_transient }, offset };
        paging.page_out_octets += octets.len();
        paging.page_outs.push_back(token);
        paging.under_way.insert(token, UnderWay { slot, id, extents, octets: octets.len(), place });
        self.requests.push_back(DiskRequest::WriteExtents { place, octets, token });
    }

    fn submit_load(&mut self, slot: u32, id: QueueId, is_transient: bool, load: Load) {
        let Load { file, offset, octets, memory_octets, extents } = load;
        let token = self.paging.next_token();
        let place = ColdPlace { file: ColdFileId { queue: id.0, file, is_transient }, offset };
        let held = octets.max(memory_octets);
        self.paging.load_octets += held;
        self.paging.under_way.insert(token, UnderWay { slot, id, extents, octets: held, place });
        self.requests.push_back(DiskRequest::ReadExtents { place, octets, token });
    }
}

impl Shard {
    /// Whether messages hold more memory than they should.
    pub(super) fn is_over_memory(&self) -> bool {
        self.persistence.as_ref().is_some_and(|persistence| {
            let paging = &persistence.paging;
            self.queues.logged_octets_held > paging.queue_memory_octets
                || self.queues.transient_octets_held() > paging.transient_memory_octets
        })
    }

    /// Moves messages to disk where they hold more memory than they should. To be called at the end of a turn.
    pub(super) fn page_out(&mut self) {
        let Some(persistence) = &mut self.persistence else { return };
        let (logged_most, most) = (persistence.paging.queue_memory_octets, persistence.paging.transient_memory_octets);
        if self.queues.logged_octets_held > logged_most {
            self.page_out_down_to(true, logged_most);
        }
        if self.queues.transient_octets_held() > most {
            self.page_out_down_to(false, most);
        }
        self.page_out_small();
        let logged = self.queues.logged_octets_held;
        let Some(persistence) = &mut self.persistence else { return };
        let paging = &mut persistence.paging;
        paging.is_behind = logged > 2 * logged_most && paging.page_out_octets >= PAGE_OUT_UNDER_WAY_OCTETS_MAX / 2;
    }

    fn page_out_down_to(&mut self, is_logged: bool, most: u64) {
        let unix_offset_millis = self.unix_offset_millis;
        let mut left = self.queues.pageable_count(is_logged);
        while left > 0 {
            let Self { queues, persistence, .. } = self;
            let Some(persistence) = persistence else { return };
            let paging = &mut persistence.paging;
            let held = if is_logged { queues.logged_octets_held } else { queues.transient_octets_held() };
            if held.saturating_sub(paging.page_out_octets as u64) <= most
                || paging.page_out_octets >= PAGE_OUT_UNDER_WAY_OCTETS_MAX
                || paging.is_refused
            {
                return;
            }
            let Some(slot) = queues.next_pageable(is_logged) else { return };
            let cell = queues.get_mut(slot).expect("a queue in the list is there");
            if !persistence.move_out(cell, slot, unix_offset_millis, KEEP_FRONT_BLOCKS, false) {
                queues.leave_pageable(slot);
                left -= 1;
            }
        }
    }

    /// Many small queues may hold much together: where moving the large ones was not enough, each of the small ones is moved as
    /// a whole, some of them in each turn.
    fn page_out_small(&mut self) {
        for _ in 0..SMALL_QUEUES_PER_TURN {
            let Self { queues, persistence, unix_offset_millis, .. } = self;
            let Some(persistence) = persistence else { return };
            let paging = &mut persistence.paging;
            let under_way = paging.page_out_octets as u64;
            let is_short = queues.logged_octets_held.saturating_sub(under_way) > well_over(paging.queue_memory_octets);
            let is_all_short =
                queues.transient_octets_held().saturating_sub(under_way) > well_over(paging.transient_memory_octets);
            let has_room = paging.page_out_octets < PAGE_OUT_UNDER_WAY_OCTETS_MAX && !paging.is_refused;
            if !has_room || !(is_short || is_all_short) {
                return;
            }
            let slot = paging.cursor;
            paging.cursor = if slot < queues.slot_end() { slot + 1 } else { 0 };
            let Some(cell) = queues.get_mut(slot) else { continue };
            let is_logged = cell.queue.is_logged();
            let is_meant = if is_logged { is_short } else { is_all_short };
            // A large one is moved block by block: a block that is not full takes more room than it has to.
            let sizes = &paging.sizes;
            let is_small = (sizes.small_queue_octets_min..sizes.queue_octets_min).contains(&cell.queue.octets_held());
            if !is_meant || !is_small {
                continue;
            }
            cell.queue.evict(1);
            persistence.move_out(cell, slot, *unix_offset_millis, 0, true);
            queues.mark_changed(slot);
            queues.account_changed();
        }
    }

    /// What a queue has moved out was written, or the disk is full.
    pub(super) fn handle_paged_out(&mut self, token: u64, octets: AlignedBuffer, is_written: bool) {
        let Some(persistence) = &mut self.persistence else { return };
        let paging = &mut persistence.paging;
        let under_way = paging.under_way.remove(&token).expect("it was submitted");
        paging.page_outs.retain(|other| *other != token);
        paging.page_out_octets -= under_way.octets;
        paging.is_full = !is_written;
        if !is_written {
            paging.is_refused = true;
            paging.refusals += 1;
        }
        if paging.buffers.len() < BUFFERS_MAX {
            paging.buffers.push(octets);
        }
        let Some(cell) = self.queues.with_id(under_way.slot, under_way.id) else { return };
        if is_written {
            cell.queue.paged_out(&under_way.extents);
        } else {
            cell.queue.not_paged_out(&under_way.extents);
        }
        self.queues.mark_changed(under_way.slot);
        // It may have been about to be delivered when it left the memory.
        self.queues.mark_runnable(under_way.slot);
    }

    /// Has what a queue delivers next read back, where there is somebody to deliver it to (`is_wanted`), and some more.
    pub(super) fn load(&mut self, slot: u32, is_wanted: bool) {
        let Self { queues, persistence, .. } = self;
        let Some(persistence) = persistence else { return };
        let paging = &persistence.paging;
        let held = queues.logged_octets_held + paging.load_octets as u64;
        let level = match held {
            held if held < paging.queue_memory_octets / 2 => 0,
            held if held < paging.queue_memory_octets => 1,
            _ => 2,
        };
        let Some(cell) = queues.get_mut(slot) else { return };
        if !is_wanted || !cell.queue.has_absent() {
            return;
        }
        let (ahead, octets_max) = (AHEAD_BLOCKS[level], LOAD_OCTETS_MAX[level]);
        let (id, is_transient) = (cell.definition.id, !cell.queue.is_logged());
        while let Some(load) = cell.queue.poll_load(ahead, octets_max) {
            persistence.submit_load(slot, id, is_transient, load);
        }
    }

    /// Has the front of a queue read back for what has to look at it.
    pub(super) fn load_front(&mut self, slot: u32) {
        let Self { queues, persistence, .. } = self;
        let Some(persistence) = persistence else { return };
        let Some(cell) = queues.get_mut(slot) else { return };
        if !cell.queue.is_front_absent() {
            return;
        }
        let (id, is_transient) = (cell.definition.id, !cell.queue.is_logged());
        if let Some(load) = cell.queue.poll_load(1, 0) {
            persistence.submit_load(slot, id, is_transient, load);
        }
    }

    /// What a queue needs was read.
    pub(super) fn handle_loaded(&mut self, token: u64, octets: AlignedBuffer) {
        let unix_offset_millis = self.unix_offset_millis;
        let Some(persistence) = &mut self.persistence else { return };
        let under_way = persistence.paging.under_way.remove(&token).expect("it was submitted");
        let UnderWay { slot, id, extents, place, octets: load_octets } = under_way;
        persistence.paging.load_octets -= load_octets;
        let Some(cell) = self.queues.with_id(slot, id) else { return };
        if let Err((offset, fault)) = cell.queue.loaded(&extents, octets.as_slice(), unix_offset_millis) {
            let offset = place.offset + offset as u64;
            persistence.failure = Some(format!("{} is damaged at offset {offset}: {fault}", cold_path(&place.file)));
            return;
        }
        self.queues.mark_changed(slot);
        self.trim(slot);
        self.queues.mark_runnable(slot);
        self.serve_waiting_gets(slot);
    }
}

/// So much more than it should be that all queues have to leave the memory.
fn well_over(octets: u64) -> u64 {
    octets.saturating_add(octets / 4)
}
