//! The part of a queue that lies on disk: blocks that nobody has passed, as extents in the queue's own segment files.
//!
//! A block that goes to disk keeps its entry in the table of blocks, and its place in its chain; only its octets leave the
//! memory, and come back before the front reaches it. So what is known of a message on disk is what its block knows: some
//! seventy octets for each 64 KiB. Does no I/O: it says what to write and what to read, and is told when that was done.
//!
//! A file is written from its front to its end, is never changed, and goes when its last extent is dead.

use super::blocks::{Block, BlockStore, Chain, NO_BLOCK, NO_EXTENT};
use crate::store::{AlignedBuffer, ExtentNote, PAGE_OCTETS, RangeSet};
use std::collections::VecDeque;

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
    /// How much memory that will take, in octets.
    pub memory_octets: usize,
    /// What the queue calls the extents that lie there, in order.
    pub extents: Vec<u32>,
}

/// Where a block's copy lies.
pub(super) struct Extent {
    pub file: u32,
    pub page: u32,
    pub pages: u32,
    /// Its block; none where that is gone, and only I/O under way keeps this entry.
    pub block: u32,
    /// The lowest position in it.
    pub first_position: u64,
    /// Whether it is being written or read.
    pub is_busy: bool,
    /// Whether it was written by a process that has ended: some of what is in it may be dead.
    pub is_restored: bool,
}

/// One of a queue's segment files.
pub(super) struct File {
    pub number: u32,
    /// Extents whose blocks are there.
    pub live: u32,
    pub octets: u64,
    /// What its trailer will say, as long as it is not complete.
    pub notes: Vec<ExtentNote>,
    pub is_complete: bool,
    pub is_dirty: bool,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Cold {
    pub extents: Vec<Extent>,
    vacant: Vec<u32>,
    /// By rising number.
    pub files: VecDeque<File>,
    file_next: u32,
    gone: Vec<u32>,
    /// Blocks that are not in memory.
    pub absent: usize,
    /// Positions that were settled by processes that have ended.
    pub settled: RangeSet,
    restored: usize,
}

impl Cold {
    pub fn octets_held(&self) -> u64 {
        let notes: usize = self.files.back().map_or(0, |file| file.notes.capacity() * size_of::<ExtentNote>());
        (self.extents.capacity() * size_of::<Extent>() + self.files.capacity() * size_of::<File>() + notes) as u64
    }

    pub fn add_extent(&mut self, extent: Extent) -> u32 {
        if let Some(index) = self.vacant.pop() {
            self.extents[index as usize] = extent;
            return index;
        }
        self.extents.push(extent);
        u32::try_from(self.extents.len() - 1).expect("fewer than 2^32 blocks")
    }

    pub fn file_mut(&mut self, number: u32) -> Option<&mut File> {
        let index = self.files.binary_search_by_key(&number, |file| file.number).ok()?;
        self.files.get_mut(index)
    }

    /// The file that is written to, a new one where there is none.
    pub fn open_file(&mut self) -> &mut File {
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

    pub fn vacate(&mut self, index: u32) {
        self.vacant.push(index);
        if self.vacant.len() == self.extents.len() {
            self.vacant = vec![];
            self.extents = vec![];
        }
    }

    /// The block of an extent is dead. A file without any other goes.
    pub fn forget(&mut self, index: u32) {
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

    /// Adds a block at the tail of `chain` that is on disk, from a process that has ended. `live` of its records are alive.
    pub fn restore_extent(&mut self, chain: &mut Chain, file: u32, note: &ExtentNote, live: u32) {
        let (filled, beside_octets) = (note.head.block_octets as usize, note.head.bodies_octets);
        let block = self.link(chain, Block { filled, live, beside_octets, ..Block::new(Box::default(), true) });
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
