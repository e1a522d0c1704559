//! Where a queue's messages lie: densely, one after the other, in blocks of memory that go when their last message goes.
//!
//! A [`Chain`] is a first-in first-out list of records through the blocks of one [`BlockStore`]: it is appended to at
//! its tail and walked from its front, so that nothing has to say where a message is until it was passed. What was
//! passed is known by its [`Place`] until it is released. Blocks begin small and double, for a queue with a handful of
//! messages is the common one. This is all that the queue knows of memory; a store on disk takes its place here.

use super::bodies::Bodies;
use super::record::{self, BodyPlace, Labels, Parts, Record, StoredBody};
use crate::message::{BodyView, MessageView};

/// The first block of a queue, in octets.
const BLOCK_OCTETS_FIRST: usize = 512;
/// The size that blocks grow to, in octets. A longer record has a block of its own.
const BLOCK_OCTETS_MAX: usize = 64 << 10;
/// An empty block of up to this size, in octets, is kept for the messages to come.
const BLOCK_OCTETS_RETAINED: usize = 4 << 10;

const NO_BLOCK: u32 = u32::MAX;

/// Where a record lies, and what must be known of it without looking at it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    /// No place at all.
    pub const NONE: Place = Place(u64::MAX);

    const REDELIVERED: u64 = 1 << 31;
    const BODY_BESIDE: u64 = 1 << 30;
    const OFFSET: u64 = Self::BODY_BESIDE - 1;

    #[inline]
    fn new(block: u32, offset: usize, body_beside: bool) -> Place {
        Place(u64::from(block) << 32 | offset as u64 | if body_beside { Self::BODY_BESIDE } else { 0 })
    }

    /// Some place, other ones for other numbers.
    #[cfg(test)]
    pub fn of_test(number: u64) -> Place {
        Place(number)
    }

    #[inline]
    fn block(self) -> usize {
        (self.0 >> 32) as usize
    }

    #[inline]
    fn offset(self) -> usize {
        (self.0 & Self::OFFSET) as usize
    }

    #[inline]
    fn has_body_beside(self) -> bool {
        self.0 & Self::BODY_BESIDE != 0
    }

    /// Whether the message was delivered before.
    #[inline]
    pub fn is_redelivered(self) -> bool {
        self.0 & Self::REDELIVERED != 0
    }

    /// The same place, its message marked as delivered before.
    #[inline]
    pub fn redelivered(self) -> Place {
        Place(self.0 | Self::REDELIVERED)
    }
}

struct Block {
    octets: Box<[u8]>,
    /// How many of its octets are written.
    filled: usize,
    /// How many of its records were not released.
    live: u32,
    /// The block that follows in its chain.
    next: u32,
    /// Whether its chain appends to it.
    is_tail: bool,
}

/// A list of records through blocks: appended to at the tail, walked from the front.
pub(super) struct Chain {
    front_block: u32,
    front_offset: usize,
    tail: u32,
    /// How large the next block will be, in octets.
    block_octets_next: usize,
    /// Records from the front to the tail.
    length: u64,
}

impl Chain {
    pub fn new() -> Chain {
        Chain {
            front_block: NO_BLOCK,
            front_offset: 0,
            tail: NO_BLOCK,
            block_octets_next: BLOCK_OCTETS_FIRST,
            length: 0,
        }
    }

    /// How many records lie from the front to the tail.
    #[inline]
    pub fn len(&self) -> u64 {
        self.length
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// The blocks of one queue.
#[derive(Default)]
pub(super) struct BlockStore {
    blocks: Vec<Block>,
    vacant: Vec<u32>,
    bodies: Bodies,
    /// The size of all blocks.
    octets: usize,
    /// A block's memory of the largest size for the next one, while there are others of that size.
    spare: Option<Box<[u8]>>,
}

impl BlockStore {
    /// Copies a message to the tail of `chain`. A large body is referenced instead.
    #[inline]
    pub fn append(&mut self, chain: &mut Chain, message: &MessageView<'_>, labels: &Labels) {
        self.write_at_tail(chain, message, labels);
        chain.length += 1;
    }

    /// Copies a message to the tail of `chain`, which is empty, and passes it. Returns its place.
    #[inline]
    pub fn append_passed(&mut self, chain: &mut Chain, message: &MessageView<'_>, labels: &Labels) -> Place {
        assert!(chain.is_empty(), "passed a message behind others");
        let place = self.write_at_tail(chain, message, labels);
        chain.front_offset = self.blocks[chain.tail as usize].filled;
        place
    }

    #[inline]
    fn write_at_tail(&mut self, chain: &mut Chain, message: &MessageView<'_>, labels: &Labels) -> Place {
        let (needed, body) = if message.body.is_large() {
            self.keep_body(message, labels)
        } else {
            (record::octets_needed(message, labels, true), BodyPlace::Inside)
        };
        let has_room = self.blocks.get_mut(chain.tail as usize).is_some_and(|tail| {
            if tail.live == 0 {
                tail.filled = 0;
                chain.front_offset = 0;
            }
            tail.octets.len() - tail.filled >= needed
        });
        if !has_room {
            self.open_block(chain, needed);
        }
        let tail = &mut self.blocks[chain.tail as usize];
        let offset = tail.filled;
        tail.filled += needed;
        tail.live += 1;
        record::write(&mut tail.octets[offset..offset + needed], message, labels, body);
        Place::new(chain.tail, offset, matches!(body, BodyPlace::Beside(_)))
    }

    #[cold]
    fn keep_body(&mut self, message: &MessageView<'_>, labels: &Labels) -> (usize, BodyPlace) {
        let number = self.bodies.add(message.body.to_bytes());
        (record::octets_needed(message, labels, false), BodyPlace::Beside(number))
    }

    /// Gives `chain` a tail with room for `needed` octets.
    #[cold]
    fn open_block(&mut self, chain: &mut Chain, needed: usize) {
        let empty_tail = self.blocks.get_mut(chain.tail as usize).filter(|tail| tail.live == 0);
        if empty_tail.as_ref().is_some_and(|tail| tail.octets.is_empty()) {
            chain.block_octets_next = BLOCK_OCTETS_RETAINED;
        }
        let size = needed.max(chain.block_octets_next);
        if needed <= chain.block_octets_next {
            chain.block_octets_next = (2 * chain.block_octets_next).min(BLOCK_OCTETS_MAX);
        }
        let spare = if size == BLOCK_OCTETS_MAX { self.spare.take() } else { None };
        let octets = spare.unwrap_or_else(|| vec![0; size].into_boxed_slice());
        self.octets += size;
        if let Some(tail) = empty_tail {
            self.octets -= tail.octets.len();
            tail.octets = octets;
            return;
        }
        let block = Block { octets, filled: 0, live: 0, next: NO_BLOCK, is_tail: true };
        let index = if let Some(index) = self.vacant.pop() {
            self.blocks[index as usize] = block;
            index
        } else {
            let index = u32::try_from(self.blocks.len()).expect("fewer than 2^32 blocks fit into memory");
            self.blocks.push(block);
            index
        };
        if let Some(tail) = self.blocks.get_mut(chain.tail as usize) {
            tail.is_tail = false;
            tail.next = index;
        }
        if chain.length == 0 {
            chain.front_block = index;
            chain.front_offset = 0;
        }
        chain.tail = index;
    }

    /// The record at the front of `chain`, which is not empty.
    #[inline]
    pub fn front(&self, chain: &Chain) -> Record<'_> {
        debug_assert!(chain.length > 0, "the chain has a front");
        Record::at_front(&self.blocks[chain.front_block as usize].octets[chain.front_offset..])
    }

    /// Passes the record at the front of `chain`, which is not empty, and returns its place and the octets of its body.
    #[inline]
    pub fn pass_front(&mut self, chain: &mut Chain) -> (Place, u64) {
        assert!(chain.length > 0, "passed the end of a chain");
        let block = &self.blocks[chain.front_block as usize];
        let record = Record::at_front(&block.octets[chain.front_offset..]);
        let body = record.body();
        let place = Place::new(chain.front_block, chain.front_offset, matches!(body, StoredBody::Beside(_)));
        chain.length -= 1;
        chain.front_offset += record.octets();
        if chain.front_offset == block.filled && !block.is_tail {
            chain.front_block = block.next;
            chain.front_offset = 0;
        }
        (place, self.octets_of(body))
    }

    /// The record at `place`, which was not released.
    #[inline]
    pub fn record(&self, place: Place) -> Record<'_> {
        Record::at_front(&self.blocks[place.block()].octets[place.offset()..])
    }

    /// The message in `record`, which is one of this store.
    #[inline]
    pub fn message<'a>(&'a self, record: Record<'a>) -> MessageView<'a> {
        let Parts { exchange, routing_key, properties, body } = record.parts();
        let body = match record.body() {
            StoredBody::Inside(_) => BodyView::Slice(body),
            StoredBody::Beside(number) => BodyView::Shared(self.bodies.get(number)),
        };
        MessageView { exchange, routing_key, properties, body }
    }

    /// The length of the body of a record of this store, in octets.
    #[inline]
    pub fn octets_of(&self, body: StoredBody) -> u64 {
        match body {
            StoredBody::Inside(octets) => octets as u64,
            StoredBody::Beside(number) => self.bodies.get(number).len() as u64,
        }
    }

    /// Lets go of the record at `place`, which was passed and not released before.
    #[inline]
    pub fn release(&mut self, place: Place) {
        if place.has_body_beside() {
            self.release_body(place);
        }
        let block = &mut self.blocks[place.block()];
        assert!(block.live > 0, "released more often than stored");
        block.live -= 1;
        if block.live == 0 && (!block.is_tail || block.octets.len() > BLOCK_OCTETS_RETAINED) {
            self.free_block(place.block());
        }
    }

    #[cold]
    fn release_body(&mut self, place: Place) {
        if let StoredBody::Beside(number) = self.record(place).body() {
            self.bodies.remove(number);
        }
    }

    #[cold]
    fn free_block(&mut self, index: usize) {
        let block = &mut self.blocks[index];
        let octets = std::mem::take(&mut block.octets);
        block.filled = 0;
        self.octets -= octets.len();
        if self.octets < BLOCK_OCTETS_MAX {
            self.spare = None;
        } else if octets.len() == BLOCK_OCTETS_MAX {
            self.spare = Some(octets);
        }
        if !block.is_tail {
            self.vacant.push(u32::try_from(index).expect("a block's index has 32 bits"));
        }
    }

    /// The memory held, unused room counted. Constant time.
    pub fn octets_held(&self) -> u64 {
        let table = self.blocks.capacity() * size_of::<Block>() + self.vacant.capacity() * size_of::<u32>();
        let spare = self.spare.as_ref().map_or(0, |octets| octets.len());
        (self.octets + spare + table) as u64 + self.bodies.octets_held()
    }
}
