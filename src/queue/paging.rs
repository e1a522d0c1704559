//! Which of a queue's messages are in memory: some at the front, some at the tail, and all that was delivered.

use super::Queue;
use super::cold::{Load, PageOut};
use super::page_out::PageOutOrder;
use crate::store::{AlignedBuffer, ExtentFault};

/// How much of a queue goes to disk at once.
#[derive(Clone, Copy, Debug)]
pub struct PageOutWish {
    /// What the files call the queue.
    pub queue: u64,
    /// What to add to the broker's clock for milliseconds since 1970.
    pub unix_offset_millis: u64,
    /// How many blocks at the front stay in memory.
    pub keep_front: usize,
    /// Whether the block goes too that is appended to.
    pub with_tail: bool,
    /// No more octets than this, but one block at the least.
    pub octets_max: usize,
    /// What is written to a file before another one is begun, in octets.
    pub file_octets: u64,
}

impl Queue {
    /// Begins to move messages to disk. `None` where there are none to be moved. `buffer` is used for the octets.
    pub fn page_out(&mut self, wish: &PageOutWish, buffer: &mut Option<AlignedBuffer>) -> Option<PageOut> {
        for (priority, level) in self.levels.iter_mut() {
            let order = PageOutOrder {
                queue: wish.queue,
                priority,
                unix_offset_millis: wish.unix_offset_millis,
                keep_front: wish.keep_front,
                with_tail: wish.with_tail,
                octets_max: wish.octets_max,
                file_octets: wish.file_octets,
            };
            let page_out = self.store.page_out(&mut level.chain, &order, buffer);
            if page_out.is_some() {
                return page_out;
            }
        }
        None
    }

    /// Extents of a [`PageOut`] were written.
    pub fn paged_out(&mut self, extents: &[u32]) {
        self.store.paged_out(extents);
    }

    /// Extents of a [`PageOut`] could not be written: the messages stay in memory.
    pub fn not_paged_out(&mut self, extents: &[u32]) {
        let mut chains = self.levels.iter_mut().map(|(_, level)| &mut level.chain);
        self.store.not_paged_out(&mut chains, extents);
    }

    /// Lets go of messages that were read back and are not wanted yet.
    pub fn evict(&mut self, keep_front: usize) {
        for (_, level) in self.levels.iter_mut() {
            self.store.evict(&mut level.chain, keep_front);
        }
    }

    /// Whether some of its messages are on disk only.
    #[inline]
    pub fn has_absent(&self) -> bool {
        self.store.has_absent()
    }

    /// Whether the next message has to be read back before it can be delivered.
    pub fn is_front_absent(&self) -> bool {
        let level = self.levels.top();
        !self.is_empty() && level.requeued.is_empty() && !self.store.is_front_resident(&level.chain)
    }

    /// What is to be read so that the next `ahead` blocks of messages are in memory, `octets_max` at once, but one block at
    /// the least. `None` where they are, or are on their way.
    pub fn poll_load(&mut self, ahead: usize, octets_max: usize) -> Option<Load> {
        let level = self.levels.top_mut();
        self.store.poll_load(&level.chain, ahead, octets_max)
    }

    /// Takes what was read for a [`Load`].
    ///
    /// # Errors
    /// Where in `octets` something is not as it was written, and why.
    pub fn loaded(
        &mut self,
        extents: &[u32],
        octets: &[u8],
        unix_offset_millis: u64,
    ) -> Result<(), (usize, ExtentFault)> {
        self.store.loaded(extents, octets, unix_offset_millis)
    }

    /// Whether there are files that nothing is needed of any more.
    #[inline]
    pub fn has_gone_files(&self) -> bool {
        self.store.has_gone_files()
    }

    /// Files that nothing is needed of any more: each is told once.
    pub fn take_gone_files(&mut self) -> Vec<u32> {
        self.store.take_gone_files()
    }

    /// Files that were written to since this was asked last.
    pub fn take_dirty_files(&mut self) -> Vec<u32> {
        self.store.take_dirty_files()
    }

    /// Whether anything of it lies in files.
    #[inline]
    pub fn has_files(&self) -> bool {
        self.store.has_files()
    }

    /// Whether it cannot do what it should before its front was read back.
    pub fn is_stalled(&self) -> bool {
        self.is_front_absent() && self.is_limited && self.is_over_limits(self.ready_count, self.ready_octets)
    }

    /// All files, each with how much of it was written, in octets.
    pub fn files(&self) -> Vec<(u32, u64)> {
        self.store.files()
    }
}
