//! Away from an old segment of the journal, so that it can be used again: what lives there goes to the queue's own files where
//! it is much, and is written to the journal again where it is little.

use super::blocks::{NO_BLOCK, NO_EXTENT, Place};
use super::cold::PageOut;
use super::load::records;
use super::page_out::PageOutOrder;
use super::record::{Labels, Record};
use super::{Position, Queue};
use crate::message::MessageView;
use crate::store::AlignedBuffer;

/// A message that is to be written to the journal again.
pub struct Forwarded<'a> {
    /// Its place in the queue.
    pub position: Position,
    /// Its priority there.
    pub priority: u8,
    /// When it expires, in milliseconds on the broker's clock.
    pub expires_at: Option<u64>,
    /// Whether it may have been delivered.
    pub redelivered: bool,
    /// The message.
    pub message: MessageView<'a>,
}

/// What is to be left, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Relocation {
    /// What the files call the queue.
    pub queue: u64,
    /// What to add to the broker's clock for milliseconds since 1970.
    pub unix_offset_millis: u64,
    /// This segment of the journal, and those before it, are to be left.
    pub segment: u32,
    /// Where the journal writes now.
    pub segment_now: u32,
    /// Messages that nobody has passed go to files where they are so many octets or more.
    pub file_octets_min: usize,
    /// No more octets at once to files than this, but one block at the least.
    pub octets_max: usize,
    /// What is written to a file before another one is begun, in octets.
    pub file_octets: u64,
}

impl Queue {
    /// Leaves a segment of the journal. Calls `forward` for each message that is to be written to it again; what is returned is to
    /// be written to files.
    pub fn relocate(&mut self, to: &Relocation, forward: &mut dyn FnMut(Forwarded<'_>)) -> Vec<PageOut> {
        self.forward_passed(to, forward);
        let mut page_outs = vec![];
        for priority in 0..=u8::MAX {
            let Some(blocks) = self.blocks_to_leave(priority, to.segment) else { break };
            let octets: usize = blocks.iter().map(|at| self.store.blocks[*at as usize].filled).sum();
            if octets >= to.file_octets_min {
                self.page_out_in_runs(&blocks, priority, to, &mut page_outs);
            } else {
                for at in blocks {
                    self.forward_block(at as usize, 0, forward);
                    self.store.blocks[at as usize].journal_low = to.segment_now;
                }
            }
        }
        page_outs
    }

    /// The blocks of a level that nobody has passed and whose only copy on disk may be in a segment that is left. `None` where
    /// there is no such level.
    fn blocks_to_leave(&self, priority: u8, segment: u32) -> Option<Vec<u32>> {
        let (_, level) = self.levels.iter().nth(usize::from(priority))?;
        let mut found = vec![];
        let mut at = if level.chain.is_empty() { NO_BLOCK } else { level.chain.front_block };
        while at != NO_BLOCK {
            let block = &self.store.blocks[at as usize];
            if block.journal_low <= segment && block.extent == NO_EXTENT && !block.is_passed {
                found.push(at);
            }
            at = block.next;
        }
        Some(found)
    }

    fn page_out_in_runs(&mut self, blocks: &[u32], priority: u8, to: &Relocation, page_outs: &mut Vec<PageOut>) {
        let order = PageOutOrder {
            queue: to.queue,
            priority,
            unix_offset_millis: to.unix_offset_millis,
            keep_front: 0,
            with_tail: true,
            octets_max: to.octets_max,
            file_octets: to.file_octets,
        };
        let mut rest = blocks;
        while !rest.is_empty() {
            let (mut count, mut octets) = (0, 0);
            for at in rest {
                let block = &self.store.blocks[*at as usize];
                octets += block.filled + block.beside_octets as usize;
                if count > 0 && octets > to.octets_max {
                    break;
                }
                count += 1;
            }
            let (run, behind) = rest.split_at(count);
            page_outs.extend(self.store.page_out_blocks(run, &order, &mut None::<AlignedBuffer>));
            rest = behind;
        }
    }

    /// Forwards what was delivered or came back, and what is left of blocks that are partly delivered.
    fn forward_passed(&mut self, to: &Relocation, forward: &mut dyn FnMut(Forwarded<'_>)) {
        let leaves = |store: &super::BlockStore, at: usize| {
            let block = &store.blocks[at];
            block.is_passed && block.journal_low <= to.segment && block.extent == NO_EXTENT
        };
        let requeued = self.levels.iter().flat_map(|(_, level)| level.requeued.iter());
        let requeued = requeued.map(|(&position, &place)| (position, place, place.is_redelivered()));
        let delivered = self.unacknowledged.iter().map(|(position, place)| (position, place, true));
        let mut outstanding: Vec<(Position, Place, bool)> = delivered
            .chain(requeued)
            .filter(|(_, place, _)| place.is_journaled() && leaves(&self.store, place.block()))
            .collect();
        outstanding.sort_unstable_by_key(|(position, _, _)| *position);
        for (_, place, redelivered) in outstanding {
            let record = self.store.record(place);
            self.forward_record(record, redelivered, forward);
        }
        let fronts: Vec<(usize, usize)> = self
            .levels
            .iter()
            .filter(|(_, level)| !level.chain.is_empty())
            .map(|(_, level)| (level.chain.front_block as usize, level.chain.front_offset))
            .filter(|(at, _)| leaves(&self.store, *at))
            .collect();
        for (at, offset) in fronts {
            self.forward_block(at, offset, forward);
        }
        for at in 0..self.store.blocks.len() {
            if leaves(&self.store, at) {
                self.store.blocks[at].journal_low = to.segment_now;
            }
        }
    }

    fn forward_block(&self, at: usize, offset: usize, forward: &mut dyn FnMut(Forwarded<'_>)) {
        let block = &self.store.blocks[at];
        for record in records(&block.octets[offset..block.filled]) {
            if record.is_persistent() {
                let position = record.position().expect("each record of a queue with a log holds its position");
                let redelivered = record.is_redelivered() || self.was_delivered_before(position);
                self.forward_record(record, redelivered, forward);
            }
        }
    }

    fn forward_record(&self, record: Record<'_>, redelivered: bool, forward: &mut dyn FnMut(Forwarded<'_>)) {
        let Labels { position, priority, expires_at, .. } = record.labels();
        forward(Forwarded {
            position: position.expect("each record of a queue with a log holds its position"),
            priority,
            expires_at,
            redelivered,
            message: self.store.message(record),
        });
    }
}
