//! From disk to memory: what is read ahead of a queue's front, and how what was read becomes blocks again.

use super::blocks::{BlockStore, Chain, NO_BLOCK};
use super::cold::Load;
use super::record::{self, BodyPlace, Record, StoredBody};
use crate::limits::SHARED_BODY_OCTETS_MIN;
use crate::message::{BodyView, MessageView};
use crate::store::{ExtentFault, ExtentHead, PAGE_OCTETS, RangeSet, take_extent};
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
            let next = block.next;
            if block.is_resident() || block.is_loading || block.live == 0 {
                if load.is_some() {
                    break;
                }
                at = next;
                continue;
            }
            let extent = &mut cold.extents[block.extent as usize];
            let (offset, octets) = (u64::from(extent.page) * PAGE_OCTETS as u64, extent.pages as usize * PAGE_OCTETS);
            let load = load.get_or_insert(Load { file: extent.file, offset, octets: 0, extents: vec![] });
            let goes_on = load.file == extent.file && load.offset + load.octets as u64 == offset;
            if !goes_on || (!load.extents.is_empty() && load.octets + octets > octets_max) {
                break;
            }
            load.octets += octets;
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
                let is_restored = extent.is_restored;
                let (image, bodies) = if is_restored {
                    let settled = std::mem::take(&mut cold.settled);
                    let kept = Self::keep_live(&taken.head, taken.image, taken.bodies, &settled, unix_offset_millis);
                    self.cold.as_mut().expect("it has read extents").settled = settled;
                    kept
                } else {
                    (taken.image.to_vec(), taken.bodies.to_vec())
                };
                self.enter_memory(block, image, &bodies).map_err(|fault| (at, fault))?;
            }
            at += whole;
        }
        Ok(())
    }

    /// What of an extent is not dead, with times of expiry on the clock of this process.
    fn keep_live(
        head: &ExtentHead,
        image: &[u8],
        bodies: &[u8],
        settled: &RangeSet,
        unix_offset_millis: u64,
    ) -> (Vec<u8>, Vec<u8>) {
        let (mut kept, mut kept_bodies) = (Vec::with_capacity(image.len()), vec![]);
        let mut bodies = Bodies::new(bodies);
        for record in records(image) {
            let beside = if matches!(record.body(), StoredBody::Beside(_)) { bodies.next() } else { None };
            let mut labels = record.labels();
            if !record.is_persistent() || labels.position.is_none_or(|position| settled.contains(position)) {
                continue;
            }
            labels.expires_at = labels
                .expires_at
                .map(|at| at.saturating_add(head.unix_offset_millis).saturating_sub(unix_offset_millis));
            let parts = record.parts();
            let message = MessageView {
                exchange: parts.exchange,
                routing_key: parts.routing_key,
                properties: parts.properties,
                body: BodyView::Slice(parts.body),
            };
            let place = if beside.is_some() { BodyPlace::Beside(0) } else { BodyPlace::Inside };
            let start = kept.len();
            kept.resize(start + record::octets_needed(&message, &labels, beside.is_none()), 0);
            record::write(&mut kept[start..], &message, &labels, place);
            if let Some(body) = beside {
                kept_bodies.extend_from_slice(&u32::try_from(body.len()).expect("bounded").to_le_bytes());
                kept_bodies.extend_from_slice(body);
            }
        }
        (kept, kept_bodies)
    }

    fn enter_memory(&mut self, at: usize, mut image: Vec<u8>, bodies: &[u8]) -> Result<(), ExtentFault> {
        let mut beside_octets = 0;
        let mut bodies = Bodies::new(bodies);
        let (mut offset, mut count) = (0, 0);
        while offset < image.len() {
            let record = Record::at_front(&image[offset..]);
            let octets = record.octets();
            if matches!(record.body(), StoredBody::Beside(_)) {
                let body = bodies.next().ok_or(ExtentFault::Unsound)?;
                beside_octets += u32::try_from(body.len()).expect("a message is bounded");
                let number = self.bodies.add(Bytes::copy_from_slice(body));
                record::set_body_number(&mut image[offset..], number);
            }
            offset += octets;
            count += 1;
        }
        let block = &mut self.blocks[at];
        if block.live != count {
            return Err(ExtentFault::Unsound);
        }
        block.filled = image.len();
        block.beside_octets = beside_octets;
        block.is_loading = false;
        self.octets += image.len();
        block.octets = image.into_boxed_slice();
        self.cold.as_mut().expect("it was on disk").absent -= 1;
        Ok(())
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
