//! A growing buffer that starts at a page's bound in memory, as direct writes to a disk demand.
//!
//! It owns its octets and may move between threads. It knows no disk.

/// The unit of direct writes, in octets: offsets, lengths and addresses are multiples of it.
pub const PAGE_OCTETS: usize = 4096;

/// Octets that begin at a multiple of [`PAGE_OCTETS`] in memory.
///
/// It needs no `unsafe` because it takes a page more than it offers, and begins where the first whole page does.
#[derive(Debug, Default)]
pub struct AlignedBuffer {
    /// All of it is initialised; what lies from `start + len` on is of no meaning.
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// An empty one that holds no memory.
    pub fn new() -> AlignedBuffer {
        AlignedBuffer::default()
    }

    /// An empty one with room for `octets`, rounded up to whole pages.
    pub fn with_capacity(octets: usize) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::new();
        if octets > 0 {
            buffer.move_to(octets.next_multiple_of(PAGE_OCTETS));
        }
        buffer
    }

    /// How many octets are in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many octets fit in before it must grow.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.memory.len().saturating_sub(PAGE_OCTETS)
    }

    /// The octets in it.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    /// The octets in it, to be changed.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }

    /// Appends `octets`.
    #[inline]
    pub fn extend_from_slice(&mut self, octets: &[u8]) {
        self.spare(octets.len())[..octets.len()].copy_from_slice(octets);
        self.len += octets.len();
    }

    /// Appends one octet.
    #[inline]
    pub fn push(&mut self, octet: u8) {
        self.spare(1)[0] = octet;
        self.len += 1;
    }

    /// Forgets all octets and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends zeros up to the next multiple of [`PAGE_OCTETS`].
    pub fn pad_to_page(&mut self) {
        self.resize(self.len.next_multiple_of(PAGE_OCTETS));
    }

    /// Appends zeros or cuts off, until it holds `octets`.
    pub fn resize(&mut self, octets: usize) {
        if let Some(more) = octets.checked_sub(self.len) {
            self.spare(more)[..more].fill(0);
        }
        self.len = octets;
    }

    /// The room behind the octets: at least `octets`, of any content. [`advance`](Self::advance) takes what was written
    /// there in.
    #[inline]
    pub fn spare(&mut self, octets: usize) -> &mut [u8] {
        let end = self.len + octets;
        if end > self.capacity() {
            self.grow(end);
        }
        &mut self.memory[self.start + self.len..]
    }

    /// Takes in the first `octets` of [`spare`](Self::spare).
    #[inline]
    pub fn advance(&mut self, octets: usize) {
        assert!(octets <= self.capacity() - self.len, "took in more than there is room for");
        self.len += octets;
    }

    #[cold]
    fn grow(&mut self, octets: usize) {
        self.move_to(octets.max(2 * self.capacity()).next_multiple_of(PAGE_OCTETS));
    }

    /// Moves to new memory with room for `octets`, a multiple of the page.
    fn move_to(&mut self, octets: usize) {
        let memory = vec![0; octets + PAGE_OCTETS];
        let start = memory.as_ptr().align_offset(PAGE_OCTETS);
        // Nothing but an interpreter of the language fails to align; any place is as good there.
        let start = if start < PAGE_OCTETS { start } else { 0 };
        let old = std::mem::replace(&mut self.memory, memory);
        self.memory[start..start + self.len].copy_from_slice(&old[self.start..self.start + self.len]);
        self.start = start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(buffer: &AlignedBuffer, expected: &[u8]) {
        assert_eq!(buffer.as_slice(), expected);
        assert_eq!((buffer.len(), buffer.is_empty()), (expected.len(), expected.is_empty()));
        assert!(buffer.capacity() >= expected.len());
        if buffer.capacity() > 0 {
            assert_eq!(buffer.as_slice().as_ptr().align_offset(PAGE_OCTETS), 0, "not aligned");
        }
    }

    /// Goal: it holds what was put in, aligned, however it grew.
    /// Method: the same octets by each way of appending, around the bounds of pages, beside a plain vector.
    #[test]
    fn it_grows_and_stays_aligned() {
        let mut buffer = AlignedBuffer::new();
        let mut model = Vec::new();
        check(&buffer, &model);
        for length in [0, 1, PAGE_OCTETS - 1, 1, PAGE_OCTETS, 3 * PAGE_OCTETS + 1, 100_000] {
            let octets: Vec<u8> = (0..=250).cycle().take(length).collect();
            buffer.extend_from_slice(&octets);
            model.extend_from_slice(&octets);
            check(&buffer, &model);
            buffer.push(7);
            model.push(7);
            check(&buffer, &model);
            buffer.spare(2)[..2].copy_from_slice(b"ab");
            buffer.advance(2);
            model.extend_from_slice(b"ab");
            check(&buffer, &model);
        }
        buffer.as_mut_slice()[0] = 9;
        model[0] = 9;
        check(&buffer, &model);
    }

    /// Goal: padding is zeros also where something else was before. Method: clear a full buffer, then pad and resize.
    #[test]
    fn padding_is_zero() {
        let mut buffer = AlignedBuffer::with_capacity(1);
        assert_eq!(buffer.capacity(), PAGE_OCTETS);
        buffer.extend_from_slice(&[0xff; 2 * PAGE_OCTETS]);
        buffer.clear();
        buffer.pad_to_page();
        check(&buffer, &[]);
        buffer.push(1);
        buffer.pad_to_page();
        assert_eq!(buffer.len(), PAGE_OCTETS);
        assert!(buffer.as_slice()[1..].iter().all(|octet| *octet == 0));
        buffer.pad_to_page();
        assert_eq!(buffer.len(), PAGE_OCTETS);
        buffer.resize(2);
        check(&buffer, &[1, 0]);
        buffer.resize(3);
        check(&buffer, &[1, 0, 0]);
    }
}
