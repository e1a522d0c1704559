//! From disk to memory: what is read ahead of a queue's front, and how what was read becomes blocks again.

use super::blocks::{BlockStore, Chain, NO_BLOCK};
use super::cold::Load;
use super::packed::{Packed, PackedRecords};
use super::record::{self, BodyPlace, Labels, Record};
use crate::limits::SHARED_BODY_OCTETS_MIN;
use crate::store::extent::Extent;
use crate::store::{ExtentFault, PAGE_OCTETS, RangeSet, take_extent};
use bytes::Bytes;

/// Before each large body that is written behind an image: its length.
const BODY_LENGTH_OCTETS: usize = 4;

impl BlockStore {
    /// What is to be read next, so that the front of `chain` finds its next `ahead` blocks in memory. At most `octets_max`
    /// are read at once, but one block at the least.
    pub fn poll_load(&mut self, chain: &Chain, ahead: usize, octets_max: usize) -> Option<Load> {
        if chain.length == 0 || !self.has_absent() {
            return None;
        }
        let cold = self.cold.as_mut()?;
        let mut at = chain.front_block;
        let mut load: Option<Load> = None;
        for _ in 0..ahead {
            let Some(block) = self.blocks.get_mut(at as usize) else { break };
            let (next, memory_octets) = (block.next, block.filled + block.beside_octets as usize);
            if block.is_resident() || block.is_loading || block.live == 0 {
                if load.is_some() {
                    break;
                }
                at = next;
                continue;
            }
            let extent = &mut cold.extents[block.extent as usize];
            let (offset, octets) = (u64::from(extent.page) * PAGE_OCTETS as u64, extent.pages as usize * PAGE_OCTETS);
            let load =
                load.get_or_insert(Load { file: extent.file, offset, octets: 0, memory_octets: 0, extents: vec![] });
            let goes_on = load.file == extent.file && load.offset + load.octets as u64 == offset;
            if !goes_on || (!load.extents.is_empty() && load.octets + octets > octets_max) {
                break;
            }
            load.octets += octets;
            load.memory_octets += memory_octets;
            load.extents.push(block.extent);
            block.is_loading = true;
            extent.is_busy = true;
            at = next;
        }
        load
    }

    /// Takes extents that were read, in the order of [`Load::extents`].
    ///
    /// # Errors
    /// Where in `octets` one is not as it was written, and why.
    pub fn loaded(
        &mut self,
        extents: &[u32],
        octets: &[u8],
        unix_offset_millis: u64,
    ) -> Result<(), (usize, ExtentFault)> {
        let mut at = 0;
        for &index in extents {
            let taken = take_extent(&octets[at..]).map_err(|fault| (at, fault))?;
            let whole = taken.octets;
            let cold = self.cold.as_mut().expect("it has read extents");
            let extent = &mut cold.extents[index as usize];
            extent.is_busy = false;
            let block = extent.block as usize;
            if extent.block == NO_BLOCK {
                cold.vacate(index);
            } else {
                let settled = if extent.is_restored { std::mem::take(&mut cold.settled) } else { RangeSet::new() };
                let is_restored = extent.is_restored;
                let keeps = |labels: &mut Labels| {
                    if !is_restored {
                        return true;
                    }
                    // Times of expiry are on the clock of a process that has ended.
                    labels.expires_at = labels
                        .expires_at
                        .map(|at| at.saturating_add(taken.head.unix_offset_millis).saturating_sub(unix_offset_millis));
                    labels.persistent && labels.position.is_some_and(|position| !settled.contains(position))
                };
                let entered = self.enter_memory(block, &taken, keeps);
                if is_restored {
                    self.cold.as_mut().expect("it has read extents").settled = settled;
                }
                entered.ok_or((at, ExtentFault::Unsound))?;
            }
            at += whole;
        }
        Ok(())
    }

    /// Makes an extent the octets of a block again, of those records of which `keeps`, which may change them, says so. `None` where
    /// it is none of that block's.
    fn enter_memory(
        &mut self,
        at: usize,
        extent: &Extent<'_>,
        mut keeps: impl FnMut(&mut Labels) -> bool,
    ) -> Option<()> {
        let mut octets = vec![0; extent.head.block_octets as usize];
        let (mut filled, mut count, mut beside_octets) = (0, 0, 0);
        let mut bodies = Bodies::new(extent.bodies);
        for record in PackedRecords::new(extent.image, extent.head.priority) {
            let Packed { mut labels, message, body_is_beside } = record.ok()?;
            let beside = if body_is_beside { Some(bodies.next()?) } else { None };
            if !keeps(&mut labels) {
                continue;
            }
            let end = filled + record::octets_needed(&message, &labels, beside.is_none());
            let place = beside.map_or(BodyPlace::Inside, |body| {
                beside_octets += u32::try_from(body.len()).expect("a message is bounded");
                BodyPlace::Beside(self.bodies.add(Bytes::copy_from_slice(body)))
            });
            record::write(octets.get_mut(filled..end)?, &message, &labels, place);
            filled = end;
            count += 1;
        }
        let block = &mut self.blocks[at];
        if block.live != count {
            return None;
        }
        octets.truncate(filled);
        block.filled = filled;
        block.beside_octets = beside_octets;
        block.is_loading = false;
        self.octets += filled;
        block.octets = octets.into_boxed_slice();
        self.cold.as_mut().expect("it was on disk").absent -= 1;
        Some(())
    }
}

/// The records that lie one after the other in a block.
pub(super) fn records(image: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = image;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = Record::at_front(rest);
        rest = &rest[record.octets()..];
        Some(record)
    })
}

/// The large bodies behind an image, each behind its length.
pub(super) struct Bodies<'a> {
    octets: &'a [u8],
}

impl<'a> Bodies<'a> {
    /// Of an extent.
    pub fn new(octets: &'a [u8]) -> Bodies<'a> {
        Bodies { octets }
    }
}

impl<'a> Iterator for Bodies<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.octets.split_first_chunk::<BODY_LENGTH_OCTETS>()?;
        let (body, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        self.octets = rest;
        (body.len() >= SHARED_BODY_OCTETS_MIN).then_some(body)
    }
}
