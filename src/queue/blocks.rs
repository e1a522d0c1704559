//! Where a queue's messages lie: densely, one after the other, in blocks of memory that go when their last message goes.
//!
//! A [`Chain`] is a first-in first-out list of records through the blocks of one [`BlockStore`]: it is appended to at
//! its tail and walked from its front, so that nothing has to say where a message is until it was passed. What was
//! passed is known by its [`Place`] until it is released. Blocks begin small and double, for a queue with a handful of
//! messages is the common one. A block that nobody has passed may lie on disk instead of in memory: see `cold`.

use super::bodies::Bodies;
use super::cold::Cold;
use super::record::{self, BodyPlace, Labels, Parts, Record, StoredBody};
use crate::message::{BodyView, MessageView};

/// The first block of a queue, in octets.
const BLOCK_OCTETS_FIRST: usize = 512;
/// The size that blocks grow to, in octets. A longer record has a block of its own.
const BLOCK_OCTETS_MAX: usize = 64 << 10;
/// The large bodies that records of one block may refer to, in octets, beyond the first: it goes to disk with them.
const BESIDE_OCTETS_MAX: usize = 256 << 10;
/// An empty block of up to this size, in octets, is kept for the messages to come.
const BLOCK_OCTETS_RETAINED: usize = 4 << 10;

/// So many blocks are kept for those to come, at most.
const SPARE_BLOCKS_MAX: usize = 8;

pub(super) const NO_BLOCK: u32 = u32::MAX;
/// No copy on disk.
pub(super) const NO_EXTENT: u32 = u32::MAX;
/// No segment of the journal.
pub(super) const NO_SEGMENT: u32 = u32::MAX;

/// Where a record lies, and what must be known of it without looking at it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    /// No place at all.
    pub const NONE: Place = Place(u64::MAX);

    const REDELIVERED: u64 = 1 << 31;
    const BODY_BESIDE: u64 = 1 << 30;
    const JOURNALED: u64 = 1 << 29;
    const OFFSET: u64 = Self::JOURNALED - 1;

    #[inline]
    fn new(block: u32, offset: usize, body_beside: bool, journaled: bool) -> Place {
        Place(
            u64::from(block) << 32
                | offset as u64
                | if body_beside { Self::BODY_BESIDE } else { 0 }
                | if journaled { Self::JOURNALED } else { 0 },
        )
    }

    /// Some place, other ones for other numbers.
    #[cfg(test)]
    pub fn of_test(number: u64) -> Place {
        Place(number)
    }

    /// The block that it is in.
    #[inline]
    pub fn block(self) -> usize {
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

    /// Whether the journal has to be told when the message is gone.
    #[inline]
    pub fn is_journaled(self) -> bool {
        self.0 & Self::JOURNALED != 0
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

pub(super) struct Block {
    /// None where the block is on disk only.
    pub octets: Box<[u8]>,
    /// How many of its octets are written.
    pub filled: usize,
    /// How many of its records were not released.
    pub live: u32,
    /// The block that follows in its chain.
    pub next: u32,
    /// The oldest segment of the journal that may have the only copy on disk of one of its records.
    pub journal_low: u32,
    /// Its copy on disk, which may be on its way there. It takes no more records once it has one.
    pub extent: u32,
    /// The large bodies that its records refer to, in octets.
    pub beside_octets: u32,
    /// Whether its chain appends to it.
    pub is_tail: bool,
    /// Whether it is being read back.
    pub is_loading: bool,
    /// Whether one of its records was passed, so that it is at the front of its chain or before that.
    pub is_passed: bool,
}

impl Block {
    pub fn new(octets: Box<[u8]>, is_tail: bool) -> Block {
        Block {
            octets,
            filled: 0,
            live: 0,
            next: NO_BLOCK,
            journal_low: NO_SEGMENT,
            extent: NO_EXTENT,
            beside_octets: 0,
            is_tail,
            is_loading: false,
            is_passed: false,
        }
    }

    /// Whether its records are in memory.
    #[inline]
    pub fn is_resident(&self) -> bool {
        !self.octets.is_empty()
    }
}

/// A list of records through blocks: appended to at the tail, walked from the front.
pub(super) struct Chain {
    pub front_block: u32,
    pub front_offset: usize,
    pub tail: u32,
    /// How large the next block will be, in octets.
    block_octets_next: usize,
    /// Records from the front to the tail.
    pub length: u64,
    /// All blocks before this one have been looked at for being moved to disk; none where the front is the next to be looked at.
    pub cursor: u32,
}

impl Chain {
    pub fn new() -> Chain {
        Chain {
            front_block: NO_BLOCK,
            front_offset: 0,
            tail: NO_BLOCK,
            block_octets_next: BLOCK_OCTETS_FIRST,
            length: 0,
            cursor: NO_BLOCK,
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
pub(super) struct BlockStore {
    pub blocks: Vec<Block>,
    pub vacant: Vec<u32>,
    pub bodies: Bodies,
    /// The size of all blocks.
    pub octets: usize,
    /// Memory of blocks of the largest size for the next ones: no more than there is in use.
    spare: Vec<Box<[u8]>>,
    /// The segment of the journal that what is appended lies in, or a later one.
    pub segment: u32,
    /// What is on disk, if anything ever was.
    pub cold: Option<Box<Cold>>,
}

impl Default for BlockStore {
    fn default() -> BlockStore {
        BlockStore {
            blocks: vec![],
            vacant: vec![],
            bodies: Bodies::default(),
            octets: 0,
            spare: vec![],
            segment: NO_SEGMENT,
            cold: None,
        }
    }
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
        let tail = &mut self.blocks[chain.tail as usize];
        tail.is_passed = true;
        chain.front_offset = tail.filled;
        place
    }

    #[inline]
    fn write_at_tail(&mut self, chain: &mut Chain, message: &MessageView<'_>, labels: &Labels) -> Place {
        let (needed, body) = if message.body.is_large() {
            self.keep_body(message, labels)
        } else {
            (record::octets_needed(message, labels, true), BodyPlace::Inside)
        };
        let is_beside = matches!(body, BodyPlace::Beside(_));
        let beside_octets = if is_beside { message.body.len() } else { 0 };
        let has_room = self.blocks.get_mut(chain.tail as usize).is_some_and(|tail| {
            if tail.live == 0 {
                tail.filled = 0;
                tail.beside_octets = 0;
                tail.journal_low = NO_SEGMENT;
                tail.is_passed = false;
                chain.front_offset = 0;
            }
            tail.octets.len() - tail.filled.min(tail.octets.len()) >= needed
                && tail.extent == NO_EXTENT
                && (tail.beside_octets == 0 || tail.beside_octets as usize + beside_octets <= BESIDE_OCTETS_MAX)
        });
        if !has_room {
            self.open_block(chain, needed);
        }
        let segment = if labels.persistent { self.segment } else { NO_SEGMENT };
        let tail = &mut self.blocks[chain.tail as usize];
        let offset = tail.filled;
        tail.filled += needed;
        tail.live += 1;
        tail.journal_low = tail.journal_low.min(segment);
        if is_beside {
            tail.beside_octets += u32::try_from(beside_octets).expect("a message is bounded");
        }
        record::write(&mut tail.octets[offset..offset + needed], message, labels, body);
        Place::new(chain.tail, offset, is_beside, labels.persistent)
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
        // Also where a record has a block of its own: else none of its kind would ever share one.
        chain.block_octets_next = (2 * chain.block_octets_next).min(BLOCK_OCTETS_MAX);
        let spare = if size == BLOCK_OCTETS_MAX { self.spare.pop() } else { None };
        let octets = spare.unwrap_or_else(|| vec![0; size].into_boxed_slice());
        self.octets += size;
        if let Some(tail) = empty_tail {
            self.octets -= tail.octets.len();
            tail.octets = octets;
            return;
        }
        self.link(chain, Block::new(octets, true));
    }

    /// The next block of `chain` is a small one again.
    pub fn begin_small(chain: &mut Chain) {
        chain.block_octets_next = BLOCK_OCTETS_RETAINED;
    }

    /// Makes `block` the tail of `chain`. Returns its index.
    pub fn link(&mut self, chain: &mut Chain, block: Block) -> u32 {
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
            chain.cursor = NO_BLOCK;
        }
        chain.tail = index;
        index
    }

    /// Whether the front of `chain`, which is not empty, is in memory.
    #[inline]
    pub fn is_front_resident(&self, chain: &Chain) -> bool {
        self.blocks[chain.front_block as usize].is_resident()
    }

    /// The record at the front of `chain`, which is not empty; its front is in memory.
    #[inline]
    pub fn front(&self, chain: &Chain) -> Record<'_> {
        debug_assert!(chain.length > 0, "the chain has a front");
        Record::at_front(&self.blocks[chain.front_block as usize].octets[chain.front_offset..])
    }

    /// Passes the record at the front of `chain`, which is not empty, and returns its place and the octets of its body.
    #[inline]
    pub fn pass_front(&mut self, chain: &mut Chain) -> (Place, u64) {
        assert!(chain.length > 0, "passed the end of a chain");
        let block = &mut self.blocks[chain.front_block as usize];
        block.is_passed = true;
        let record = Record::at_front(&block.octets[chain.front_offset..]);
        let body = record.body();
        let is_beside = matches!(body, StoredBody::Beside(_));
        let place = Place::new(chain.front_block, chain.front_offset, is_beside, record.is_persistent());
        let place = if record.is_redelivered() { place.redelivered() } else { place };
        chain.length -= 1;
        chain.front_offset += record.octets();
        if chain.front_offset == block.filled && !block.is_tail {
            if chain.cursor == chain.front_block {
                chain.cursor = NO_BLOCK;
            }
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
        if block.live == 0 {
            let is_kept = block.is_tail && block.octets.len() <= BLOCK_OCTETS_RETAINED;
            if block.extent != NO_EXTENT {
                self.forget_extent(place.block());
            }
            if !is_kept {
                self.free_block(place.block());
            }
        }
    }

    #[cold]
    fn release_body(&mut self, place: Place) {
        if let StoredBody::Beside(number) = self.record(place).body() {
            self.bodies.remove(number);
        }
    }

    /// Keeps no more memory for blocks to come than there is in use.
    pub fn limit_spare(&mut self) {
        self.spare.truncate(self.octets / BLOCK_OCTETS_MAX);
    }

    #[cold]
    pub fn free_block(&mut self, index: usize) {
        let block = &mut self.blocks[index];
        let octets = std::mem::take(&mut block.octets);
        block.filled = 0;
        block.beside_octets = 0;
        block.journal_low = NO_SEGMENT;
        block.is_passed = false;
        block.is_loading = false;
        let is_tail = block.is_tail;
        self.octets -= octets.len();
        if octets.len() == BLOCK_OCTETS_MAX && self.spare.len() < SPARE_BLOCKS_MAX {
            self.spare.push(octets);
        }
        self.limit_spare();
        if !is_tail {
            self.vacant.push(u32::try_from(index).expect("a block's index has 32 bits"));
        }
    }

    /// The memory held, unused room counted. Constant time.
    pub fn octets_held(&self) -> u64 {
        let table = self.blocks.capacity() * size_of::<Block>() + self.vacant.capacity() * size_of::<u32>();
        let spare = self.spare.len() * (BLOCK_OCTETS_MAX + size_of::<Box<[u8]>>());
        let cold = self.cold.as_ref().map_or(0, |cold| cold.octets_held());
        (self.octets + spare + table) as u64 + self.bodies.octets_held() + cold
    }
}
