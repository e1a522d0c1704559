//! From memory to disk: which blocks of a chain go, as what they are written, and when they leave the memory.

use super::blocks::{Block, BlockStore, Chain, NO_BLOCK, NO_EXTENT, NO_SEGMENT};
use super::cold::{Extent, PageOut};
use super::load::records;
use super::packed::Packer;
use super::record::StoredBody;
use crate::store::{AlignedBuffer, ExtentHead, ExtentNote, PAGE_OCTETS, begin_extent, finish_extent, put_trailer};

/// Which blocks of a chain go to disk, and as what.
pub(super) struct PageOutOrder {
    pub queue: u64,
    pub priority: u8,
    pub unix_offset_millis: u64,
    /// How many blocks at the front stay in memory.
    pub keep_front: usize,
    /// Whether the block goes too that is appended to; then another one is begun.
    pub with_tail: bool,
    /// No more octets than this, but one block at the least.
    pub octets_max: usize,
    /// What is written to a file before another one is begun, in octets.
    pub file_octets: u64,
}

impl BlockStore {
    /// Begins to move blocks of `chain` to disk. `None` where there is none to be moved. `buffer` is used for the octets.
    pub fn page_out(
        &mut self,
        chain: &mut Chain,
        order: &PageOutOrder,
        buffer: &mut Option<AlignedBuffer>,
    ) -> Option<PageOut> {
        let mut picked = vec![];
        let (mut at, mut octets) = (self.first_to_move(chain, order.keep_front), 0);
        while at != NO_BLOCK && (!self.blocks[at as usize].is_tail || order.with_tail) {
            let block = &self.blocks[at as usize];
            if block.extent == NO_EXTENT && !block.is_passed && block.live > 0 {
                octets += block.filled + block.beside_octets as usize;
                if octets > order.octets_max && !picked.is_empty() {
                    break;
                }
                picked.push(at);
                if block.is_tail {
                    // Not another large one for each of many queues.
                    Self::begin_small(chain);
                }
            }
            chain.cursor = at;
            at = block.next;
        }
        self.page_out_blocks(&picked, order, buffer)
    }

    /// Where to begin looking for blocks that may be moved to disk.
    fn first_to_move(&self, chain: &Chain, keep_front: usize) -> u32 {
        if chain.length == 0 {
            return NO_BLOCK;
        }
        if chain.cursor != NO_BLOCK {
            return chain.cursor;
        }
        let mut at = chain.front_block;
        for _ in 0..keep_front {
            if at == NO_BLOCK {
                break;
            }
            at = self.blocks[at as usize].next;
        }
        at
    }

    /// Begins to move these blocks to disk.
    pub fn page_out_blocks(
        &mut self,
        picked: &[u32],
        order: &PageOutOrder,
        buffer: &mut Option<AlignedBuffer>,
    ) -> Option<PageOut> {
        if picked.is_empty() {
            return None;
        }
        let mut octets = buffer.take().unwrap_or_default();
        octets.clear();
        let heads: Vec<ExtentHead> = picked.iter().map(|index| self.put_block(*index, order, &mut octets)).collect();
        let cold = self.cold.get_or_insert_default();
        let file = cold.open_file();
        let (number, offset) = (file.number, file.octets);
        let (mut extents, mut at) = (vec![], offset);
        for head in heads {
            let whole = head.whole_octets();
            file.notes.push(ExtentNote {
                offset: at,
                octets: u32::try_from(whole).expect("an extent is bounded"),
                head,
            });
            extents.push((at, whole, head.first_position));
            at += whole as u64;
        }
        file.live += u32::try_from(picked.len()).expect("few blocks at once");
        file.octets = at;
        file.is_dirty = true;
        if file.octets >= order.file_octets {
            put_trailer(&mut octets, &std::mem::take(&mut file.notes));
            file.octets = offset + octets.len() as u64;
            file.is_complete = true;
        }
        let extents = std::iter::zip(picked, extents).map(|(block, (offset, whole, first_position))| {
            let extent = Extent {
                file: number,
                page: u32::try_from(offset / PAGE_OCTETS as u64).expect("files are bounded"),
                pages: u32::try_from(whole / PAGE_OCTETS).expect("an extent is bounded"),
                block: *block,
                first_position,
                is_busy: true,
                is_restored: false,
            };
            let index = cold.add_extent(extent);
            self.blocks[*block as usize].extent = index;
            index
        });
        let extents = extents.collect();
        Some(PageOut { file: number, offset, octets, extents })
    }

    /// Writes one block's records, and the large bodies that they refer to.
    fn put_block(&self, index: u32, order: &PageOutOrder, out: &mut AlignedBuffer) -> ExtentHead {
        let block = &self.blocks[index as usize];
        let start = begin_extent(out);
        // One growth at most, but for very short messages.
        out.spare(block.filled + block.beside_octets as usize);
        let mut head = ExtentHead {
            queue: order.queue,
            priority: order.priority,
            unix_offset_millis: order.unix_offset_millis,
            first_position: u64::MAX,
            block_octets: u32::try_from(block.filled).expect("a block is bounded"),
            ..ExtentHead::default()
        };
        let mut packer = Packer::default();
        let mut bodies = vec![];
        for record in records(&block.octets[..block.filled]) {
            head.count += 1;
            if let StoredBody::Beside(number) = record.body() {
                bodies.push(self.bodies.get(number));
            }
            if let Some(position) = record.position() {
                head.first_position = head.first_position.min(position);
                head.last_position = head.last_position.max(position);
            }
            if record.is_persistent() {
                head.persistent_count += 1;
                head.persistent_octets += self.octets_of(record.body());
            }
            packer.put(out, &record);
        }
        let bodies_start = out.len();
        for body in bodies {
            out.extend_from_slice(&u32::try_from(body.len()).expect("a message is bounded").to_le_bytes());
            out.extend_from_slice(body);
        }
        head.bodies_octets = u32::try_from(out.len() - bodies_start).expect("an extent is bounded");
        finish_extent(out, start, &mut head);
        head
    }

    /// Extents were written: what nobody has passed meanwhile leaves the memory.
    pub fn paged_out(&mut self, extents: &[u32]) {
        for &index in extents {
            let cold = self.cold.as_mut().expect("it has written extents");
            let extent = &mut cold.extents[index as usize];
            extent.is_busy = false;
            let at = extent.block as usize;
            if extent.block == NO_BLOCK {
                cold.vacate(index);
                continue;
            }
            self.blocks[at].journal_low = NO_SEGMENT;
            self.leave_memory(at);
        }
    }

    /// Extents could not be written: their blocks stay where they are.
    pub fn not_paged_out(&mut self, chains: &mut dyn Iterator<Item = &mut Chain>, extents: &[u32]) {
        let cold = self.cold.as_mut().expect("it has tried to write extents");
        for &index in extents {
            let extent = &mut cold.extents[index as usize];
            extent.is_busy = false;
            let (number, offset, block) = (extent.file, u64::from(extent.page) * PAGE_OCTETS as u64, extent.block);
            // Nothing more goes to that file, and it ends before what is missing.
            if let Some(file) = cold.file_mut(number) {
                file.is_complete = true;
                file.octets = file.octets.min(offset);
            }
            if block == NO_BLOCK {
                cold.vacate(index);
            } else {
                self.blocks[block as usize].extent = NO_EXTENT;
                cold.forget(index);
            }
        }
        // What has failed once is tried again, from the front.
        chains.for_each(|chain| chain.cursor = NO_BLOCK);
    }

    /// Drops a block's octets, which are on disk, where nobody has passed it.
    fn leave_memory(&mut self, at: usize) {
        let block = &mut self.blocks[at];
        if block.is_passed || !block.is_resident() {
            return;
        }
        let octets = std::mem::take(&mut block.octets);
        if block.beside_octets > 0 {
            for record in records(&octets[..block.filled]) {
                if let StoredBody::Beside(number) = record.body() {
                    self.bodies.remove(number);
                }
            }
        }
        self.octets -= octets.len();
        self.limit_spare();
        self.cold.as_mut().expect("a copy is on disk").absent += 1;
    }

    /// Drops the octets of blocks of `chain` that were read back before anybody wanted them, from the `keep_front`th on.
    pub fn evict(&mut self, chain: &mut Chain, keep_front: usize) {
        let mut at = if chain.length == 0 { NO_BLOCK } else { chain.front_block };
        let mut passed = 0;
        while at != NO_BLOCK && (self.blocks[at as usize].is_resident() || passed < keep_front) {
            let Block { next, extent, .. } = self.blocks[at as usize];
            if passed >= keep_front && extent != NO_EXTENT {
                let is_busy = self.cold.as_ref().is_some_and(|cold| cold.extents[extent as usize].is_busy);
                if !is_busy {
                    self.leave_memory(at as usize);
                }
            }
            passed += 1;
            at = next;
        }
    }
}
