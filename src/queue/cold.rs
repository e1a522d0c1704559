//! The part of a queue that lies on disk: blocks that nobody has passed, as extents in the queue's own segment files.
//!
//! A block that goes to disk keeps its entry in the table of blocks, and its place in its chain; only its octets leave the
//! memory, and come back before the front reaches it. So what is known of a message on disk is what its block knows: some
//! seventy octets for each 64 KiB. Does no I/O: it says what to write and what to read, and is told when that was done.
//!
//! A file is written from its front to its end, is never changed, and goes when its last extent is dead.

use super::blocks::{Block, BlockStore, Chain, NO_BLOCK, NO_EXTENT, NO_SEGMENT};
use super::record::{self, BodyPlace, Record, StoredBody};
use crate::limits::SHARED_BODY_OCTETS_MIN;
use crate::message::{BodyView, MessageView};
use crate::store::{
    AlignedBuffer, ExtentFault, ExtentHead, ExtentNote, PAGE_OCTETS, RangeSet, put_extent, put_trailer, take_extent,
};
use bytes::Bytes;
use std::collections::VecDeque;

/// Before each large body that is written behind an image: its length.
const BODY_LENGTH_OCTETS: usize = 4;

/// What is to be written to one of a queue's segment files.
#[derive(Debug)]
pub struct PageOut {
    /// The file's number.
    pub file: u32,
    /// Where in the file.
    pub offset: u64,
    /// Extents, and a trailer where the file is complete with them.
    pub octets: AlignedBuffer,
    /// What the queue calls the extents.
    pub extents: Vec<u32>,
}

/// What is to be read from one of a queue's segment files.
#[derive(Debug)]
pub struct Load {
    /// The file's number.
    pub file: u32,
    /// Where in the file.
    pub offset: u64,
    /// How much.
    pub octets: usize,
    /// What the queue calls the extents that lie there, in order.
    pub extents: Vec<u32>,
}

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

/// Where a block's copy lies.
struct Extent {
    file: u32,
    page: u32,
    pages: u32,
    /// Its block; none where that is gone, and only I/O under way keeps this entry.
    block: u32,
    /// The lowest position in it.
    first_position: u64,
    is_busy: bool,
    /// Whether it was written by a process that has ended: some of what is in it may be dead.
    is_restored: bool,
}

struct File {
    number: u32,
    /// Extents whose blocks are there.
    live: u32,
    octets: u64,
    /// What its trailer will say, as long as it is not complete.
    notes: Vec<ExtentNote>,
    is_complete: bool,
    is_dirty: bool,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Cold {
    extents: Vec<Extent>,
    vacant: Vec<u32>,
    /// By rising number.
    files: VecDeque<File>,
    file_next: u32,
    gone: Vec<u32>,
    /// Blocks that are not in memory.
    absent: usize,
    /// Positions that were settled by processes that have ended.
    settled: RangeSet,
    restored: usize,
}

impl Cold {
    pub fn octets_held(&self) -> u64 {
        let notes: usize = self.files.back().map_or(0, |file| file.notes.capacity() * size_of::<ExtentNote>());
        (self.extents.capacity() * size_of::<Extent>() + self.files.capacity() * size_of::<File>() + notes) as u64
    }

    fn add_extent(&mut self, extent: Extent) -> u32 {
        if let Some(index) = self.vacant.pop() {
            self.extents[index as usize] = extent;
            return index;
        }
        self.extents.push(extent);
        u32::try_from(self.extents.len() - 1).expect("fewer than 2^32 blocks")
    }

    fn file_mut(&mut self, number: u32) -> Option<&mut File> {
        let index = self.files.binary_search_by_key(&number, |file| file.number).ok()?;
        self.files.get_mut(index)
    }

    /// The file that is written to, a new one where there is none.
    fn open_file(&mut self) -> &mut File {
        if self.files.back().is_none_or(|file| file.is_complete) {
            let number = self.file_next;
            self.file_next += 1;
            self.files.push_back(File {
                number,
                live: 0,
                octets: 0,
                notes: vec![],
                is_complete: false,
                is_dirty: false,
            });
        }
        self.files.back_mut().expect("a file was just opened")
    }

    fn vacate(&mut self, index: u32) {
        self.vacant.push(index);
        if self.vacant.len() == self.extents.len() {
            self.vacant = vec![];
            self.extents = vec![];
        }
    }

    /// The block of an extent is dead. A file without any other goes.
    fn forget(&mut self, index: u32) {
        let extent = &mut self.extents[index as usize];
        extent.block = NO_BLOCK;
        let number = extent.file;
        if std::mem::take(&mut extent.is_restored) {
            self.restored -= 1;
            if self.restored == 0 {
                self.settled = RangeSet::default();
            }
        }
        if !extent.is_busy {
            self.vacate(index);
        }
        let file = self.file_mut(number).expect("an extent lies in a file");
        file.live -= 1;
        if file.live == 0 {
            self.files.retain(|file| file.number != number);
            self.gone.push(number);
        }
    }
}

impl BlockStore {
    /// Whether some of it is on disk only.
    pub fn has_absent(&self) -> bool {
        self.cold.as_ref().is_some_and(|cold| cold.absent > 0)
    }

    /// Whether there are files.
    #[inline]
    pub fn has_files(&self) -> bool {
        self.cold.as_ref().is_some_and(|cold| !cold.files.is_empty())
    }

    /// Whether there are files that nothing is needed of any more.
    #[inline]
    pub fn has_gone_files(&self) -> bool {
        self.cold.as_ref().is_some_and(|cold| !cold.gone.is_empty())
    }

    /// Files that nothing is needed of any more.
    pub fn take_gone_files(&mut self) -> Vec<u32> {
        self.cold.as_mut().map_or_else(Vec::new, |cold| std::mem::take(&mut cold.gone))
    }

    /// All files, each with how much of it was written.
    pub fn files(&self) -> Vec<(u32, u64)> {
        let files = self.cold.iter().flat_map(|cold| &cold.files);
        files.map(|file| (file.number, file.octets)).collect()
    }

    /// Files that were written to since this was asked last.
    pub fn take_dirty_files(&mut self) -> Vec<u32> {
        let files = self.cold.iter_mut().flat_map(|cold| &mut cold.files);
        files.filter_map(|file| std::mem::take(&mut file.is_dirty).then_some(file.number)).collect()
    }

    /// Lets go of the block's copy on disk.
    #[cold]
    pub fn forget_extent(&mut self, index: usize) {
        let block = &mut self.blocks[index];
        let extent = std::mem::replace(&mut block.extent, NO_EXTENT);
        block.is_loading = false;
        let was_absent = !block.is_resident();
        let cold = self.cold.as_mut().expect("a block with an extent is in a store with files");
        cold.absent -= usize::from(was_absent);
        cold.forget(extent);
    }

    /// Begins to move blocks of `chain` to disk. `None` where there is none to be moved. `buffer` is used for the octets.
    pub fn page_out(&mut self, chain: &mut Chain, order: &PageOutOrder, buffer: &mut Option<AlignedBuffer>) -> Option<PageOut> {
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
    pub fn page_out_blocks(&mut self, picked: &[u32], order: &PageOutOrder, buffer: &mut Option<AlignedBuffer>) -> Option<PageOut> {
        if picked.is_empty() {
            return None;
        }
        let mut octets = buffer.take().unwrap_or_default();
        octets.clear();
        let heads: Vec<ExtentHead> =
            picked.iter().map(|index| self.put_block(*index, order, &mut octets)).collect();
        let cold = self.cold.get_or_insert_default();
        let file = cold.open_file();
        let (number, offset) = (file.number, file.octets);
        let (mut extents, mut at) = (vec![], offset);
        for head in heads {
            let whole = head.whole_octets();
            file.notes.push(ExtentNote { offset: at, octets: u32::try_from(whole).expect("an extent is bounded"), head });
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
        let image = &block.octets[..block.filled];
        let mut head = ExtentHead {
            queue: order.queue,
            priority: order.priority,
            unix_offset_millis: order.unix_offset_millis,
            first_position: u64::MAX,
            image_octets: u32::try_from(image.len()).expect("a block is bounded"),
            ..ExtentHead::default()
        };
        let mut lengths = vec![];
        let mut bodies = vec![];
        for record in records(image) {
            head.count += 1;
            if let StoredBody::Beside(number) = record.body() {
                let body = self.bodies.get(number);
                lengths.push(u32::try_from(body.len()).expect("a message is bounded").to_le_bytes());
                bodies.push(body);
            }
            if let Some(position) = record.position() {
                head.first_position = head.first_position.min(position);
                head.last_position = head.last_position.max(position);
            }
            if record.is_persistent() {
                head.persistent_count += 1;
                head.persistent_octets += self.octets_of(record.body());
            }
        }
        let behind: Vec<&[u8]> =
            std::iter::zip(&lengths, &bodies).flat_map(|(length, body)| [&length[..], &body[..]]).collect();
        head.bodies_octets = u32::try_from(behind.iter().map(|part| part.len()).sum::<usize>()).expect("bounded");
        put_extent(out, &head, image, &behind);
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
            if extent.block == NO_BLOCK {
                cold.vacate(index);
            } else {
                self.blocks[extent.block as usize].extent = NO_EXTENT;
                cold.forget(index);
            }
        }
        // What has failed once is tried again, from the front. Nothing more goes to that file.
        if let Some(file) = cold.files.back_mut() {
            file.is_complete = true;
        }
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
    pub fn loaded(&mut self, extents: &[u32], octets: &[u8], unix_offset_millis: u64) -> Result<(), (usize, ExtentFault)> {
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
                    let kept = self.keep_live(&taken.head, taken.image, taken.bodies, &settled, unix_offset_millis);
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
        &self,
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

    /// Adds a block at the tail of `chain` that is on disk, from a process that has ended. `live` of its records are alive.
    pub fn restore_extent(&mut self, chain: &mut Chain, file: u32, note: &ExtentNote, live: u32) {
        let block = self.link(chain, Block { live, ..Block::new(Box::default(), true) });
        chain.length += u64::from(live);
        let cold = self.cold.get_or_insert_default();
        cold.absent += 1;
        cold.restored += 1;
        let extent = Extent {
            file,
            page: u32::try_from(note.offset / PAGE_OCTETS as u64).expect("files are bounded"),
            pages: note.octets / u32::try_from(PAGE_OCTETS).expect("small"),
            block,
            first_position: note.head.first_position,
            is_busy: false,
            is_restored: true,
        };
        let index = cold.add_extent(extent);
        let file = cold.file_mut(file).expect("its file was restored before");
        file.live += 1;
        self.blocks[block as usize].extent = index;
    }

    /// Takes note of a file from a process that has ended. To be called before its extents are restored, by rising number.
    pub fn restore_file(&mut self, number: u32, octets: u64) {
        let cold = self.cold.get_or_insert_default();
        cold.file_next = number + 1;
        let file = File { number, live: 0, octets, notes: vec![], is_complete: true, is_dirty: true };
        cold.files.push_back(file);
    }

    /// All is restored: `settled` are the positions that are dead in the files. Files without anything alive go.
    pub fn finish_restore(&mut self, settled: RangeSet) {
        let Some(cold) = &mut self.cold else { return };
        cold.settled = settled;
        let Cold { files, gone, .. } = &mut **cold;
        gone.extend(files.iter().filter(|file| file.live == 0).map(|file| file.number));
        files.retain(|file| file.live > 0);
    }

    /// The position of the front of `chain`, which is not empty, of a queue whose records hold positions; or, where the front
    /// is on disk, one that is no higher, with nothing but dead messages in between.
    pub fn front_position(&self, chain: &Chain) -> u64 {
        let block = &self.blocks[chain.front_block as usize];
        if block.is_resident() {
            return self.front(chain).position().expect("its records hold positions");
        }
        let cold = self.cold.as_ref().expect("a block that is not in memory is on disk");
        cold.extents[block.extent as usize].first_position
    }

    /// Positions that are dead in the files that processes have left that have ended.
    pub fn settled_before(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.cold.iter().flat_map(|cold| cold.settled.iter())
    }

    /// Drops the front block of `chain`, which is on disk. Returns how many messages those were.
    pub fn drop_absent_front(&mut self, chain: &mut Chain) -> u64 {
        let at = chain.front_block;
        let Block { next, is_tail, .. } = self.blocks[at as usize];
        let live = u64::from(std::mem::take(&mut self.blocks[at as usize].live));
        self.forget_extent(at as usize);
        self.free_block(at as usize);
        chain.length -= live;
        if chain.cursor == at {
            chain.cursor = NO_BLOCK;
        }
        if !is_tail {
            chain.front_block = next;
            chain.front_offset = 0;
        }
        live
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
